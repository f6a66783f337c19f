//! The helper process, from the side of the process that it helps.
//!
//! Invariant: a wait for it is bounded. It is given up only while it waits for somebody in the
//! kernel; one that only has no CPU is waited for longer. It ends with its socket.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, pread};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use vmstrobe_core::{Error, ErrorKind, Result};

use super::fork::{self, Job};
use super::wire::{self, MAX_PACKET_BYTES, Named, Record, Request};
use crate::process::has_exited;
use crate::scm;

/// The longest that the helper may say nothing while it waits in the kernel.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);
/// The longest that it may say nothing in any case.
const SILENCE_LIMIT_BUSY: Duration = Duration::from_secs(10);
/// The longest that one that was killed may take to end: it does at once, unless it waits for a
/// file's server.
const END_LIMIT: Duration = Duration::from_millis(200);

/// More than `/proc/<pid>/stat` has up to the state: a number, and a name of 15 bytes.
const STAT_BYTES: usize = 64;

/// A running helper.
#[derive(Debug)]
pub(super) struct Helper {
    pid: Pid,
    pidfd: OwnedFd,
    /// `/proc/<pid>/stat`, opened by the thread that started it: with `hidepid` others may not see
    /// it, but what is open everyone may read. `None` if there is none.
    stat: Option<File>,
    socket: OwnedFd,
}

/// A packet of a reply.
pub(super) struct Packet<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) fd: Option<OwnedFd>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It waits for the process that it was asked about.
    Blocked,
    /// It is not there any more, or has no CPU.
    Lost,
}

impl Helper {
    /// Starts one that does that job at its end of a socket.
    ///
    /// # Errors
    /// `Io` if the system has no process or descriptors for it.
    pub(super) fn start(job: impl FnOnce(OwnedFd) -> Job) -> Result<Self> {
        let failed = |error| {
            Error::caused(
                ErrorKind::Io,
                "cannot start the helper process, which examines other processes",
                error,
            )
        };
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (socket, its) = pair.map_err(|errno| failed(errno.into()))?;
        let pid = fork::start(job(its)).map_err(failed)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let stat = File::open(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok();
        Ok(Self { pid, pidfd, stat, socket })
    }

    /// Returns this process's end of the socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Returns the number of the process.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        !has_exited(&self.pidfd)
    }

    /// Sends a request and takes all packets of its reply; returns the last record.
    ///
    /// # Errors
    /// If none comes in time. Then the helper is of no more use.
    pub(super) fn ask(
        &self,
        request: Request,
        named: &[Named],
        fd: Option<BorrowedFd<'_>>,
        mut take: impl FnMut(Packet<'_>),
    ) -> std::result::Result<Record, Unanswered> {
        self.send(request, named, fd).map_err(|_| Unanswered::Lost)?;
        let mut buffer = vec![0; MAX_PACKET_BYTES];
        loop {
            self.wait()?;
            let got = scm::receive(&self.socket, &mut buffer, RecvFlags::empty());
            let got = got.map_err(|_| Unanswered::Lost)?;
            let fd = got.fds.into_iter().flatten().next();
            let bytes = buffer.get(..got.bytes).unwrap_or_default();
            let Some(record) = record(bytes) else { return Err(Unanswered::Lost) };
            match record.kind {
                wire::END => return Ok(record),
                wire::BUSY => {}
                _ => take(Packet { bytes, fd }),
            }
        }
    }

    fn send(
        &self,
        request: Request,
        named: &[Named],
        fd: Option<BorrowedFd<'_>>,
    ) -> rustix::io::Result<()> {
        let request = request.words();
        let named: Vec<[u32; 4]> = named.iter().map(|named| named.words()).collect();
        let parts = [
            IoSlice::new(bytemuck::bytes_of(&request)),
            IoSlice::new(bytemuck::cast_slice(&named)),
        ];
        // It reads one request after the other: there is room.
        scm::send(&self.socket, &parts, fd.as_slice(), SendFlags::DONTWAIT)
    }

    /// Waits for the next packet.
    fn wait(&self) -> std::result::Result<(), Unanswered> {
        let begin = Instant::now();
        loop {
            let limit = Timespec::try_from(SILENCE_LIMIT).unwrap_or_default();
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit)) {
                Ok(1..) => return Ok(()),
                Ok(0) if self.is_blocked() => return Err(Unanswered::Blocked),
                Ok(0) if begin.elapsed() > SILENCE_LIMIT_BUSY => return Err(Unanswered::Lost),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(Unanswered::Lost),
            }
        }
    }

    /// Whether it waits in the kernel for something other than a CPU.
    fn is_blocked(&self) -> bool {
        let mut bytes = [0; STAT_BYTES];
        let read = self.stat.as_ref().and_then(|stat| pread(stat, &mut bytes, 0).ok());
        let stat = String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]);
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        // By a signal it could be interrupted or not: it blocks all of them.
        state != Some('R')
    }

    /// Ends it. If it does not end, it is somebody else's doing: gives its number, to be waited
    /// for later.
    pub(super) fn end(self) -> Option<Pid> {
        let Self { pid, pidfd, socket, .. } = self;
        drop(socket);
        // It may have ended by itself.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let limit = Timespec::try_from(END_LIMIT).unwrap_or_default();
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        (!has_ended(pid)).then_some(pid)
    }
}

/// Whether a helper has ended, which is then forgotten by the system.
pub(super) fn has_ended(pid: Pid) -> bool {
    // An error: somebody else has waited for it.
    !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
}

/// The first record of a packet.
pub(super) fn record(bytes: &[u8]) -> Option<Record> {
    let words = bytes.first_chunk::<32>()?;
    Some(Record::of(bytemuck::cast(*words)))
}

/// All records of a packet that has nothing else.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = Record> {
    bytes.as_chunks::<32>().0.iter().map(|words| Record::of(bytemuck::cast(*words)))
}
