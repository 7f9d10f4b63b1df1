//! How long a daemon of a thousand sources and twenty thousand syncs takes to answer what its page
//! asks, while nothing runs and while as many syncs run as may at a time.
//!
//! `cargo xtask bench requests`, in a release build, takes some minutes, most of it for the syncs that
//! are to be on record. The program is the daemon, too: it starts itself.
#![allow(clippy::print_stdout, reason = "what the program is for")]
#![allow(
    clippy::indexing_slicing,
    reason = "of JSON: what is not there is null"
)]

mod daemon;

use std::env;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parallax_connect::{
    Connector, ConnectorError, Runner, Step, StepContext, entity, relationship, step,
};
use parallax_server::{App, Opened};
use parallax_store::Store;
use tempfile::TempDir;

use daemon::{Daemon, Outcome, median};

const CONNECTORS: [&str; 5] = ["aws", "gcp", "github", "jira", "okta"];
/// Of each connector.
const ACCOUNTS: usize = 200;
/// Of each account.
const SYNCS: usize = 20;
/// How often each request is sent.
const ASKED: usize = 21;
/// How many syncs are asked for, to run one after the other while requests are answered.
const QUEUED: usize = 100;
/// What a step waits, as for an answer.
const STEP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("serve") {
        let app = CONNECTORS.into_iter().fold(App::new(), |app, name| {
            app.register(name, "Made up", move || {
                Ok(Opened::new(System::new(name, STEP)))
            })
        });
        return app.main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A system of which one user changes from run to run.
struct System {
    name: &'static str,
    wait: Duration,
    runs: AtomicUsize,
}

impl System {
    fn new(name: &'static str, wait: Duration) -> Self {
        Self {
            name,
            wait,
            runs: AtomicUsize::new(0),
        }
    }

    async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.wait).await;
        for user in 0..20 {
            let revision = if user == run % 20 { run } else { 0 };
            ctx.emit(
                entity("user", format!("{}-{user}", ctx.account_id()))
                    .class("User")
                    .display_name(format!("User {user} of {}", ctx.account_id()))
                    .property("mail", format!("user-{user}@example.org"))
                    .property("revision", revision),
            )?;
        }
        Ok(())
    }

    async fn groups(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        tokio::time::sleep(self.wait).await;
        if ctx.account_id().ends_with('7') {
            return Err(ConnectorError::unauthorized("list groups: 403"));
        }
        for group in 0..10 {
            let key = |n: usize| format!("{}-{n}", ctx.account_id());
            ctx.emit(entity("group", key(group)).class("Group"))?;
            for user in [group, group + 10] {
                ctx.emit(relationship(
                    ("user", key(user)),
                    "MEMBER_OF",
                    ("group", key(group)),
                ))?;
            }
        }
        Ok(())
    }
}

impl Connector for System {
    fn name(&self) -> &str {
        self.name
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![
            step("users", "Collect users", |ctx| self.users(ctx)),
            step("groups", "Collect groups", |ctx| self.groups(ctx)).depends_on(["users"]),
        ]
    }
}

fn account(n: usize) -> String {
    format!("customer-{n:03}")
}

fn measure() -> Outcome<()> {
    let directory = TempDir::new_in(".")?;
    fill(&directory)?;
    let mut config = "store = { url = 'sqlite:parallax.db' }
        server = { listen = '127.0.0.1:0' }\n"
        .to_owned();
    for name in CONNECTORS {
        for account in (0..ACCOUNTS).map(account) {
            // Nothing runs unless it is asked for.
            writeln!(
                config,
                "[[connector]]\nkind = '{name}'\naccount = '{account}'\ncron = '@yearly'\nmissed = 'skip'"
            )?;
        }
    }
    let daemon = Daemon::start(directory, &config)?;
    let sources = CONNECTORS.len() * ACCOUNTS;
    println!("{sources} sources, {} syncs on record", sources * SYNCS);
    println!("medians of {ASKED} in milliseconds    nothing runs  syncs run        KB");
    let requests = requests(&daemon)?;
    let mut idle = Vec::new();
    for (_, path) in &requests {
        idle.push(ask(&daemon, path)?);
    }
    for account in (0..QUEUED).map(account) {
        daemon.ask("POST", &format!("/api/v1/sources/jira/{account}/syncs"))?;
    }
    for ((name, path), (alone, bytes)) in requests.iter().zip(idle) {
        let (busy, _) = ask(&daemon, path)?;
        let kilobytes = bytes as f64 / 1e3;
        println!("{name:<32} {alone:>12.1} {busy:>10.1} {kilobytes:>9.1}");
    }
    let memory = daemon.memory()?;
    println!(
        "the daemon's memory {:>12.1} MB, {:.1} MB at the most",
        memory.now, memory.peak
    );
    Ok(())
}

/// Commits all syncs that are to be on record, with their journals.
#[tokio::main(flavor = "current_thread")]
async fn fill(directory: &TempDir) -> Outcome<()> {
    let path = directory.path().join("parallax.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await?;
    let mut number = 0;
    for run in 0..SYNCS {
        for name in CONNECTORS {
            for account in (0..ACCOUNTS).map(account) {
                let system = System::new(name, Duration::ZERO);
                system.runs.store(run, Ordering::Relaxed);
                let session = store.session();
                let runner = Runner::new(&system)
                    .sink(&session)
                    .journal(session.journal());
                number += 1;
                let output = runner.run(&account, &format!("sync-{number:06}")).await?;
                session.commit(&output).await?;
            }
        }
    }
    Ok(())
}

/// Returns what the page asks, each with a name.
fn requests(daemon: &Daemon) -> Outcome<Vec<(&'static str, String)>> {
    let one = "connector_id=okta&account_id=customer-100";
    let mut late = daemon.ask("GET", "/api/v1/syncs?limit=1000")?;
    while let Some(next) = late["next"].as_str() {
        let next = daemon.ask("GET", &format!("/api/v1/syncs?limit=1000&cursor={next}"))?;
        if next["next"].is_null() {
            break;
        }
        late = next;
    }
    let cursor = late["next"].as_str().ok_or("there is one page of syncs")?;
    let found = daemon.ask("GET", "/api/v1/search?q=user+7+of+customer-100&limit=1")?;
    let id = found["items"][0]["id"].as_str().ok_or("nothing is found")?;
    let requests = [
        ("all sources", "sources?recent=0&limit=1000".to_owned()),
        (
            "their last 20 syncs, too",
            "sources?recent=20&limit=1000".to_owned(),
        ),
        ("one source", "sources/okta/customer-100".to_owned()),
        ("syncs, the newest 50", "syncs?limit=50".to_owned()),
        (
            "syncs, among the oldest",
            format!("syncs?limit=50&cursor={cursor}"),
        ),
        ("syncs of a source", format!("syncs?limit=50&{one}")),
        (
            "syncs that failed: none",
            "syncs?limit=50&outcome=failed".to_owned(),
        ),
        ("a sync", "syncs/sync-010000".to_owned()),
        (
            "a sync, by how its id begins",
            "syncs/sync-02000".to_owned(),
        ),
        ("a sync's journal", "syncs/sync-010000/journal".to_owned()),
        ("held changesets", "changesets".to_owned()),
        ("types", "types".to_owned()),
        ("search", "search?q=user+7&limit=50".to_owned()),
        (
            "search, nothing found",
            "search?q=nobody&limit=50".to_owned(),
        ),
        ("an entity", format!("entities/{id}")),
        ("its neighbours", format!("entities/{id}/relationships")),
        ("explain", format!("explain?subject={id}")),
        ("history", format!("history?subject={id}")),
    ];
    let of_api = |(name, path)| (name, format!("/api/v1/{path}"));
    let requests = requests.into_iter().map(of_api);
    Ok(requests
        .chain([("metrics", "/metrics".to_owned())])
        .collect())
}

/// Returns how many milliseconds an answer takes, and of how many bytes it is.
fn ask(daemon: &Daemon, path: &str) -> Outcome<(f64, usize)> {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ASKED {
        let begin = Instant::now();
        bytes = daemon.answer("GET", path)?.len();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok((median(&mut times), bytes))
}
