//! What the tests of the engine share: syncs of hosts.

use std::sync::Arc;
use std::time::SystemTime;

use parallax_core::{
    Batch, BatchBuilder, ConnectorOutput, Run, ScopeReport, StepReport, StepStatus, SyncReport,
    entity,
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::findings::{Collected, Findings};
use crate::result::CommitResult;
use crate::session::Options;
use crate::sqlite::commit::decide_and_write;
use crate::sqlite::open::Opened;

/// The secret of the stores.
pub(super) const SEED: u64 = 7;

/// What a step did, and what it emitted.
pub(super) struct Ran {
    pub(super) report: StepReport,
    pub(super) batch: Option<Arc<Batch>>,
}

/// A step that found these hosts and completed: each host its number and a revision.
pub(super) fn hosts(step_id: &str, hosts: impl IntoIterator<Item = (u64, u64)>) -> Ran {
    emit(step_id, None, hosts)
}

/// A step that completed the one scope that there is, and found these hosts in it.
pub(super) fn scoped_hosts(
    step_id: &str,
    scope: &str,
    hosts: impl IntoIterator<Item = (u64, u64)>,
) -> Ran {
    emit(step_id, Some(scope), hosts)
}

fn emit(step_id: &str, scope: Option<&str>, hosts: impl IntoIterator<Item = (u64, u64)>) -> Ran {
    let mut batch = BatchBuilder::new("acme".into());
    let mut report = StepReport::new(step_id, "");
    report.status = StepStatus::Completed;
    report.all_scopes_listed = scope.is_some();
    report.scopes.extend(scope.map(|name| ScopeReport {
        name: name.to_owned(),
        complete: true,
        incomplete: Vec::new(),
    }));
    for (host, revision) in hosts {
        let host = entity("host", host).property("revision", revision);
        batch.push(&mut host.into(), scope.map(|_| 0)).unwrap();
        report.entities += 1;
    }
    Ran {
        report,
        batch: batch.take(),
    }
}

/// A step that failed.
pub(super) fn failed(step_id: &str) -> Ran {
    let mut ran = hosts(step_id, []);
    ran.report.status = StepStatus::Failed;
    ran
}

/// What a run found; an earlier run has a lower number.
pub(super) fn findings(number: u64, steps: impl IntoIterator<Item = Ran>) -> Findings {
    findings_of(&format!("sync-{number}"), number, steps)
}

pub(super) fn findings_of(
    sync_id: &str,
    number: u64,
    steps: impl IntoIterator<Item = Ran>,
) -> Findings {
    let steps = steps.into_iter();
    let (reports, batches): (Vec<_>, Vec<_>) = steps
        .map(|ran| (ran.report, ran.batch.into_iter().collect()))
        .unzip();
    let run = Run::new("fleet", "acme", sync_id, number, SystemTime::UNIX_EPOCH);
    let output = ConnectorOutput::new(run, SyncReport::new(reports), batches, 0);
    let collected = Collected::new(SEED, std::env::temp_dir(), Arc::default());
    Findings::new(output, collected)
}

/// Commits what a run found.
pub(super) fn commit(
    store: &mut Opened,
    number: u64,
    steps: impl IntoIterator<Item = Ran>,
) -> CommitResult {
    commit_found(store, &mut findings(number, steps))
}

pub(super) fn commit_found(store: &mut Opened, findings: &mut Findings) -> CommitResult {
    let written = decide_and_write(store, findings, &Options::default(), SEED);
    written.unwrap().unwrap()
}

/// Does something in a transaction of its own.
pub(super) fn within<T>(store: &mut Opened, work: impl FnOnce(&Transaction<'_>) -> T) -> T {
    let transaction = store
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let done = work(&transaction);
    transaction.commit().unwrap();
    done
}

/// The first column of the answer to a query.
pub(super) fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
