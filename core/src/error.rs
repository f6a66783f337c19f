//! The one error of the control plane. The tick has none: it marks rows (`RowState`).
//!
//! Invariant: the text says what went wrong with what, and where it helps, what to do next; it does
//! not repeat its source. It is one printable line, whoever made up the names in it.

use std::borrow::Cow;
use std::error::Error as StdError;

use crate::text::printable;

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A statistics block breaks a hard rule of the format.
    Malformed,
    /// A count or size is over a named limit.
    TooLarge,
    /// A filter cannot be understood.
    Filter,
    /// The thing asked for does not exist, or no longer does.
    NotFound,
    /// The operating system refuses.
    Denied,
    /// This kernel or VMM cannot do it.
    Unsupported,
    /// It would have to wait for someone who may never be done.
    Busy,
    /// Reading failed otherwise.
    Io,
}

/// An error of the model or of a provider: a kind to act on, a context to read.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result of a control-plane call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: line(context.into()), source: None }
    }

    /// An error caused by another.
    pub fn caused(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, context: line(context.into()), source: Some(source.into()) }
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The text with all that is foreign in it made harmless.
fn line(text: String) -> String {
    match printable(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(line) => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_breaks_no_line_of_a_log() {
        let text = "no VM a\nvmstrobe: \u{1b}[2J\u{202e}";
        let want = "no VM a\u{fffd}vmstrobe: \u{fffd}[2J\u{fffd}";
        assert_eq!(Error::new(ErrorKind::NotFound, text).to_string(), want);
        assert_eq!(Error::caused(ErrorKind::Io, text, std::fmt::Error).to_string(), want);
    }
}
