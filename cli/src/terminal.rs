//! The terminal: what it can do, its size, and a screen that refreshes.
//!
//! Invariant: a terminal is left as it was found, cursor and contents, however the command ends
//! short of being killed, or of a second signal while the terminal takes no output. One that says
//! nothing of itself, or that it is dumb, gets plain lines.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;
use vmstrobe::text::printable;

use crate::error::Result;
use crate::out::Out;
use crate::width::fit;

/// The size of a terminal that does not tell its own.
const DEFAULT: Size = Size { width: 80, height: 24 };

/// To the alternate screen, which has no history to spoil, and the cursor away.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// The cursor and the former contents back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_SCREEN_END: &str = "\x1b[J";

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// How large the terminal at standard output is now.
pub(crate) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { width: size.ws_col.into(), height: size.ws_row.into() }
        }
        _ => DEFAULT,
    }
}

/// Can the cursor of the user's terminal be moved?
pub(crate) fn has_cursor() -> bool {
    is_capable(env::var_os("TERM"))
}

/// Is standard output a terminal on which colours are wanted? <https://no-color.org> has the
/// variable.
pub(crate) fn has_colours() -> bool {
    io::stdout().is_terminal()
        && has_cursor()
        && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// Does a terminal of that name take escape sequences? They are those of ECMA-48, which all have
/// but the dumb ones.
fn is_capable(name: Option<OsString>) -> bool {
    name.is_some_and(|name| !name.is_empty() && name != OsStr::new("dumb"))
}

/// A terminal that is drawn on again and again, until this is dropped.
pub(crate) struct Screen<'a> {
    out: &'a mut Out,
}

impl<'a> Screen<'a> {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub(crate) fn enter(out: &'a mut Out) -> Result<Self> {
        out.as_is(ENTER)?;
        Ok(Self { out })
    }

    /// Shows these lines and nothing else; what is too wide or too much is cut off.
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

    /// True once the terminal has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.out.is_closed()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // If it cannot be written to, there is nothing to be restored.
        let _ = self.out.as_is(LEAVE).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_cut_to_its_size_and_given_back() {
        let path = std::env::temp_dir().join(format!("vmstrobe-screen-{}", std::process::id()));
        let mut out = Out::file(&path).expect("the directory can be written to");
        let mut screen = Screen::enter(&mut out).expect("it takes everything");
        let lines = ["abcdef", "b", "c"].map(str::to_owned);
        screen.draw(&lines, Size { width: 4, height: 2 }).expect("it takes everything");
        assert!(!screen.is_closed());
        drop(screen);
        let written = std::fs::read_to_string(&path).expect("it is there");
        std::fs::remove_file(&path).expect("it is there");
        let drawn = format!("{HOME}abc…{CLEAR_LINE_END}\r\nb{CLEAR_LINE_END}{CLEAR_SCREEN_END}");
        assert_eq!(written, format!("{ENTER}{drawn}{LEAVE}"));
    }

    #[test]
    fn a_dumb_terminal_gets_no_sequences() {
        for (name, want) in
            [("xterm-256color", true), ("vt100", true), ("dumb", false), ("", false)]
        {
            assert_eq!(is_capable(Some(name.into())), want, "{name}");
        }
        assert!(!is_capable(None));
    }
}
