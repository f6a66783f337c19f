//! Memory for the replies of one connection, and for a long request.
//!
//! Invariant: a reply is begun only when there is room for all of it, and more of a request is
//! received only when there is room for it. Memory beyond [`FREE_REPLY_BYTES`] and
//! [`LONG_REQUEST_BYTES`] comes from the pools of all connections.

use std::time::Duration;

use super::budget::{LONG_REQUEST_BYTES, Lease, PATIENCE, Pool};
use super::framer::Framer;
use super::refusal::Refusal;

/// The bytes of replies that each connection may have, independently of the others.
pub(super) const FREE_REPLY_BYTES: usize = 256 << 10;

/// The share of the pool, one in so many, up to which room is kept for a while after its use.
const EASY_SHARE: usize = 8;

/// The bytes beyond [`FREE_REPLY_BYTES`] that a connection has taken for its replies.
#[derive(Debug)]
pub(super) struct Room(Lease);

impl Room {
    /// Makes a room without bytes of a pool.
    pub(super) fn new(pool: &Pool) -> Self {
        Self(Lease::empty(pool))
    }

    /// Makes room for more bytes behind those in `out`. Waits up to [`PATIENCE`].
    ///
    /// # Errors
    /// GenericError if other connections hold too much.
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
                "the replies of all clients may take {} bytes, and a reply of up to {more} more \
                 does not fit now: ask again, or for less",
                self.0.pool().max()
            );
            return Err(Refusal::generic(text));
        }
        if more > FREE_REPLY_BYTES {
            // Without this, the vector would double its size.
            out.reserve_exact(more);
        }
        Ok(())
    }

    /// Takes room for bytes that are there already. Returns false if there is none without waiting.
    pub(super) fn covers(&mut self, bytes: usize) -> bool {
        bytes <= FREE_REPLY_BYTES || self.0.grow(beyond_free(bytes), Duration::ZERO)
    }

    /// Returns whether there is room to return that others may soon need.
    pub(super) fn is_wanted(&self) -> bool {
        let pool = self.0.pool();
        self.0.units() > 0 && pool.max() - pool.left() > pool.max() / EASY_SHARE
    }

    /// Returns the room beyond this number of bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.0.shrink(beyond_free(bytes));
    }
}

/// The lease of a connection for a long request that it is receiving.
#[derive(Debug, Default)]
pub(super) struct RequestRoom(Option<Lease>);

impl RequestRoom {
    /// Makes room for the rest of a text, if the text is long. Waits up to [`PATIENCE`].
    ///
    /// # Errors
    /// GenericError if too many other clients send long requests. Then the text is skipped.
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
            "{} requests of more than {LONG_REQUEST_BYTES} bytes are being received, the most \
             at a time: ask again, or for less",
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
        // The other has the free bytes, and its error says why there are no more.
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
