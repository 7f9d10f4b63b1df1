//! What a store holds.

use anyhow::{Context, Result, ensure};
use parallax_store::{Cell, Rows, Store, StoreError};
use rusqlite::{Connection, OpenFlags};

/// Every row of every table, or of every view.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    relations: Vec<(String, Rows)>,
}

impl State {
    /// Reads all tables, as they are.
    pub(crate) async fn read(store: &Store) -> Result<Self, StoreError> {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        Ok(Self {
            relations: read(store, tables).await?,
        })
    }

    /// Reads all views, without the time of day: equal for two stores to which the same was done.
    pub(crate) async fn shown(store: &Store) -> Result<Self, StoreError> {
        let views = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name";
        let mut relations = read(store, views).await?;
        for (_, rows) in &mut relations {
            // Nor do two runs have one random number.
            let is_told = |c: &String| !c.ends_with("_at") && c != "at" && c != "run";
            let keeps: Vec<bool> = rows.columns.iter().map(is_told).collect();
            for row in &mut rows.rows {
                let mut keeps = keeps.iter();
                row.retain(|_| keeps.next() == Some(&true));
                row.iter_mut().for_each(forget_when);
            }
            // Which row is read first may depend on the store's secret.
            rows.rows.sort_by_cached_key(|row| format!("{row:?}"));
        }
        Ok(Self { relations })
    }

    /// Names the tables that are not the same in `other`.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let mut differing = self.relations.clone();
        differing.retain(|relation| !other.relations.contains(relation));
        let differing = differing
            .iter()
            .map(|(name, rows)| format!("{name} ({} rows)", rows.rows.len()));
        differing.collect::<Vec<_>>().join(", ")
    }

    /// Whether nothing was ever committed to the store.
    pub(crate) fn is_new(&self) -> bool {
        // The store's own secret and name are there from the beginning.
        let mut filled = self.relations.iter().filter(|(_, r)| !r.rows.is_empty());
        filled.all(|(name, _)| name == "px_meta")
    }
}

/// Takes the time of day out of an entry of a journal.
fn forget_when(cell: &mut Cell) {
    const AT: &str = "\"at\":\"";
    if let Cell::Text(text) = cell
        && let Some((before, after)) = text.split_once(AT)
        && let Some((_, after)) = after.split_once('"')
    {
        *text = format!("{before}{AT}\"{after}");
    }
}

async fn read(store: &Store, names: &str) -> Result<Vec<(String, Rows)>, StoreError> {
    let mut relations = Vec::new();
    for row in store.query(names).await?.rows {
        if let [Cell::Text(name)] = &row[..] {
            let rows = store.query(&format!("SELECT * FROM {name}")).await?;
            relations.push((name.clone(), rows));
        }
    }
    Ok(relations)
}

/// Checks the structure of the file at `path`, and that its indexes hold what its tables do.
pub(crate) fn check_integrity(path: &str) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let verdict: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .context("the file's structure cannot be checked")?;
    ensure!(
        verdict == "ok",
        "the file's structure is damaged: {verdict}"
    );
    Ok(())
}
