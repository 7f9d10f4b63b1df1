use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{LazyLock, OnceLock};

use parallax_core::{ConnectorOutput, Counts, RecordKind, SyncStats};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::claims::{ClaimSets, Judge, SetNo};
use crate::delta::{Delta, add};
use crate::digest::LARGE;
use crate::emissions::Emissions;
use crate::error::{CommitError, StoreError};
use crate::findings::Findings;
use crate::guard::{Alarm, shape};
use crate::result::{CommitResult, Outcome, TypeCounts};
use crate::session::Options;
use crate::sqlite::alarm::find_alarm;
use crate::sqlite::changes::list_changes;
use crate::sqlite::compare::{Comparing, Known};
use crate::sqlite::open::Location;
use crate::sqlite::row::kind_no;

/// What findings mean for the store.
pub(super) enum Decided {
    Replay(Box<CommitResult>),
    Commit(Box<Decision>),
}

/// All that a commit will do, before anything is written.
pub(super) struct Decision {
    pub(super) source: Option<Source>,
    pub(super) sets: ClaimSets,
    /// The stored claim sets, by the number they have in `sets`.
    pub(super) stored_sets: HashMap<SetNo, i64>,
    pub(super) entities: Delta,
    pub(super) relationships: Delta,
    /// What the connector was, and whether this sync settles it.
    pub(super) shape: Option<[u8; 16]>,
    /// For each claim of this run and of what was live, why it could not be checked, if it could not.
    pub(super) claims: Vec<Checked>,
    pub(super) result: CommitResult,
}

/// A claim, and what this sync says of it.
pub(super) struct Checked {
    pub(super) step_id: String,
    pub(super) scope: Option<String>,
    pub(super) missed: Option<String>,
}

pub(super) struct Source {
    pub(super) source_id: i64,
    pub(super) generation: i64,
    pub(super) last_process: Option<[u8; 16]>,
    pub(super) last_run_no: Option<u64>,
    pub(super) shape: Option<[u8; 16]>,
    /// The last sync that did not fail, and the last that was complete.
    pub(super) last_syncs: [Option<i64>; 2],
    pub(super) entities: u64,
    pub(super) relationships: u64,
}

impl Source {
    pub(super) fn live(&self, kind: RecordKind) -> u64 {
        match kind {
            RecordKind::Entity => self.entities,
            RecordKind::Relationship => self.relationships,
        }
    }
}

impl Decision {
    /// Counts the rows of records that will be written.
    pub(super) fn writes(&self) -> u64 {
        let deltas = [&self.entities, &self.relationships].into_iter();
        let writes = deltas.map(|delta| {
            let counts = delta.counts;
            let marks = delta.reclaims.len() + delta.holds.len() + delta.releases.len();
            counts.created + counts.updated + counts.deleted + marks as u64
        });
        writes.sum()
    }

    /// Returns the generation of the source that this was decided on, if there was a source.
    pub(super) fn generation(&self) -> Option<i64> {
        self.source.as_ref().map(|source| source.generation)
    }

    /// Decides what findings mean for the store as a transaction sees it. Where it can be read
    /// beside that, at `location`, much is read on two connections.
    pub(super) fn make(
        transaction: &Transaction<'_>,
        location: Option<&Location>,
        findings: &mut Findings,
        options: &Options,
        seed: u64,
    ) -> Result<Decided, CommitError> {
        for kind in RecordKind::ALL {
            let records = findings.of_kind(kind).emitted;
            if records > Emissions::MOST {
                return Err(CommitError::TooManyRecords { kind, records });
            }
        }
        if RecordKind::ALL
            .into_iter()
            .any(|kind| findings.of_kind(kind).are_gone())
        {
            let records = RecordKind::ALL.map(|kind| findings.of_kind(kind).emitted);
            return Err(CommitError::RecordsGone {
                records: records.into_iter().sum(),
            });
        }
        let source = find_source(transaction, &findings.output)?;
        let source_id = source.as_ref().map_or(-1, |source| source.source_id);
        let live = |kind| {
            source
                .as_ref()
                .map_or(0, |source: &Source| source.live(kind))
        };
        let known = Known::read(transaction, source_id, RecordKind::ALL.map(live))?;
        findings.settle(&known.sums, &known.held);

        let output = &findings.output;
        let report = output.report();
        if let Some(source) = &source {
            let fingerprint = findings.fingerprint();
            if let Some(result) = find_replay(transaction, output, source, fingerprint)? {
                return Ok(Decided::Replay(Box::new(result)));
            }
            check_order(transaction, output, source)?;
        }
        let mut sets = findings.sets.clone();
        let sets_by_row = load_claim_sets(transaction, source_id, &mut sets)?;
        let comparing = Comparing {
            findings,
            known: &known,
            sets: &sets_by_row,
            seed,
        };
        let [mut entities, mut relationships] = comparing.all(transaction, location, &mut sets)?;

        let now = shape(&output.run().connector_version, report);
        let settled = source.as_ref().and_then(|source| source.shape);
        let mut alarm = None;
        if options.guard.enabled {
            let changed = settled.is_some_and(|settled| settled != now);
            alarm = find_alarm(
                transaction,
                findings,
                (&entities, &relationships),
                &sets,
                &options.guard,
            )?
            .or(changed.then_some(Alarm::ConnectorChanged));
        }
        if alarm.is_some() {
            entities.hold();
            relationships.hold();
        }
        entities.count_deletes();
        relationships.count_deletes();
        let holds = entities.holds.len() + relationships.holds.len() > 0;
        let held_because = alarm.filter(|_| holds).map(|alarm| alarm.to_string());
        // The number that it will have, if no other commit comes in between.
        let next =
            "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'px_changeset'";
        let held_changeset = holds
            .then(|| transaction.query_row(next, [], |row| row.get(0)))
            .transpose()?;

        let deltas = [&entities, &relationships];
        let result = CommitResult {
            stats: SyncStats::new(entities.counts, relationships.counts),
            outcome: if report.is_failed() {
                Outcome::Failed
            } else if report.is_complete() {
                Outcome::Committed
            } else {
                Outcome::Partial
            },
            replayed: false,
            held_changeset,
            held_because,
            types: types(transaction, findings, deltas)?
                .into_iter()
                .map(|((kind, name), counts)| TypeCounts { kind, name, counts })
                .collect(),
            changes: list_changes(transaction, findings, deltas, &sets, options.changes)?,
        };
        for (kind, delta) in RecordKind::ALL.into_iter().zip(deltas) {
            let before = source.as_ref().map_or(0, |source| source.live(kind));
            let after = (before + delta.counts.created).saturating_sub(delta.counts.deleted);
            let emitted = findings.of_kind(kind).emitted;
            delta.counts.balance(kind, emitted, before, after)?;
        }
        // Those of the run's steps and scopes, and of all that was live: nobody asks about others.
        let live_sets = deltas.into_iter().flat_map(|delta| &delta.live_sets);
        let live_claims = live_sets.flat_map(|set| sets.claims(*set));
        let claims: BTreeSet<_> = findings.sets.all().chain(live_claims).collect();
        let judge = Judge::new(report);
        let claims = claims.into_iter().map(|(step_id, scope)| Checked {
            step_id: step_id.to_owned(),
            scope: scope.map(str::to_owned),
            missed: judge.missed(step_id, scope),
        });
        let claims = claims.collect();
        Ok(Decided::Commit(Box::new(Self {
            source,
            stored_sets: sets_by_row
                .into_iter()
                .map(|(row, set)| (set, row))
                .collect(),
            sets,
            entities,
            relationships,
            shape: (result.outcome == Outcome::Committed).then_some(now),
            claims,
            result,
        })))
    }
}

pub(super) fn find_source(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
) -> Result<Option<Source>, StoreError> {
    let run = output.run();
    let source = transaction
        .prepare_cached(
            "SELECT source_id, generation, last_process, last_run_no, shape, entities,
                 relationships, last_success_sync, last_complete_sync
             FROM px_source WHERE connector_id = ?1 AND account_id = ?2",
        )?
        .query_row(params![run.connector_id, run.account_id], |row| {
            Ok(Source {
                source_id: row.get(0)?,
                generation: row.get(1)?,
                last_process: row.get(2)?,
                last_run_no: row.get(3)?,
                shape: row.get(4)?,
                entities: row.get(5)?,
                relationships: row.get(6)?,
                last_syncs: [row.get(7)?, row.get(8)?],
            })
        })
        .optional()?;
    Ok(source)
}

/// Finds what this sync did when it was committed before.
fn find_replay(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
    source: &Source,
    fingerprint: [u8; 16],
) -> Result<Option<CommitResult>, CommitError> {
    let run = output.run();
    static FIND: LazyLock<String> = LazyLock::new(|| {
        let counts = SyncStats::FIELDS.join(", ");
        format!(
            "SELECT sync, fingerprint, outcome, {counts}
             FROM px_sync WHERE source_id = ?1 AND sync_id = ?2"
        )
    });
    let found = transaction
        .prepare_cached(&FIND)?
        .query_row(params![source.source_id, run.sync_id], |row| {
            let mut values = [0; SyncStats::FIELDS.len()];
            for (column, value) in (3..).zip(&mut values) {
                *value = row.get(column)?;
            }
            let outcome = match row.get::<_, String>(2)?.as_str() {
                "committed" => Outcome::Committed,
                "partial" => Outcome::Partial,
                _ => Outcome::Failed,
            };
            let sync: i64 = row.get(0)?;
            // An approval has none.
            let known: Vec<u8> = row.get(1)?;
            Ok((sync, known, outcome, SyncStats::from_values(values)))
        })
        .optional()?;
    let Some((sync, known, outcome, stats)) = found else {
        return Ok(None);
    };
    if known != fingerprint {
        return Err(CommitError::SyncIdReused {
            connector_id: run.connector_id.clone(),
            account_id: run.account_id.clone(),
            sync_id: run.sync_id.clone(),
        });
    }
    let mut statement = transaction.prepare_cached(
        "SELECT kind, name, created, updated, unchanged, deleted, kept, held
         FROM px_sync_type WHERE sync = ?1 ORDER BY kind, name",
    )?;
    let types = statement.query_map([sync], |row| {
        Ok(TypeCounts {
            kind: if row.get::<_, i64>(0)? == kind_no(RecordKind::Entity) {
                RecordKind::Entity
            } else {
                RecordKind::Relationship
            },
            name: row.get(1)?,
            counts: Counts {
                created: row.get(2)?,
                updated: row.get(3)?,
                unchanged: row.get(4)?,
                deleted: row.get(5)?,
                kept: row.get(6)?,
                held: row.get(7)?,
                ..Counts::default()
            },
        })
    })?;
    let held: Option<(u64, String)> = transaction
        .prepare_cached(
            "SELECT changeset, reason FROM px_changeset WHERE source_id = ?1 AND sync = ?2",
        )?
        .query_row([source.source_id, sync], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (held_changeset, held_because) = held.unzip();
    Ok(Some(CommitResult {
        stats,
        outcome,
        replayed: true,
        held_changeset,
        types: types.collect::<Result<_, _>>()?,
        changes: Vec::new(),
        held_because,
    }))
}

/// Refuses a run that started before one that is committed already.
///
/// Runs of one process are numbered. Runs of different processes need no order here: a store has
/// one writer at a time, and a program that opens it before it runs a connector keeps others out.
fn check_order(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
    source: &Source,
) -> Result<(), CommitError> {
    let run = output.run();
    let same_process = source.last_process == Some(process(transaction)?);
    let later = source.last_run_no.is_some_and(|last| last > run.run_no);
    if same_process && later {
        return Err(CommitError::Superseded {
            connector_id: run.connector_id.clone(),
            account_id: run.account_id.clone(),
        });
    }
    Ok(())
}

/// A random name for this process: a pid would come again.
pub(super) fn process(transaction: &Transaction<'_>) -> Result<[u8; 16], StoreError> {
    static PROCESS: OnceLock<[u8; 16]> = OnceLock::new();
    if let Some(name) = PROCESS.get() {
        return Ok(*name);
    }
    let name = transaction.query_row("SELECT randomblob(16)", [], |row| row.get(0))?;
    Ok(*PROCESS.get_or_init(|| name))
}

pub(super) fn load_claim_sets(
    transaction: &Transaction<'_>,
    source_id: i64,
    sets: &mut ClaimSets,
) -> Result<HashMap<i64, SetNo>, StoreError> {
    let mut statement = transaction
        .prepare_cached("SELECT claims_id, claims FROM px_claims WHERE source_id = ?1")?;
    let mut rows = statement.query([source_id])?;
    let mut loaded = HashMap::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(1)?;
        let set = sets.parse(&text).ok_or_else(|| StoreError::Corrupt {
            details: format!("claims that cannot be read: {text:?}"),
        })?;
        loaded.insert(row.get(0)?, set);
    }
    Ok(loaded)
}

/// Adds up the counts by kind and name.
pub(super) fn types(
    transaction: &Transaction<'_>,
    findings: &Findings,
    deltas: [&Delta; 2],
) -> Result<BTreeMap<(RecordKind, String), Counts>, StoreError> {
    let mut types = BTreeMap::new();
    for (kind, delta) in RecordKind::ALL.into_iter().zip(deltas) {
        let names = &findings.of_kind(kind).names;
        for (name, counts) in names.iter().zip(&delta.by_emitted_name) {
            if *counts != Counts::default() {
                add(types.entry((kind, name.clone())).or_default(), *counts);
            }
        }
        for (name_id, counts) in &delta.by_stored_name {
            let name = name_of(transaction, *name_id)?;
            add(types.entry((kind, name)).or_default(), *counts);
        }
    }
    Ok(types)
}

/// Returns the type, class or verb of a number.
pub(super) fn name_of(transaction: &Transaction<'_>, name_id: i64) -> Result<String, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT name FROM px_name WHERE name_id = ?1")?;
    Ok(statement.query_row([name_id], |row| row.get(0))?)
}

/// Tells whether a kind of a source is worth digests.
pub(super) fn is_large(records: u64) -> bool {
    records > LARGE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use parallax_core::{Run, StepReport, StepStatus, SyncReport};

    use super::*;
    use crate::findings::Collected;
    use crate::sqlite::commit::decide_and_write;
    use crate::sqlite::open::Opened;
    use crate::sqlite::testing::{SEED, commit, findings, hosts};

    #[test]
    fn more_records_than_have_places_are_refused() {
        let mut step = StepReport::new("hosts", "");
        step.status = StepStatus::Completed;
        step.relationships = Emissions::MOST + 1;
        let run = Run::new("fleet", "acme", "sync-1", 1, SystemTime::UNIX_EPOCH);
        let output = ConnectorOutput::new(run, SyncReport::new(vec![step]), Vec::new(), 0);
        let collected = Collected::new(7, std::env::temp_dir(), Arc::default());
        let mut findings = Findings::new(output, collected);
        let mut store = Location::Memory.open().unwrap();
        let written = decide_and_write(&mut store, &mut findings, &Options::default(), 7);
        assert_eq!(
            written.unwrap_err().to_string(),
            "4294967296 relationships are more than a commit takes"
        );
    }

    /// How much there is to read is estimated by what a store says of itself, and that overflowed.
    #[test]
    fn count_that_is_damaged_is_an_error_and_no_panic() {
        let mut store = Location::Memory.open().unwrap();
        commit(&mut store, 1, [hosts("hosts", [(1, 1)])]);
        let damage = format!(
            "UPDATE px_source SET entities = {0}, relationships = {0}",
            i64::MAX
        );
        store.connection.execute_batch(&damage).unwrap();
        let mut next = findings(2, [hosts("hosts", [(1, 2)])]);
        let written = decide_and_write(&mut store, &mut next, &Options::default(), SEED);
        assert_eq!(written.unwrap_err().code(), "imbalance");
    }

    /// What is emitted into a session goes with it. Its output was committed again, as one that has
    /// its records in memory may be: it was told that it had used an id twice, or that Parallax had a
    /// defect.
    #[test]
    fn output_without_its_records_is_refused() {
        let mut store = Location::Memory.open().unwrap();
        let refused = |store: &mut Opened| {
            let mut ran = hosts("hosts", [(1, 1)]);
            ran.batch = None;
            let mut again = findings(1, [ran]);
            let written = decide_and_write(store, &mut again, &Options::default(), SEED);
            written.unwrap_err().to_string()
        };
        let gone =
            "the 1 records of the run are gone: they went with the session that it emitted into";
        assert_eq!(refused(&mut store), gone);
        commit(&mut store, 1, [hosts("hosts", [(1, 1)])]);
        assert_eq!(refused(&mut store), gone);
    }
}
