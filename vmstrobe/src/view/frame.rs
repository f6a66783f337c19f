//! The numbers of one screen, as plain data.
//!
//! Invariant: a number that is not known is `None`, never 0. Times are ns of `CLOCK_MONOTONIC`
//! unless their name says `wall`, which is ns since 1970. Names are as their authors wrote them: a
//! front door makes them printable.

use vmstrobe_core::{Desc, RowState};
use vmstrobe_export::EventKind;

use super::action::Amounts;

/// The room that a front door has for each part of a frame. 0 leaves the part out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The rows of the table, without its header.
    pub table_rows: usize,
    /// The columns of the table behind the name, without the sparkline.
    pub table_columns: usize,
    /// The cells of a sparkline.
    pub spark_cells: usize,
    /// The number of charts.
    pub charts: usize,
    /// The columns of a chart, each of which can show its lowest and highest value: two for each
    /// character in braille.
    pub chart_columns: usize,
    /// The rows of the list of statistics.
    pub statistics: usize,
    /// The rows of the histogram.
    pub histogram_rows: usize,
    /// The columns of the heat map.
    pub heat_columns: usize,
    /// The rows of the list of marks and triggers.
    pub events: usize,
}

/// One screen.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The moment that is shown.
    pub moment: Moment,
    /// The facts of the first line.
    pub header: Header,
    /// The columns of the table behind the name.
    pub columns: Vec<Column>,
    /// The column of the sparklines, and the time that a sparkline covers.
    pub spark: ShownStat,
    /// The rows of the table that there is room for.
    pub rows: Vec<Row>,
    /// The selected row, as an index into `rows`.
    pub selected: Option<usize>,
    /// The number of all rows, and the number of those above the first of `rows`.
    pub rows_total: usize,
    /// See `rows_total`.
    pub rows_above: usize,
    /// Why the table has no rows, if it has none.
    pub table_state: TableState,
    /// The opened vCPU, as `demo` and `vCPU 2`; of the selected row if none is opened.
    pub subject: Option<(String, String)>,
    /// True if one vCPU was opened and fills the screen.
    pub is_opened: bool,
    /// The pane that has the focus: 0 the table or the chart, 1 the statistics, 2 the events.
    pub focus: usize,
    /// The charts of the subject, as many as there is room for.
    pub charts: Vec<Chart>,
    /// The histogram of the subject, if it is shown and there is one.
    pub histogram: Option<Histogram>,
    /// The heat map of the same histogram.
    pub heat_map: Option<HeatMap>,
    /// The statistics of the subject.
    pub statistics: Vec<StatRow>,
    /// The number of statistics that stand still and are not in `statistics`.
    pub statistics_still: usize,
    /// The newest marks and triggers.
    pub events: Vec<EventMark>,
    /// The samples that are held.
    pub ring: Ring,
    /// The numbers that the table shows.
    pub amounts: Amounts,
    /// True if numbers are to be written exactly, without prefixes.
    pub is_exact: bool,
    /// The filter, as it was typed.
    pub filter: Option<String>,
}

/// The moment that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The newest sample.
    Live {
        /// The time of that sample.
        wall_ns: u64,
    },
    /// A sample of the past.
    Back {
        /// The time of that sample.
        wall_ns: u64,
        /// The time from that sample to the newest.
        ago_ns: u64,
        /// True while the view moves along with time: a recording that is played.
        is_playing: bool,
        /// True if the wanted moment is no longer held, and this is the oldest that is.
        is_oldest: bool,
    },
}

/// The facts of the first line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// The VMs that are sampled.
    pub vms: usize,
    /// Their vCPUs.
    pub vcpus: usize,
    /// The VMs that have ended and are still shown.
    pub vms_ended: usize,
    /// Ticks in a second.
    pub rate_hz: f64,
    /// Samples that came too fast, and ticks that were missed.
    pub lost_samples: u64,
    /// The median time within which all objects were read, of the last second.
    pub window_ns_median: Option<u64>,
    /// True once no more samples come.
    pub has_ended: bool,
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its content.
    pub kind: ColumnKind,
    /// The title: `exits/s`, `steal ms/s`, `p99 wait`, at most 11 characters.
    pub title: String,
    /// The direction in which the table is sorted by it, if it is.
    pub sort: Option<Sort>,
}

/// The direction of sorting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The highest first.
    Descending,
    /// The lowest first.
    Ascending,
}

/// The content of a column of the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// The rate, change or value of a statistic, as [`Amounts`] says.
    Amount(String),
    /// The share of time that a statistic in seconds has grown by, in percent.
    Share(String),
    /// The quantile of a histogram over the last 10 s, in percent: 99 for p99.
    Quantile(String, u8),
    /// The value of a statistic.
    Total(String),
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The object that it stands for.
    pub kind: RowKind,
    /// The name of the VM, or the number of the vCPU.
    pub name: String,
    /// The cell of each column.
    pub cells: Vec<Cell>,
    /// The highest 10 ms rate in each cell of the sparkline; `None` where nothing was read.
    pub spark: Vec<Option<f64>>,
    /// The highest value of the sparklines that share this one's scale: those of a VM's vCPUs.
    pub spark_max: f64,
    /// Why the row has no values now, if it has none.
    pub state: Option<RowState>,
}

/// The object of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// A virtual machine, or another owner of objects; its cells are sums over its vCPUs.
    Vm {
        /// True if its vCPUs are not shown.
        is_folded: bool,
        /// The number of its vCPUs.
        vcpus: usize,
        /// The time when it ended, if it has.
        ended_wall_ns: Option<u64>,
    },
    /// A vCPU, or another object.
    Object,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// The object has no such statistic.
    Absent,
    /// It could not be read.
    Unread,
    /// A plain number, or one per second.
    Number(f64),
    /// A time in ns, or ns per second.
    Nanoseconds(f64),
    /// A share of time, in percent.
    Percent(f64),
    /// A quantile, which is at most so many ns; `None` if it lies in the last bucket, which has no
    /// end.
    AtMostNanoseconds(Option<u64>),
    /// A quantile of a histogram without a unit of time, likewise.
    AtMost(Option<u64>),
}

/// Why a table has no rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// It has rows, or they scroll.
    #[default]
    Filled,
    /// The filter matches nothing.
    NothingMatches,
    /// All that is left stands still, and is hidden.
    AllStill,
    /// There is no object.
    Empty,
}

/// A statistic that is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownStat {
    /// Its title: `exits/s`, `steal, ms/s`.
    pub title: String,
    /// The time that is drawn, in ns.
    pub span_ns: u64,
}

/// A chart of one statistic of the subject over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Its statistic and time.
    pub shown: ShownStat,
    /// The time of its left and right edge.
    pub begin_ns: u64,
    /// See `begin_ns`.
    pub end_ns: u64,
    /// The width of the stretches over which rates are taken; `None` if a column is no longer than
    /// a sample, and each sample's rate is drawn over its whole interval.
    pub stretch_ns: Option<u64>,
    /// The columns, from left to right; `None` where nothing was read.
    pub columns: Vec<Option<ChartColumn>>,
    /// The lowest rate of all columns, the mean over time, and the highest.
    pub min: f64,
    /// See `min`.
    pub mean: f64,
    /// See `min`.
    pub max: f64,
    /// The top of the scale. It grows at once, and shrinks slowly.
    pub scale_max: f64,
    /// True if values are ns (per second).
    pub is_time: bool,
    /// The marks and triggers between its edges.
    pub events: Vec<EventMark>,
    /// The moment of the view, if it is in the past.
    pub cursor_ns: Option<u64>,
}

/// A column of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChartColumn {
    /// The lowest rate in it.
    pub min: f64,
    /// The mean over its time.
    pub mean: f64,
    /// The highest rate in it.
    pub max: f64,
}

/// A mark or trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMark {
    /// Its time.
    pub at_ns: u64,
    /// Its time, in ns since 1970.
    pub wall_ns: u64,
    /// Its kind.
    pub kind: EventKind,
    /// Its text.
    pub text: String,
}

/// A histogram of the subject: its growth over the last 10 s.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The statistic.
    pub desc: Desc,
    /// The time over which it grew.
    pub span_ns: u64,
    /// The upper bound of each bucket, which is not in it, and its count. The last has no bound.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// The upper bound of the median's bucket; outer `None` without a count.
    pub p50: Option<Option<u64>>,
    /// The upper bound of the 99th percentile's bucket, likewise.
    pub p99: Option<Option<u64>>,
    /// The sum of the counts.
    pub count: u64,
}

/// The growth of a histogram in each part of the chart's time.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The upper bound of each bucket, lowest first.
    pub bounds: Vec<Option<u64>>,
    /// For each column from left to right, the count of each bucket; empty where nothing was read.
    pub columns: Vec<Vec<u64>>,
    /// The highest count.
    pub count_max: u64,
    /// True if bounds are ns.
    pub is_time: bool,
}

/// A statistic of the subject.
#[derive(Clone, Debug, PartialEq)]
pub struct StatRow {
    /// The statistic.
    pub desc: Desc,
    /// The rate over the last second, or the value of what is no counter.
    pub now: Cell,
    /// The highest rate over 10 ms of the chart's time; `None` if it was not asked for.
    pub highest: Option<f64>,
    /// The value.
    pub total: Cell,
    /// True if the chart shows it.
    pub is_charted: bool,
    /// True if the selection is on it.
    pub is_selected: bool,
}

/// The samples that are held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ring {
    /// The time of the oldest and the newest sample.
    pub begin_ns: u64,
    /// See `begin_ns`.
    pub end_ns: u64,
    /// The moment that is shown.
    pub at_ns: u64,
    /// The time that is held at most.
    pub limit_ns: u64,
    /// The memory that they take.
    pub bytes: usize,
    /// All marks and triggers that are held.
    pub events: Vec<EventMark>,
}
