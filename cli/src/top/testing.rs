//! Frames for the tests of what is drawn: two virtual machines, of which one vCPU exits in a
//! saw-tooth, as looked at now or in the past.
//!
//! Invariant: the same frame each time. Numbers follow from formulas, not from a clock.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use vmstrobe::export::EventKind;
use vmstrobe::view::{
    Amounts, Cell, Chart, ChartColumn, Column, ColumnKind, EventMark, Frame, Header, HeatMap,
    Histogram, Moment, Request, Ring, Row, RowKind, ShownStat, Sort, StatRow, TableState,
};
use vmstrobe::{Desc, Scale, StatType, Unit};

use super::layout::{Layout, Wants};
use super::look::{Facts, Look};
use super::screen::{Scene, draw};
use super::table::NAME_MIN;
use super::theme::{Colours, Theme};
use crate::args::Marker;

/// The number of ns in a second.
const SECOND: u64 = 1_000_000_000;
/// The time of the newest sample, ...
const NOW_NS: u64 = 100 * SECOND;
/// ... and the same in ns since 1970: 2026-11-29, 23:32:13.
const NOW_WALL_NS: u64 = 1_795_995_133 * SECOND;

/// Returns the look with these colours.
pub(super) fn look(colours: Colours) -> Look {
    Look { theme: Theme::of(colours), marker: Marker::Braille, is_ascii: false }
}

/// Returns the facts of a session that samples.
pub(super) fn facts() -> Facts {
    Facts { redraw_hz: 10.0, start_ns: 40 * SECOND, recording: None, is_paused: false }
}

/// Draws the frame that `change` makes of the usual one, on a screen of that size.
pub(super) fn drawn(
    (width, height): (u16, u16),
    look: &Look,
    wants: Wants,
    change: impl Fn(&mut Frame),
) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    let layout = Layout::of(buffer.area, wants).expect("it is large enough");
    let mut frame = frame(&layout.request(look.marker, NAME_MIN), wants.is_back);
    frame.is_opened = wants.is_opened;
    frame.focus = wants.focus;
    change(&mut frame);
    let (facts, name_columns) = (facts(), NAME_MIN);
    draw(
        &mut buffer,
        &Scene {
            frame: &frame,
            layout: &layout,
            look,
            facts: &facts,
            name_columns,
            key_line: None,
            overlay: None,
        },
    );
    buffer
}

/// Returns the usual frame for a request.
pub(super) fn frame(request: &Request, is_back: bool) -> Frame {
    let moment = if is_back {
        let (wall_ns, ago_ns) = (NOW_WALL_NS - 10_900_000_000, 10_900_000_000);
        Moment::Back { wall_ns, ago_ns, is_playing: false, is_oldest: false }
    } else {
        Moment::Live { wall_ns: NOW_WALL_NS }
    };
    let rows = rows(request);
    Frame {
        moment,
        header: Header {
            vms: 2,
            vcpus: 8,
            vms_ended: 1,
            rate_hz: 1000.0,
            lost_samples: 99,
            window_ns_median: Some(1870),
            has_ended: false,
        },
        columns: columns().into_iter().take(request.table_columns).collect(),
        spark: ShownStat { title: "exits/s".to_owned(), span_ns: 10 * SECOND },
        rows_total: rows.len(),
        rows: rows.into_iter().take(request.table_rows).collect(),
        selected: Some(3),
        rows_above: 0,
        table_state: TableState::Filled,
        subject: Some(("demo".to_owned(), "vCPU 2".to_owned())),
        is_opened: false,
        focus: 0,
        charts: ["exits/s", "steal, ms/s", "run, ms/s"]
            .into_iter()
            .take(request.charts)
            .map(|title| chart(title, request.chart_columns, is_back))
            .collect(),
        histogram: (request.histogram_rows > 0).then(histogram),
        heat_map: (request.heat_columns > 0).then(|| heat_map(request.heat_columns)),
        statistics: statistics().into_iter().take(request.statistics).collect(),
        statistics_still: 5,
        events: events().into_iter().take(request.events).collect(),
        ring: Ring {
            begin_ns: NOW_NS - 48_200_000_000,
            end_ns: NOW_NS,
            at_ns: NOW_NS - 10_900_000_000,
            limit_ns: 60 * SECOND,
            bytes: 30 << 20,
            events: events(),
        },
        amounts: Amounts::Rate,
        is_exact: false,
        filter: None,
    }
}

fn columns() -> Vec<Column> {
    let column = |kind, title: &str| Column { kind, title: title.to_owned(), sort: None };
    let amount = |name: &str| ColumnKind::Amount(name.to_owned());
    let quantile = |percent| ColumnKind::Quantile("halt_wait_hist".to_owned(), percent);
    let mut columns = vec![
        column(amount("exits"), "exits/s"),
        column(amount("halt_exits"), "halts/s"),
        column(amount("run_delay"), "steal ms/s"),
        column(ColumnKind::Share("halt_wait_ns".to_owned()), "halted"),
        column(quantile(99), "p99 wait"),
        column(amount("run_time"), "run ms/s"),
        column(quantile(50), "p50 wait"),
        column(amount("irq_injections"), "IRQs/s"),
        column(amount("insn_emulation"), "emulated/s"),
        column(ColumnKind::Total("exits".to_owned()), "exits"),
    ];
    columns[0].sort = Some(Sort::Descending);
    columns
}

fn cells(exits: f64) -> Vec<Cell> {
    vec![
        Cell::Number(exits),
        Cell::Number(exits / 6.6),
        Cell::Nanoseconds(exits * 3.4e3),
        Cell::Percent(96.9),
        Cell::AtMostNanoseconds(Some(1 << 26)),
        Cell::Nanoseconds(exits * 11.8e3),
        Cell::AtMostNanoseconds(Some(1 << 20)),
        Cell::Number(exits / 6.6),
        Cell::Number(exits * 3.2),
        Cell::Number((exits * 83.0).round()),
    ]
}

fn rows(request: &Request) -> Vec<Row> {
    let mut rows = Vec::new();
    for (vm, scale) in [("demo", 1.0), ("demo2", 1.06)] {
        let kind = RowKind::Vm { is_folded: false, vcpus: 4, ended_wall_ns: None };
        rows.push(row(kind, vm, 12_700.0 * scale, request));
        for (vcpu, exits) in [("1", 5750.0), ("0", 4620.0), ("2", 2290.0), ("3", 75.0)] {
            rows.push(row(RowKind::Object, vcpu, exits * scale, request));
        }
    }
    let ended_wall_ns = Some(NOW_WALL_NS - 25 * SECOND);
    let kind = RowKind::Vm { is_folded: true, vcpus: 4, ended_wall_ns };
    rows.push(row(kind, "demo3", 11_700.0, request));
    rows
}

fn row(kind: RowKind, name: &str, exits: f64, request: &Request) -> Row {
    let wave = |cell: usize| exits * (0.2 + 0.4 * f64::from(u32::from(cell % 10 < 4)));
    Row {
        kind,
        name: name.to_owned(),
        cells: cells(exits).into_iter().take(request.table_columns).collect(),
        spark: (0..request.spark_cells).map(|cell| Some(wave(cell))).collect(),
        spark_max: 6000.0_f64.max(exits),
        state: None,
    }
}

/// Returns a chart of two teeth of a saw, with a gap, a trigger and a mark.
fn chart(title: &str, columns: usize, is_back: bool) -> Chart {
    let end_ns = if is_back { NOW_NS - 5_900_000_000 } else { NOW_NS };
    let at = |column: usize| {
        let share = column as f64 / columns.max(1) as f64;
        if (0.3..0.35).contains(&share) {
            return None;
        }
        let mean = 6500.0 * (share * 2.0).fract();
        Some(ChartColumn { min: mean * 0.9, mean, max: mean * 1.1 })
    };
    Chart {
        shown: ShownStat { title: title.to_owned(), span_ns: 10 * SECOND },
        begin_ns: end_ns - 10 * SECOND,
        end_ns,
        stretch_ns: Some(10_000_000),
        columns: (0..columns).map(at).collect(),
        min: 0.0,
        mean: 3220.0,
        max: 7150.0,
        scale_max: 7579.0,
        is_time: false,
        events: events(),
        cursor_ns: is_back.then_some(NOW_NS - 10_900_000_000),
    }
}

/// Returns two marks and a trigger, the newest first.
fn events() -> Vec<EventMark> {
    let event = |ago_ns, kind, text: &str| EventMark {
        at_ns: NOW_NS - ago_ns,
        wall_ns: NOW_WALL_NS - ago_ns,
        kind,
        text: text.to_owned(),
    };
    vec![
        event(1_700_000_000, EventKind::Mark, "spin 2 ms"),
        event(9_200_000_000, EventKind::Trigger, "run_delay > 5 ms"),
        event(12_400_000_000, EventKind::Mark, "benchmark begins"),
    ]
}

/// Returns a histogram of waits.
pub(super) fn histogram() -> Histogram {
    let counts = [0, 0, 233, 2999, 1022, 269, 67, 9, 0, 0];
    let first = 18;
    Histogram {
        desc: desc("halt_wait_hist", StatType::Log2Histogram, Unit::Seconds),
        span_ns: 10 * SECOND,
        buckets: (first..).zip(counts).map(|(power, count)| (Some(1 << power), count)).collect(),
        p50: Some(Some(1 << 21)),
        p99: Some(Some(1 << 24)),
        count: 4599,
    }
}

fn heat_map(columns: usize) -> HeatMap {
    let counts = |column: usize| {
        let busy = u64::from(column % 20 < 9);
        vec![0, 120 * busy, 40 * busy, busy, 0, 0, 6 * (1 - busy)]
    };
    HeatMap {
        bounds: (19..26).map(|power| Some(1 << power)).collect(),
        columns: (0..columns).map(counts).collect(),
        count_max: 120,
        is_time: true,
    }
}

fn desc(name: &str, stat_type: StatType, unit: Unit) -> Desc {
    let scale = if unit == Unit::Seconds { Scale::NANO } else { Scale::ONE };
    Desc { stat_type, unit, scale, ..Desc::counter(name, 0) }
}

fn statistics() -> Vec<StatRow> {
    let row = |name: &str, now, highest, total| StatRow {
        desc: desc(name, StatType::Cumulative, Unit::None),
        now,
        highest: Some(highest),
        total,
        is_charted: name == "exits",
        is_selected: name == "halt_exits",
    };
    let ns = Cell::Nanoseconds;
    vec![
        row("exits", Cell::Number(2290.0), 6800.0, Cell::Number(278_123.0)),
        row("insn_emulation", Cell::Number(7170.0), 26_000.0, Cell::Number(873_000.0)),
        row("halt_exits", Cell::Number(325.0), 1000.0, Cell::Number(39_700.0)),
        row("halt_wait_ns", ns(974e6), 2.6e9, ns(79.1e9)),
        row("run_time", ns(28e6), 114e6, ns(3.21e9)),
        row("run_delay", ns(7.68e6), 638e6, ns(419e6)),
    ]
}
