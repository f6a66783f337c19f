//! The terminal: what it can do, its size, and a screen that refreshes.
//!
//! Invariant: the cursor and the contents of the terminal are restored when the command ends,
//! except by SIGKILL or by a second signal while the terminal is stopped. A terminal whose type is
//! unknown or dumb gets plain lines.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;
use vmstrobe::text::printable;

use crate::error::Result;
use crate::out::{Out, say_in_place};
use crate::width::{fit, shorten};

/// The size that is assumed for a terminal that does not report one.
const DEFAULT: Size = Size { width: 80, height: 24 };

/// Switches to the alternate screen, which has no scrollback, and hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Shows the cursor and switches back to the main screen.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_SCREEN_END: &str = "\x1b[J";

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Returns the present size of the terminal at standard output.
pub(crate) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { width: size.ws_col.into(), height: size.ws_row.into() }
        }
        _ => DEFAULT,
    }
}

/// Returns the number of columns of a line of this output: those of the terminal, or no limit for a
/// file, whose content must not depend on a terminal.
pub(crate) fn width_of(out: &Out) -> usize {
    if out.is_terminal() { size().width } else { usize::MAX }
}

/// Returns true if the cursor of the user's terminal can be moved.
pub(crate) fn has_cursor() -> bool {
    is_capable(env::var_os("TERM"))
}

/// Returns true if standard output is a terminal and the user has not disabled colours by NO_COLOR
/// (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    io::stdout().is_terminal()
        && has_cursor()
        && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// Returns true if a terminal of this type understands escape sequences. Those that are used are of
/// ECMA-48, which all terminals but dumb ones understand.
fn is_capable(name: Option<OsString>) -> bool {
    name.is_some_and(|name| !name.is_empty() && name != OsStr::new("dumb"))
}

/// Shows a line of progress on standard error in place of the last one; an empty one clears it.
/// Does nothing unless standard error is a terminal on which the cursor can be moved.
pub(crate) fn show_progress(text: &str) {
    if has_cursor() {
        say_in_place(&shorten(text, size().width.saturating_sub(1)), CLEAR_LINE_END);
    }
}

/// The alternate screen of the terminal, until this is dropped.
pub(crate) struct Screen<'a> {
    out: &'a mut Out,
}

impl<'a> Screen<'a> {
    /// Switches the terminal to the alternate screen.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub(crate) fn enter(out: &'a mut Out) -> Result<Self> {
        out.as_is(ENTER)?;
        Ok(Self { out })
    }

    /// Replaces the contents of the screen by these lines, cut to its size.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub(crate) fn draw(&mut self, lines: &[String], size: Size) -> Result<()> {
        let shown = lines.iter().take(size.height);
        let shown = shown.map(|line| fit(&printable(line), size.width));
        let shown: Vec<String> = shown.map(|line| line + CLEAR_LINE_END).collect();
        // No line end behind the last line: it would scroll a full screen.
        self.out.as_is(&format!("{HOME}{}{CLEAR_SCREEN_END}", shown.join("\r\n")))?;
        self.out.flush()
    }

    /// Returns true once the terminal is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // A terminal that cannot be written to cannot be restored.
        let _ = self.out.as_is(LEAVE).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_cut_to_its_size_and_restored() {
        let path = std::env::temp_dir().join(format!("vmstrobe-screen-{}", std::process::id()));
        let mut out = Out::file(&path).expect("the directory can be written to");
        let mut screen = Screen::enter(&mut out).expect("a file accepts all writes");
        let lines = ["abcdef", "b", "c"].map(str::to_owned);
        screen.draw(&lines, Size { width: 4, height: 2 }).expect("a file accepts all writes");
        assert!(!screen.is_closed());
        drop(screen);
        let written = std::fs::read_to_string(&path).expect("the screen wrote the file");
        std::fs::remove_file(&path).expect("the file exists");
        let drawn = format!("{HOME}abc…{CLEAR_LINE_END}\r\nb{CLEAR_LINE_END}{CLEAR_SCREEN_END}");
        assert_eq!(written, format!("{ENTER}{drawn}{LEAVE}"));
    }

    #[test]
    fn a_dumb_terminal_gets_no_escape_sequences() {
        for (name, want) in
            [("xterm-256color", true), ("vt100", true), ("dumb", false), ("", false)]
        {
            assert_eq!(is_capable(Some(name.into())), want, "{name}");
        }
        assert!(!is_capable(None));
    }
}
