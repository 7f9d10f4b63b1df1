//! Changesets as the store's views show them.

use std::fmt::Write;

use indicatif::HumanCount;
use parallax_core::Escaped;
use parallax_store::{Action, Rows, Store, StoreError};
use serde::Serialize;

use crate::changes::mark;
use crate::error::Failure;
use crate::query::{Object, objects};
use crate::rows::{Row, quoted, rows};
use crate::syncs::to_the_second;
use crate::table::Plain;
use crate::text::{FAINT, ODD, count, paint};

/// Of the records of each type, more than these are a number.
const SHOWN: u64 = 10;

const COLUMNS: &str = "changeset, connector_id, account_id, state, reason, entities, \
     relationships, entities_at_first, relationships_at_first, held_by_sync_id, held_at, \
     closed_by_sync_id, closed_at";

/// How the records of a changeset are listed.
pub(crate) const ORDER: [&str; 4] = ["kind", "name", "key", "id"];

/// A changeset, with the records that it holds or that were deleted by it.
pub(crate) struct Changeset {
    /// One row.
    pub(crate) row: Rows,
    /// `open`, or what became of it.
    pub(crate) state: String,
    /// How many records there are of each type and verb.
    pub(crate) types: Rows,
    /// The first records of each.
    pub(crate) records: Rows,
}

/// Lists changesets, those that were opened first before others: the open ones, or `all`.
pub(crate) async fn list(store: &Store, all: bool) -> Result<Rows, StoreError> {
    let which = if all { "" } else { " WHERE state = 'open'" };
    let sql = format!("SELECT {COLUMNS} FROM parallax_changeset{which} ORDER BY changeset");
    store.query(&sql).await
}

impl Changeset {
    /// Finds a changeset by its number.
    pub(crate) async fn find(store: &Store, changeset: u64) -> Result<Self, Failure> {
        let (row, state) = Self::row(store, changeset).await?;
        let found = found_in(changeset, &state);
        let types = format!(
            "SELECT kind, name, count(*) AS records FROM ({found}) \
             GROUP BY kind, name ORDER BY kind, name"
        );
        let types = store.query(&types).await?;
        let records = format!(
            "{} FROM ( \
                 SELECT *, row_number() OVER (PARTITION BY kind, name ORDER BY key, id) AS place \
                 FROM ({found}) \
             ) AS found WHERE place <= {SHOWN} ORDER BY kind, name, place",
            named(),
        );
        let records = store.query(&records).await?;
        Ok(Self {
            row,
            state,
            types,
            records,
        })
    }

    /// Finds the row of a changeset, and its state.
    async fn row(store: &Store, changeset: u64) -> Result<(Rows, String), Failure> {
        let sql = format!("SELECT {COLUMNS} FROM parallax_changeset WHERE changeset = {changeset}");
        let row = store.query(&sql).await?;
        let state = rows(&row).next().and_then(|row| row.text("state"));
        if let Some(state) = state.map(str::to_owned) {
            return Ok((row, state));
        }
        let open = list(store, false).await?;
        let open = rows(&open).map(|row| row.number("changeset")).collect();
        Err(Failure::NoSuchChangeset { changeset, open })
    }

    /// Lists the records of a changeset by [`ORDER`]; those behind a place, if one is given.
    pub(crate) async fn records(
        store: &Store,
        changeset: u64,
        after: Option<[String; ORDER.len()]>,
        limit: usize,
    ) -> Result<Rows, Failure> {
        let (_, state) = Self::row(store, changeset).await?;
        let order = ORDER
            .map(|column| format!("ifnull({column}, '')"))
            .join(", ");
        let after = after.map(|place| {
            let place = place.map(|value| quoted(&value)).join(", ");
            format!(" WHERE ({order}) > ({place})")
        });
        let sql = format!(
            "{} FROM ({}) AS found{} ORDER BY {order} LIMIT {limit}",
            named(),
            found_in(changeset, &state),
            after.unwrap_or_default(),
        );
        Ok(store.query(&sql).await?)
    }

    /// Returns it as an object.
    pub(crate) fn object(&self) -> impl Serialize {
        ChangesetObject {
            changeset: objects(&self.row).into_iter().next(),
            types: objects(&self.types),
            records: objects(&self.records),
        }
    }

    /// Describes it for people.
    pub(crate) fn as_text(&self) -> String {
        let headline = |row| headline(row, &self.state);
        let mut parts: Vec<String> = rows(&self.row).map(headline).collect();
        if !self.types.rows.is_empty() {
            parts.push(self.table());
            parts.push(self.listed());
        }
        parts.join("\n\n")
    }

    fn table(&self) -> String {
        let mut table = Plain::new(["", self.action().as_str()]);
        table.align_right(1);
        for row in rows(&self.types) {
            let n = HumanCount(row.number("records")).to_string();
            table.row([row.text("name").unwrap_or_default(), &n]);
        }
        table.lines(None).join("\n")
    }

    fn listed(&self) -> String {
        let mark = mark(self.action());
        let mut text = String::new();
        for of_type in rows(&self.types) {
            let which = ["kind", "name"].map(|column| of_type.text(column));
            let name = Escaped(which[1].unwrap_or_default());
            for record in rows(&self.records) {
                if ["kind", "name"].map(|column| record.text(column)) == which {
                    let what = Escaped(record.text("display_name").unwrap_or_default());
                    writeln!(text, "{mark} {name} {what}").ok();
                }
            }
            if let more @ 1.. = of_type.number("records").saturating_sub(SHOWN) {
                writeln!(text, "{mark} {name}: {} more", HumanCount(more)).ok();
            }
        }
        text.trim_end().to_owned()
    }

    /// Returns what was done to its records.
    fn action(&self) -> Action {
        match self.state.as_str() {
            "approved" => Action::Deleted,
            _ => Action::Held,
        }
    }
}

#[derive(Serialize)]
struct ChangesetObject<'a> {
    #[serde(flatten)]
    changeset: Option<Object<'a>>,
    types: Vec<Object<'a>>,
    records: Vec<Object<'a>>,
}

/// The commands that decide, each with what it does.
pub(crate) const APPROVE: (&str, &str) = ("approve", "deletes them");
pub(crate) const REJECT: (&str, &str) = ("reject", "keeps them, and does not ask again");

/// Returns command lines about a changeset, each with what it does. `store` is the option that
/// names the store.
pub(crate) fn commands(changeset: u64, store: &str, commands: &[(&str, &str)]) -> String {
    let line = |word| format!("parallax {word} {changeset}{store}");
    let width = commands.iter().map(|(word, _)| line(word).len()).max();
    let width = width.unwrap_or(0);
    let lines = commands
        .iter()
        .map(|(word, what)| format!("{:<width$}  {what}", line(word)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the SQL that finds the records of a changeset.
///
/// Those that were rejected or released are records like any other: there are none.
fn found_in(changeset: u64, state: &str) -> String {
    if state == "approved" {
        return format!(
            "SELECT kind, type AS name, id, key, display_name, from_id, to_id \
             FROM parallax_change WHERE changeset = {changeset}"
        );
    }
    format!(
        "SELECT 'entity' AS kind, type AS name, id, key, display_name, NULL AS from_id, \
             NULL AS to_id \
         FROM parallax_entity WHERE held_changeset = {changeset} \
         UNION ALL \
         SELECT 'relationship', verb, id, key, NULL, from_id, to_id \
         FROM parallax_relationship WHERE held_changeset = {changeset}"
    )
}

/// Returns the columns that are shown of records in `found`. The ends of relationships are looked
/// up for those alone that are shown.
fn named() -> String {
    format!(
        "SELECT kind, name, id, key, CASE kind WHEN 'entity' THEN display_name \
             ELSE {} || ' -> ' || {} END AS display_name",
        end("from_id"),
        end("to_id"),
    )
}

/// Returns the SQL that names an end of a relationship in `found`, which may be gone by now.
fn end(id: &str) -> String {
    let named =
        |view| format!("(SELECT type || ':' || key FROM {view} WHERE id = found.{id} LIMIT 1)");
    let (live, gone) = (named("parallax_entity"), named("parallax_change"));
    format!("coalesce({live}, {gone}, {id})")
}

fn headline(row: Row<'_>, state: &str) -> String {
    let text = |column| Escaped(row.text(column).unwrap_or_default());
    let at = |column| to_the_second(row.text(column).unwrap_or_default());
    let mut lines = vec![
        format!(
            "{} {}, {state}: {}, account {}",
            paint(ODD.bold(), "Changeset"),
            row.number("changeset"),
            text("connector_id"),
            text("account_id"),
        ),
        text("reason").to_string(),
        paint(
            FAINT,
            format!(
                "held since {} UTC, by sync {}",
                at("held_at"),
                text("held_by_sync_id")
            ),
        ),
    ];
    let records = |suffix: &str| {
        row.number(&format!("entities{suffix}")) + row.number(&format!("relationships{suffix}"))
    };
    let at_first = records("_at_first");
    match state {
        "open" => {
            let back = at_first.saturating_sub(records(""));
            if back > 0 {
                let all = count(at_first, "record", "records");
                lines.push(format!(
                    "{} of {all} have come back since",
                    HumanCount(back)
                ));
            }
        }
        "approved" => lines.push(format!(
            "approved {} UTC: deleted by sync {}",
            at("closed_at"),
            text("closed_by_sync_id"),
        )),
        "rejected" => lines.push(format!(
            "rejected {} UTC: all of it was kept",
            at("closed_at")
        )),
        _ => lines.push(format!(
            "released {} UTC: all of it had come back by sync {}",
            at("closed_at"),
            text("closed_by_sync_id"),
        )),
    }
    lines.join("\n")
}
