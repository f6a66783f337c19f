//! Sparklines: one character for each cell, as high as the highest rate in it.
//!
//! Invariant: a cell in which nothing was read is blank, and one of 0 is not. No cell is as high as
//! its row, or the lines of neighbours would touch.

use ratatui_core::buffer::Buffer;
use ratatui_core::style::Style;

use super::paint::put_char;

/// The heights of a cell.
const LEVELS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
/// The parts of a cell that a bar ends with, in eighths from none to seven.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Returns the character of a value; the highest for `max` and above.
fn level(value: f64, max: f64) -> char {
    let top = LEVELS.len() - 1;
    let share = if max > 0.0 { (value / max).clamp(0.0, 1.0) } else { 0.0 };
    // A share that is no number counts as 0.
    LEVELS[((share * top as f64).round() as usize).min(top)]
}

/// Draws values from left to right between two columns; those that do not fit are the oldest.
pub(super) fn draw(
    buffer: &mut Buffer,
    (begin, end): (u16, u16),
    y: u16,
    values: &[Option<f64>],
    max: f64,
    style: Style,
) {
    let room = usize::from(end.saturating_sub(begin));
    let shown = &values[values.len().saturating_sub(room)..];
    for (x, value) in (begin..end).zip(shown) {
        if let Some(value) = value {
            put_char(buffer, x, y, level(*value, max), style);
        }
    }
}

/// Draws a bar of so many eighths of a character. Returns the column behind it.
pub(super) fn bar(
    buffer: &mut Buffer,
    (begin, end): (u16, u16),
    y: u16,
    share: f64,
    style: Style,
) -> u16 {
    let room = f64::from(end.saturating_sub(begin));
    // Whatever is there is seen: at least an eighth.
    let eighths = (share.clamp(0.0, 1.0) * room * 8.0).round().max(1.0) as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let mut x = begin;
    for _ in 0..full {
        put_char(buffer, x, y, '█', style);
        x += 1;
    }
    if rest > 0 {
        put_char(buffer, x, y, EIGHTHS[rest], style);
        x += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use ratatui_core::layout::Rect;

    use super::super::paint::tests::lines;
    use super::*;

    fn drawn(values: &[Option<f64>], max: f64) -> String {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 1));
        draw(&mut buffer, (1, 7), 0, values, max, Style::new());
        lines(&buffer).remove(0)
    }

    #[test]
    fn the_height_is_the_share_of_the_highest() {
        let of = |values: &[f64]| values.iter().map(|value| Some(*value)).collect::<Vec<_>>();
        assert_eq!(drawn(&of(&[0.0, 1.0, 2.0, 3.0, 6.0, 9.0]), 6.0), " ▁▂▃▄▇▇ ");
        assert_eq!(drawn(&of(&[0.0, 5.0]), 0.0), " ▁▁     ");
        assert_eq!(drawn(&of(&[f64::NAN, f64::INFINITY, -1.0]), 6.0), " ▁▇▁    ");
    }

    #[test]
    fn what_was_not_read_is_blank() {
        assert_eq!(drawn(&[Some(6.0), None, Some(0.0)], 6.0), " ▇ ▁    ");
        // The newest values are those that are shown.
        let many: Vec<_> = (0..9).map(|value| Some(f64::from(value))).collect();
        assert_eq!(drawn(&many, 8.0).trim(), "▃▄▅▆▆▇");
    }

    #[test]
    fn a_bar_ends_in_eighths_and_is_always_seen() {
        let drawn = |share| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, 5, 1));
            let behind = bar(&mut buffer, (0, 4), 0, share, Style::new());
            (lines(&buffer).remove(0), behind)
        };
        for (share, want, behind) in [
            (1.0, "████ ", 4),
            (7.0, "████ ", 4),
            (0.5, "██   ", 2),
            (0.47, "█▉   ", 2),
            (0.0001, "▏    ", 1),
            (f64::NAN, "▏    ", 1),
        ] {
            assert_eq!(drawn(share), (want.to_owned(), behind), "{share}");
        }
    }
}
