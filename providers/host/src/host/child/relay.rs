//! The helper of a connection on which descriptors are handed over: takes each packet, looks what
//! its descriptors are, and passes it on.
//!
//! A server can send any file. To close one may be to wait for its server, for ever; so what is no
//! use is closed here, and something harmless goes on in its place.
//!
//! Invariant: as of the whole helper: no allocation, no lock. What is passed on is KVM's
//! statistics, memory, or a stand-in.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags, fcntl_get_seals, open};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::talk::own_link;
use super::{LINK_BYTES, confine, parse};
use crate::scm::{self, MAX_FDS};

/// More than any packet of a server has: one that is longer stays longer than may be.
const PACKET_BYTES: usize = 4096;
/// The pause before it is tried again to send descriptors while too many are under way.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Passes on what a server sends until either end is closed.
pub(in crate::host) fn relay(server: BorrowedFd<'_>, socket: BorrowedFd<'_>) {
    confine();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = open(c"/proc", flags, Mode::empty());
    let stand_in = eventfd(0, EventfdFlags::CLOEXEC);
    let (Ok(proc), Ok(stand_in)) = (proc, stand_in) else { return };
    let relay = Relay { server, socket, proc, stand_in };
    while relay.pass_one().is_ok() {}
}

struct Relay<'a> {
    server: BorrowedFd<'a>,
    socket: BorrowedFd<'a>,
    proc: OwnedFd,
    stand_in: OwnedFd,
}

impl Relay<'_> {
    fn pass_one(&self) -> Result<(), Errno> {
        self.wait()?;
        let mut bytes = [0; PACKET_BYTES];
        let got = scm::receive(self.server, &mut bytes, RecvFlags::empty())?;
        let count = got.fds.iter().flatten().count();
        if got.bytes == 0 && count == 0 {
            return Err(Errno::PIPE);
        }
        let passed = got.fds.each_ref().map(|fd| {
            let fd = fd.as_ref().filter(|fd| self.is_of_use(fd));
            fd.unwrap_or(&self.stand_in).as_fd()
        });
        // Of more descriptors than there was room for, more than there is room for go on.
        let count = if got.are_fds_cut { MAX_FDS } else { count };
        let bytes = bytes.get(..got.bytes).unwrap_or_default();
        self.send(bytes, passed.get(..count).unwrap_or_default())
        // Closed only now: it may be for ever.
    }

    /// Waits for the server, unless nobody is left to pass anything on to.
    fn wait(&self) -> Result<(), Errno> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.server, PollFlags::IN),
                // Nobody sends anything here: this is its end.
                PollFd::from_borrowed_fd(self.socket, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return Err(Errno::PIPE),
                Ok(1..) => return Ok(()),
                Ok(0) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Whether it is one of what is lent. The kernel alone is asked.
    fn is_of_use(&self, fd: &OwnedFd) -> bool {
        let mut buffer = [0; LINK_BYTES];
        let link = own_link(self.proc.as_fd(), fd, &mut buffer).unwrap_or_default();
        let is_stats = parse(link).is_some_and(|link| link.is_stats());
        is_stats || fcntl_get_seals(fd).is_ok()
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        loop {
            match scm::send(self.socket, &[IoSlice::new(bytes)], fds, SendFlags::empty()) {
                Err(Errno::TOOMANYREFS) => std::thread::sleep(RETRY_PAUSE),
                Err(Errno::INTR) => {}
                sent => return sent,
            }
        }
    }
}
