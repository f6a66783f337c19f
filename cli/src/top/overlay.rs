//! A box over the screen: the help, or the choice of columns.
//!
//! Invariant: the help names every key. What does not fit into a small screen is reached by
//! scrolling.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::chooser::Chooser;
use super::look::Look;
use super::paint::{put, put_char, put_right};

/// The columns of the help in two columns, with its frame.
const WIDE: u16 = 78;
/// The column of the second column.
const SECOND: u16 = 37;
/// The columns of a key.
const KEY: u16 = 12;

/// A part of the help: its title, and each key with what it does.
type Part = (&'static str, &'static [(&'static str, &'static str)]);

/// The keys, by purpose.
pub(super) const KEYS: [Part; 3] = [
    (
        "Time",
        &[
            ("← →", "back, forward 0.1 s"),
            ("Shift ← →", "1 s"),
            (", .", "one sample"),
            ("Space", "pause the view; go on"),
            ("Home End", "oldest; live"),
            ("n N", "next, last event"),
            ("+ -", "zoom"),
        ],
    ),
    (
        "Keep",
        &[
            ("m", "mark this moment"),
            ("D", "last 30 s to a file"),
            ("r", "count from now on"),
            ("s", "sampling rate"),
            ("q", "quit"),
        ],
    ),
    (
        "Look",
        &[
            ("↑ ↓", "move, also PgUp PgDn"),
            ("Enter Esc", "open, close; fold; chart"),
            ("Tab", "next pane"),
            ("/  c", "filter, clear: glob, /re/"),
            ("p  g", "filter by process, by VM"),
            ("1 … 9", "sort; again: reverse"),
            ("x", "per vCPU, summed"),
            ("d", "rate, delta, total"),
            ("z", "hide what stands still"),
            ("f", "choose columns"),
            ("u", "units: scaled, exact"),
            ("h", "histogram"),
            ("t", "heat map of it"),
            ("Del", "dismiss an ended VM"),
        ],
    ),
];

/// The meaning of what is drawn.
const MEANING: [&str; 4] = [
    "Rates are over 1 s, halted and p99 over 10 s; bars: the highest 10 ms.",
    "Chart: dots from the lowest to the highest rate over 10 ms, the line is",
    "their mean. Steal: ready to run, but without a host CPU. Times are UTC.",
    "docs/top.md says how each number is measured.",
];

/// A box over the screen.
#[derive(Clone, Debug)]
pub(super) enum Overlay<'a> {
    /// The help, from this line on.
    Help(usize),
    /// The choice of columns.
    Columns(&'a Chooser),
}

/// Draws a box over the screen.
pub(super) fn draw(buffer: &mut Buffer, screen: Rect, overlay: &Overlay<'_>, look: &Look) {
    buffer.set_style(screen, look.theme.soft);
    match overlay {
        Overlay::Help(_) if has_room_for_all(screen) => draw_all(buffer, screen, look),
        Overlay::Help(first) => draw_some(buffer, screen, *first, look),
        Overlay::Columns(chooser) => draw_columns(buffer, screen, chooser, look),
    }
}

/// Returns true if the help needs no scrolling.
pub(super) fn has_room_for_all(screen: Rect) -> bool {
    screen.width >= WIDE && screen.height >= all_rows() + 2
}

/// Returns the rows of the help in two columns, without its frame.
fn all_rows() -> u16 {
    // A title and a blank row for each part on the left, and the meaning below.
    let left = KEYS[0].1.len() + KEYS[1].1.len() + 3;
    let right = KEYS[2].1.len() + 1;
    u16::try_from(left.max(right) + 1 + MEANING.len()).unwrap_or(u16::MAX)
}

/// Draws the frame of a box in the middle of the screen, and returns its inside.
fn draw_frame(
    buffer: &mut Buffer,
    screen: Rect,
    (width, height): (u16, u16),
    title: &str,
    note: &str,
    look: &Look,
) -> Rect {
    let (width, height) = (width.min(screen.width), height.min(screen.height));
    let frame = Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    };
    let soft = look.theme.soft;
    let (right, bottom) = (frame.right() - 1, frame.bottom() - 1);
    for y in frame.y..frame.bottom() {
        for x in frame.x..frame.right() {
            let c = match (x == frame.x, x == right, y == frame.y, y == bottom) {
                (true, _, true, _) => '┌',
                (_, true, true, _) => '┐',
                (true, _, _, true) => '└',
                (_, true, _, true) => '┘',
                (true, ..) | (_, true, ..) => '│',
                (_, _, true, _) | (_, _, _, true) => '─',
                _ => ' ',
            };
            put_char(buffer, x, y, c, soft);
        }
    }
    put(buffer, frame.x + 2, frame.y, right, &format!(" {title} "), look.theme.strong);
    put_right(buffer, bottom, (frame.x + 2, right - 2), &format!(" {note} "), soft);
    Rect { x: frame.x + 1, y: frame.y + 1, width: width - 2, height: height - 2 }
}

fn draw_all(buffer: &mut Buffer, screen: Rect, look: &Look) {
    let size = (WIDE, all_rows() + 2);
    let inside = draw_frame(buffer, screen, size, "keys", "any key closes this", look);
    let mut y = draw_part(buffer, inside, 1, inside.y, &KEYS[0], look);
    y = draw_part(buffer, inside, 1, y + 1, &KEYS[1], look);
    let right = draw_part(buffer, inside, SECOND, inside.y, &KEYS[2], look);
    for (y, text) in (y.max(right) + 1..inside.bottom()).zip(MEANING) {
        put(buffer, inside.x + 2, y, inside.right(), text, look.theme.soft);
    }
}

/// Draws a part of the help, and returns the row below it.
fn draw_part(
    buffer: &mut Buffer,
    inside: Rect,
    column: u16,
    mut y: u16,
    (title, keys): &Part,
    look: &Look,
) -> u16 {
    let (x, end) = (inside.x + column + 1, inside.right());
    put(buffer, x, y, end, title, look.theme.data);
    for (key, does) in *keys {
        y += 1;
        put(buffer, x, y, end, key, look.theme.strong);
        put(buffer, x + KEY, y, end, does, look.theme.text);
    }
    y + 1
}

/// Returns the number of lines that a help that scrolls has.
pub(super) fn lines_of_help() -> usize {
    KEYS.iter().map(|(_, keys)| keys.len() + 1).sum::<usize>() + MEANING.len()
}

/// Draws the help in one column, from a line on.
fn draw_some(buffer: &mut Buffer, screen: Rect, first: usize, look: &Look) {
    let note = "↑ ↓ more; any other key closes this";
    let inside = draw_frame(buffer, screen, (screen.width, screen.height), "keys", note, look);
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for (title, keys) in KEYS {
        lines.push((title, ""));
        lines.extend(keys);
    }
    lines.extend(MEANING.map(|text| ("", text)));
    let end = inside.right();
    for (y, (key, does)) in (inside.y..inside.bottom()).zip(lines.iter().skip(first)) {
        let is_title = does.is_empty();
        let style = if is_title { look.theme.data } else { look.theme.strong };
        let behind = put(buffer, inside.x + 1, y, end, key, style);
        let indent = if key.is_empty() { 0 } else { KEY };
        put(buffer, (inside.x + 1 + indent).max(behind), y, end, does, look.theme.text);
    }
}

fn draw_columns(buffer: &mut Buffer, screen: Rect, chooser: &Chooser, look: &Look) {
    let rows = u16::try_from(chooser.entries.len()).unwrap_or(u16::MAX).saturating_add(2);
    let size = (56, rows.min(screen.height.saturating_sub(2)).max(6));
    let note = "Space chooses, ← → move it, Enter, Esc";
    let inside = draw_frame(buffer, screen, size, "columns", note, look);
    let room = usize::from(inside.height);
    let first = (chooser.at + 1).saturating_sub(room);
    let shown = chooser.entries.iter().enumerate().skip(first);
    for (y, (index, entry)) in (inside.y..inside.bottom()).zip(shown) {
        let sign = if entry.is_shown { "[x] " } else { "[ ] " };
        let style = if entry.is_shown { look.theme.strong } else { look.theme.text };
        let x = put(buffer, inside.x + 2, y, inside.right(), sign, style);
        put(buffer, x, y, inside.right(), &entry.label, style);
        if index == chooser.at {
            buffer.set_style(Rect { y, height: 1, ..inside }, look.theme.selected);
            put_char(buffer, inside.x, y, '▸', look.theme.data.patch(look.theme.selected));
        }
    }
}
