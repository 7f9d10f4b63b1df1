use rusqlite::{OptionalExtension, Transaction, params};

use crate::error::StoreError;

/// How much history is kept of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Old versions of records; those of its last sync in any case.
    changes: i64,
    /// Syncs of which all is kept that is known of them.
    syncs: i64,
}

pub(super) const LIMITS: Limits = Limits {
    changes: 250_000,
    syncs: 10_000,
};

/// Forgets the oldest history of a source that has more than is kept.
pub(super) fn retain(
    transaction: &Transaction<'_>,
    source_id: i64,
    limits: Limits,
) -> Result<(), StoreError> {
    forget_changes(transaction, source_id, limits.changes)?;
    forget_syncs(transaction, source_id, limits.syncs)
}

/// Forgets old versions, by whole syncs: of a sync all deletes can be told or none.
fn forget_changes(
    transaction: &Transaction<'_>,
    source_id: i64,
    limit: i64,
) -> Result<(), StoreError> {
    loop {
        let changes: i64 = transaction
            .prepare_cached("SELECT changes FROM px_source WHERE source_id = ?1")?
            .query_row([source_id], |row| row.get(0))?;
        if changes <= limit {
            return Ok(());
        }
        let (oldest, newest): (Option<i64>, Option<i64>) = transaction
            .prepare_cached("SELECT min(sync), max(sync) FROM px_change WHERE source_id = ?1")?
            .query_row([source_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some(oldest) = oldest.filter(|_| oldest != newest) else {
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
fn forget_syncs(
    transaction: &Transaction<'_>,
    source_id: i64,
    limit: i64,
) -> Result<(), StoreError> {
    let newest_forgotten: Option<i64> = transaction
        .prepare_cached(
            "SELECT sync FROM px_sync WHERE source_id = ?1 ORDER BY sync DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row([source_id, limit], |row| row.get(0))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parallax_core::{
        BatchBuilder, ConnectorOutput, Run, StepReport, StepStatus, SyncReport, entity,
    };
    use rusqlite::{Connection, TransactionBehavior};

    use super::*;
    use crate::findings::{Collected, Findings};
    use crate::session::Options;
    use crate::sqlite::commit::decide_and_write;
    use crate::sqlite::open::{Location, Opened};

    /// Commits hosts, each with a revision; an earlier run has a lower number.
    fn commit(store: &mut Opened, number: u64, revisions: &[u64]) {
        let mut batch = BatchBuilder::new("acme".into());
        for (host, revision) in revisions.iter().enumerate() {
            let host = entity("host", host).property("revision", *revision);
            batch.push(&mut host.into(), None).unwrap();
        }
        let mut step = StepReport::new("hosts", "");
        step.status = StepStatus::Completed;
        step.entities = revisions.len() as u64;
        let now = std::time::SystemTime::UNIX_EPOCH;
        let run = Run::new("fleet", "acme", format!("sync-{number}"), number, now);
        let batches = vec![batch.take().into_iter().collect()];
        let output = ConnectorOutput::new(run, SyncReport::new(vec![step]), batches, 0);
        let collected = Collected::new(7, std::env::temp_dir(), Arc::default());
        let mut findings = Findings::new(output, collected);
        decide_and_write(store, &mut findings, &Options::default(), 7).unwrap();
    }

    fn column(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn history_is_bounded_and_what_is_live_keeps_its_syncs() {
        let mut store = Location::Memory.open().unwrap();
        // Two updates each, but for the syncs that change nothing.
        commit(&mut store, 1, &[1, 1, 1]);
        commit(&mut store, 2, &[2, 2, 1]);
        commit(&mut store, 3, &[2, 2, 1]);
        commit(&mut store, 4, &[3, 3, 1]);
        commit(&mut store, 5, &[4, 4, 1]);
        commit(&mut store, 6, &[4, 4, 1]);
        let changes = "SELECT sync_id || ' ' || count(*) FROM parallax_change GROUP BY sync_id";
        assert_eq!(
            column(&store.connection, changes),
            ["sync-2 2", "sync-4 2", "sync-5 2"]
        );
        let forget = |store: &mut Opened, changes, syncs| {
            let transaction = store
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .unwrap();
            retain(&transaction, 1, Limits { changes, syncs }).unwrap();
            transaction.commit().unwrap();
        };
        forget(&mut store, 5, 6);
        assert_eq!(column(&store.connection, changes), ["sync-4 2", "sync-5 2"]);
        forget(&mut store, 0, 3);
        // Those of the last one that changed something stay whole.
        assert_eq!(column(&store.connection, changes), ["sync-5 2"]);
        let counted = "SELECT changes || '' FROM px_source";
        assert_eq!(column(&store.connection, counted), ["2"]);

        // The third is the newest beyond three: it changed nothing, and goes.
        let syncs = "SELECT sync_id FROM parallax_sync ORDER BY sync_id";
        let left = ["sync-1", "sync-2", "sync-4", "sync-5", "sync-6"];
        assert_eq!(column(&store.connection, syncs), left);
        let steps = "SELECT sync_id FROM parallax_sync_step ORDER BY sync_id";
        assert_eq!(column(&store.connection, steps), left);
        // The second is beyond it, and keeps its row alone: records name it.
        forget(&mut store, 0, 3);
        assert_eq!(column(&store.connection, syncs), left);
        let steps_left = ["sync-1", "sync-4", "sync-5", "sync-6"];
        assert_eq!(column(&store.connection, steps), steps_left);
        let since = "SELECT created_sync_id FROM parallax_entity";
        assert_eq!(column(&store.connection, since), ["sync-1"; 3]);
    }
}
