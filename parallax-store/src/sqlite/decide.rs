use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, OnceLock};

use parallax_core::{
    ConnectorOutput, Counts, EmissionRef, EntityRef, RecordKind, RelationshipRef, SyncStats,
};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::claims::{ClaimSets, SetNo};
use crate::delta::{Delta, Stored};
use crate::emissions::{Emissions, Emitted, fingerprint};
use crate::error::{CommitError, StoreError};
use crate::result::{Action, Change, CommitResult, Outcome, TypeCounts};

/// What an output means for the store.
pub(super) enum Decided {
    Replay(CommitResult),
    Commit(Box<Decision>),
}

/// All that a commit will do, before anything is written.
pub(super) struct Decision {
    pub(super) source: Option<Source>,
    pub(super) sets: ClaimSets,
    /// The stored claim sets, by the number they have in `sets`.
    pub(super) stored_sets: HashMap<SetNo, i64>,
    pub(super) entities: Emissions,
    pub(super) entity_delta: Delta,
    pub(super) relationship_delta: Delta,
    pub(super) fingerprint: [u8; 16],
    pub(super) result: CommitResult,
}

pub(super) struct Source {
    pub(super) source_id: i64,
    pub(super) last_process: Option<[u8; 16]>,
    pub(super) last_run_no: Option<u64>,
    pub(super) entities: u64,
    pub(super) relationships: u64,
}

impl Decision {
    /// Counts the rows that will be written.
    pub(super) fn changes(&self) -> u64 {
        let deltas = [&self.entity_delta, &self.relationship_delta];
        let counts = deltas.iter().map(|delta| delta.counts);
        counts
            .map(|counts| counts.created + counts.updated + counts.deleted)
            .sum()
    }

    pub(super) fn make(
        transaction: &Transaction<'_>,
        output: &ConnectorOutput,
    ) -> Result<Decided, CommitError> {
        let seed = transaction
            .prepare_cached("SELECT value FROM px_meta WHERE key = 'hash_seed'")?
            .query_row([], |row| row.get(0))?;
        let seed = u64::from_be_bytes(seed);
        let mut sets = ClaimSets::default();
        let entities = Emissions::collect(output, RecordKind::Entity, seed, &mut sets);
        let relationships = Emissions::collect(output, RecordKind::Relationship, seed, &mut sets);
        let fingerprint = fingerprint(output, [&entities, &relationships], &sets, seed);

        let source = find_source(transaction, output)?;
        if let Some(source) = &source {
            if let Some(result) = find_replay(transaction, output, source, fingerprint)? {
                return Ok(Decided::Replay(result));
            }
            check_order(transaction, output, source)?;
        }

        let source_id = source.as_ref().map_or(-1, |source| source.source_id);
        let sets_by_row = load_claim_sets(transaction, source_id, &mut sets)?;
        let mut compare = |kind, emissions: &Emissions| {
            let mut statement = transaction.prepare_cached(match kind {
                RecordKind::Entity => {
                    "SELECT n, id, hash, claims, type FROM px_entity
                     WHERE source_id = ?1 ORDER BY id"
                }
                RecordKind::Relationship => {
                    "SELECT n, id, hash, claims, verb FROM px_relationship
                     WHERE source_id = ?1 ORDER BY id"
                }
            })?;
            let stored = statement.query_and_then([source_id], |row| {
                let claims: i64 = row.get(3)?;
                Ok::<_, StoreError>(Stored {
                    row: row.get(0)?,
                    id: row.get(1)?,
                    hash: row.get(2)?,
                    claims: *sets_by_row
                        .get(&claims)
                        .ok_or_else(|| StoreError::Corrupt {
                            details: format!("a {kind} names claims {claims}, which are not there"),
                        })?,
                    name: row.get(4)?,
                })
            })?;
            Delta::compare(emissions, stored, output.report(), &mut sets)
        };
        let entity_delta = compare(RecordKind::Entity, &entities)?;
        let relationship_delta = compare(RecordKind::Relationship, &relationships)?;

        let report = output.report();
        let result = CommitResult {
            stats: SyncStats::new(entity_delta.counts, relationship_delta.counts),
            outcome: if report.is_failed() {
                Outcome::Failed
            } else if report.is_complete() {
                Outcome::Committed
            } else {
                Outcome::Partial
            },
            replayed: false,
            held_changeset: None,
            types: types(
                transaction,
                [
                    (&entities, &entity_delta),
                    (&relationships, &relationship_delta),
                ],
            )?,
            changes: changes(transaction, output, &entity_delta)?,
        };
        let live = source
            .as_ref()
            .map_or((0, 0), |s| (s.entities, s.relationships));
        for (kind, emissions, delta, before) in [
            (RecordKind::Entity, &entities, &entity_delta, live.0),
            (
                RecordKind::Relationship,
                &relationships,
                &relationship_delta,
                live.1,
            ),
        ] {
            let after = (before + delta.counts.created).saturating_sub(delta.counts.deleted);
            delta
                .counts
                .balance(kind, emissions.emitted, before, after)?;
        }
        Ok(Decided::Commit(Box::new(Self {
            source,
            stored_sets: sets_by_row
                .into_iter()
                .map(|(row, set)| (set, row))
                .collect(),
            sets,
            entities,
            entity_delta,
            relationship_delta,
            fingerprint,
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
            "SELECT source_id, last_process, last_run_no, entities, relationships
             FROM px_source WHERE connector_id = ?1 AND account_id = ?2",
        )?
        .query_row(params![run.connector_id, run.account_id], |row| {
            Ok(Source {
                source_id: row.get(0)?,
                last_process: row.get(1)?,
                last_run_no: row.get(2)?,
                entities: row.get(3)?,
                relationships: row.get(4)?,
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
            let known: [u8; 16] = row.get(1)?;
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
    Ok(Some(CommitResult {
        stats,
        outcome,
        replayed: true,
        held_changeset: None,
        types: types.collect::<Result<_, _>>()?,
        changes: Vec::new(),
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

fn load_claim_sets(
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

fn types(
    transaction: &Transaction<'_>,
    kinds: [(&Emissions, &Delta); 2],
) -> Result<Vec<TypeCounts>, StoreError> {
    let mut types = BTreeMap::new();
    for (kind, (emissions, delta)) in RecordKind::ALL.into_iter().zip(kinds) {
        let mut add = |name: String, counts: Counts| {
            let sum: &mut Counts = types.entry((kind, name)).or_default();
            sum.created += counts.created;
            sum.updated += counts.updated;
            sum.unchanged += counts.unchanged;
            sum.deleted += counts.deleted;
            sum.kept += counts.kept;
            sum.held += counts.held;
        };
        for (name, counts) in emissions.names.iter().zip(&delta.by_emitted_name) {
            if *counts != Counts::default() {
                add(name.clone(), *counts);
            }
        }
        for (name_id, counts) in &delta.by_stored_name {
            let name = transaction
                .prepare_cached("SELECT name FROM px_name WHERE name_id = ?1")?
                .query_row([name_id], |row| row.get(0))?;
            add(name, *counts);
        }
    }
    let types = types.into_iter();
    Ok(types
        .map(|((kind, name), counts)| TypeCounts { kind, name, counts })
        .collect())
}

/// Names the first entities of each action, in the order of ids.
fn changes(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
    delta: &Delta,
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    let mut statement = transaction.prepare_cached(
        "SELECT t.name, e.key, coalesce(e.display_name, e.key)
         FROM px_entity e JOIN px_name t ON t.name_id = e.type WHERE e.n = ?1",
    )?;
    for deleted in delta.deletes.iter().take(CommitResult::CHANGES) {
        changes.push(statement.query_row([deleted.row], |row| {
            Ok(Change {
                action: Action::Deleted,
                entity_type: row.get(0)?,
                key: row.get(1)?,
                display_name: row.get(2)?,
            })
        })?);
    }
    let updated = delta
        .updates
        .iter()
        .take(CommitResult::CHANGES)
        .map(|update| &update.record);
    let created = delta.creates.iter().take(CommitResult::CHANGES);
    let emitted = updated
        .map(|record| (Action::Updated, record))
        .chain(created.map(|record| (Action::Created, record)));
    for (action, record) in emitted {
        let entity = read_entity(output, record)?;
        changes.push(Change {
            action,
            entity_type: entity.entity_type().to_owned(),
            key: entity.key().to_owned(),
            display_name: entity.display_name().unwrap_or(entity.key()).to_owned(),
        });
    }
    Ok(changes)
}

pub(super) fn read_entity<'a>(
    output: &'a ConnectorOutput,
    record: &Emitted,
) -> Result<EntityRef<'a>, StoreError> {
    Emissions::emission(output, RecordKind::Entity, record)
        .and_then(EmissionRef::entity)
        .ok_or_else(unreadable)
}

pub(super) fn read_relationship<'a>(
    output: &'a ConnectorOutput,
    record: &Emitted,
) -> Result<RelationshipRef<'a>, StoreError> {
    Emissions::emission(output, RecordKind::Relationship, record)
        .and_then(EmissionRef::relationship)
        .ok_or_else(unreadable)
}

pub(super) fn unreadable() -> StoreError {
    StoreError::Engine {
        details: "an emitted record cannot be read back".to_owned(),
    }
}

pub(super) const fn kind_no(kind: RecordKind) -> i64 {
    match kind {
        RecordKind::Entity => 0,
        RecordKind::Relationship => 1,
    }
}
