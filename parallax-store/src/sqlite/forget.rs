use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::error::StoreError;
use crate::result::Forgotten;
use crate::sqlite::journal;

/// Counts what would go with a source.
pub(super) fn plan(
    connection: &mut Connection,
    connector_id: &str,
    account_id: &str,
) -> Result<Forgotten, StoreError> {
    let transaction = connection.transaction()?;
    find(&transaction, connector_id, account_id).map(|(_, forgotten)| forgotten)
}

/// Removes a source and its history.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    connector_id: &str,
    account_id: &str,
) -> Result<Forgotten, StoreError> {
    let (source_id, forgotten) = find(transaction, connector_id, account_id)?;
    remove(transaction, source_id)?;
    journal::forget(transaction, connector_id, account_id)?;
    Ok(forgotten)
}

fn find(
    transaction: &Transaction<'_>,
    connector_id: &str,
    account_id: &str,
) -> Result<(i64, Forgotten), StoreError> {
    let source = transaction
        .query_row(
            "SELECT source_id, entities, relationships FROM px_source
             WHERE connector_id = ?1 AND account_id = ?2",
            [connector_id, account_id],
            |row| {
                let forgotten = Forgotten {
                    entities: row.get(1)?,
                    relationships: row.get(2)?,
                };
                Ok((row.get(0)?, forgotten))
            },
        )
        .optional()?;
    source.ok_or_else(|| StoreError::NoSuchSource {
        connector_id: connector_id.to_owned(),
        account_id: account_id.to_owned(),
    })
}

fn remove(transaction: &Transaction<'_>, source_id: i64) -> rusqlite::Result<()> {
    for sql in [
        // From where the next source counts. It is behind in a backup, which begins its own line.
        "UPDATE px_meta SET value = max(value,
             (SELECT generation FROM px_source WHERE source_id = ?1)) WHERE key = 'epoch'",
        "DELETE FROM px_waiting WHERE relationship IN
             (SELECT n FROM px_relationship WHERE source_id = ?1)",
        "DELETE FROM px_edge_from WHERE (entity, relationship) IN
             (SELECT from_id, n FROM px_relationship WHERE source_id = ?1)",
        "DELETE FROM px_edge_to WHERE (entity, relationship) IN
             (SELECT to_id, n FROM px_relationship WHERE source_id = ?1)",
        "DELETE FROM px_relationship WHERE source_id = ?1",
        // Relationships of other sources wait for what only this one had.
        "INSERT OR IGNORE INTO px_waiting
         SELECT g.relationship, g.entity FROM px_entity e JOIN px_edge_from g ON g.entity = e.id
         WHERE e.source_id = ?1 AND NOT EXISTS (SELECT 1 FROM px_entity o
             WHERE lower(hex(o.id)) = lower(hex(e.id)) AND o.source_id <> ?1)",
        "INSERT OR IGNORE INTO px_waiting
         SELECT g.relationship, g.entity FROM px_entity e JOIN px_edge_to g ON g.entity = e.id
         WHERE e.source_id = ?1 AND NOT EXISTS (SELECT 1 FROM px_entity o
             WHERE lower(hex(o.id)) = lower(hex(e.id)) AND o.source_id <> ?1)",
        "DELETE FROM px_entity WHERE source_id = ?1",
        "DELETE FROM px_change WHERE source_id = ?1",
        "DELETE FROM px_claims WHERE source_id = ?1",
        "DELETE FROM px_claim WHERE source_id = ?1",
        "DELETE FROM px_digest WHERE source_id = ?1",
        "DELETE FROM px_changeset WHERE source_id = ?1",
        "DELETE FROM px_sync_step WHERE sync IN (SELECT sync FROM px_sync WHERE source_id = ?1)",
        "DELETE FROM px_sync_type WHERE sync IN (SELECT sync FROM px_sync WHERE source_id = ?1)",
        "DELETE FROM px_sync WHERE source_id = ?1",
        "DELETE FROM px_source WHERE source_id = ?1",
    ] {
        transaction.execute(sql, [source_id])?;
    }
    Ok(())
}
