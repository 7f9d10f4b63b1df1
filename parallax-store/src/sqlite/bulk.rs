use parallax_core::RecordKind;
use rusqlite::Transaction;

use crate::error::StoreError;

/// Fewer creates are not worth it.
const LARGE: usize = 20_000;

/// Takes the secondary indexes away while a table is filled, and builds them at the end.
///
/// They are in the order of hashes: to sort once is faster than to insert a million times all over
/// them. Worth it while the table is small beside what is created.
#[must_use = "the indexes are to be built again"]
pub(super) struct Bulk {
    /// The statements that make the indexes.
    indexes: Vec<String>,
}

impl Bulk {
    pub(super) fn begin(
        transaction: &Transaction<'_>,
        kind: RecordKind,
        creates: usize,
    ) -> Result<Self, StoreError> {
        let mut bulk = Self {
            indexes: Vec::new(),
        };
        let table = match kind {
            RecordKind::Entity => "px_entity",
            RecordKind::Relationship => "px_relationship",
        };
        let before = format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?1)");
        if creates < LARGE {
            return Ok(bulk);
        }
        let before: usize = transaction.query_row(&before, [creates / 4 + 1], |row| row.get(0))?;
        if before > creates / 4 {
            return Ok(bulk);
        }
        let mut statement = transaction.prepare(
            "SELECT name, sql FROM sqlite_schema
             WHERE type = 'index' AND tbl_name = ?1 AND sql LIKE 'CREATE INDEX%'",
        )?;
        let indexes = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for index in indexes.collect::<Result<Vec<(String, String)>, _>>()? {
            let name = index.0.replace('"', "\"\"");
            transaction.execute_batch(&format!("DROP INDEX \"{name}\""))?;
            bulk.indexes.push(index.1);
        }
        Ok(bulk)
    }

    pub(super) fn end(self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        for index in self.indexes {
            transaction.execute_batch(&index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::open::Location;
    use crate::sqlite::testing::{column, within};

    /// An index that somebody had made for a query of his own, under such a name, failed each large
    /// commit.
    #[test]
    fn indexes_of_any_name_are_built_again() {
        let mut store = Location::Memory.open().unwrap();
        let theirs = r#"CREATE INDEX "my ""own"" index" ON px_entity (key)"#;
        store.connection.execute_batch(theirs).unwrap();
        let indexes = "SELECT name || sql FROM sqlite_schema
             WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1";
        let before = column(&store.connection, indexes);
        within(&mut store, |transaction| {
            let bulk = Bulk::begin(transaction, RecordKind::Entity, LARGE).unwrap();
            assert_eq!(bulk.indexes.len(), 4);
            assert!(column(transaction, indexes).len() < before.len());
            bulk.end(transaction).unwrap();
        });
        assert_eq!(column(&store.connection, indexes), before);
    }
}
