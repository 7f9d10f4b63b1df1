//! P3, to the end: what is emitted, told in events, counted by commits, stored, and shown by
//! Prometheus is the same number.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use parallax_connect::{SyncEvent, run_connector};
use parallax_core::{ConnectorOutput, RecordKind, SyncStats};
use parallax_metrics::{Live, ParallaxMetrics, SyncOutcome};
use parallax_store::{CommitError, CommitResult, Outcome, Store};
use parallax_tests::{Script, scripts, silence_scripted_panics};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::sync::mpsc;

use crate::support::{lines, memory};

const SYNCS: u32 = 400;
const ACCOUNTS: [&str; 2] = ["1", "2"];

/// What happened so far, added up.
#[derive(Default)]
struct Books {
    /// By a metric's name without `parallax_` and `_total`.
    sums: BTreeMap<String, u64>,
    syncs: u32,
}

impl Books {
    fn add(&mut self, name: &str, count: u64) {
        *self.sums.entry(name.to_owned()).or_default() += count;
    }
}

/// A fault of the commit.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The same output comes again.
    Twice,
    /// Another run comes under the same id.
    ReusedId,
}

fn any_sync() -> impl Strategy<Value = (&'static str, Script, Fault)> {
    let fault = prop_oneof![
        8 => Just(Fault::None),
        1 => Just(Fault::Twice),
        1 => Just(Fault::ReusedId),
    ];
    let account = prop::sample::select(ACCOUNTS.to_vec());
    (account, scripts("left"), fault)
}

#[test]
fn books_balance_from_the_events_to_prometheus() {
    silence_scripted_panics();
    let recorder = parallax_metrics::Prometheus::install().unwrap();
    let metrics = ParallaxMetrics::new();
    metrics.register("left", &["a", "b", "c", "d"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let rendered = recorder.clone();
    std::thread::spawn(move || serve(&listener, || rendered.render_openmetrics()));
    let prometheus = super::Prometheus::start(&address);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let store = runtime.block_on(memory());
    let books = std::cell::RefCell::new(Books::default());
    let config = ProptestConfig {
        cases: SYNCS,
        failure_persistence: None,
        // A series that went wrong cannot be run again with less.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&any_sync(), |(account, script, fault)| {
            let books = &mut books.borrow_mut();
            runtime.block_on(sync(&store, &metrics, books, account, &script, fault))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let books = books.into_inner();
    for what in [
        "entities_deleted",
        "relationships_updated",
        "steps_failed",
        "syncs_error",
    ] {
        assert!(books.sums[what] > 0, "{what} never happened");
    }

    let told = |name: &str| match &prometheus {
        // Without one, what it would have been told.
        None => in_page(&recorder.render(), name),
        Some(prometheus) => {
            let sum = prometheus.number(&format!("sum({name})"));
            sum.unwrap_or_else(|| panic!("Prometheus knows no {name}"))
        }
    };
    if let Some(prometheus) = &prometheus {
        prometheus.scrape_anew();
    }
    let stored = |sql: &str| -> f64 {
        let rows = runtime.block_on(lines(&store, sql));
        rows[0].parse().unwrap()
    };
    for field in SyncStats::FIELDS {
        let metric = format!("parallax_{field}_total");
        // The gauges are of the last commit of each account.
        if field.ends_with("_kept") || field.ends_with("_held") {
            continue;
        }
        let sum = books.sums[field] as f64;
        assert_eq!(
            stored(&format!("SELECT sum({field}) FROM parallax_sync")),
            sum,
            "{field}"
        );
        assert_eq!(told(&metric), sum, "{metric}");
    }
    for kind in ["entities", "relationships"] {
        let of = |what: &str| told(&format!("parallax_{kind}_{what}_total"));
        let emitted: f64 = ["created", "updated", "unchanged", "duplicates", "rejected"]
            .map(of)
            .iter()
            .sum();
        assert_eq!(
            emitted,
            books.sums[&format!("{kind}_in_events")] as f64,
            "{kind}"
        );
        let live = of("created") - of("deleted");
        assert_eq!(told(&format!("parallax_{kind}")), live, "{kind}");
        let view = format!("SELECT sum({kind}) FROM parallax_source");
        assert_eq!(stored(&view), live, "{kind}");
    }
    for (outcome, metric) in [
        (
            "steps_completed",
            "parallax_steps_total{outcome=~\"completed|incomplete\"}",
        ),
        (
            "steps_failed",
            "parallax_steps_total{outcome=~\"failed|skipped\"}",
        ),
        ("syncs_error", "parallax_syncs_total{outcome=\"error\"}"),
        ("syncs_stored", "parallax_syncs_total{outcome!=\"error\"}"),
    ] {
        if prometheus.is_some() {
            assert_eq!(told(metric), books.sums[outcome] as f64, "{metric}");
        }
    }
    let syncs = books.sums["syncs_stored"] as f64;
    assert_eq!(stored("SELECT count(*) FROM parallax_sync"), syncs);
}

/// One sync, its faults included, and the books of it.
async fn sync(
    store: &Store,
    metrics: &ParallaxMetrics,
    books: &mut Books,
    account: &str,
    script: &Script,
    fault: Fault,
) -> Result<(), TestCaseError> {
    books.syncs += 1;
    let sync_id = format!("sync-{}", books.syncs);
    let (output, emitted) = run(books, script, account, &sync_id).await;
    metrics.sync_started(script.name);
    metrics.steps_ended(script.name, output.report());
    let result = store.commit_sync(&output).await.unwrap();
    prop_assert!(!result.replayed);
    for (kind, emitted) in RecordKind::ALL.into_iter().zip(emitted) {
        let counts = result.stats.counts(kind);
        let counted = counts.created
            + counts.updated
            + counts.unchanged
            + counts.duplicates
            + counts.rejected;
        prop_assert_eq!(counted, emitted, "{} of {}", kind, sync_id);
        books.add(&format!("{}_in_events", kind.plural()), emitted);
    }
    for (field, value) in SyncStats::FIELDS.into_iter().zip(result.stats.values()) {
        books.add(field, value);
    }
    books.add("syncs_stored", 1);
    record(store, metrics, account, script, &result).await;

    match fault {
        Fault::None => {}
        Fault::Twice => {
            let again = store.commit_sync(&output).await.unwrap();
            prop_assert!(again.replayed);
            prop_assert_eq!(again.stats, result.stats);
        }
        Fault::ReusedId => {
            // Without a step it is another one, unless this one was the same.
            let mut other = script.clone();
            other.steps.truncate(1);
            other.steps[0].parts.clear();
            let (output, _) = run(&mut Books::default(), &other, account, &sync_id).await;
            match store.commit_sync(&output).await {
                Err(CommitError::SyncIdReused { .. }) => {
                    books.add("syncs_error", 1);
                    metrics.sync_started(script.name);
                    let (outcome, now) = (SyncOutcome::Error, SystemTime::now());
                    metrics.sync_ended(script.name, account, outcome, Duration::ZERO, now);
                }
                again => prop_assert!(again.unwrap().replayed),
            }
        }
    }
    Ok(())
}

/// Runs a script, and adds up what its events say: entities and relationships.
async fn run(
    books: &mut Books,
    script: &Script,
    account: &str,
    sync_id: &str,
) -> (ConnectorOutput, [u64; 2]) {
    let (sender, mut receiver) = mpsc::channel(64);
    let output = run_connector(script, account, sync_id, Some(&sender))
        .await
        .unwrap();
    drop(sender);
    assert_eq!(output.undelivered_events(), 0);
    let mut emitted = [0, 0];
    while let Some(event) = receiver.recv().await {
        match event {
            SyncEvent::StepCompleted {
                entities,
                relationships,
                ..
            } => {
                books.add("steps_completed", 1);
                emitted[0] += entities as u64;
                emitted[1] += relationships as u64;
            }
            SyncEvent::StepFailed { .. } => books.add("steps_failed", 1),
            _ => {}
        }
    }
    (output, emitted)
}

/// Records a commit as the daemon does.
async fn record(
    store: &Store,
    metrics: &ParallaxMetrics,
    account: &str,
    script: &Script,
    result: &CommitResult,
) {
    let (took, now) = (Duration::from_millis(1), SystemTime::now());
    let outcome = match result.outcome {
        Outcome::Committed => SyncOutcome::Committed,
        Outcome::Partial => SyncOutcome::Partial,
        Outcome::Failed => SyncOutcome::Failed,
    };
    metrics.committed(script.name, account, outcome, &result.stats, took, now);
    let sql = format!(
        "SELECT entities || ' ' || relationships FROM parallax_source WHERE account_id = '{account}'"
    );
    let row = lines(store, &sql).await;
    let (entities, relationships) = row[0].split_once(' ').unwrap();
    let live = Live {
        entities: entities.parse().unwrap(),
        relationships: relationships.parse().unwrap(),
        waiting: 0,
    };
    metrics.live(script.name, account, live);
    metrics.sync_ended(script.name, account, outcome, took, now);
}

/// Returns the sum of a metric's series in a scrape.
fn in_page(page: &str, name: &str) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next()? == name).then(|| value.parse::<f64>().unwrap())
    });
    samples.sum()
}

/// Answers every request with the same page.
fn serve(listener: &TcpListener, page: impl Fn() -> String) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let head = BufReader::new(&stream).lines();
        head.map_while(Result::ok).find(String::is_empty);
        let (page, content_type) = (
            page(),
            parallax_metrics::Prometheus::OPENMETRICS_CONTENT_TYPE,
        );
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{page}",
            page.len()
        )
        .ok();
    }
}
