//! The error of the control plane. The tick has no errors: it marks rows (`RowState`).
//!
//! Invariant: the text says what failed for which object and, where possible, what to do next. It
//! does not repeat its cause. With or without causes it is one printable line, whatever names are
//! in it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::text::printable;

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A statistics block breaks a hard rule of the format.
    Malformed,
    /// A count or size exceeds a named limit.
    TooLarge,
    /// A filter cannot be understood.
    Filter,
    /// The object that was asked for does not exist, or no longer does.
    NotFound,
    /// The operating system denies access.
    Denied,
    /// This kernel or VMM does not support the operation.
    Unsupported,
    /// The operation would have to wait, perhaps forever, for another thread or process.
    Busy,
    /// Reading failed for another reason.
    Io,
}

/// An error of the model or of a provider: a kind for programs, and a text for people.
///
/// Clones share the cause. `{error}` writes the text alone. `{error:#}` writes it with its causes,
/// on one line, separated by `: `.
///
/// ```
/// use vmstrobe_core::{Error, ErrorKind};
///
/// let cause = std::io::Error::other("device is gone");
/// let error = Error::caused(ErrorKind::Io, "cannot read the table", cause);
/// assert_eq!(error.to_string(), "cannot read the table");
/// assert_eq!(format!("{error:#}"), "cannot read the table: device is gone");
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Result of a control-plane call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error without a cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: line(context.into()), cause: None }
    }

    /// Makes an error with the error that caused it.
    pub fn caused(
        kind: ErrorKind,
        context: impl Into<String>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, context: line(context.into()), cause: Some(Arc::from(cause.into())) }
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// By hand: thiserror would return the `Arc` as the source, and no caller could tell the cause by
/// its type.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.source().filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {}", printable(&error.to_string()))?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Returns the text with each unprintable character replaced.
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
    fn a_cause_is_told_by_its_type_also_of_a_clone() {
        let cause = std::io::Error::from_raw_os_error(24);
        let error = Error::caused(ErrorKind::Io, "not opened", cause).clone();
        let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        assert_eq!(cause.and_then(std::io::Error::raw_os_error), Some(24));
        assert!(Error::new(ErrorKind::Io, "not opened").source().is_none());
    }

    #[test]
    fn a_name_breaks_no_line_of_a_log() {
        let text = "no VM a\nvmstrobe: \u{1b}[2J\u{202e}";
        let want = "no VM a\u{fffd}vmstrobe: \u{fffd}[2J\u{fffd}";
        assert_eq!(Error::new(ErrorKind::NotFound, text).to_string(), want);
        assert_eq!(Error::caused(ErrorKind::Io, text, fmt::Error).to_string(), want);
    }

    #[test]
    fn causes_are_written_on_request_and_on_the_same_line() {
        let inner = std::io::Error::other("a\nb");
        let middle = Error::caused(ErrorKind::Io, "cannot read x", inner);
        let outer = Error::caused(ErrorKind::NotFound, "cannot open y", middle);
        assert_eq!(outer.to_string(), "cannot open y");
        assert_eq!(format!("{outer:#}"), "cannot open y: cannot read x: a\u{fffd}b");
        assert_eq!(format!("{:#}", Error::new(ErrorKind::Io, "alone")), "alone");
    }
}
