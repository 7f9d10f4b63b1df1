use parallax_core::RecordKind;
use rusqlite::{CachedStatement, Transaction, params};

use crate::error::StoreError;
use crate::result::Action;
use crate::sqlite::row::hex;

/// Deletes rows of one kind, and keeps what they were. Returns how many there were.
pub(super) fn delete(
    transaction: &Transaction<'_>,
    sync: i64,
    kind: RecordKind,
    rows: impl IntoIterator<Item = i64>,
    changeset: Option<i64>,
) -> Result<u64, StoreError> {
    let mut remember = remember(transaction, kind)?;
    let edges: &[&str] = match kind {
        RecordKind::Entity => &["DELETE FROM px_entity WHERE n = ?1"],
        RecordKind::Relationship => &[
            "DELETE FROM px_edge_from WHERE relationship = ?1 AND entity =
             (SELECT from_id FROM px_relationship WHERE n = ?1)",
            "DELETE FROM px_edge_to WHERE relationship = ?1 AND entity =
             (SELECT to_id FROM px_relationship WHERE n = ?1)",
            "DELETE FROM px_waiting WHERE relationship = ?1",
            "DELETE FROM px_relationship WHERE n = ?1",
        ],
    };
    let statements = edges.iter().map(|sql| transaction.prepare_cached(sql));
    let mut statements: Vec<_> = statements.collect::<Result<_, _>>()?;
    let mut deleted = 0;
    for row in rows {
        remember.execute(params![row, sync, Action::Deleted.as_str(), changeset])?;
        let mut last = 0;
        for statement in &mut statements {
            last = statement.execute([row])? as u64;
        }
        deleted += last;
    }
    Ok(deleted)
}

/// Keeps what a record was before it is changed: of its row, by which sync, how, and by the
/// approval of which changeset.
pub(super) fn remember<'a>(
    transaction: &'a Transaction<'_>,
    kind: RecordKind,
) -> Result<CachedStatement<'a>, StoreError> {
    Ok(transaction.prepare_cached(match kind {
        RecordKind::Entity => {
            "INSERT INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                 class, key, display_name, properties, created_sync, changed_sync, changeset)
             SELECT ?2, source_id, 0, ?3, id, hash, claims, type,
                 class, key, display_name, properties, created_sync, changed_sync, ?4
             FROM px_entity WHERE n = ?1"
        }
        RecordKind::Relationship => {
            "INSERT INTO px_change (sync, source_id, kind, action, id, hash, claims, name,
                 key, from_id, to_id, properties, created_sync, changed_sync, changeset)
             SELECT ?2, source_id, 1, ?3, id, hash, claims, verb,
                 key, from_id, to_id, properties, created_sync, changed_sync, ?4
             FROM px_relationship WHERE n = ?1"
        }
    })?)
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
