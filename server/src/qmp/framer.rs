//! Cuts what a client sends into JSON texts, as QEMU does: no line ends them, but the balance of
//! their brackets, or for a number or a word whatever follows it.
//!
//! Invariant: every byte is looked at once, and the pieces do not depend on how the stream was cut
//! into pushes. Of a text no more than [`MAX_REQUEST_BYTES`] are kept; what is refused for its size
//! is looked through to its end, and nothing in it is taken for a request.

mod lexer;

use self::lexer::{Lexer, Stop};
use super::refusal::Refusal;

#[cfg(test)]
pub(super) use self::lexer::MAX_NESTING;

/// The most bytes of one text. QEMU takes 64 MiB; nothing that can be asked for is as long as this.
pub(super) const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The most that the buffer keeps for the next request.
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
    /// The index at which the present text begins; all bytes before it are done with.
    start: usize,
    /// Up to where the lexer has looked.
    at: usize,
    lexer: Lexer,
    /// The present text has been refused, so its rest is not kept.
    is_skipping: bool,
}

impl Framer {
    /// Takes more of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Only if no more is left than is done with: then a byte is moved once on average.
        if self.start >= self.buffer.len() - self.start {
            self.drop_done();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece; None if the stream has to go on first.
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

    /// How many bytes there are of a text that has not ended.
    pub(super) fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Makes room for all that a text can have. Growing step by step would move it again and again,
    /// and leave holes behind.
    pub(super) fn make_room(&mut self) {
        self.drop_done();
        self.buffer.reserve_exact((MAX_REQUEST_BYTES + MAX_IDLE_BYTES) - self.unfinished());
    }

    /// Skips the text that has not ended: nothing of it is kept, and nothing in it is taken for a
    /// request. It was the caller's to answer.
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

    /// Goes on behind a text that [`Framer::rest`] began with, and that has been understood without
    /// looking into it.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.start = self.at;
    }

    /// Before the stream goes on: forgets what is skipped, and gives back what a long text needed.
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
