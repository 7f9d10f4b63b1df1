use parallax_core::ConnectorOutput;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::CommitError;
use crate::result::CommitResult;
use crate::sqlite::decide::{Decided, Decision};
use crate::sqlite::open::CACHE;
use crate::sqlite::write::Writer;

/// More changes than this are a large commit.
const LARGE: u64 = 20_000;
/// What a large commit may hold in memory, in negative KiB as the engine wants it: ids are hashes,
/// so its writes go all over the indexes.
const LARGE_CACHE: i64 = -262_144;

/// Commits: decides what the output means, and writes it, in one transaction.
pub(super) fn commit(
    connection: &mut Connection,
    output: &ConnectorOutput,
) -> Result<CommitResult, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = match Decision::make(&transaction, output)? {
        Decided::Replay(result) => return Ok(result),
        Decided::Commit(decision) => {
            if decision.changes() > LARGE {
                transaction.pragma_update(None, "cache_size", LARGE_CACHE)?;
            }
            Writer::write(&transaction, output, *decision)?
        }
    };
    transaction.commit()?;
    // Gives the memory of a large commit back; a daemon waits much longer than it works.
    connection.pragma_update(None, "cache_size", CACHE)?;
    // The commit stands; a checkpoint only moves it from the log to the file.
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "Checkpoint failed");
    }
    Ok(result)
}

/// Decides as [`commit`] does, on a snapshot, and writes nothing.
pub(super) fn plan(
    connection: &mut Connection,
    output: &ConnectorOutput,
) -> Result<CommitResult, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    match Decision::make(&transaction, output)? {
        Decided::Replay(result) => Ok(result),
        Decided::Commit(decision) => Ok(decision.result),
    }
}
