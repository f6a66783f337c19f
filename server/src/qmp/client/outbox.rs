//! The unsent bytes of a client.
//!
//! Invariant: bytes are sent in order, each once. Sending never waits. Sent bytes do not
//! accumulate, and the memory of a large outbox is returned.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::qmp::room::FREE_REPLY_BYTES;

/// The bytes of memory that an outbox keeps for ever.
const KEPT_BYTES: usize = FREE_REPLY_BYTES;
/// The time that more memory is kept without use. If it were shorter, a client that polls for large
/// replies would wait for new memory each time.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// The number of sent bytes from which the unsent ones are moved to the front. Fewer are not worth
/// a copy.
const SENT_BYTES: usize = 64 << 10;

/// The unsent bytes of a client, behind some that were sent.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The bytes; new ones are appended.
    pub(super) bytes: Vec<u8>,
    /// The number of them that were sent.
    sent: usize,
    /// The last time at which more memory was used than is kept.
    large_at: Instant,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, large_at: Instant::now() }
    }

    /// Returns the number of unsent bytes.
    pub(super) fn unsent(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends as much as the socket has room for. Returns the number of bytes.
    ///
    /// # Errors
    /// The errors of `send(2)` except `AGAIN`, which is 0 bytes, or fewer than are unsent.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        // Half of it, because a growing vector has at most twice the memory that it needs.
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

    /// Returns the time to call [`Outbox::shrink`]; `None` if there is no memory to return.
    pub(super) fn shrinks_at(&self) -> Option<Instant> {
        let is_idle = self.unsent() == 0 && self.bytes.capacity() > KEPT_BYTES;
        is_idle.then(|| self.large_at + IDLE_TIME)
    }

    /// Returns the memory that is not kept.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to(KEPT_BYTES);
    }

    fn forget_sent(&mut self) {
        if self.unsent() == 0 {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= SENT_BYTES.max(self.unsent()) {
            // At least as many bytes were sent as are moved, so on average a byte is moved at most
            // once.
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
        // More is added while some bytes are unsent, so that the outbox is never empty.
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
        // An outbox in use does not shrink.
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
