//! The members of an attachment, and whether they have ended.
//!
//! Invariant: a process has ended when the kernel says so. A member that is reached in another way
//! (a socket, a file) has ended when nothing that is sampled is there any more, and not because a
//! launcher has ended that had opened the socket for it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_host::has_exited;

/// The time without any object that is taken for the end: a QEMU that is connected to again, or an
/// object that is made anew, is there by then.
const GONE_FOR_GOOD: Duration = Duration::from_millis(2500);

/// A member of an attachment: a process, or what is behind a socket or in a file.
#[derive(Debug)]
#[non_exhaustive]
pub struct Member {
    /// The title for people: `VM guest1 (pid 4711)`.
    pub title: String,
    /// The VM's name, if it is a VM; else the name of the process or of the file.
    pub name: String,
    /// The process itself, or the one that is known to be behind the socket.
    pub pid: Option<u32>,
    /// True for a virtual machine, false for a program beside one.
    pub is_vm: bool,
    /// Readable once the process has ended. Without one, only its rows tell.
    pidfd: Option<OwnedFd>,
    /// True if it was reached by process id: the end of the process is its end.
    is_process: bool,
}

impl Member {
    /// Returns a process. To be called before its fds are looked at, so that it can be no later
    /// process of the same number.
    pub(crate) fn process(pid: u32) -> Self {
        let title = format!("pid {pid}");
        let (name, pid, pidfd) = (pid.to_string(), Some(pid), pidfd(pid));
        Self { title, name, pid, is_vm: false, pidfd, is_process: true }
    }

    /// Returns a member behind a socket or in a file. `peer` is the process that is known to be
    /// behind the socket: the member itself, or a launcher that opened the socket for it.
    pub(crate) fn remote(title: String, name: String, peer: Option<u32>) -> Self {
        let pidfd = peer.and_then(pidfd);
        Self { title, name, pid: peer, is_vm: false, pidfd, is_process: false }
    }

    /// Returns true if the kernel tells its end, false if only its objects do.
    pub(crate) fn is_process(&self) -> bool {
        self.is_process
    }

    /// Returns true if it has ended. `gone_for` is how long nothing that is sampled has been there.
    pub(crate) fn has_ended(&self, gone_for: Option<Duration>) -> bool {
        match gone_for {
            _ if self.is_process => self.process_has_ended(),
            Some(time) => time >= GONE_FOR_GOOD || self.process_has_ended(),
            None => false,
        }
    }

    /// Returns true also for a zombie.
    fn process_has_ended(&self) -> bool {
        self.pidfd.as_ref().is_some_and(has_exited)
    }
}

fn pidfd(pid: u32) -> Option<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(number, PidfdFlags::empty()).ok()
}

/// Since when nothing that is sampled has been there.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Cell<Option<Instant>>,
}

impl Absence {
    /// Notes a sample. A row that could not be read is no absence.
    pub(crate) fn note(&self, sample: &Snapshot) {
        self.note_whether(sample.objects().any(|view| view.state() != RowState::Gone));
    }

    /// Notes whether anything is there now.
    pub(crate) fn note_whether(&self, is_there: bool) {
        let since = self.since.get().unwrap_or_else(Instant::now);
        self.since.set((!is_there).then_some(since));
    }

    /// Returns how long it has lasted.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.since.get().map(|since| since.elapsed())
    }

    /// Returns true if it has lasted so long that it is taken for the end.
    pub(crate) fn is_for_good(&self) -> bool {
        self.lasts().is_some_and(|time| time >= GONE_FOR_GOOD)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::Arc;

    use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, Schema, Target};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().expect("sleep starts")
    }

    fn end(mut child: Child) {
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let child = sleeper();
        let member = Member::process(child.id());
        assert_eq!(member.title, format!("pid {}", child.id()));
        assert!(member.pid == Some(child.id()) && member.is_process());
        // That it has nothing to show for a while is no end.
        assert!(!member.has_ended(Some(GONE_FOR_GOOD)));
        end(child);
        assert!(member.has_ended(None));
        assert!(!Member { pidfd: None, ..member }.has_ended(None));
    }

    #[test]
    fn behind_a_socket_rows_tell() {
        let child = sleeper();
        let member = Member::remote("it".to_owned(), "it".to_owned(), Some(child.id()));
        let (moment, long) = (Some(Duration::ZERO), Some(GONE_FOR_GOOD));
        assert!(!member.has_ended(None) && !member.has_ended(moment));
        assert!(member.has_ended(long));
        end(child);
        // It may have been a launcher.
        assert!(!member.has_ended(None));
        assert!(member.has_ended(moment));
        let unknown = Member { pidfd: None, ..member };
        assert!(!unknown.has_ended(moment) && unknown.has_ended(long));
    }

    #[test]
    fn absence_lasts_until_something_is_there() {
        let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = |key| Object { path: "/a".into(), index: None, schema: schema.clone(), key };
        let sample = |states: &[RowState]| {
            let objects = (0..).zip(states).map(|(key, _)| object(key)).collect();
            let mut sample = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), objects)]));
            sample.begin(1).1.copy_from_slice(states);
            sample
        };
        let absence = Absence::default();
        for (states, is_absence) in [
            (&[RowState::Good, RowState::Gone][..], false),
            (&[RowState::Gone, RowState::Gone], true),
            (&[], true),
            (&[RowState::Gone, RowState::Stale], false),
            (&[RowState::Io(5)], false),
        ] {
            absence.note(&sample(states));
            assert_eq!(absence.lasts().is_some(), is_absence, "{states:?}");
            assert!(!absence.is_for_good());
        }
        absence.since.set(Instant::now().checked_sub(GONE_FOR_GOOD));
        absence.note(&sample(&[]));
        assert!(absence.is_for_good());
    }
}
