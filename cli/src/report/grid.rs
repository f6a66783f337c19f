//! A table with columns in groups, as text or as Markdown.
//!
//! A number with a prefix has the prefix in a place of its own, so that digits stand under digits.
//! On a terminal that is too narrow for all columns, those that matter least are left out.
//!
//! Invariant: no line is wider than the terminal, if that has room for the columns that are never
//! left out, and for [`NAME_WIDTH_MIN`] columns of each name. No line ends in blanks. A name from
//! another program is printable, and in Markdown ends no cell.

use vmstrobe::readout::Scaled;
use vmstrobe::text::printable;

use crate::table::Align;
use crate::width::{pad_left, pad_right, shorten, width};

/// The blanks between two columns, and before the first.
const GAP: &str = "  ";
/// The columns that the first column gets on any terminal.
const NAME_WIDTH_MIN: usize = 12;
/// A cell of what does not exist or is not known.
pub(super) const NOTHING: &str = "–";

/// The place of a column among those that are left out on a narrow terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is never left out.
    Always,
    /// It is left out after those of higher numbers.
    Spare(u8),
}

/// A table.
#[derive(Debug)]
pub(super) struct Grid {
    title: String,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    /// The heading of neighbouring columns; empty if it has none.
    group: String,
    header: &'static str,
    align: Align,
    rank: Rank,
    cells: Vec<Cell>,
}

/// A cell: digits and a prefix, or a text without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    prefix: &'static str,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text: printable(&text).into_owned(), prefix: "" }
    }
}

impl From<Scaled> for Cell {
    fn from(Scaled { digits, prefix }: Scaled) -> Self {
        Self { text: digits, prefix }
    }
}

impl Cell {
    /// Returns a cell of what is not known, or does not exist.
    pub(super) fn nothing() -> Self {
        NOTHING.to_owned().into()
    }

    /// Returns the cell behind a sign.
    pub(super) fn after(self, sign: &str) -> Self {
        Self { text: format!("{sign}{}", self.text), ..self }
    }
}

impl Column {
    /// Returns the width of the place for prefixes, with the blank before them.
    fn prefix_width(&self) -> usize {
        self.cells.iter().map(|cell| width(cell.prefix)).max().map_or(0, |most| match most {
            0 => 0,
            most => most + 1,
        })
    }

    fn text_width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(&cell.text)).max().unwrap_or(0);
        cells.max(width(self.header).saturating_sub(self.prefix_width()))
    }

    fn width(&self) -> usize {
        self.text_width() + self.prefix_width()
    }

    /// Returns a cell, padded to this width, and cut to it if it is a text.
    fn padded(&self, cell: &Cell, columns: usize) -> String {
        let prefix = match self.prefix_width() {
            0 => String::new(),
            room => pad_right(&format!(" {}", cell.prefix), room),
        };
        match self.align {
            Align::Left => pad_right(&shorten(&cell.text, columns), columns),
            Align::Right => pad_left(&cell.text, self.text_width()) + &prefix,
        }
    }

    fn header(&self, columns: usize) -> String {
        match self.align {
            Align::Left => pad_right(self.header, columns),
            // Above the digits.
            Align::Right => pad_right(&pad_left(self.header, self.text_width()), self.width()),
        }
    }
}

impl Grid {
    pub(super) fn new(title: String) -> Self {
        Self { title: printable(&title).into_owned(), columns: Vec::new() }
    }

    /// Adds a column. The first one has names, which are cut if they must be.
    pub(super) fn column(mut self, header: &'static str, align: Align, rank: Rank) -> Self {
        self.columns.push(Column { group: String::new(), header, align, rank, cells: Vec::new() });
        self
    }

    /// Adds a column of numbers below a heading that it shares with its neighbours.
    pub(super) fn grouped(mut self, group: &str, header: &'static str, rank: Rank) -> Self {
        let (group, align, cells) = (group.to_owned(), Align::Right, Vec::new());
        self.columns.push(Column { group, header, align, rank, cells });
        self
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.cells.push(cell));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.iter().all(|column| column.cells.is_empty())
    }

    /// Returns the width of the names, so that several tables can have one.
    pub(super) fn name_width(&self) -> usize {
        self.columns.first().map_or(0, Column::width)
    }

    /// Returns the lines of the table for a terminal of this width, with names of at least
    /// `name_width` columns if there is room.
    pub(super) fn text(&self, terminal: usize, name_width: usize) -> Vec<String> {
        let columns = self.fitting(terminal, name_width);
        let [names, rest @ ..] = &columns[..] else { return Vec::new() };
        let others: usize = rest.iter().map(|column| GAP.len() + column.width()).sum();
        let room = terminal.saturating_sub(others + GAP.len()).max(NAME_WIDTH_MIN);
        let mut widths = vec![names.width().max(name_width).min(room)];
        widths.extend(rest.iter().map(|column| column.width()));
        let line = |cell: &dyn Fn(&Column, usize) -> String| {
            let cells = columns.iter().zip(&widths).map(|(column, &width)| cell(column, width));
            let line = cells.fold(String::new(), |line, cell| line + GAP + &cell);
            line.trim_end().to_owned()
        };
        let mut lines = heading(&self.title, &columns, &widths);
        lines.push(line(&Column::header));
        for row in 0..names.cells.len() {
            lines.push(line(&|column, width| column.padded(&column.cells[row], width)));
        }
        lines
    }

    /// Returns the columns for which there is room.
    fn fitting(&self, terminal: usize, name_width: usize) -> Vec<&Column> {
        let mut columns: Vec<&Column> = self.columns.iter().collect();
        let width = |columns: &[&Column]| -> usize {
            let of = |column: &&Column| GAP.len() + column.width();
            let wider = name_width.saturating_sub(self.name_width());
            columns.iter().map(of).sum::<usize>() + wider
        };
        while width(&columns) > terminal {
            let ranks = columns.iter().map(|column| column.rank).enumerate();
            let last = ranks.max_by_key(|(_, rank)| *rank);
            let Some((at, Rank::Spare(_))) = last else { break };
            columns.remove(at);
        }
        columns
    }

    /// Returns the lines of the table as Markdown.
    pub(super) fn markdown(&self) -> Vec<String> {
        let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let header = |column: &Column| match &*column.group {
            "" => column.header.to_owned(),
            group => format!("{} {group}", column.header),
        };
        let rule = |column: &Column| match column.align {
            Align::Left => "---".to_owned(),
            Align::Right => "---:".to_owned(),
        };
        let columns = &self.columns;
        let mut lines = vec![format!("### {}", escaped(&self.title)), String::new()];
        lines.push(row(columns.iter().map(header).collect()));
        lines.push(row(columns.iter().map(rule).collect()));
        let cell = |cell: &Cell| match cell.prefix {
            "" => escaped(&cell.text),
            prefix => format!("{} {prefix}", escaped(&cell.text)),
        };
        let rows = columns.first().map_or(0, |names| names.cells.len());
        lines.extend((0..rows).map(|at| row(columns.iter().map(|c| cell(&c.cells[at])).collect())));
        lines
    }
}

/// Returns the title and the headings of groups, on one line if both have room.
fn heading(title: &str, columns: &[&Column], widths: &[usize]) -> Vec<String> {
    let (mut groups, mut at) = (String::new(), 0);
    let mut widths = widths.iter();
    for same in columns.chunk_by(|one, other| one.group == other.group) {
        let span: usize = widths.by_ref().take(same.len()).map(|width| GAP.len() + width).sum();
        let group = &same[0].group;
        if !group.is_empty() {
            let before = (span + GAP.len()).saturating_sub(width(group)) / 2;
            groups = pad_right(&groups, at + before) + group;
        }
        at += span;
    }
    let free = groups.len() - groups.trim_start().len();
    if groups.is_empty() {
        vec![title.to_owned()]
    } else if width(title) + GAP.len() <= free {
        vec![pad_right(title, free) + groups.trim_start()]
    } else {
        vec![title.to_owned(), groups]
    }
}

/// Returns a text that Markdown shows as it is, in one cell.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        if matches!(c, '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#' | '&' | '~') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use vmstrobe::readout::scaled;

    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new("counts per second".to_owned())
            .column("statistic", Align::Left, Rank::Always)
            .column("total", Align::Right, Rank::Always)
            .grouped("over 10 ms", "p50", Rank::Spare(2))
            .grouped("over 10 ms", "max", Rank::Always)
            .column("busiest", Align::Left, Rank::Spare(1));
        let row = |name: &str, total: &str, p50: f64, max: f64, busiest: &str| {
            [
                name.to_owned().into(),
                total.to_owned().into(),
                scaled(p50).into(),
                scaled(max).into(),
                busiest.to_owned().into(),
            ]
        };
        grid.row(row("exits", "117,007", 874.0, 4600.0, "vcpu[0] 42 %"));
        grid.row(row("halt_exits", "12", 0.0, 99.0, "vcpu[10] 9 %"));
        let nothing = [Cell::nothing(), Cell::nothing(), String::new().into()];
        grid.row(["a|b".to_owned().into(), "1".to_owned().into()].into_iter().chain(nothing));
        grid
    }

    #[test]
    fn digits_stand_under_digits() {
        let want = "\
counts per second      over 10 ms
  statistic     total  p50   max    busiest
  exits       117,007  874  4.60 k  vcpu[0] 42 %
  halt_exits       12    0  99.0    vcpu[10] 9 %
  a|b               1    –     –";
        assert_eq!(grid().text(usize::MAX, 0).join("\n"), want);
    }

    #[test]
    fn columns_that_matter_least_are_left_out_first() {
        let shown = |terminal| {
            let lines = grid().text(terminal, 0);
            assert!(lines.iter().all(|line| width(line) <= terminal), "{lines:#?}");
            lines[lines.len() - 4].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shown(48), ["statistic", "total", "p50", "max", "busiest"]);
        assert_eq!(shown(47), ["statistic", "total", "max", "busiest"]);
        assert_eq!(shown(40), ["statistic", "total", "max"]);
        let cut = grid().text(10, 0);
        assert!(cut.iter().any(|line| line.contains("exits  ")), "{cut:#?}");
    }

    #[test]
    fn markdown_has_all_columns_and_names_end_no_cell() {
        let want = r"### counts per second

| statistic | total | p50 over 10 ms | max over 10 ms | busiest |
| --- | ---: | ---: | ---: | --- |
| exits | 117,007 | 874 | 4.60 k | vcpu\[0\] 42 % |
| halt\_exits | 12 | 0 | 99.0 | vcpu\[10\] 9 % |
| a\|b | 1 | – | – |  |";
        assert_eq!(grid().markdown().join("\n"), want);
        assert_eq!(escaped("<b>\n`"), "\\<b\\>\u{fffd}\\`");
    }
}
