use rusqlite::{CachedStatement, ToSql, Transaction};

/// How many rows a statement inserts.
const GROUP: usize = 32;

/// Inserts a known number of rows, a group of them with each statement.
///
/// A statement looks for its place in each b-tree from the root down. The rows of a group that
/// follow each other in the order of a tree are appended where the one before them went.
pub(super) struct Inserts<'a> {
    group: Option<CachedStatement<'a>>,
    /// For those that are no whole group.
    single: Option<CachedStatement<'a>>,
    /// How many values all rows share.
    shared: usize,
    /// How many groups are still to come, the next one included.
    groups: usize,
    /// How many rows of the next group are there.
    gathered: usize,
}

impl<'a> Inserts<'a> {
    /// Prepares the insertion of `rows` rows into the columns `into`. `values` is one row: the
    /// values that all rows share as `?1` and so on, and a `?` for each of its own.
    pub(super) fn prepare(
        transaction: &'a Transaction<'_>,
        into: &str,
        values: &str,
        shared: &[i64],
        rows: usize,
    ) -> rusqlite::Result<Self> {
        // Failing is the transaction's affair: to undo a statement of several rows alone, SQLite
        // copies every page before it changes it.
        let prepare = |rows: usize| {
            let values = vec![values; rows].join(", ");
            let sql = format!("INSERT OR FAIL INTO {into} VALUES {values}");
            let mut statement = transaction.prepare_cached(&sql)?;
            for (place, value) in (1..).zip(shared) {
                statement.raw_bind_parameter(place, value)?;
            }
            Ok::<_, rusqlite::Error>(statement)
        };
        let groups = rows / GROUP;
        Ok(Self {
            group: (groups > 0).then(|| prepare(GROUP)).transpose()?,
            single: (!rows.is_multiple_of(GROUP))
                .then(|| prepare(1))
                .transpose()?,
            shared: shared.len(),
            groups,
            gathered: 0,
        })
    }

    /// Adds a row. Returns how many this has inserted: those of a group all at once.
    pub(super) fn add(&mut self, row: &[&dyn ToSql]) -> rusqlite::Result<u64> {
        let is_grouped = self.groups > 0;
        let statement = if is_grouped {
            self.group.as_mut()
        } else {
            self.single.as_mut()
        };
        // More rows than were told of: whoever counts them will notice.
        let Some(statement) = statement else {
            return Ok(0);
        };
        let first = self.shared + self.gathered * row.len() + 1;
        for (place, value) in (first..).zip(row) {
            statement.raw_bind_parameter(place, value)?;
        }
        if is_grouped {
            self.gathered += 1;
            if self.gathered < GROUP {
                return Ok(0);
            }
            self.gathered = 0;
            self.groups -= 1;
        }
        Ok(statement.raw_execute()? as u64)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params};

    use super::*;

    #[test]
    fn each_row_is_inserted_once_and_in_order() {
        for rows in [0, 1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 5] {
            let mut connection = Connection::open_in_memory().unwrap();
            let table = "CREATE TABLE t (n INTEGER PRIMARY KEY, a, twice, b)";
            connection.execute_batch(table).unwrap();
            let transaction = connection.transaction().unwrap();
            let into = "t (a, twice, b)";
            let mut inserts =
                Inserts::prepare(&transaction, into, "(?1, ?1, ?)", &[7], rows).unwrap();
            let inserted: u64 = (0..rows).map(|b| inserts.add(params![b]).unwrap()).sum();
            assert_eq!(inserted, rows as u64);
            let mut all = transaction
                .prepare("SELECT n, a, twice, b FROM t ORDER BY n")
                .unwrap();
            let all = all.query_map([], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            });
            let all: Vec<[i64; 4]> = all.unwrap().map(Result::unwrap).collect();
            let expected: Vec<_> = (0..).map(|b| [b + 1, 7, 7, b]).take(rows).collect();
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn row_that_cannot_be_inserted_is_an_error() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (a UNIQUE)")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let mut inserts = Inserts::prepare(&transaction, "t", "(?)", &[], GROUP).unwrap();
        for a in 1..GROUP {
            inserts.add(params![a]).unwrap();
        }
        inserts.add(params![1]).unwrap_err();
    }
}
