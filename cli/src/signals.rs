//! The signals that ask the command to end: SIGINT (Ctrl-C), SIGTERM and SIGHUP; and the signals
//! that are forwarded to a measured command.
//!
//! Invariant: a signal only sets a flag, which every long loop checks. SIGHUP stays ignored if it
//! was ignored at start (nohup). A signal that the measured command would ignore without vmstrobe
//! is not forwarded to it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(feature = "top")]
use signal_hook::consts::{SIGCONT, SIGTSTP};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::error::{Error, Result};
use crate::out::reason;

/// A flag that SIGINT, SIGTERM or SIGHUP sets. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct StopFlag {
    asked: Arc<AtomicBool>,
}

impl StopFlag {
    /// Installs the signal handlers that set the flag.
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
        // Relaxed: the flag guards no other data.
        self.asked.load(Ordering::Relaxed)
    }
}

/// A flag that SIGUSR2 sets, by which a flight recorder is asked for a dump.
#[derive(Debug)]
pub(crate) struct DumpFlag {
    asked: Arc<AtomicBool>,
}

impl DumpFlag {
    /// Installs the signal handler that sets the flag.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        flag::register(SIGUSR2, Arc::clone(&asked)).map_err(cannot_listen)?;
        Ok(Self { asked })
    }

    /// Returns true once for each time that the flag was set.
    pub(crate) fn take(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}

/// Flags that the signals of job control set: SIGTSTP, by which a shell stops a command, and
/// SIGCONT, by which it goes on.
#[cfg(feature = "top")]
#[derive(Debug)]
pub(crate) struct JobFlags {
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

#[cfg(feature = "top")]
impl JobFlags {
    /// Installs the signal handlers that set the flags. From then on, SIGTSTP stops nothing by
    /// itself. It stays ignored if it was ignored at start, as by shells without job control.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let flags = Self { stop: Arc::default(), go_on: Arc::default() };
        let register = |signal, flag: &Arc<AtomicBool>| {
            flag::register(signal, Arc::clone(flag)).map(drop).map_err(cannot_listen)
        };
        if !contains(ignored(), SIGTSTP) {
            register(SIGTSTP, &flags.stop)?;
        }
        register(SIGCONT, &flags.go_on)?;
        Ok(flags)
    }

    /// Returns true once for each time that the command was asked to stop.
    pub(crate) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Returns true once for each time that the command went on.
    pub(crate) fn take_go_on(&self) -> bool {
        self.go_on.swap(false, Ordering::Relaxed)
    }
}

/// A receiver of signals, for a thread that acts on each of them even if other threads are blocked.
#[derive(Debug)]
pub(crate) struct Signals(SignalDelivery<UnixStream, WithOrigin>);

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    /// True if the terminal sent the signal to all of its foreground processes. SIGHUP is never one
    /// of these: when a terminal is lost, the kernel sends it to the session leader alone.
    pub(crate) from_terminal: bool,
}

impl Signals {
    /// Receives the signals that end the command, from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn of_termination() -> Result<Self> {
        Self::listen(termination_signals(ignored()))
    }

    /// Receives the signals that are forwarded to a measured command, from now on. Until this call
    /// they have their default effect.
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

    /// Waits for the next signal, up to the limit if there is one, and returns it. It may return
    /// `None` earlier.
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

/// Returns the signals that end the command. A shell starts background processes with SIGINT
/// ignored, but a SIGINT that a user sends must end them; only for SIGHUP, by nohup, is ignoring
/// intended.
fn termination_signals(ignored: u64) -> impl Iterator<Item = i32> {
    let all = [SIGINT, SIGTERM, SIGHUP].into_iter();
    all.filter(move |&signal| signal != SIGHUP || !contains(ignored, signal))
}

/// Returns the mask of the signals that this process ignores; 0 if /proc cannot be read.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn contains(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

fn cannot_listen(error: io::Error) -> Error {
    Error::failed(format!("cannot install signal handlers: {}", reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_not_set_at_first() {
        assert!(!StopFlag::listen().expect("signal handlers can be installed").is_set());
    }

    #[test]
    fn of_the_termination_signals_only_sighup_stays_ignored() {
        assert_eq!(termination_signals(0).collect::<Vec<_>>(), [SIGINT, SIGTERM, SIGHUP]);
        assert_eq!(termination_signals(u64::MAX).collect::<Vec<_>>(), [SIGINT, SIGTERM]);
        // The Rust runtime ignores SIGPIPE in every program.
        assert!(contains(ignored(), signal_hook::consts::SIGPIPE));
        assert!(!contains(ignored(), signal_hook::consts::SIGTERM));
    }
}
