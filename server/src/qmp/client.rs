//! The thread of one client: it moves bytes between the socket and the session.
//!
//! Invariant: a round trip of a client that waits for each reply takes one receive and one send.
//! While more than [`MAX_UNSENT_BYTES`] are unsent, or fewer if all clients together have too many,
//! no request is read or answered and no event is written. So no more than these bytes and one
//! reply are kept for a client, and its behaviour does not affect others.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use super::counts::Counters;
use super::session::Session;
use outbox::Outbox;

mod outbox;

/// The most unsent bytes of a client before its requests have to wait.
pub(super) const MAX_UNSENT_BYTES: usize = 4 << 20;
/// The time that a client with more than [`MAX_UNSENT_BYTES`] unsent may read so little that the
/// kernel has no room for more. The kernel frees room in buffers of some 32 KiB, not by bytes.
pub(super) const UNREAD_LIMIT: Duration = Duration::from_secs(1);
/// The most bytes that one call receives.
const RECEIVE_BYTES: usize = 64 << 10;
/// The bytes of replies that are sent even if there are more requests.
const FLUSH_BYTES: usize = 64 << 10;

/// The reason why a client is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed the connection, or was sent all replies after it shut down its sending
    /// side, or the socket failed.
    Left,
    /// The server is to end.
    Stopped,
    /// The client did not read.
    Unread,
}

/// A client that is being served.
#[derive(Debug)]
pub(super) struct Client<'a> {
    socket: BorrowedFd<'a>,
    session: Session,
    counters: &'a Counters,
    stop: &'a AtomicBool,
    received: Box<[u8]>,
    outbox: Outbox,
    /// Whether the socket had no room for all of the outbox.
    is_full: bool,
    /// Whether the client has sent its last byte.
    has_said_all: bool,
}

impl<'a> Client<'a> {
    /// Makes a client of a blocking socket. While the thread waits for the client, it notices
    /// `stop` only if the socket is shut down.
    pub(super) fn new(
        socket: BorrowedFd<'a>,
        session: Session,
        counters: &'a Counters,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            socket,
            session,
            counters,
            stop,
            received: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            outbox: Outbox::new(),
            is_full: false,
            has_said_all: false,
        }
    }

    /// Serves the client to the end, and returns the reason for the end.
    pub(super) fn serve(mut self) -> End {
        self.session.greet(&mut self.outbox.bytes);
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Answers the received requests, then waits once.
    fn turn(&mut self) -> Result<(), End> {
        let is_all_answered = self.answer()?;
        self.send()?;
        if self.owes_enough() {
            self.wait_for_room()
        } else if !is_all_answered {
            Ok(())
        } else if self.has_said_all && self.outbox.unsent() == 0 {
            Err(End::Left)
        } else {
            self.wait()
        }
    }

    /// Answers requests until no complete one is left. Returns false if too much is unsent before
    /// that.
    fn answer(&mut self) -> Result<bool, End> {
        loop {
            // Relaxed, because no other data depends on the flag.
            if self.stop.load(Ordering::Relaxed) {
                return Err(End::Stopped);
            }
            if self.owes_enough() {
                return Ok(false);
            }
            self.report();
            if !self.session.answer_next(&mut self.outbox.bytes) {
                return Ok(true);
            }
            self.counters.requests.add(1);
            if self.outbox.unsent() > FLUSH_BYTES {
                self.send()?;
            }
        }
    }

    /// Returns whether so much is unsent that no more may be written.
    fn owes_enough(&mut self) -> bool {
        let unsent = self.outbox.unsent();
        unsent > MAX_UNSENT_BYTES || !self.session.room().covers(unsent)
    }

    /// Writes the events that are due. A client that has sent its last byte gets only replies.
    fn report(&mut self) {
        let due = self.next_events().is_some_and(|at| at <= Instant::now());
        if due {
            self.session.write_events(&mut self.outbox.bytes);
        }
    }

    fn next_events(&self) -> Option<Instant> {
        if self.has_said_all { None } else { self.session.next_events() }
    }

    /// Sends as much as the socket has room for. Returns the number of bytes.
    fn send(&mut self) -> Result<usize, End> {
        if self.is_full || self.outbox.unsent() == 0 {
            return Ok(0);
        }
        // This is also the end if the kernel has no memory: otherwise the client and this thread
        // would wait for each other.
        let count = self.outbox.send(self.socket).map_err(|_| End::Left)?;
        self.is_full = self.outbox.unsent() > 0;
        self.counters.bytes_sent.add(count as u64);
        Ok(count)
    }

    /// Waits until the client has read some bytes.
    fn wait_for_room(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + UNREAD_LIMIT;
        loop {
            self.poll(PollFlags::OUT, Some(deadline))?;
            // Sends also when the time is over, because there is some room long before poll reports
            // it.
            self.is_full = false;
            if self.send()? > 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(End::Unread);
            }
        }
    }

    /// Waits until the client sends or reads something, events are due, or room is to be returned.
    fn wait(&mut self) -> Result<(), End> {
        let is_unsent = self.outbox.unsent() > 0;
        let mut shrinks_at = self.outbox.shrinks_at();
        let is_over = |at| at <= Instant::now() || self.session.room().is_wanted();
        if shrinks_at.is_some_and(is_over) {
            self.outbox.shrink();
            self.session.room().shrink(self.outbox.unsent());
            shrinks_at = None;
        }
        if !is_unsent && shrinks_at.is_none() {
            self.session.room().shrink(0);
        }
        let until = self.next_events().into_iter().chain(shrinks_at).min();
        if until.is_none() && !is_unsent {
            return self.receive();
        }
        let mut wanted = PollFlags::empty();
        // After the client's last byte, poll would always report the end as readable.
        wanted.set(PollFlags::IN, !self.has_said_all);
        wanted.set(PollFlags::OUT, is_unsent);
        let found = self.poll(wanted, until)?;
        // If the client has left with something unsent, the next send fails.
        self.is_full &= !found.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR);
        if !self.has_said_all && !found.difference(PollFlags::OUT).is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    /// Receives bytes of the client, and waits for them if there are none.
    fn receive(&mut self) -> Result<(), End> {
        self.session.make_room(&mut self.outbox.bytes);
        match read(self.socket, &mut self.received[..]) {
            Ok(0) => self.has_said_all = true,
            Ok(count) => {
                self.counters.bytes_received.add(count as u64);
                self.session.push(&self.received[..count]);
            }
            Err(Errno::INTR) => {}
            Err(_) => return Err(End::Left),
        }
        Ok(())
    }

    /// Returns the events that poll(2) reports; none at `until` and after a signal.
    fn poll(&self, wanted: PollFlags, until: Option<Instant>) -> Result<PollFlags, End> {
        let pause = until.map(|at| at.saturating_duration_since(Instant::now()));
        // A time that does not fit into a Timespec is as good as none.
        let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
        let mut fds = [PollFd::from_borrowed_fd(self.socket, wanted)];
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) => Ok(fds[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(_) => Err(End::Left),
        }
    }
}

#[cfg(test)]
mod tests;
