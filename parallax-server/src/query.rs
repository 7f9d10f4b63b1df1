use parallax_store::{Cell, Rows, Store};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::args::QueryArgs;
use crate::console::Console;
use crate::error::Failure;
use crate::exit::Exit;
use crate::json;
use crate::table::{Plain, width_of};

/// Columns of less characters than this, on average, are no fun to read.
const NARROWEST: usize = 12;

/// `parallax query`: answers one SQL statement that reads.
pub(crate) async fn run(args: &QueryArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let store = Store::open_read_only(&args.store.url).await?;
    let rows = store.query(&args.sql).await?;
    let text = if args.json {
        as_json(&rows)
    } else {
        as_text(&rows, console.width)
    };
    console.print(&text)?;
    if rows.rows.is_empty() && !args.json {
        console.complain("no rows\n");
    }
    Ok(Exit::Ok)
}

/// Returns rows as an array of objects, one in each line.
pub(crate) fn as_json(rows: &Rows) -> String {
    let columns = unique(&rows.columns);
    let rows = rows.rows.iter();
    let objects: Vec<_> = rows.map(|row| Object::new(&columns, row)).collect();
    json::array(&objects)
}

/// Returns rows as a table or, where that gets too narrow to read, each as a table of its own.
fn as_text(rows: &Rows, width: Option<u16>) -> String {
    let table = as_table(rows, None);
    let Some(width) = width.filter(|width| width_of(&table) > usize::from(*width)) else {
        return table;
    };
    if rows.columns.len() * NARROWEST > usize::from(width) {
        as_records(rows, width)
    } else {
        as_table(rows, Some(width))
    }
}

fn as_table(rows: &Rows, width: Option<u16>) -> String {
    let mut table = Plain::new(rows.columns.iter().map(String::as_str));
    for place in 0..rows.columns.len() {
        let is_number = |row: &Vec<Cell>| {
            matches!(
                row.get(place),
                Some(Cell::Integer(_) | Cell::Real(_) | Cell::Null)
            )
        };
        if rows.rows.iter().all(is_number) {
            table.align_right(place);
        }
    }
    for row in &rows.rows {
        let cells: Vec<String> = row.iter().map(text).collect();
        table.row(cells.iter().map(String::as_str));
    }
    table.lines(width).join("\n") + "\n"
}

fn as_records(rows: &Rows, width: u16) -> String {
    let record = |(n, row): (usize, &Vec<Cell>)| {
        let n = n.to_string();
        let mut table = Plain::new(["row", n.as_str()]);
        for (column, cell) in rows.columns.iter().zip(row) {
            table.row([column.as_str(), text(cell).as_str()]);
        }
        table.lines(Some(width)).join("\n") + "\n"
    };
    (1..)
        .zip(&rows.rows)
        .map(record)
        .collect::<Vec<_>>()
        .join("\n")
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(n) => n.to_string(),
        Cell::Real(n) => n.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the columns with names of their own: SQL may give one name to several.
fn unique(columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let numbered = (1..).map(|n| format!("{column}:{n}"));
        let name = std::iter::once(column.clone())
            .chain(numbered)
            .find(|name| !names.contains(name));
        names.extend(name);
    }
    names
}

/// Returns each row as an object.
pub(crate) fn objects(rows: &Rows) -> Vec<Object<'_>> {
    rows.rows
        .iter()
        .map(|row| Object::new(&rows.columns, row))
        .collect()
}

/// A row, each cell by the name of its column.
pub(crate) struct Object<'a> {
    columns: &'a [String],
    row: &'a [Cell],
}

impl<'a> Object<'a> {
    pub(crate) fn new(columns: &'a [String], row: &'a [Cell]) -> Self {
        Self { columns, row }
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, cell) in self.columns.iter().zip(self.row) {
            match cell {
                Cell::Null => map.serialize_entry(column, &())?,
                Cell::Integer(n) => map.serialize_entry(column, n)?,
                Cell::Real(n) => map.serialize_entry(column, n)?,
                Cell::Text(text) => map.serialize_entry(column, text)?,
                Cell::Blob(bytes) => map.serialize_entry(column, &hex(bytes))?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        Rows {
            columns: ["name", "n", "n"].map(str::to_owned).to_vec(),
            rows: vec![
                vec![
                    Cell::Text("a\u{1b}[31m\u{202e}".to_owned()),
                    Cell::Integer(-1),
                    Cell::Null,
                ],
                vec![
                    Cell::Blob(vec![0, 255]),
                    Cell::Real(2.5),
                    Cell::Real(f64::INFINITY),
                ],
            ],
        }
    }

    #[test]
    fn rows_are_shown_as_a_table() {
        insta::assert_snapshot!(as_table(&rows(), None), @r"
        name                   n    n
        ─────────────────────────────
        a\u{1b}[31m\u{202e}   -1
        00ff                 2.5  inf
        ");
    }

    #[test]
    fn rows_that_do_not_fit_are_shown_one_by_one() {
        assert_eq!(as_text(&rows(), Some(80)), as_table(&rows(), None));
        insta::assert_snapshot!(as_text(&rows(), Some(24)), @r"
        row   1
        ────────────────────────
        name  a\u{1b}[31m\u{202e
              }
        n     -1
        n

        row   2
        ──────────
        name  00ff
        n     2.5
        n     inf
        ");
    }

    #[test]
    fn rows_are_objects_with_columns_in_order() {
        insta::assert_snapshot!(as_json(&rows()), @r#"
        [
        {"name":"a\u001b[31m\u202e","n":-1,"n:1":null},
        {"name":"00ff","n":2.5,"n:1":null}
        ]
        "#);
        assert_eq!(
            as_json(&Rows {
                columns: vec!["a".to_owned()],
                rows: vec![]
            }),
            "[]\n"
        );
    }
}
