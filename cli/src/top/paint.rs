//! Texts on the screen: at a place, within bounds.
//!
//! Invariant: nothing is drawn outside of the bounds that the caller gives, nor outside of the
//! screen. Names of others are made printable here, whatever they contain.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use vmstrobe::text::printable;

use crate::width::{fit, width};

/// A line of texts in several styles, before it is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans(Vec<(String, Style)>);

impl Spans {
    /// Adds a text.
    pub(super) fn push(&mut self, text: impl AsRef<str>, style: Style) {
        self.0.push((printable(text.as_ref()).into_owned(), style));
    }

    /// Adds the texts of another line.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the columns that it takes.
    pub(super) fn width(&self) -> u16 {
        let columns: usize = self.0.iter().map(|(text, _)| width(text)).sum();
        u16::try_from(columns).unwrap_or(u16::MAX)
    }

    /// Draws it from a column on, cut before `end`. Returns the column behind it.
    pub(super) fn draw(&self, buffer: &mut Buffer, x: u16, y: u16, end: u16) -> u16 {
        self.0.iter().fold(x, |x, (text, style)| put(buffer, x, y, end, text, *style))
    }

    /// Draws it so that it ends before `end`, and cut before `begin`.
    pub(super) fn draw_right(&self, buffer: &mut Buffer, y: u16, begin: u16, end: u16) {
        let x = end.saturating_sub(self.width()).max(begin);
        self.draw(buffer, x, y, end);
    }
}

/// Draws a text from a column on, cut before `end`. Returns the column behind it.
pub(super) fn put(buffer: &mut Buffer, x: u16, y: u16, end: u16, text: &str, style: Style) -> u16 {
    let end = end.min(buffer.area.right());
    if x >= end || y < buffer.area.y || y >= buffer.area.bottom() || x < buffer.area.x {
        return x;
    }
    let room = usize::from(end - x);
    let text = fit(&printable(text), room);
    // Whatever was below it, such as a rule, gives it none of its style.
    let behind = x.saturating_add(u16::try_from(width(&text)).unwrap_or(u16::MAX)).min(end);
    (x..behind).for_each(|x| put_char(buffer, x, y, ' ', style));
    buffer.set_stringn(x, y, text, room, style).0
}

/// Draws a text so that it ends before `end`. One that would begin before `begin` is cut.
pub(super) fn put_right(
    buffer: &mut Buffer,
    y: u16,
    (begin, end): (u16, u16),
    text: &str,
    style: Style,
) {
    let columns = u16::try_from(width(&printable(text))).unwrap_or(u16::MAX);
    put(buffer, end.saturating_sub(columns).max(begin), y, end, text, style);
}

/// Draws one character, if its place is on the screen.
pub(super) fn put_char(buffer: &mut Buffer, x: u16, y: u16, c: char, style: Style) {
    if let Some(cell) = buffer.cell_mut((x, y)) {
        cell.reset();
        cell.set_char(c).set_style(style);
    }
}

/// Returns true if nothing was drawn there.
pub(super) fn is_blank(buffer: &Buffer, x: u16, y: u16) -> bool {
    buffer.cell((x, y)).is_some_and(|cell| cell.symbol() == " ")
}

/// Draws a rule across the first row of an area, with a title on the left and facts on the right;
/// the facts only if there is room.
pub(super) fn titled_rule(
    buffer: &mut Buffer,
    area: Rect,
    soft: Style,
    title: &Spans,
    facts: &Spans,
) {
    let (x, y, end) = (area.x, area.y, area.right());
    for column in x..end {
        put_char(buffer, column, y, '─', soft);
    }
    // Two characters of the rule, and a blank, on each side of a text.
    let begin = put(buffer, x.saturating_add(2), y, end.saturating_sub(3), " ", soft);
    let behind = title.draw(buffer, begin, y, end.saturating_sub(3));
    put(buffer, behind, y, end.saturating_sub(2), " ", soft);
    let room = end.saturating_sub(behind);
    if facts.width() > 0 && facts.width().saturating_add(7) <= room {
        let from = end - 4 - facts.width();
        put(buffer, from, y, end, " ", soft);
        let to = facts.draw(buffer, from + 1, y, end - 3);
        put(buffer, to, y, end, " ", soft);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns the lines of a screen.
    pub(in super::super) fn lines(buffer: &Buffer) -> Vec<String> {
        let columns = usize::from(buffer.area.width).max(1);
        let line = |cells: &[ratatui_core::buffer::Cell]| -> String {
            cells.iter().map(|cell| cell.symbol()).collect()
        };
        buffer.content.chunks(columns).map(line).collect()
    }

    fn screen() -> Buffer {
        Buffer::empty(Rect::new(0, 0, 10, 2))
    }

    #[test]
    fn texts_stay_within_their_bounds() {
        let mut buffer = screen();
        assert_eq!(put(&mut buffer, 2, 0, 6, "abcdef", Style::new()), 6);
        assert_eq!(put(&mut buffer, 9, 1, 99, "abcdef", Style::new()), 10);
        assert_eq!(put(&mut buffer, 3, 7, 99, "abc", Style::new()), 3);
        assert_eq!(put(&mut buffer, 30, 0, 99, "abc", Style::new()), 30);
        put_right(&mut buffer, 1, (0, 5), "12", Style::new());
        assert_eq!(lines(&buffer), ["  abc…    ", "   12    …"]);
        put_right(&mut buffer, 1, (0, 5), "1234567", Style::new());
        assert_eq!(lines(&buffer)[1], "1234…    …");
        put_char(&mut buffer, 99, 99, 'x', Style::new());
        assert!(!is_blank(&buffer, 0, 1) && is_blank(&buffer, 6, 1) && !is_blank(&buffer, 99, 0));
    }

    #[test]
    fn foreign_text_is_made_printable() {
        let mut buffer = screen();
        put(&mut buffer, 0, 0, 10, "a\x1b[2J\u{202e}b", Style::new());
        let mut spans = Spans::default();
        spans.push("日\r\n本", Style::new());
        spans.draw(&mut buffer, 0, 1, 10);
        assert_eq!(lines(&buffer)[0], "a\u{fffd}[2J\u{fffd}b   ");
        assert_eq!(spans.width(), 6);
        assert!(lines(&buffer)[1].starts_with("日 \u{fffd}\u{fffd}本"), "{buffer:?}");
    }

    #[test]
    fn a_rule_has_facts_if_there_is_room() {
        let spans = |text: &str| {
            let mut spans = Spans::default();
            spans.push(text, Style::new());
            spans
        };
        let rule = |columns, title: &str, facts: &str| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 1));
            let area = buffer.area;
            titled_rule(&mut buffer, area, Style::new(), &spans(title), &spans(facts));
            lines(&buffer).pop().unwrap_or_default()
        };
        assert_eq!(rule(20, "exits", "max 3"), "── exits ── max 3 ──");
        assert_eq!(rule(19, "exits", "max 3"), "── exits ──────────");
        assert_eq!(rule(9, "exits/s", ""), "── ex… ──");
        for columns in 0..6 {
            rule(columns, "exits", "max");
        }
    }
}
