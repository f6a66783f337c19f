//! The capabilities of the threads: which are dropped, when, and which thread keeps some.
//!
//! Capabilities belong to a thread, and a new thread inherits those of the thread that starts it.
//! Therefore a command drops its capabilities before it starts other threads: the main thread
//! starts a [`Broker`], which keeps what opening needs ([`Needs`]), and then drops all of its own.
//! Threads that are started later, to sample, serve, parse or wait, have none, and drop what they
//! may have inherited ([`unprivileged_threads`]). The broker starts the helper process, which keeps
//! fewer. Two threads are started earlier: in a server the one that
//! removes the sockets at the end ([`socket_removing_threads`]), and in `stat -- CMD` the one that
//! starts the command ([`Launcher`]).
//!
//! Only the launcher executes a program. All other threads are barred from gaining capabilities by
//! `execve`, and the threads of a server cannot call it at all ([`seccomp`]). docs/rights.md lists
//! the capabilities of each thread, and a test compares the list with /proc.
//!
//! Invariant: no thread has a capability that the thread that started it did not have. A command
//! never fails because capabilities cannot be dropped: it keeps them instead.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};
use vmstrobe::{Broker, ThreadStart};

use crate::args::{BpfWhen, SourceArgs};
use crate::error::Result;

pub(crate) use launcher::Launcher;

mod launcher;
pub(crate) mod seccomp;

/// Needed to examine processes of other users and to duplicate their descriptors.
const INSPECT: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// Needed to load BPF programs. Before Linux 5.8 that took `CAP_SYS_ADMIN`, which is never kept.
const LOAD_BPF: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// Needed to open files of other users: a socket, to which only those connect who may write it; the
/// file of a table; or /dev/kvm, where root does not own it.
const OPEN: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// Needed to create sockets in the directory of another user, set their group, and replace stale
/// ones.
const LISTEN: CapabilitySet = OPEN.union(CapabilitySet::CHOWN).union(CapabilitySet::FOWNER);
/// Needed to send signals to a command that has changed its user.
const SIGNAL: CapabilitySet = CapabilitySet::KILL;
/// Needed to remove sockets from the directory of another user.
const REMOVE: CapabilitySet = OPEN.union(CapabilitySet::FOWNER);

/// The capabilities that opening may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs(CapabilitySet);

impl Needs {
    /// Returns the needs of a command that reads these sources.
    pub(crate) fn of(source: &SourceArgs, bpf: BpfWhen) -> Self {
        let looks = if source.demo { CapabilitySet::empty() } else { INSPECT };
        Self(looks | Self::of_demo(bpf).0)
    }

    /// Returns the needs of a command that reads the demo's guest.
    pub(crate) fn of_demo(bpf: BpfWhen) -> Self {
        Self(OPEN | if bpf == BpfWhen::Off { CapabilitySet::empty() } else { LOAD_BPF })
    }

    /// Returns the needs of a command that reads and writes files.
    pub(crate) fn of_files() -> Self {
        Self(OPEN | CapabilitySet::DAC_READ_SEARCH)
    }

    /// Adds the needs of a command that listens on sockets.
    pub(crate) fn with_listening(self) -> Self {
        Self(self.0 | LISTEN)
    }

    /// Adds the needs of a command that forwards signals to a measured one.
    pub(crate) fn with_signalling(self) -> Self {
        Self(self.0 | SIGNAL)
    }

    /// Starts a broker that keeps these capabilities, as far as this thread has them. This thread,
    /// and those that it starts from now on, have none. If there is nothing to keep, no thread is
    /// started: the broker then runs each request on the thread that makes it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn move_to_broker(self) -> Result<Broker> {
        forbid_new_capabilities();
        reduce_capabilities_to(self.0);
        let has_some = capabilities(None).is_ok_and(|has| !has.permitted.is_empty());
        let broker = if has_some { Broker::start()? } else { Broker::default() };
        reduce_capabilities_to(CapabilitySet::empty());
        Ok(broker)
    }
}

/// Returns the way to start the library's threads: each drops all capabilities that it inherits.
pub(crate) fn unprivileged_threads() -> ThreadStart {
    threads_with(CapabilitySet::empty())
}

/// Returns the way to start a thread that removes sockets: it keeps, of the capabilities that it
/// inherits, those needed for that.
pub(crate) fn socket_removing_threads() -> ThreadStart {
    threads_with(REMOVE)
}

fn threads_with(kept: CapabilitySet) -> ThreadStart {
    ThreadStart::new(move || {
        forbid_new_capabilities();
        reduce_capabilities_to(kept);
        Ok(())
    })
}

/// Prevents this thread, and those that it starts from now on, from gaining capabilities by
/// executing a program: by set-user-ID, by file capabilities or by being root.
fn forbid_new_capabilities() {
    // Both of these need CAP_SETPCAP. A process without it has few capabilities anyway, and
    // no_new_privs, below, works for any user.
    for bit in 0..u64::BITS {
        if remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).is_err() {
            break;
        }
    }
    let _ = set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    );
    let _ = set_no_new_privs(true);
}

/// Reduces the effective and permitted sets to these capabilities, and empties the inheritable set.
fn reduce_capabilities_to(kept: CapabilitySet) {
    let Ok(had) = capabilities(None) else { return };
    let keeps = CapabilitySets {
        effective: had.effective & kept,
        permitted: had.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    if keeps != had {
        // A security policy may forbid this. Then the capabilities stay.
        let _ = set_capabilities(None, keeps);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::thread;

    use rustix::thread::capabilities_secure_bits;

    use super::*;

    /// Runs the work on a separate thread, so that other tests keep their capabilities.
    pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().expect("the thread does not panic"))
    }

    pub(super) fn permitted() -> CapabilitySet {
        capabilities(None).expect("a thread may read its own capabilities").permitted
    }

    pub(super) fn drop_all() {
        reduce_capabilities_to(CapabilitySet::empty());
    }

    /// Returns an empty capability set as /proc shows it.
    fn none_shown() -> String {
        "0".repeat(16)
    }

    /// Returns the value of this key in the kernel's status of this thread.
    fn status(key: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.expect("the status of a thread has this key").trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn the_needs_follow_from_the_arguments() {
        let source = |demo| SourceArgs { demo, ..SourceArgs::default() };
        for (demo, bpf, want) in [
            (false, BpfWhen::Auto, INSPECT | OPEN | LOAD_BPF),
            (false, BpfWhen::Off, INSPECT | OPEN),
            (true, BpfWhen::Require, OPEN | LOAD_BPF),
            (true, BpfWhen::Off, OPEN),
        ] {
            assert_eq!(Needs::of(&source(demo), bpf), Needs(want), "{demo} {bpf:?}");
        }
        let served = Needs::of_demo(BpfWhen::Off).with_listening();
        assert_eq!(served, Needs(LISTEN));
        assert_eq!(Needs::of_demo(BpfWhen::Off).with_signalling(), Needs(OPEN | SIGNAL));
        // Capabilities that amount to full control of the host are never kept.
        let most = Needs::of(&source(false), BpfWhen::Auto).with_listening().0;
        let too_much = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SYS_MODULE;
        assert!(!most.intersects(too_much), "{most:?}");
    }

    #[test]
    fn threads_of_the_library_have_no_capabilities() {
        let thread = unprivileged_threads()
            .spawn("vmstrobe-test", permitted)
            .expect("a thread can be started");
        assert_eq!(thread.join().ok(), Some(CapabilitySet::empty()));
    }

    #[test]
    fn only_the_broker_keeps_capabilities() {
        let had = permitted();
        on_own_thread(|| {
            let broker = Needs(INSPECT).move_to_broker().expect("a thread can be started");
            let none = CapabilitySet::empty();
            assert_eq!((permitted(), on_own_thread(permitted)), (none, none));
            assert_eq!(broker.run(permitted), had & INSPECT);
            for of in ["CapInh", "CapAmb"] {
                assert_eq!(
                    (status(of), broker.run(move || status(of))),
                    (none_shown(), none_shown())
                );
            }
            for of in [status("NoNewPrivs"), broker.run(|| status("NoNewPrivs"))] {
                assert_eq!(of, "1");
            }
            if had.contains(CapabilitySet::SETPCAP) {
                assert_eq!(
                    (status("CapBnd"), broker.run(|| status("CapBnd"))),
                    (none_shown(), none_shown())
                );
                let locked =
                    CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
                for bits in [capabilities_secure_bits(), broker.run(capabilities_secure_bits)] {
                    assert!(bits.is_ok_and(|bits| bits.contains(locked)), "{bits:?}");
                }
                // Even root gains no capabilities from a program.
                let program = Command::new("grep").args(["CapEff", "/proc/self/status"]).output();
                let program = String::from_utf8(program.expect("grep is installed").stdout);
                assert_eq!(
                    program.expect("grep prints text"),
                    format!("CapEff:\t{}\n", none_shown())
                );
            }
            // The capabilities cannot be regained.
            let again = Needs(INSPECT).move_to_broker().expect("no thread is needed");
            assert_eq!(again.run(permitted), none);
        });
        assert_eq!(permitted(), had, "capabilities belong to one thread");
    }
}
