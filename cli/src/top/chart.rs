//! A chart: the band from the lowest to the highest rate, and the line of the mean, over time.
//!
//! Invariant: marks, triggers and the cursor lie under the data: no line or text of theirs covers a
//! dot. A time in which nothing was read is hatched, not joined.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use vmstrobe::export::EventKind;
use vmstrobe::view::{Chart, ChartColumn, EventMark};

use super::axis::{Clock, time_labels, value_label, value_ticks};
use super::layout::CHART_MARGIN;
use super::look::Look;
use super::numbers::of_chart;
use super::paint::{Spans, is_blank, put, put_char, put_right, titled_rule};
use super::raster::Raster;
use super::theme::Theme;
use super::title::time_text;
use crate::width::{shorten, width};

/// The columns of a mark's text at most.
const EVENT_TEXT: usize = 24;

/// Draws a chart: its title, its plot, and the labels of its axis.
pub(super) fn draw(
    buffer: &mut Buffer,
    area: Rect,
    chart: &Chart,
    subject: Option<&(String, String)>,
    look: &Look,
    start_ns: u64,
) {
    if area.height < 3 || area.width <= CHART_MARGIN {
        return;
    }
    draw_title(buffer, area, chart, subject, look);
    let plot = Rect {
        x: area.x + CHART_MARGIN,
        y: area.y + 1,
        width: area.width - CHART_MARGIN,
        height: area.height - 2,
    };
    let plot = Plot { chart, look, area: plot };
    let raster = plot.raster();
    plot.draw_data(buffer, &raster);
    plot.draw_gaps(buffer);
    plot.draw_values(buffer, &raster);
    plot.draw_events(buffer);
    plot.draw_cursor(buffer);
    plot.draw_times(buffer, start_ns);
}

fn draw_title(
    buffer: &mut Buffer,
    area: Rect,
    chart: &Chart,
    subject: Option<&(String, String)>,
    look: &Look,
) {
    let theme = &look.theme;
    let mut title = Spans::default();
    if let Some((vm, object)) = subject {
        let name = if vm.is_empty() { object.clone() } else { format!("{vm} › {object}") };
        title.push(shorten(&name, usize::from(area.width / 3)), theme.strong);
        title.push("  ", theme.soft);
    }
    title.push(&chart.shown.title, theme.strong);
    if chart.stretch_ns.is_none() && area.width >= 100 {
        title.push("  each sample", theme.soft);
    }
    let value = |value| of_chart(value, chart.is_time);
    let mut facts = Spans::default();
    for (name, number) in [("min", chart.min), ("mean", chart.mean), ("max", chart.max)] {
        let gap = if facts.width() == 0 { "" } else { "  " };
        facts.push(format!("{gap}{name} {}", value(number)), theme.soft);
    }
    titled_rule(buffer, area, theme.soft, &title, &facts);
}

/// The plot of a chart, without its labels.
struct Plot<'a> {
    chart: &'a Chart,
    look: &'a Look,
    area: Rect,
}

impl Plot<'_> {
    fn theme(&self) -> &Theme {
        &self.look.theme
    }

    /// Returns the dots of the data.
    fn raster(&self) -> Raster {
        let (across, down) = (self.area.width.into(), self.area.height.into());
        let mut raster = Raster::new(self.look.marker, across, down);
        let mut before: Option<usize> = None;
        for (column, value) in self.chart.columns.iter().enumerate() {
            let Some(ChartColumn { min, mean, max }) = *value else {
                before = None;
                continue;
            };
            let [low, middle, high] = [min, mean, max].map(|value| self.row(value, &raster));
            raster.set_band(column, low, high);
            // The line is joined within its column, so that it is no wider than a dot.
            let from = match before {
                Some(before) if before > middle => before - 1,
                Some(before) if before < middle => before + 1,
                _ => middle,
            };
            raster.set_mean(column, from, middle);
            before = Some(middle);
        }
        raster
    }

    /// Returns the row of dots of a value, from the bottom.
    fn row(&self, value: f64, raster: &Raster) -> usize {
        let top = raster.rows().saturating_sub(1);
        let share = value / self.chart.scale_max;
        // A scale of 0, and a value that is no number, are at the bottom.
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        (share * top as f64).round() as usize
    }

    fn draw_data(&self, buffer: &mut Buffer, raster: &Raster) {
        for row in 0..self.area.height {
            for column in 0..self.area.width {
                if let Some(dots) = raster.cell(column.into(), row.into()) {
                    let theme = self.theme();
                    let style = if dots.has_mean { theme.data } else { theme.band };
                    let (x, y) = (self.area.x + column, self.area.y + row);
                    put_char(buffer, x, y, dots.character, style);
                }
            }
        }
    }

    /// Hatches the times behind the first value in which nothing was read.
    fn draw_gaps(&self, buffer: &mut Buffer) {
        let across = self.look.marker.dots().0;
        let cells: Vec<bool> = self
            .chart
            .columns
            .chunks(across)
            .map(|dots| dots.iter().any(Option::is_some))
            .collect();
        let Some(first) = cells.iter().position(|has| *has) else { return };
        let mut begin = None;
        for (column, has) in cells.iter().enumerate().skip(first).chain([(cells.len(), &true)]) {
            match (begin, *has) {
                (None, false) => begin = Some(column),
                (Some(from), true) => {
                    self.draw_gap(buffer, from, column);
                    begin = None;
                }
                _ => {}
            }
        }
    }

    /// Hatches a gap between two cells, with its length above it.
    fn draw_gap(&self, buffer: &mut Buffer, from: usize, to: usize) {
        let (begin, end) = (self.x_of(from), self.x_of(to));
        let soft = self.theme().soft;
        for y in self.area.y..self.area.bottom() {
            (begin..end).for_each(|x| put_char(buffer, x, y, '╱', soft));
        }
        let share = (to - from) as f64 / f64::from(self.area.width.max(1));
        let text = format!("gap {}", time_text((share * self.span_ns() as f64) as u64));
        if width(&text) < usize::from(end - begin) {
            put(buffer, begin, self.area.y, end, &text, soft);
        }
    }

    fn x_of(&self, cell: usize) -> u16 {
        self.area.x + u16::try_from(cell).unwrap_or(u16::MAX).min(self.area.width)
    }

    fn span_ns(&self) -> u64 {
        self.chart.end_ns.saturating_sub(self.chart.begin_ns)
    }

    /// Returns the column of a time, if it is on the chart.
    fn x_at(&self, at_ns: u64) -> Option<u16> {
        let Chart { begin_ns, end_ns, .. } = *self.chart;
        let span_ns = self.span_ns();
        if span_ns == 0 || at_ns < begin_ns || at_ns > end_ns {
            return None;
        }
        let share = (at_ns - begin_ns) as f64 / span_ns as f64;
        let column = (share * f64::from(self.area.width)) as u16;
        Some(self.area.x + column.min(self.area.width - 1))
    }

    fn draw_values(&self, buffer: &mut Buffer, raster: &Raster) {
        let down = self.look.marker.dots().1;
        for tick in value_ticks(self.chart.scale_max, self.area.height.into()) {
            let from_bottom = u16::try_from(self.row(tick, raster) / down).unwrap_or(u16::MAX);
            let y = (self.area.bottom() - 1).saturating_sub(from_bottom).max(self.area.y);
            let label = value_label(tick, self.chart.is_time);
            let begin = self.area.x - CHART_MARGIN;
            put_right(buffer, y, (begin, self.area.x - 1), &label, self.theme().soft);
        }
    }

    fn draw_times(&self, buffer: &mut Buffer, start_ns: u64) {
        let Chart { begin_ns, end_ns, cursor_ns, .. } = *self.chart;
        let clock = Clock::of(cursor_ns.is_some(), start_ns);
        let (y, end) = (self.area.bottom(), self.area.right());
        for label in time_labels(clock, (begin_ns, end_ns), self.area.width.into()) {
            put(buffer, self.x_of(label.column), y, end, &label.text, self.theme().soft);
        }
    }

    /// Draws the marks and triggers from right to left: a text that has no room on the right of its
    /// line goes to the left, else there is only the letter, else only the line.
    fn draw_events(&self, buffer: &mut Buffer) {
        let mut events: Vec<(u16, &EventMark)> = Vec::new();
        events.extend(
            self.chart.events.iter().filter_map(|event| Some((self.x_at(event.at_ns)?, event))),
        );
        events.sort_by_key(|(_, event)| std::cmp::Reverse(event.at_ns));
        let lane = self.area.y;
        // All letters come before any text, which must not cover one.
        let has_room: Vec<bool> = events.iter().map(|(x, _)| is_blank(buffer, *x, lane)).collect();
        for ((x, event), has_room) in events.iter().zip(&has_room) {
            let (letter, style) = sign(&event.kind, self.theme());
            if *has_room {
                put_char(buffer, *x, lane, letter, style);
            }
            self.draw_line(buffer, *x, lane + u16::from(*has_room), '┊', style);
        }
        for ((x, event), has_room) in events.iter().zip(&has_room) {
            if *has_room {
                let style = sign(&event.kind, self.theme()).1;
                self.draw_event_text(buffer, *x, &shorten(&event.text, EVENT_TEXT), style);
            }
        }
    }

    fn draw_event_text(&self, buffer: &mut Buffer, x: u16, text: &str, style: Style) {
        let columns = u16::try_from(width(text)).unwrap_or(u16::MAX);
        if columns == 0 {
            return;
        }
        let (y, area) = (self.area.y, self.area);
        // A blank on each side, so that two texts do not read as one.
        let right = (x + 1, x.saturating_add(columns + 2));
        let left = (x.saturating_sub(columns + 2), x);
        if right.1 <= area.right() && is_blank_between(buffer, right, y) {
            put(buffer, x + 2, y, right.1, text, style);
        } else if left.0 >= area.x && x > columns + 1 && is_blank_between(buffer, left, y) {
            put(buffer, left.0 + 1, y, x - 1, text, style);
        }
    }

    /// Draws a line from a row down, where there is no data.
    fn draw_line(&self, buffer: &mut Buffer, x: u16, from: u16, c: char, style: Style) {
        for y in from..self.area.bottom() {
            if is_blank(buffer, x, y) {
                put_char(buffer, x, y, c, style);
            }
        }
    }

    fn draw_cursor(&self, buffer: &mut Buffer) {
        if let Some(x) = self.chart.cursor_ns.and_then(|at_ns| self.x_at(at_ns)) {
            self.draw_line(buffer, x, self.area.y, '│', self.theme().trigger);
        }
    }
}

fn is_blank_between(buffer: &Buffer, (begin, end): (u16, u16), y: u16) -> bool {
    (begin..end).all(|x| is_blank(buffer, x, y))
}

/// Returns the letter of a mark or trigger, and its style.
pub(super) fn sign(kind: &EventKind, theme: &Theme) -> (char, Style) {
    match kind {
        EventKind::Mark => ('m', theme.mark),
        EventKind::Trigger => ('T', theme.trigger),
        _ => ('e', theme.strong),
    }
}
