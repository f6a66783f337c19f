//! The error of the command: a kind, which decides the exit status, and a text for people.
//!
//! Invariant: the text says what to do next, and includes its causes. Its lines are kept
//! separately, so that a line break in a name cannot begin a line of the message.

use std::error::Error as StdError;
use std::fmt;

use crate::limits;

/// The result of a step of a command.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The kind of an error, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No error: the user asked for help or the version.
    Help,
    /// The command line is not well formed, or its options contradict each other.
    Usage,
    /// The command could not do its work.
    Failed,
    /// The command to be measured exists but cannot be run.
    CannotRun,
    /// The command to be measured does not exist.
    NoCommand,
}

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    lines: Vec<String>,
    messages_before: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl Error {
    /// Creates an error of one line.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, lines: vec![text.into()], messages_before: Vec::new() }
    }

    /// Adds lines below the text: a list, or the usage of the command.
    pub(crate) fn with_lines(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.lines.extend(lines);
        self
    }

    /// Adds messages of one line each that belong before the error: the notices on its cause.
    pub(crate) fn with_messages_before(self, messages_before: Vec<String>) -> Self {
        Self { messages_before, ..self }
    }

    /// Returns the messages that belong before the error.
    pub(crate) fn messages_before(&self) -> &[String] {
        &self.messages_before
    }

    /// Returns the lines of the text.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Kind::Failed, text)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// Returns the exit status. Shells use 126 and 127 for a command that they cannot run or find.
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

/// Returns the text of an error with all its causes in one line. If a limit of open files is the
/// cause, the text names it.
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
