//! The errors of the argument parser as errors of the command, with a hint for those who type what
//! `perf stat` and `time` take.
//!
//! Invariant: a hint only adds to the error that it stands below. Every line break of an error is
//! the parser's own, never one of an argument that it repeats.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use vmstrobe::text::printable;

use crate::error::{Error, Kind, with_causes};
use crate::terminal::has_colours;

/// The options of `perf stat`, each with the option of vmstrobe that does the same.
const PERF_OPTIONS: [(&str, &str); 4] = [
    ("-a", "--all measures every virtual machine"),
    ("-e", "--names exits,halt_* selects statistics"),
    ("-I", "-i MS prints intervals"),
    ("-x", "--json prints output for programs"),
];

/// Adds a hint to the error, if it is about an argument that `vmstrobe stat` or `vmstrobe record`
/// does not know.
pub(super) fn with_hint(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let is_of = |command: &str| words.get(1).is_some_and(|word| word == command);
    if (is_of("stat") || is_of("record"))
        && error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg)
        && let Some(hint) = if is_of("stat") { hint(unknown, words) } else { of_record(unknown) }
    {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
    error
}

/// Returns the hint for `vmstrobe record`.
fn of_record(unknown: &str) -> Option<String> {
    let hint = "`vmstrobe convert` writes a recording in another format, or with less in it";
    (unknown == "--replay").then(|| hint.to_owned())
}

fn hint(unknown: &str, words: &[OsString]) -> Option<String> {
    if unknown.starts_with('-') {
        let ours = PERF_OPTIONS.iter().find(|(theirs, _)| *theirs == unknown);
        return ours.map(|(_, hint)| (*hint).to_owned());
    }
    let at = words.iter().position(|word| word == OsStr::new(unknown))?;
    let (ours, command) = words.split_at(at);
    let line = [&["vmstrobe".into()], &ours[1..], &["--".into()], command].concat();
    let is_plain = |word: &OsString| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
        word.to_str().filter(|word| !word.is_empty() && word.chars().all(plain)).map(str::to_owned)
    };
    // A line with words that a shell requires in quotes is not written out.
    let line: Option<Vec<String>> = line.iter().map(is_plain).collect();
    let line = line.map_or_else(|| "vmstrobe stat ... -- CMD".to_owned(), |line| line.join(" "));
    Some(format!("put the command to measure after `--`: {line}"))
}

impl From<clap::Error> for Error {
    /// Converts an error of the parser. Help and the version become errors of [`Kind::Help`].
    fn from(error: clap::Error) -> Self {
        let plain = |text: StyledStr| text.to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let colours = has_colours();
                let text = error.render();
                Self::new(Kind::Help, if colours { text.ansi().to_string() } else { plain(text) })
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let help = plain(error.render());
                Self::usage("no command is given: choose one of these")
                    .with_lines([String::new()])
                    .with_lines(lines(help.trim_end()))
            }
            // The texts of our own value parsers are complete.
            ErrorKind::ValueValidation => {
                Self::usage(error.source().map_or_else(|| error.to_string(), with_causes))
            }
            _ => {
                let text = plain(in_single_lines(error).render());
                let mut lines = lines(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
                Self::usage(lines.next().unwrap_or_default()).with_lines(lines)
            }
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::to_owned)
}

/// Makes the arguments that the error repeats printable, so that every line break is clap's.
fn in_single_lines(mut error: clap::Error) -> clap::Error {
    let one = |text: &String| printable(text).into_owned();
    let styled = |text: &StyledStr| StyledStr::from(one(&text.to_string()));
    let printable = |value: &ContextValue| match value {
        ContextValue::String(text) => ContextValue::String(one(text)),
        ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(one).collect()),
        ContextValue::StyledStrs(texts) => {
            ContextValue::StyledStrs(texts.iter().map(styled).collect())
        }
        other => other.clone(),
    };
    let context: Vec<(ContextKind, ContextValue)> =
        error.context().map(|(kind, value)| (kind, printable(value))).collect();
    for (kind, value) in context {
        error.insert(kind, value);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_puts_the_command_after_two_dashes() {
        for (line, unknown, want) in [
            ("stat sleep 1", "sleep", "vmstrobe stat -- sleep 1"),
            ("stat -p 7 make -j4", "make", "vmstrobe stat -p 7 -- make -j4"),
            ("stat a$b", "a$b", "vmstrobe stat ... -- CMD"),
        ] {
            let words = ["/usr/bin/vmstrobe"].into_iter().chain(line.split(' '));
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let want = format!("put the command to measure after `--`: {want}");
            assert_eq!(hint(unknown, &words), Some(want), "{line}");
        }
        assert!(hint("-x", &[]).is_some_and(|hint| hint.contains("--json")));
        assert_eq!(hint("--frobnicate", &[]), None);
        assert!(of_record("--replay").is_some_and(|hint| hint.contains("convert")));
        assert_eq!(of_record("-a"), None);
    }
}
