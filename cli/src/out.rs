//! The output: results on standard output or in a file, and messages on standard error.
//!
//! Invariant: a reader that has gone (a closed pipe) is no failure: what follows is dropped, and
//! [`Out::is_closed`] tells a command that writes for long that nobody reads. Any other failure to
//! write, such as a full disk, is an error that says so, at the latest at the last flush. A message
//! that cannot be written is lost, and nothing else comes of it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;

use vmstrobe::text::printable;

use crate::error::{Error, Result};
use crate::terminal;
use crate::width::shorten;

/// The most columns of a line of a message: more than any of ours has, and less than a name of an
/// argument may.
const MESSAGE_WIDTH_MAX: usize = 4096;

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

    /// Writes a text as it is: ours alone, with what moves a cursor or changes colours.
    ///
    /// # Errors
    /// If the place takes no more; not if its reader has gone.
    pub(crate) fn as_is(&mut self, text: &str) -> Result<()> {
        self.attempt(|sink| sink.write_all(text.as_bytes()))
    }

    /// Writes lines, whoever made up the names in them.
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

    /// Lets everything written so far be seen.
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

    /// The columns of a row that does not break: the terminal's; else without a limit, so that a
    /// file does not depend on who looked on.
    pub(crate) fn width(&self) -> usize {
        if self.terminal { terminal::size().width } else { usize::MAX }
    }

    /// True once its reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Says something to the user that is no result, in one line.
pub(crate) fn say(text: impl Display) {
    say_lines(&[text.to_string()]);
}

/// Says something of several lines. A line break within one of them is a name's, and is replaced as
/// all control characters are: it cannot begin a message that looks like one of ours.
pub(crate) fn say_lines(lines: &[String]) {
    // Nobody hears it: then nobody misses it.
    let _ = io::stderr().write_all(message(lines).as_bytes());
}

fn message(lines: &[String]) -> String {
    let line = |line: &String| shorten(&printable(line), MESSAGE_WIDTH_MAX);
    let lines: Vec<String> = lines.iter().map(line).collect();
    format!("vmstrobe: {}\n", lines.join("\n"))
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
    fn a_line_of_a_message_is_ours() {
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
    fn a_full_disk_is_said_once() {
        let mut out = out(ErrorKind::StorageFull);
        assert!(out.as_is("a").is_ok());
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
