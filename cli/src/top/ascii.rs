//! The screen in ASCII, for terminals and fonts without more.
//!
//! Everything is drawn with the characters of Unicode. This replaces them afterwards, so that
//! nothing else has to know of it.
//!
//! Invariant: after [`to_ascii`] each cell has one printable character of ASCII, and no cell has
//! moved.

use ratatui_core::buffer::Buffer;

/// The replacement of a character that has none, which only names of others have.
const UNKNOWN: char = '?';

/// Replaces all characters of a screen.
pub(super) fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let first = cell.symbol().chars().next().unwrap_or(UNKNOWN);
            cell.set_char(replacement(first));
        }
    }
}

/// Returns the character of ASCII that stands for this one.
pub(super) fn replacement(c: char) -> char {
    match c {
        '▸' | '›' | '→' => '>',
        '▾' | '▼' | '↓' => 'v',
        '▲' | '↑' => '^',
        '●' => '*',
        '❚' | '│' => '|',
        '─' | '−' | '–' => '-',
        '├' | '┤' | '┌' | '┐' | '└' | '┘' => '+',
        '┊' | '▃' | '▒' => ':',
        '╱' => '/',
        '◆' => 'o',
        '←' | '≤' => '<',
        '…' | '▂' | '░' => '.',
        '▁' => '_',
        '▄' => '-',
        '▅' => '=',
        '▆' | '▓' => '+',
        '▇' | '█' | '▉' | '▊' | '▋' | '▌' => '#',
        '▍' | '▎' | '▏' => '|',
        'µ' => 'u',
        '∞' => '~',
        c if c.is_ascii() => c,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use ratatui_core::layout::Rect;
    use ratatui_core::style::Style;

    use super::*;

    #[test]
    fn what_we_draw_has_a_character_of_its_own() {
        let drawn = "▸▾▼▲●❚─│├┤┌┐└┘┊╱◆←→↑↓≤−–›…▁▂▃▄▅▆▇█▉▊▋▌▍▎▏░▒▓µ∞";
        for c in drawn.chars() {
            let ascii = replacement(c);
            assert!(ascii.is_ascii_graphic() && ascii != UNKNOWN, "{c} becomes {ascii}");
        }
        assert_eq!([replacement('a'), replacement(' '), replacement('é')], ['a', ' ', UNKNOWN]);
    }

    #[test]
    fn levels_stay_apart() {
        for levels in ["▁▂▃▄▅▆▇", "░▒▓█"] {
            let mut ascii: Vec<char> = levels.chars().map(replacement).collect();
            let count = ascii.len();
            ascii.sort_unstable();
            ascii.dedup();
            assert_eq!(ascii.len(), count, "{levels}");
        }
    }

    #[test]
    fn nothing_moves() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        buffer.set_string(0, 0, "▸ 日本ж 3 µs", Style::new());
        to_ascii(&mut buffer);
        let text: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
        assert_eq!(text, "> ? ? ? 3 us");
    }
}
