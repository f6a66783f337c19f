//! The lists of the subject's statistics, and of marks and triggers; the line of what is held.
//!
//! Invariant: what there is no room for is counted in a line of its own, not left out in silence.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use vmstrobe::StatType;
use vmstrobe::view::{Cell, Frame, Moment, StatRow};

use super::chart::sign;
use super::look::{Facts, Look};
use super::numbers::{Figure, Writing};
use super::paint::{Spans, put, put_char, put_right, titled_rule};
use super::title::time_text;
use crate::text::utc;
use crate::width::{fit, shorten, width};

/// The columns of a number with its unit.
const NUMBER: u16 = 8;
/// The columns of the unit, with the blank before it.
const UNIT: u16 = 3;
/// The columns from which on the highest rate is shown.
const HIGHEST_FROM: u16 = 50;

/// The places of the numbers of a list, each from its begin to its end.
struct Places {
    rate: (u16, u16),
    highest: (u16, u16),
    total: (u16, u16),
}

impl Places {
    fn of(area: Rect) -> Self {
        let before = |(begin, _): (u16, u16), gap: u16| {
            let end = begin.saturating_sub(gap);
            (end.saturating_sub(NUMBER), end)
        };
        let total = before((area.right(), 0), 1);
        if area.width < HIGHEST_FROM {
            return Self { rate: before(total, 0), highest: total, total };
        }
        let highest = before(total, 2);
        Self { rate: before(highest, 6), highest, total }
    }
}

/// Returns the rows above the statistics.
pub(super) fn head_rows(area: Rect) -> u16 {
    if area.width >= HIGHEST_FROM { 2 } else { 1 }
}

/// Draws the statistics of the subject.
pub(super) fn draw_statistics(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look) {
    if area.height <= head_rows(area) {
        return;
    }
    let theme = &look.theme;
    let mut title = Spans::default();
    let is_wide = area.width >= HIGHEST_FROM;
    match &frame.subject {
        Some((_, object)) if is_wide => title.push(format!("statistics of {object}"), theme.strong),
        _ => title.push("over 1 s", theme.strong),
    }
    let mut facts = Spans::default();
    if !is_wide {
        facts.push("total", theme.soft);
    }
    titled_rule(buffer, area, theme.soft, &title, &facts);
    let places = Places::of(area);
    let head = head_rows(area) - 1;
    if is_wide {
        let y = area.y + 1;
        for ((_, end), text) in
            [(places.rate, "over 1 s"), (places.highest, "highest 10 ms"), (places.total, "total")]
        {
            put_right(buffer, y, (area.x, end), text, theme.soft);
        }
    }
    let is_cut = frame.statistics_still > 0;
    let rows = usize::from(area.height - 1 - head);
    let room = if is_cut { rows.saturating_sub(1) } else { rows };
    // The selected one is always among those shown.
    let selected = frame.statistics.iter().position(|row| row.is_selected).unwrap_or(0);
    let first = (selected + 1).saturating_sub(room.max(1));
    let mut y = area.y + 1 + head;
    for row in frame.statistics.iter().skip(first).take(room) {
        draw_statistic(buffer, area, y, row, frame, look);
        y += 1;
    }
    if is_cut && y < area.bottom() {
        let still = frame.statistics_still;
        let verb = if still == 1 { "stands" } else { "stand" };
        let text = format!("{still} {verb} still: z shows them");
        put(buffer, area.x + 1, y, area.right(), &text, theme.soft);
    }
}

fn draw_statistic(
    buffer: &mut Buffer,
    area: Rect,
    y: u16,
    row: &StatRow,
    frame: &Frame,
    look: &Look,
) {
    let theme = &look.theme;
    let is_wide = area.width >= HIGHEST_FROM;
    let is_counter = row.desc.stat_type == StatType::Cumulative;
    let now = Writing { is_rate: false, is_exact: frame.is_exact };
    let Places { rate, highest, total } = Places::of(area);
    let name_end = rate.0.max(area.x + 2);
    let name = fit(&row.desc.name, usize::from(name_end - area.x - 2));
    let style = if row.is_charted { theme.strong } else { theme.text };
    put(buffer, area.x + 1, y, name_end, &name, style);
    draw_figure(buffer, y, rate, &figure(now, &row.now, is_counter), look);
    if let (true, Some(value)) = (is_wide, row.highest) {
        let cell = match row.now {
            Cell::Nanoseconds(_) => Cell::Nanoseconds(value),
            _ => Cell::Number(value),
        };
        draw_figure(buffer, y, highest, &figure(now, &cell, true), look);
    }
    let theme_total = Look { theme: super::theme::Theme { text: theme.soft, ..*theme }, ..*look };
    draw_figure(buffer, y, total, &figure(now, &row.total, false), &theme_total);
    if row.is_selected {
        let line = Rect { y, height: 1, ..area };
        let has_focus = frame.focus == 1 || frame.is_opened;
        let selected = if has_focus { theme.selected } else { Style::new() };
        buffer.set_style(line, selected);
        put_char(buffer, area.x, y, '▸', theme.data.patch(selected));
    }
}

/// Returns a number of the list. A rate is written to three digits, also one below 1.
fn figure(writing: Writing, cell: &Cell, is_rate: bool) -> Figure {
    match cell {
        Cell::Number(_) => Writing { is_rate, ..writing }.figure(cell),
        _ => writing.figure(cell),
    }
}

fn draw_figure(
    buffer: &mut Buffer,
    y: u16,
    (begin, end): (u16, u16),
    figure: &Figure,
    look: &Look,
) {
    let edge = end.saturating_sub(UNIT);
    put_right(buffer, y, (begin, edge), &figure.digits, look.theme.text);
    put(buffer, edge + 1, y, end, &figure.suffix, look.theme.text);
}

/// Draws the list of marks and triggers.
pub(super) fn draw_events(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look) {
    if area.height < 2 {
        return;
    }
    let theme = &look.theme;
    let (mut title, mut facts) = (Spans::default(), Spans::default());
    title.push("marks and triggers", theme.strong);
    facts.push("n N go there", theme.soft);
    titled_rule(buffer, area, theme.soft, &title, &facts);
    if frame.events.is_empty() {
        put(buffer, area.x + 1, area.y + 1, area.right(), "none; m marks a moment", theme.soft);
    }
    for (y, event) in (area.y + 1..area.bottom()).zip(&frame.events) {
        let (letter, style) = sign(&event.kind, theme);
        let mut line = Spans::default();
        line.push(format!(" {letter} {}", &utc(event.wall_ns)[11..23]), style);
        line.push(format!("  {}", event.text), theme.text);
        let ago_ns = frame.ring.end_ns.saturating_sub(event.at_ns);
        let ago = format!("{} ago", time_text(ago_ns));
        let columns = u16::try_from(width(&ago)).unwrap_or(u16::MAX);
        let end = area.right().saturating_sub(1);
        line.draw(buffer, area.x, y, end.saturating_sub(columns + 1));
        put_right(buffer, y, (area.x, end), &ago, theme.soft);
    }
}

/// Draws the line of what is held, with its events and the moment that is shown, and the texts
/// below it.
pub(super) fn draw_ring(
    buffer: &mut Buffer,
    area: Rect,
    frame: &Frame,
    look: &Look,
    facts: &Facts,
) {
    if area.height < 2 || area.width < 30 {
        return;
    }
    let (theme, ring, y) = (&look.theme, &frame.ring, area.y);
    let end_text = if facts.recording.is_some() { "end" } else { "live" };
    put(buffer, area.x + 1, y, area.right(), "ring", theme.soft);
    let (begin, end) = (area.x + 7, area.right() - 8);
    (begin..end).for_each(|x| put_char(buffer, x, y, '─', theme.soft));
    put_char(buffer, begin, y, '├', theme.soft);
    put_char(buffer, end, y, '┤', theme.live);
    put(buffer, end + 2, y, area.right(), end_text, theme.live);
    let span_ns = ring.end_ns.saturating_sub(ring.begin_ns);
    let x_at = |at_ns: u64| {
        let share = at_ns.saturating_sub(ring.begin_ns) as f64 / span_ns.max(1) as f64;
        begin + (share.clamp(0.0, 1.0) * f64::from(end - begin)) as u16
    };
    let oldest = format!("−{}", time_text(span_ns));
    let mut behind = put(buffer, begin, y + 1, end, &oldest, theme.soft);
    let mut events: Vec<_> = ring.events.iter().collect();
    events.sort_by_key(|event| event.at_ns);
    for event in events {
        let (letter, style) = sign(&event.kind, theme);
        let x = x_at(event.at_ns);
        put_char(buffer, x, y, letter, style);
        let text = shorten(&event.text, 24);
        let columns = u16::try_from(width(&text)).unwrap_or(u16::MAX);
        let from = x.saturating_sub(columns / 2).min(area.right().saturating_sub(columns + 1));
        if from > behind + 1 && columns > 0 {
            behind = put(buffer, from, y + 1, area.right(), &text, style);
        }
    }
    if matches!(frame.moment, Moment::Back { .. }) {
        put_char(buffer, x_at(ring.at_ns), y, '◆', theme.trigger);
    }
}
