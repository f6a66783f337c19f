//! The bytes that are still to be sent to a client.
//!
//! Invariant: bytes leave in order, each once. Sending never waits. What was sent does not pile up,
//! and an outbox that was large for once does not stay so.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::qmp::room::FREE_REPLY_BYTES;

/// How many bytes of room an outbox keeps for ever.
const KEPT_BYTES: usize = FREE_REPLY_BYTES;
/// How long more room than that is kept without use. Less would have one who polls for large
/// replies wait for fresh memory each time.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// From how many bytes on those that were sent are moved out of the way. Less than that is not
/// worth a copy.
const SENT_BYTES: usize = 64 << 10;

/// Bytes on their way to a client.
#[derive(Debug)]
pub(super) struct Outbox {
    /// To be appended to.
    pub(super) bytes: Vec<u8>,
    /// How many of them were sent.
    sent: usize,
    /// When there was use for more room than is kept.
    large_at: Instant,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, large_at: Instant::now() }
    }

    /// How many bytes are still to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends as much as there is room for; how much that was.
    ///
    /// # Errors
    /// As `send(2)`, but never `AGAIN`: that is 0 bytes, or fewer than are unsent.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        // Half: a vector that grows has at most twice the room that it needs.
        if self.bytes.len() > KEPT_BYTES / 2 {
            self.large_at = Instant::now();
        }
        let before = self.sent;
        let outcome = loop {
            if self.unsent() == 0 {
                break Ok(());
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(socket, &self.bytes[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(()),
                Err(errno) => break Err(errno),
            }
        };
        let count = self.sent - before;
        self.forget_sent();
        outcome.map(|()| count)
    }

    /// When [`Outbox::shrink`] is to be called, if there is more room than is kept.
    pub(super) fn shrinks_at(&self) -> Option<Instant> {
        let is_idle = self.unsent() == 0 && self.bytes.capacity() > KEPT_BYTES;
        is_idle.then(|| self.large_at + IDLE_TIME)
    }

    /// Gives back the room that is not kept.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to(KEPT_BYTES);
    }

    fn forget_sent(&mut self) {
        if self.unsent() == 0 {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= SENT_BYTES.max(self.unsent()) {
            // At least as much was sent as is moved: on average a byte is moved once at most.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn numbered(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| (n as u32).to_le_bytes()).collect()
    }

    #[test]
    fn all_bytes_arrive_in_order_however_slowly_they_are_taken() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let all = numbered(1 << 20);
        let (mut outbox, mut arrived, mut peak) = (Outbox::new(), Vec::new(), 0);
        // As much again is added while some is still unsent: it is never empty.
        let mut more = all.chunks(50_000);
        while arrived.len() < all.len() {
            if outbox.unsent() < 300_000 {
                outbox.bytes.extend_from_slice(more.next().unwrap_or_default());
            }
            outbox.send(ours.as_fd()).unwrap();
            peak = peak.max(outbox.bytes.len());
            let mut taken = [0; 10_000];
            let count = theirs.read(&mut taken).unwrap();
            arrived.extend_from_slice(&taken[..count]);
        }
        assert!(arrived == all);
        assert_eq!((outbox.unsent(), outbox.bytes.len()), (0, 0));
        assert!(peak < 1_000_000, "{peak} bytes kept for 350000 unsent");
    }

    #[test]
    fn a_full_socket_is_no_error_and_a_closed_one_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox { bytes: numbered(1 << 20), ..Outbox::new() };
        let first = outbox.send(ours.as_fd()).unwrap();
        assert!(first > 0 && outbox.unsent() == (4 << 20) - first);
        assert_eq!(outbox.send(ours.as_fd()), Ok(0));
        drop(theirs);
        assert_eq!(outbox.send(ours.as_fd()), Err(Errno::PIPE));
    }

    #[test]
    fn a_large_one_becomes_small_when_it_has_been_idle() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::new();
        assert_eq!(outbox.shrinks_at(), None);
        outbox.bytes.extend(numbered(70_000));
        let before = Instant::now();
        outbox.send(ours.as_fd()).unwrap();
        // Not while it is in use.
        assert!(outbox.unsent() > 0 && outbox.shrinks_at().is_none());
        while outbox.unsent() > 0 {
            theirs.read_exact(&mut [0; 10_000]).unwrap();
            outbox.send(ours.as_fd()).unwrap();
        }
        let at = outbox.shrinks_at().unwrap();
        assert!(at >= before + IDLE_TIME && at <= Instant::now() + IDLE_TIME);
        outbox.shrink();
        assert!(outbox.shrinks_at().is_none() && outbox.bytes.capacity() >= KEPT_BYTES);
    }
}
