//! The width of a text on a terminal, and texts cut to a width.
//!
//! A character takes the columns that Unicode gives it by itself: two if it is of East Asia or an
//! emoji, none if it combines with the one before. Terminals that draw several emoji as one leave
//! a gap behind it; none draws over what follows.
//!
//! Invariant: a text that was cut is at most as wide as asked for and has `…` where characters are
//! missing. Combining marks, which take no column, cannot make it long: see [`MARKS_MAX`].

use unicode_width::UnicodeWidthChar;

/// The replacement of the characters that were cut out.
const CUT: &str = "…";
/// The largest number of characters for each column of a text that was cut.
const MARKS_MAX: usize = 4;

/// Returns the number of columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Appends blanks to a text, so that it takes at least this number of columns.
pub(crate) fn pad_right(text: &str, columns: usize) -> String {
    format!("{text}{}", blanks(text, columns))
}

/// Prepends blanks to a text, so that it takes at least this number of columns.
pub(crate) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", blanks(text, columns))
}

fn blanks(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

/// Cuts a line at its end to this number of columns.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if fits(text, columns) {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(width(CUT)) else { return String::new() };
    prefix(text, room).to_owned() + CUT
}

/// Cuts a name in its middle to this number of columns, because long names often differ at their
/// ends.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    if fits(text, columns) {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(width(CUT)) else { return String::new() };
    let begin = prefix(text, room / 2);
    let end = suffix(text, room - width(begin));
    format!("{begin}{CUT}{end}")
}

/// Breaks a text into lines of at most this number of columns, at blanks where possible. All lines
/// but the first begin with the indentation.
pub(crate) fn wrap(text: &str, columns: usize, indentation: &str) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), text);
    let mut indent = "";
    while !rest.is_empty() {
        let room = columns.saturating_sub(width(indent)).max(1);
        let mut line = &rest[..bytes_fitting(rest.chars(), room)];
        if line.is_empty() {
            // The first character alone is too wide for the line.
            line = &rest[..rest.chars().next().map_or(0, char::len_utf8)];
        }
        if line.len() < rest.len() && !rest[line.len()..].starts_with(' ') {
            let blank = line.rfind(' ').filter(|&at| !line[..at].trim().is_empty());
            line = &line[..blank.unwrap_or(line.len())];
        }
        lines.push(format!("{indent}{}", line.trim_end()));
        rest = rest[line.len()..].trim_start_matches(' ');
        indent = indentation;
    }
    lines
}

fn fits(text: &str, columns: usize) -> bool {
    width(text) <= columns && text.chars().count() <= columns.saturating_mul(MARKS_MAX)
}

/// Returns the longest beginning that fits into this number of columns.
fn prefix(text: &str, columns: usize) -> &str {
    &text[..bytes_fitting(text.chars(), columns)]
}

/// Returns the longest end that fits into this number of columns.
fn suffix(text: &str, columns: usize) -> &str {
    let end = &text[text.len() - bytes_fitting(text.chars().rev(), columns)..];
    // A combining mark without its character would change the character before it.
    end.trim_start_matches(|c| width_of(c) == 0)
}

/// Returns the number of bytes of those first characters that fit into this number of columns.
fn bytes_fitting(chars: impl Iterator<Item = char>, columns: usize) -> usize {
    let (mut used, mut bytes) = (0, 0);
    for c in chars.take(columns.saturating_mul(MARKS_MAX)) {
        used += width_of(c);
        if used > columns {
            break;
        }
        bytes += c.len_utf8();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_takes_the_columns_that_it_is_drawn_in() {
        for (text, want) in [
            ("web", 3),
            ("日本語", 6),
            ("e\u{301}", 1),
            ("größe", 5),
            ("\u{fffd}", 1),
            ("▏█…µ≤", 5),
        ] {
            assert_eq!(width(text), want, "{text}");
        }
        assert_eq!([pad_right("日本", 6), pad_left("e\u{301}", 3)], ["日本  ", "  e\u{301}"]);
        assert_eq!(pad_right("abc", 2), "abc");
    }

    #[test]
    fn a_line_is_cut_at_its_end() {
        for (text, columns, want) in [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 4, "abc…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
            ("", 0, ""),
            // The second does not fit beside the mark.
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
        ] {
            assert_eq!(fit(text, columns), want, "{text} {columns}");
            assert!(width(want) <= columns);
        }
    }

    #[test]
    fn a_name_is_cut_in_its_middle() {
        for (text, columns, want) in [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "ab…ef"),
            ("/vm/instance-0000/vcpu[12]", 16, "/vm/ins…vcpu[12]"),
            ("日本語語語", 7, "日…語語"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(shorten(text, columns), want, "{text} {columns}");
            assert!(width(want) <= columns);
        }
    }

    #[test]
    fn a_long_text_is_wrapped_at_blanks() {
        for (text, columns, want) in [
            ("", 5, &[][..]),
            ("ab cd", 5, &["ab cd"]),
            ("ab cd ef", 5, &["ab cd", "  ef"]),
            ("ab  cd ef", 6, &["ab  cd", "  ef"]),
            ("abc def", 5, &["abc", "  def"]),
            ("abcdefghi j", 5, &["abcde", "  fgh", "  i j"]),
            ("日本語", 3, &["日", "  本", "  語"]),
        ] {
            assert_eq!(wrap(text, columns, "  "), want, "{text} {columns}");
        }
    }

    #[test]
    fn combining_marks_do_not_make_a_text_long() {
        let marks = "e".to_owned() + &"\u{301}".repeat(10_000);
        for cut in [fit(&marks, 10), shorten(&marks, 10)] {
            assert!(cut.chars().count() <= 10 * MARKS_MAX + 1 && cut.contains('…'), "{cut}");
            assert!(width(&cut) <= 10);
        }
    }
}
