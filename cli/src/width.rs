//! How wide a text is on a terminal, and what of it fits.
//!
//! A character takes the columns that Unicode gives it by itself: two if it is of East Asia or an
//! emoji, none if it combines with the one before. Terminals that draw several emoji as one leave
//! a gap behind it; none draws over what follows.
//!
//! Invariant: a text that was cut is no wider than it may be, and says by `…` where something is
//! missing. Marks that take no column cannot make it long: see [`MARKS_MAX`].

use unicode_width::UnicodeWidthChar;

/// Stands where something is missing.
const CUT: &str = "…";
/// The most characters for each column of a text that was cut.
const MARKS_MAX: usize = 4;

/// Returns how many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// A text with blanks behind it, so that it takes so many columns.
pub(crate) fn pad_right(text: &str, columns: usize) -> String {
    format!("{text}{}", blanks(text, columns))
}

/// A text with blanks before it, so that it takes so many columns.
pub(crate) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", blanks(text, columns))
}

fn blanks(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

/// A line cut at its end to so many columns.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if fits(text, columns) {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(width(CUT)) else { return String::new() };
    prefix(text, room).to_owned() + CUT
}

/// A name cut in its middle to so many columns: names that are long differ at their ends.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    if fits(text, columns) {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(width(CUT)) else { return String::new() };
    let begin = prefix(text, room / 2);
    let end = suffix(text, room - width(begin));
    format!("{begin}{CUT}{end}")
}

/// A text divided at blanks into lines of so many columns, or where it has none, anywhere. All but
/// the first begin with that indentation.
pub(crate) fn wrap(text: &str, columns: usize, indentation: &str) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), text);
    let mut indent = "";
    while !rest.is_empty() {
        let room = columns.saturating_sub(width(indent)).max(1);
        let mut line = &rest[..bytes_fitting(rest.chars(), room)];
        if line.is_empty() {
            // Even one character is too wide.
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

/// As much of the begin as so many columns have room for.
fn prefix(text: &str, columns: usize) -> &str {
    &text[..bytes_fitting(text.chars(), columns)]
}

/// As much of the end as so many columns have room for.
fn suffix(text: &str, columns: usize) -> &str {
    let end = &text[text.len() - bytes_fitting(text.chars().rev(), columns)..];
    // A mark without what it belongs to would change the character before.
    end.trim_start_matches(|c| width_of(c) == 0)
}

/// Returns how many bytes of these characters so many columns have room for.
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
    fn words_go_on_in_the_next_line() {
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
    fn marks_do_not_make_a_text_long() {
        let marks = "e".to_owned() + &"\u{301}".repeat(10_000);
        for cut in [fit(&marks, 10), shorten(&marks, 10)] {
            assert!(cut.chars().count() <= 10 * MARKS_MAX + 1 && cut.contains('…'), "{cut}");
            assert!(width(&cut) <= 10);
        }
    }
}
