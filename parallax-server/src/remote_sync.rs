//! `parallax sync` while a daemon holds the store: the daemon syncs, and it is shown here.

use std::time::Duration;

use hyper::Method;
use parallax_connect::{JournalEntry, JournalSink};
use parallax_store::Store;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::args::SyncArgs;
use crate::conclusion::Conclusion;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json::Told;
use crate::progress;
use crate::remote::{Refusal, Remote};
use crate::signals::Signals;
use crate::sync::past;

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How many sources an error names at most.
const LISTED: usize = 8;

/// The code of a sync that was cancelled.
const CANCELLED: &str = "cancelled";

#[derive(Deserialize)]
struct Accepted {
    sync_id: String,
}

/// A part of the sources that the daemon knows.
#[derive(Deserialize)]
struct SourcesPart {
    items: Vec<Source>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Source {
    connector_id: String,
    /// Empty if it is not known.
    account_id: String,
    configured: bool,
    kind: Option<String>,
    broken: Option<Fault>,
}

/// Why a source cannot be synced.
#[derive(Deserialize)]
struct Fault {
    reason: String,
    help: String,
}

#[derive(Deserialize)]
struct JournalPart {
    items: Vec<Box<RawValue>>,
    next: u64,
}

/// Starts a sync of a source, follows it to its end, and notes in `conclusion` what came of it. The
/// first signal cancels it.
pub(crate) async fn run(
    remote: &Remote,
    args: &SyncArgs,
    signals: &Signals,
    console: &Console<'_>,
    conclusion: &mut Conclusion,
) -> Result<(), Failure> {
    let not_passed_on = [
        ("--select", !args.select.is_empty()),
        ("--sync-id", args.sync_id.is_some()),
    ];
    if let Some((option, _)) = not_passed_on.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::Usage {
            message: format!("{option} cannot be passed on to the daemon that holds the store"),
            help: "leave it out, or stop the daemon and sync again".to_owned(),
        });
    }
    let store = Store::open_read_only(&args.store.url).await?;
    conclusion.store = Some(store.url().to_owned());
    conclusion.store_exists = true;
    let (connector_id, account_id) = find(remote, &args.connector, args.account.as_deref()).await?;
    conclusion.connector_id = Some(connector_id.clone());
    conclusion.account_id = Some(account_id.clone());
    let path = ["sources", &connector_id, &account_id, "syncs"];
    let Accepted { sync_id } = remote.ask(Method::POST, &path).await?;
    conclusion.sync_id = Some(sync_id.clone());

    let told = if console.bars.is_hidden() {
        follow(remote, &sync_id, signals, None).await
    } else {
        let past = past(&store, &connector_id, &account_id).await;
        let (watcher, entries) = progress::Watcher::new();
        let bars = console.bars.clone();
        let past = past.unwrap_or_default();
        let shown = tokio::spawn(progress::show(entries, past, "committing", bars));
        let told = follow(remote, &sync_id, signals, Some(&*watcher)).await;
        drop(watcher);
        // Were it to panic, there would be bars missing, and nothing else.
        shown.await.ok();
        told
    };
    let ended = told.and_then(|told| told.note(conclusion));
    ended.map_err(|failure| as_heard(failure, signals))
}

/// Finds the one source of the daemon that is meant: by its name or, if none has it, by its kind.
async fn find(
    remote: &Remote,
    name: &str,
    account_id: Option<&str>,
) -> Result<(String, String), Failure> {
    let mut sources: Vec<Source> = Vec::new();
    let mut query = "?recent=0&limit=1000".to_owned();
    loop {
        let part: SourcesPart = remote.ask_with(Method::GET, &["sources"], &query).await?;
        sources.extend(part.items);
        match part.next {
            Some(next) => query = format!("?recent=0&limit=1000&cursor={next}"),
            None => break,
        }
    }
    sources.retain(|source| source.configured);
    let is_named = sources.iter().any(|source| source.connector_id == name);
    let is_meant = |source: &&Source| {
        let called = match is_named {
            true => Some(source.connector_id.as_str()),
            false => source.kind.as_deref(),
        };
        let is_it = |wanted| source.account_id == wanted || source.account_id.is_empty();
        called == Some(name) && account_id.is_none_or(is_it)
    };
    let meant: Vec<&Source> = sources.iter().filter(is_meant).collect();
    match meant.as_slice() {
        [
            Source {
                broken: Some(fault),
                ..
            },
        ] => Err(Failure::Refused(Refusal {
            code: "source_broken".to_owned(),
            detail: fault.reason.clone(),
            help: fault.help.clone(),
        })),
        [source] => Ok((source.connector_id.clone(), source.account_id.clone())),
        [] => Err(Failure::NotServed {
            name: name.to_owned(),
            account_id: account_id.map(str::to_owned),
            served: listed(&sources),
        }),
        several => Err(Failure::Usage {
            message: format!("{name} is several sources of the daemon that holds the store"),
            help: format!(
                "name one of them, with its --account where one name has several: {}",
                listed(several.iter().copied())
            ),
        }),
    }
}

/// Names sources, a few of them if there are many.
fn listed<'a>(sources: impl IntoIterator<Item = &'a Source>) -> String {
    let mut named: Vec<String> = sources
        .into_iter()
        .map(|source| match source.account_id.as_str() {
            "" => source.connector_id.clone(),
            account_id => format!("{} {account_id:?}", source.connector_id),
        })
        .collect();
    if named.len() > LISTED {
        let more = named.len() - LISTED;
        named.truncate(LISTED);
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

/// Names the signal, where it was one that cancelled the sync.
fn as_heard(failure: Failure, signals: &Signals) -> Failure {
    match (signals.received(), failure) {
        (Some(signal), Failure::Told { code, .. }) if code == CANCELLED => {
            Failure::Cancelled(signal)
        }
        (_, failure) => failure,
    }
}

/// Passes on what a sync tells until it has ended, and returns what it came to.
async fn follow(
    remote: &Remote,
    sync_id: &str,
    signals: &Signals,
    watcher: Option<&dyn JournalSink>,
) -> Result<Told, Failure> {
    let mut next = 1;
    let mut cancelled = false;
    loop {
        if let Some(watcher) = watcher {
            next = pass_on(remote, sync_id, next, watcher).await?;
        }
        let path = ["syncs", sync_id, "result"];
        match remote.ask(Method::GET, &path).await {
            Err(Failure::Refused(refusal)) if refusal.code == "still_running" => {}
            Err(Failure::Refused(refusal)) if refusal.code == "no_such_result" => {
                return Err(end_unknown(remote, sync_id).await);
            }
            told => return told,
        }
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = signals.wait(), if !cancelled => {
                cancelled = true;
                let path = ["syncs", sync_id, "cancel"];
                let asked: Result<Accepted, Failure> = remote.ask(Method::POST, &path).await;
                match asked {
                    // One that has just ended is told with what it came to.
                    Ok(_) | Err(Failure::Refused(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
}

/// Says what became of a sync whose result the daemon does not have.
async fn end_unknown(remote: &Remote, sync_id: &str) -> Failure {
    let path = ["syncs", sync_id];
    match remote.ask::<IgnoredAny>(Method::GET, &path).await {
        Ok(_) => Failure::Told {
            code: "no_such_result".to_owned(),
            message: "the sync has ended, and what it came to is no longer at hand".to_owned(),
            help: format!("see `parallax syncs {sync_id}`"),
            exit: Exit::Failed,
        },
        // Before it began, somebody took it back.
        Err(Failure::Refused(_)) => cancelled_there(),
        Err(failure) => failure,
    }
}

/// Passes on the entries that have come, and returns the number of the next.
async fn pass_on(
    remote: &Remote,
    sync_id: &str,
    mut next: u64,
    watcher: &dyn JournalSink,
) -> Result<u64, Failure> {
    loop {
        let path = ["syncs", sync_id, "journal"];
        let query = format!("?from={next}");
        let part: JournalPart = match remote.ask_with(Method::GET, &path, &query).await {
            // It waits for its turn.
            Err(Failure::Refused(refusal)) if refusal.code == "no_such_journal" => return Ok(next),
            part => part?,
        };
        // What this version cannot read is for others.
        let entries = part.items.iter();
        for entry in entries.filter_map(|line| JournalEntry::from_json(line.get()).ok()) {
            watcher.append(&entry);
        }
        next = part.next;
        if part.items.is_empty() {
            return Ok(next);
        }
    }
}

/// Says that it was not this process that cancelled a sync.
pub(crate) fn cancelled_there() -> Failure {
    Failure::Told {
        code: CANCELLED.to_owned(),
        message: "the sync was cancelled in the daemon".to_owned(),
        help: "nothing was committed: run the sync again".to_owned(),
        exit: Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::error::Failure;
    use crate::json::render;
    use crate::signals::Signal;
    use crate::testing::later;

    /// A daemon that answers what it is told to, and what it was asked.
    struct Daemon {
        remote: Remote,
        asked: Arc<Mutex<Vec<String>>>,
    }

    async fn daemon(
        answer: impl Fn(&str) -> (u16, String) + Clone + Send + Sync + 'static,
    ) -> Daemon {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = Remote::at(listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, noted) = (answer.clone(), Arc::clone(&noted));
                let service = service_fn(move |request: Request<Incoming>| {
                    let asked = format!("{} {}", request.method(), request.uri());
                    let (status, body) = answer(&asked);
                    noted
                        .lock()
                        .unwrap()
                        .push(asked.replace("/api/v1/syncs/", ""));
                    let response = Response::builder().status(status).body(body).unwrap();
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        Daemon { remote, asked }
    }

    impl Daemon {
        fn asked(&self) -> String {
            self.asked.lock().unwrap().join(", ")
        }
    }

    fn problem(status: u16, code: &str) -> (u16, String) {
        let problem = format!("{{\"code\":\"{code}\",\"detail\":\"\",\"help\":\"\"}}");
        (status, problem)
    }

    fn cancelled() -> String {
        render(&Conclusion {
            failure: Some(cancelled_there()),
            ..Conclusion::default()
        })
    }

    #[derive(Default)]
    struct Passed(Mutex<Vec<u64>>);

    impl JournalSink for Passed {
        fn append(&self, entry: &JournalEntry) {
            self.0.lock().unwrap().push(entry.seq);
        }
    }

    #[tokio::test]
    async fn source_is_found_by_its_name_or_else_by_its_kind() {
        let daemon = daemon(|asked: &str| {
            let source = |connector_id: &str, account_id: &str, rest: &str| {
                format!(
                    "{{\"connector_id\":\"{connector_id}\",\"account_id\":\"{account_id}\",{rest}}}"
                )
            };
            let good = "\"configured\":true,\"kind\":\"host\",\"broken\":null";
            let team = "\"configured\":true,\"kind\":\"directory\",\"broken\":null";
            let broken = "\"configured\":true,\"kind\":\"mail\",\
                \"broken\":{\"reason\":\"no key\",\"help\":\"make one\"}";
            let part = |items: &[String], next: &str| {
                (
                    200,
                    format!("{{\"items\":[{}],\"next\":{next}}}", items.join(",")),
                )
            };
            match asked {
                asked if asked.ends_with("&cursor=01") => part(
                    &[
                        source("late", "", broken),
                        source("old", "acme", &good.replace("true", "false")),
                        source("team", "acme", team),
                    ],
                    "null",
                ),
                _ => part(
                    &[
                        source("db", "here", good),
                        source("web", "a\\nb", good),
                        source("web", "here", good),
                    ],
                    "\"01\"",
                ),
            }
        })
        .await;
        let mut found = Vec::new();
        for (name, account) in [
            ("web", Some("here")),
            ("web", None),
            ("db", None),
            ("directory", None),
            ("host", None),
            ("host", Some("a\nb")),
            ("late", Some("acme")),
            ("mail", None),
            ("old", None),
            ("db", Some("nowhere")),
        ] {
            found.push(match find(&daemon.remote, name, account).await {
                Ok((connector_id, account_id)) => format!("{name}: {connector_id} {account_id:?}"),
                Err(failure) => format!("{name}: {failure}; {}", failure.help()),
            });
        }
        insta::assert_snapshot!(found.join("\n"), @r#"
        web: web "here"
        web: web is several sources of the daemon that holds the store; name one of them, with its --account where one name has several: web "a\nb", web "here"
        db: db "here"
        directory: team "acme"
        host: host is several sources of the daemon that holds the store; name one of them, with its --account where one name has several: db "here", web "a\nb", web "here"
        host: web "a\nb"
        late: no key; make one
        mail: no key; make one
        old: the daemon that holds the store does not sync old; add it to the daemon's configuration, or stop the daemon and sync again; it syncs db "here", web "a\nb", web "here", late, team "acme"
        db: the daemon that holds the store does not sync db in account "nowhere"; add it to the daemon's configuration, or stop the daemon and sync again; it syncs db "here", web "a\nb", web "here", late, team "acme"
        "#);
    }

    #[tokio::test]
    async fn first_signal_cancels_the_sync_of_the_daemon() {
        let told = Arc::new(AtomicBool::new(false));
        let daemon = daemon(move |asked: &str| match asked {
            asked if asked.ends_with("/cancel") => {
                told.store(true, Ordering::Relaxed);
                (202, "{\"sync_id\":\"s-1\"}".to_owned())
            }
            _ if told.load(Ordering::Relaxed) => (200, cancelled()),
            _ => problem(409, "still_running"),
        })
        .await;
        let (send, signals) = Signals::by_hand();
        send(Signal::Terminate);
        let told = follow(&daemon.remote, "s-1", &signals, None).await.unwrap();
        let failure = told.note(&mut Conclusion::default()).unwrap_err();
        assert!(matches!(failure, Failure::Told { .. }), "{failure}");
        let failure = as_heard(failure, &signals);
        assert!(
            matches!(failure, Failure::Cancelled(Signal::Terminate)),
            "{failure}"
        );
        assert_eq!(
            daemon.asked(),
            "GET s-1/result, POST s-1/cancel, GET s-1/result"
        );
    }

    #[tokio::test]
    async fn sync_that_is_taken_back_before_it_begins_has_an_end() {
        let daemon = daemon(|_: &str| problem(404, "no_such_result")).await;
        let (_send, signals) = Signals::by_hand();
        let ended = follow(&daemon.remote, "s-1", &signals, None).await;
        let failure = as_heard(ended.err().unwrap(), &signals);
        assert_eq!(
            (failure.code(), failure.exit()),
            ("cancelled".into(), Exit::Failed)
        );
    }

    #[tokio::test]
    async fn sync_whose_result_is_gone_was_not_cancelled() {
        let daemon = daemon(|asked: &str| match asked.ends_with("/result") {
            true => problem(404, "no_such_result"),
            false => (200, "{\"outcome\":\"committed\"}".to_owned()),
        })
        .await;
        let (_send, signals) = Signals::by_hand();
        let ended = follow(&daemon.remote, "s-1", &signals, None).await;
        let failure = as_heard(ended.err().unwrap(), &signals);
        assert_eq!(failure.code(), "no_such_result");
        assert_eq!(failure.help(), "see `parallax syncs s-1`");
        assert_eq!(daemon.asked(), "GET s-1/result, GET s-1");
    }

    #[tokio::test]
    async fn each_entry_is_passed_on_once() {
        let entry = |seq: u64| {
            format!(
                "{{\"v\":1,\"seq\":{seq},\"at\":\"2026-01-01T00:00:00Z\",\"connector_id\":\"team\",\
                 \"account_id\":\"acme\",\"sync_id\":\"s-1\",\"kind\":\"step_started\",\"step_id\":\"a\"}}"
            )
        };
        let rounds = Arc::new(Mutex::new(0));
        let daemon = daemon(move |asked: &str| {
            let mut rounds = rounds.lock().unwrap();
            let (_, from) = asked.split_once("?from=").unwrap_or_default();
            match (from, *rounds) {
                ("", 0..2) => {
                    *rounds += 1;
                    problem(409, "still_running")
                }
                ("", _) => (200, render(&later())),
                // Before it began.
                (_, 0) => problem(404, "no_such_journal"),
                ("1", _) => {
                    let items = [entry(1), entry(2)].join(",");
                    (200, format!("{{\"items\":[{items}],\"next\":3}}"))
                }
                (next, _) => (200, format!("{{\"items\":[],\"next\":{next}}}")),
            }
        })
        .await;
        let passed = Passed::default();
        let signals = Signals::deaf();
        let told = follow(&daemon.remote, "s-1", &signals, Some(&passed)).await;
        let mut conclusion = Conclusion::default();
        told.unwrap().note(&mut conclusion).unwrap();
        assert_eq!(conclusion.exit(), Exit::Ok);
        assert_eq!(*passed.0.lock().unwrap(), [1, 2]);
    }
}
