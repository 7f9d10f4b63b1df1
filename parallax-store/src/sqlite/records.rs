use parallax_core::{RecordKind, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use crate::error::StoreError;
use crate::explain::{ClaimName, Deletion, End, EntityName, RecordName, Subject, SyncRef};
use crate::sqlite::row::{hex, kind_no};

/// Finds records and what they refer to.
pub(super) struct Records<'a> {
    connection: &'a Connection,
}

/// A record of which something is stored, live or in the history.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) kind: RecordKind,
    pub(super) id: [u8; 16],
}

impl Found {
    /// As the engine's `lower(hex(id))`, which the indexes by id are over.
    pub(super) fn hex(self) -> String {
        hex(self.id)
    }
}

/// A source that has, or had, a record.
pub(super) struct SourceRow {
    pub(super) source_id: i64,
    pub(super) connector_id: String,
    pub(super) account_id: String,
}

impl SourceRow {
    /// Reads the first three columns.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source_id: row.get(0)?,
            connector_id: row.get(1)?,
            account_id: row.get(2)?,
        })
    }
}

impl<'a> Records<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    pub(super) fn cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'a>> {
        self.connection.prepare_cached(sql)
    }

    /// Finds what a subject names, in the order of ids.
    pub(super) fn find(&self, subject: &Subject) -> Result<Vec<Found>, StoreError> {
        match subject {
            Subject::Id(id) => {
                for kind in RecordKind::ALL {
                    let found = Found { kind, id: *id };
                    if self.is_live(found)? || self.has_history(found)? {
                        return Ok(vec![found]);
                    }
                }
                Ok(Vec::new())
            }
            // No index is over keys: a question now and then is not worth what it would cost
            // every commit.
            Subject::Entity { entity_type, key } => {
                let mut statement = self.cached(
                    "SELECT e.id FROM px_entity e JOIN px_name t ON t.name_id = e.type
                     WHERE t.name = ?1 AND e.key = ?2
                     UNION
                     SELECT h.id FROM px_change h JOIN px_name t ON t.name_id = h.name
                     WHERE h.kind = 0 AND t.name = ?1 AND h.key = ?2
                     ORDER BY 1",
                )?;
                let found = statement.query_map([entity_type, key], |row| {
                    Ok(Found {
                        kind: RecordKind::Entity,
                        id: row.get(0)?,
                    })
                })?;
                Ok(found.collect::<Result<_, _>>()?)
            }
        }
    }

    /// Tells whether some source has the record.
    fn is_live(&self, found: Found) -> Result<bool, StoreError> {
        // The index for comparing is by source and id.
        let sql = match found.kind {
            RecordKind::Entity => {
                "SELECT 1 FROM px_source s CROSS JOIN px_entity r
                 ON r.source_id = s.source_id AND r.id = ?1"
            }
            RecordKind::Relationship => {
                "SELECT 1 FROM px_source s CROSS JOIN px_relationship r
                 ON r.source_id = s.source_id AND r.id = ?1"
            }
        };
        Ok(self.cached(sql)?.exists([found.id])?)
    }

    fn has_history(&self, found: Found) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM px_change WHERE lower(hex(id)) = ?1 AND kind = ?2";
        let values = params![found.hex(), kind_no(found.kind)];
        Ok(self.cached(sql)?.exists(values)?)
    }

    /// Returns what a record is: as the first source has it or, if none does, as it was last.
    pub(super) fn name(&self, found: Found) -> Result<RecordName, StoreError> {
        let name = match found.kind {
            RecordKind::Entity => self.entity(found.id)?.map(RecordName::Entity),
            RecordKind::Relationship => self.relationship(found)?,
        };
        name.ok_or_else(|| StoreError::Corrupt {
            details: format!("a {} that was found is not there", found.kind),
        })
    }

    fn entity(&self, id: [u8; 16]) -> Result<Option<EntityName>, StoreError> {
        let read = |row: &Row<'_>| {
            Ok(EntityName {
                entity_type: row.get(0)?,
                key: row.get(1)?,
                display_name: row.get(2)?,
            })
        };
        let live = self
            .cached(
                "SELECT t.name, e.key, coalesce(e.display_name, e.key)
                 FROM px_source s CROSS JOIN px_entity e
                     ON e.source_id = s.source_id AND e.id = ?1
                 JOIN px_name t ON t.name_id = e.type
                 ORDER BY s.connector_id, s.account_id LIMIT 1",
            )?
            .query_row([id], read)
            .optional()?;
        if live.is_some() {
            return Ok(live);
        }
        let gone = self
            .cached(
                "SELECT t.name, h.key, coalesce(h.display_name, h.key)
                 FROM px_change h JOIN px_name t ON t.name_id = h.name
                 WHERE lower(hex(h.id)) = ?1 AND h.kind = 0
                 ORDER BY h.change DESC LIMIT 1",
            )?
            .query_row([hex(id)], read)
            .optional()?;
        Ok(gone)
    }

    fn relationship(&self, found: Found) -> Result<Option<RecordName>, StoreError> {
        type Parts = ([u8; 16], String, [u8; 16], Option<String>);
        let read = |row: &Row<'_>| -> rusqlite::Result<Parts> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let live = self
            .cached(
                "SELECT r.from_id, v.name, r.to_id, r.key
                 FROM px_source s CROSS JOIN px_relationship r
                     ON r.source_id = s.source_id AND r.id = ?1
                 JOIN px_name v ON v.name_id = r.verb LIMIT 1",
            )?
            .query_row([found.id], read)
            .optional()?;
        let parts = match live {
            Some(parts) => Some(parts),
            None => self
                .cached(
                    "SELECT h.from_id, v.name, h.to_id, h.key
                     FROM px_change h JOIN px_name v ON v.name_id = h.name
                     WHERE lower(hex(h.id)) = ?1 AND h.kind = 1
                     ORDER BY h.change DESC LIMIT 1",
                )?
                .query_row([found.hex()], read)
                .optional()?,
        };
        let Some((from, verb, to, key)) = parts else {
            return Ok(None);
        };
        Ok(Some(RecordName::Relationship {
            from: self.end(from)?,
            verb,
            to: self.end(to)?,
            key,
        }))
    }

    /// Returns a name that is kept once for all records.
    pub(super) fn text(&self, name_id: i64) -> Result<String, StoreError> {
        let name = self
            .cached("SELECT name FROM px_name WHERE name_id = ?1")?
            .query_row([name_id], |row| row.get(0));
        Ok(name?)
    }

    /// Returns an end of a relationship.
    pub(super) fn end(&self, id: [u8; 16]) -> Result<End, StoreError> {
        let found = Found {
            kind: RecordKind::Entity,
            id,
        };
        Ok(End {
            id: hex(id),
            entity: self.entity(id)?,
            is_live: self.is_live(found)?,
        })
    }

    /// Finds a sync by its row; one that is no longer on record is nothing.
    pub(super) fn sync(&self, sync: i64) -> Result<Option<SyncRef>, StoreError> {
        let found = self
            .cached("SELECT sync_id, committed_at FROM px_sync WHERE sync = ?1")?
            .query_row([sync], |row| {
                let committed_at: i64 = row.get(1)?;
                Ok((row.get(0)?, committed_at))
            })
            .optional()?;
        Ok(found.and_then(|(sync_id, committed_at)| {
            Some(SyncRef {
                sync_id,
                committed_at: Timestamp::from_micros(committed_at)?,
            })
        }))
    }

    /// Reads a stored set of claims.
    pub(super) fn claims(&self, claims_id: i64) -> Result<Vec<ClaimName>, StoreError> {
        let text: Option<String> = self
            .cached("SELECT claims FROM px_claims WHERE claims_id = ?1")?
            .query_row([claims_id], |row| row.get(0))
            .optional()?;
        let text = text.ok_or_else(|| StoreError::Corrupt {
            details: format!("claims {claims_id} are not there"),
        })?;
        parse_claims(&text).ok_or_else(|| StoreError::Corrupt {
            details: format!("claims that cannot be read: {text:?}"),
        })
    }

    /// Tells of the delete that `sync` made.
    pub(super) fn deletion(
        &self,
        sync: i64,
        claims: i64,
        changeset: Option<u64>,
    ) -> Result<Deletion, StoreError> {
        Ok(Deletion {
            sync: self.sync(sync)?,
            claims: self.claims(claims)?,
            changeset,
        })
    }
}

/// Reads the canonical text of a set of claims; `None` if it is none.
pub(super) fn parse_claims(text: &str) -> Option<Vec<ClaimName>> {
    let claims: Vec<(String, Option<String>)> = serde_json::from_str(text).ok()?;
    let claims = claims.into_iter();
    Some(
        claims
            .map(|(step_id, scope)| ClaimName { step_id, scope })
            .collect(),
    )
}
