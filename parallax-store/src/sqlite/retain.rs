use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::StoreError;

/// How many old versions of records are kept of a source, and those of its last sync in any case.
pub(super) const CHANGES: i64 = 250_000;
/// Of how many syncs of a source all is kept that is known of them.
pub(super) const SYNCS: i64 = 10_000;

/// Forgets the oldest history of a source that has more than is kept.
pub(super) fn retain(transaction: &Transaction<'_>, source_id: i64) -> Result<(), StoreError> {
    forget_changes(transaction, source_id)?;
    forget_syncs(transaction, source_id)
}

/// Forgets old versions, by whole syncs: of a sync all deletes can be told or none.
fn forget_changes(transaction: &Transaction<'_>, source_id: i64) -> Result<(), StoreError> {
    loop {
        let (changes, last): (i64, i64) = transaction
            .prepare_cached("SELECT changes, last_sync FROM px_source WHERE source_id = ?1")?
            .query_row([source_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if changes <= CHANGES {
            return Ok(());
        }
        let oldest: Option<i64> = transaction
            .prepare_cached("SELECT min(sync) FROM px_change WHERE source_id = ?1")?
            .query_row([source_id], |row| row.get(0))?;
        let Some(oldest) = oldest.filter(|oldest| *oldest != last) else {
            return Ok(());
        };
        let forgotten = transaction
            .prepare_cached("DELETE FROM px_change WHERE source_id = ?1 AND sync = ?2")?
            .execute([source_id, oldest])?;
        transaction
            .prepare_cached("UPDATE px_source SET changes = changes - ?2 WHERE source_id = ?1")?
            .execute(params![source_id, forgotten])?;
    }
}

/// Forgets old syncs. Those that changed something keep their row, because records name them as
/// the sync that made them.
fn forget_syncs(transaction: &Transaction<'_>, source_id: i64) -> Result<(), StoreError> {
    let newest_forgotten: Option<i64> = transaction
        .prepare_cached(
            "SELECT sync FROM px_sync WHERE source_id = ?1 ORDER BY sync DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row([source_id, SYNCS], |row| row.get(0))
        .optional()?;
    let Some(sync) = newest_forgotten else {
        return Ok(());
    };
    // One a commit: what was kept until now has been forgotten by the commits before.
    for sql in [
        "DELETE FROM px_sync_step WHERE sync = ?1",
        "DELETE FROM px_sync_type WHERE sync = ?1",
        "DELETE FROM px_sync WHERE sync = ?1
             AND entities_created + entities_updated + entities_deleted
                 + relationships_created + relationships_updated + relationships_deleted = 0
             AND NOT EXISTS (SELECT 1 FROM px_source WHERE ?1 IN
                 (last_sync, last_success_sync, last_complete_sync))
             AND NOT EXISTS (SELECT 1 FROM px_claim WHERE ?1 IN (looked_sync, missed_sync))
             AND NOT EXISTS (SELECT 1 FROM px_changeset WHERE ?1 IN (sync, closed_sync))",
    ] {
        transaction.prepare_cached(sql)?.execute([sync])?;
    }
    Ok(())
}
