//! Room for the replies of one connection, and for a long request.
//!
//! Invariant: a reply is not begun before there is room for all of it, nor more of a request
//! received. What a connection has beyond [`FREE_REPLY_BYTES`] and [`LONG_REQUEST_BYTES`] is taken
//! of what all connections may have together.

use std::time::Duration;

use super::budget::{LONG_REQUEST_BYTES, Lease, PATIENCE, Pool};
use super::framer::Framer;
use super::refusal::Refusal;

/// How many bytes of replies each connection may have, whatever the others have.
pub(super) const FREE_REPLY_BYTES: usize = 256 << 10;

/// While no more than this share of the pool is taken, room is kept for a while after it was used.
const EASY_SHARE: usize = 8;

/// The bytes beyond [`FREE_REPLY_BYTES`] that a connection has taken for its replies.
#[derive(Debug)]
pub(super) struct Room(Lease);

impl Room {
    /// Of that pool; none is taken yet.
    pub(super) fn new(pool: &Pool) -> Self {
        Self(Lease::empty(pool))
    }

    /// Makes room for so many bytes more behind what there is; waits for it for a while.
    ///
    /// # Errors
    /// If others take so much that there is none.
    #[inline]
    pub(super) fn make(&mut self, out: &mut Vec<u8>, more: usize) -> Result<(), Refusal> {
        if out.len() + more <= FREE_REPLY_BYTES {
            return Ok(());
        }
        self.make_much(out, more)
    }

    #[cold]
    fn make_much(&mut self, out: &mut Vec<u8>, more: usize) -> Result<(), Refusal> {
        if !self.0.grow(beyond_free(out.len() + more), PATIENCE) {
            let text = format!(
                "the replies of all clients may take {} bytes, and too many are taken for one of \
                 up to {more} more: ask again, or for less",
                self.0.pool().max()
            );
            return Err(Refusal::generic(text));
        }
        if more > FREE_REPLY_BYTES {
            // Doubling would take twice as much.
            out.reserve_exact(more);
        }
        Ok(())
    }

    /// Counts what there is already; false if there is no room for it without waiting.
    pub(super) fn covers(&mut self, bytes: usize) -> bool {
        bytes <= FREE_REPLY_BYTES || self.0.grow(beyond_free(bytes), Duration::ZERO)
    }

    /// True if there is something to give back, and others may soon need it.
    pub(super) fn is_wanted(&self) -> bool {
        let pool = self.0.pool();
        self.0.units() > 0 && pool.max() - pool.left() > pool.max() / EASY_SHARE
    }

    /// Gives back what is beyond so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.0.shrink(beyond_free(bytes));
    }
}

/// The lease that a connection has for a request being received, if that is a long one.
#[derive(Debug, Default)]
pub(super) struct RequestRoom(Option<Lease>);

impl RequestRoom {
    /// Makes room for the rest of a text of which there is much already; waits for it for a while.
    ///
    /// # Errors
    /// If others send so many long requests that there is none. Then the text is given up.
    pub(super) fn make(&mut self, framer: &mut Framer, pool: &Pool) -> Result<(), Refusal> {
        if framer.unfinished() < LONG_REQUEST_BYTES {
            self.0 = None;
            return Ok(());
        }
        if self.0.is_some() {
            return Ok(());
        }
        self.0 = pool.wait(1, PATIENCE);
        if self.0.is_some() {
            framer.make_room();
            return Ok(());
        }
        framer.give_up();
        let text = format!(
            "{} requests of more than {LONG_REQUEST_BYTES} bytes are being received, as many as \
             may be: ask again, or for less",
            pool.max()
        );
        Err(Refusal::generic(text))
    }
}

fn beyond_free(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_REPLY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_always_there_and_more_is_shared() {
        let pool = Pool::new(1 << 20);
        let [mut one, mut other] = [Room::new(&pool), Room::new(&pool)];
        let mut out = Vec::new();
        one.make(&mut out, FREE_REPLY_BYTES).unwrap();
        assert_eq!(pool.left(), pool.max());
        one.make(&mut out, FREE_REPLY_BYTES + (1 << 20)).unwrap();
        assert!(pool.left() == 0 && one.is_wanted());
        assert!(out.capacity() >= FREE_REPLY_BYTES + (1 << 20));
        // Somebody else has what is free, and is told why there is no more.
        let mut others = vec![0; 10];
        other.make(&mut others, FREE_REPLY_BYTES - 10).unwrap();
        assert!(!other.covers(FREE_REPLY_BYTES + 1));
        let error = other.make(&mut others, FREE_REPLY_BYTES).unwrap_err();
        assert!(error.desc.contains("1048576 bytes") && error.desc.contains("ask again"));
        one.shrink(FREE_REPLY_BYTES);
        assert!(pool.left() == pool.max() && !one.is_wanted());
        assert!(other.covers(FREE_REPLY_BYTES + 1) && pool.left() == pool.max() - 1);
    }
}
