//! Cuts the bytes of a client into JSON texts, as QEMU does. The balance of the brackets ends a
//! text, not the end of a line; a number or a word ends at the byte behind it.
//!
//! Invariant: every byte is examined once, and the pieces do not depend on how the stream was cut
//! into pushes. At most [`MAX_REQUEST_BYTES`] of a text are kept. A longer text is refused and
//! skipped to its end, and no part of it is taken for a request.

pub(super) mod lexer;

use self::lexer::{Lexer, Stop};
use super::refusal::Refusal;

/// The most bytes of one text. QEMU takes 64 MiB, but no useful request is as long as this.
pub(super) const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The most bytes of memory that the buffer keeps for the next request.
const MAX_IDLE_BYTES: usize = 64 * 1024;

/// A piece of the stream. Each piece gets one reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A text whose brackets balance; it may still be no JSON.
    Text(&'a [u8]),
    /// The error to reply for something that was skipped.
    Refused(Refusal),
}

/// The stream of one client.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// The index at which the present text begins. The bytes before it are no longer needed.
    start: usize,
    /// The end of the bytes that the lexer has examined.
    at: usize,
    lexer: Lexer,
    /// Whether the present text was refused, so that its rest is not kept.
    is_skipping: bool,
}

impl Framer {
    /// Takes more of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Only if no more bytes are left than are dropped: then a byte is moved once on average.
        if self.start >= self.buffer.len() - self.start {
            self.drop_done();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next piece; `None` if more bytes are needed.
    pub(super) fn next_piece(&mut self) -> Option<Piece<'_>> {
        if self.at == self.buffer.len() {
            self.settle();
            return None;
        }
        loop {
            if self.lexer.is_between_texts() {
                self.at += self.lexer.skip(&self.buffer[self.at..]);
                self.start = self.at;
            }
            let end = match self.is_skipping {
                true => self.buffer.len(),
                false => self.buffer.len().min(self.start + MAX_REQUEST_BYTES),
            };
            let (seen, stop) = self.lexer.look(&self.buffer[self.at..end]);
            self.at += seen;
            let desc = match stop {
                Stop::Drained if self.is_skipping || self.at - self.start < MAX_REQUEST_BYTES => {
                    self.settle();
                    return None;
                }
                Stop::TooDeep if self.is_skipping => continue,
                Stop::Balanced if self.is_skipping => {
                    self.is_skipping = false;
                    continue;
                }
                Stop::Balanced => {
                    let text = self.start..self.at;
                    self.start = self.at;
                    return Some(Piece::Text(&self.buffer[text]));
                }
                Stop::Drained => {
                    self.is_skipping = true;
                    "JSON token size limit exceeded".to_owned()
                }
                Stop::TooDeep => {
                    self.is_skipping = true;
                    "JSON nesting depth limit exceeded".to_owned()
                }
                Stop::Stray(byte) => {
                    self.is_skipping = false;
                    format!("JSON parse error, stray byte 0x{byte:02X}")
                }
            };
            self.start = self.at;
            return Some(Piece::Refused(Refusal::generic(desc)));
        }
    }

    /// Returns the number of bytes of the unfinished text.
    pub(super) fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Reserves memory for the longest text. Growing step by step would move the text several times
    /// and fragment the heap.
    pub(super) fn make_room(&mut self) {
        self.drop_done();
        self.buffer.reserve_exact((MAX_REQUEST_BYTES + MAX_IDLE_BYTES) - self.unfinished());
    }

    /// Skips the unfinished text, so that no part of it is kept or taken for a request. The caller
    /// answers it.
    pub(super) fn give_up(&mut self) {
        self.is_skipping = true;
        self.settle();
    }

    /// Returns the received bytes from the next text on; none while a text is unfinished or
    /// skipped.
    pub(super) fn rest(&mut self) -> &[u8] {
        if !self.lexer.is_between_texts() || self.is_skipping {
            return &[];
        }
        self.at += self.lexer.skip(&self.buffer[self.at..]);
        self.start = self.at;
        &self.buffer[self.start..]
    }

    /// Continues behind a text at the begin of [`Framer::rest`] that the caller has recognised.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.start = self.at;
    }

    /// Drops skipped bytes and the memory of a long text, before more bytes are received.
    fn settle(&mut self) {
        if self.is_skipping {
            self.start = self.at;
        }
        let left = self.buffer.len() - self.start;
        if left == 0 || (left <= MAX_IDLE_BYTES && self.buffer.capacity() > MAX_IDLE_BYTES) {
            self.drop_done();
            self.buffer.shrink_to(MAX_IDLE_BYTES);
        }
    }

    fn drop_done(&mut self) {
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests;
