//! One packet with its descriptors, sent and received.
//!
//! Invariant: sending never waits, receiving not beyond its deadline. What is received is bounded,
//! by [`MAX_PACKET_BYTES`] and by the room for a few descriptors: enough to see that there are too
//! many. Every descriptor that was received is in the packet, so that whoever refuses it knows what
//! to close; it is closed on exec.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use vmstrobe_host::scm;

use super::message::MAX_PACKET_BYTES;

/// A packet as it came.
#[derive(Debug)]
pub(super) struct Packet {
    /// Empty at the end of the connection.
    pub(super) text: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    /// The text was longer than this.
    pub(super) is_text_cut: bool,
    /// There were more descriptors than these: more than room for them in the packet, or in this
    /// process.
    pub(super) are_fds_cut: bool,
}

/// Sends a packet; `AGAIN` if that would wait.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    text: &str,
    fd: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<()> {
    scm::send(socket, &[IoSlice::new(text.as_bytes())], fd.as_slice(), SendFlags::DONTWAIT)
}

/// Waits for a packet until the deadline, if there is one; `None` if none came.
pub(super) fn receive(
    socket: impl AsFd,
    deadline: Option<Instant>,
) -> rustix::io::Result<Option<Packet>> {
    loop {
        match receive_now(socket.as_fd()) {
            Err(Errno::AGAIN) => {}
            Err(Errno::INTR) => continue,
            received => return received.map(Some),
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        // A time that the kernel cannot express is none.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn receive_now(socket: BorrowedFd<'_>) -> rustix::io::Result<Packet> {
    let mut text = vec![0; MAX_PACKET_BYTES];
    let got = scm::receive(socket, &mut text, RecvFlags::DONTWAIT)?;
    text.truncate(got.bytes);
    let fds = got.fds.into_iter().flatten().collect();
    Ok(Packet { text, fds, is_text_cut: got.is_cut, are_fds_cut: got.are_fds_cut })
}
