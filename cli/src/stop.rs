//! A thread that ends the process after signals even if other threads are blocked: `serve` within a
//! second of the first signal, `stat` and `demo` at the second signal.
//!
//! Reading files of other users' processes can block in the kernel for any time, and so can writing
//! to a terminal that is stopped (Ctrl-S). Therefore a separate thread only waits for signals. The
//! first signal asks the main thread to end (see [`StopFlag`](crate::signals::StopFlag)). If the
//! main thread of `serve` has not ended after [`STOP_LIMIT`], this thread removes the sockets and
//! exits with status 0. A second signal makes it exit at once, with status 128 + the signal's
//! number.
//!
//! While a command is measured, signals are meant for that command. The first signal is forwarded,
//! and the measurement ends when the command ends. A second signal within [`COMMAND_SECOND_WITHIN`]
//! kills the command; if the main thread has not ended after [`STOP_LIMIT`], this thread exits. A
//! signal from the terminal reaches the command directly. It is not forwarded and not counted,
//! because many commands (a shell, a debugger) continue after Ctrl-C.
//!
//! A signal counts as the second if it comes at least [`SECOND_AFTER`] after the first. An earlier
//! one is a copy of the first: sudo and timeout forward signals that the process group has already
//! received.
//!
//! Invariant: this thread waits for nothing but signals. It reads no file of another process,
//! writes no message, and takes no lock that is held while another thread waits.

use std::os::fd::OwnedFd;
use std::process::{Child, exit};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};
use vmstrobe::host::has_exited;
use vmstrobe::serve::SocketFiles;
use vmstrobe::{Broker, ThreadStart};

use crate::error::{Error, Result};
use crate::out::reason;
use crate::privileges::{socket_removing_threads, unprivileged_threads};
use crate::signals::{Signal, Signals};

/// The time that the main thread has to end by itself.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// A signal that comes sooner after the first is a copy of it.
const SECOND_AFTER: Duration = Duration::from_millis(100);
/// A second signal kills a measured command if it comes within this time. A later one is a new
/// request, such as a SIGHUP by which a daemon reloads its configuration.
const COMMAND_SECOND_WITHIN: Duration = Duration::from_secs(5);
/// Shells report the status of a process that a signal ended as this number plus the signal's.
const SIGNAL_STATUS: i32 = 128;

/// Starts a thread that exits [`STOP_LIMIT`] after the first signal, or at the second, and removes
/// the sockets before.
///
/// # Errors
/// If the signal handlers cannot be installed, or the thread cannot be started.
pub(crate) fn exit_in_time(files: SocketFiles) -> Result<()> {
    let mut signals = Signals::of_termination()?;
    let watch = move || {
        let wait = |limit| number(signals.wait(limit));
        let second = wait_for_second_signal(wait, STOP_LIMIT, Instant::now);
        files.remove_all();
        exit(second.map_or(0, |signal| SIGNAL_STATUS + signal));
    };
    spawn(&socket_removing_threads(), watch)
}

/// Starts a thread that exits at the second signal. The first signal is left to
/// [`StopFlag`](crate::signals::StopFlag).
///
/// # Errors
/// If the signal handlers cannot be installed, or the thread cannot be started.
pub(crate) fn exit_at_second_signal() -> Result<()> {
    let mut signals = Signals::of_termination()?;
    spawn(&unprivileged_threads(), move || {
        let second =
            wait_for_two_signals(Duration::MAX, Instant::now, || number(signals.wait(None)));
        exit(SIGNAL_STATUS + second);
    })
}

/// Starts a thread that forwards signals to the command and kills it at the second. The broker has
/// the capability to do so if the command has changed its user.
///
/// # Errors
/// If the signal handlers cannot be installed, or the thread cannot be started.
pub(crate) fn forward_signals(mut signals: Signals, command: &Child, broker: Broker) -> Result<()> {
    let mut command = MeasuredCommand::new(command, broker)?;
    spawn(&unprivileged_threads(), move || {
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

/// A measured command, and the last signal that was forwarded to it.
struct MeasuredCommand {
    /// A pidfd, because the process id may be reused once the command has been waited for.
    pidfd: Arc<OwnedFd>,
    broker: Broker,
    last: Option<(i32, Instant)>,
}

impl MeasuredCommand {
    fn new(command: &Child, broker: Broker) -> Result<Self> {
        let opened = pidfd_open(Pid::from_child(command), PidfdFlags::empty());
        let pidfd = opened.map_err(|errno| {
            let reason = reason(&errno.into());
            Error::failed(format!(
                "cannot open a pidfd of the command, to forward signals to it: {reason}"
            ))
        })?;
        Ok(Self { pidfd: Arc::new(pidfd), broker, last: None })
    }

    /// Returns true unless the command gets the signal from the terminal itself. Once the command
    /// has ended, every signal counts.
    fn must_forward(&self, signal: Signal) -> bool {
        !signal.from_terminal || has_exited(&self.pidfd)
    }

    /// Forwards a signal, unless it is a copy of the last one.
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

    /// Sends a signal without waiting.
    fn send(&self, signal: Number) {
        // No capability is needed as long as the command runs as our user. The call fails if the
        // command has ended, which is no error here.
        if pidfd_send_signal(&*self.pidfd, signal) != Err(Errno::PERM) {
            return;
        }
        // The broker may be blocked, so another thread waits for it. The call fails if vmstrobe was
        // started without CAP_KILL: then the user of the command must end it.
        let (pidfd, broker) = (Arc::clone(&self.pidfd), self.broker.clone());
        let ask = move || broker.run(move || pidfd_send_signal(&*pidfd, signal));
        let _ = spawn(&unprivileged_threads(), ask);
    }
}

fn number(signal: Option<Signal>) -> Option<i32> {
    signal.map(|signal| signal.number)
}

/// Waits for two signals, the second within this time of the first, and returns the second. A later
/// signal counts as a first one again. `now` returns the time, and `wait` waits for the next signal
/// and may return `None`.
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

fn spawn<T: Send + 'static>(
    threads: &ThreadStart,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<()> {
    Ok(threads.spawn("vmstrobe-stop", work).map(drop)?)
}

/// Waits for a signal, and then for a second one within the limit, which it returns. `wait` returns
/// the next signal that comes within the given time, and `now` the time.
fn wait_for_second_signal(
    mut wait: impl FnMut(Option<Duration>) -> Option<i32>,
    limit: Duration,
    now: impl Fn() -> Instant,
) -> Option<i32> {
    // Without a limit, `wait` returns `None` only at a signal that is not received here.
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
    fn a_second_signal_is_not_a_copy_of_the_first() {
        const { assert!(STOP_LIMIT.as_millis() <= 500 && SECOND_AFTER.as_millis() <= 200) };
        for (pauses_ms, want) in [
            (&[0][..], None),
            (&[0, 0, 0], None),
            (&[0, 150], Some(2)),
            (&[0, 0, 150], Some(3)),
            (&[0, 700], None),
        ] {
            // The signals come after these pauses, by a clock that only waiting advances.
            let clock = Cell::new(Instant::now());
            let mut signals = (1..).zip(pauses_ms).map(|(n, ms)| (n, Duration::from_millis(*ms)));
            let wait = |limit: Option<Duration>| {
                let next = signals.next();
                let pause = next.map(|(_, pause)| pause);
                let waited =
                    pause.into_iter().chain(limit).min().expect("a pause or a limit is given");
                clock.set(clock.get() + waited);
                next.filter(|_| pause == Some(waited)).map(|(number, _)| number)
            };
            let second = wait_for_second_signal(wait, Duration::from_millis(600), || clock.get());
            assert_eq!(second, want, "{pauses_ms:?}");
        }
    }

    #[test]
    fn a_late_second_signal_counts_as_a_first_one() {
        for (pauses_ms, want) in [
            (&[0, 4900][..], 2),
            (&[0, 50, 4900], 3),
            (&[0, 5100, 50, 200], 4),
            (&[0, 6000, 6000, 6000, 300], 5),
        ] {
            let clock = Cell::new(Instant::now());
            let mut signals = (1..).zip(pauses_ms);
            let wait = || {
                let (number, ms) = signals.next().expect("the second signal is in the list");
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
        (sleep, Broker::start().expect("a thread can be started"))
    }

    #[test]
    fn a_signal_of_the_terminal_is_not_forwarded() {
        let (mut sleep, broker) = sleep();
        let mut sleep = sleep.spawn().expect("sleep(1) is installed");
        let mut command = MeasuredCommand::new(&sleep, broker).expect("a child has a pidfd");
        let signal = |number, from_terminal| Signal { number, from_terminal };
        assert!(!command.must_forward(signal(2, true)) && command.must_forward(signal(2, false)));
        command.forward(signal(15, false));
        let status = sleep.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(15));
        // A copy of the last signal is dropped. A signal after the end of the command has no
        // effect.
        let last = command.last;
        command.forward(signal(15, false));
        assert!(last.is_some() && command.last == last);
        command.forward(signal(2, false));
        assert!(command.last.is_some_and(|(number, _)| number == 2));
        // The command has ended, so a signal of the terminal counts.
        assert!(command.must_forward(signal(2, true)));
    }

    #[test]
    fn a_blocked_broker_delays_no_signal() {
        let (mut sleep, broker) = sleep();
        let (go_on, waits) = mpsc::channel::<()>();
        let busy = broker.clone();
        let busy = thread::spawn(move || busy.run(move || waits.recv()));
        let mut ours = sleep.spawn().expect("sleep(1) is installed");
        MeasuredCommand::new(&ours, broker.clone())
            .expect("a child has a pidfd")
            .send(Number::TERM);
        assert_eq!(ours.wait().expect("a child can be waited for").signal(), Some(15));
        if geteuid().is_root() {
            // Without capabilities this thread may not send signals to another user's process.
            let mut anothers = sleep.uid(65534).spawn().expect("root may change its user id");
            let command = MeasuredCommand::new(&anothers, broker).expect("a child has a pidfd");
            let send = move || {
                set_capabilities(None, NONE).expect("a thread may drop capabilities");
                let began = Instant::now();
                command.send(Number::TERM);
                began.elapsed()
            };
            let took = thread::spawn(send).join().expect("the thread does not panic");
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert_eq!(anothers.try_wait().expect("a child can be waited for"), None);
            go_on.send(()).expect("the broker waits for it");
            assert_eq!(anothers.wait().expect("a child can be waited for").signal(), Some(15));
        }
        drop(go_on);
        let _ = busy.join().expect("the thread does not panic");
    }
}
