//! The one error of the command: a kind that decides the exit status, and a text for people.
//!
//! Invariant: the text says what to do next, and includes its causes. Its lines are kept one by
//! one: a line break in a name is no line of ours.

use std::error::Error as StdError;
use std::fmt;

use crate::limits;

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
        text.extend(limits::exceeded(error).map(|limit| format!(": {limit}")));
        cause = error.source();
    }
    text
}

impl From<vmstrobe::CoreError> for Error {
    fn from(error: vmstrobe::CoreError) -> Self {
        Self::failed(with_causes(&error))
    }
}

impl From<vmstrobe_guest::Error> for Error {
    fn from(error: vmstrobe_guest::Error) -> Self {
        Self::failed(with_causes(&error))
    }
}
