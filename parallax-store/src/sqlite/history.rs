use std::collections::{BTreeMap, HashMap};

use parallax_core::RecordKind;
use rusqlite::{Connection, Row, TransactionBehavior, params};

use crate::error::StoreError;
use crate::explain::Subject;
use crate::history::{Event, EventKind, History};
use crate::result::Action;
use crate::sqlite::changes;
use crate::sqlite::records::{Found, Records, SourceRow};
use crate::sqlite::row::kind_no;

/// Says of each record that a subject names what happened to it: the newest `limit` events.
pub(super) fn history(
    connection: &mut Connection,
    subject: &Subject,
    limit: u32,
) -> Result<Vec<History>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let records = Records::new(&transaction);
    let found = records.find(subject)?.into_iter();
    found
        .map(|found| {
            Ok(History {
                id: found.hex(),
                record: records.name(found)?,
                events: events(&records, found, limit)?,
            })
        })
        .collect()
}

/// A record's content at some time, in a source.
struct Version {
    source: SourceRow,
    /// The sync that created the record: what tells its lives apart.
    created: i64,
    class: Option<String>,
    display_name: Option<String>,
    properties: String,
}

impl Version {
    /// Reads the first seven columns.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: SourceRow::read(row)?,
            created: row.get(3)?,
            class: row.get(4)?,
            display_name: row.get(5)?,
            properties: row.get(6)?,
        })
    }
}

fn events(records: &Records<'_>, found: Found, limit: u32) -> Result<Vec<Event>, StoreError> {
    let mut statement = records.cached(match found.kind {
        RecordKind::Entity => {
            "SELECT s.source_id, s.connector_id, s.account_id, r.created_sync, c.name,
                 r.display_name, r.properties
             FROM px_source s CROSS JOIN px_entity r
                 ON r.source_id = s.source_id AND r.id = ?1
             LEFT JOIN px_name c ON c.name_id = r.class"
        }
        RecordKind::Relationship => {
            "SELECT s.source_id, s.connector_id, s.account_id, r.created_sync, NULL, NULL,
                 r.properties
             FROM px_source s CROSS JOIN px_relationship r
                 ON r.source_id = s.source_id AND r.id = ?1"
        }
    })?;
    // Of each source the version that came after the one that is read next.
    let mut later: HashMap<i64, Version> = HashMap::new();
    let mut events = Vec::new();
    for live in statement.query_map([found.id], Version::read)? {
        let live = live?;
        events.push((
            live.created,
            event(records, &live, live.created, EventKind::Created)?,
        ));
        later.insert(live.source.source_id, live);
    }
    // Each change is an event, so the newest `limit` of them hold all that will be shown, but for
    // when the records were created.
    let mut statement = records.cached(
        "SELECT s.source_id, s.connector_id, s.account_id, h.created_sync, c.name,
             h.display_name, h.properties, h.sync, h.action, h.claims, h.changeset
         FROM px_change h JOIN px_source s ON s.source_id = h.source_id
         LEFT JOIN px_name c ON c.name_id = h.class
         WHERE lower(hex(h.id)) = ?1 AND h.kind = ?2
         ORDER BY h.change DESC LIMIT ?3",
    )?;
    let mut rows = statement.query(params![found.hex(), kind_no(found.kind), limit])?;
    while let Some(row) = rows.next()? {
        let before = Version::read(row)?;
        let (sync, action): (i64, String) = (row.get(7)?, row.get(8)?);
        let after = later
            .get(&before.source.source_id)
            .filter(|after| after.created == before.created);
        if after.is_none() {
            let kind = EventKind::Created;
            events.push((
                before.created,
                event(records, &before, before.created, kind)?,
            ));
        }
        let kind = if action == Action::Deleted.as_str() {
            EventKind::Deleted(records.deletion(sync, row.get(9)?, row.get(10)?)?)
        } else {
            EventKind::Updated(match after {
                Some(after) => changes::compare(&content(&before)?, &content(after)?),
                None => Vec::new(),
            })
        };
        events.push((sync, event(records, &before, sync, kind)?));
        later.insert(before.source.source_id, before);
    }
    // Syncs are numbered as they were committed.
    events.sort_by_key(|(sync, _)| std::cmp::Reverse(*sync));
    events.truncate(limit as usize);
    Ok(events.into_iter().map(|(_, event)| event).collect())
}

fn event(
    records: &Records<'_>,
    version: &Version,
    sync: i64,
    kind: EventKind,
) -> Result<Event, StoreError> {
    Ok(Event {
        connector_id: version.source.connector_id.clone(),
        account_id: version.source.account_id.clone(),
        sync: records.sync(sync)?,
        kind,
    })
}

fn content(version: &Version) -> Result<BTreeMap<String, String>, StoreError> {
    let mut content = changes::parse(&version.properties)?;
    changes::named(&mut content, "class", version.class.as_deref());
    changes::named(
        &mut content,
        "display_name",
        version.display_name.as_deref(),
    );
    Ok(content)
}
