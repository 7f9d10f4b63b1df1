use std::iter;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Row, Table, TableStyle};
use parallax_core::escape;

/// A table without lines but the one under its header. Cells are escaped.
pub(crate) struct Plain {
    table: Table,
    columns: usize,
}

const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
/// Between two columns, beside the blank that stands for a line.
const GAP: u16 = 1;

impl Plain {
    /// Makes a table of these columns.
    pub(crate) fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Table::new();
        table.load_style(STYLE).set_header(cells(header));
        let columns = table.column_count();
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if place + 1 < columns { GAP } else { 0 }));
        }
        Self { table, columns }
    }

    /// Aligns a column to the right, as numbers are.
    pub(crate) fn align_right(&mut self, place: usize) {
        if let Some(column) = self.table.column_mut(place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row<'a>(&mut self, row: impl IntoIterator<Item = &'a str>) {
        let row = row.into_iter().chain(iter::repeat("")).take(self.columns);
        self.table.add_row(cells(row));
    }

    /// Returns the lines, the header's two first: wrapped so that they fit into `width` columns,
    /// or one for each row.
    pub(crate) fn lines(mut self, width: Option<u16>) -> Vec<String> {
        match width {
            Some(width) => {
                self.table
                    .set_width(width)
                    .set_content_arrangement(ContentArrangement::Dynamic);
            }
            None => {
                self.table
                    .set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        self.table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }
}

/// Returns how many columns of a terminal a table takes: as many as the line under its header.
pub(crate) fn width_of(table: &str) -> usize {
    table.lines().nth(1).map_or(0, |rule| rule.chars().count())
}

fn cells<'a>(texts: impl IntoIterator<Item = &'a str>) -> Row {
    texts.into_iter().map(escape).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_fits_its_width_and_hides_nothing() {
        let mut table = Plain::new(["name", "n"]);
        table.align_right(1);
        table.row(["a\nb", "1"]);
        table.row(["a rather long text that does not fit", "1000"]);
        table.row(["missing"]);
        insta::assert_snapshot!(table.lines(Some(24)).join("\n"), @r"
        name                   n
        ────────────────────────
        a\nb                   1
        a rather long text  1000
        that does not fit
        missing
        ");
    }
}
