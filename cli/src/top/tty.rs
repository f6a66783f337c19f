//! The terminal while the screen is shown: keys one by one, the alternate screen, no cursor.
//!
//! Invariant: the terminal is as it was before once this is dropped or left, and after a panic of
//! any thread. What is drawn is what has changed.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event,
};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::style::force_color_output;
use ratatui_crossterm::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::background;
use super::theme::Colours;

/// The bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 << 10;

type Screen = BufWriter<Stdout>;

/// The terminal.
#[derive(Debug)]
pub(super) struct Tty {
    terminal: Terminal<CrosstermBackend<Screen>>,
    /// The terminal that crossterm reads keys from.
    keys: OwnedFd,
    /// True while the screen is shown. A panic hook shares it.
    is_shown: Arc<AtomicBool>,
    /// True once a thread has panicked.
    is_broken: Arc<AtomicBool>,
    /// True once the terminal is gone.
    is_closed: bool,
}

impl Tty {
    /// Prepares the terminal and shows an empty screen. Returns its colours too.
    ///
    /// # Errors
    /// If the terminal cannot be read or written to.
    pub(super) fn open(has_colours: bool) -> io::Result<(Self, Colours)> {
        let is_shown = Arc::new(AtomicBool::new(false));
        let is_broken = Arc::new(AtomicBool::new(false));
        restore_at_panic(Arc::clone(&is_shown), Arc::clone(&is_broken));
        // Its own way of obeying NO_COLOR resets bold and reverse too. Ours is in the theme.
        force_color_output(true);
        let keys = keys()?;
        is_shown.store(true, Ordering::Relaxed);
        let screen = BufWriter::with_capacity(BUFFER_BYTES, stdout());
        let made = show().and_then(|()| Terminal::new(CrosstermBackend::new(screen)));
        let terminal = match made {
            Ok(terminal) => terminal,
            Err(error) => {
                restore(&is_shown);
                return Err(error);
            }
        };
        let mut tty = Self { terminal, keys, is_shown, is_broken, is_closed: false };
        let colours = background::colours(has_colours, tty.terminal.backend_mut());
        Ok((tty, colours))
    }

    /// Leaves the terminal to others, until [`Tty::enter`].
    pub(super) fn leave(&mut self) {
        restore(&self.is_shown);
    }

    /// Takes the terminal again, whatever others have made of it, and forgets what it shows.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        // Others may have changed the modes while this process was stopped.
        let _ = disable_raw_mode();
        self.is_shown.store(true, Ordering::Relaxed);
        show()?;
        self.terminal.clear()
    }

    /// Forgets what the terminal shows, so that all of it is drawn again.
    pub(super) fn forget(&mut self) {
        let cleared = self.terminal.clear();
        self.note(cleared);
    }

    /// Draws a screen, if the terminal is there.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Buffer)) {
        let _ = execute!(self.terminal.backend_mut(), BeginSynchronizedUpdate);
        let drawn = self.terminal.draw(|frame| draw(frame.buffer_mut())).map(drop);
        let ended = execute!(self.terminal.backend_mut(), EndSynchronizedUpdate);
        self.note(drawn.and(ended));
    }

    /// Returns the size of the screen; nothing of a terminal that is gone.
    pub(super) fn area(&mut self) -> ratatui_core::layout::Rect {
        let sized = self.terminal.autoresize();
        self.note(sized);
        self.terminal.get_frame().area()
    }

    /// Returns the next key or resize, if one comes in time.
    pub(super) fn event(&mut self, timeout: Duration) -> Option<Event> {
        self.next(Duration::ZERO).or_else(|| self.next(timeout))
    }

    /// Waits for a key, and returns it. A key that came with an earlier one is not waited for.
    fn next(&mut self, timeout: Duration) -> Option<Event> {
        // crossterm would read from a terminal that has hung up for ever.
        if self.is_closed || self.hangs_up_within(timeout) {
            self.is_closed = true;
            return None;
        }
        match event::poll(Duration::ZERO).and_then(|has| has.then(event::read).transpose()) {
            Ok(event) => event,
            Err(error) => {
                // What cannot be understood is no key, and the terminal is there.
                self.is_closed |=
                    error.kind() != io::ErrorKind::Interrupted && error.raw_os_error().is_some();
                None
            }
        }
    }

    /// Waits until there is a key, or the time has passed. Returns true if the terminal is gone.
    fn hangs_up_within(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).ok();
        let mut waits = [PollFd::new(&self.keys, PollFlags::IN)];
        // A signal is no hang-up.
        let is_ready = matches!(poll(&mut waits, timeout.as_ref()), Ok(1..));
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        is_ready && waits[0].revents().intersects(gone)
    }

    /// Returns true once the terminal is gone, or left to the message of a panic.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed || self.is_broken.load(Ordering::Relaxed)
    }

    /// Returns true while the terminal is left to others.
    pub(super) fn is_left(&self) -> bool {
        !self.is_shown.load(Ordering::Relaxed)
    }

    fn note(&mut self, result: io::Result<()>) {
        self.is_closed |= result.is_err();
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Returns the terminal that crossterm reads keys from.
fn keys() -> io::Result<OwnedFd> {
    match stdin() {
        stdin if stdin.is_terminal() => stdin.as_fd().try_clone_to_owned(),
        _ => File::open("/dev/tty").map(OwnedFd::from),
    }
}

/// Takes keys one by one, and shows the alternate screen.
fn show() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide, EnableBracketedPaste)
}

/// Leaves the alternate screen, and gives the keys back, once.
fn restore(is_shown: &AtomicBool) {
    if is_shown.swap(false, Ordering::Relaxed) {
        // A terminal that cannot be written to cannot be restored. Each step is tried.
        let _ = execute!(stdout(), DisableBracketedPaste, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = stdout().flush();
    }
}

/// Has a panic of any thread restore the terminal before its message is printed.
fn restore_at_panic(is_shown: Arc<AtomicBool>, is_broken: Arc<AtomicBool>) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        is_broken.store(true, Ordering::Relaxed);
        restore(&is_shown);
        before(info);
    }));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Set where the test below runs itself on a terminal of its own.
    const ON_A_TERMINAL: &str = "VMSTROBE_TEST_ON_A_TERMINAL";

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        if std::env::var_os(ON_A_TERMINAL).is_some() {
            let _shown = Tty::open(false).expect("it is a terminal");
            panic!("on purpose");
        }
        let this = std::env::current_exe().expect("it runs");
        let test = "--exact top::tty::tests::a_panic_leaves_the_terminal_as_it_was --nocapture";
        let line = format!("stty -a; {} {test}; stty -a", this.display());
        // Of Debian's essential package bsdutils.
        let mut script = Command::new("script");
        script.args(["-qc", &line, "/dev/null"]).env(ON_A_TERMINAL, "1").stdin(Stdio::null());
        let output = script.output().expect("script can be run");
        let text = String::from_utf8_lossy(&output.stdout);
        let modes: Vec<&str> = text.split("speed ").skip(1).collect();
        assert_eq!(modes.len(), 2, "{text}");
        assert!(modes[0].starts_with(modes[1].trim_end()), "{text}");
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} in {text}"));
        let shown = at("\x1b[?1049h")..at("\x1b[?1049l");
        assert!(shown.contains(&at("\x1b[?25l")) && shown.contains(&at("\x1b[?25h")), "{text}");
        assert!(at("on purpose") > shown.end, "the message stands on the screen before: {text}");
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_screen() {
        // The screen is not shown, so nothing is written here.
        let (is_shown, is_broken) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let before = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        restore_at_panic(Arc::clone(&is_shown), Arc::clone(&is_broken));
        let joined = std::thread::spawn(|| panic!("a thread of a test")).join();
        panic::set_hook(before);
        assert!(joined.is_err() && is_broken.load(Ordering::Relaxed));
        assert!(!is_shown.load(Ordering::Relaxed));
    }
}
