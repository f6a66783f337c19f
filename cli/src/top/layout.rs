//! The places of the parts of the screen, for every size from 60x12.
//!
//! Invariant: parts do not overlap and stay within the screen. The first row is the title and the
//! last one has the keys.

use ratatui_core::layout::{Rect, Size};
use vmstrobe::view::{Frame, Moment, Request};

use super::{lists, table};
use crate::args::Marker;

/// The smallest screen, in columns and rows.
pub(super) const SMALLEST: Size = Size { width: 60, height: 12 };
/// The rows from which on there is a chart below the table.
const CHART_ROWS: u16 = 18;
/// The rows of a chart that is worth drawing: its title, five rows, its axis.
const CHART_MIN: u16 = 7;
/// The most charts.
const CHARTS_MAX: u16 = 3;
/// The columns from which on there is a pane on the right, ...
const WIDE: u16 = 160;
/// ... and the columns of that pane.
const SIDE_COLUMNS: u16 = 65;
/// The columns of a histogram beside something else, with the gap behind it.
const HISTOGRAM_COLUMNS: u16 = 47;
/// The columns from which on a histogram stands beside a list.
const BESIDE_COLUMNS: u16 = 79;
/// The rows of the line that shows the ring, and of the texts below it.
const RING_ROWS: u16 = 2;
/// The columns in front of a chart, for its labels.
pub(super) const CHART_MARGIN: u16 = 7;
/// The columns in front of the bars of a histogram or a heat map, for its labels.
pub(super) const BAR_MARGIN: u16 = 10;

/// The state that decides which parts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// The rows that the table would need.
    pub(super) rows_total: usize,
    /// True if one vCPU fills the screen.
    pub(super) is_opened: bool,
    /// True if the past is shown.
    pub(super) is_back: bool,
    /// The pane that has the focus.
    pub(super) focus: usize,
    /// Whether the user wants the histogram, or else does not care.
    pub(super) histogram: Option<bool>,
    /// Whether the user wants the heat map, or else does not care.
    pub(super) heat_map: Option<bool>,
}

impl Wants {
    /// Returns what the frame that was drawn last calls for.
    pub(super) fn of(self, frame: &Frame) -> Self {
        Self {
            rows_total: frame.rows_total,
            is_opened: frame.is_opened,
            is_back: matches!(frame.moment, Moment::Back { .. }),
            focus: frame.focus,
            ..self
        }
    }
}

/// The places of the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) title: Rect,
    /// The table with its header; empty if there is none.
    pub(super) table: Rect,
    pub(super) charts: Vec<Rect>,
    pub(super) histogram: Rect,
    pub(super) statistics: Rect,
    pub(super) heat_map: Rect,
    pub(super) events: Rect,
    pub(super) ring: Rect,
    pub(super) keys: Rect,
}

impl Layout {
    /// Returns the layout of a screen; `None` if it is too small.
    pub(super) fn of(screen: Rect, wants: Wants) -> Option<Self> {
        if screen.width < SMALLEST.width || screen.height < SMALLEST.height {
            return None;
        }
        let (title, rest) = split_top(screen, 1);
        let (rest, keys) = split_bottom(rest, 1);
        let has_ring = wants.is_back && screen.height >= CHART_ROWS;
        let (rest, ring) = split_bottom(rest, if has_ring { RING_ROWS } else { 0 });
        let mut layout = Self { title, ring, keys, ..Self::default() };
        let below = if wants.is_opened { rest } else { layout.add_table(screen, rest, wants) };
        if screen.width >= WIDE && below.height >= CHART_MIN {
            let (left, side) = split_right(below, SIDE_COLUMNS);
            layout.add_charts(narrowed(left, 2));
            layout.add_side(side, wants);
        } else {
            layout.add_below(below, wants);
        }
        Some(layout)
    }

    /// Places the table, or in a small screen the pane that has the focus. Returns what is left
    /// below.
    fn add_table(&mut self, screen: Rect, rest: Rect, wants: Wants) -> Rect {
        if screen.height < CHART_ROWS {
            if wants.focus == 0 {
                self.table = rest;
                return Rect { height: 0, ..rest };
            }
            return rest;
        }
        let rows = u16::try_from(wants.rows_total.max(1)).unwrap_or(u16::MAX);
        let rows = rows.min((screen.height - 4) / 2);
        let (table, below) = split_top(rest, rows + 1);
        self.table = table;
        // A blank row sets wide charts off.
        if screen.width >= WIDE { split_top(below, 1).1 } else { below }
    }

    /// Places what stands below the table, or fills the screen, where there is no pane on the
    /// right.
    fn add_below(&mut self, area: Rect, wants: Wants) {
        if area.height == 0 {
            return;
        }
        let is_narrow = area.width < BESIDE_COLUMNS;
        let has_both = wants.is_opened && area.height >= 2 * CHART_MIN;
        let lists = if has_both {
            let rows = (area.height * 6 / 11).clamp(CHART_MIN, 18);
            let (charts, lists) = split_bottom(area, rows);
            self.add_charts_and_map(charts, wants);
            lists
        } else {
            area
        };
        match wants.focus {
            2 => self.events = lists,
            1 => self.add_lists(lists, wants, is_narrow),
            _ if has_both => self.add_lists(lists, wants, is_narrow),
            _ if wants.histogram == Some(true) && !is_narrow => {
                let (left, right) = split_right(lists, lists.width - HISTOGRAM_COLUMNS);
                self.add_charts_and_map(narrowed(left, 1), wants);
                self.histogram = right;
            }
            _ if wants.histogram == Some(true) => self.histogram = lists,
            _ => self.add_charts_and_map(lists, wants),
        }
    }

    /// Places the histogram and the statistics side by side, or one of them.
    fn add_lists(&mut self, area: Rect, wants: Wants, is_narrow: bool) {
        match wants.histogram {
            Some(false) => self.statistics = area,
            Some(true) if is_narrow && wants.focus == 0 => self.histogram = area,
            _ if is_narrow => self.statistics = area,
            _ => {
                let (left, right) = split_right(area, area.width - HISTOGRAM_COLUMNS);
                self.histogram = narrowed(left, 1);
                self.statistics = right;
            }
        }
    }

    /// Places charts, and the heat map below them if the user wants it.
    fn add_charts_and_map(&mut self, area: Rect, wants: Wants) {
        let has_map = wants.heat_map == Some(true);
        let rows = (area.height / 2).min(9);
        if has_map && rows >= CHART_MIN - 1 {
            let (charts, map) = split_bottom(area, rows);
            self.add_charts(charts);
            self.heat_map = map;
        } else if has_map {
            self.heat_map = area;
        } else {
            self.add_charts(area);
        }
    }

    /// Places as many charts as there is room for, one below the other.
    fn add_charts(&mut self, area: Rect) {
        let count = (area.height / CHART_MIN).clamp(1, CHARTS_MAX);
        let mut rest = area;
        for left in (1..=count).rev() {
            let (chart, below) = split_top(rest, rest.height.div_ceil(left));
            self.charts.push(chart);
            rest = below;
        }
    }

    /// Places the parts of the pane on the right: those that there is room for, with a blank row
    /// between two.
    fn add_side(&mut self, area: Rect, wants: Wants) {
        // The rows at least and at most, in the order of their importance.
        let has = |wish: Option<bool>| wish != Some(false);
        let parts = [
            (has(wants.histogram), 8, 17),
            (true, 6, 14),
            (has(wants.heat_map), 7, 9),
            (true, 3, 8),
        ];
        let mut rows = [0; 4];
        let mut left = area.height;
        for (rows, (is_wanted, least, _)) in rows.iter_mut().zip(parts) {
            if is_wanted && left >= least {
                *rows = least;
                left = left.saturating_sub(least + 1);
            }
        }
        for (rows, (_, _, most)) in rows.iter_mut().zip(parts).filter(|(rows, _)| **rows > 0) {
            let more = (most - *rows).min(left);
            *rows += more;
            left -= more;
        }
        rows[1] += if rows[1] > 0 { left } else { 0 };
        let mut rest = area;
        let mut take = |rows: u16| {
            let (part, below) = split_top(rest, rows);
            rest = if rows > 0 { split_top(below, 1).1 } else { below };
            part
        };
        (self.histogram, self.statistics) = (take(rows[0]), take(rows[1]));
        (self.heat_map, self.events) = (take(rows[2]), take(rows[3]));
    }

    /// Returns the request for a frame that fills these places.
    pub(super) fn request(&self, marker: Marker, name_columns: u16) -> Request {
        let across = marker.dots().0;
        let inner = |area: Rect, rows: u16| usize::from(area.height.saturating_sub(rows));
        let chart_columns = |chart: &Rect| usize::from(chart.width.saturating_sub(CHART_MARGIN));
        let (columns, spark_cells) = table::request(self.table.width, name_columns);
        // One row at least says that a pane can have the focus, and is shown then.
        let rows_of = |area: Rect, head: u16| inner(area, head).max(1);
        Request {
            table_rows: inner(self.table, 1),
            table_columns: columns,
            spark_cells: if self.table.is_empty() { 0 } else { spark_cells },
            charts: self.charts.len(),
            chart_columns: self.charts.first().map_or(0, chart_columns) * across,
            statistics: rows_of(self.statistics, lists::head_rows(self.statistics)),
            histogram_rows: inner(self.histogram, 2),
            heat_columns: usize::from(self.heat_map.width.saturating_sub(BAR_MARGIN + 1)),
            events: rows_of(self.events, 1),
        }
    }
}

/// Splits an area into its first rows and the rest.
fn split_top(area: Rect, rows: u16) -> (Rect, Rect) {
    let rows = rows.min(area.height);
    let below = Rect { y: area.y + rows, height: area.height - rows, ..area };
    (Rect { height: rows, ..area }, below)
}

/// Splits an area into the rest and its last rows.
fn split_bottom(area: Rect, rows: u16) -> (Rect, Rect) {
    split_top(area, area.height.saturating_sub(rows))
}

/// Splits an area into the rest and its last columns.
fn split_right(area: Rect, columns: u16) -> (Rect, Rect) {
    let columns = columns.min(area.width);
    let left = Rect { width: area.width - columns, ..area };
    (left, Rect { x: left.right(), width: columns, ..area })
}

/// Returns an area without its last columns.
fn narrowed(area: Rect, columns: u16) -> Rect {
    Rect { width: area.width.saturating_sub(columns), ..area }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(layout: &Layout) -> Vec<Rect> {
        let Layout { title, table, charts, histogram, statistics, heat_map, events, ring, keys } =
            layout.clone();
        let mut parts = vec![title, table, histogram, statistics, heat_map, events, ring, keys];
        parts.extend(charts);
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn all_wants() -> Vec<Wants> {
        let mut all = Vec::new();
        let choices = [None, Some(true), Some(false)];
        for rows_total in [0, 5, 11, 10_000] {
            for (is_opened, is_back) in [(false, false), (true, false), (false, true), (true, true)]
            {
                for focus in 0..3 {
                    for (histogram, heat_map) in
                        choices.into_iter().flat_map(|one| choices.map(|two| (one, two)))
                    {
                        all.push(Wants {
                            rows_total,
                            is_opened,
                            is_back,
                            focus,
                            histogram,
                            heat_map,
                        });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn parts_of_every_size_lie_beside_each_other() {
        for wants in all_wants() {
            for (width, height) in
                (60..=200).step_by(7).flat_map(|w| (12..=60).map(move |h| (w, h)))
            {
                let screen = Rect::new(0, 0, width, height);
                let layout = Layout::of(screen, wants).expect("it is large enough");
                let parts = parts(&layout);
                for (index, part) in parts.iter().enumerate() {
                    assert_eq!(screen.intersection(*part), *part, "{screen} {wants:?}");
                    for other in &parts[index + 1..] {
                        let both = part.intersection(*other);
                        assert!(both.is_empty(), "{screen} {wants:?}: {part} {other}");
                    }
                }
                assert!(parts.len() > 2, "{screen} {wants:?}: nothing but title and keys");
                layout.request(Marker::Braille, 10);
            }
        }
    }

    #[test]
    fn a_screen_of_80x24_has_a_table_and_charts() {
        let wants = Wants { rows_total: 10, ..Wants::default() };
        let layout = Layout::of(Rect::new(0, 0, 80, 24), wants).expect("it is large enough");
        assert_eq!(layout.table, Rect::new(0, 1, 80, 11));
        assert_eq!(layout.charts, [Rect::new(0, 12, 80, 11)]);
        let request = layout.request(Marker::Braille, 10);
        assert_eq!((request.table_rows, request.table_columns), (10, 5));
        assert_eq!((request.spark_cells, request.chart_columns), (20, 146));
        let back = Wants { rows_total: 5, is_back: true, ..wants };
        let layout = Layout::of(Rect::new(0, 0, 80, 24), back).expect("it is large enough");
        assert_eq!((layout.charts.len(), layout.ring.height), (2, 2));
        let opened = Wants { is_opened: true, ..wants };
        let layout = Layout::of(Rect::new(0, 0, 80, 24), opened).expect("it is large enough");
        assert_eq!(layout.charts, [Rect::new(0, 1, 80, 10)]);
        assert_eq!(layout.histogram, Rect::new(0, 11, 46, 12));
        assert_eq!(layout.statistics, Rect::new(47, 11, 33, 12));
    }

    #[test]
    fn a_wide_screen_has_a_pane_on_the_right() {
        let wants = Wants { rows_total: 11, ..Wants::default() };
        let layout = Layout::of(Rect::new(0, 0, 200, 60), wants).expect("it is large enough");
        assert_eq!(layout.charts.len(), 3);
        for part in [layout.histogram, layout.statistics, layout.heat_map, layout.events] {
            assert_eq!((part.x, part.width, part.is_empty()), (135, 65, false));
        }
        let request = layout.request(Marker::Braille, 15);
        assert_eq!((request.table_columns, request.spark_cells), (10, 70));
    }

    #[test]
    fn a_screen_that_is_too_small_has_no_layout() {
        for (width, height) in [(59, 24), (80, 11), (0, 0)] {
            assert_eq!(Layout::of(Rect::new(0, 0, width, height), Wants::default()), None);
        }
    }
}
