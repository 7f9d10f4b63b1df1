use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use parallax_core::{ConnectorOutput, RecordKind, SyncStats};
use rusqlite::{CachedStatement, ToSql, Transaction, params};

use crate::claims::{ClaimSets, SetNo};
use crate::delta::Delta;
use crate::emissions::{Emissions, Emitted};
use crate::error::{CommitError, StoreError};
use crate::json;
use crate::result::{Action, CommitResult, Outcome, TypeCounts};
use crate::sqlite::decide::{
    Decision, find_source, kind_no, process, read_entity, read_relationship, unreadable,
};

/// Writes a decision.
pub(super) struct Writer<'a> {
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
    pub(super) fn write(
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
                transaction
                    .prepare_cached(
                        "INSERT INTO px_source (connector_id, account_id) VALUES (?1, ?2)",
                    )?
                    .execute(params![run.connector_id, run.account_id])?;
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
        transaction
            .prepare_cached(
                "UPDATE px_source SET last_sync = ?2, entities = ?3, relationships = ?4
             WHERE source_id = ?1",
            )?
            .execute(params![
                source.source_id,
                writer.sync,
                entities_after,
                relationships_after
            ])?;
        if result.outcome != Outcome::Failed {
            transaction
                .prepare_cached(
                    "UPDATE px_source SET generation = generation + 1, last_process = ?2,
                         last_run_no = ?3, last_success_sync = ?4
                     WHERE source_id = ?1",
                )?
                .execute(params![
                    source.source_id,
                    process(transaction)?,
                    run.run_no,
                    writer.sync
                ])?;
        }
        if result.outcome == Outcome::Committed {
            transaction
                .prepare_cached(
                    "UPDATE px_source SET last_complete_sync = ?2 WHERE source_id = ?1",
                )?
                .execute(params![source.source_id, writer.sync])?;
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
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let columns = SyncStats::FIELDS.join(", ");
        let values = ", ?".repeat(SyncStats::FIELDS.len());
        format!(
            "INSERT INTO px_sync (source_id, sync_id, connector_version, outcome, fingerprint,
                 started_at, duration, committed_at, undelivered_events, {columns})
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?{values})"
        )
    });
    let (started_at, duration) = (
        micros_since_epoch(run.started_at),
        micros(run.duration.as_micros()),
    );
    let committed_at = micros_since_epoch(SystemTime::now());
    let (outcome, undelivered) = (result.outcome.as_str(), output.undelivered_events());
    let values = result.stats.values();
    let facts: [&dyn ToSql; 9] = [
        &source_id,
        &run.sync_id,
        &run.connector_version,
        &outcome,
        &fingerprint,
        &started_at,
        &duration,
        &committed_at,
        &undelivered,
    ];
    let counts = values.iter().map(|count| count as &dyn ToSql);
    let row = facts.into_iter().chain(counts);
    transaction
        .prepare_cached(&INSERT)?
        .execute(rusqlite::params_from_iter(row))?;
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
