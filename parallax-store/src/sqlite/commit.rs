use rusqlite::{Connection, TransactionBehavior};

use crate::error::CommitError;
use crate::findings::Findings;
use crate::result::CommitResult;
use crate::session::Options;
use crate::sqlite::decide::{Decided, Decision, find_source};
use crate::sqlite::open::Opened;
use crate::sqlite::write::Writer;

/// Decides what findings mean, on a snapshot, and writes nothing.
pub(super) fn decide(
    connection: &mut Connection,
    findings: &Findings,
    options: &Options,
    seed: u64,
) -> Result<Decided, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    Decision::make(&transaction, findings, options, seed)
}

/// Writes a decision; `None` if the source has changed since it was made.
pub(super) fn write(
    opened: &mut Opened,
    findings: &Findings,
    decision: Decision,
) -> Result<Option<CommitResult>, CommitError> {
    opened.write(decision.writes(), |transaction| {
        let source = find_source(transaction, &findings.output)?;
        if source.map(|source| source.generation) != decision.generation() {
            return Ok(None);
        }
        Writer::write(transaction, findings, decision).map(Some)
    })
}

/// Decides and writes in one transaction: nobody comes in between.
pub(super) fn decide_and_write(
    opened: &mut Opened,
    findings: &Findings,
    options: &Options,
    seed: u64,
) -> Result<Option<CommitResult>, CommitError> {
    let mut replayed = None;
    let written = opened.write(u64::MAX, |transaction| {
        match Decision::make(transaction, findings, options, seed)? {
            Decided::Replay(result) => {
                replayed = Some(*result);
                Ok(None)
            }
            Decided::Commit(decision) => Writer::write(transaction, findings, *decision).map(Some),
        }
    })?;
    Ok(written.or(replayed))
}
