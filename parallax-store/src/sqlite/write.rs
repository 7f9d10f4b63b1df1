use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use parallax_core::{ConnectorOutput, RecordKind, SyncStats};
use rusqlite::{CachedStatement, ToSql, Transaction, params};

use crate::claims::{ClaimSets, SetNo};
use crate::contents::unreadable;
use crate::delta::{Candidate, Delta};
use crate::emissions::{Emissions, Emitted, NameNo, in_parts};
use crate::error::{CommitError, StoreError};
use crate::findings::Findings;
use crate::json;
use crate::result::{Action, CommitResult, Outcome, TypeCounts};
use crate::sqlite::bulk::Bulk;
use crate::sqlite::decide::{Checked, Decision, find_source, is_large, process};
use crate::sqlite::delete::{delete, is_live, remember, wait_for_deleted};
use crate::sqlite::insert::Inserts;
use crate::sqlite::prepare::prepare_and_write;
use crate::sqlite::retain::{LIMITS, forget_claims, retain};
use crate::sqlite::row::{Row, kind_no};

/// How many commits of a source come between two that forget claims which nothing names any more.
const COMMITS_PER_SWEEP: i64 = 64;

/// Writes a decision.
pub(super) struct Writer<'a> {
    transaction: &'a Transaction<'a>,
    findings: &'a Findings,
    source_id: i64,
    /// The row of this sync.
    sync: i64,
    /// Stored numbers of types, classes and verbs.
    names: HashMap<String, i64>,
    /// Stored numbers of sets of claims, and of those that records get in this commit.
    stored_sets: HashMap<SetNo, i64>,
    claims: HashMap<SetNo, i64>,
    sets: ClaimSets,
}

impl<'a> Writer<'a> {
    pub(super) fn write(
        transaction: &'a Transaction<'a>,
        findings: &'a Findings,
        decision: Decision,
    ) -> Result<CommitResult, CommitError> {
        let Decision {
            source,
            sets,
            stored_sets,
            entities,
            relationships,
            shape,
            claims,
            mut result,
        } = decision;
        let output = &findings.output;
        let run = output.run();
        let source = match source {
            Some(source) => source,
            None => {
                // No generation comes twice, so that what was decided on a source that has been
                // forgotten since is not taken for a decision on this one.
                transaction
                    .prepare_cached(
                        "INSERT INTO px_source (connector_id, account_id, generation)
                         SELECT ?1, ?2, value FROM px_meta WHERE key = 'epoch'",
                    )?
                    .execute(params![run.connector_id, run.account_id])?;
                find_source(transaction, output)?.ok_or_else(unreadable)?
            }
        };
        let mut writer = Self {
            transaction,
            findings,
            source_id: source.source_id,
            sync: insert_sync(
                transaction,
                output,
                source.source_id,
                findings.fingerprint(),
                &result,
            )?,
            names: HashMap::new(),
            stored_sets,
            claims: HashMap::new(),
            sets,
        };

        // Deletes first, relationships before entities, so that no moment of the transaction shows
        // a record twice.
        let relationships_gone = writer.delete(RecordKind::Relationship, &relationships)?;
        let entities_gone = writer.delete(RecordKind::Entity, &entities)?;
        if let Some(reason) = &result.held_because {
            result.held_changeset = Some(writer.hold(reason, [&entities, &relationships])?);
        }
        writer.release([&entities, &relationships])?;
        writer.update(RecordKind::Entity, &entities)?;
        writer.update(RecordKind::Relationship, &relationships)?;
        let entities_new = writer.create_entities(&entities.creates)?;
        let edges = writer.create_relationships(&relationships.creates)?;
        let relationships_new = edges.created;
        wait_for_deleted(transaction, entities.deletes.iter().map(|d| d.stored.id))?;
        writer.settle_waiting(&entities.creates, &edges)?;
        writer.note_claims(&claims)?;

        // The books once more, on what the engine says it wrote.
        let gone = [entities_gone, relationships_gone];
        let new = [entities_new, relationships_new];
        let mut live = [0; 2];
        let mut changes = 0;
        let kinds = RecordKind::ALL.into_iter().zip([&entities, &relationships]);
        for (((kind, delta), live), (new, gone)) in
            kinds.zip(&mut live).zip(new.into_iter().zip(gone))
        {
            let before = source.live(kind);
            *live = before + new - gone;
            let emitted = findings.of_kind(kind).emitted;
            let counts = result.stats.counts(kind);
            counts.balance(kind, emitted, before, *live)?;
            changes += counts.updated + counts.deleted;
            writer.keep_sums(kind, *live, delta)?;
        }
        let [live_entities, live_relationships] = live;
        transaction
            .prepare_cached(
                "UPDATE px_source SET generation = generation + 1, last_sync = ?2, entities = ?3,
                     relationships = ?4, changes = changes + ?5
                 WHERE source_id = ?1",
            )?
            .execute(params![
                source.source_id,
                writer.sync,
                live_entities,
                live_relationships,
                changes,
            ])?;
        if result.outcome != Outcome::Failed {
            transaction
                .prepare_cached(
                    "UPDATE px_source SET last_process = ?2, last_run_no = ?3,
                         last_success_sync = ?4
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
                    "UPDATE px_source SET last_complete_sync = ?2, shape = ?3
                     WHERE source_id = ?1",
                )?
                .execute(params![source.source_id, writer.sync, shape])?;
        }
        retain(transaction, source.source_id, source.last_syncs, LIMITS)?;
        // Only the history may still name them: that is looked through now and then.
        let unclaimed = writer.sets_of_none([&entities, &relationships]);
        if !unclaimed.is_empty() && source.generation % COMMITS_PER_SWEEP == 0 {
            forget_claims(transaction, source.source_id, &unclaimed)?;
        }
        Ok(result)
    }

    fn delete(&self, kind: RecordKind, delta: &Delta) -> Result<u64, StoreError> {
        let rows = delta.deletes.iter().map(|delete| delete.stored.row);
        let rows: Vec<i64> = rows.collect();
        delete(self.transaction, self.sync, kind, &rows, None)
    }

    /// Opens a changeset of the deletes that are held.
    fn hold(
        &self,
        reason: &str,
        [entities, relationships]: [&Delta; 2],
    ) -> Result<u64, StoreError> {
        self.cached(
            "INSERT INTO px_changeset (source_id, sync, reason, entities, relationships, state)
             VALUES (?1, ?2, ?3, ?4, ?5, 'open')",
        )?
        .execute(params![
            self.source_id,
            self.sync,
            reason,
            entities.holds.len() as u64,
            relationships.holds.len() as u64,
        ])?;
        let changeset = self.transaction.last_insert_rowid();
        for (sql, holds) in [
            (
                "UPDATE px_entity SET held = ?2 WHERE n = ?1",
                &entities.holds,
            ),
            (
                "UPDATE px_relationship SET held = ?2 WHERE n = ?1",
                &relationships.holds,
            ),
        ] {
            let mut hold = self.cached(sql)?;
            for Candidate { stored, .. } in holds {
                hold.execute([stored.row, changeset])?;
            }
        }
        Ok(changeset.unsigned_abs())
    }

    /// Lets go of what was held and has been seen again, and closes changesets that held only that.
    fn release(&self, [entities, relationships]: [&Delta; 2]) -> Result<(), StoreError> {
        let mut changesets = Vec::new();
        for (sql, releases) in [
            (
                "UPDATE px_entity SET held = NULL WHERE n = ?1",
                &entities.releases,
            ),
            (
                "UPDATE px_relationship SET held = NULL WHERE n = ?1",
                &relationships.releases,
            ),
        ] {
            let mut release = self.cached(sql)?;
            for &(row, changeset) in releases {
                release.execute([row])?;
                changesets.push(changeset);
            }
        }
        changesets.sort_unstable();
        changesets.dedup();
        let mut close = self.cached(
            "UPDATE px_changeset SET state = 'released', closed_at = ?3, closed_sync = ?4
             WHERE changeset = ?2 AND state = 'open'
                 AND NOT EXISTS (SELECT 1 FROM px_entity WHERE source_id = ?1 AND held = ?2)
                 AND NOT EXISTS (SELECT 1 FROM px_relationship WHERE source_id = ?1 AND held = ?2)",
        )?;
        for changeset in changesets {
            close.execute(params![self.source_id, changeset, now(), self.sync])?;
        }
        Ok(())
    }

    fn update(&mut self, kind: RecordKind, delta: &Delta) -> Result<(), StoreError> {
        let transaction = self.transaction;
        let rows: Vec<i64> = delta.updates.iter().map(|update| update.row).collect();
        remember(transaction, self.sync, kind, &rows, Action::Updated, None)?;
        let mut update = transaction.prepare_cached(match kind {
            RecordKind::Entity => {
                "UPDATE px_entity SET hash = ?2, claims = ?3, properties = ?4, checksum = ?5,
                     changed_sync = ?6, class = ?7, display_name = ?8
                 WHERE n = ?1"
            }
            RecordKind::Relationship => {
                "UPDATE px_relationship SET hash = ?2, claims = ?3, properties = ?4, checksum = ?5,
                     changed_sync = ?6
                 WHERE n = ?1"
            }
        })?;
        let contents = &self.findings.contents;
        let mut buffer = Vec::new();
        for change in &delta.updates {
            let record = &change.record;
            let claims = self.claims(change.claims)?;
            let (id, hash) = (record.id.to_be_bytes(), record.hash.to_be_bytes());
            match kind {
                RecordKind::Entity => {
                    let entity = contents.entity(record, &mut buffer)?;
                    let class = entity.class().map(|class| self.name(class)).transpose()?;
                    let properties = json::text(entity.properties());
                    let row = Row::Entity {
                        id,
                        class,
                        key: entity.key(),
                        display_name: entity.display_name(),
                        properties: &properties,
                    };
                    update.execute(params![
                        change.row,
                        hash,
                        claims,
                        properties,
                        row.checksum(),
                        self.sync,
                        class,
                        entity.display_name(),
                    ])?;
                }
                RecordKind::Relationship => {
                    let relationship = contents.relationship(record, &mut buffer)?;
                    let properties = json::text(relationship.properties());
                    let row = Row::Relationship {
                        id,
                        from: relationship.from().id.to_bytes(),
                        to: relationship.to().id.to_bytes(),
                        key: relationship.key(),
                        properties: &properties,
                    };
                    update.execute(params![
                        change.row,
                        hash,
                        claims,
                        properties,
                        row.checksum(),
                        self.sync,
                    ])?;
                }
            }
        }
        let mut reclaim = transaction.prepare_cached(match kind {
            RecordKind::Entity => "UPDATE px_entity SET claims = ?2 WHERE n = ?1",
            RecordKind::Relationship => "UPDATE px_relationship SET claims = ?2 WHERE n = ?1",
        })?;
        for &(row, set) in &delta.reclaims {
            reclaim.execute([row, self.claims(set)?])?;
        }
        Ok(())
    }

    fn create_entities(&mut self, creates: &[u32]) -> Result<u64, StoreError> {
        let transaction = self.transaction;
        let bulk = Bulk::begin(transaction, RecordKind::Entity, creates.len())?;
        let mut inserts = Inserts::prepare(
            transaction,
            "px_entity (source_id, created_sync, changed_sync, id, hash, claims, type, class, key,
                 display_name, properties, checksum)",
            "(?1, ?2, ?2, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &[self.source_id, self.sync],
            creates.len(),
        )?;
        let (contents, emissions) = (&self.findings.contents, &self.findings.entities);
        let mut types = EmittedNames::of(&emissions.names);
        let mut created = 0;
        prepare_and_write(contents, RecordKind::Entity, emissions, creates, |entity| {
            let record = entity.record;
            let claims = self.claims(record.claims)?;
            let entity_type = self.emitted_name(&mut types, record.name)?;
            let class = entity.class.map(|class| self.name(class)).transpose()?;
            let id = record.id.to_be_bytes();
            let row = Row::Entity {
                id,
                class,
                key: entity.key.unwrap_or_default(),
                display_name: entity.display_name,
                properties: entity.properties,
            };
            created += inserts.add(params![
                id,
                record.hash.to_be_bytes(),
                claims,
                entity_type,
                class,
                entity.key,
                entity.display_name,
                entity.properties,
                row.checksum(),
            ])?;
            Ok(())
        })?;
        drop(inserts);
        bulk.end(transaction)?;
        Ok(created)
    }

    fn create_relationships(&mut self, creates: &[u32]) -> Result<Edges, StoreError> {
        let transaction = self.transaction;
        let mut inserts = Inserts::prepare(
            transaction,
            "px_relationship (source_id, created_sync, changed_sync, id, hash, claims, from_id,
                 verb, to_id, key, properties, checksum)",
            "(?1, ?2, ?2, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &[self.source_id, self.sync],
            creates.len(),
        )?;
        // Nobody else writes, so that rows are numbered one after the other.
        let next = "SELECT coalesce(max(n), 0) + 1 FROM px_relationship";
        let mut edges = Edges {
            created: 0,
            first: self.cached(next)?.query_row([], |row| row.get(0))?,
            ends: [(); 2].map(|()| Vec::with_capacity(creates.len())),
        };
        let (contents, emissions) = (&self.findings.contents, &self.findings.relationships);
        let mut verbs = EmittedNames::of(&emissions.names);
        let mut number = 0;
        let kind = RecordKind::Relationship;
        prepare_and_write(contents, kind, emissions, creates, |relationship| {
            let record = relationship.record;
            let claims = self.claims(record.claims)?;
            let verb = self.emitted_name(&mut verbs, record.name)?;
            let id = record.id.to_be_bytes();
            let [from, to] = relationship.ends;
            let row = Row::Relationship {
                id,
                from,
                to,
                key: relationship.key,
                properties: relationship.properties,
            };
            edges.created += inserts.add(params![
                id,
                record.hash.to_be_bytes(),
                claims,
                from,
                verb,
                to,
                relationship.key,
                relationship.properties,
                row.checksum(),
            ])?;
            for (edges, end) in edges.ends.iter_mut().zip(relationship.ends) {
                edges.push((end, number));
            }
            number += 1;
            Ok(())
        })?;
        // Sorted: appending to a b-tree costs a third less than inserting all over it.
        in_parts(creates.len() >= Emissions::MANY, &mut edges.ends, |ends| {
            for edges in ends {
                edges.sort_unstable();
            }
        });
        for (table, ends) in ["px_edge_from", "px_edge_to"].into_iter().zip(&edges.ends) {
            let mut inserts = Inserts::prepare(transaction, table, "(?, ?)", &[], ends.len())?;
            for (entity, number) in ends {
                inserts.add(params![entity, edges.row(*number)])?;
            }
        }
        Ok(edges)
    }

    /// Brings `px_waiting` up to date with what was created: which relationships have an end that
    /// is nowhere live.
    fn settle_waiting(&self, entities: &[u32], edges: &Edges) -> Result<(), StoreError> {
        if self
            .cached("SELECT 1 FROM px_waiting LIMIT 1")?
            .exists([])?
        {
            let mut arrived = self.cached("DELETE FROM px_waiting WHERE missing = ?1")?;
            for created in self.findings.entities.at(entities) {
                arrived.execute([created.id.to_be_bytes()])?;
            }
        }
        let mut wait = self.cached("INSERT OR IGNORE INTO px_waiting VALUES (?1, ?2)")?;
        for ends in &edges.ends {
            let mut last = None;
            for &(end, number) in ends {
                // Edges of one end stand together.
                let lives = match last {
                    Some((id, lives)) if id == end => lives,
                    _ => {
                        // Most ends were emitted in this very sync; those need no look into the
                        // store.
                        let id = u128::from_be_bytes(end);
                        let emitted = self.findings.entities.find(id);
                        emitted.is_some_and(Emitted::is_accepted) || is_live(self.transaction, id)?
                    }
                };
                last = Some((end, lives));
                if !lives {
                    wait.execute(params![edges.row(number), end])?;
                }
            }
        }
        Ok(())
    }

    /// Keeps for each claim which sync looked everywhere for it, and which could not.
    fn note_claims(&self, claims: &[Checked]) -> Result<(), StoreError> {
        let mut looked = self.cached(
            "INSERT INTO px_claim (source_id, step_id, scope, looked_sync) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (source_id, step_id, ifnull(scope, x''))
             DO UPDATE SET looked_sync = ?4",
        )?;
        let mut missed = self.cached(
            "INSERT INTO px_claim (source_id, step_id, scope, missed_sync, missed_because)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (source_id, step_id, ifnull(scope, x''))
             DO UPDATE SET missed_sync = ?4, missed_because = ?5",
        )?;
        for claim in claims {
            let (step_id, scope) = (&claim.step_id, &claim.scope);
            match &claim.missed {
                None => looked.execute(params![self.source_id, step_id, scope, self.sync])?,
                Some(because) => {
                    missed.execute(params![self.source_id, step_id, scope, self.sync, because])?
                }
            };
        }
        // No live record has any other, so that nobody will ask about them.
        self.cached(
            "DELETE FROM px_claim WHERE source_id = ?1
                 AND ifnull(looked_sync, 0) < ?2 AND ifnull(missed_sync, 0) < ?2",
        )?
        .execute([self.source_id, self.sync])?;
        Ok(())
    }

    /// Returns the stored sets of claims that no live record has any more.
    fn sets_of_none(&self, deltas: [&Delta; 2]) -> Vec<i64> {
        let live = deltas.into_iter().flat_map(|delta| &delta.live_sets);
        let live: HashSet<&SetNo> = live.chain(self.claims.keys()).collect();
        let stored = self.stored_sets.iter();
        let none = stored.filter(|(set, _)| !live.contains(set));
        none.map(|(_, row)| *row).collect()
    }

    /// Keeps the sums of a kind that is large, and drops those of one that no longer is.
    fn keep_sums(&self, kind: RecordKind, live: u64, delta: &Delta) -> Result<(), StoreError> {
        if let Some(sums) = delta.sums.as_ref().filter(|_| is_large(live)) {
            self.cached(
                "INSERT INTO px_digest VALUES (?1, ?2, ?3)
                 ON CONFLICT (source_id, kind) DO UPDATE SET sums = ?3",
            )?
            .execute(params![self.source_id, kind_no(kind), sums.to_bytes()])?;
        } else {
            self.cached("DELETE FROM px_digest WHERE source_id = ?1 AND kind = ?2")?
                .execute([self.source_id, kind_no(kind)])?;
        }
        Ok(())
    }

    /// Returns the stored number of a name of the findings.
    fn emitted_name(
        &mut self,
        known: &mut EmittedNames<'_>,
        no: NameNo,
    ) -> Result<i64, StoreError> {
        if let Some(&Some(id)) = known.ids.get(no as usize) {
            return Ok(id);
        }
        let name = known.names.get(no as usize).ok_or_else(unreadable)?;
        let id = self.name(name)?;
        if let Some(slot) = known.ids.get_mut(no as usize) {
            *slot = Some(id);
        }
        Ok(id)
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
        let id = match self.stored_sets.get(&set) {
            Some(&id) => id,
            None => {
                self.cached("INSERT INTO px_claims (source_id, claims) VALUES (?1, ?2)")?
                    .execute(params![self.source_id, self.sets.text(set)])?;
                self.transaction.last_insert_rowid()
            }
        };
        self.claims.insert(set, id);
        Ok(id)
    }

    fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.transaction.prepare_cached(sql)
    }
}

/// The names of the findings of one kind, with their stored numbers as far as they are known.
struct EmittedNames<'a> {
    names: &'a [String],
    ids: Vec<Option<i64>>,
}

impl<'a> EmittedNames<'a> {
    fn of(names: &'a [String]) -> Self {
        Self {
            names,
            ids: vec![None; names.len()],
        }
    }
}

/// Relationships that were created.
struct Edges {
    created: u64,
    /// The row of the first; the others follow it.
    first: i64,
    /// Of both ends: their ids, each with the number of its relationship among these. Sorted.
    ends: [Vec<([u8; 16], u32)>; 2],
}

impl Edges {
    fn row(&self, number: u32) -> i64 {
        self.first + i64::from(number)
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

pub(super) fn micros_since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since.as_micros()),
        Err(before) => -micros(before.duration().as_micros()),
    }
}

fn micros(micros: u128) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Returns the machine's time as the store keeps it.
pub(super) fn now() -> i64 {
    micros_since_epoch(SystemTime::now())
}
