//! The first line: what is sampled, and which moment is shown.
//!
//! Invariant: a screen that shows the past is known by its whole first line. Facts for which there
//! is no room are left out whole, the less important first.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use vmstrobe::text::{counted, thousands};
use vmstrobe::view::{Amounts, Frame, Header, Moment};

use super::look::{Facts, Look};
use super::paint::Spans;
use crate::text::{hertz, nanos, seconds, utc};
use crate::width::{shorten, width};

/// The least columns between the left and the right part.
const GAP: u16 = 2;

/// Draws the first line.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look, facts: &Facts) {
    match frame.moment {
        Moment::Live { wall_ns } => draw_live(buffer, area, frame, look, facts, wall_ns),
        Moment::Back { .. } => draw_past(buffer, area, frame, look, facts),
    }
}

fn draw_live(
    buffer: &mut Buffer,
    area: Rect,
    frame: &Frame,
    look: &Look,
    facts: &Facts,
    wall_ns: u64,
) {
    let theme = &look.theme;
    let mut right = Spans::default();
    right.push(lost_text(&frame.header).map_or(String::new(), |lost| lost + "   "), theme.soft);
    right.push(format!("{}  ", &utc(wall_ns)[11..19]), theme.soft);
    let (sign, state) = match (&facts.recording, frame.header.has_ended) {
        (Some(_), true) => ("● ", "end of the recording"),
        (Some(_), false) => ("● ", "replay"),
        (None, true) => ("● ", "sampling ended"),
        (None, false) => ("● ", "live"),
    };
    right.push(sign, theme.live);
    right.push(state, theme.strong);
    let end = area.right().saturating_sub(1);
    right.draw_right(buffer, area.y, area.x, end);

    let mut left = Spans::default();
    left.push(" vmstrobe top", theme.strong);
    let room = end.saturating_sub(right.width() + GAP + area.x);
    let all = facts_of(frame, facts);
    let mut fits = vec![false; all.len()];
    let mut columns = left.width();
    let mut by_importance: Vec<usize> = (0..all.len()).collect();
    by_importance.sort_by_key(|&index| all[index].rank);
    for index in by_importance {
        let more = u16::try_from(width(&all[index].text)).unwrap_or(u16::MAX);
        fits[index] = columns.saturating_add(more) <= room;
        columns += if fits[index] { more } else { 0 };
    }
    for (fact, _) in all.iter().zip(&fits).filter(|(_, fits)| **fits) {
        left.push(&fact.text, if fact.is_strong { theme.strong } else { theme.soft });
    }
    left.draw(buffer, area.x, area.y, room.saturating_add(area.x));
}

/// A fact of the left part.
struct Fact {
    text: String,
    is_strong: bool,
    /// The lower, the more important.
    rank: u8,
}

/// Returns the facts of the left part, from left to right.
fn facts_of(frame: &Frame, facts: &Facts) -> Vec<Fact> {
    let header = &frame.header;
    let mut all = Vec::new();
    let mut add = |rank, is_strong, text| all.push(Fact { text, is_strong, rank });
    match &frame.subject {
        Some((vm, object)) if frame.is_opened => {
            add(0, true, format!("  {} › {}", shorten(vm, 24), shorten(object, 24)));
            add(3, false, format!("   {}", rate_text(header.rate_hz)));
        }
        _ => {
            let counts = [counted(header.vms, "VM"), counted(header.vcpus, "vCPU")].join(", ");
            add(2, false, format!("  {counts}"));
            add(4, false, format!(" at {}", rate_text(header.rate_hz)));
        }
    }
    if let Some(filter) = &frame.filter {
        add(1, true, format!("   filter \"{}\"", shorten(filter, 24)));
    }
    match frame.amounts {
        Amounts::Rate => {}
        Amounts::Delta => add(1, true, "   changes since the baseline".to_owned()),
        Amounts::Total => add(1, true, "   totals".to_owned()),
    }
    if header.vms_ended > 0 {
        add(5, false, format!("   {} ended", counted(header.vms_ended, "VM")));
    }
    if let Some(name) = &facts.recording {
        add(1, false, format!("   {}", shorten(name, 32)));
    }
    if facts.redraw_hz > 0.0 {
        add(7, false, format!("   drawn at {}", hertz(facts.redraw_hz)));
    }
    if let Some(window_ns) = header.window_ns_median {
        add(6, false, format!("   all read within {} (median)", nanos(window_ns)));
    }
    add(8, false, format!("   ring {}", time_text(frame.ring.limit_ns)));
    all
}

fn draw_past(buffer: &mut Buffer, area: Rect, frame: &Frame, look: &Look, facts: &Facts) {
    let Moment::Back { wall_ns, ago_ns, is_playing, is_oldest } = frame.moment else { return };
    let style = look.theme.past;
    buffer.set_style(area, style);
    let mut left = Spans::default();
    let state = match () {
        () if is_playing => " ▸ REPLAY",
        () if facts.is_paused => " ❚❚ PAUSED",
        () => " ❚❚ BACK IN TIME",
    };
    left.push(format!("{state}  {}", &utc(wall_ns)[11..23]), style);
    let kept = time_text(frame.ring.limit_ns);
    let parts = [
        if is_oldest { format!("   older than the {kept} that are kept") } else { String::new() },
        format!("   {} ago", time_text(ago_ns)),
        format!("   {}", sampling_text(&frame.header, facts)),
    ];
    let mut right = Spans::default();
    right.push(if facts.recording.is_some() { "End: newest" } else { "End: live" }, style);
    let end = area.right().saturating_sub(1);
    let room = end.saturating_sub(area.x + right.width() + GAP);
    for part in parts {
        let mut more = left.clone();
        more.push(part, style);
        if more.width() <= room {
            left = more;
        }
    }
    left.draw(buffer, area.x, area.y, end);
    right.draw_right(buffer, area.y, area.x, end);
}

/// Returns whether sampling goes on meanwhile, and what was lost.
fn sampling_text(header: &Header, facts: &Facts) -> String {
    let state = match (&facts.recording, header.has_ended) {
        (Some(name), _) => return shorten(name, 32),
        (None, true) => "sampling ended",
        (None, false) => "sampling on",
    };
    match lost_text(header) {
        Some(lost) => format!("{state}, {lost}"),
        None => state.to_owned(),
    }
}

fn lost_text(header: &Header) -> Option<String> {
    let lost = header.lost_samples;
    (lost > 0).then(|| format!("{} lost", thousands(lost)))
}

/// Returns a measured rate, which is seldom a round number, in three digits: `1 kHz`.
fn rate_text(rate_hz: f64) -> String {
    let digits = 10_f64.powi(rate_hz.max(1e-3).log10().floor() as i32 - 2);
    hertz((rate_hz / digits).round() * digits)
}

/// Returns a time: `60 s`, `10.9 s`, `820 ms`.
pub(super) fn time_text(ns: u64) -> String {
    let text = seconds((ns as f64 * 1e-9 * 1e4).round() / 1e4);
    text.replace(".00 s", " s").replace(".0 s", " s")
}
