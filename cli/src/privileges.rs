//! The capabilities of our threads: which are kept, for how long, and by whom.
//!
//! Linux has them per thread, and a thread that is started gets those of the one that starts it. A
//! command that samples gives up in two steps what it was started with:
//!
//! 1. Before there is any other thread, the main one keeps [`Needs`]: what opening may take.
//! 2. Once everything is opened, and programs are loaded, [`drop_all`]: the main thread has none,
//!    and so has none the tick's thread, which it starts then. Threads that wait or burn time are
//!    started [`without`] any, from the beginning; one that closes drops them by itself.
//!
//! What goes on opening keeps what that takes: the roster's thread, `vmstrobe-roster`, borrows from
//! vCPUs that come and builds programs for them ([`keep_to_look`]); the thread that asks a QEMU
//! connects to it again ([`connecting`]). What the kernel starts for the guest that the kernel-side
//! tick is proven by, a worker of its own, has what the thread had that tried it. A server
//! keeps [`Needs`] in all threads that look, let in or answer, for it opens whenever something new
//! is asked for.
//!
//! Invariant: no thread gets what it had not, and a command that is measured is run with what we
//! were started with. Giving up never fails a command: whoever cannot had nothing to lose by it.

use std::io;
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, Builder, JoinHandle};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::args::{Source, When};
use crate::error::{Error, Result};
use crate::out::reason;

/// To look into processes of others, and to borrow from them.
const LOOK: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// To load the kernel-side tick. Before Linux 5.8 it would be `CAP_SYS_ADMIN`, which is too much.
const LOAD: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// To open what is another user's: a socket, to which nobody connects who may not write it; or
/// /dev/kvm, where it is not root's.
const OPEN: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// To make sockets where another user's directory is, give them a group, and replace stale ones.
const LISTEN: CapabilitySet = OPEN.union(CapabilitySet::CHOWN).union(CapabilitySet::FOWNER);

/// What opening may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs(CapabilitySet);

impl Needs {
    /// Of whoever reads what the user named.
    pub(crate) fn of(source: &Source, accel: When) -> Self {
        let looks = if source.demo { CapabilitySet::empty() } else { LOOK };
        Self(looks | Self::of_demo(accel).0)
    }

    /// Of whoever reads a guest of our own.
    pub(crate) fn of_demo(accel: When) -> Self {
        Self(OPEN | if accel == When::Off { CapabilitySet::empty() } else { LOAD })
    }

    /// And of whoever answers at sockets.
    pub(crate) fn and_to_listen(self) -> Self {
        Self(self.0 | LISTEN)
    }

    /// Keeps these on this thread, as far as it has them, and on those that it starts from now on.
    pub(crate) fn keep_only(self) {
        keep_only(self.0);
    }
}

/// Keeps what it takes to look for what comes and to load programs for it, on this thread and on
/// those that it starts from now on.
pub(crate) fn keep_to_look() {
    keep_only(LOOK | LOAD);
}

/// Keeps nothing, on this thread and on those that it starts from now on.
pub(crate) fn drop_all() {
    keep_only(CapabilitySet::empty());
}

/// Keeps these of the three sets that can only shrink. The bounding set and the securebits stay: a
/// thread of ours executes nothing, and what [`Launcher`] executes is to have its rights.
fn keep_only(kept: CapabilitySet) {
    let Ok(had) = capabilities(None) else { return };
    let keeps = CapabilitySets {
        effective: had.effective & kept,
        permitted: had.permitted & kept,
        inheritable: had.inheritable & kept,
    };
    if keeps != had {
        // A policy that forbids it has not been told to by us.
        let _ = set_capabilities(None, keeps);
    }
}

/// Does the work on a thread that has no capabilities, so that none that it starts has any.
///
/// # Errors
/// If there can be no thread.
pub(crate) fn without<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    on_thread_with(CapabilitySet::empty(), work)
}

/// The same with what it takes to connect to sockets, as far as this thread has it.
///
/// # Errors
/// If there can be no thread.
pub(crate) fn connecting<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    on_thread_with(OPEN, work)
}

fn on_thread_with<T: Send>(kept: CapabilitySet, work: impl FnOnce() -> T + Send) -> Result<T> {
    if capabilities(None).is_ok_and(|had| had.permitted.is_empty()) {
        return Ok(work());
    }
    let confined = || {
        keep_only(kept);
        work()
    };
    thread::scope(|scope| {
        let thread = Builder::new().name("vmstrobe-setup".to_owned()).spawn_scoped(scope, confined);
        let thread = thread.map_err(|error| no_thread("to set things up", &error))?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn no_thread(what_for: &str, error: &io::Error) -> Error {
    Error::failed(format!("cannot start a thread {what_for}: {}", reason(error)))
}

/// Starts one command with the capabilities that its maker had, whatever he has by then. (A command
/// is run with those of the thread that starts it; and to be found and executed, in a directory of
/// another user say, it may take what only those allow.)
#[derive(Debug)]
pub(crate) struct Launcher {
    order: Sender<Command>,
    thread: JoinHandle<Option<io::Result<Child>>>,
}

impl Launcher {
    /// Its thread, `vmstrobe-launch`, waits for the order; it ends with it, or without one when
    /// this is dropped.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn new() -> Result<Self> {
        let (order, orders) = channel::<Command>();
        let launch = move || orders.recv().ok().map(|mut command| command.spawn());
        let thread = Builder::new().name("vmstrobe-launch".to_owned()).spawn(launch);
        let thread = thread.map_err(|error| no_thread("to start the command", &error))?;
        Ok(Self { order, thread })
    }

    /// Starts the command. The thread has ended when this returns.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub(crate) fn launch(self, command: Command) -> io::Result<Child> {
        // It only ends before if it has panicked, which it then says below.
        let _ = self.order.send(command);
        match self.thread.join() {
            Ok(Some(started)) => started,
            Ok(None) => Err(io::Error::other("nobody took the order")),
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_follows_from_what_is_asked_for() {
        let source = |demo| Source { demo, ..Source::default() };
        for (demo, accel, want) in [
            (false, When::Auto, LOOK | OPEN | LOAD),
            (false, When::Off, LOOK | OPEN),
            (true, When::Require, OPEN | LOAD),
            (true, When::Off, OPEN),
        ] {
            assert_eq!(Needs::of(&source(demo), accel), Needs(want), "{demo} {accel:?}");
        }
        let served = Needs::of_demo(When::Off).and_to_listen();
        assert_eq!(served, Needs(LISTEN));
        // What can do anything is never among them.
        let most = Needs::of(&source(false), When::Auto).and_to_listen().0;
        let too_much = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SYS_MODULE;
        assert!(!most.intersects(too_much), "{most:?}");
    }

    /// On a thread of its own, whose capabilities are nobody else's.
    fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
    }

    fn permitted() -> CapabilitySet {
        capabilities(None).expect("a thread may ask for its own").permitted
    }

    #[test]
    fn what_is_given_up_is_gone_here_and_in_threads_to_come() {
        let had = permitted();
        aside(|| {
            Needs(LOOK).keep_only();
            assert_eq!(permitted(), had & LOOK);
            assert_eq!(aside(permitted), had & LOOK);
            // Nothing comes back.
            keep_to_look();
            assert_eq!(permitted(), had & LOOK);
            drop_all();
            let now = capabilities(None).expect("a thread may ask for its own");
            let none = CapabilitySet::empty();
            let want = CapabilitySets { effective: none, permitted: none, inheritable: none };
            assert_eq!(now, want);
        });
        assert_eq!(permitted(), had, "another's are his own");
    }

    #[test]
    fn work_is_done_without_and_he_who_asks_keeps_his() {
        let had = permitted();
        let there = without(|| (permitted(), aside(permitted))).expect("there are threads");
        assert_eq!(there, (CapabilitySet::empty(), CapabilitySet::empty()));
        assert_eq!(connecting(permitted).expect("there are threads"), had & OPEN);
        assert_eq!(permitted(), had);
        // Who has none needs no thread for it.
        aside(|| {
            drop_all();
            let here = thread::current().id();
            assert_eq!(without(|| thread::current().id()).expect("there is no need"), here);
        });
    }

    #[test]
    fn a_command_is_run_with_what_there_was() {
        // Nobody may look into it but who may look everywhere.
        let closed = std::env::temp_dir().join(format!("vmstrobe-closed-{}", std::process::id()));
        let program = closed.join("true");
        std::fs::create_dir_all(&closed).expect("the directory can be written to");
        std::os::unix::fs::symlink("/bin/true", &program).expect("it is ours");
        let mode = |mode| std::fs::set_permissions(&closed, Permissions::from_mode(mode));
        mode(0).expect("it is ours");
        let run = |gives_up_first: bool| {
            aside(|| {
                gives_up_first.then(drop_all);
                let launcher = Launcher::new().expect("there are threads");
                drop_all();
                launcher.launch(Command::new(&program)).and_then(|mut child| child.wait())
            })
        };
        let (with, without) = (run(false), run(true));
        mode(0o700).expect("it is ours");
        std::fs::remove_dir_all(&closed).expect("it is ours");
        let may = permitted().intersects(OPEN | CapabilitySet::DAC_READ_SEARCH);
        assert_eq!(with.is_ok(), may, "{with:?}");
        assert_eq!(without.map_err(|e| e.kind()).err(), Some(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn what_is_not_there_cannot_be_launched() {
        let launcher = Launcher::new().expect("there are threads");
        let none = launcher.launch(Command::new("vmstrobe-no-such-command"));
        assert_eq!(none.expect_err("it is not there").kind(), io::ErrorKind::NotFound);
    }
}
