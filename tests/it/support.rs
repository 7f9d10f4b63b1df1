use std::collections::BTreeSet;
use std::fmt::Write;

use parallax_connect::{ConnectorOutput, Runner, run_connector};
use parallax_store::{Cell, CommitResult, Store};
use parallax_tests::{End, Part, Rec, Script, ScriptStep};

/// Runs a script; panics of its steps are part of it.
pub(crate) async fn run(script: &Script, account: &str, sync_id: &str) -> ConnectorOutput {
    run_connector(script, account, sync_id, None).await.unwrap()
}

/// Runs the steps of a script that are selected, and commits what they found.
pub(crate) async fn sync_selected(store: &Store, script: &Script, selected: &str) -> CommitResult {
    let runner = Runner::new(script).select([selected]);
    let output = runner.run("1", &fresh_sync_id()).await.unwrap();
    store.commit_sync(&output).await.unwrap()
}

pub(crate) async fn memory() -> Store {
    Store::open("sqlite::memory:").await.unwrap()
}

/// Runs and commits a script under a fresh sync id.
pub(crate) async fn sync(store: &Store, script: &Script, account: &str) -> CommitResult {
    store
        .commit_sync(&run(script, account, &fresh_sync_id()).await)
        .await
        .unwrap()
}

pub(crate) fn fresh_sync_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("sync-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The stats that are not zero, in words: `entities: 2 created, 1 kept`.
pub(crate) fn words(result: &CommitResult) -> String {
    let mut words = String::new();
    for kind in parallax_core::RecordKind::ALL {
        let counts = result.stats.counts(kind);
        let counts = [
            (counts.created, "created"),
            (counts.updated, "updated"),
            (counts.unchanged, "unchanged"),
            (counts.deleted, "deleted"),
            (counts.kept, "kept"),
            (counts.held, "held"),
            (counts.rejected, "rejected"),
            (counts.duplicates, "duplicates"),
        ];
        let counts: Vec<_> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        if !counts.is_empty() {
            let separator = if words.is_empty() { "" } else { "; " };
            write!(words, "{separator}{kind}: {}", counts.join(", ")).unwrap();
        }
    }
    words
}

/// The answer to a query, a line per row, cells joined by blanks.
pub(crate) async fn lines(store: &Store, sql: &str) -> Vec<String> {
    let rows = store.query(sql).await.unwrap().rows;
    rows.into_iter()
        .map(|row| {
            let cells = row.into_iter().map(|cell| match cell {
                Cell::Null => "-".to_owned(),
                Cell::Integer(number) => number.to_string(),
                Cell::Real(number) => number.to_string(),
                Cell::Text(text) => text,
                Cell::Blob(bytes) => format!("{bytes:?}"),
            });
            cells.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The keys of the things that a source has stored.
pub(crate) async fn things(store: &Store, connector: &str, account: &str) -> BTreeSet<String> {
    let sql = format!(
        "SELECT key FROM parallax_entity
         WHERE connector_id = '{connector}' AND account_id = '{account}'"
    );
    lines(store, &sql).await.into_iter().collect()
}

pub(crate) fn script(steps: impl IntoIterator<Item = ScriptStep>) -> Script {
    Script {
        name: "script",
        steps: steps.into_iter().collect(),
    }
}

/// A step that emits things outside of scopes and returns `Ok`.
pub(crate) fn step(id: &'static str, records: impl IntoIterator<Item = Rec>) -> ScriptStep {
    ScriptStep {
        id,
        dependencies: Vec::new(),
        parts: vec![Part {
            scope: None,
            records: records.into_iter().collect(),
            complete: false,
        }],
        all_scopes_listed: false,
        ephemeral: false,
        end: End::Ok,
    }
}

pub(crate) fn scope(
    name: &'static str,
    complete: bool,
    records: impl IntoIterator<Item = Rec>,
) -> Part {
    Part {
        scope: Some(name),
        records: records.into_iter().collect(),
        complete,
    }
}

/// Things of these keys.
pub(crate) fn keys(keys: impl IntoIterator<Item = u8>) -> Vec<Rec> {
    keys.into_iter()
        .map(|key| Rec::Entity { key, value: 0 })
        .collect()
}

pub(crate) fn ending(mut step: ScriptStep, end: End) -> ScriptStep {
    step.end = end;
    step
}

pub(crate) fn after(mut step: ScriptStep, dependencies: &[usize]) -> ScriptStep {
    step.dependencies = dependencies.to_vec();
    step
}
