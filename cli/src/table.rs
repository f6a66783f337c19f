//! Tables whose columns are as wide as their cells.
//!
//! Names come from other programs and may be long. On a terminal names share the columns that the
//! numbers leave, and are cut in their middle; words in the last column are wrapped. Elsewhere
//! nothing is cut, so that a program finds complete names, and a very long name makes only its own
//! row wider.
//!
//! Invariant: no line is wider than the terminal, if that has room for the numbers and for
//! [`NAME_WIDTH_MIN`] columns of each name. No line ends in blanks. Neither numbers nor words are
//! cut: a table that is too wide is split into several, one below the other.

use std::iter;

use vmstrobe::text::printable;

use crate::width::{pad_left, pad_right, shorten, width, wrap};

/// The side of the column to which a cell is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// The blanks between two columns.
const GAP: &str = "  ";
/// The part of the terminal's width, as a divisor, that a name may take in a table that is split.
const NAMES_SHARE: usize = 3;
/// The columns that each name gets on any terminal.
const NAME_WIDTH_MIN: usize = 16;
/// The columns below which a name is not cut to make room for the words after it.
const NAME_WIDTH_GOOD: usize = 24;
/// The largest width that a name gives to its column.
const NAME_WIDTH_MAX: usize = 64;
/// The columns that words get if the names have enough.
const WORDS_WIDTH_GOOD: usize = 40;
/// The columns that words need beside their row; with fewer they are placed below it.
const WORDS_WIDTH_MIN: usize = 30;
/// The blanks before words that are placed below their row.
const INDENT: usize = 4;

/// A table: columns, to which rows are added.
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
    /// Creates a table without columns.
    pub(crate) fn new() -> Self {
        Self { columns: Vec::new(), rows: 0 }
    }

    /// Adds a column.
    pub(crate) fn column(self, header: impl Into<String>, align: Align) -> Self {
        self.wide_column(header, align, 0)
    }

    /// Adds a column of at least this width, so that several tables line up.
    pub(crate) fn wide_column(
        mut self,
        header: impl Into<String>,
        align: Align,
        width_min: usize,
    ) -> Self {
        let header = printable(&header.into()).into_owned();
        self.columns.push(Column { header, align, width_min, cells: Vec::new() });
        self
    }

    /// Adds a row. Cells that are not given are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.cells.push(printable(&cells.next().unwrap_or_default()).into_owned());
        }
        self.rows += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the line of headers, if any column has one, and the rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines_fitting(usize::MAX)
    }

    /// Returns the lines of [`Table::lines`], cut and wrapped to the width of a terminal.
    pub(crate) fn lines_fitting(&self, width: usize) -> Vec<String> {
        self.lines_split(width, self.columns.len())
    }

    /// Returns the lines of [`Table::lines_fitting`]. If the table is wider than `width`, it is
    /// split: each part has the first `kept` columns and some of the others.
    pub(crate) fn lines_split(&self, width: usize, kept: usize) -> Vec<String> {
        let kept = kept.min(self.columns.len());
        let columns = self.cut(width, kept);
        let (labels, values) = columns.split_at(kept);
        let labels: Vec<&Column> = labels.iter().collect();
        let mut parts = vec![labels.clone()];
        for value in values {
            let part = parts.last().expect("parts begins with one element and only grows");
            let wide = |columns: &[&Column]| -> usize {
                columns.iter().map(|column| column.width() + GAP.len()).sum()
            };
            if part.len() > kept && wide(part) + value.width() > width {
                parts.push(labels.clone());
            }
            parts.last_mut().expect("parts begins with one element and only grows").push(value);
        }
        let parts = parts.iter().map(|part| lines(part, self.rows, width));
        parts.collect::<Vec<_>>().join(&String::new())
    }

    /// Returns the columns with their names cut, so that the columns of one part fit into the
    /// width.
    fn cut(&self, width: usize, kept: usize) -> Vec<Column> {
        let mut columns = self.columns.clone();
        if width == usize::MAX {
            return columns;
        }
        let ends_in_words = columns.last().is_some_and(|column| column.align == Align::Left);
        let last = columns.len() - usize::from(ends_in_words);
        let share = Share::of(&columns[..last], columns.get(last), width, kept);
        for column in &mut columns[..last] {
            column.cut(share);
        }
        columns
    }
}

/// The columns of a terminal that names and words get.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// The largest width of a name.
    name: usize,
    /// The columns that are reserved for words at the end.
    words: usize,
    /// Columns have at least the minimum width by which they line up with other tables.
    lines_up: bool,
}

impl Share {
    /// Returns the largest shares with which the columns, and the words after them if there are
    /// any, fit into the width. The words are narrowed first; then the minimum widths are given up.
    fn of(columns: &[Column], words: Option<&Column>, width: usize, kept: usize) -> Self {
        let sizes: Vec<Sizes> = columns.iter().map(Sizes::of).collect();
        let (labels, values) = sizes.split_at(kept.min(sizes.len()));
        let words = words.map(Sizes::of);
        let fits = |share: &Self| {
            let size = |sizes: &Sizes| sizes.within(*share) + GAP.len();
            let widest = values.iter().map(size).max().unwrap_or(0);
            let all = labels.iter().map(size).sum::<usize>() + widest + share.words;
            // There is no gap after the last column.
            all <= width + if share.words > 0 { 0 } else { GAP.len() }
        };
        let most = if values.is_empty() { width } else { width / NAMES_SHARE };
        let most = most.clamp(NAME_WIDTH_MIN, NAME_WIDTH_MAX);
        let header = words.map_or(0, |words| words.header);
        let beside = words.map_or(0, |words| words.cells.min(WORDS_WIDTH_GOOD)).max(header);
        let shares = [
            (NAME_WIDTH_GOOD, beside, true),
            (NAME_WIDTH_MIN, header, true),
            (NAME_WIDTH_MIN, header, false),
        ];
        let mut all = shares.into_iter().flat_map(|(least, words, lines_up)| {
            (least..=most).rev().map(move |name| Self { name, words, lines_up })
        });
        let least = Self { name: NAME_WIDTH_MIN, words: 0, lines_up: false };
        all.find(fits).unwrap_or(least)
    }
}

/// The widths of the parts of a column.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    align: Align,
    header: usize,
    cells: usize,
    width_min: usize,
}

impl Sizes {
    fn of(column: &Column) -> Self {
        Self {
            align: column.align,
            header: width(&column.header),
            cells: column.cells.iter().map(|cell| width(cell)).max().unwrap_or(0),
            width_min: column.width_min,
        }
    }

    /// Returns the width of the column after it is cut.
    fn within(self, share: Share) -> usize {
        let width_min = if share.lines_up { self.width_min } else { 0 };
        match self.align {
            Align::Left => self.header.max(self.cells).max(width_min).min(share.name),
            Align::Right => self.header.min(share.name).max(self.cells).max(width_min),
        }
    }
}

impl Column {
    fn cut(&mut self, share: Share) {
        self.header = shorten(&self.header, share.name);
        if self.align == Align::Left {
            self.cells.iter_mut().for_each(|cell| *cell = shorten(cell, share.name));
            self.width_min = self.width_min.min(share.name);
        }
        if !share.lines_up {
            self.width_min = 0;
        }
    }

    fn width(&self) -> usize {
        let name_width = |name: &String| width(name).min(NAME_WIDTH_MAX);
        let cells = self.cells.iter().map(|cell| match self.align {
            Align::Left => name_width(cell),
            Align::Right => width(cell),
        });
        cells.max().unwrap_or(0).max(name_width(&self.header)).max(self.width_min)
    }
}

/// Returns the lines of these columns. The words of the last one, if it has any, end at the width.
fn lines(columns: &[&Column], rows: usize, width: usize) -> Vec<String> {
    let widths: Vec<usize> = columns.iter().map(|column| column.width()).collect();
    let ends_in_words = columns.last().is_some_and(|column| column.align == Align::Left);
    let last = columns.len() - usize::from(ends_in_words);
    let row = |cell: &dyn Fn(&Column) -> String| {
        let cells =
            columns[..last].iter().zip(&widths).map(|(column, &width)| match column.align {
                Align::Left => pad_right(&cell(column), width) + GAP,
                Align::Right => pad_left(&cell(column), width) + GAP,
            });
        let words = columns.get(last).map(|column| cell(column)).unwrap_or_default();
        with_words(&cells.collect::<String>(), words.trim_end(), width)
    };
    let header = row(&|column| column.header.clone());
    let header = header.into_iter().filter(|line| !line.is_empty());
    header.chain((0..rows).flat_map(|at| row(&|column| column.cells[at].clone()))).collect()
}

/// Returns the lines of a row with words at its end: beside the row if there is room, else below.
fn with_words(row: &str, words: &str, columns: usize) -> Vec<String> {
    let at = width(row);
    let room = columns.saturating_sub(at);
    let row = row.trim_end();
    if words.is_empty() {
        return vec![row.to_owned()];
    }
    if width(words) <= room || room >= WORDS_WIDTH_MIN {
        let parts = wrap(words, room, GAP);
        let befores = [row].into_iter().chain(iter::repeat(""));
        return befores.zip(parts).map(|(row, part)| pad_right(row, at) + &part).collect();
    }
    let start = columns.saturating_sub(width(words));
    if width(row) + GAP.len() <= start {
        return vec![pad_right(row, start) + words];
    }
    let row = (!row.is_empty()).then(|| row.to_owned());
    let start = start.max(INDENT);
    let below = wrap(words, columns.saturating_sub(start), "");
    row.into_iter().chain(below.iter().map(|part| " ".repeat(start) + part)).collect()
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
    fn a_line_break_in_a_cell_is_replaced() {
        let mut table = Table::new().column("NAME\r", Align::Left);
        table.row(["a\nb\x1b[2J".to_owned()]);
        assert_eq!(table.lines(), ["NAME\u{fffd}", "a\u{fffd}b\u{fffd}[2J"]);
    }

    #[test]
    fn the_width_of_a_column_is_in_terminal_columns() {
        let mut table = Table::new().column("NAME", Align::Left).column("N", Align::Right);
        table.row(["日本語", "1"].map(str::to_owned));
        table.row(["e\u{301}", "22"].map(str::to_owned));
        assert_eq!(table.lines(), ["NAME     N", "日本語   1", "e\u{301}       22"]);
    }

    #[test]
    fn a_long_name_is_cut_on_a_terminal_and_whole_in_a_file() {
        let number = "18,446,744,073,709,551,615";
        let mut table = Table::new()
            .column("NAME", Align::Left)
            .column("/vm/".to_owned() + &"n".repeat(128), Align::Right)
            .column("HOW", Align::Left);
        let name = "a".repeat(64) + &"b".repeat(64);
        table.row([name.clone(), number.to_owned(), "why ".repeat(40)]);
        table.row(["web".to_owned(), "1".to_owned(), "so".to_owned()]);
        let cut = table.lines_fitting(80);
        assert!(cut[0].starts_with(&format!("NAME{}  /vm/nnnnnnn", " ".repeat(32))), "{cut:#?}");
        assert!(cut[0].ends_with("…nnnnnnnnnnnnnnnnnn  HOW"), "{cut:#?}");
        let (begin, end) = ("a".repeat(17), "b".repeat(18));
        assert!(cut[1].starts_with(&format!("{begin}…{end}  ")), "{cut:#?}");
        assert!(cut[2].starts_with("    why why") && cut[3].starts_with("    why"), "{cut:#?}");
        assert!(cut.iter().all(|line| width(line) <= 80), "{cut:#?}");
        // In a file the name is whole.
        let whole = table.lines_fitting(usize::MAX);
        assert!(whole[1].starts_with(&format!("{name}  ")), "{whole:#?}");
        assert!(whole[2].starts_with(&format!("web{}  ", " ".repeat(61))), "{whole:#?}");
        assert_eq!(whole, table.lines());
    }

    #[test]
    fn long_names_share_the_columns_that_numbers_leave() {
        let name = |c: &str, len| c.repeat(len);
        for (lens, want) in [
            // A short name leaves its columns to the others.
            ([8, 128, 8], [8, 49, 8]),
            ([40, 40, 4], [29, 29, 4]),
            ([128, 128, 128], [21, 21, 21]),
        ] {
            let mut table = Table::new().column("PID", Align::Right);
            for header in ["PROCESS", "PROVIDER", "OBJECTS"] {
                table = table.column(header, Align::Left);
            }
            let mut table = table.column("HOW", Align::Left);
            let names = [name("a", lens[0]), name("b", lens[1]), name("c", lens[2])];
            let how = "cannot be read: why ".repeat(6);
            let row = ["4711".to_owned()].into_iter().chain(names).chain([how]);
            table.row(row);
            let lines = table.lines_fitting(80);
            assert!(lines.iter().all(|line| width(line) <= 80), "{lines:#?}");
            let words: Vec<usize> = lines[1].split_whitespace().skip(1).map(width).collect();
            let shown = want.iter().zip(lens).map(|(&most, len)| most.min(len));
            assert_eq!(words[..3], shown.collect::<Vec<_>>(), "{lines:#?}");
            let text = lines.concat();
            assert_eq!(text.matches("cannot").count(), 6, "words are not cut: {lines:#?}");
        }
    }

    #[test]
    fn words_are_beside_their_row_or_below_it() {
        for (row, words, want) in [
            ("", "words", &["words"][..]),
            ("0123456789  ", "", &["0123456789"]),
            ("0123456789  ", "w", &["0123456789  w"]),
            ("012         ", "words", &["012      words"]),
            ("0123456789  ", "words", &["0123456789", "         words"]),
            ("0123456789  ", "more words now", &["0123456789", "    more words", "    now"]),
        ] {
            assert_eq!(with_words(row, words, 14), want, "{row} {words}");
        }
        let want = ["12  so many words that they go on", "      below it"];
        assert_eq!(with_words("12  ", "so many words that they go on below it", 34), want);
    }

    #[test]
    fn columns_fit_their_cells() {
        let want = [
            "name   vcpu 0  vcpu 1      vcpu 2",
            "exits       1      22  12,345,678",
            "µ      ≤ 5 µs",
        ];
        assert_eq!(table().lines(), want);
        assert_eq!(table().lines_split(33, 1), want);
    }

    #[test]
    fn a_table_that_is_too_wide_is_split() {
        let want = [
            "name   vcpu 0  vcpu 1",
            "exits       1      22",
            "µ      ≤ 5 µs",
            "",
            "name       vcpu 2",
            "exits  12,345,678",
            "µ",
        ];
        assert_eq!(table().lines_split(32, 1), want);
        // Each part has at least one column.
        assert_eq!(table().lines_split(0, 1).len(), 3 * 3 + 2);
    }

    #[test]
    fn a_table_without_headers_has_no_header_line() {
        let mut table = Table::new().wide_column("", Align::Right, 4).column("", Align::Left);
        assert!(table.is_empty());
        table.row(["1", "a"].map(str::to_owned));
        assert_eq!(table.lines(), ["   1  a"]);
    }
}
