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
    let chunks = journal.take(findings.output.run());
    let written = write(findings, &chunks);
    if let Ok(Some((result, entries))) = written {
        journal.show(&entries);
        return Ok(Some(result));
    }
    journal.put_back(chunks);
    written.map(|_| None)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::engine::Word;
    use crate::sqlite::testing::{Ran, SEED, column, commit, findings, hosts};
    use crate::sqlite::{changeset, forget};

    fn found(numbers: Range<u64>) -> [Ran; 1] {
        [hosts("hosts", numbers.map(|host| (host, 1)))]
    }

    /// Each source once began to count its commits at 0. What was decided before a source was
    /// forgotten was then written over what the next one of its name had committed: hosts twice, and
    /// none of the books noticed.
    #[test]
    fn decision_on_a_source_that_was_forgotten_is_not_written() {
        // A store whose sources have seen more commits than it knows of: a backup, or one that was
        // brought forward from version 1.
        let younger = "UPDATE px_meta SET value = 0 WHERE key = 'epoch'";
        for (commits, sql) in [(1, ""), (2, younger)] {
            let location = Location::Memory;
            let mut store = location.open().unwrap();
            for number in 0..commits {
                commit(&mut store, number, found(0..40));
            }
            store.connection.execute_batch(sql).unwrap();
            let (mut late, options) = (findings(5, found(0..60)), Options::default());
            let decided = decide(&mut store.connection, &location, &mut late, &options, SEED);
            let Ok(Decided::Commit(decision)) = decided else {
                panic!("a replay")
            };

            let forget = |transaction: &Transaction<'_>| {
                forget::forget(transaction, "fleet", "acme").map(Some)
            };
            store.write(0, forget).unwrap();
            commit(&mut store, 6, found(0..60));
            assert!(write(&mut store, &mut late, *decision).unwrap().is_none());
            let hosts = "SELECT count(*) || '' FROM px_entity";
            assert_eq!(column(&store.connection, hosts), ["60"]);
        }
    }

    /// What a decision leaves as it is, somebody's word may have deleted since.
    #[test]
    fn decision_on_what_was_held_then_is_not_written() {
        for word in [Word::Approve, Word::Reject] {
            let location = Location::Memory;
            let mut store = location.open().unwrap();
            commit(&mut store, 1, found(0..200));
            commit(&mut store, 2, found(0..20));
            let (mut late, options) = (findings(3, found(0..30)), Options::default());
            let decided = decide(&mut store.connection, &location, &mut late, &options, SEED);
            let Ok(Decided::Commit(decision)) = decided else {
                panic!("a replay")
            };

            let said =
                |transaction: &Transaction<'_>| changeset::decide(transaction, 1, word).map(Some);
            let said = store.write(0, said).unwrap().unwrap();
            assert_eq!(said.entities, 180);
            assert!(write(&mut store, &mut late, *decision).unwrap().is_none());
        }
    }

    /// A decision balances before it is written. What the engine says that it wrote is held against
    /// it, too.
    #[test]
    fn record_that_the_engine_leaves_out_fails_the_commit() {
        let location = Location::Memory;
        let mut store = location.open().unwrap();
        commit(&mut store, 1, found(0..40));
        let left_out = "CREATE TRIGGER px_leave_out BEFORE INSERT ON px_entity
             WHEN new.key = '50' BEGIN SELECT RAISE(IGNORE); END";
        store.connection.execute_batch(left_out).unwrap();
        let mut next = findings(2, found(0..60));
        let written = decide_and_write(&mut store, &mut next, &Options::default(), SEED);
        assert_eq!(written.unwrap_err().code(), "imbalance");
        let hosts = "SELECT count(*) || '' FROM px_entity";
        assert_eq!(column(&store.connection, hosts), ["40"]);
    }
}
