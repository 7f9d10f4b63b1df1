use std::collections::HashSet;

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

/// Forgets the oldest history of a source that has more than is kept. `displaced` are the syncs that
/// were the last that did not fail, and the last that was complete, before this commit.
pub(super) fn retain(
    transaction: &Transaction<'_>,
    source_id: i64,
    displaced: [Option<i64>; 2],
    limits: Limits,
) -> Result<(), StoreError> {
    forget_changes(transaction, source_id, limits.changes)?;
    forget_syncs(transaction, source_id, displaced, limits.syncs)
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
            // Each from its end of the index. Asked for in one, both are looked for in all of it.
            .prepare_cached(
                "SELECT (SELECT min(sync) FROM px_change WHERE source_id = ?1),
                     (SELECT max(sync) FROM px_change WHERE source_id = ?1)",
            )?
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

/// Forgets old syncs: one a commit, and those that were the last of their kind until this commit.
fn forget_syncs(
    transaction: &Transaction<'_>,
    source_id: i64,
    displaced: [Option<i64>; 2],
    limit: i64,
) -> Result<(), StoreError> {
    let newest_forgotten: Option<i64> = transaction
        .prepare_cached(
            "SELECT sync FROM px_sync WHERE source_id = ?1 ORDER BY sync DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row([source_id, limit], |row| row.get(0))
        .optional()?;
    let Some(newest) = newest_forgotten else {
        return Ok(());
    };
    let displaced = displaced.into_iter().flatten();
    for sync in displaced.filter(|sync| *sync < newest).chain([newest]) {
        forget_sync(transaction, source_id, sync)?;
    }
    Ok(())
}

/// Forgets what is known of a sync, unless it is the last that did not fail or was complete: why
/// records are there follows from those. The row stays if something was changed, held or last
/// looked for by this sync, because that names it.
fn forget_sync(transaction: &Transaction<'_>, source_id: i64, sync: i64) -> Result<(), StoreError> {
    let is_last = transaction
        .prepare_cached(
            "SELECT 1 FROM px_source
             WHERE source_id = ?1 AND ?2 IN (last_success_sync, last_complete_sync)",
        )?
        .exists([source_id, sync])?;
    if is_last {
        return Ok(());
    }
    for sql in [
        "DELETE FROM px_sync_step WHERE sync = ?1",
        "DELETE FROM px_sync_type WHERE sync = ?1",
    ] {
        transaction.prepare_cached(sql)?.execute([sync])?;
    }
    transaction
        .prepare_cached(
            "DELETE FROM px_sync WHERE sync = ?2
                 AND entities_created + entities_updated + entities_deleted
                     + relationships_created + relationships_updated + relationships_deleted = 0
                 AND NOT EXISTS (SELECT 1 FROM px_claim
                     WHERE source_id = ?1 AND ?2 IN (looked_sync, missed_sync))
                 AND NOT EXISTS (SELECT 1 FROM px_changeset
                     WHERE source_id = ?1 AND ?2 IN (sync, closed_sync))",
        )?
        .execute([source_id, sync])?;
    Ok(())
}

/// Forgets the sets of claims among these that the history does not name.
pub(super) fn forget_claims(
    transaction: &Transaction<'_>,
    source_id: i64,
    sets: &[i64],
) -> Result<(), StoreError> {
    let mut named =
        transaction.prepare_cached("SELECT DISTINCT claims FROM px_change WHERE source_id = ?1")?;
    let named = named.query_map([source_id], |row| row.get(0))?;
    let named: HashSet<i64> = named.collect::<Result<_, _>>()?;
    let mut forget = transaction.prepare_cached("DELETE FROM px_claims WHERE claims_id = ?1")?;
    for set in sets.iter().filter(|set| !named.contains(set)) {
        forget.execute([set])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::sqlite::decide::find_source;
    use crate::sqlite::open::{Location, Opened};
    use crate::sqlite::testing::{
        self, Ran, SEED, column, failed, findings, hosts, scoped_hosts, within,
    };
    use crate::sqlite::verify::verify;

    /// Commits hosts, each with a revision; an earlier run has a lower number.
    fn commit(store: &mut Opened, number: u64, revisions: &[u64]) {
        let revisions = revisions.iter().copied();
        testing::commit(store, number, [hosts("hosts", (0..).zip(revisions))]);
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
            let limits = Limits { changes, syncs };
            within(store, |transaction| {
                retain(transaction, 1, [None; 2], limits).unwrap();
            });
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

    /// Each sync that was forgotten once cost a look at all of the history.
    #[test]
    fn forgetting_costs_as_much_as_is_forgotten() {
        let work = |changes: i64| {
            let mut store = Location::Memory.open().unwrap();
            commit(&mut store, 1, &[1]);
            commit(&mut store, 2, &[2]);
            let more = format!(
                "WITH RECURSIVE n(n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM n LIMIT {changes})
                 INSERT INTO px_change (sync, source_id, kind, action, id, hash, claims, name, key,
                     properties, created_sync, changed_sync)
                 SELECT n, source_id, kind, action, id, hash, claims, name, key, properties,
                     created_sync, changed_sync FROM px_change, n;
                 UPDATE px_source SET changes = {changes} + 1"
            );
            store.connection.execute_batch(&more).unwrap();
            let steps = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&steps);
            let count = move || {
                counter.fetch_add(1, Ordering::Relaxed);
                false
            };
            let forget = |store: &mut Opened| {
                within(store, |transaction| {
                    forget_changes(transaction, 1, changes - 10).unwrap();
                });
            };
            store.connection.progress_handler(1, Some(count)).unwrap();
            forget(&mut store);
            let left = "SELECT count(*) || '' FROM px_change";
            let taken = steps.load(Ordering::Relaxed);
            assert_eq!(
                column(&store.connection, left),
                [(changes - 10).to_string()]
            );
            taken
        };
        assert_eq!(work(100), work(10_000));
    }

    /// The last sync that did not fail was forgotten like any other once ten thousand had failed since.
    #[test]
    fn last_syncs_that_did_not_fail_are_kept_whole_until_there_are_others() {
        let mut store = Location::Memory.open().unwrap();
        let limits = Limits {
            changes: 100,
            syncs: 2,
        };
        let commit = |store: &mut Opened, number, steps: [Ran; 2]| {
            let mut findings = findings(number, steps);
            let before = within(store, |transaction| {
                let source = find_source(transaction, &findings.output).unwrap();
                source.map(|source| source.last_syncs)
            });
            testing::commit_found(store, &mut findings);
            let before = before.unwrap_or_default();
            within(store, |transaction| {
                retain(transaction, 1, before, limits).unwrap();
            });
        };
        let good = || [hosts("hosts", [(1, 1)]), hosts("users", [])];
        let partial = || [hosts("hosts", [(1, 1)]), failed("users")];
        let bad = || [failed("hosts"), failed("users")];
        let kept = |store: &Opened| {
            let step = "SELECT DISTINCT sync_id FROM parallax_sync_step";
            let kind = "SELECT DISTINCT sync_id FROM px_sync_type JOIN px_sync USING (sync)";
            let sync = "SELECT sync_id FROM px_sync ORDER BY sync";
            [step, kind, sync].map(|sql| column(&store.connection, sql).join(" "))
        };
        commit(&mut store, 1, good());
        commit(&mut store, 2, good());
        commit(&mut store, 3, partial());
        for number in 4..8 {
            commit(&mut store, number, bad());
        }
        // The first has made the host. The second was complete, the third did not fail.
        let whole = "sync-2 sync-3 sync-6 sync-7";
        assert_eq!(
            kept(&store),
            [whole, whole, "sync-1 sync-2 sync-3 sync-6 sync-7"]
        );
        commit(&mut store, 8, good());
        let whole = "sync-7 sync-8";
        assert_eq!(kept(&store), [whole, whole, "sync-1 sync-7 sync-8"]);
    }

    /// A step with a scope for each day once left a claim and a set of claims behind with each of
    /// them, and each commit noted them all anew.
    #[test]
    fn scopes_that_come_and_go_leave_no_claims() {
        let mut store = Location::Memory.open().unwrap();
        for day in 1..=200 {
            // The second is deleted on the next day: the history says who had found it.
            let found = [(1, 1), (2, 1)].into_iter().take(1 + usize::from(day == 5));
            let found = scoped_hosts("hosts", &format!("day {day}"), found);
            testing::commit(&mut store, day, [found]);
        }
        let claims = "SELECT ifnull(scope, 'none') FROM px_claim ORDER BY 1";
        assert_eq!(
            column(&store.connection, claims),
            ["day 199", "day 200", "none"]
        );
        let sets = "SELECT claims ->> '$[0][1]' FROM px_claims ORDER BY claims_id";
        let since = (192..=200).map(|day| format!("day {day}"));
        let named: Vec<_> = ["day 5".to_owned()].into_iter().chain(since).collect();
        assert_eq!(column(&store.connection, sets), named);
        let verification = verify(&mut store.connection, SEED).unwrap();
        assert_eq!(verification.problems, []);
    }

    #[test]
    fn syncs_that_are_named_keep_their_row() {
        let limits = Limits {
            changes: 100,
            syncs: 2,
        };
        let many = |hosts: u64| (0..hosts).map(|host| (host, 1));
        let eu = || scoped_hosts("hosts", "eu", many(1));
        let ten = || hosts("hosts", many(10));
        // The second sync changes nothing: it is the last to look into a scope, or it holds deletes.
        let cases: [(Ran, Ran, &dyn Fn() -> Ran); 2] = [
            (eu(), eu(), &|| hosts("hosts", [])),
            (hosts("hosts", many(200)), ten(), &ten),
        ];
        for (first, second, next) in cases {
            let mut store = Location::Memory.open().unwrap();
            testing::commit(&mut store, 1, [first]);
            testing::commit(&mut store, 2, [second]);
            for number in 3..7 {
                testing::commit(&mut store, number, [next()]);
                within(&mut store, |transaction| {
                    retain(transaction, 1, [Some(number.cast_signed() - 1); 2], limits).unwrap();
                });
            }
            let syncs = "SELECT sync_id FROM px_sync ORDER BY sync";
            let named = ["sync-1", "sync-2", "sync-5", "sync-6"];
            assert_eq!(column(&store.connection, syncs), named);
        }
    }
}
