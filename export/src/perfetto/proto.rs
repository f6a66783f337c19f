//! The wire format of Protocol Buffers, as far as a trace needs it.
//!
//! Invariant: a message is whole once its closure has returned; its length is known then and not
//! before.

/// The bytes of one message, or of several that follow each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// The wire types.
const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an unsigned number, a truth value or an enumerator.
    pub(super) fn uint(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// Adds a signed number.
    pub(super) fn int(&mut self, field: u64, value: i64) -> &mut Self {
        self.uint(field, value as u64)
    }

    /// Adds bytes.
    pub(super) fn data(&mut self, field: u64, data: &[u8]) -> &mut Self {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(data.len() as u64);
        self.0.extend_from_slice(data);
        self
    }

    /// Adds a text.
    pub(super) fn text(&mut self, field: u64, text: &str) -> &mut Self {
        self.data(field, text.as_bytes())
    }

    /// Adds a message, which the closure writes.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.varint(field << 3 | LENGTH_DELIMITED);
        let start = self.0.len();
        write(self);
        // The length stands before the message; most messages are shorter than 128 bytes.
        let mut length = Self::default();
        length.varint((self.0.len() - start) as u64);
        let end = self.0.len();
        self.0.extend_from_slice(&length.0);
        let length_bytes = self.0.len() - end;
        self.0[start..].rotate_right(length_bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_format_says() {
        let mut message = Message::default();
        // The examples of the format's own documentation.
        message.uint(1, 150).text(2, "testing").message(3, |inner| {
            inner.uint(1, 150);
        });
        assert_eq!(message.bytes(), b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
        message.clear();
        assert!(message.is_empty());
        message.int(1, -2);
        assert_eq!(message.bytes(), b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        let mut message = Message::default();
        message.uint(7, 1).message(1, |inner| {
            inner.data(2, &[9; 300]);
        });
        assert_eq!(message.bytes()[..8], [0x38, 1, 0x0a, 0xaf, 0x02, 0x12, 0xac, 0x02]);
        assert_eq!(message.bytes().len(), 2 + 3 + 3 + 300);
    }
}
