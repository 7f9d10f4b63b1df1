use parallax_core::RecordKind;
use rusqlite::{ToSql, Transaction, params};

use crate::error::StoreError;
use crate::result::Action;
use crate::sqlite::row::hex;

/// How many rows a statement is for.
const GROUP: usize = 32;

/// Deletes rows of one kind, and keeps what they were. Returns how many there were.
pub(super) fn delete(
    transaction: &Transaction<'_>,
    sync: i64,
    kind: RecordKind,
    rows: &[i64],
    changeset: Option<i64>,
) -> Result<u64, StoreError> {
    remember(transaction, sync, kind, rows, Action::Deleted, changeset)?;
    let statements: &[&str] = match kind {
        RecordKind::Entity => &["DELETE FROM px_entity WHERE n IN ROWS"],
        RecordKind::Relationship => &[
            "DELETE FROM px_edge_from WHERE (entity, relationship) IN
                 (SELECT from_id, n FROM px_relationship WHERE n IN ROWS)",
            "DELETE FROM px_edge_to WHERE (entity, relationship) IN
                 (SELECT to_id, n FROM px_relationship WHERE n IN ROWS)",
            "DELETE FROM px_waiting WHERE relationship IN ROWS",
            "DELETE FROM px_relationship WHERE n IN ROWS",
        ],
    };
    let mut deleted = 0;
    for statement in statements {
        deleted = for_rows(transaction, statement, rows, &[])?;
    }
    // The last of them deletes the records.
    Ok(deleted)
}

/// Keeps what records were before `sync` changes them: in which way, and by the approval of which
/// changeset.
pub(super) fn remember(
    transaction: &Transaction<'_>,
    sync: i64,
    kind: RecordKind,
    rows: &[i64],
    action: Action,
    changeset: Option<i64>,
) -> Result<(), StoreError> {
    let statement = match kind {
        RecordKind::Entity => {
            "INSERT OR FAIL INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                 class, key, display_name, properties, created_sync, changed_sync, checksum,
                 changeset)
             SELECT ?1, source_id, 0, ?2, id, hash, claims, type,
                 class, key, display_name, properties, created_sync, changed_sync, checksum, ?3
             FROM px_entity WHERE n IN ROWS"
        }
        RecordKind::Relationship => {
            "INSERT OR FAIL INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                 key, from_id, to_id, properties, created_sync, changed_sync, checksum, changeset)
             SELECT ?1, source_id, 1, ?2, id, hash, claims, verb,
                 key, from_id, to_id, properties, created_sync, changed_sync, checksum, ?3
             FROM px_relationship WHERE n IN ROWS"
        }
    };
    for_rows(
        transaction,
        statement,
        rows,
        params![sync, action.as_str(), changeset],
    )?;
    Ok(())
}

/// Executes a statement for rows, which it calls `ROWS`, a group of them at a time. Returns how many
/// it has changed.
fn for_rows(
    transaction: &Transaction<'_>,
    statement: &str,
    rows: &[i64],
    values: &[&dyn ToSql],
) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let places = vec!["?"; GROUP].join(", ");
    let statement = statement.replace("ROWS", &format!("({places})"));
    let mut statement = transaction.prepare_cached(&statement)?;
    for (place, value) in (1..).zip(values) {
        statement.raw_bind_parameter(place, value)?;
    }
    let mut changed = 0;
    for group in rows.chunks(GROUP) {
        // Where there are fewer, the last one is named several times.
        let last = group.last().into_iter().cycle();
        for (place, row) in (values.len() + 1..=values.len() + GROUP).zip(group.iter().chain(last))
        {
            statement.raw_bind_parameter(place, row)?;
        }
        changed += statement.raw_execute()? as u64;
    }
    Ok(changed)
}

/// Lets the relationships of entities that were deleted wait, unless another source has these.
pub(super) fn wait_for_deleted(
    transaction: &Transaction<'_>,
    entities: impl IntoIterator<Item = u128>,
) -> Result<(), StoreError> {
    for id in entities {
        if is_live(transaction, id)? {
            continue;
        }
        for sql in [
            "INSERT OR IGNORE INTO px_waiting
             SELECT relationship, entity FROM px_edge_from WHERE entity = ?1",
            "INSERT OR IGNORE INTO px_waiting
             SELECT relationship, entity FROM px_edge_to WHERE entity = ?1",
        ] {
            let mut wait = transaction.prepare_cached(sql)?;
            wait.execute([id.to_be_bytes()])?;
        }
    }
    Ok(())
}

/// Tells whether some source has an entity.
pub(super) fn is_live(transaction: &Transaction<'_>, id: u128) -> Result<bool, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT 1 FROM px_entity WHERE lower(hex(id)) = ?1")?;
    Ok(statement.exists([hex(id.to_be_bytes())])?)
}
