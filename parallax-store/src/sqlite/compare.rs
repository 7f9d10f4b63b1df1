use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::thread;

use parallax_core::RecordKind;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::claims::{ClaimSets, SetNo};
use crate::delta::{Delta, Stock, Stored};
use crate::digest::{BUCKETS, LARGE, Sums};
use crate::error::StoreError;
use crate::findings::Findings;
use crate::sqlite::open::{Location, epoch};
use crate::sqlite::row::kind_no;

/// What the store knows of a source's records without reading them, by kind.
pub(super) struct Known {
    pub(super) source_id: i64,
    pub(super) live: [u64; 2],
    pub(super) sums: [Option<Sums>; 2],
    /// The ids of those that are held.
    pub(super) held: [Vec<u128>; 2],
}

impl Known {
    pub(super) fn read(
        connection: &Connection,
        source_id: i64,
        live: [u64; 2],
    ) -> Result<Self, StoreError> {
        let [entities, relationships] = RecordKind::ALL;
        Ok(Self {
            source_id,
            live,
            sums: [
                sums(connection, source_id, entities)?,
                sums(connection, source_id, relationships)?,
            ],
            held: [
                held(connection, source_id, entities)?,
                held(connection, source_id, relationships)?,
            ],
        })
    }
}

/// Compares findings with what is stored.
pub(super) struct Comparing<'a> {
    pub(super) findings: &'a Findings,
    pub(super) known: &'a Known,
    /// The stored claim sets by their rows.
    pub(super) sets: &'a HashMap<i64, SetNo>,
    pub(super) seed: u64,
}

impl Comparing<'_> {
    /// Compares all of it: much of it in two halves at the same time, where a second connection can
    /// be opened at `location`.
    pub(super) fn all(
        &self,
        transaction: &Transaction<'_>,
        location: Option<&Location>,
        sets: &mut ClaimSets,
    ) -> Result<[Delta; 2], StoreError> {
        let location = location.filter(|_| self.reads() > LARGE);
        let beside = location.map(Location::open_reader).transpose()?.flatten();
        let Some(mut beside) = beside else {
            return self.part(transaction, 0..BUCKETS, sets);
        };
        let at = epoch(transaction)?;
        let mut other_sets = sets.clone();
        let (lower, upper) = thread::scope(|scope| {
            let upper = scope.spawn(|| {
                let transaction = beside.transaction()?;
                // Two snapshots are of one moment if nothing was committed between them.
                if epoch(&transaction)? != at {
                    return Ok(None);
                }
                self.part(&transaction, BUCKETS / 2..BUCKETS, &mut other_sets)
                    .map(Some)
            });
            let lower = self.part(transaction, 0..BUCKETS / 2, sets);
            match upper.join() {
                Ok(upper) => (lower, upper),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        let mut deltas = lower?;
        let upper = match upper? {
            Some(mut upper) => {
                let numbers = sets.take(&other_sets);
                for delta in &mut upper {
                    delta.renumber(&numbers);
                }
                upper
            }
            None => self.part(transaction, BUCKETS / 2..BUCKETS, sets)?,
        };
        for (delta, upper) in deltas.iter_mut().zip(upper) {
            delta.append(upper);
        }
        Ok(deltas)
    }

    /// Estimates how many rows are to be read.
    fn reads(&self) -> u64 {
        let known = self
            .known
            .live
            .iter()
            .zip(&self.known.sums)
            .zip(&self.known.held);
        let reads = RecordKind::ALL.into_iter().zip(known);
        let reads = reads.map(|(kind, ((live, sums), held))| {
            let differ = self.findings.of_kind(kind).differ(sums.as_ref(), held);
            // What a damaged store says of itself may be any number.
            live.saturating_mul(differ.len() as u64) / BUCKETS as u64
        });
        reads.fold(0, u64::saturating_add)
    }

    fn part(
        &self,
        connection: &Connection,
        buckets: Range<usize>,
        sets: &mut ClaimSets,
    ) -> Result<[Delta; 2], StoreError> {
        let mut compare = |kind, sums: &Option<Sums>, held: &[u128]| {
            let mut read = |ids: RangeInclusive<u128>, each: &mut dyn FnMut(Stored)| {
                self.read(connection, kind, &ids, each)
            };
            let stock = Stock {
                sums: sums.as_ref(),
                held,
                read: &mut read,
            };
            let (emissions, report) = (self.findings.of_kind(kind), self.findings.output.report());
            Delta::compare(emissions, stock, buckets.clone(), report, sets, self.seed)
        };
        let [entities, relationships] = RecordKind::ALL;
        let [entity_sums, relationship_sums] = &self.known.sums;
        let [entities_held, relationships_held] = &self.known.held;
        Ok([
            compare(entities, entity_sums, entities_held)?,
            compare(relationships, relationship_sums, relationships_held)?,
        ])
    }

    /// Reads records in the order of ids, as far as a comparison needs them.
    fn read(
        &self,
        connection: &Connection,
        kind: RecordKind,
        ids: &RangeInclusive<u128>,
        each: &mut dyn FnMut(Stored),
    ) -> Result<(), StoreError> {
        // All of it from the comparing index: the table itself is not touched.
        let mut statement = connection.prepare_cached(match kind {
            RecordKind::Entity => {
                "SELECT n, id, hash, claims, held, type FROM px_entity
                 WHERE source_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id"
            }
            RecordKind::Relationship => {
                "SELECT n, id, hash, claims, held, verb FROM px_relationship
                 WHERE source_id = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id"
            }
        })?;
        let mut rows = statement.query(params![
            self.known.source_id,
            ids.start().to_be_bytes(),
            ids.end().to_be_bytes(),
        ])?;
        // Most follow one of the same claims.
        let mut last = None;
        while let Some(row) = rows.next()? {
            let claims: i64 = row.get(3)?;
            let set = match last {
                Some((row, set)) if row == claims => set,
                _ => *self.sets.get(&claims).ok_or_else(|| StoreError::Corrupt {
                    details: format!("a {kind} names claims {claims}, which are not there"),
                })?,
            };
            last = Some((claims, set));
            each(Stored {
                row: row.get(0)?,
                id: u128::from_be_bytes(row.get(1)?),
                hash: u128::from_be_bytes(row.get(2)?),
                claims: set,
                held: row.get(4)?,
                name: row.get(5)?,
            });
        }
        Ok(())
    }
}

fn sums(
    connection: &Connection,
    source_id: i64,
    kind: RecordKind,
) -> Result<Option<Sums>, StoreError> {
    let sql = "SELECT sums FROM px_digest WHERE source_id = ?1 AND kind = ?2";
    let sums = connection
        .prepare_cached(sql)?
        .query_row([source_id, kind_no(kind)], |row| {
            Ok(Sums::from_bytes(row.get_ref(0)?.as_blob()?))
        })
        .optional()?;
    match sums {
        Some(None) => Err(StoreError::Corrupt {
            details: format!("the digests of {} of a source", kind.plural()),
        }),
        sums => Ok(sums.flatten()),
    }
}

fn held(
    connection: &Connection,
    source_id: i64,
    kind: RecordKind,
) -> Result<Vec<u128>, StoreError> {
    // The comparing index holds the ids, too, and so is what the engine would read: all of it, to find
    // the few that are held.
    let mut statement = connection.prepare_cached(match kind {
        RecordKind::Entity => {
            "SELECT id FROM px_entity INDEXED BY px_entity_held
             WHERE source_id = ?1 AND held IS NOT NULL"
        }
        RecordKind::Relationship => {
            "SELECT id FROM px_relationship INDEXED BY px_relationship_held
             WHERE source_id = ?1 AND held IS NOT NULL"
        }
    })?;
    let ids = statement.query_map([source_id], |row| row.get(0).map(u128::from_be_bytes))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use parallax_core::EntityKey;

    use super::*;
    use crate::sqlite::decide::load_claim_sets;
    use crate::sqlite::testing::{SEED, commit, failed, findings, hosts};

    /// All ids of a source were read to find the few that are held: a third of each large sync in
    /// which nothing had changed.
    #[test]
    fn what_is_held_is_found_without_reading_the_rest() {
        let mut store = Location::Memory.open().unwrap();
        commit(
            &mut store,
            1,
            [hosts("hosts", (0..2_000).map(|host| (host, 1)))],
        );
        let hold = "UPDATE px_entity SET held = 1 WHERE key = '7'";
        store.connection.execute_batch(hold).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        store.connection.progress_handler(1, Some(count)).unwrap();
        let found = held(&store.connection, 1, RecordKind::Entity).unwrap();
        assert_eq!(
            found,
            [u128::from_be_bytes(
                EntityKey::new("host", 7).id("acme").to_bytes()
            )]
        );
        let taken = steps.load(Ordering::Relaxed);
        assert!(taken < 100, "{taken} steps for one of 2,000");
    }

    #[test]
    fn two_connections_see_what_one_sees() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let location = Location::parse("", path.to_str().unwrap()).unwrap();
        let mut store = location.open().unwrap();
        // A hundred hosts, all with a revision.
        let found = |revision| [hosts("hosts", (0..100).map(|host| (host, revision)))];
        commit(&mut store, 1, found(1));

        let mut reader = location.open_reader().unwrap().unwrap();
        let transaction = reader.transaction().unwrap();
        // More than there are: as many as make it worth a second connection.
        let known = Known::read(&transaction, 1, [LARGE + 1, 0]).unwrap();
        let mut findings = findings(2, found(2));
        findings.settle(&known.sums, &known.held);
        let mut sets = findings.sets.clone();
        let sets_by_row = load_claim_sets(&transaction, 1, &mut sets).unwrap();
        let comparing = Comparing {
            findings: &findings,
            known: &known,
            sets: &sets_by_row,
            seed: SEED,
        };
        // Each half once took few emissions whole: those of the other half were created again, and no
        // sync of few records was committed to a large source.
        let mut compared = || {
            let deltas = comparing.all(&transaction, Some(&location), &mut sets);
            let [hosts, _] = deltas.unwrap();
            assert!(hosts.updates.is_sorted_by_key(|update| update.record.id));
            let counts = hosts.counts;
            [counts.created, counts.updated, counts.unchanged]
        };
        assert_eq!(compared(), [0, 100, 0]);
        // What the second connection would see now has nothing to update.
        commit(&mut store, 3, found(2));
        assert_eq!(compared(), [0, 100, 0]);
    }

    /// What comes of a run is numbered as it comes up, by each connection on its own.
    #[test]
    fn claims_are_those_that_stand_whichever_connection_saw_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let location = Location::parse("", path.to_str().unwrap()).unwrap();
        let mut store = location.open().unwrap();
        let is_upper = |host: &u64| EntityKey::new("host", host).id("acme").to_bytes()[0] >= 0x80;
        let first = |host: u64| (host, 1);
        let lower = (0..100).filter(|host| !is_upper(host)).map(first);
        let upper = (0..100).filter(is_upper).map(first);
        let steps = [
            hosts("all", []),
            hosts("lower", lower),
            hosts("upper", upper),
        ];
        commit(&mut store, 1, steps);

        let mut reader = location.open_reader().unwrap().unwrap();
        let transaction = reader.transaction().unwrap();
        let known = Known::read(&transaction, 1, [LARGE + 1, 0]).unwrap();
        // Now one step finds all of them, every other one changed. What the others would say is not
        // known.
        let all = hosts("all", (0..100).map(|host| (host, 1 + host % 2)));
        let mut findings = findings(2, [all, failed("lower"), failed("upper")]);
        findings.settle(&known.sums, &known.held);
        let mut sets = findings.sets.clone();
        let sets_by_row = load_claim_sets(&transaction, 1, &mut sets).unwrap();
        let comparing = Comparing {
            findings: &findings,
            known: &known,
            sets: &sets_by_row,
            seed: SEED,
        };
        let deltas = comparing.all(&transaction, Some(&location), &mut sets);
        let [hosts, _] = deltas.unwrap();
        assert_eq!((hosts.updates.len(), hosts.reclaims.len()), (50, 50));
        let updates = hosts
            .updates
            .iter()
            .map(|update| (update.row, update.claims));
        for (row, claims) in updates.chain(hosts.reclaims) {
            let half = "SELECT iif(id >= x'80', 'upper', 'lower') FROM px_entity WHERE n = ?1";
            let half: String = transaction
                .query_row(half, [row], |row| row.get(0))
                .unwrap();
            assert_eq!(
                sets.text(claims),
                format!(r#"[["all",null],["{half}",null]]"#)
            );
        }
    }
}
