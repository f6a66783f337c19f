//! Runs `vmstrobe` on a terminal: a pseudo-terminal, whose other end is read.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::command::{Output, binary};
use crate::process::Reaped;

/// The terminal's width.
pub const COLUMNS: u16 = 80;

/// Opens a terminal of [`COLUMNS`]. Returns the end that is a keyboard and a screen, and the one
/// for programs.
///
/// # Panics
///
/// If there is no pseudo-terminal.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).expect("a pseudo-terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("the terminal is ours");
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).expect("the terminal is ours");
    let terminal = ioctl_tiocgptpeer(&ours, flags).expect("the terminal has another end");
    (ours, terminal)
}

/// Runs `vmstrobe` with these arguments on a terminal of [`COLUMNS`], to its end. The `stdout` of
/// the result is all that the terminal was sent.
///
/// # Panics
///
/// If there is no pseudo-terminal, or `vmstrobe` does not end in time.
pub fn on_terminal(limit: Duration, args: &[&str]) -> Output {
    let (ours, terminal) = terminal();
    let side =
        || Stdio::from(terminal.as_fd().try_clone_to_owned().expect("there is a free descriptor"));
    let child = Command::new(binary())
        .args(args)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(side())
        .stderr(side())
        .spawn()
        .expect("vmstrobe starts");
    let mut child = Reaped(child);
    drop(terminal);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // It ends by an error, as soon as nobody has the other end.
        let _ = File::from(ours).read_to_end(&mut bytes);
        bytes
    });
    let status = child.wait_within(limit);
    let status = status.unwrap_or_else(|| panic!("{args:?} runs longer than {limit:?}"));
    let bytes = reader.join().expect("reading does not panic");
    let stdout = String::from_utf8_lossy(&bytes).into_owned();
    Output { code: status.code(), stdout, stderr: String::new() }
}
