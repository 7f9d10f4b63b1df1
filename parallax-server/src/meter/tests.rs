use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use parallax_connect::{Connector, Step, StepContext, entity, run_connector, step};
use parallax_core::{ConnectorOutput, Counts, RecordKind, Run};
use parallax_scheduler::Job;
use parallax_store::Cell;

use super::*;

/// A connector that finds what it is told, and says if it did not see everything. A key that ends with
/// `!` is one of a record that is rejected.
struct Told(Mutex<(&'static [&'static str], bool)>);

impl Connector for Told {
    fn name(&self) -> &str {
        "told"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![step("users", "", async |ctx: StepContext| {
            let (keys, sees_all) = *self.0.lock().unwrap();
            for key in keys {
                match key.strip_suffix('!') {
                    Some(key) => {
                        let user = entity("user", key).property("load", f64::NAN);
                        ctx.emit(user).unwrap_err();
                    }
                    None => ctx.emit(entity("user", *key))?,
                }
            }
            if !sees_all {
                ctx.incomplete("told to");
            }
            Ok(())
        })]
    }
}

/// What is known of the past after each of these syncs, with times as numbers of syncs.
async fn pasts(syncs: &[(&'static [&'static str], bool)]) -> Vec<String> {
    let store = Store::open("sqlite::memory:").await.unwrap();
    let connector = Told(Mutex::new((&[], true)));
    let source_id = ("told".to_owned(), "it's".to_owned());
    let mut pasts = Vec::new();
    for (n, told) in syncs.iter().enumerate() {
        *connector.0.lock().unwrap() = *told;
        let sync_id = format!("sync-{n}");
        let output = run_connector(&connector, "it's", &sync_id, None);
        // The view tells times in milliseconds.
        let millis = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_millis()
        };
        let before = millis();
        while millis() == before {}
        store.commit_sync(&output.await.unwrap()).await.unwrap();

        let sql = "SELECT committed_at FROM parallax_sync ORDER BY sync_id";
        let times: Vec<SystemTime> = store
            .query(sql)
            .await
            .unwrap()
            .rows
            .iter()
            .map(|row| match &row[0] {
                Cell::Text(text) => text.parse::<jiff::Timestamp>().unwrap().into(),
                _ => unreachable!("a time is a text"),
            })
            .collect();
        let sync = |at: Option<SystemTime>| match at {
            Some(at) => times
                .iter()
                .position(|time| *time == at)
                .unwrap()
                .to_string(),
            None => "-".to_owned(),
        };
        let past = past(&store, &source_id).await.unwrap();
        pasts.push(format!(
            "success {}, complete {}, kept {} + {} since {}",
            sync(past.last_success),
            sync(past.last_complete),
            past.entities_kept,
            past.relationships_kept,
            sync(past.kept_since),
        ));
    }
    pasts
}

#[tokio::test]
async fn past_is_what_the_syncs_were() {
    let pasts = pasts(&[
        (&["ann", "bob", "eve"], true),
        (&["ann", "bob"], false),
        (&["ann"], false),
        (&["ann", "bob", "eve"], false),
        (&["ann", "bob"], false),
        (&["ann"], true),
    ]);
    insta::assert_snapshot!(pasts.await.join("\n"), @"
    success 0, complete 0, kept 0 + 0 since -
    success 1, complete 0, kept 1 + 0 since 1
    success 2, complete 0, kept 2 + 0 since 1
    success 3, complete 0, kept 0 + 0 since -
    success 4, complete 0, kept 1 + 0 since 4
    success 5, complete 5, kept 0 + 0 since -
    ");
}

#[tokio::test]
async fn what_is_kept_for_a_rejected_record_is_kept_since_then() {
    let pasts = pasts(&[
        (&["ann"], true),
        (&["ann!"], true),
        (&["ann!"], true),
        (&["ann"], true),
    ]);
    insta::assert_snapshot!(pasts.await.join("\n"), @"
    success 0, complete 0, kept 0 + 0 since -
    success 1, complete 1, kept 1 + 0 since 1
    success 2, complete 2, kept 1 + 0 since 1
    success 3, complete 3, kept 0 + 0 since -
    ");
}

#[tokio::test]
async fn what_somebody_keeps_is_kept_since_never() {
    let store = Store::open("sqlite::memory:").await.unwrap();
    const TWELVE: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let connector = Told(Mutex::new((TWELVE, true)));
    let source_id = ("told".to_owned(), "acme".to_owned());
    for sync_id in ["found", "held", "rejected"] {
        let output = run_connector(&connector, "acme", sync_id, None).await;
        let result = store.commit_sync(&output.unwrap()).await.unwrap();
        connector.0.lock().unwrap().0 = &[];
        if let Some(changeset) = result.held_changeset {
            store.reject(changeset).await.unwrap();
        }
    }
    let past = past(&store, &source_id).await.unwrap();
    assert_eq!((past.entities_kept, past.kept_since), (12, None));
}

#[tokio::test]
async fn books_that_do_not_balance_are_counted() {
    let store = Arc::new(Store::open("sqlite::memory:").await.unwrap());
    let run = Run::new("told", "acme", "sync-0", 1, SystemTime::now());
    let output = ConnectorOutput::new(run, SyncReport::default(), Vec::new(), 0);
    let imbalance = Counts::default().balance(RecordKind::Entity, 1, 0, 0);
    let failures = [
        CommitError::Imbalance(imbalance.unwrap_err()),
        CommitError::Store(StoreError::ReadOnly),
    ];
    let job = Job::new(
        Arc::new(Told(Mutex::new((&[], true)))),
        "acme",
        Duration::from_secs(60),
    );
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let (meter, _) = Meter::new(ParallaxMetrics::new(), store);
        for error in failures {
            let output = Box::new(output.clone());
            meter.note(&Notice::Ended {
                job: &job,
                sync_id: "sync-0",
                result: &Err(SyncError::Commit { output, error }),
            });
        }
    });
    let counted = snapshotter.snapshot().into_vec().into_iter();
    let mut counted: Vec<_> = counted
        .filter(|(.., value)| matches!(value, DebugValue::Counter(1..)))
        .map(|(key, .., value)| format!("{} {value:?}", key.key().name()))
        .collect();
    counted.sort_unstable();
    assert_eq!(
        counted,
        [
            "parallax_reconciliation_mismatches_total Counter(1)",
            "parallax_syncs_total Counter(2)",
        ]
    );
}
