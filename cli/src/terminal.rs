//! The person before us: how large the terminal is, a screen that refreshes, and Ctrl-C.
//!
//! Invariant: a terminal is left as it was found, cursor and contents, however the command ends
//! short of being killed. A signal asks to end and never interrupts; whoever works for long looks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};
use crate::out::{Out, reason};
use crate::text::fit;

/// What a terminal has that does not say.
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
        out.text(ENTER)?;
        Ok(Self { out })
    }

    /// Shows these lines and nothing else; what is too wide or too much is cut off.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub(crate) fn draw(&mut self, lines: &[String], size: Size) -> Result<()> {
        let shown = lines.iter().take(size.height).map(|line| fit(line, size.width));
        let shown: Vec<String> = shown.map(|line| line + CLEAR_LINE_END).collect();
        // No line end behind the last line: it would scroll a full screen.
        self.out.text(&format!("{HOME}{}{CLEAR_SCREEN_END}", shown.join("\r\n")))?;
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
        let _ = self.out.text(LEAVE).and_then(|()| self.out.flush());
    }
}

/// Whether the user has asked to end: by Ctrl-C, or SIGTERM.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// Listens from now on. If `second_kills`, whoever asks twice does not wait for us.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen(second_kills: bool) -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let register = |signal| -> io::Result<()> {
            if second_kills {
                // Before the other: it acts only if the flag is set already.
                flag::register_conditional_default(signal, Arc::clone(&asked))?;
            }
            flag::register(signal, Arc::clone(&asked)).map(drop)
        };
        [SIGINT, SIGTERM].into_iter().try_for_each(register).map_err(|error| {
            Error::failed(format!("cannot listen to signals: {}", reason(&error)))
        })?;
        Ok(Self { asked })
    }

    pub(crate) fn is_asked(&self) -> bool {
        // Relaxed: nothing else is read on its strength.
        self.asked.load(Ordering::Relaxed)
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
    fn nobody_has_asked_to_stop() {
        assert!(!Stop::listen(false).expect("signals can be listened to").is_asked());
    }
}
