//! The table of virtual machines and their vCPUs: names, numbers, sparklines.
//!
//! Invariant: digits stand under digits, whatever their prefixes. A column keeps its place while
//! its numbers change.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use vmstrobe::RowState;
use vmstrobe::text::counted;
use vmstrobe::view::{Cell, Column, ColumnKind, Frame, Row, RowKind, ShownStat, Sort, TableState};

use super::look::Look;
use super::numbers::{Writing, suffix_columns};
use super::paint::{put, put_char, put_right};
use super::sparkline;
use crate::out::reason;
use crate::text::{seconds, utc};
use crate::width::{fit, shorten, width};

/// The columns of a name at least, with the signs before it, ...
pub(super) const NAME_MIN: u16 = 10;
/// ... and at most.
pub(super) const NAME_MAX: u16 = 24;
/// The columns of the signs before the name of a virtual machine.
pub(super) const SIGNS: u16 = 4;
/// The columns before the number of a vCPU.
const OBJECT_INDENT: u16 = 6;
/// The columns of the first numbers: two counts, a time, a share; and of each that follows.
const NUMBERS: [u16; 4] = [9, 9, 9, 10];
const NUMBER: u16 = 11;
/// The columns by which a number may be wider where there is room.
const NUMBER_MORE: u16 = 2;
/// The gap before the sparklines.
const GAP: u16 = 2;
/// The most columns of numbers that give way to wider sparklines.
const NUMBERS_MAX: u16 = 10;
/// The columns of a sparkline: at least, if that makes room for some more numbers; else; at most.
const SPARK_MIN: u16 = 12;
const SPARK: u16 = 20;
const SPARK_MAX: u16 = 70;
/// The columns from which on the title of the sparklines says what a cell is.
const SPARK_EXPLAINED: u16 = 56;

/// Returns the columns of numbers and the cells of sparklines that a table of this width has room
/// for.
pub(super) fn request(columns: u16, name_columns: u16) -> (usize, usize) {
    let places = Places::of(columns, name_columns);
    (places.numbers.len(), usize::from(places.spark.1 - places.spark.0))
}

/// The places of the columns, from a table's left edge.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    name_end: u16,
    /// The begin and end of each column of numbers.
    numbers: Vec<(u16, u16)>,
    spark: (u16, u16),
}

impl Places {
    fn of(columns: u16, name_columns: u16) -> Self {
        let name = name_columns.clamp(NAME_MIN, NAME_MAX).min((columns / 4).max(NAME_MIN));
        let fits = |count: u16, spark| name + numbers_width(count) + GAP + spark <= columns;
        let most = |spark| (1..=NUMBERS_MAX).rev().find(|&count| fits(count, spark)).unwrap_or(0);
        // A long name makes sparklines shorter before it takes a column.
        let count = most(SPARK).max(most(SPARK_MIN).min(5));
        let left = columns.saturating_sub(name + numbers_width(count) + GAP);
        let spark = left.min(SPARK_MAX);
        let wider = ((left - spark) / count.max(1)).min(NUMBER_MORE);
        let name_end = columns.saturating_sub(numbers_width(count) + wider * count + GAP + spark);
        let mut begin = name_end;
        let mut number = |index| {
            let end = begin + numbers_width(index + 1) - numbers_width(index) + wider;
            (std::mem::replace(&mut begin, end), end)
        };
        let numbers = (0..count).map(&mut number).collect();
        Self { name_end, numbers, spark: (columns - spark, columns) }
    }

    fn at(mut self, x: u16) -> Self {
        self.name_end += x;
        self.numbers.iter_mut().for_each(|(begin, end)| (*begin, *end) = (*begin + x, *end + x));
        (self.spark.0, self.spark.1) = (self.spark.0 + x, self.spark.1 + x);
        self
    }
}

fn numbers_width(count: u16) -> u16 {
    let first = NUMBERS.iter().take(count.into()).sum::<u16>();
    first + count.saturating_sub(NUMBERS.len() as u16) * NUMBER
}

/// Draws the table of a frame with its header.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look, name_columns: u16) {
    if area.is_empty() {
        return;
    }
    let places = Places::of(area.width, name_columns).at(area.x);
    draw_header(buffer, area, frame, look, &places);
    let table = Table { frame, look, places };
    for (index, row) in frame.rows.iter().enumerate() {
        let y = area.y + 1 + u16::try_from(index).unwrap_or(u16::MAX).min(area.height);
        if y < area.bottom() {
            table.draw_row(buffer, area, y, row, frame.selected == Some(index));
        }
    }
    draw_state(buffer, area, frame, look);
}

fn draw_header(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look, places: &Places) {
    let (y, soft, strong) = (area.y, look.theme.soft, look.theme.strong);
    let is_of_vcpus = frame.header.vcpus > 0 || frame.header.vms_ended > 0;
    let head = if is_of_vcpus || frame.rows.is_empty() { "vCPU" } else { "object" };
    put(buffer, area.x + SIGNS, y, places.name_end, head, soft);
    let mut behind = area.x + SIGNS + 5;
    let columns = frame.columns.iter().zip(&places.numbers).enumerate();
    for (index, (column, (begin, end))) in columns {
        let style = if column.sort.is_some() { strong } else { soft };
        let edge = end - prefix_columns(frame, index, column);
        let columns = u16::try_from(width(&column.title)).unwrap_or(u16::MAX);
        // A title that is wider than its numbers reaches over their units, then to the left.
        let edge = if edge.saturating_sub(columns) >= (*begin).max(behind) { edge } else { *end };
        let room = edge.saturating_sub(behind);
        let title = fit(&column.title, usize::from(room));
        put_right(buffer, y, (behind, edge), &title, style);
        if let Some(sort) = column.sort {
            put_char(buffer, edge, y, if sort == Sort::Descending { '▼' } else { '▲' }, style);
        }
        behind = edge + 1;
    }
    let (begin, end) = places.spark;
    put(buffer, begin, y, end, &spark_title(&frame.spark, end - begin), soft);
}

/// Returns the columns of prefixes behind the digits of counts, over which a title does not reach.
fn prefix_columns(frame: &Frame, index: usize, column: &Column) -> u16 {
    let mut cells = frame.rows.iter().filter_map(|row| row.cells.get(index));
    let is_time =
        column.title.ends_with("ms/s") || cells.any(|cell| matches!(cell, Cell::Nanoseconds(_)));
    match column.kind {
        ColumnKind::Amount(_) | ColumnKind::Total(_) if !is_time => 2,
        _ => 0,
    }
}

/// Returns the title of the sparklines, as long as there is room for.
fn spark_title(shown: &ShownStat, columns: u16) -> String {
    let time = seconds(shown.span_ns as f64 * 1e-9).replace(".0 s", " s");
    let name = &shown.title;
    if name.is_empty() {
        return String::new();
    }
    match columns {
        SPARK_EXPLAINED.. => {
            format!("{name}: highest rate over 10 ms in each cell, last {time}")
        }
        SPARK.. => format!("peak {name}, {time}"),
        _ => format!("peak, {time}"),
    }
}

struct Table<'a> {
    frame: &'a Frame,
    look: &'a Look,
    places: Places,
}

impl Table<'_> {
    fn draw_row(&self, buffer: &mut Buffer, area: Rect, y: u16, row: &Row, is_selected: bool) {
        let theme = &self.look.theme;
        let ended = match row.kind {
            RowKind::Vm { ended_wall_ns, .. } => ended_wall_ns,
            RowKind::Object => None,
        };
        let style = match row.kind {
            _ if ended.is_some() => theme.soft,
            RowKind::Vm { .. } => theme.strong,
            RowKind::Object => theme.text,
        };
        self.draw_name(buffer, area, y, row, style);
        for (index, (begin, end)) in self.places.numbers.iter().enumerate() {
            self.draw_cell(buffer, y, (*begin, *end), row, index, style);
        }
        let (begin, end) = self.places.spark;
        let spark = if ended.is_some() { theme.soft } else { theme.spark };
        sparkline::draw(buffer, (begin, end), y, &row.spark, row.spark_max, spark);
        let room = usize::from(end.saturating_sub(begin + 1));
        if let Some(text) = state_text(row, room) {
            // Behind the last value, if there is room for both.
            let columns = u16::try_from(width(&text) + 1).unwrap_or(u16::MAX);
            let from = end.saturating_sub(columns).max(begin);
            (from..end).for_each(|x| put_char(buffer, x, y, ' ', Style::new()));
            put_right(buffer, y, (from, end), &text, theme.soft);
        }
        if is_selected {
            buffer.set_style(Rect { y, height: 1, ..area }, theme.selected);
            put_char(buffer, area.x, y, '▸', theme.data.patch(theme.selected));
        }
    }

    fn draw_name(&self, buffer: &mut Buffer, area: Rect, y: u16, row: &Row, style: Style) {
        let end = self.places.name_end;
        let indent = match row.kind {
            RowKind::Vm { is_folded, .. } => {
                put_char(buffer, area.x + 2, y, if is_folded { '▸' } else { '▾' }, style);
                SIGNS
            }
            RowKind::Object if width(&row.name) > usize::from(NAME_MIN - OBJECT_INDENT) => SIGNS,
            RowKind::Object => OBJECT_INDENT,
        };
        let begin = area.x + indent;
        let name = shorten(&row.name, usize::from(end.saturating_sub(begin + 1)));
        put(buffer, begin, y, end, &name, style);
    }

    fn draw_cell(
        &self,
        buffer: &mut Buffer,
        y: u16,
        (begin, end): (u16, u16),
        row: &Row,
        index: usize,
        style: Style,
    ) {
        let (Some(column), Some(cell)) = (self.frame.columns.get(index), row.cells.get(index))
        else {
            return;
        };
        let writing = Writing::of(&column.kind, self.frame.amounts, self.frame.is_exact);
        let suffix = suffix_columns(&column.kind, cell, writing);
        let mut figure = writing.figure(cell);
        // An exact number that is too long for its column is better scaled than cut.
        let room = usize::from(end - begin - suffix);
        if width(&figure.digits) >= room {
            figure = Writing { is_exact: false, ..writing }.figure(cell);
        }
        let edge = end - suffix;
        put_right(buffer, y, (begin, edge), &figure.digits, style);
        if suffix > 0 {
            put(buffer, edge + 1, y, end, &figure.suffix, style);
        }
    }
}

/// Returns the text in place of the sparkline of a row that has no values now, as long as there is
/// room for.
fn state_text(row: &Row, room: usize) -> Option<String> {
    if let RowKind::Vm { ended_wall_ns: Some(wall_ns), vcpus, .. } = row.kind {
        let ended = format!("ended {}", &utc(wall_ns)[11..19]);
        let texts = [
            format!("{ended}, {}; Del dismisses", counted(vcpus, "vCPU")),
            format!("{ended}; Del dismisses"),
            format!("{ended}; Del"),
        ];
        return texts.into_iter().find(|text| width(text) <= room).or(Some(ended));
    }
    Some(match row.state? {
        RowState::Good | RowState::Aged(_) => return None,
        RowState::Missing => "not read yet".to_owned(),
        RowState::Stale => "does not answer any more".to_owned(),
        RowState::Torn => "changed while it was read".to_owned(),
        RowState::Gone => "does not exist any more".to_owned(),
        RowState::Io(errno) => {
            let reason = reason(&std::io::Error::from_raw_os_error(errno));
            format!("cannot be read: {reason}")
        }
        _ => "cannot be read".to_owned(),
    })
}

/// Draws the reason why a table has no rows.
fn draw_state(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look) {
    let text = match frame.table_state {
        TableState::Filled => return,
        TableState::Empty => {
            "No virtual machine can be read. vmstrobe list -v says why.".to_owned()
        }
        TableState::AllStill => "All of it stands still. z shows it.".to_owned(),
        TableState::NothingMatches => {
            let filter = frame.filter.as_deref().unwrap_or_default();
            format!("Nothing matches \"{}\". Esc clears the filter.", shorten(filter, 24))
        }
    };
    put(buffer, area.x + SIGNS, area.y + 1, area.right(), &text, look.theme.text);
}
