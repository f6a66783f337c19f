//! Text for people: numbers in groups of digits, and foreign text made safe to print.
//!
//! Names of virtual machines, processes, providers, objects and statistics are written by other
//! programs. A terminal obeys control characters in them, a log takes a line break for the end of
//! an entry, and bidirectional controls make a name read as another one. The model keeps names as
//! they were written, so that programs get exactly these in JSON, which escapes them. Code that
//! prints names for people passes them through [`printable`], the only function for this.
//!
//! Invariant: a printable text is one line of characters that are visible or that shape their
//! neighbours. A text that is printable already does not change.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// The invisible characters: Unicode's `Default_Ignorable_Code_Point`, which includes the bidi
/// controls, the tags, and ranges that are reserved for later versions, and the characters that
/// only annotate text or separate lines.
const UNSEEN: &[RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// The invisible characters that real names need and that reorder nothing: the joiners of Persian,
/// of Indic scripts and of emoji, and the variation selectors of Mongolian, of symbols and of
/// emoji.
const SHAPING: &[RangeInclusive<char>] = &[
    '\u{180b}'..='\u{180d}',
    '\u{180f}'..='\u{180f}',
    '\u{200c}'..='\u{200d}',
    '\u{fe00}'..='\u{fe0f}',
];

/// Returns whether a character may appear unchanged on a terminal, in a log and in a file name.
///
/// ```
/// use vmstrobe_core::text::is_printable;
///
/// assert!(['a', ' ', 'ü', '語', '\u{200d}'].into_iter().all(is_printable));
/// assert!(!['\n', '\u{1b}', '\u{9b}', '\u{202e}'].into_iter().any(is_printable));
/// ```
pub fn is_printable(c: char) -> bool {
    let is_among = |ranges: &[RangeInclusive<char>]| ranges.iter().any(|range| range.contains(&c));
    // Most are ASCII.
    !c.is_control() && (c < '\u{80}' || !is_among(UNSEEN) || is_among(SHAPING))
}

/// Returns a text that may be shown to people, on one line. U+FFFD replaces each character that is
/// not [`is_printable`].
///
/// An escape such as `\u{1b}` would identify the character. However, it would take many columns for
/// one character, look like a name that is really spelled so, and grow each time that a text is
/// passed on. JSON has the exact name.
///
/// ```
/// use vmstrobe_core::text::printable;
///
/// assert_eq!(printable("exits\n\x1b[2J"), "exits\u{fffd}\u{fffd}[2J");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let replaced = |c: char| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER };
    Cow::Owned(text.chars().map(replaced).collect())
}

/// Returns a number with its digits in groups of three.
///
/// ```
/// assert_eq!(vmstrobe_core::text::thousands(1_234_567), "1,234,567");
/// ```
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of things, with the plural that most nouns have.
///
/// ```
/// use vmstrobe_core::text::counted;
/// assert_eq!(counted(1, "vCPU"), "1 vCPU");
/// assert_eq!(counted(1000, "sample"), "1,000 samples");
/// ```
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        for (text, want) in [
            ("\u{1b}]52;c;cm0gLXJm\u{7}", "\u{fffd}]52;c;cm0gLXJm\u{fffd}"),
            ("\u{9b}2J\u{85}\u{9d}", "\u{fffd}2J\u{fffd}\u{fffd}"),
            (
                "a\r\nvmstrobe: b\tc\0\u{7f}",
                "a\u{fffd}\u{fffd}vmstrobe: b\u{fffd}c\u{fffd}\u{fffd}",
            ),
            ("a\u{2028}b\u{2029}", "a\u{fffd}b\u{fffd}"),
            ("\u{202e}bew\u{202c}\u{2066}\u{2069}", "\u{fffd}bew\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{61c}\u{200e}\u{200f}", "\u{fffd}\u{fffd}\u{fffd}"),
            (
                "we\u{200b}b\u{ad}\u{2060}\u{feff}\u{3164}",
                "we\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("\u{e0001}\u{e0041}\u{e0100}", "\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{fff9}a\u{fffb}", "\u{fffd}a\u{fffd}"),
        ] {
            assert_eq!(printable(text), want, "{text:?}");
            // A second time changes nothing.
            assert!(matches!(printable(want), Cow::Borrowed(same) if same == want));
        }
    }

    #[test]
    fn honest_names_are_left_alone() {
        for name in [
            "",
            "web 1",
            "größe",
            "e\u{301}",
            "日本語",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "👩\u{200d}💻❤\u{fe0f}",
            "שלום",
            "\u{fffd}",
        ] {
            assert!(matches!(printable(name), Cow::Borrowed(same) if same == name), "{name:?}");
        }
    }

    /// Tests all characters of the categories Cc, Zl and Zp, and of the property `Bidi_Control`.
    #[test]
    fn no_control_and_no_line_break_is_printable() {
        let controls = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}').chain('\u{2028}'..='\u{2029}');
        let bidi = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter();
        let bidi = bidi.chain('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        let passed: Vec<char> = controls.chain(bidi).filter(|&c| is_printable(c)).collect();
        assert!(passed.is_empty(), "{passed:?}");
        assert!((' '..='~').all(is_printable));
    }
}
