//! The error of writers and readers.
//!
//! Invariant: the text says what happened and, where possible, what to do next; it is one printable
//! line, whatever names are in it. It does not name the file, which the caller knows.

use std::io;

use vmstrobe_core::text::printable;

/// Result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a writer or of a reader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The destination did not take what was written. Everything before `whole_bytes` is good; a
    /// file can be cut there.
    #[error("the recording cannot be written beyond byte {whole_bytes}: {source}")]
    Write {
        /// The bytes that were written up to the last whole message or row.
        whole_bytes: u64,
        /// The destination's error.
        source: io::Error,
    },
    /// The compressor failed, which it does only without memory. Nothing was written.
    #[error("the recording cannot be compressed: {0}")]
    Compress(#[source] io::Error),
    /// Reading failed.
    #[error("the recording cannot be read beyond byte {offset}: {source}")]
    Read {
        /// The bytes that were read before.
        offset: u64,
        /// The error of the file.
        source: io::Error,
    },
    /// The bytes are no recording of vmstrobe.
    #[error("this is no recording of vmstrobe: {reason}")]
    NotARecording {
        /// The property that is missing.
        reason: String,
    },
    /// A recording is damaged. All items before it were good.
    #[error("the recording is damaged in the message at byte {offset}: {reason}")]
    Damaged {
        /// The offset of the message.
        offset: u64,
        /// The rule that it breaks.
        reason: String,
    },
    /// Something exceeds a limit of recordings.
    #[error("{what} is {found}, but a recording holds at most {limit}")]
    TooLarge {
        /// The thing and its unit.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The program is built without a format.
    #[error("this program is built without the format {format}")]
    NoFormat {
        /// The format.
        format: String,
    },
    /// A writer that failed, or was finished, was used again.
    #[error("the recording has ended: nothing more can be written")]
    Ended,
}

impl Error {
    /// Makes the error of bytes that are no recording.
    pub(crate) fn not_a_recording(reason: impl AsRef<str>) -> Self {
        Self::NotARecording { reason: printable(reason.as_ref()).into_owned() }
    }

    /// Makes the error of a damaged message.
    pub(crate) fn damaged(offset: u64, reason: impl AsRef<str>) -> Self {
        Self::Damaged { offset, reason: printable(reason.as_ref()).into_owned() }
    }

    /// Checks a size against its limit.
    pub(crate) fn check(what: &'static str, found: usize, limit: usize) -> Result<()> {
        if found <= limit {
            return Ok(());
        }
        Err(Self::TooLarge { what, found: found as u64, limit: limit as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_breaks_no_line() {
        let error = Error::damaged(7, "column a\nb\u{1b}");
        let want = "the recording is damaged in the message at byte 7: column a\u{fffd}b\u{fffd}";
        assert_eq!(error.to_string(), want);
        assert!(!Error::not_a_recording("\r").to_string().contains('\r'));
    }

    #[test]
    fn a_limit_is_the_largest_size() {
        assert!(Error::check("the number of columns", 5, 5).is_ok());
        let error = Error::check("the number of columns", 6, 5).map_err(|error| error.to_string());
        let want = "the number of columns is 6, but a recording holds at most 5";
        assert_eq!(error, Err(want.to_owned()));
    }
}
