//! Other processes of this host, looked at and borrowed from without waiting for any of them.
//!
//! A foreign process can make a process wait for ever that reads the links of its descriptors or
//! closes what it lent. So neither happens here: a small helper process does both ([`child`]), and
//! one that gives no answer is ended or left behind ([`helper`]). What comes back from it is known
//! to be KVM's or to lie in memory.
//!
//! Invariant: no call waits longer than a few seconds, whatever another process does; and the
//! process that made it wait is left out from then on ([`left_out`]).

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind, Result, ThreadStart};

use crate::broker::Broker;
use crate::memfd::memfd;
use crate::process::Process;
use crate::refusal::Step;
use crate::refusal::proc::mounted;
use child::Scratch;
use fork::Job;
use helper::{Helper, Unanswered, record, records};
use left_out::LeftOut;
use wire::{Named, Record, Request};

pub use child::{MAX_RECORDS, MAX_SAME_LINK, READERS_POSITION};
pub use link::KvmLink;
pub use relay::Relay;
pub use seen::{Care, Seen, SeenKvm, SeenTable};

mod facts;
mod link;
mod seen;
mod wire;
mod child;
mod fork;
mod helper;
mod left_out;
mod refused;
mod relay;

/// The pause before all descriptors are looked at again of a process that has many, and had none of
/// interest.
const SEARCH_PERIOD: Duration = Duration::from_secs(60);

/// The processes of this host, as seen through a helper process of this one; clones share it.
///
/// The helper, `vmstrobe-helper`, is a copy of this process that is started when it is first
/// needed, by the [`Broker`] or else by the thread that needs it, and ends with the last clone. It
/// keeps `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` of the thread that starts it. A program that
/// has mapped much memory, a guest's for instance, should exclude it from copies
/// (`MADV_DONTFORK`), as QEMU does.
///
/// ```
/// let host = vmstrobe_host::Host::default();
/// assert!(host.uid(std::process::id()).is_some());
/// ```
#[derive(Clone, Default)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    broker: Broker,
    threads: ThreadStart,
    state: Mutex<State>,
    /// A memfd by which other processes that read statistics know that this is one too, which may
    /// have borrowed what it has of KVM's.
    mark: OnceLock<Option<OwnedFd>>,
}

#[derive(Default)]
struct State {
    helper: Option<Helper>,
    left_out: LeftOut,
    /// The process with which the next look at all of them begins.
    first_pid: Option<u32>,
    /// The time for which processes that are left out since have kept the helper waiting.
    blocked: Duration,
    /// Processes with many descriptors, all of which were looked at: when.
    searched: HashMap<u32, Instant>,
}

/// The result of borrowing a descriptor.
pub type Borrowing = std::result::Result<OwnedFd, Errno>;

impl Host {
    /// Starts helpers by that broker.
    pub fn with_broker(broker: Broker) -> Self {
        Self::new(broker, ThreadStart::default())
    }

    /// Starts helpers by that broker, and lets providers that are given this host start their
    /// threads so.
    pub fn new(broker: Broker, threads: ThreadStart) -> Self {
        let (state, mark) = (Mutex::default(), OnceLock::new());
        Self { inner: Arc::new(Inner { broker, threads, state, mark }) }
    }

    /// Returns the start of the threads of its providers.
    pub fn threads(&self) -> &ThreadStart {
        &self.inner.threads
    }

    /// Returns the broker, which has the rights that opening takes.
    pub fn broker(&self) -> &Broker {
        &self.inner.broker
    }

    /// Returns the descriptors of a process that are of interest.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, `Denied` if we may not look into it, `Busy` if it
    /// does not let itself be looked at, `Io` if there can be no helper.
    pub fn look(&self, pid: u32, care: Care) -> Result<Seen> {
        let looked = self.try_look(pid, care)?;
        looked.map_err(|errno| self.refused(pid, Step::Look, errno))
    }

    /// As [`Host::look`], with the system's own refusal, whose reason is found out by
    /// [`Host::refused`]: for many processes that takes a while.
    ///
    /// # Errors
    /// `Busy` and `Io` as [`Host::look`].
    pub fn try_look(&self, pid: u32, care: Care) -> Result<std::result::Result<Seen, Errno>> {
        let mut seen = Seen::default();
        let flags = if care.makers { wire::WITH_MAKERS } else { 0 };
        let request = Request { kind: wire::LOOK, pid, flags, limit: care.fds };
        let end = self.ask(pid, request, &[], None, |packet| {
            match record(packet.bytes) {
                Some(Record { kind: wire::TABLE, fd, inode, .. }) => {
                    let name = packet.bytes.get(32..).unwrap_or_default().to_vec();
                    seen.tables.push(SeenTable { fd, name, inode });
                }
                _ => seen.kvm.extend(records(packet.bytes).filter_map(SeenKvm::of)),
            };
        })?;
        if let Some(errno) = errno_of(end) {
            return Ok(Err(errno));
        }
        seen.is_reader = end.id & wire::READER != 0;
        seen.is_crowded = end.id & wire::CROWDED != 0;
        seen.kvm.sort_unstable_by_key(|seen| seen.fd);
        seen.tables.sort_unstable_by_key(|seen| seen.fd);
        Ok(Ok(seen))
    }

    /// Whether a process can be the one that made these descriptors of vCPUs: it maps a vCPU, as it
    /// must to run it, or a descriptor is as KVM makes it, closed by `execve`. One that inherited
    /// them over `execve` does not. False too if that cannot be seen.
    pub fn may_have_made(&self, pid: u32, vcpus: &[RawFd]) -> bool {
        let named = vcpus.iter().take(wire::MAX_NAMED);
        let named: Vec<Named> = named.map(|&fd| Named { pid, fd, ..Named::default() }).collect();
        let request = Request { kind: wire::MADE, pid, ..Request::default() };
        self.ask(pid, request, &named, None, |_| {}).is_ok_and(|end| end.id == wire::YES)
    }

    /// Duplicates these descriptors of a process, each if it still is KVM's of that link, or memory
    /// of a table's name where there is none; in their order. `NOENT` of one that is not.
    ///
    /// # Errors
    /// As [`Host::look`].
    pub fn borrow(
        &self,
        process: &Process,
        wanted: &[(RawFd, Option<KvmLink>)],
    ) -> Result<Vec<Borrowing>> {
        self.inner.mark.get_or_init(|| memfd(c"vmstrobe-reader", MemfdFlags::empty()).ok());
        let pid = process.pid();
        let mut borrowed = Vec::new();
        for wanted in wanted.chunks(wire::MAX_NAMED) {
            let named = wanted.iter().map(|&(fd, link)| {
                let (kind, id) = link.map_or((wire::TABLE, 0), wire::coded);
                Named { pid, fd, kind, id }
            });
            let named: Vec<Named> = named.collect();
            let request = Request { kind: wire::BORROW, pid, ..Request::default() };
            let pidfd = Some(process.pidfd().as_fd());
            let end = self.ask(pid, request, &named, pidfd, |packet| {
                let outcome = match (record(packet.bytes).and_then(errno_of), packet.fd) {
                    (None, Some(fd)) => Ok(fd),
                    // It was sent, and there was no room for it here.
                    (None, None) => Err(Errno::MFILE),
                    (Some(errno), _) => Err(errno),
                };
                borrowed.push(outcome);
            })?;
            if let Some(errno) = errno_of(end) {
                let text = format!("cannot borrow from pid {pid}");
                return Err(Error::caused(ErrorKind::Io, text, errno));
            }
        }
        Ok(borrowed)
    }

    /// Returns the class of each of these descriptors: equal classes are one open file. `None`
    /// where the kernel does not tell, or there are too many.
    pub fn classes(&self, places: &[(u32, RawFd)]) -> Option<Vec<usize>> {
        let mut classes: Vec<usize> = (0..places.len()).collect();
        if places.len() > wire::MAX_NAMED {
            return None;
        }
        let named: Vec<Named> =
            places.iter().map(|&(pid, fd)| Named { pid, fd, ..Named::default() }).collect();
        let pid = places.first()?.0;
        let request = Request { kind: wire::SORT, pid, ..Request::default() };
        let end = self.ask(pid, request, &named, None, |packet| {
            let Some(record) = record(packet.bytes) else { return };
            if let Some(class) = classes.get_mut(record.fd as usize) {
                *class = record.id as usize;
            }
        });
        end.is_ok_and(|end| end.errno == 0).then_some(classes)
    }

    /// Returns the index at which a look at all processes begins in `pids`, which are ascending.
    pub fn first_of(&self, pids: &[u32]) -> usize {
        let first = self.state().first_pid.unwrap_or(0);
        pids.partition_point(|&pid| pid < first)
    }

    /// Sets the process with which the next look at all of them begins; `None` is the first.
    pub fn begin_with(&self, pid: Option<u32>) {
        self.state().first_pid = pid;
    }

    /// Returns the time for which processes have kept the helper waiting so far.
    pub fn blocked(&self) -> Duration {
        self.state().blocked
    }

    /// Forgets what is known of processes that have ended; `pids`, ascending, are there.
    pub fn keep(&self, pids: &[u32]) {
        let mut state = self.state();
        state.left_out.keep();
        let is_recent = |at: &Instant| at.elapsed() < SEARCH_PERIOD;
        state.searched.retain(|pid, at| pids.binary_search(pid).is_ok() && is_recent(at));
    }

    /// Whether all descriptors of a process, which are many, were looked at in vain not long ago.
    pub fn has_searched(&self, pid: u32) -> bool {
        self.state().searched.contains_key(&pid)
    }

    /// Notes that it is so now.
    pub fn note_searched(&self, pid: u32) {
        self.state().searched.insert(pid, Instant::now());
    }

    /// Asks the helper about a process; the last record of its reply.
    fn ask(
        &self,
        pid: u32,
        request: Request,
        named: &[Named],
        fd: Option<BorrowedFd<'_>>,
        take: impl FnMut(helper::Packet<'_>),
    ) -> Result<Record> {
        let mut state = self.state();
        let now = Instant::now();
        if state.left_out.has(pid, now) {
            return Err(self.silent(pid));
        }
        let takes = request.kind == wire::BORROW
            || request.kind == wire::LOOK && request.flags & wire::WITH_MAKERS != 0;
        if takes && state.left_out.has_user(|| self.uid(pid)) {
            let text = format!(
                "pid {pid} ({}) is left out: other processes of its user lent descriptors of \
                 files whose server does not answer; end those",
                self.comm(pid)
            );
            return Err(Error::new(ErrorKind::Busy, text));
        }
        // It may have been killed since, by a host that is out of memory for instance.
        let helper = match state.helper.take().filter(Helper::lives) {
            Some(helper) => helper,
            None => {
                mounted()?;
                self.inner.broker.run(|| {
                    Helper::start(|socket| Job::Serve { socket, scratch: Scratch::new() })
                })?
            }
        };
        match helper.ask(request, named, fd, take) {
            Ok(end) => {
                state.helper = Some(helper);
                state.left_out.forget(pid);
                Ok(end)
            }
            Err(Unanswered::Blocked) => {
                let lost = helper.end();
                state.blocked += now.elapsed();
                state.left_out.note(pid, self.uid(pid), lost, now);
                Err(self.silent(pid))
            }
            Err(Unanswered::Lost) => {
                let _ = helper.end();
                let text = "the helper process, which examines other processes, does not answer: \
                            it may have been killed; start vmstrobe again";
                Err(Error::new(ErrorKind::Io, text))
            }
        }
    }

    /// Returns the error of a process that keeps everyone waiting who looks at it.
    fn silent(&self, pid: u32) -> Error {
        let text = format!(
            "pid {pid} ({}) does not let itself be looked at: it is in the middle of execve, or a \
             file that it has does not answer; it is left out until that is over",
            self.comm(pid)
        );
        Error::new(ErrorKind::Busy, text)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A request cut short by a panic has taken the helper with it: the next one starts another.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn errno_of(record: Record) -> Option<Errno> {
    (record.errno != 0).then(|| Errno::from_raw_os_error(record.errno))
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // One that does not end is the system's to wait for.
        let _ = state.helper.take().map(Helper::end);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
