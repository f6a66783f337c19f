//! The one error of the command: a kind that decides the exit status, and a text for people.
//!
//! Invariant: the text says what to do next, and includes its causes. Its lines are kept one by
//! one: a line break in a name is no line of ours.

use std::error::Error as StdError;
use std::fmt;
use std::io::IsTerminal;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use vmstrobe::text::printable;

use crate::limits;
use crate::terminal::has_colours;

mod library;

/// Result of anything that a command does.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The kind of an error, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No error: the user asked for help or the version.
    Help,
    /// The command line cannot be understood, or makes no sense.
    Usage,
    /// It could not be done.
    Failed,
    /// The measured command is there but cannot be run.
    CannotRun,
    /// The measured command is not there.
    NoCommand,
}

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    lines: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl Error {
    /// An error of one line.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, lines: vec![text.into()] }
    }

    /// The error with further lines below: a list, or how the command is used.
    pub(crate) fn above(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// Its text, line by line.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Kind::Failed, text)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// The exit status. 126 and 127 are what shells say of a command that they cannot run or find.
    pub(crate) fn status(&self) -> u8 {
        match self.kind {
            Kind::Help => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::CannotRun => 126,
            Kind::NoCommand => 127,
        }
    }
}

/// An error with all its causes in one line, and the limit that was met if that is one of them.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        text.extend(limits::met(error).map(|limit| format!(": {limit}")));
        cause = error.source();
    }
    text
}

impl From<vmstrobe::CoreError> for Error {
    fn from(error: vmstrobe::CoreError) -> Self {
        Self::failed(with_causes(&error))
    }
}

impl From<vmstrobe::Error> for Error {
    fn from(error: vmstrobe::Error) -> Self {
        library::text_of(error)
    }
}

impl From<vmstrobe_guest::Error> for Error {
    fn from(error: vmstrobe_guest::Error) -> Self {
        Self::failed(with_causes(&error))
    }
}

impl From<clap::Error> for Error {
    /// Help and the version, if asked for, are errors of their own kind.
    fn from(error: clap::Error) -> Self {
        let plain = |text: StyledStr| text.to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let colours = std::io::stdout().is_terminal() && has_colours();
                let text = error.render();
                Self::new(Kind::Help, if colours { text.ansi().to_string() } else { plain(text) })
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let help = plain(error.render());
                Self::usage("name a command").above([String::new()]).above(lines(help.trim_end()))
            }
            // Our own parsers' texts stand alone.
            ErrorKind::ValueValidation => {
                Self::usage(error.source().map_or_else(|| error.to_string(), with_causes))
            }
            _ => {
                let text = plain(in_single_lines(error).render());
                let mut lines = lines(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
                Self::usage(lines.next().unwrap_or_default()).above(lines)
            }
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::to_owned)
}

/// The error with the arguments that it repeats made printable, so that every line break is clap's.
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
