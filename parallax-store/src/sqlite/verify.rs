use parallax_core::RecordKind;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::digest::{BUCKETS, Sums, of_record};
use crate::error::StoreError;
use crate::sqlite::error::store_error;
use crate::sqlite::journal;
use crate::sqlite::open::{CACHE, LARGE_CACHE, Location};
use crate::sqlite::records::parse_claims;
use crate::sqlite::row::{Row, hex, kind_no};
use crate::verify::{Check, Problem, Verification};

/// Reads a whole store and checks all that must hold in it.
///
/// Damage is what this is for: it is reported, and the next check goes on. Rows are read one by
/// one, however many there are.
pub(super) fn verify(connection: &mut Connection, seed: u64) -> Result<Verification, StoreError> {
    // Edges are looked up all over the store. Without the memory it only takes longer: a store may be
    // too damaged even for this.
    connection
        .pragma_update(None, "cache_size", LARGE_CACHE)
        .ok();
    let verified = check_all(connection, seed);
    connection.pragma_update(None, "cache_size", CACHE).ok();
    verified
}

fn check_all(connection: &mut Connection, seed: u64) -> Result<Verification, StoreError> {
    // One snapshot, or a commit between two checks would look like damage.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let mut verifier = Verifier {
        connection: &transaction,
        verification: Verification {
            checks: Vec::new(),
            problems: Vec::new(),
        },
    };
    verifier.check("pages", "PRAGMA page_count")?;
    verifier.integrity()?;
    verifier.check("tables", "SELECT count(*) FROM sqlite_schema")?;
    verifier.schema()?;
    for Rules { name, count, rules } in RULES {
        verifier.check(name, count)?;
        for rule in *rules {
            verifier.rule(rule)?;
        }
        match *name {
            "claims" => verifier.claims()?,
            "entities" => verifier.checksums(&ENTITIES)?,
            "relationships" => verifier.checksums(&RELATIONSHIPS)?,
            "digests" => verifier.digests(seed)?,
            "edges" => verifier.edges()?,
            "history" => {
                verifier.checksums(&OLD_ENTITIES)?;
                verifier.checksums(&OLD_RELATIONSHIPS)?;
            }
            "journals" => verifier.journals()?,
            _ => {}
        }
    }
    Ok(verifier.verification)
}

struct Verifier<'a> {
    connection: &'a Connection,
    verification: Verification,
}

impl Verifier<'_> {
    /// Begins a check of what a statement counts.
    fn check(&mut self, name: &'static str, count: &str) -> Result<(), StoreError> {
        self.verification.checks.push(Check {
            name,
            checked: 0,
            without_checksum: 0,
            problems: 0,
        });
        let count = self.connection.query_row(count, [], |row| row.get(0));
        let count = self.sound(count)?;
        if let (Some(check), Some(count)) = (self.verification.checks.last_mut(), count) {
            check.checked = count;
        }
        Ok(())
    }

    /// The engine's own check: of pages, of indexes against their tables, of constraints.
    fn integrity(&mut self) -> Result<(), StoreError> {
        self.each("PRAGMA integrity_check", |text| match text {
            "ok" => None,
            problem => Some(problem.to_owned()),
        })
    }

    /// Compares tables, indexes and views with those of a new store. Others are let be.
    fn schema(&mut self) -> Result<(), StoreError> {
        const SCHEMA: &str = "SELECT type || ' ' || name, sql FROM sqlite_schema
             WHERE name GLOB 'px_*' OR name GLOB 'parallax_*' ORDER BY 1";
        let read = |connection: &Connection| -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = connection.prepare(SCHEMA)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let expected = read(&Location::Memory.open()?.connection)?;
        let Some(found) = self.sound(read(self.connection))? else {
            return Ok(());
        };
        for (name, sql) in expected {
            match found.iter().find(|(other, _)| *other == name) {
                None => self.problem(format!("{name} is not there")),
                Some((_, other)) if *other != sql => {
                    self.problem(format!("{name} is not what it should be: {other}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn claims(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT claims_id || ' ' || claims FROM px_claims";
        self.each(sql, |text| {
            let (claims_id, claims) = text.split_once(' ')?;
            match parse_claims(claims) {
                Some(set) if !set.is_empty() => None,
                _ => Some(format!("claims {claims_id} cannot be read: {claims:?}")),
            }
        })
    }

    /// Compares each row with the checksum that it was stored with.
    fn checksums(&mut self, stored: &'static Stored) -> Result<(), StoreError> {
        self.rows(stored.sql, |row| {
            let n: i64 = row.get(0)?;
            Ok(compare_checksum(stored, n, row).unwrap_or_else(|error| {
                let Stored { kind, row, .. } = stored;
                Finding::Problem(format!("{kind} of {row} {n}: it cannot be read: {error}"))
            }))
        })
    }

    /// Compares the checksums of journals, and counts their entries.
    fn journals(&mut self) -> Result<(), StoreError> {
        let sql = "SELECT chunk, first_seq, last_seq, checksum, entries FROM px_journal";
        self.rows(sql, |row| {
            let chunk: i64 = row.get(0)?;
            let (first, last): (i64, i64) = (row.get(1)?, row.get(2)?);
            let problem =
                |what: &str| Finding::Problem(format!("chunk {chunk} of a journal {what}"));
            let Ok(entries) = row.get::<_, String>(4) else {
                return Ok(problem("cannot be read"));
            };
            let number = last.checked_sub(first).and_then(|more| more.checked_add(1));
            Ok(if journal::checksum(&entries) != row.get::<_, i64>(3)? {
                problem("is not what was written")
            } else if i64::try_from(entries.lines().count()).ok() != number {
                problem("has more or fewer entries than it says")
            } else {
                Finding::Nothing
            })
        })
    }

    /// Compares the digests of large sources with their records.
    fn digests(&mut self, seed: u64) -> Result<(), StoreError> {
        let mut kept: Vec<(i64, i64)> = Vec::new();
        self.rows("SELECT source_id, kind FROM px_digest", |row| {
            kept.push((row.get(0)?, row.get(1)?));
            Ok(Finding::Nothing)
        })?;
        for (source_id, number) in kept {
            let mut kinds = RecordKind::ALL.into_iter();
            let kind = kinds.find(|kind| kind_no(*kind) == number);
            let sums = self.sums(source_id, number)?;
            let Some((kind, sums)) = kind.zip(sums) else {
                self.problem(format!("digests of source {source_id} cannot be read"));
                continue;
            };
            let table = match kind {
                RecordKind::Entity => "px_entity",
                RecordKind::Relationship => "px_relationship",
            };
            // Records that are held, or were, are in no sum.
            let sql = format!(
                "SELECT r.id, r.hash, k.claims FROM {table} r
                 LEFT JOIN px_claims k ON k.claims_id = r.claims
                 WHERE r.source_id = {source_id} AND r.held IS NULL"
            );
            let mut found = Sums::default();
            self.rows(&sql, |row| {
                let (id, hash) = (row.get(0)?, row.get(1)?);
                let (id, hash) = (u128::from_be_bytes(id), u128::from_be_bytes(hash));
                let claims = xxh3_64(row.get_ref(2)?.as_bytes()?);
                found.add(id, of_record(id, hash, claims, seed));
                Ok(Finding::Nothing)
            })?;
            let wrong = (0..BUCKETS).filter(|bucket| sums.get(*bucket) != found.get(*bucket));
            match wrong.count() {
                0 => {}
                wrong => self.problem(format!(
                    "{wrong} of {BUCKETS} digests of the {} of source {source_id} are not those of \
                     its records",
                    kind.plural()
                )),
            }
        }
        Ok(())
    }

    /// Compares where relationships begin and end with the edges, as sums of hashes: only where
    /// they differ it is worth looking for which.
    fn edges(&mut self) -> Result<(), StoreError> {
        for ends in &ENDS {
            if self.sum(ends.of_relationships)? != self.sum(ends.of_edges)? {
                for rule in ends.rules {
                    self.rule(rule)?;
                }
            }
        }
        Ok(())
    }

    /// Returns how many ends a statement tells, and the sum of their hashes.
    fn sum(&mut self, ends: &str) -> Result<(u64, u128), StoreError> {
        let (mut count, mut sum) = (0, 0_u128);
        let mut end = Vec::new();
        self.rows(ends, |row| {
            end.clear();
            // What is no id, but damage, is something else than the other side has, too.
            if let ValueRef::Blob(id) | ValueRef::Text(id) = row.get_ref(0)? {
                end.extend_from_slice(id);
            }
            end.extend_from_slice(&row.get::<_, i64>(1)?.to_be_bytes());
            count += 1;
            sum = sum.wrapping_add(xxh3_128(&end));
            Ok(Finding::Nothing)
        })?;
        Ok((count, sum))
    }

    fn sums(&mut self, source_id: i64, kind: i64) -> Result<Option<Sums>, StoreError> {
        let sums = self.connection.query_row(
            "SELECT sums FROM px_digest WHERE source_id = ?1 AND kind = ?2",
            [source_id, kind],
            |row| Ok(Sums::from_bytes(row.get_ref(0)?.as_blob()?)),
        );
        Ok(self.sound(sums)?.flatten())
    }

    /// Takes each answer of a statement for a problem.
    fn rule(&mut self, sql: &str) -> Result<(), StoreError> {
        self.each(sql, |text| Some(text.to_owned()))
    }

    /// Asks of each answer of a statement, a text, whether it is a problem.
    fn each(
        &mut self,
        sql: &str,
        problem: impl Fn(&str) -> Option<String>,
    ) -> Result<(), StoreError> {
        self.rows(sql, |row| {
            let problem = problem(row.get_ref(0)?.as_str()?);
            Ok(problem.map_or(Finding::Nothing, Finding::Problem))
        })
    }

    /// Looks at each row of a statement's answer. One that cannot be read is a problem, too.
    fn rows(
        &mut self,
        sql: &str,
        mut look: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<Finding>,
    ) -> Result<(), StoreError> {
        let Some(mut statement) = self.sound(self.connection.prepare(sql))? else {
            return Ok(());
        };
        let mut rows = statement.query([])?;
        loop {
            let next = rows.next();
            let Some(Some(row)) = self.sound(next)? else {
                return Ok(());
            };
            let found = look(row);
            match self.sound(found)? {
                None | Some(Finding::Nothing) => {}
                Some(Finding::Problem(problem)) => self.problem(problem),
                Some(Finding::WithoutChecksum) => {
                    if let Some(check) = self.verification.checks.last_mut() {
                        check.without_checksum += 1;
                    }
                }
            }
        }
    }

    /// Takes an error of the engine that speaks of damage for a problem, and passes others on.
    fn sound<T>(&mut self, result: rusqlite::Result<T>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => match error.sqlite_error_code() {
                // Of a table that is missing the engine says `Unknown`.
                None
                | Some(
                    ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::Unknown
                    | ErrorCode::TypeMismatch,
                ) => {
                    self.problem(error.to_string());
                    Ok(None)
                }
                Some(_) => Err(store_error(error)),
            },
        }
    }

    fn problem(&mut self, details: String) {
        let Verification { checks, problems } = &mut self.verification;
        let Some(check) = checks.last_mut() else {
            return;
        };
        check.problems += 1;
        if check.problems <= Verification::PROBLEMS as u64 {
            problems.push(Problem {
                check: check.name,
                details,
            });
        }
    }
}

/// What a row says of the store.
enum Finding {
    Nothing,
    Problem(String),
    WithoutChecksum,
}

/// Where records are stored with checksums.
struct Stored {
    kind: RecordKind,
    /// What a row is called.
    row: &'static str,
    /// Tells of each its number, its checksum, and what that is over.
    sql: &'static str,
}

const ENTITIES: Stored = Stored {
    kind: RecordKind::Entity,
    row: "row",
    sql: "SELECT n, checksum, id, properties, key, class, display_name FROM px_entity",
};
const RELATIONSHIPS: Stored = Stored {
    kind: RecordKind::Relationship,
    row: "row",
    sql: "SELECT n, checksum, id, properties, key, from_id, to_id FROM px_relationship",
};
const OLD_ENTITIES: Stored = Stored {
    kind: RecordKind::Entity,
    row: "change",
    sql: "SELECT change, checksum, id, properties, key, class, display_name FROM px_change
          WHERE kind = 0",
};
const OLD_RELATIONSHIPS: Stored = Stored {
    kind: RecordKind::Relationship,
    row: "change",
    sql: "SELECT change, checksum, id, properties, key, from_id, to_id FROM px_change
          WHERE kind = 1",
};

fn compare_checksum(stored: &Stored, n: i64, row: &rusqlite::Row<'_>) -> rusqlite::Result<Finding> {
    let checksum: Option<i64> = row.get(1)?;
    let Some(checksum) = checksum else {
        return Ok(Finding::WithoutChecksum);
    };
    let (id, properties) = (row.get(2)?, row.get_ref(3)?.as_str()?);
    let key = row.get_ref(4)?.as_str_or_null()?;
    let found = match stored.kind {
        RecordKind::Entity => Row::Entity {
            id,
            class: row.get(5)?,
            key: key.unwrap_or_default(),
            display_name: row.get_ref(6)?.as_str_or_null()?,
            properties,
        },
        RecordKind::Relationship => Row::Relationship {
            id,
            from: row.get(5)?,
            to: row.get(6)?,
            key,
            properties,
        },
    };
    if found.checksum() == checksum {
        return Ok(Finding::Nothing);
    }
    let key = key.map(|key| format!(", key {key:?}")).unwrap_or_default();
    let (Stored { kind, row, .. }, id) = (stored, hex(id));
    Ok(Finding::Problem(format!(
        "{kind} {id}, {row} {n}{key}: it is not what was stored"
    )))
}

/// What must hold in some tables: each rule is a statement that answers with what breaks it.
struct Rules {
    name: &'static str,
    /// Counts what is checked.
    count: &'static str,
    rules: &'static [&'static str],
}

const RULES: &[Rules] = &[
    Rules {
        name: "settings",
        count: "SELECT count(*) FROM px_meta",
        rules: &[
            "WITH expected(key, type, length) AS (VALUES ('hash_seed', 'blob', 8),
                 ('store_id', 'blob', 16), ('lineage', 'blob', 16), ('epoch', 'integer', NULL),
                 ('journal_bytes', 'integer', NULL))
             SELECT format('setting %s is not there or not what it should be', x.key)
             FROM expected x LEFT JOIN px_meta m USING (key)
             WHERE typeof(m.value) <> x.type
                 OR x.length IS NOT NULL AND length(m.value) <> x.length",
        ],
    },
    Rules {
        name: "sources",
        count: "SELECT count(*) FROM px_source",
        rules: &[
            "SELECT format('source %d says that it has %d entities, and has %d', source_id, said, found)
             FROM (SELECT source_id, entities AS said, (SELECT count(*) FROM px_entity e
                 WHERE e.source_id = s.source_id) AS found FROM px_source s)
             WHERE said <> found",
            "SELECT format('source %d says that it has %d relationships, and has %d', source_id, said, found)
             FROM (SELECT source_id, relationships AS said, (SELECT count(*) FROM px_relationship r
                 WHERE r.source_id = s.source_id) AS found FROM px_source s)
             WHERE said <> found",
            "SELECT format('source %d says that its history has %d changes, and it has %d', source_id, said, found)
             FROM (SELECT source_id, changes AS said, (SELECT count(*) FROM px_change h
                 WHERE h.source_id = s.source_id) AS found FROM px_source s)
             WHERE said <> found",
            "WITH named(source_id, what, sync) AS (
                 SELECT source_id, 'last', last_sync FROM px_source
                 UNION ALL SELECT source_id, 'last successful', last_success_sync FROM px_source
                 UNION ALL SELECT source_id, 'last complete', last_complete_sync FROM px_source)
             SELECT format('source %d names %d as its %s sync, which is not there', n.source_id,
                 n.sync, n.what)
             FROM named n LEFT JOIN px_sync y ON y.sync = n.sync AND y.source_id = n.source_id
             WHERE n.sync IS NOT NULL AND y.sync IS NULL",
        ],
    },
    Rules {
        name: "syncs",
        count: "SELECT count(*) FROM px_sync",
        rules: &[
            "SELECT format('sync %d is of source %d, which is not there', y.sync, y.source_id)
             FROM px_sync y LEFT JOIN px_source s USING (source_id) WHERE s.source_id IS NULL",
            "SELECT format('sync %d has no known outcome: %Q', sync, outcome)
             FROM px_sync WHERE outcome NOT IN ('committed', 'partial', 'failed', 'approved')",
            "SELECT format('step %Q is of sync %d, which is not there', t.step_id, t.sync)
             FROM px_sync_step t LEFT JOIN px_sync y USING (sync) WHERE y.sync IS NULL",
            "SELECT format('counts of %Q are of sync %d, which is not there', t.name, t.sync)
             FROM px_sync_type t LEFT JOIN px_sync y USING (sync) WHERE y.sync IS NULL",
            // Of old syncs the types are forgotten, and so are the steps. What an approval kept it
            // counts as a whole.
            "SELECT format('sync %d counts other entities than all their types together', sync)
             FROM px_sync y WHERE (entities_created, entities_updated, entities_unchanged,
                 entities_deleted, iif(outcome = 'approved', 0, entities_kept), entities_held)
                 IS NOT (SELECT total(created), total(updated), total(unchanged), total(deleted),
                     total(kept), total(held)
                  FROM px_sync_type t WHERE t.sync = y.sync AND t.kind = 0)
                 AND EXISTS (SELECT 1 FROM px_sync_step s WHERE s.sync = y.sync
                     UNION ALL SELECT 1 FROM px_sync_type t WHERE t.sync = y.sync)",
            "SELECT format('sync %d counts other relationships than all their verbs together', sync)
             FROM px_sync y WHERE (relationships_created, relationships_updated,
                 relationships_unchanged, relationships_deleted,
                 iif(outcome = 'approved', 0, relationships_kept), relationships_held)
                 IS NOT (SELECT total(created), total(updated), total(unchanged), total(deleted),
                     total(kept), total(held)
                  FROM px_sync_type t WHERE t.sync = y.sync AND t.kind = 1)
                 AND EXISTS (SELECT 1 FROM px_sync_step s WHERE s.sync = y.sync
                     UNION ALL SELECT 1 FROM px_sync_type t WHERE t.sync = y.sync)",
            // Syncs that created or deleted anything are never forgotten.
            "SELECT format('the syncs of source %d left %d entities and %d relationships, and it \
                 has %d and %d', source_id, left_entities, left_relationships, entities,
                 relationships)
             FROM (SELECT s.source_id, s.entities, s.relationships,
                 total(y.entities_created - y.entities_deleted) AS left_entities,
                 total(y.relationships_created - y.relationships_deleted) AS left_relationships
                 FROM px_source s LEFT JOIN px_sync y USING (source_id) GROUP BY s.source_id)
             WHERE (entities, relationships) IS NOT (left_entities, left_relationships)",
        ],
    },
    Rules {
        name: "claims",
        count: "SELECT count(*) FROM px_claims",
        rules: &[
            "SELECT format('claims %d are of source %d, which is not there', k.claims_id, k.source_id)
             FROM px_claims k LEFT JOIN px_source s USING (source_id) WHERE s.source_id IS NULL",
            "SELECT format('the claim of step %Q is of source %d, which is not there', k.step_id,
                 k.source_id)
             FROM px_claim k LEFT JOIN px_source s USING (source_id) WHERE s.source_id IS NULL",
        ],
    },
    Rules {
        name: "entities",
        count: "SELECT count(*) FROM px_entity",
        rules: &[
            "SELECT format('entity %s, row %d: ', lower(hex(id)), n) || wrong FROM (
                 SELECT e.n, e.id, CASE
                     WHEN typeof(e.id) <> 'blob' OR length(e.id) <> 16 THEN 'its id is none'
                     WHEN typeof(e.hash) <> 'blob' OR length(e.hash) <> 16 THEN 'its hash is none'
                     WHEN s.source_id IS NULL THEN
                         format('source %d is not there', e.source_id)
                     WHEN t.name_id IS NULL THEN format('its type, name %d, is not there', e.type)
                     WHEN e.class IS NOT NULL AND c.name_id IS NULL THEN
                         format('its class, name %d, is not there', e.class)
                     WHEN k.claims_id IS NULL THEN format('claims %d are not there', e.claims)
                     WHEN k.source_id <> e.source_id THEN
                         format('claims %d are of another source', e.claims)
                     WHEN NOT json_valid(e.properties) THEN 'its properties are not JSON'
                     WHEN json_type(e.properties) <> 'object' THEN 'its properties are no object'
                     WHEN e.created_sync > e.changed_sync THEN 'it was changed before it was created'
                     WHEN e.held IS NOT NULL AND (h.source_id IS NOT e.source_id
                         OR h.state <> iif(e.held > 0, 'open', 'rejected')) THEN
                         format('changeset %d, which holds it or did so, is not there or not %s',
                             abs(e.held), iif(e.held > 0, 'open', 'rejected'))
                 END AS wrong
                 FROM px_entity e
                 LEFT JOIN px_source s ON s.source_id = e.source_id
                 LEFT JOIN px_name t ON t.name_id = e.type
                 LEFT JOIN px_name c ON c.name_id = e.class
                 LEFT JOIN px_claims k ON k.claims_id = e.claims
                 LEFT JOIN px_changeset h ON h.changeset = abs(e.held))
             WHERE wrong IS NOT NULL",
            "SELECT format('entity %s is there %d times in source %d', lower(hex(id)), count(*),
                 source_id)
             FROM px_entity GROUP BY source_id, id HAVING count(*) > 1",
        ],
    },
    Rules {
        name: "relationships",
        count: "SELECT count(*) FROM px_relationship",
        rules: &[
            "SELECT format('relationship %s, row %d: ', lower(hex(id)), n) || wrong FROM (
                 SELECT r.n, r.id, CASE
                     WHEN typeof(r.id) <> 'blob' OR length(r.id) <> 16 THEN 'its id is none'
                     WHEN typeof(r.hash) <> 'blob' OR length(r.hash) <> 16 THEN 'its hash is none'
                     WHEN typeof(r.from_id) <> 'blob' OR length(r.from_id) <> 16
                         OR typeof(r.to_id) <> 'blob' OR length(r.to_id) <> 16 THEN
                         'an end of it has no id'
                     WHEN s.source_id IS NULL THEN
                         format('source %d is not there', r.source_id)
                     WHEN v.name_id IS NULL THEN format('its verb, name %d, is not there', r.verb)
                     WHEN k.claims_id IS NULL THEN format('claims %d are not there', r.claims)
                     WHEN k.source_id <> r.source_id THEN
                         format('claims %d are of another source', r.claims)
                     WHEN NOT json_valid(r.properties) THEN 'its properties are not JSON'
                     WHEN json_type(r.properties) <> 'object' THEN 'its properties are no object'
                     WHEN r.created_sync > r.changed_sync THEN 'it was changed before it was created'
                     WHEN r.held IS NOT NULL AND (h.source_id IS NOT r.source_id
                         OR h.state <> iif(r.held > 0, 'open', 'rejected')) THEN
                         format('changeset %d, which holds it or did so, is not there or not %s',
                             abs(r.held), iif(r.held > 0, 'open', 'rejected'))
                 END AS wrong
                 FROM px_relationship r
                 LEFT JOIN px_source s ON s.source_id = r.source_id
                 LEFT JOIN px_name v ON v.name_id = r.verb
                 LEFT JOIN px_claims k ON k.claims_id = r.claims
                 LEFT JOIN px_changeset h ON h.changeset = abs(r.held))
             WHERE wrong IS NOT NULL",
            "SELECT format('relationship %s is there %d times in source %d', lower(hex(id)),
                 count(*), source_id)
             FROM px_relationship GROUP BY source_id, id HAVING count(*) > 1",
        ],
    },
    Rules {
        name: "digests",
        count: "SELECT count(*) FROM px_digest",
        rules: &[
            "SELECT format('digests are of source %d, which is not there', d.source_id)
             FROM px_digest d LEFT JOIN px_source s USING (source_id) WHERE s.source_id IS NULL",
        ],
    },
    Rules {
        name: "edges",
        count: "SELECT (SELECT count(*) FROM px_edge_from) + (SELECT count(*) FROM px_edge_to)",
        rules: &[],
    },
    Rules {
        name: "waiting",
        count: "SELECT count(*) FROM px_waiting",
        rules: &[
            "SELECT format('the relationship of row %d waits for entity %s, %s', w.relationship,
                 lower(hex(w.missing)), CASE
                     WHEN r.n IS NULL THEN 'and is not there'
                     WHEN w.missing NOT IN (r.from_id, r.to_id) THEN 'which is no end of it'
                     ELSE 'which is there' END)
             FROM px_waiting w LEFT JOIN px_relationship r ON r.n = w.relationship
             WHERE r.n IS NULL OR w.missing NOT IN (r.from_id, r.to_id)
                 OR EXISTS (SELECT 1 FROM px_entity e
                     WHERE lower(hex(e.id)) = lower(hex(w.missing)))",
            // Each entity is looked up once, in the order of the index.
            "WITH ends(entity) AS (
                 SELECT entity FROM px_edge_from UNION SELECT entity FROM px_edge_to ORDER BY 1),
             missing(entity) AS (
                 SELECT entity FROM ends WHERE NOT EXISTS (SELECT 1 FROM px_entity e
                     WHERE lower(hex(e.id)) = lower(hex(ends.entity)))),
             edges(entity, relationship) AS (
                 SELECT entity, relationship FROM missing JOIN px_edge_from USING (entity)
                 UNION ALL
                 SELECT entity, relationship FROM missing JOIN px_edge_to USING (entity))
             SELECT format('the relationship of row %d does not wait for entity %s, which is not \
                 there', g.relationship, lower(hex(g.entity)))
             FROM edges g
             WHERE NOT EXISTS (SELECT 1 FROM px_waiting w
                     WHERE w.relationship = g.relationship AND w.missing = g.entity)",
        ],
    },
    Rules {
        name: "changesets",
        count: "SELECT count(*) FROM px_changeset",
        rules: &[
            "SELECT format('changeset %d is of source %d, which is not there', h.changeset,
                 h.source_id)
             FROM px_changeset h LEFT JOIN px_source s USING (source_id)
             WHERE s.source_id IS NULL",
            "SELECT format('changeset %d has no known state: %Q', changeset, state)
             FROM px_changeset WHERE state NOT IN ('open', 'approved', 'rejected', 'released')",
            "SELECT format('changeset %d is open and holds nothing', h.changeset)
             FROM px_changeset h
             WHERE h.state = 'open'
                 AND NOT EXISTS (SELECT 1 FROM px_entity e
                     WHERE e.source_id = h.source_id AND e.held = h.changeset)
                 AND NOT EXISTS (SELECT 1 FROM px_relationship r
                     WHERE r.source_id = h.source_id AND r.held = h.changeset)",
        ],
    },
    Rules {
        name: "history",
        count: "SELECT count(*) FROM px_change",
        rules: &[
            "SELECT format('change %d: ', change) || wrong FROM (
                 SELECT h.change, CASE
                     WHEN typeof(h.id) <> 'blob' OR length(h.id) <> 16 THEN 'its id is none'
                     WHEN h.kind NOT IN (0, 1) THEN format('it is of no known kind: %d', h.kind)
                     WHEN h.action NOT IN ('updated', 'deleted') THEN
                         format('it is no known action: %Q', h.action)
                     WHEN s.source_id IS NULL THEN
                         format('source %d is not there', h.source_id)
                     WHEN t.name_id IS NULL THEN
                         format('its type or verb, name %d, is not there', h.name)
                     WHEN h.class IS NOT NULL AND c.name_id IS NULL THEN
                         format('its class, name %d, is not there', h.class)
                     WHEN k.claims_id IS NULL THEN format('claims %d are not there', h.claims)
                     WHEN h.kind = 0 AND h.key IS NULL THEN 'it is of an entity without a key'
                     WHEN h.kind = 1 AND (h.from_id IS NULL OR h.to_id IS NULL) THEN
                         'it is of a relationship without two ends'
                     WHEN NOT json_valid(h.properties) THEN 'its properties are not JSON'
                     WHEN json_type(h.properties) <> 'object' THEN 'its properties are no object'
                 END AS wrong
                 FROM px_change h
                 LEFT JOIN px_source s ON s.source_id = h.source_id
                 LEFT JOIN px_name t ON t.name_id = h.name
                 LEFT JOIN px_name c ON c.name_id = h.class
                 LEFT JOIN px_claims k ON k.claims_id = h.claims)
             WHERE wrong IS NOT NULL",
        ],
    },
    Rules {
        name: "journals",
        count: "SELECT count(*) FROM px_journal",
        rules: &[
            "SELECT format('journals say that they have %d bytes, and have %d', said, found)
             FROM (SELECT value AS said,
                 (SELECT ifnull(sum(length(CAST(entries AS BLOB))), 0) FROM px_journal) AS found
                 FROM px_meta WHERE key = 'journal_bytes')
             WHERE said <> found",
            "SELECT format('chunk %d of a journal begins with entry %d, after entry %d', chunk, first_seq, before)
             FROM (SELECT chunk, first_seq, lag(last_seq) OVER (PARTITION BY run ORDER BY chunk)
                 AS before FROM px_journal)
             WHERE first_seq <= before",
        ],
    },
];

/// Where the ends of relationships are, both times, and what tells which of them are wrong.
struct Ends {
    /// Of each relationship an end, and its row.
    of_relationships: &'static str,
    of_edges: &'static str,
    /// As those of [`Rules`], and slow: each looks up every end.
    rules: [&'static str; 2],
}

const ENDS: [Ends; 2] = [
    Ends {
        of_relationships: "SELECT from_id, n FROM px_relationship",
        of_edges: "SELECT entity, relationship FROM px_edge_from",
        rules: [
            "SELECT format('relationship %s, row %d: its beginning is not among the edges',
                 lower(hex(r.id)), r.n)
             FROM px_relationship r LEFT JOIN px_edge_from g
                 ON g.entity = r.from_id AND g.relationship = r.n
             WHERE g.entity IS NULL",
            "SELECT format('an edge says that the relationship of row %d begins at entity %s',
                 g.relationship, lower(hex(g.entity)))
             FROM px_edge_from g LEFT JOIN px_relationship r ON r.n = g.relationship
             WHERE r.from_id IS NOT g.entity",
        ],
    },
    Ends {
        of_relationships: "SELECT to_id, n FROM px_relationship",
        of_edges: "SELECT entity, relationship FROM px_edge_to",
        rules: [
            "SELECT format('relationship %s, row %d: its end is not among the edges',
                 lower(hex(r.id)), r.n)
             FROM px_relationship r LEFT JOIN px_edge_to g
                 ON g.entity = r.to_id AND g.relationship = r.n
             WHERE g.entity IS NULL",
            "SELECT format('an edge says that the relationship of row %d ends at entity %s',
                 g.relationship, lower(hex(g.entity)))
             FROM px_edge_to g LEFT JOIN px_relationship r ON r.n = g.relationship
             WHERE r.to_id IS NOT g.entity",
        ],
    },
];
