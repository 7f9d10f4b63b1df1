use std::collections::{BTreeMap, BTreeSet};

use parallax_core::RecordKind;
use rusqlite::{OptionalExtension, Transaction};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::claims::ClaimSets;
use crate::delta::{Candidate, Delta};
use crate::emissions::Emitted;
use crate::error::StoreError;
use crate::findings::Findings;
use crate::json;
use crate::result::{Action, Change, PropertyChange};
use crate::sqlite::row::hex;

/// Describes the first changes of each action, in the order of ids, entities before relationships.
pub(super) fn list_changes(
    transaction: &Transaction<'_>,
    findings: &Findings,
    deltas: [&Delta; 2],
    sets: &ClaimSets,
    limit: usize,
) -> Result<Vec<Change>, StoreError> {
    let list = Listing {
        transaction,
        findings,
        sets,
    };
    let mut changes = Vec::new();
    for (kind, delta) in RecordKind::ALL.into_iter().zip(deltas) {
        for (action, candidates) in [
            (Action::Deleted, &delta.deletes),
            (Action::Held, &delta.holds),
        ] {
            for candidate in candidates.iter().take(limit) {
                changes.push(list.gone(kind, action, candidate)?);
            }
        }
        for update in delta.updates.iter().take(limit) {
            changes.push(list.emitted(kind, &update.record, Some(update.row))?);
        }
        for record in findings.of_kind(kind).at(&delta.creates).take(limit) {
            changes.push(list.emitted(kind, record, None)?);
        }
    }
    Ok(changes)
}

struct Listing<'a> {
    transaction: &'a Transaction<'a>,
    findings: &'a Findings,
    sets: &'a ClaimSets,
}

/// What a record says of itself.
#[derive(Default)]
struct Content {
    name: String,
    key: String,
    display_name: String,
    /// As JSON.
    properties: BTreeMap<String, String>,
}

impl Listing<'_> {
    fn gone(
        &self,
        kind: RecordKind,
        action: Action,
        candidate: &Candidate,
    ) -> Result<Change, StoreError> {
        let before = self.stored(kind, candidate.stored.row)?;
        let claims = self.sets.claims(candidate.stored.claims);
        let steps: Vec<String> = claims
            .map(|(step_id, scope)| match scope {
                Some(scope) => format!("{step_id} in {scope}"),
                None => step_id.to_owned(),
            })
            .collect();
        let reason = if candidate.vanished {
            "nobody looks for it any more: it was found by ".to_owned()
        } else {
            "looked everywhere and did not find it: ".to_owned()
        };
        Ok(Change {
            action,
            kind,
            id: hex(candidate.stored.id.to_be_bytes()),
            reason: Some(reason + &steps.join(", ")),
            properties: compare(&before.properties, &BTreeMap::new()),
            name: before.name,
            key: before.key,
            display_name: before.display_name,
        })
    }

    /// Describes a record that is updated, if it has a row, or created.
    fn emitted(
        &self,
        kind: RecordKind,
        record: &Emitted,
        row: Option<i64>,
    ) -> Result<Change, StoreError> {
        let before = match row {
            Some(row) => self.stored(kind, row)?.properties,
            None => BTreeMap::new(),
        };
        let after = self.content(kind, record)?;
        Ok(Change {
            action: row.map_or(Action::Created, |_| Action::Updated),
            kind,
            id: hex(record.id.to_be_bytes()),
            reason: None,
            properties: compare(&before, &after.properties),
            name: after.name,
            key: after.key,
            display_name: after.display_name,
        })
    }

    fn content(&self, kind: RecordKind, record: &Emitted) -> Result<Content, StoreError> {
        let mut buffer = Vec::new();
        let contents = &self.findings.contents;
        Ok(match kind {
            RecordKind::Entity => {
                let entity = contents.entity(record, &mut buffer)?;
                let mut properties = parse(&json::text(entity.properties()))?;
                named(&mut properties, "class", entity.class());
                named(&mut properties, "display_name", entity.display_name());
                Content {
                    name: entity.entity_type().to_owned(),
                    key: entity.key().to_owned(),
                    display_name: entity.display_name().unwrap_or(entity.key()).to_owned(),
                    properties,
                }
            }
            RecordKind::Relationship => {
                let relationship = contents.relationship(record, &mut buffer)?;
                let (from, to) = (relationship.from(), relationship.to());
                let key = format!(
                    "{}:{} -> {}:{}",
                    from.entity_type, from.key, to.entity_type, to.key
                );
                Content {
                    name: relationship.verb().to_owned(),
                    display_name: key.clone(),
                    key,
                    properties: parse(&json::text(relationship.properties()))?,
                }
            }
        })
    }

    fn stored(&self, kind: RecordKind, row: i64) -> Result<Content, StoreError> {
        match kind {
            RecordKind::Entity => {
                let mut statement = self.transaction.prepare_cached(
                    "SELECT t.name, e.key, e.display_name, c.name, e.properties
                     FROM px_entity e JOIN px_name t ON t.name_id = e.type
                     LEFT JOIN px_name c ON c.name_id = e.class WHERE e.n = ?1",
                )?;
                let (name, key, display_name, class, properties) =
                    statement.query_row([row], |row| {
                        Ok((
                            row.get(0)?,
                            row.get::<_, String>(1)?,
                            row.get::<_, Option<String>>(2)?,
                            row.get::<_, Option<String>>(3)?,
                            row.get::<_, String>(4)?,
                        ))
                    })?;
                let mut properties = parse(&properties)?;
                named(&mut properties, "class", class.as_deref());
                named(&mut properties, "display_name", display_name.as_deref());
                Ok(Content {
                    name,
                    display_name: display_name.unwrap_or_else(|| key.clone()),
                    key,
                    properties,
                })
            }
            RecordKind::Relationship => {
                let mut statement = self.transaction.prepare_cached(
                    "SELECT v.name, r.from_id, r.to_id, r.properties
                     FROM px_relationship r JOIN px_name v ON v.name_id = r.verb WHERE r.n = ?1",
                )?;
                let (name, from, to, properties) = statement.query_row([row], |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get::<_, String>(3)?,
                    ))
                })?;
                let key = format!("{} -> {}", self.end(from)?, self.end(to)?);
                Ok(Content {
                    name,
                    display_name: key.clone(),
                    key,
                    properties: parse(&properties)?,
                })
            }
        }
    }

    /// Names an end of a relationship, by its id if it is not stored.
    fn end(&self, id: [u8; 16]) -> Result<String, StoreError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT t.name || ':' || e.key FROM px_entity e JOIN px_name t ON t.name_id = e.type
             WHERE lower(hex(e.id)) = ?1 LIMIT 1",
        )?;
        let name = statement
            .query_row([hex(id)], |row| row.get(0))
            .optional()?;
        Ok(name.unwrap_or_else(|| hex(id)))
    }
}

/// Reads stored properties: each with its JSON text.
pub(super) fn parse(properties: &str) -> Result<BTreeMap<String, String>, StoreError> {
    // Raw: no number goes through a float.
    let parsed: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(properties).map_err(|error| StoreError::Corrupt {
            details: format!("properties that cannot be read: {error}"),
        })?;
    let texts = parsed.into_iter();
    Ok(texts
        .map(|(name, value)| (name, value.get().to_owned()))
        .collect())
}

/// Puts what is not a property among the properties.
pub(super) fn named(properties: &mut BTreeMap<String, String>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        properties
            .entry(name.to_owned())
            .or_insert_with(|| Json::from(value).to_string());
    }
}

/// Lists the properties that differ, sorted by name.
pub(super) fn compare(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<PropertyChange> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .map(|name| PropertyChange {
            name: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .filter(|change| change.before != change.after)
        .collect()
}
