//! What happened in a sync can be read back, as it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use parallax_connect::{
    Connector, ConnectorError, JournalEntry, JournalKind, JournalSink, Runner, Step, StepContext,
    entity, step as declare,
};
use parallax_core::SyncStats;
use parallax_metrics::{JournalMetrics, ParallaxMetrics};
use parallax_scheduler::{SyncError, run_once};
use parallax_store::{JournalName, Store};
use parallax_tests::{End, Rec, Script};

use crate::support::{ending, keys, lines, memory, run, script, step};

/// What somebody saw who watched.
#[derive(Default)]
struct Seen(Mutex<Vec<JournalEntry>>);

impl JournalSink for Seen {
    fn append(&self, entry: &JournalEntry) {
        self.0.lock().unwrap().push(entry.clone());
    }
}

impl Seen {
    fn lines(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(JournalEntry::to_json).collect()
    }
}

fn name(sync_id: &str) -> JournalName {
    JournalName {
        connector_id: "script".to_owned(),
        account_id: "1".to_owned(),
        sync_id: sync_id.to_owned(),
    }
}

/// Runs and commits a script, and returns what a watcher saw.
async fn watched(store: &Store, script: &Script, sync_id: &str) -> Vec<String> {
    let seen = Arc::new(Seen::default());
    let session = store.session().watcher(Arc::clone(&seen) as _);
    run_once(Runner::new(script), "1", sync_id, session)
        .await
        .ok();
    seen.lines()
}

async fn stored(store: &Store, sync_id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut from = 1;
    loop {
        let page = store.journal(&name(sync_id), from).await.unwrap();
        assert_eq!(page.first_kept, 1);
        if page.lines.is_empty() {
            return lines;
        }
        lines.extend(page.lines);
        from = page.next;
        assert_eq!(from, lines.len() as u64 + 1);
    }
}

/// The kinds of entries, and for which step.
fn kinds(lines: &[String]) -> Vec<String> {
    let kinds = lines.iter().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = entry["step_id"].as_str().map(|step| format!(" {step}"));
        let kind = entry["kind"].as_str().unwrap();
        format!("{kind}{}", step.unwrap_or_default())
    });
    kinds.collect()
}

#[tokio::test]
async fn journal_is_read_back_as_it_was_told() {
    let store = memory().await;
    let first = script([
        step(
            "users",
            [keys(0..20), vec![Rec::BadEntity { key: 30 }]].concat(),
        ),
        ending(step("hosts", keys(40..50)), End::Error),
    ]);
    let seen = watched(&store, &first, "sync-1").await;
    assert_eq!(stored(&store, "sync-1").await, seen);
    assert_eq!(
        kinds(&seen),
        [
            "started",
            "step_started users",
            "step_started hosts",
            "step_failed hosts",
            "records_rejected users",
            "step_completed users",
            "completed",
            "committed"
        ]
    );
    let committed = JournalEntry::from_json(seen.last().unwrap()).unwrap();
    let JournalKind::Committed {
        outcome,
        stats,
        replayed,
    } = committed.kind
    else {
        panic!("{committed:?}");
    };
    assert_eq!((outcome.as_str(), replayed), ("partial", false));
    assert_eq!((stats.entities_created, stats.entities_rejected), (20, 1));

    // Deletes that are held, and what became of them.
    let seen = watched(&store, &script([step("users", [])]), "sync-2").await;
    assert_eq!(
        kinds(&seen)[3..],
        ["completed", "committed", "deletes_held"]
    );
    store.approve(1).await.unwrap();
    let all = stored(&store, "sync-2").await;
    assert_eq!(all[..seen.len()], seen);
    assert_eq!(kinds(&all[seen.len()..]), ["deletes_approved"]);

    let rows = lines(
        &store,
        "SELECT sync_id, group_concat(seq, ','), group_concat(kind = 'committed', '') FROM (
             SELECT * FROM parallax_journal ORDER BY sync_id, seq) GROUP BY sync_id",
    );
    assert_eq!(
        rows.await,
        [
            "sync-1 1,2,3,4,5,6,7,8 00000001",
            "sync-2 1,2,3,4,5,6,7 0000100"
        ]
    );
    let names = store.journals("sync", 10).await.unwrap();
    assert_eq!(names, [name("sync-2"), name("sync-1")]);
    assert_eq!(store.verify().await.unwrap().problems, []);
    store.forget("script", "1").await.unwrap();
    assert_eq!(store.journals("", 10).await.unwrap(), []);
    assert_eq!(store.verify().await.unwrap().problems, []);
}

#[tokio::test]
async fn metrics_made_of_journals_are_the_sums_of_the_syncs() {
    let store = memory().await;
    let sync = |records, end, sync_id: &'static str| {
        let users = ending(step("users", keys(0..records)), end);
        let seen = Arc::new(Seen::default());
        let session = store.session().watcher(Arc::clone(&seen) as _);
        async move {
            let script = script([users, step("roles", Vec::new())]);
            let synced = run_once(Runner::new(&script), "1", sync_id, session).await;
            let entries = std::mem::take(&mut *seen.0.lock().unwrap());
            (synced.unwrap().result, entries)
        }
    };
    let (mut entries, mut sums) = (Vec::new(), [0; SyncStats::FIELDS.len()]);
    for syncing in [
        sync(12, End::Ok, "first"),
        sync(14, End::Error, "partial"),
        sync(14, End::Ok, "more"),
        sync(0, End::Ok, "held"),
        // A replay, which is not counted again.
        sync(0, End::Ok, "held"),
    ] {
        let (result, told) = syncing.await;
        entries.extend(told);
        if !result.replayed {
            let values = sums.iter_mut().zip(result.stats.values());
            values.for_each(|(sum, value)| *sum += value);
        }
    }

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let metrics = JournalMetrics::new(ParallaxMetrics::new());
        entries.iter().for_each(|entry| metrics.append(entry));
    });
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels = key.labels().filter(|label| label.key() == "outcome");
        let outcome = labels.map(|label| format!(" {}", label.value()));
        let name = key.name().trim_start_matches("parallax_").to_owned();
        let name = name + &outcome.collect::<String>();
        if let DebugValue::Counter(count) = value {
            *counted.entry(name).or_default() += count;
        }
    }
    for (field, sum) in SyncStats::FIELDS.iter().zip(sums) {
        // What is kept and held is a gauge, of the last commit.
        if let Some(count) = counted.remove(&format!("{field}_total")) {
            assert_eq!(count, sum, "{field}");
        }
    }
    counted.retain(|_, count| *count > 0);
    let counted: Vec<String> = counted
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    insta::assert_snapshot!(counted.join("\n"), @"
    changesets_total held 1
    steps_total completed 9
    steps_total failed 1
    syncs_total committed 4
    syncs_total partial 1
    ");
}

#[tokio::test]
async fn failed_commit_has_the_last_word() {
    let store = memory().await;
    watched(&store, &script([step("users", keys(0..2))]), "sync-1").await;
    // Another run under the same id.
    let seen = watched(&store, &script([step("users", keys(0..3))]), "sync-1").await;
    is_stored(&store, "sync-1", &seen).await;
    let last = JournalEntry::from_json(seen.last().unwrap()).unwrap();
    assert!(
        matches!(&last.kind, JournalKind::CommitFailed { error } if error.kind == "sync_id_reused"),
        "{last:?}"
    );
    // The same run again.
    let seen = watched(&store, &script([step("users", keys(0..2))]), "sync-1").await;
    is_stored(&store, "sync-1", &seen).await;
    assert!(seen.last().unwrap().contains(r#""replayed":true"#));
}

/// Waits until what was seen is stored: what comes after a commit is stored a moment later.
async fn is_stored(store: &Store, sync_id: &str, seen: &[String]) {
    while stored(store, sync_id).await != seen {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn output_without_a_journal_is_told_as_committed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("parallax.db").display());
    let store = Store::open(&url).await.unwrap();
    let output = run(&script([step("users", keys(0..2))]), "1", "sync-1").await;
    store.commit_sync(&output).await.unwrap();
    let told = stored(&store, "sync-1").await;
    assert_eq!(kinds(&told), ["committed"]);

    // To commit it again tells nothing that would hide the first time.
    let again = store.commit_sync(&output).await.unwrap();
    assert!(again.replayed);
    let other = run(&script([step("users", keys(0..3))]), "1", "sync-1").await;
    store.commit_sync(&other).await.unwrap_err();
    drop(store);
    let store = Store::open_read_only(&url).await.unwrap();
    assert_eq!(stored(&store, "sync-1").await, told);
}

/// Goes on once its start can be read from the store.
struct ReadsItself {
    url: String,
}

impl Connector for ReadsItself {
    fn name(&self) -> &str {
        "script"
    }

    fn steps(&self) -> Vec<Step<'_>> {
        vec![declare("users", "", |ctx| self.users(ctx))]
    }
}

impl ReadsItself {
    async fn users(&self, ctx: StepContext) -> Result<(), ConnectorError> {
        ctx.emit(entity("thing", "1"))?;
        let reader = Store::open_read_only(&self.url).await.unwrap();
        loop {
            if let Ok(page) = reader.journal(&name(ctx.sync_id()), 1).await {
                let kinds = kinds(&page.lines);
                if kinds.iter().any(|kind| kind == "step_progress users") {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn journal_can_be_followed_while_the_sync_runs() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("parallax.db").display());
    let store = Store::open(&url).await.unwrap();
    let connector = ReadsItself { url: url.clone() };
    run_once(Runner::new(&connector), "1", "sync-1", store.session())
        .await
        .unwrap();
    let whole = stored(&store, "sync-1").await;
    assert_eq!(kinds(&whole).last().unwrap(), "committed");

    // Of a run that was cancelled everything is stored once the store is closed.
    let runner = Runner::new(&connector).cancel_on(async {});
    let cancelled = run_once(runner, "1", "sync-2", store.session()).await;
    assert!(matches!(cancelled, Err(SyncError::Run(_))));
    drop(store);
    let store = Store::open_read_only(&url).await.unwrap();
    let cancelled = kinds(&stored(&store, "sync-2").await);
    assert_eq!(cancelled, ["started", "step_failed users", "cancelled"]);
}
