//! The one error of the control plane. The tick has none: it marks rows (`RowState`).
//!
//! Invariant: the text says what went wrong with what, and where it helps, what to do next; it does
//! not repeat its source.

use std::error::Error as StdError;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A statistics block breaks a hard rule of the format.
    Malformed,
    /// A count or size is over a named limit.
    TooLarge,
    /// A filter cannot be understood.
    Filter,
    /// What was asked for is not there (any more).
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
        Self { kind, context: context.into(), source: None }
    }

    /// An error caused by another.
    pub fn caused(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
