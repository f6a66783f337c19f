//! Where results go, and where talk goes.
//!
//! Invariant: a reader that has gone (a closed pipe) is no failure: what follows is dropped, and
//! [`Out::is_closed`] tells whoever writes for long that nobody listens. Any other failure to
//! write, such as a full disk, is an error that says so, at the latest at the last flush. Talk that
//! cannot be written is lost, and nothing else comes of it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// A place for results: standard output or a file.
pub(crate) struct Out {
    sink: BufWriter<Box<dyn Write>>,
    /// As an error calls it.
    name: String,
    terminal: bool,
    closed: bool,
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self::new(Box::new(io::stdout()), "standard output".to_owned(), terminal)
    }

    /// A new file of that name, or an old one emptied.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let name = format!("'{}'", path.display());
        match File::create(path) {
            Ok(file) => Ok(Self::new(Box::new(file), name, false)),
            Err(error) => Err(Error::failed(format!("cannot create {name}: {}", reason(&error)))),
        }
    }

    fn new(sink: Box<dyn Write>, name: String, terminal: bool) -> Self {
        Self { sink: BufWriter::new(sink), name, terminal, closed: false }
    }

    /// Writes a text as it is.
    ///
    /// # Errors
    /// If the place takes no more; not if its reader has gone.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.attempt(|sink| sink.write_all(text.as_bytes()))
    }

    /// Writes lines.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn lines(&mut self, lines: impl IntoIterator<Item = String>) -> Result<()> {
        lines.into_iter().try_for_each(|line| self.text(&(line + "\n")))
    }

    /// Lets everything written so far be seen.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.attempt(|sink| sink.flush())
    }

    fn attempt(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let Err(error) = write(&mut self.sink) else { return Ok(()) };
        // Whichever it was, what comes next would fail like it.
        self.closed = true;
        if error.kind() == ErrorKind::BrokenPipe {
            return Ok(());
        }
        Err(Error::failed(format!("cannot write to {}: {}", self.name, reason(&error))))
    }

    /// Does a person look at it?
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// True once its reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Says something to the user that is no result. Control characters are not passed on: there may
/// be names in it that anyone has made up.
pub(crate) fn say(text: impl Display) {
    let is_unwanted = |c: char| c.is_control() && c != '\n';
    let text = text.to_string().replace(is_unwanted, "\u{fffd}");
    // Nobody hears it: then nobody misses it.
    let _ = writeln!(io::stderr(), "vmstrobe: {text}");
}

/// The system's words without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn out(kind: ErrorKind) -> Out {
        Out::new(Box::new(Failing(kind)), "it".to_owned(), false)
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let mut out = out(ErrorKind::BrokenPipe);
        assert!(out.text("a").is_ok() && !out.is_closed());
        assert!(out.flush().is_ok() && out.is_closed());
        assert!(out.lines(["b".to_owned()]).is_ok() && out.flush().is_ok());
    }

    #[test]
    fn a_full_disk_is_said_once() {
        let mut out = out(ErrorKind::StorageFull);
        assert!(out.text("a").is_ok());
        let error = out.flush().map_err(|error| error.to_string());
        assert_eq!(error, Err("cannot write to it: no storage space".to_owned()));
        assert!(out.flush().is_ok());
    }

    #[test]
    fn the_systems_number_is_left_out() {
        assert_eq!(reason(&io::Error::from_raw_os_error(28)), "No space left on device");
        assert_eq!(reason(&io::Error::other("so")), "so");
    }
}
