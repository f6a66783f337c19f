//! Tables whose columns are as wide as what is in them.
//!
//! Invariant: a line has no blanks at its end, and nothing is cut off: a table that is too wide
//! becomes several, side by side below each other.

use vmstrobe_core::hmp::printable;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Between two columns.
const GAP: &str = "  ";

/// A table being filled.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Clone, Debug)]
struct Column {
    header: String,
    align: Align,
    width_min: usize,
    cells: Vec<String>,
}

impl Table {
    /// A table without columns.
    pub(crate) fn new() -> Self {
        Self { columns: Vec::new(), rows: 0 }
    }

    /// Adds a column.
    pub(crate) fn column(self, header: impl Into<String>, align: Align) -> Self {
        self.wide_column(header, align, 0)
    }

    /// Adds a column at least so wide, so that tables of other content line up with this one.
    pub(crate) fn wide_column(
        mut self,
        header: impl Into<String>,
        align: Align,
        width_min: usize,
    ) -> Self {
        let header = printable(&header.into());
        self.columns.push(Column { header, align, width_min, cells: Vec::new() });
        self
    }

    /// Adds a row; cells that are not given are empty. Control characters are not passed on, here
    /// and in headers: a cell is one line, whoever wrote what is in it.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.cells.push(printable(&cells.next().unwrap_or_default()));
        }
        self.rows += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The line of headers, if there is any, and the rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        let all: Vec<&Column> = self.columns.iter().collect();
        lines(&all, self.rows)
    }

    /// As [`Table::lines`], but if they are wider than `width`, the columns behind the first `kept`
    /// are divided among several tables, each with the first ones again.
    pub(crate) fn lines_within(&self, width: usize, kept: usize) -> Vec<String> {
        let (labels, values) = self.columns.split_at(kept.min(self.columns.len()));
        let labels: Vec<&Column> = labels.iter().collect();
        let mut parts = vec![labels.clone()];
        for value in values {
            let part = parts.last().expect("it begins with one and only grows");
            let wide = |columns: &[&Column]| -> usize {
                columns.iter().map(|column| column.width() + GAP.len()).sum()
            };
            if part.len() > kept && wide(part) + value.width() > width {
                parts.push(labels.clone());
            }
            parts.last_mut().expect("it begins with one and only grows").push(value);
        }
        let parts: Vec<Vec<String>> = parts.iter().map(|part| lines(part, self.rows)).collect();
        parts.join(&String::new())
    }
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().chain([&self.header]).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.width_min)
    }
}

fn lines(columns: &[&Column], rows: usize) -> Vec<String> {
    let widths: Vec<usize> = columns.iter().map(|column| column.width()).collect();
    let line = |cell: &dyn Fn(&Column) -> String| {
        let cells = columns.iter().zip(&widths).map(|(column, &width)| match column.align {
            Align::Left => format!("{:<width$}", cell(column)),
            Align::Right => format!("{:>width$}", cell(column)),
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let header = line(&|column| column.header.clone());
    let header = (!header.is_empty()).then_some(header);
    header.into_iter().chain((0..rows).map(|at| line(&|column| column.cells[at].clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new().column("name", Align::Left);
        for vcpu in 0..3 {
            table = table.column(format!("vcpu {vcpu}"), Align::Right);
        }
        table.row(["exits", "1", "22", "12,345,678"].map(str::to_owned));
        table.row(["µ", "≤ 5 µs"].map(str::to_owned));
        table
    }

    #[test]
    fn a_cell_is_one_line_whoever_wrote_it() {
        let mut table = Table::new().column("NAME\r", Align::Left);
        table.row(["a\nb\x1b[2J".to_owned()]);
        assert_eq!(table.lines(), ["NAME\u{fffd}", "a\u{fffd}b\u{fffd}[2J"]);
    }

    #[test]
    fn columns_fit_their_cells() {
        let want = [
            "name   vcpu 0  vcpu 1      vcpu 2",
            "exits       1      22  12,345,678",
            "µ      ≤ 5 µs",
        ];
        assert_eq!(table().lines(), want);
        assert_eq!(table().lines_within(33, 1), want);
    }

    #[test]
    fn too_wide_a_table_becomes_several() {
        let want = [
            "name   vcpu 0  vcpu 1",
            "exits       1      22",
            "µ      ≤ 5 µs",
            "",
            "name       vcpu 2",
            "exits  12,345,678",
            "µ",
        ];
        assert_eq!(table().lines_within(32, 1), want);
        // One column a table is the least.
        assert_eq!(table().lines_within(0, 1).len(), 3 * 3 + 2);
    }

    #[test]
    fn without_headers_there_is_no_line_for_them() {
        let mut table = Table::new().wide_column("", Align::Right, 4).column("", Align::Left);
        assert!(table.is_empty());
        table.row(["1", "a"].map(str::to_owned));
        assert_eq!(table.lines(), ["   1  a"]);
    }
}
