//! The end of a command at a signal, whatever its other threads are doing: of `serve` within a
//! second, of `stat` and `demo` at the second signal.
//!
//! Reading what other users' processes show can take any time: a process can keep us waiting in
//! the kernel. So can a terminal that was stopped (Ctrl-S). So a thread of its own waits for
//! signals and does nothing else. The first asks the main thread to end (see
//! [`StopFlag`](crate::signals::StopFlag)); if it has not ended after [`STOP_LIMIT`], this thread removes
//! the sockets and ends the process with status 0, as it was asked to. A second signal does so at
//! once, with status 128 + the signal's number.
//!
//! While a command is measured, signals are for it: the first is passed on, and the measuring ends
//! with the command. A second one kills the command if it comes within [`COMMAND_SECOND_WITHIN`],
//! so that the command does not run on unnoticed; if the main thread has not ended after
//! [`STOP_LIMIT`], this thread ends the process. What the terminal sends reaches the command
//! without us: it is not passed on, and counts as neither the first nor the second, because many a
//! command (a shell, a debugger) lives on after Ctrl-C.
//!
//! A second signal is one that comes [`SECOND_AFTER`] the first or later. Earlier it is the same
//! one again: sudo and timeout pass on what the terminal, or they themselves, have sent already.
//!
//! Invariant: this thread waits for nothing but signals. It reads nothing of others, writes no
//! message, and takes no lock that is held while anything else is waited for.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, exit};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};
use vmstrobe::Broker;
use vmstrobe::host::has_exited;
use vmstrobe_listen::SocketFile;

use crate::error::{Error, Result};
use crate::out::reason;
use crate::privileges::keep_socket_removal_only;
use crate::signals::{Signal, Signals};

/// How long the main thread has to end by itself.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// A signal that comes so soon after the first is the same one again.
const SECOND_AFTER: Duration = Duration::from_millis(100);
/// How long a second one may take that kills a measured command: later it is another request, such
/// as a SIGHUP by which a daemon reads its configuration again.
const COMMAND_SECOND_WITHIN: Duration = Duration::from_secs(5);
/// A process that a signal ended has this status and the signal's number, to a shell.
const SIGNAL_STATUS: i32 = 128;

/// The files of the sockets that there are now. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketFiles {
    shared: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    present: Vec<Arc<SocketFile>>,
    /// True once all were removed, because the process ends.
    is_closed: bool,
}

impl SocketFiles {
    /// Notes a socket that was just made; removes it if all others have been.
    pub(crate) fn add(&self, path: &Path) {
        let Some(file) = SocketFile::at(path) else { return };
        let mut files = self.lock();
        if files.is_closed {
            file.remove();
        } else {
            files.present.push(Arc::new(file));
        }
    }

    /// Removes those at these paths that are still ours, and forgets them.
    pub(crate) fn remove(&self, paths: &[PathBuf]) {
        // Without the lock, which the end of the process may be waiting for.
        let paths: Vec<_> = paths.iter().flat_map(std::path::absolute).collect();
        let mut closed = self.lock().present.clone();
        closed.retain(|file| paths.iter().any(|path| path == file.path()));
        closed.iter().for_each(|file| file.remove());
        let is_closed = |file: &_| closed.iter().any(|closed| Arc::ptr_eq(file, closed));
        self.lock().present.retain(|file| !is_closed(file));
    }

    /// Removes those that are still ours, and any that are added later.
    fn remove_all(&self) {
        let mut files = self.lock();
        files.is_closed = true;
        files.present.drain(..).for_each(|file| file.remove());
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it, from now on, that the process ends when it is asked to.
///
/// # Errors
/// If the system refuses.
pub(crate) fn exit_in_time(files: SocketFiles) -> Result<()> {
    let mut signals = Signals::of_termination()?;
    let watch = move || {
        keep_socket_removal_only();
        let wait = |limit| number(signals.wait(limit));
        let second = wait_for_second_signal(wait, STOP_LIMIT, Instant::now);
        files.remove_all();
        exit(second.map_or(0, |signal| SIGNAL_STATUS + signal));
    };
    spawn(watch)
}

/// Ends the process at the second signal from now on; what the first does is decided elsewhere.
///
/// # Errors
/// If the system refuses.
pub(crate) fn exit_at_second_signal() -> Result<()> {
    let mut signals = Signals::of_termination()?;
    spawn(move || {
        let second =
            wait_for_two_signals(Duration::MAX, Instant::now, || number(signals.wait(None)));
        exit(SIGNAL_STATUS + second);
    })
}

/// Passes signals on to the command from now on, and kills it at the second. The broker has the
/// right to do so even if the command has become another user's.
///
/// # Errors
/// If the system refuses.
pub(crate) fn forward_signals(mut signals: Signals, command: &Child, broker: Broker) -> Result<()> {
    let mut command = MeasuredCommand::new(command, broker)?;
    spawn(move || {
        let second = wait_for_two_signals(COMMAND_SECOND_WITHIN, Instant::now, || {
            let signal = signals.wait(None).filter(|signal| command.must_forward(*signal));
            signal.iter().for_each(|signal| command.forward(*signal));
            number(signal)
        });
        command.send(Number::KILL);
        thread::sleep(STOP_LIMIT);
        exit(SIGNAL_STATUS + second);
    })
}

/// A measured command, which gets signals from us, and the last that it got.
struct MeasuredCommand {
    /// Not its process id, which may be another's once it has been waited for.
    pidfd: Arc<OwnedFd>,
    broker: Broker,
    last: Option<(i32, Instant)>,
}

impl MeasuredCommand {
    fn new(command: &Child, broker: Broker) -> Result<Self> {
        let opened = pidfd_open(Pid::from_child(command), PidfdFlags::empty());
        let pidfd = opened.map_err(|errno| {
            let reason = reason(&errno.into());
            Error::failed(format!("cannot open the command to pass signals on to it: {reason}"))
        })?;
        Ok(Self { pidfd: Arc::new(pidfd), broker, last: None })
    }

    /// Returns true unless the command gets the signal from the terminal. Once it has ended, every
    /// signal is for us.
    fn must_forward(&self, signal: Signal) -> bool {
        !signal.from_terminal || has_exited(&self.pidfd)
    }

    /// Passes a signal on, unless it is the last one again.
    fn forward(&mut self, signal: Signal) {
        let is_same =
            |(last, when): (i32, Instant)| last == signal.number && when.elapsed() < SECOND_AFTER;
        if self.last.is_some_and(is_same) {
            return;
        }
        self.last = Some((signal.number, Instant::now()));
        if let Some(number) = Number::from_named_raw(signal.number) {
            self.send(number);
        }
    }

    /// Sends a signal, and waits for nothing.
    fn send(&self, signal: Number) {
        // It takes no right as long as the command is our own user's. If the command has ended, it
        // fails, and that is what was wanted.
        if pidfd_send_signal(&*self.pidfd, signal) != Err(Errno::PERM) {
            return;
        }
        // The broker may be kept waiting itself, so another thread waits for it. It fails if we
        // were started without CAP_KILL: then the command is its user's to end.
        let (pidfd, broker) = (Arc::clone(&self.pidfd), self.broker.clone());
        let ask = move || broker.run(move || pidfd_send_signal(&*pidfd, signal));
        let _ = thread::Builder::new().name("vmstrobe-stop".into()).spawn(ask);
    }
}

fn number(signal: Option<Signal>) -> Option<i32> {
    signal.map(|signal| signal.number)
}

/// Waits for two signals of which the second comes within that time of the first; one that comes
/// later is a first one again. Returns the second. `now` gives the time, and `wait` waits for the
/// next signal; it may return without one.
fn wait_for_two_signals(
    within: Duration,
    now: impl Fn() -> Instant,
    mut wait: impl FnMut() -> Option<i32>,
) -> i32 {
    let mut first: Option<Instant> = None;
    loop {
        let Some(signal) = wait() else { continue };
        let came = now();
        match first.map(|first| came - first) {
            Some(after) if after < SECOND_AFTER => {}
            Some(after) if after <= within => return signal,
            _ => first = Some(came),
        }
    }
}

fn spawn(watch: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name("vmstrobe-stop".into()).spawn(watch);
    thread.map(drop).map_err(|error| {
        Error::failed(format!("cannot start a thread that ends it: {}", reason(&error)))
    })
}

/// Waits for a signal, and then for a second one within the limit. `wait` gives the next signal, if
/// one comes in so much time, and `now` the time.
fn wait_for_second_signal(
    mut wait: impl FnMut(Option<Duration>) -> Option<i32>,
    limit: Duration,
    now: impl Fn() -> Instant,
) -> Option<i32> {
    // Without a limit, what ends the waiting otherwise is a signal that says nothing to us.
    while wait(None).is_none() {}
    let first = now();
    loop {
        let left = limit.saturating_sub(now() - first);
        if left.is_zero() {
            return None;
        }
        let signal = wait(Some(left));
        if signal.is_some() && now() - first >= SECOND_AFTER {
            return signal;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;
    use std::sync::mpsc;

    use rustix::process::geteuid;
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    const NONE: CapabilitySets = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };

    #[test]
    fn a_second_signal_is_one_that_comes_later() {
        const { assert!(STOP_LIMIT.as_millis() <= 500 && SECOND_AFTER.as_millis() <= 200) };
        for (pauses_ms, want) in [
            (&[0][..], None),
            (&[0, 0, 0], None),
            (&[0, 150], Some(2)),
            (&[0, 0, 150], Some(3)),
            (&[0, 700], None),
        ] {
            // They come after these pauses, by a clock that moves only as far as it is waited.
            let clock = Cell::new(Instant::now());
            let mut signals = (1..).zip(pauses_ms).map(|(n, ms)| (n, Duration::from_millis(*ms)));
            let wait = |limit: Option<Duration>| {
                let next = signals.next();
                let pause = next.map(|(_, pause)| pause);
                let waited = pause.into_iter().chain(limit).min().expect("it waits");
                clock.set(clock.get() + waited);
                next.filter(|_| pause == Some(waited)).map(|(number, _)| number)
            };
            let second = wait_for_second_signal(wait, Duration::from_millis(600), || clock.get());
            assert_eq!(second, want, "{pauses_ms:?}");
        }
    }

    #[test]
    fn much_later_a_second_signal_is_a_first_one_again() {
        for (pauses_ms, want) in [
            (&[0, 4900][..], 2),
            (&[0, 50, 4900], 3),
            (&[0, 5100, 50, 200], 4),
            (&[0, 6000, 6000, 6000, 300], 5),
        ] {
            let clock = Cell::new(Instant::now());
            let mut signals = (1..).zip(pauses_ms);
            let wait = || {
                let (number, ms) = signals.next().expect("the second is one of these");
                clock.set(clock.get() + Duration::from_millis(*ms));
                Some(number)
            };
            let second = wait_for_two_signals(COMMAND_SECOND_WITHIN, || clock.get(), wait);
            assert_eq!(second, want, "{pauses_ms:?}");
        }
    }

    fn sleep() -> (Command, Broker) {
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        (sleep, Broker::start().expect("there are threads"))
    }

    #[test]
    fn what_the_terminal_sends_is_not_passed_on() {
        let (mut sleep, broker) = sleep();
        let mut sleep = sleep.spawn().expect("there is sleep(1)");
        let mut command = MeasuredCommand::new(&sleep, broker).expect("it is ours");
        let signal = |number, from_terminal| Signal { number, from_terminal };
        assert!(!command.must_forward(signal(2, true)) && command.must_forward(signal(2, false)));
        command.forward(signal(15, false));
        let status = sleep.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(15));
        // The same again so soon is the same one; and nobody is hit by what comes too late.
        let last = command.last;
        command.forward(signal(15, false));
        assert!(last.is_some() && command.last == last);
        command.forward(signal(2, false));
        assert!(command.last.is_some_and(|(number, _)| number == 2));
        // Nobody else is left to whom the terminal could send it.
        assert!(command.must_forward(signal(2, true)));
    }

    #[test]
    fn a_broker_that_is_kept_waiting_delays_no_signal() {
        let (mut sleep, broker) = sleep();
        let (go_on, waits) = mpsc::channel::<()>();
        let busy = broker.clone();
        let busy = thread::spawn(move || busy.run(move || waits.recv()));
        let mut ours = sleep.spawn().expect("there is sleep(1)");
        MeasuredCommand::new(&ours, broker.clone()).expect("it is ours").send(Number::TERM);
        assert_eq!(ours.wait().expect("it is ours").signal(), Some(15));
        if geteuid().is_root() {
            // To signal another user's, this thread has no right.
            let mut anothers = sleep.uid(65534).spawn().expect("root may become anyone");
            let command = MeasuredCommand::new(&anothers, broker).expect("it is ours");
            let send = move || {
                set_capabilities(None, NONE).expect("capabilities can be given up");
                let began = Instant::now();
                command.send(Number::TERM);
                began.elapsed()
            };
            let took = thread::spawn(send).join().expect("it does not panic");
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert_eq!(anothers.try_wait().expect("it is ours"), None);
            go_on.send(()).expect("it waits");
            assert_eq!(anothers.wait().expect("it is ours").signal(), Some(15));
        }
        drop(go_on);
        let _ = busy.join().expect("it does not panic");
    }

    #[test]
    fn what_is_removed_is_what_was_made() {
        let root = std::env::temp_dir().join(format!("vmstrobe-stop-{}", std::process::id()));
        fs::create_dir_all(&root).expect("it can be made");
        let path = |name: &str| root.join(name);
        let sockets = ["ours", "gone", "another's"]
            .map(|name| UnixListener::bind(path(name)).expect("it is free"));
        let files = SocketFiles::default();
        for name in ["ours", "gone", "another's"] {
            files.add(&path(name));
        }
        fs::remove_file(path("gone")).expect("it is there");
        files.remove(&[path("gone")]);
        assert_eq!(files.lock().present.len(), 2);
        // Kept, so that its number is not given to the next.
        fs::rename(path("another's"), path("moved")).expect("it is there");
        fs::write(path("another's"), "").expect("it is free");
        files.remove_all();
        assert!(!path("ours").exists() && path("another's").exists());
        // One that is made too late is not left behind either.
        let late = UnixListener::bind(path("late")).expect("it is free");
        files.add(&path("late"));
        assert!(!path("late").exists());
        drop((sockets, late));
        fs::remove_dir_all(&root).expect("it is ours");
    }
}
