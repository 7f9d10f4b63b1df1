//! Rows of the store's views, by the names of their columns.

use parallax_store::{Cell, Rows};

/// A row.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    columns: &'a [String],
    cells: &'a [Cell],
}

/// Returns each row.
pub(crate) fn rows(rows: &Rows) -> impl Iterator<Item = Row<'_>> {
    rows.rows.iter().map(|cells| Row {
        columns: &rows.columns,
        cells,
    })
}

/// Returns the row at a place.
pub(crate) fn row_at(rows: &Rows, place: usize) -> Option<Row<'_>> {
    Some(Row {
        columns: &rows.columns,
        cells: rows.rows.get(place)?,
    })
}

impl<'a> Row<'a> {
    /// Returns a text, or nothing if there is none.
    pub(crate) fn text(self, column: &str) -> Option<&'a str> {
        match self.cell(column) {
            Some(Cell::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns a count, 0 if there is none.
    pub(crate) fn number(self, column: &str) -> u64 {
        match self.cell(column) {
            Some(Cell::Integer(n)) => u64::try_from(*n).unwrap_or(0),
            _ => 0,
        }
    }

    fn cell(self, column: &str) -> Option<&'a Cell> {
        let place = self.columns.iter().position(|name| name == column)?;
        self.cells.get(place)
    }
}

/// Returns a text as SQL writes it. Nothing but the quote has a meaning inside, and NUL, where the
/// statement would end.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains('\0') {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        return format!("CAST(x'{digits}' AS TEXT)");
    }
    format!("'{}'", text.replace('\'', "''"))
}
