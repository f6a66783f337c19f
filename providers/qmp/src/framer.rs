//! From a stream of bytes to JSON texts, of which QEMU sends one an answer or event.
//!
//! A text ends where its brackets balance, not at the end of a line: a monitor with `pretty=on`
//! spreads it over many.
//!
//! Invariant: of one text at most [`MAX_REPLY_BYTES`] are kept, and each byte is looked at once. A
//! text that begins with anything but `{` is refused at its first byte.

use std::ops::Range;

use vmstrobe_core::{Error, ErrorKind, Result};

/// The most bytes of one text: libvirt's limit. 4096 vCPUs of Linux 6.18 take 9 MB.
pub(super) const MAX_REPLY_BYTES: usize = 10 << 20;

/// Bytes as they come, and the texts in them.
#[derive(Debug, Default)]
pub(super) struct Framer {
    bytes: Vec<u8>,
    /// Up to here they belong to texts that were given out.
    done: usize,
    /// Up to here they were looked at.
    seen: usize,
    /// Brackets that are open at `seen`.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Framer {
    /// Takes what has come. The ranges given out before mean nothing any more.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.seen -= self.done;
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the range of the next whole text, if it has come.
    ///
    /// # Errors
    /// `Malformed` if what comes is no JSON object, `TooLarge` if it has no end within
    /// [`MAX_REPLY_BYTES`].
    pub(super) fn next_text(&mut self) -> Result<Option<Range<usize>>> {
        while let Some(&byte) = self.bytes.get(self.seen) {
            if self.depth == 0 {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.done = self.seen + 1,
                    b'{' => self.depth = 1,
                    _ => return Err(self.not_json()),
                }
                self.seen += 1;
                continue;
            }
            self.seen += 1;
            self.step(byte);
            if self.depth == 0 {
                let text = self.done..self.seen;
                self.done = self.seen;
                return Ok(Some(text));
            }
            if self.seen - self.done >= MAX_REPLY_BYTES {
                let text = format!("QEMU sends more than {MAX_REPLY_BYTES} bytes in one answer");
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
        }
        Ok(None)
    }

    /// One byte inside a text.
    #[inline]
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
    }

    /// A text that was given out.
    pub(super) fn text(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// True if part of a text has come, and the rest has not.
    pub(super) fn is_inside(&self) -> bool {
        self.depth > 0
    }

    fn not_json(&self) -> Error {
        let rest = &self.bytes[self.seen..];
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let quote = super::message::quoted(String::from_utf8_lossy(line).trim_end());
        Error::new(ErrorKind::Malformed, format!("this is not QMP: it says {quote:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All texts of what is pushed in pieces of that size.
    fn texts(bytes: &[u8], piece: usize) -> Vec<String> {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            framer.push(piece);
            while let Some(text) = framer.next_text().unwrap() {
                found.push(String::from_utf8(framer.text(text).to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn texts_end_where_brackets_balance() {
        let stream =
            b"{\"a\": \"}\\\"{[\\\\\"}\r\n \t{\r\n  \"b\": [{}, [\"]\"]]\r\n}{}\n{\"late\"";
        for piece in [1, 2, 3, 7, 1000] {
            let found = texts(stream, piece);
            let want = ["{\"a\": \"}\\\"{[\\\\\"}", "{\r\n  \"b\": [{}, [\"]\"]]\r\n}", "{}"];
            assert_eq!(found, want, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused_at_once() {
        for garbage in ["SSH-2.0-OpenSSH_9\r\n", "[]", "{}x", "\u{1b}[2J", "}"] {
            let mut framer = Framer::default();
            framer.push(garbage.as_bytes());
            let error = loop {
                match framer.next_text() {
                    Ok(text) => assert!(text.is_some(), "{garbage}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Malformed);
            assert!(error.to_string().starts_with("this is not QMP: it says \""), "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn a_text_without_end_is_given_up() {
        let mut framer = Framer::default();
        framer.push(b"{\"a\": \"");
        let piece = [b'['; 1 << 16];
        let mut pushed = 0;
        let error = loop {
            framer.push(&piece);
            pushed += piece.len();
            match framer.next_text() {
                Ok(None) => assert!(framer.is_inside() && pushed < MAX_REPLY_BYTES),
                Ok(Some(text)) => panic!("{text:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(framer.bytes.len() <= MAX_REPLY_BYTES + piece.len());
    }

    #[test]
    fn what_was_given_out_is_forgotten() {
        let mut framer = Framer::default();
        for _ in 0..1000 {
            framer.push(b"{\"event\": \"STOP\"}\r\n");
            assert!(framer.next_text().unwrap().is_some());
            assert!(framer.next_text().unwrap().is_none());
        }
        assert!(framer.bytes.len() < 100);
    }
}
