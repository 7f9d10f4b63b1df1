use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use parallax_core::{
    ConnectorOutput, Counts, EmissionRef, EntityRef, RecordKind, RelationshipRef, SyncStats,
};
use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::claims::{ClaimSets, SetNo};
use crate::delta::{Delta, Stored};
use crate::emissions::{Emissions, Emitted, fingerprint};
use crate::error::{CommitError, StoreError};
use crate::json;
use crate::result::{Action, Change, CommitResult, Outcome, TypeCounts};

/// Commits: decides what the output means, and writes it, in one transaction.
pub(super) fn commit(
    connection: &mut Connection,
    output: &ConnectorOutput,
) -> Result<CommitResult, CommitError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = match Decision::make(&transaction, output)? {
        Decided::Replay(result) => return Ok(result),
        Decided::Commit(decision) => Writer::write(&transaction, output, *decision)?,
    };
    transaction.commit()?;
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

enum Decided {
    Replay(CommitResult),
    Commit(Box<Decision>),
}

/// All that a commit will do, before anything is written.
struct Decision {
    source: Option<Source>,
    sets: ClaimSets,
    /// The stored claim sets, by the number they have in `sets`.
    stored_sets: HashMap<SetNo, i64>,
    entities: Emissions,
    entity_delta: Delta,
    relationship_delta: Delta,
    fingerprint: [u8; 16],
    result: CommitResult,
}

struct Source {
    source_id: i64,
    last_process: Option<[u8; 16]>,
    last_run_no: Option<u64>,
    entities: u64,
    relationships: u64,
}

impl Decision {
    fn make(
        transaction: &Transaction<'_>,
        output: &ConnectorOutput,
    ) -> Result<Decided, CommitError> {
        let seed = transaction.query_row(
            "SELECT value FROM px_meta WHERE key = 'hash_seed'",
            [],
            |row| row.get::<_, [u8; 8]>(0),
        )?;
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

fn find_source(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
) -> Result<Option<Source>, StoreError> {
    let run = output.run();
    let source = transaction
        .query_row(
            "SELECT source_id, last_process, last_run_no, entities, relationships
             FROM px_source WHERE connector_id = ?1 AND account_id = ?2",
            params![run.connector_id, run.account_id],
            |row| {
                Ok(Source {
                    source_id: row.get(0)?,
                    last_process: row.get(1)?,
                    last_run_no: row.get(2)?,
                    entities: row.get(3)?,
                    relationships: row.get(4)?,
                })
            },
        )
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
    let sql = format!(
        "SELECT sync, fingerprint, outcome, {} FROM px_sync WHERE source_id = ?1 AND sync_id = ?2",
        SyncStats::FIELDS.join(", ")
    );
    let found = transaction
        .query_row(&sql, params![source.source_id, run.sync_id], |row| {
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
    let mut statement = transaction.prepare(
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
fn process(transaction: &Transaction<'_>) -> Result<[u8; 16], StoreError> {
    static PROCESS: OnceLock<[u8; 16]> = OnceLock::new();
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
            let sql = "SELECT name FROM px_name WHERE name_id = ?1";
            let name = transaction.query_row(sql, [name_id], |row| row.get(0))?;
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

fn read_entity<'a>(
    output: &'a ConnectorOutput,
    record: &Emitted,
) -> Result<EntityRef<'a>, StoreError> {
    Emissions::emission(output, RecordKind::Entity, record)
        .and_then(EmissionRef::entity)
        .ok_or_else(unreadable)
}

fn read_relationship<'a>(
    output: &'a ConnectorOutput,
    record: &Emitted,
) -> Result<RelationshipRef<'a>, StoreError> {
    Emissions::emission(output, RecordKind::Relationship, record)
        .and_then(EmissionRef::relationship)
        .ok_or_else(unreadable)
}

fn unreadable() -> StoreError {
    StoreError::Engine {
        details: "an emitted record cannot be read back".to_owned(),
    }
}

const fn kind_no(kind: RecordKind) -> i64 {
    match kind {
        RecordKind::Entity => 0,
        RecordKind::Relationship => 1,
    }
}

/// Writes a decision.
struct Writer<'a> {
    transaction: &'a Transaction<'a>,
    output: &'a ConnectorOutput,
    source_id: i64,
    /// The row of this sync.
    sync: i64,
    names: HashMap<String, i64>,
    claims: HashMap<SetNo, i64>,
    sets: ClaimSets,
}

impl<'a> Writer<'a> {
    fn write(
        transaction: &'a Transaction<'a>,
        output: &'a ConnectorOutput,
        decision: Decision,
    ) -> Result<CommitResult, CommitError> {
        let Decision {
            source,
            sets,
            stored_sets,
            entities,
            entity_delta,
            relationship_delta,
            fingerprint,
            result,
        } = decision;
        let run = output.run();
        let source = match source {
            Some(source) => source,
            None => {
                transaction.execute(
                    "INSERT INTO px_source (connector_id, account_id) VALUES (?1, ?2)",
                    params![run.connector_id, run.account_id],
                )?;
                find_source(transaction, output)?.ok_or_else(unreadable)?
            }
        };
        let mut writer = Self {
            transaction,
            output,
            source_id: source.source_id,
            sync: insert_sync(transaction, output, source.source_id, fingerprint, &result)?,
            names: HashMap::new(),
            claims: stored_sets,
            sets,
        };

        // Deletes first, relationships before entities, so that no moment of the transaction shows
        // a record twice.
        let relationships_gone = writer.delete(RecordKind::Relationship, &relationship_delta)?;
        let entities_gone = writer.delete(RecordKind::Entity, &entity_delta)?;
        writer.update(RecordKind::Entity, &entity_delta)?;
        writer.update(RecordKind::Relationship, &relationship_delta)?;
        let entities_new = writer.create_entities(&entity_delta.creates)?;
        let relationships_new = writer.create_relationships(&relationship_delta.creates)?;
        writer.settle_waiting(&entities, &entity_delta, &relationship_delta)?;

        // The books once more, on what the engine says it wrote.
        let entities_after = source.entities + entities_new - entities_gone;
        let relationships_after = source.relationships + relationships_new - relationships_gone;
        let stats = result.stats;
        for (kind, before, after) in [
            (RecordKind::Entity, source.entities, entities_after),
            (
                RecordKind::Relationship,
                source.relationships,
                relationships_after,
            ),
        ] {
            let emitted = output.report().steps().iter().map(|step| match kind {
                RecordKind::Entity => step.entities,
                RecordKind::Relationship => step.relationships,
            });
            stats
                .counts(kind)
                .balance(kind, emitted.sum(), before, after)?;
        }
        transaction.execute(
            "UPDATE px_source SET last_sync = ?2, entities = ?3, relationships = ?4
             WHERE source_id = ?1",
            params![
                source.source_id,
                writer.sync,
                entities_after,
                relationships_after
            ],
        )?;
        if result.outcome != Outcome::Failed {
            transaction.execute(
                "UPDATE px_source
                 SET generation = generation + 1, last_process = ?2, last_run_no = ?3
                 WHERE source_id = ?1",
                params![source.source_id, process(transaction)?, run.run_no],
            )?;
        }
        if result.outcome == Outcome::Committed {
            transaction.execute(
                "UPDATE px_source SET last_complete_sync = ?2 WHERE source_id = ?1",
                params![source.source_id, writer.sync],
            )?;
        }
        Ok(result)
    }

    fn delete(&self, kind: RecordKind, delta: &Delta) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for record in &delta.deletes {
            self.remember(kind, record.row, Action::Deleted)?;
            if kind == RecordKind::Relationship {
                for sql in [
                    "DELETE FROM px_edge_from WHERE relationship = ?1 AND entity =
                     (SELECT from_id FROM px_relationship WHERE n = ?1)",
                    "DELETE FROM px_edge_to WHERE relationship = ?1 AND entity =
                     (SELECT to_id FROM px_relationship WHERE n = ?1)",
                    "DELETE FROM px_waiting WHERE relationship = ?1",
                ] {
                    self.cached(sql)?.execute([record.row])?;
                }
            }
            let sql = match kind {
                RecordKind::Entity => "DELETE FROM px_entity WHERE n = ?1",
                RecordKind::Relationship => "DELETE FROM px_relationship WHERE n = ?1",
            };
            deleted += self.cached(sql)?.execute([record.row])? as u64;
        }
        Ok(deleted)
    }

    /// Keeps what a record was before it is changed.
    fn remember(&self, kind: RecordKind, row: i64, action: Action) -> Result<(), StoreError> {
        let sql = match kind {
            RecordKind::Entity => {
                "INSERT INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                     class, key, display_name, properties, created_sync, changed_sync)
                 SELECT ?2, source_id, 0, ?3, id, hash, claims, type,
                     class, key, display_name, properties, created_sync, changed_sync
                 FROM px_entity WHERE n = ?1"
            }
            RecordKind::Relationship => {
                "INSERT INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                     key, from_id, to_id, properties, created_sync, changed_sync)
                 SELECT ?2, source_id, 1, ?3, id, hash, claims, verb,
                     key, from_id, to_id, properties, created_sync, changed_sync
                 FROM px_relationship WHERE n = ?1"
            }
        };
        self.cached(sql)?
            .execute(params![row, self.sync, action.as_str()])?;
        Ok(())
    }

    fn update(&mut self, kind: RecordKind, delta: &Delta) -> Result<(), StoreError> {
        for update in &delta.updates {
            self.remember(kind, update.row, Action::Updated)?;
            let claims = self.claims(update.claims)?;
            match kind {
                RecordKind::Entity => {
                    let entity = read_entity(self.output, &update.record)?;
                    let class = entity.class().map(|class| self.name(class)).transpose()?;
                    self.cached(
                        "UPDATE px_entity SET hash = ?2, claims = ?3, class = ?4,
                             display_name = ?5, properties = ?6, changed_sync = ?7
                         WHERE n = ?1",
                    )?
                    .execute(params![
                        update.row,
                        update.record.hash,
                        claims,
                        class,
                        entity.display_name(),
                        json::text(entity.properties()),
                        self.sync,
                    ])?;
                }
                RecordKind::Relationship => {
                    let relationship = read_relationship(self.output, &update.record)?;
                    self.cached(
                        "UPDATE px_relationship SET hash = ?2, claims = ?3, properties = ?4,
                             changed_sync = ?5
                         WHERE n = ?1",
                    )?
                    .execute(params![
                        update.row,
                        update.record.hash,
                        claims,
                        json::text(relationship.properties()),
                        self.sync,
                    ])?;
                }
            }
        }
        for &(row, set) in &delta.reclaims {
            let claims = self.claims(set)?;
            let sql = match kind {
                RecordKind::Entity => "UPDATE px_entity SET claims = ?2 WHERE n = ?1",
                RecordKind::Relationship => "UPDATE px_relationship SET claims = ?2 WHERE n = ?1",
            };
            self.cached(sql)?.execute([row, claims])?;
        }
        Ok(())
    }

    fn create_entities(&mut self, creates: &[Emitted]) -> Result<u64, StoreError> {
        let transaction = self.transaction;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO px_entity (source_id, id, hash, claims, type, class, key, display_name,
                 properties, created_sync, changed_sync)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )?;
        let mut created = 0;
        for record in creates {
            let entity = read_entity(self.output, record)?;
            let claims = self.claims(record.claims)?;
            let entity_type = self.name(entity.entity_type())?;
            let class = entity.class().map(|class| self.name(class)).transpose()?;
            created += insert.execute(params![
                self.source_id,
                record.id,
                record.hash,
                claims,
                entity_type,
                class,
                entity.key(),
                entity.display_name(),
                json::text(entity.properties()),
                self.sync,
            ])? as u64;
        }
        Ok(created)
    }

    fn create_relationships(&mut self, creates: &[Emitted]) -> Result<u64, StoreError> {
        let transaction = self.transaction;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO px_relationship (source_id, id, hash, claims, from_id, verb, to_id, key,
                 properties, created_sync, changed_sync)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )?;
        let mut edges_from = Vec::with_capacity(creates.len());
        let mut edges_to = Vec::with_capacity(creates.len());
        for record in creates {
            let relationship = read_relationship(self.output, record)?;
            let claims = self.claims(record.claims)?;
            let verb = self.name(relationship.verb())?;
            let (from, to) = (
                relationship.from().id.to_bytes(),
                relationship.to().id.to_bytes(),
            );
            insert.execute(params![
                self.source_id,
                record.id,
                record.hash,
                claims,
                from,
                verb,
                to,
                relationship.key(),
                json::text(relationship.properties()),
                self.sync,
            ])?;
            let row = transaction.last_insert_rowid();
            edges_from.push((from, row));
            edges_to.push((to, row));
        }
        // Sorted: appending to a b-tree costs a third less than inserting all over it.
        for (sql, edges) in [
            ("INSERT INTO px_edge_from VALUES (?1, ?2)", &mut edges_from),
            ("INSERT INTO px_edge_to VALUES (?1, ?2)", &mut edges_to),
        ] {
            edges.sort_unstable();
            let mut insert = transaction.prepare_cached(sql)?;
            for (entity, row) in &*edges {
                insert.execute(params![entity, row])?;
            }
        }
        Ok(edges_from.len() as u64)
    }

    /// Brings `px_waiting` up to date: which relationships have an end that is nowhere live.
    fn settle_waiting(
        &self,
        entities: &Emissions,
        entity_delta: &Delta,
        relationship_delta: &Delta,
    ) -> Result<(), StoreError> {
        let mut is_live = self.cached("SELECT 1 FROM px_entity WHERE lower(hex(id)) = ?1")?;
        for deleted in &entity_delta.deletes {
            // Another source may have it.
            if !is_live.exists([hex(deleted.id)])? {
                for sql in [
                    "INSERT OR IGNORE INTO px_waiting
                     SELECT relationship, entity FROM px_edge_from WHERE entity = ?1",
                    "INSERT OR IGNORE INTO px_waiting
                     SELECT relationship, entity FROM px_edge_to WHERE entity = ?1",
                ] {
                    self.cached(sql)?.execute([deleted.id])?;
                }
            }
        }
        if self
            .cached("SELECT 1 FROM px_waiting LIMIT 1")?
            .exists([])?
        {
            let mut arrived = self.cached("DELETE FROM px_waiting WHERE missing = ?1")?;
            for created in &entity_delta.creates {
                arrived.execute([created.id])?;
            }
        }
        let mut wait = self.cached("INSERT OR IGNORE INTO px_waiting VALUES (?1, ?2)")?;
        let mut row_of =
            self.cached("SELECT n FROM px_relationship WHERE source_id = ?1 AND id = ?2")?;
        for record in &relationship_delta.creates {
            let relationship = read_relationship(self.output, record)?;
            for end in [relationship.from().id, relationship.to().id] {
                let end = end.to_bytes();
                // Most ends were emitted in this very sync; those need no look into the store.
                let emitted = entities
                    .records
                    .binary_search_by_key(&end, |entity| entity.id);
                let accepted = emitted
                    .ok()
                    .and_then(|place| entities.records.get(place))
                    .is_some_and(|entity| entity.hash.is_some());
                if !accepted && !is_live.exists([hex(end)])? {
                    let row: i64 =
                        row_of.query_row(params![self.source_id, record.id], |row| row.get(0))?;
                    wait.execute(params![row, end])?;
                }
            }
        }
        Ok(())
    }

    /// Returns the stored number of a type, class or verb.
    fn name(&mut self, name: &str) -> Result<i64, StoreError> {
        if let Some(&id) = self.names.get(name) {
            return Ok(id);
        }
        self.cached("INSERT OR IGNORE INTO px_name (name) VALUES (?1)")?
            .execute([name])?;
        let id = self
            .cached("SELECT name_id FROM px_name WHERE name = ?1")?
            .query_row([name], |row| row.get(0))?;
        self.names.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Returns the stored number of a set of claims.
    fn claims(&mut self, set: SetNo) -> Result<i64, StoreError> {
        if let Some(&id) = self.claims.get(&set) {
            return Ok(id);
        }
        self.cached("INSERT INTO px_claims (source_id, claims) VALUES (?1, ?2)")?
            .execute(params![self.source_id, self.sets.text(set)])?;
        let id = self.transaction.last_insert_rowid();
        self.claims.insert(set, id);
        Ok(id)
    }

    fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.transaction.prepare_cached(sql)
    }
}

/// Records the sync, its steps and its counts by type. Returns its row.
fn insert_sync(
    transaction: &Transaction<'_>,
    output: &ConnectorOutput,
    source_id: i64,
    fingerprint: [u8; 16],
    result: &CommitResult,
) -> Result<i64, StoreError> {
    let run = output.run();
    let columns = SyncStats::FIELDS.join(", ");
    let values = result
        .stats
        .values()
        .map(|value| value.to_string())
        .join(", ");
    transaction.execute(
        &format!(
            "INSERT INTO px_sync (source_id, sync_id, connector_version, outcome, fingerprint,
                 started_at, duration, committed_at, undelivered_events, {columns})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, {values})"
        ),
        params![
            source_id,
            run.sync_id,
            run.connector_version,
            result.outcome.as_str(),
            fingerprint,
            micros_since_epoch(run.started_at),
            micros(run.duration.as_micros()),
            micros_since_epoch(SystemTime::now()),
            output.undelivered_events(),
        ],
    )?;
    let sync = transaction.last_insert_rowid();

    let mut insert = transaction
        .prepare_cached("INSERT INTO px_sync_step VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for (place, step) in (0i64..).zip(output.report().steps()) {
        insert.execute(params![
            sync,
            place,
            step.step_id,
            step.status.as_str(),
            step.entities,
            step.relationships,
            micros(step.duration.as_micros()),
            step.reason(),
        ])?;
    }
    let mut insert = transaction
        .prepare_cached("INSERT INTO px_sync_type VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for TypeCounts { kind, name, counts } in &result.types {
        insert.execute(params![
            sync,
            kind_no(*kind),
            name,
            counts.created,
            counts.updated,
            counts.unchanged,
            counts.deleted,
            counts.kept,
            counts.held,
        ])?;
    }
    Ok(sync)
}

fn micros_since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since.as_micros()),
        Err(before) => -micros(before.duration().as_micros()),
    }
}

fn micros(micros: u128) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// As the engine's `lower(hex(id))`, which the index by id is over.
fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}
