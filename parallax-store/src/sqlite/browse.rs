use std::collections::HashMap;
use std::time::Instant;

use parallax_core::RecordKind;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, TransactionBehavior, params_from_iter};

use crate::browse::{Browse, Direction, Page, RecordType, Stored};
use crate::error::StoreError;
use crate::explain::{EntityName, RecordName};
use crate::sqlite::records::Records;
use crate::sqlite::row::hex;

/// How many places are looked at before the clock is.
const STRIDE: i64 = 20_000;

/// Lists records in the order of their rows, as far as number and time allow.
pub(super) fn browse(connection: &mut Connection, browse: &Browse) -> Result<Page, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let records = Records::new(&transaction);
    let begin = Instant::now();
    let table = match browse.kind {
        RecordKind::Entity => "px_entity",
        RecordKind::Relationship => "px_relationship",
    };
    let sql = format!("SELECT ifnull(max(n), 0) FROM {table}");
    let last: i64 = transaction.query_row(&sql, [], |row| row.get(0))?;
    let mut at = i64::try_from(browse.after).unwrap_or(i64::MAX);
    let limit = browse.limit.max(1) as usize;
    // Where an index leads to each record there is no need to go step by step.
    let stride = match (browse.id, browse.end) {
        (None, None) => STRIDE,
        _ => i64::MAX,
    };
    let mut page = Page {
        records: Vec::new(),
        next: None,
        timed_out: false,
    };
    while at < last {
        let to = at.saturating_add(stride).min(last);
        let wanted = limit.saturating_sub(page.records.len());
        let (sql, values) = statement(browse, at, to, wanted);
        let mut statement = transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        at = to;
        while let Some(row) = rows.next()? {
            let n = row.get(0)?;
            page.records.push(read(row, browse.kind, &records)?);
            if page.records.len() >= limit {
                at = n;
                break;
            }
        }
        let full = page.records.len() >= limit;
        page.timed_out = !full && at < last && begin.elapsed() >= browse.time;
        if full || page.timed_out {
            break;
        }
    }
    page.next = u64::try_from(at).ok().filter(|_| at < last);
    Ok(page)
}

/// Counts the records of each type and verb, but for relationships that are not shown.
pub(super) fn types(connection: &mut Connection) -> Result<Vec<RecordType>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let names = Records::new(&transaction);
    let mut types = Vec::new();
    for (kind, all) in RecordKind::ALL.into_iter().zip([
        "SELECT type FROM px_entity",
        "SELECT verb FROM px_relationship",
    ]) {
        // Grouping, SQLite would sort all of them.
        let mut records = HashMap::new();
        let mut statement = transaction.prepare_cached(all)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            *records.entry(row.get::<_, i64>(0)?).or_insert(0_u64) += 1;
        }
        if kind == RecordKind::Relationship {
            let mut waiting = transaction.prepare_cached(
                "SELECT verb FROM px_relationship
                 WHERE n IN (SELECT relationship FROM px_waiting)",
            )?;
            let mut rows = waiting.query([])?;
            while let Some(row) = rows.next()? {
                let shown = records.entry(row.get(0)?).or_default();
                *shown = shown.saturating_sub(1);
            }
        }
        let first = types.len();
        for (name, records) in records.into_iter().filter(|(_, records)| *records > 0) {
            let name = names.text(name)?;
            types.push(RecordType {
                kind,
                name,
                records,
            });
        }
        if let Some(types) = types.get_mut(first..) {
            types.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }
    Ok(types)
}

/// Returns the statement for the rows after `from` and up to `to`, with its values.
fn statement(browse: &Browse, from: i64, to: i64, limit: usize) -> (String, Vec<Value>) {
    let mut values = vec![from.into(), to.into()];
    let mut value = |value: Value| {
        values.push(value);
        format!("?{}", values.len())
    };
    let mut conditions = vec!["r.n > ?1 AND r.n <= ?2".to_owned()];
    let (table, name, own) = match browse.kind {
        RecordKind::Entity => ("px_entity", "type", "r.class, r.key, r.display_name"),
        RecordKind::Relationship => ("px_relationship", "verb", "r.from_id, r.key, r.to_id"),
    };
    if let Some(id) = browse.id {
        conditions.push(match browse.kind {
            RecordKind::Entity => format!("lower(hex(r.id)) = {}", value(hex(id).into())),
            // The index for comparing is by source and id.
            RecordKind::Relationship => format!(
                "r.source_id IN (SELECT source_id FROM px_source) AND r.id = {}",
                value(id.to_vec().into())
            ),
        });
    }
    if let Some(wanted) = &browse.name {
        let wanted = value(wanted.clone().into());
        conditions.push(format!(
            "r.{name} = (SELECT name_id FROM px_name WHERE name = {wanted})"
        ));
    }
    if let Some((connector_id, account_id)) = &browse.source {
        let (connector_id, account_id) = (
            value(connector_id.clone().into()),
            value(account_id.clone().into()),
        );
        // Not by an index of sources, which is not in the order of rows.
        conditions.push(format!(
            "+r.source_id = (SELECT source_id FROM px_source
             WHERE connector_id = {connector_id} AND account_id = {account_id})"
        ));
    }
    if let Some(prefix) = &browse.prefix {
        let pattern = value(pattern(prefix).into());
        conditions.push(match browse.kind {
            RecordKind::Entity => format!(
                r"(r.key LIKE {pattern} ESCAPE '\' OR r.display_name LIKE {pattern} ESCAPE '\')"
            ),
            RecordKind::Relationship => format!(r"r.key LIKE {pattern} ESCAPE '\'"),
        });
    }
    if let Some((entity, direction)) = browse.end {
        let entity = value(entity.to_vec().into());
        let of = |edges| {
            format!(
                "SELECT relationship FROM {edges} WHERE entity = {entity}
                 AND relationship > ?1 AND relationship <= ?2"
            )
        };
        let (begins, ends) = (of("px_edge_from"), of("px_edge_to"));
        conditions.push(match direction {
            Direction::Out => format!("r.n IN ({begins})"),
            Direction::In => format!("r.n IN ({ends})"),
            Direction::Both => format!("r.n IN ({begins} UNION {ends})"),
        });
    }
    if browse.kind == RecordKind::Relationship {
        let waiting = "NOT EXISTS (SELECT 1 FROM px_waiting w WHERE w.relationship = r.n)";
        conditions.push(waiting.to_owned());
    }
    let sql = format!(
        "SELECT r.n, r.id, t.name, {own}, r.properties, s.connector_id, s.account_id, r.claims,
             r.held, r.created_sync, r.changed_sync
         FROM {table} r
         CROSS JOIN px_source s ON s.source_id = r.source_id
         CROSS JOIN px_name t ON t.name_id = r.{name}
         WHERE {} ORDER BY r.n LIMIT {limit}",
        conditions.join(" AND ")
    );
    (sql, values)
}

/// Returns the pattern of what begins so.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "%"
}

fn read(row: &Row<'_>, kind: RecordKind, records: &Records<'_>) -> Result<Stored, StoreError> {
    let name: String = row.get(2)?;
    let (record, class) = match kind {
        RecordKind::Entity => {
            let key: String = row.get(4)?;
            let display_name: Option<String> = row.get(5)?;
            let class = match row.get(3)? {
                Some(class) => Some(records.text(class)?),
                None => None,
            };
            let entity = EntityName {
                entity_type: name,
                display_name: display_name.unwrap_or_else(|| key.clone()),
                key,
            };
            (RecordName::Entity(entity), class)
        }
        RecordKind::Relationship => {
            let relationship = RecordName::Relationship {
                from: records.end(row.get(3)?)?,
                verb: name,
                to: records.end(row.get(5)?)?,
                key: row.get(4)?,
            };
            (relationship, None)
        }
    };
    let held: Option<i64> = row.get(10)?;
    Ok(Stored {
        id: hex(row.get(1)?),
        record,
        class,
        properties: row.get(6)?,
        connector_id: row.get(7)?,
        account_id: row.get(8)?,
        claims: records.claims(row.get(9)?)?,
        held_changeset: held.and_then(|held| u64::try_from(held).ok()),
        created: records.sync(row.get(11)?)?,
        changed: records.sync(row.get(12)?)?,
    })
}
