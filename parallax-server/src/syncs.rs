use std::time::Duration;

use parallax_core::SyncStats;
use parallax_store::{Rows, Store};

use crate::args::SyncsArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::query;
use crate::rows::{self, quoted};
use crate::sync_detail;
use crate::table::{Plain, width_of};
use crate::text::seconds;

/// The columns of `parallax_sync` before the stats.
const COLUMNS: [&str; 8] = [
    "connector_id",
    "account_id",
    "sync_id",
    "connector_version",
    "outcome",
    "started_at",
    "duration_ms",
    "committed_at",
];

/// The time in a UUID v7, which tells syncs apart.
const ID_CHARS: usize = 13;

/// `parallax syncs`: lists the syncs of a store, newest first.
pub(crate) async fn run(args: &SyncsArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    if let Some(sync_id) = &args.sync_id {
        return sync_detail::run(&store, sync_id, args, console).await;
    }
    let rows = store.query(&sql(args)).await?;
    let text = match (args.json, rows.rows.is_empty()) {
        (true, _) => query::as_json(&rows),
        (false, false) => fitting(console.width, |chars, width| as_table(&rows, chars, width)),
        (false, true) => {
            console.complain("no syncs\n");
            return Ok(Exit::Ok);
        }
    };
    console.print(&text)?;
    Ok(Exit::Ok)
}

fn sql(args: &SyncsArgs) -> String {
    select(&Filter::from(args), None) + &format!(" LIMIT {}", args.limit)
}

/// Which syncs are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) connector_id: Option<&'a str>,
    pub(crate) account_id: Option<&'a str>,
    pub(crate) outcome: Option<&'a str>,
}

impl<'a> From<&'a SyncsArgs> for Filter<'a> {
    fn from(args: &'a SyncsArgs) -> Self {
        Self {
            connector_id: args.connector.as_deref(),
            account_id: args.account.as_deref(),
            outcome: None,
        }
    }
}

/// Returns the statement that finds syncs, newest first.
pub(crate) fn select(filter: &Filter<'_>, condition: Option<String>) -> String {
    let columns: Vec<&str> = COLUMNS.into_iter().chain(SyncStats::FIELDS).collect();
    select_columns(&columns, filter, condition)
}

/// The same with the number of each sync in a last column, below which a list goes on.
pub(crate) fn select_numbered(filter: &Filter<'_>, condition: Option<String>) -> String {
    let columns = COLUMNS.into_iter().chain(SyncStats::FIELDS);
    let columns: Vec<&str> = columns.chain(["number"]).collect();
    select_columns(&columns, filter, condition)
}

fn select_columns(columns: &[&str], filter: &Filter<'_>, condition: Option<String>) -> String {
    let filters = [
        ("connector_id", filter.connector_id),
        ("account_id", filter.account_id),
        ("outcome", filter.outcome),
    ];
    let filters: Vec<String> = filters
        .into_iter()
        .filter_map(|(column, wanted)| Some(format!("{column} = {}", quoted(wanted?))))
        .chain(condition)
        .collect();
    let filters = match filters.as_slice() {
        [] => String::new(),
        filters => format!(" WHERE {}", filters.join(" AND ")),
    };
    let columns = columns.join(", ");
    format!("SELECT {columns} FROM parallax_sync{filters} ORDER BY number DESC")
}

/// Returns a table, with long ids cut short if it does not fit otherwise. `table` makes it, of ids
/// of so many characters.
pub(crate) fn fitting(width: Option<u16>, table: impl Fn(usize, Option<u16>) -> String) -> String {
    let whole = table(usize::MAX, None);
    match width {
        Some(width) if width_of(&whole) > usize::from(width) => table(ID_CHARS, Some(width)),
        _ => whole,
    }
}

fn as_table(rows: &Rows, id_chars: usize, width: Option<u16>) -> String {
    let header = [
        "started (UTC)",
        "connector",
        "account",
        "sync",
        "outcome",
        "took",
        "created",
        "updated",
        "deleted",
    ];
    let mut table = Plain::new(header);
    for place in 5..header.len() {
        table.align_right(place);
    }
    for row in rows::rows(rows) {
        let text = |name| row.text(name).unwrap_or_default().to_owned();
        let number = |name: &str| row.number(name);
        // Entities and relationships together: who wants more asks with --json.
        let both = |what: &str| {
            number(&format!("entities_{what}")) + number(&format!("relationships_{what}"))
        };
        let cells = [
            to_the_second(&text("started_at")),
            text("connector_id"),
            shortened(text("account_id"), id_chars),
            shortened(text("sync_id"), id_chars),
            text("outcome"),
            seconds(Duration::from_millis(number("duration_ms"))),
            both("created").to_string(),
            both("updated").to_string(),
            both("deleted").to_string(),
        ];
        table.row(cells.iter().map(String::as_str));
    }
    table.lines(width).join("\n") + "\n"
}

pub(crate) fn shortened(id: String, chars: usize) -> String {
    match id.char_indices().nth(chars) {
        Some((end, _)) => id.get(..end).unwrap_or_default().to_owned() + "…",
        None => id,
    }
}

/// Shortens `2026-11-22T11:45:03.123Z` to `2026-11-22 11:45:03`.
pub(crate) fn to_the_second(rfc3339: &str) -> String {
    rfc3339
        .chars()
        .take(19)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use parallax_store::Cell;

    use super::*;
    use crate::args::StoreArgs;
    use crate::testing::plan;

    #[tokio::test]
    async fn lists_are_read_from_their_end_and_syncs_found_by_their_ids() {
        let all = Filter::default();
        let of_one = Filter {
            connector_id: Some("team"),
            account_id: Some("acme"),
            outcome: None,
        };
        let below = || Some("number < 7".to_owned());
        let begins = || Some(sync_detail::begins_so("01a2032d"));
        let plans = [
            plan(&select_numbered(&all, None)).await,
            plan(&select_numbered(&all, below())).await,
            plan(&select_numbered(&of_one, below())).await,
            plan(&select(&all, begins())).await,
            plan(&select(&of_one, begins())).await,
        ];
        insta::assert_snapshot!(plans.join("\n\n"), @r"
        SCAN y
        SEARCH s USING INTEGER PRIMARY KEY (rowid=?)

        SEARCH y USING INTEGER PRIMARY KEY (rowid<?)
        SEARCH s USING INTEGER PRIMARY KEY (rowid=?)

        SEARCH s USING COVERING INDEX sqlite_autoindex_px_source_1 (connector_id=? AND account_id=?)
        SEARCH y USING INDEX px_sync_source (source_id=? AND sync<?)

        SEARCH y USING INDEX px_sync_id (sync_id>? AND sync_id<?)
        SEARCH s USING INTEGER PRIMARY KEY (rowid=?)
        USE TEMP B-TREE FOR ORDER BY

        SEARCH s USING COVERING INDEX sqlite_autoindex_px_source_1 (connector_id=? AND account_id=?)
        SEARCH y USING INDEX sqlite_autoindex_px_sync_1 (source_id=? AND sync_id>? AND sync_id<?)
        USE TEMP B-TREE FOR ORDER BY
        ");
    }

    #[test]
    fn filters_are_quoted() {
        let args = SyncsArgs {
            sync_id: None,
            store: StoreArgs { url: String::new() },
            connector: Some("host".to_owned()),
            account: Some("o'neill' OR '1".to_owned()),
            limit: 3,
            json: false,
        };
        let sql = sql(&args);
        let (_, filters) = sql.split_once("parallax_sync").unwrap();
        insta::assert_snapshot!(filters, @" WHERE connector_id = 'host' AND account_id = 'o''neill'' OR ''1' ORDER BY number DESC LIMIT 3");
    }

    #[test]
    fn syncs_are_a_table_with_shorter_ids_where_it_is_narrow() {
        let columns = [
            "started_at",
            "connector_id",
            "account_id",
            "sync_id",
            "outcome",
            "duration_ms",
            "entities_created",
            "relationships_created",
        ];
        let text = |text: &str| Cell::Text(text.to_owned());
        let rows = Rows {
            columns: columns.map(str::to_owned).to_vec(),
            rows: vec![vec![
                text("2026-11-22T11:45:03.123456Z"),
                text("team"),
                text("acme"),
                text("01a2032d-aca7-7491-b798-bd90105b74b3"),
                text("partial"),
                Cell::Integer(1_234),
                Cell::Integer(2),
                Cell::Integer(3),
            ]],
        };
        let fitting = |width| fitting(width, |chars, width| as_table(&rows, chars, width));
        let table = fitting(None);
        insta::assert_snapshot!(table, @"
        started (UTC)        connector  account  sync                                  outcome    took  created  updated  deleted
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        2026-11-22 11:45:03  team       acme     01a2032d-aca7-7491-b798-bd90105b74b3  partial  1.23 s        5        0        0
        ");
        insta::assert_snapshot!(fitting(Some(100)), @"
        started (UTC)        connector  account  sync            outcome    took  created  updated  deleted
        ───────────────────────────────────────────────────────────────────────────────────────────────────
        2026-11-22 11:45:03  team       acme     01a2032d-aca7…  partial  1.23 s        5        0        0
        ");
    }
}
