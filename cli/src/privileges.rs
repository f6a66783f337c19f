//! The rights of our threads: which are given up, when, and which thread keeps some.
//!
//! Linux has rights per thread, and a thread that is started gets those of the one that starts it.
//! So a command gives its rights up once, before there are other threads: the main thread starts a
//! [`Broker`] that keeps what opening takes ([`Needs`]), and then has none. Threads that are
//! started later have none either: those that sample, serve, parse or wait. The broker starts the
//! helper process, which keeps less. Three threads are started before, and say themselves what they
//! keep: of a server the one that removes its sockets at the end ([`keep_socket_removal_only`]), and
//! of `stat -- CMD` the one that starts the command ([`Launcher`]).
//!
//! No thread of ours executes a program but the launcher. So none can gain rights by `execve`
//! either, whatever it is made to do; and a server's threads cannot even call it ([`seccomp`]).
//! docs/rights.md has all of this thread by thread, and a test compares it with /proc.
//!
//! Invariant: no thread gets a right that the thread that started it had not. Giving up never fails
//! a command: if the system refuses it, the rights stay.

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

/// To look into processes of others, and to borrow from them.
const INSPECT: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// To load BPF programs. Before Linux 5.8 it would be `CAP_SYS_ADMIN`, which is too much.
const LOAD_BPF: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
/// To open what is another user's: a socket, to which nobody connects who may not write it; a
/// table's file; or /dev/kvm, where it is not root's.
const OPEN: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// To make sockets where another user's directory is, give them a group, and replace stale ones.
const LISTEN: CapabilitySet = OPEN.union(CapabilitySet::CHOWN).union(CapabilitySet::FOWNER);
/// To send signals to a command that has become another user's.
const SIGNAL: CapabilitySet = CapabilitySet::KILL;
/// To remove sockets from another user's directory.
const REMOVE: CapabilitySet = OPEN.union(CapabilitySet::FOWNER);

/// The capabilities that opening may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs(CapabilitySet);

impl Needs {
    /// The needs of a command that reads what the user named.
    pub(crate) fn of(source: &SourceArgs, bpf: BpfWhen) -> Self {
        let looks = if source.demo { CapabilitySet::empty() } else { INSPECT };
        Self(looks | Self::of_demo(bpf).0)
    }

    /// The needs of a command that reads a guest of our own.
    pub(crate) fn of_demo(bpf: BpfWhen) -> Self {
        Self(OPEN | if bpf == BpfWhen::Off { CapabilitySet::empty() } else { LOAD_BPF })
    }

    /// Adds the needs of a command that answers at sockets.
    pub(crate) fn with_listening(self) -> Self {
        Self(self.0 | LISTEN)
    }

    /// Adds the needs of a command that passes signals on to one that it measures.
    pub(crate) fn with_signalling(self) -> Self {
        Self(self.0 | SIGNAL)
    }

    /// Starts a broker that keeps these, as far as this thread has them; this thread, and those
    /// that it starts from now on, keep nothing. Where there is nothing to keep, there is no thread
    /// for it: then the broker is whoever asks.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn move_to_broker(self) -> Result<Broker> {
        forbid_new_capabilities();
        reduce_capabilities_to(self.0);
        let has_some = capabilities(None).is_ok_and(|has| !has.permitted.is_empty());
        let broker = if has_some { Broker::start()? } else { Broker::default() };
        reduce_capabilities_to(CapabilitySet::empty());
        Ok(broker)
    }
}

/// Returns the start of the library's threads: each keeps nothing, whatever the thread that starts
/// it has.
pub(crate) fn unprivileged_threads() -> ThreadStart {
    ThreadStart::new(|| {
        forbid_new_capabilities();
        reduce_capabilities_to(CapabilitySet::empty());
        Ok(())
    })
}

/// Keeps, on this thread, what it takes to remove sockets and nothing else.
pub(crate) fn keep_socket_removal_only() {
    forbid_new_capabilities();
    reduce_capabilities_to(REMOVE);
}

/// Sees to it that this thread, and those that it starts from now on, gain nothing by executing a
/// program: no set-user-ID or file capabilities, and nothing for being root.
fn forbid_new_capabilities() {
    // Both take CAP_SETPCAP. Who has it not has been started with few rights, and the last holds
    // for any user.
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

/// Keeps these of the three sets that can only shrink.
fn reduce_capabilities_to(kept: CapabilitySet) {
    let Ok(had) = capabilities(None) else { return };
    let keeps = CapabilitySets {
        effective: had.effective & kept,
        permitted: had.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    if keeps != had {
        // A policy that forbids it has not been told to by us.
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

    /// Does the work on a thread of its own, whose rights are nobody else's.
    pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
    }

    pub(super) fn permitted() -> CapabilitySet {
        capabilities(None).expect("a thread may ask for its own").permitted
    }

    pub(super) fn drop_all() {
        reduce_capabilities_to(CapabilitySet::empty());
    }

    /// As the kernel shows that there are no capabilities.
    fn none_shown() -> String {
        "0".repeat(16)
    }

    /// Returns the value of this key in the kernel's status of this thread.
    fn status(key: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").expect("there is /proc");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.expect("the kernel shows it").trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn what_is_kept_follows_from_what_is_asked_for() {
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
        // What can do anything is never among them.
        let most = Needs::of(&source(false), BpfWhen::Auto).with_listening().0;
        let too_much = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SYS_MODULE;
        assert!(!most.intersects(too_much), "{most:?}");
    }

    #[test]
    fn threads_of_the_library_have_nothing() {
        let thread =
            unprivileged_threads().spawn("vmstrobe-test", permitted).expect("there are threads");
        assert_eq!(thread.join().ok(), Some(CapabilitySet::empty()));
    }

    #[test]
    fn the_broker_keeps_what_is_needed_and_all_others_have_nothing() {
        let had = permitted();
        on_own_thread(|| {
            let broker = Needs(INSPECT).move_to_broker().expect("there are threads");
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
                // Root itself gains nothing from a program.
                let program = Command::new("grep").args(["CapEff", "/proc/self/status"]).output();
                let program = String::from_utf8(program.expect("there is grep").stdout);
                assert_eq!(program.expect("it is text"), format!("CapEff:\t{}\n", none_shown()));
            }
            // Nothing comes back.
            let again = Needs(INSPECT).move_to_broker().expect("there is no need of a thread");
            assert_eq!(again.run(permitted), none);
        });
        assert_eq!(permitted(), had, "a thread's are its own");
    }
}
