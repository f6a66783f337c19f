//! The signals that ask to end: Ctrl-C, SIGTERM and SIGHUP; and those that a command which is
//! measured gets from us.
//!
//! Invariant: a signal asks to end and never interrupts; whoever works for long looks. What was
//! ignored when we were started stays ignored where it is not for us to decide: SIGHUP under nohup,
//! and whatever the measured command would ignore without us.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::error::{Error, Result};
use crate::out::reason;

/// Whether the user has asked to end: by Ctrl-C, SIGTERM or SIGHUP.
#[derive(Clone, Debug)]
pub(crate) struct StopFlag {
    asked: Arc<AtomicBool>,
}

impl StopFlag {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let register = |signal| flag::register(signal, Arc::clone(&asked)).map(drop);
        termination_signals(ignored()).try_for_each(register).map_err(cannot_listen)?;
        Ok(Self { asked })
    }

    pub(crate) fn is_set(&self) -> bool {
        // Relaxed: nothing else is read on its strength.
        self.asked.load(Ordering::Relaxed)
    }
}

/// Signals to be waited for one by one: for a thread that acts on them although others hang.
#[derive(Debug)]
pub(crate) struct Signals(SignalDelivery<UnixStream, WithOrigin>);

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    /// True if the terminal sent it to all of its foreground processes. Of a terminal that is lost
    /// the kernel tells the leader of the session alone, so SIGHUP is none of these.
    pub(crate) from_terminal: bool,
}

impl Signals {
    /// Listens to those that end us, from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn of_termination() -> Result<Self> {
        Self::listen(termination_signals(ignored()))
    }

    /// Listens to those that are for a command which we run, from now on. Before, they do what they
    /// do by default.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn forwarded() -> Result<Self> {
        let ignored = ignored();
        let all = [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter();
        Self::listen(all.filter(|&signal| !contains(ignored, signal)))
    }

    fn listen(signals: impl Iterator<Item = i32>) -> Result<Self> {
        let listen = || {
            let (came, wake) = UnixStream::pair()?;
            SignalDelivery::with_pipe(came, wake, WithOrigin::default(), signals).map(Self)
        };
        listen().map_err(cannot_listen)
    }

    /// Returns the next signal: waits for it, but no longer than the limit, if there is one. It may
    /// return without one earlier.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Option<Signal> {
        let mut came = self.0.pending().next();
        if came.is_none() {
            let mut wait = |wake: &mut UnixStream| {
                wake.set_read_timeout(limit)?;
                wake.read_exact(&mut [0]).map(|()| true)
            };
            came = self.0.poll_pending(&mut wait).ok().flatten()?.next();
        }
        came.map(|Origin { signal, cause, .. }| Signal {
            number: signal,
            from_terminal: cause == Cause::Kernel && signal != SIGHUP,
        })
    }
}

/// The signals that end us. A shell lets what it starts in the background ignore SIGINT, which is
/// no reason not to end where somebody sends it; only nohup means it so.
fn termination_signals(ignored: u64) -> impl Iterator<Item = i32> {
    let all = [SIGINT, SIGTERM, SIGHUP].into_iter();
    all.filter(move |&signal| signal != SIGHUP || !contains(ignored, signal))
}

/// The signals that this process ignores now, as a mask; none if it is not known.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn contains(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

fn cannot_listen(error: io::Error) -> Error {
    Error::failed(format!("cannot listen to signals: {}", reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_asked_to_stop() {
        assert!(!StopFlag::listen().expect("signals can be listened to").is_set());
    }

    #[test]
    fn only_sighup_stays_ignored_if_it_is_for_us() {
        assert_eq!(termination_signals(0).collect::<Vec<_>>(), [SIGINT, SIGTERM, SIGHUP]);
        assert_eq!(termination_signals(u64::MAX).collect::<Vec<_>>(), [SIGINT, SIGTERM]);
        // Rust itself has every program ignore SIGPIPE.
        assert!(contains(ignored(), signal_hook::consts::SIGPIPE));
        assert!(!contains(ignored(), signal_hook::consts::SIGTERM));
    }
}
