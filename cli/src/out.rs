//! The output: results on standard output or in a file, and messages on standard error.
//!
//! Invariant: a closed pipe is no failure: later output is dropped, and [`Out::is_closed`] tells a
//! command that runs for long that there is no reader. Any other failure to write, such as a full
//! disk, is an error, at the latest at the last flush. A message that cannot be written is lost
//! without an error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;

use vmstrobe::text::printable;

use crate::error::{Error, Result};
use crate::width::shorten;

/// The largest number of columns of a line of a message: more than any of our texts has, and less
/// than an argument that the message repeats may have.
const MESSAGE_WIDTH_MAX: usize = 4096;

/// A writer of results to standard output or a file.
pub(crate) struct Out {
    sink: BufWriter<Box<dyn Write>>,
    /// The name that an error uses: `standard output`, or the path in quotes.
    name: String,
    terminal: bool,
    closed: bool,
}

impl Out {
    /// Creates the writer to standard output.
    pub(crate) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        Self::new(Box::new(io::stdout()), "standard output".to_owned(), terminal)
    }

    /// Creates a file, or truncates an existing one.
    ///
    /// # Errors
    /// If the file cannot be created.
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

    /// Writes a text unchanged. It must be our own, because it may contain escape sequences.
    ///
    /// # Errors
    /// If writing fails; a closed pipe is no error.
    pub(crate) fn as_is(&mut self, text: &str) -> Result<()> {
        self.attempt(|sink| sink.write_all(text.as_bytes()))
    }

    /// Writes lines. Control characters in them, such as in names that others chose, are replaced.
    ///
    /// # Errors
    /// As [`Out::as_is`].
    pub(crate) fn lines(&mut self, lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let mut lines = lines.into_iter();
        lines.try_for_each(|line| {
            let line = printable(line.as_ref());
            self.attempt(|sink| writeln!(sink, "{line}"))
        })
    }

    /// Writes all buffered output.
    ///
    /// # Errors
    /// As [`Out::as_is`].
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.attempt(|sink| sink.flush())
    }

    fn attempt(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let Err(error) = write(&mut self.sink) else { return Ok(()) };
        // After any error, later writes would fail too.
        self.closed = true;
        if error.kind() == ErrorKind::BrokenPipe {
            return Ok(());
        }
        Err(Error::failed(format!("cannot write to {}: {}", self.name, reason(&error))))
    }

    /// Returns true if the output goes to a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Returns true once the reader has closed its end, or writing has failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Prints a message of one line on standard error.
pub(crate) fn say(text: impl Display) {
    say_lines(&[text.to_string()]);
}

/// Prints messages of one line each on standard error.
pub(crate) fn say_each(messages: impl IntoIterator<Item = impl Display>) {
    messages.into_iter().for_each(say);
}

/// Prints a message of several lines on standard error. A line break within a line is part of a
/// name and is replaced, as all control characters are, so that a name cannot imitate a message.
pub(crate) fn say_lines(lines: &[String]) {
    // If standard error cannot be written to, there is no other way to report that.
    let _ = io::stderr().write_all(message(lines).as_bytes());
}

/// Prints a line on standard error in place of the one on which the cursor is, and clears what is
/// behind it. Does nothing unless standard error is a terminal.
pub(crate) fn say_in_place(line: &str, clear: &str) {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let _ = write!(stderr, "\r{}{clear}", printable(line)).and_then(|()| stderr.flush());
}

fn message(lines: &[String]) -> String {
    let line = |line: &String| shorten(&printable(line), MESSAGE_WIDTH_MAX);
    let lines: Vec<String> = lines.iter().map(line).collect();
    format!("vmstrobe: {}\n", lines.join("\n"))
}

/// Returns the system's text of an error, without the error number.
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
    fn a_name_cannot_begin_a_line_of_a_message() {
        let lines = ["a\nvmstrobe: b\u{1b}[2J\u{202e}".to_owned(), "\r\u{9b}c".to_owned()];
        let want = "vmstrobe: a\u{fffd}vmstrobe: b\u{fffd}[2J\u{fffd}\n\u{fffd}\u{fffd}c\n";
        assert_eq!(message(&lines), want);
        let long = message(&["x".repeat(1 << 20) + " is no pid"]);
        assert!(long.ends_with("x is no pid\n") && long.len() < 2 * MESSAGE_WIDTH_MAX, "{long}");
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let mut out = out(ErrorKind::BrokenPipe);
        assert!(out.as_is("a").is_ok() && !out.is_closed());
        assert!(out.flush().is_ok() && out.is_closed());
        assert!(out.lines(["b".to_owned()]).is_ok() && out.flush().is_ok());
    }

    #[test]
    fn a_full_disk_is_reported_once() {
        let mut out = out(ErrorKind::StorageFull);
        assert!(out.as_is("a").is_ok());
        let error = out.flush().map_err(|error| error.to_string());
        assert_eq!(error, Err("cannot write to it: no storage space".to_owned()));
        assert!(out.flush().is_ok());
    }

    #[test]
    fn the_error_number_is_left_out() {
        assert_eq!(reason(&io::Error::from_raw_os_error(28)), "No space left on device");
        assert_eq!(reason(&io::Error::other("so")), "so");
    }
}
