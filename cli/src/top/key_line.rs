//! The last line: the keys that can be typed now, or a message, or the line that is typed.
//!
//! Invariant: there is always a way on: the key of the help is in each line of keys, whatever the
//! width.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Modifier;

use super::look::Look;
use super::paint::{Spans, put, put_right};
use super::prompt::Prompt;
use crate::width::width;

/// The content of the last line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum KeyLine<'a> {
    /// The keys while the newest samples are shown.
    Live,
    /// The keys while the past is shown.
    Past,
    /// The keys while one vCPU fills the screen.
    Opened,
    /// A message about what a key did.
    Message(&'a str),
    /// A line that is typed.
    Prompt(&'a Prompt),
}

type Keys = [(&'static str, &'static str)];

const LIVE: &Keys = &[
    ("←→", "back in time"),
    ("Space", "pause"),
    ("Enter", "open"),
    ("/", "filter"),
    ("1-9", "sort"),
    ("Tab", "pane"),
    ("x", "per vCPU, summed"),
    ("d", "rate, delta, total"),
    ("z", "hide what stands still"),
    ("m", "mark"),
    ("D", "dump 30 s"),
    ("q", "quit"),
];
const PAST: &Keys = &[
    ("←→", "0.1 s"),
    ("Shift ←→", "1 s"),
    (", .", "a sample"),
    ("n N", "event"),
    ("+ -", "zoom"),
    ("End", "live"),
    ("Space", "go on"),
    ("m", "mark"),
    ("D", "dump 30 s"),
    ("q", "quit"),
];
const OPENED: &Keys = &[
    ("Esc", "back"),
    ("↑↓", "statistic"),
    ("Enter", "chart it"),
    ("Tab", "pane"),
    ("d", "rate, delta, total"),
    ("m", "mark"),
    ("←→", "back in time"),
    ("h", "histogram"),
    ("t", "heat map"),
    ("+ -", "zoom"),
    ("D", "dump 30 s"),
    ("q", "quit"),
];
const HELP: (&str, &str) = ("?", "help");

/// Draws the last line.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, line: &KeyLine<'_>, look: &Look) {
    match line {
        KeyLine::Live => draw_keys(buffer, area, LIVE, look),
        KeyLine::Past => draw_keys(buffer, area, PAST, look),
        KeyLine::Opened => draw_keys(buffer, area, OPENED, look),
        KeyLine::Message(text) => {
            put(buffer, area.x + 1, area.y, area.right(), text, look.theme.strong);
        }
        KeyLine::Prompt(prompt) => draw_prompt(buffer, area, prompt, look),
    }
}

/// Draws as many keys as there is room for, and that of the help.
fn draw_keys(buffer: &mut Buffer, area: Rect, keys: &Keys, look: &Look) {
    let theme = &look.theme;
    let span = |line: &mut Spans, (key, does): (&str, &str)| {
        let gap = if line.width() <= 2 { " " } else { "   " };
        line.push(gap, theme.soft);
        line.push(key, theme.strong);
        line.push(format!(" {does}"), theme.soft);
    };
    let (mut line, mut help) = (Spans::default(), Spans::default());
    help.push("  ", theme.soft);
    span(&mut help, HELP);
    let (last, rest) = keys.split_last().map_or((None, keys), |(last, rest)| (Some(last), rest));
    for key in rest {
        let mut more = line.clone();
        span(&mut more, *key);
        if more.width().saturating_add(help.width()) > area.width {
            break;
        }
        line = more;
    }
    line.append(help);
    let mut more = line.clone();
    last.into_iter().for_each(|key| span(&mut more, *key));
    if more.width() <= area.width {
        line = more;
    }
    line.draw(buffer, area.x, area.y, area.right());
}

/// Draws the line that is typed, with its end in view, and a hint if there is room.
fn draw_prompt(buffer: &mut Buffer, area: Rect, prompt: &Prompt, look: &Look) {
    let theme = &look.theme;
    let (y, end) = (area.y, area.right());
    let begin = put(buffer, area.x + 1, y, end, prompt.question(), theme.strong);
    let begin = put(buffer, begin, y, end, ": ", theme.strong);
    let room = usize::from(end.saturating_sub(begin + 1));
    // The end of a long text is what is being typed.
    let mut shown = &prompt.text[..];
    while width(shown) > room {
        let mut chars = shown.chars();
        chars.next();
        shown = chars.as_str();
    }
    let cursor = put(buffer, begin, y, end, shown, theme.text);
    put(buffer, cursor, y, end, " ", theme.text.add_modifier(Modifier::REVERSED));
    let hint = prompt.error.as_deref().unwrap_or(prompt.hint());
    let style = if prompt.error.is_some() { theme.strong } else { theme.soft };
    let columns = u16::try_from(width(hint)).unwrap_or(u16::MAX);
    if prompt.error.is_some() || cursor.saturating_add(columns).saturating_add(4) <= end {
        put_right(buffer, y, (cursor + 2, end - 1), hint, style);
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::Look;
    use super::super::paint::tests::lines;
    use super::super::prompt::Asks;
    use super::super::theme::{Colours, Theme};
    use super::*;
    use crate::args::Marker;

    fn drawn(columns: u16, line: &KeyLine<'_>) -> String {
        let theme = Theme::of(Colours::None);
        let look = Look { theme, marker: Marker::Braille, is_ascii: false };
        let mut buffer = Buffer::empty(Rect::new(0, 0, columns, 1));
        let area = buffer.area;
        draw(&mut buffer, area, line, &look);
        lines(&buffer).remove(0).trim_end().to_owned()
    }

    #[test]
    fn the_help_has_a_place_in_every_line() {
        for line in [KeyLine::Live, KeyLine::Past, KeyLine::Opened] {
            for columns in 60..=200 {
                let drawn = drawn(columns, &line);
                assert!(drawn.contains("? help"), "{columns}: {drawn}");
                assert!(!drawn.contains('…'), "{columns}: {drawn}");
            }
        }
        assert_eq!(
            drawn(80, &KeyLine::Live),
            " ←→ back in time   Space pause   Enter open   / filter   1-9 sort   ? help"
        );
        assert!(drawn(200, &KeyLine::Live).ends_with("q quit"));
    }

    #[test]
    fn the_end_of_a_typed_line_is_seen() {
        let mut prompt = Prompt::new(Asks::Filter { before: None });
        prompt.text = "web".to_owned();
        let line = drawn(80, &KeyLine::Prompt(&prompt));
        assert!(line.starts_with(" filter: web ") && line.ends_with("Esc undoes"), "{line}");
        prompt.text = "x".repeat(100) + "end";
        assert!(drawn(60, &KeyLine::Prompt(&prompt)).ends_with("xend"));
        prompt.text = "7".to_owned();
        prompt.error = Some("there is no such process".to_owned());
        assert!(drawn(60, &KeyLine::Prompt(&prompt)).ends_with("there is no such process"));
        assert_eq!(drawn(60, &KeyLine::Message("written")), " written");
    }
}
