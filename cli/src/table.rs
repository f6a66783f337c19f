//! Tables whose columns are as wide as what is in them.
//!
//! Names are anyone's, and may be long. On a terminal names share what the numbers leave, and are
//! cut in their middle; words in the last column go on below. Elsewhere nothing is cut, so that a
//! program finds what it looks for, and a name that is very long sticks out of its own row alone.
//!
//! Invariant: on a terminal no line is wider than it, as long as it has room for the numbers and
//! [`NAME_WIDTH_MIN`] columns of each name; a line has no blanks at its end. Neither numbers nor
//! words are cut: a table that is too wide becomes several, side by side below each other.

use std::iter;

use vmstrobe::text::printable;

use crate::width::{pad_left, pad_right, shorten, width, wrap};

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
/// The share of a terminal that a name may take where the columns behind it are divided.
const NAMES_SHARE: usize = 3;
/// The columns that each name gets of any terminal, ...
const NAME_WIDTH_MIN: usize = 16;
/// ... and those below which it is not cut for the sake of words behind it.
const NAME_WIDTH_GOOD: usize = 24;
/// No column is widened further by a name.
const NAME_WIDTH_MAX: usize = 64;
/// The columns that words get where names have enough.
const WORDS_WIDTH_GOOD: usize = 40;
/// Words that have fewer columns than this stand below their row.
const WORDS_WIDTH_MIN: usize = 30;
/// The blanks before words that stand below their row.
const INDENT: usize = 4;

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
        let header = printable(&header.into()).into_owned();
        self.columns.push(Column { header, align, width_min, cells: Vec::new() });
        self
    }

    /// Adds a row; cells that are not given are empty.
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

    /// The line of headers, if there is any, and the rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines_fitting(usize::MAX)
    }

    /// As [`Table::lines`], within the width of a terminal.
    pub(crate) fn lines_fitting(&self, width: usize) -> Vec<String> {
        self.lines_split(width, self.columns.len())
    }

    /// As [`Table::lines_fitting`], but if they are wider than `width`, the columns behind the first
    /// `kept` are divided among several tables, each with the first ones again.
    pub(crate) fn lines_split(&self, width: usize, kept: usize) -> Vec<String> {
        let kept = kept.min(self.columns.len());
        let columns = self.cut(width, kept);
        let (labels, values) = columns.split_at(kept);
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
        let parts = parts.iter().map(|part| lines(part, self.rows, width));
        parts.collect::<Vec<_>>().join(&String::new())
    }

    /// The columns with names cut, so that those which stay together fit into the width.
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

/// The parts of a terminal's width that names and words get.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// The most columns of a name.
    name: usize,
    /// The columns that are kept free for words at the end.
    words: usize,
    /// Columns are at least as wide as those of other tables that they line up with.
    lines_up: bool,
}

impl Share {
    /// Returns the largest shares with which the columns, and the words behind them if there are
    /// any, fit into the width. Words make room first, then the lining up with other tables.
    fn of(columns: &[Column], words: Option<&Column>, width: usize, kept: usize) -> Self {
        let sizes: Vec<Sizes> = columns.iter().map(Sizes::of).collect();
        let (labels, values) = sizes.split_at(kept.min(sizes.len()));
        let words = words.map(Sizes::of);
        let fits = |share: &Self| {
            let size = |sizes: &Sizes| sizes.within(*share) + GAP.len();
            let widest = values.iter().map(size).max().unwrap_or(0);
            let all = labels.iter().map(size).sum::<usize>() + widest + share.words;
            // Behind the last column there is no gap.
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

/// How wide the parts of a column are.
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

    /// Returns how wide the column is once it was cut.
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

/// The lines of these columns. If the last one has words, they end at the width.
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

/// Returns the lines of a row with words at its end: beside it as far as they have room there, else
/// below it.
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
    fn a_cell_is_one_line_whoever_wrote_it() {
        let mut table = Table::new().column("NAME\r", Align::Left);
        table.row(["a\nb\x1b[2J".to_owned()]);
        assert_eq!(table.lines(), ["NAME\u{fffd}", "a\u{fffd}b\u{fffd}[2J"]);
    }

    #[test]
    fn a_column_is_as_wide_as_it_is_shown() {
        let mut table = Table::new().column("NAME", Align::Left).column("N", Align::Right);
        table.row(["日本語", "1"].map(str::to_owned));
        table.row(["e\u{301}", "22"].map(str::to_owned));
        assert_eq!(table.lines(), ["NAME     N", "日本語   1", "e\u{301}       22"]);
    }

    #[test]
    fn a_long_name_breaks_no_row_of_a_terminal_and_moves_no_other_in_a_file() {
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
        // In a file it is whole.
        let whole = table.lines_fitting(usize::MAX);
        assert!(whole[1].starts_with(&format!("{name}  ")), "{whole:#?}");
        assert!(whole[2].starts_with(&format!("web{}  ", " ".repeat(61))), "{whole:#?}");
        assert_eq!(whole, table.lines());
    }

    #[test]
    fn long_names_share_what_numbers_leave() {
        let name = |c: &str, len| c.repeat(len);
        for (lens, want) in [
            // Who needs little leaves the rest to others.
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
    fn words_stand_beside_their_row_or_below_it() {
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
        assert_eq!(table().lines_split(32, 1), want);
        // One column a table is the least.
        assert_eq!(table().lines_split(0, 1).len(), 3 * 3 + 2);
    }

    #[test]
    fn without_headers_there_is_no_line_for_them() {
        let mut table = Table::new().wide_column("", Align::Right, 4).column("", Align::Left);
        assert!(table.is_empty());
        table.row(["1", "a"].map(str::to_owned));
        assert_eq!(table.lines(), ["   1  a"]);
    }
}
