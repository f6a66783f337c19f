//! The whole screen, from a frame.
//!
//! Invariant: the same frame, look and state give the same screen; no size of it causes a panic.

use ratatui_core::buffer::Buffer;
use ratatui_core::style::Style;
use vmstrobe::view::{Chart, Frame, Moment};

use super::ascii::to_ascii;
use super::axis::Clock;
use super::chart;
use super::histogram;
use super::key_line::{self, KeyLine};
use super::layout::{Layout, SMALLEST};
use super::lists;
use super::look::{Facts, Look};
use super::overlay::{self, Overlay};
use super::paint::put;
use super::table;
use super::title;

/// Everything that a screen is drawn from.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) frame: &'a Frame,
    pub(super) layout: &'a Layout,
    pub(super) look: &'a Look,
    pub(super) facts: &'a Facts,
    /// The columns of the names in the table.
    pub(super) name_columns: u16,
    /// A message or a line that is typed; without it the last line has keys.
    pub(super) key_line: Option<KeyLine<'a>>,
    pub(super) overlay: Option<Overlay<'a>>,
}

/// Draws a screen.
pub(super) fn draw(buffer: &mut Buffer, scene: &Scene<'_>) {
    let Scene { frame, layout, look, facts, .. } = scene;
    title::draw(buffer, layout.title, frame, look, facts);
    table::draw(buffer, layout.table, frame, look, scene.name_columns);
    // The first line has the name of an opened vCPU.
    let subject = frame.subject.as_ref().filter(|_| !frame.is_opened);
    for (area, chart) in layout.charts.iter().zip(&frame.charts) {
        chart::draw(buffer, *area, chart, subject, look, facts.start_ns);
    }
    if let Some(shown) = &frame.histogram {
        histogram::draw(buffer, layout.histogram, shown, look);
    }
    if let Some(shown) = &frame.heat_map {
        let chart = frame.charts.first();
        let times = chart.map_or(((0, 0), Clock::BeforeNow), |chart| times(chart, facts));
        histogram::draw_heat_map(buffer, layout.heat_map, shown, times, look);
    }
    lists::draw_statistics(buffer, layout.statistics, frame, look);
    lists::draw_events(buffer, layout.events, frame, look);
    lists::draw_ring(buffer, layout.ring, frame, look, facts);
    let keys = match frame.moment {
        Moment::Back { .. } => KeyLine::Past,
        Moment::Live { .. } if frame.is_opened => KeyLine::Opened,
        Moment::Live { .. } => KeyLine::Live,
    };
    key_line::draw(buffer, layout.keys, scene.key_line.as_ref().unwrap_or(&keys), look);
    if let Some(shown) = &scene.overlay {
        let screen = buffer.area;
        overlay::draw(buffer, screen, shown, look);
    }
    if look.is_ascii {
        to_ascii(buffer);
    }
}

/// Returns the begin and end of a chart, and how times on its axis count.
fn times(chart: &Chart, facts: &Facts) -> ((u64, u64), Clock) {
    let Chart { begin_ns, end_ns, cursor_ns, .. } = *chart;
    ((begin_ns, end_ns), Clock::of(cursor_ns.is_some(), facts.start_ns))
}

/// Draws what there is instead of a screen that is too small.
pub(super) fn draw_too_small(buffer: &mut Buffer) {
    let area = buffer.area;
    let text = format!(
        "vmstrobe top needs {}x{}, this is {}x{}",
        SMALLEST.width, SMALLEST.height, area.width, area.height
    );
    put(buffer, area.x, area.y, area.right(), &text, Style::new());
}

#[cfg(test)]
mod tests;
