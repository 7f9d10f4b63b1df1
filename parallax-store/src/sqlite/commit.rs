use std::sync::Arc;

use parallax_core::JournalEntry;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::CommitError;
use crate::findings::Findings;
use crate::journal::Chunk;
use crate::result::CommitResult;
use crate::session::Options;
use crate::sqlite::decide::{Decided, Decision, find_source};
use crate::sqlite::journal;
use crate::sqlite::open::{Location, Opened};
use crate::sqlite::write::Writer;

/// Decides what findings mean, on a snapshot, and writes nothing.
pub(super) fn decide(
    connection: &mut Connection,
    location: &Location,
    findings: &mut Findings,
    options: &Options,
    seed: u64,
) -> Result<Decided, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    Decision::make(&transaction, Some(location), findings, options, seed)
}

/// Writes a decision; `None` if the source has changed since it was made.
pub(super) fn write(
    opened: &mut Opened,
    findings: &mut Findings,
    decision: Decision,
) -> Result<Option<CommitResult>, CommitError> {
    with_journal(findings, |findings, chunks| {
        opened.write(decision.writes(), |transaction| {
            let source = find_source(transaction, &findings.output)?;
            if source.map(|source| source.generation) != decision.generation() {
                return Ok(None);
            }
            write_all(transaction, findings, decision, chunks).map(Some)
        })
    })
}

/// Decides and writes in one transaction: nobody comes in between.
pub(super) fn decide_and_write(
    opened: &mut Opened,
    findings: &mut Findings,
    options: &Options,
    seed: u64,
) -> Result<Option<CommitResult>, CommitError> {
    let mut replayed = None;
    let written = with_journal(findings, |findings, chunks| {
        opened.write(u64::MAX, |transaction| {
            match Decision::make(transaction, None, findings, options, seed)? {
                Decided::Replay(result) => {
                    replayed = Some(*result);
                    Ok(None)
                }
                Decided::Commit(decision) => {
                    write_all(transaction, findings, *decision, chunks).map(Some)
                }
            }
        })
    })?;
    Ok(written.or(replayed))
}

type Written = (CommitResult, Vec<JournalEntry>);

fn write_all(
    transaction: &Transaction<'_>,
    findings: &Findings,
    decision: Decision,
    chunks: &[Chunk],
) -> Result<Written, CommitError> {
    let result = Writer::write(transaction, findings, decision)?;
    let entries = journal::write_commit(transaction, findings, chunks, &result)?;
    Ok((result, entries))
}

/// Writes with what the run has told and is not stored yet; it stays to be stored if nothing is
/// written.
fn with_journal(
    findings: &mut Findings,
    write: impl FnOnce(&mut Findings, &[Chunk]) -> Result<Option<Written>, CommitError>,
) -> Result<Option<CommitResult>, CommitError> {
    let journal = Arc::clone(&findings.journal);
    let chunks = journal.take(&journal.of(findings.output.run()));
    let written = write(findings, &chunks);
    if let Ok(Some((result, entries))) = written {
        journal.show(&entries);
        return Ok(Some(result));
    }
    journal.put_back(chunks);
    written.map(|_| None)
}
