//! FlatBuffers, in which Arrow writes the headers of messages: tables, vectors and strings.
//!
//! A buffer is written from its root on: a table comes with its scalars, and what it points to is
//! appended behind it and linked. Only what Arrow's headers need is here. (The format:
//! `flatbuffers/docs/source/internals.md`.)
//!
//! Invariant: every number is aligned to its size, counted from the start of the buffer, and every
//! link points forwards.

/// The place of a link that is to be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link(usize);

/// A field of a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// The field is absent and has its default.
    Absent,
    /// A byte, a boolean or the type of a union.
    U8(u8),
    /// A small enumeration.
    I16(i16),
    /// A number.
    I32(i32),
    /// A number.
    I64(i64),
    /// A table, vector or string that is linked later.
    Link,
}

/// A buffer that grows.
#[derive(Debug, Default)]
pub(super) struct Flat {
    bytes: Vec<u8>,
}

impl Flat {
    /// Begins a buffer whose root is the table that is written next, at the returned link.
    pub(super) fn new() -> (Self, Link) {
        let mut flat = Self::default();
        let root = flat.link();
        (flat, root)
    }

    /// Returns the whole buffer, its length a multiple of 8.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.align(8);
        self.bytes
    }

    /// Writes a table at a link. Returns the links of its fields, in their order.
    pub(super) fn table<const N: usize>(&mut self, at: Link, fields: [Field; N]) -> [Link; N] {
        // A virtual table first: its size, the table's size, and the offset of each field.
        let width = |field: &Field| match field {
            Field::Absent => 0,
            Field::U8(_) => 1,
            Field::I16(_) => 2,
            Field::I32(_) | Field::Link => 4,
            Field::I64(_) => 8,
        };
        let mut offsets = [0_usize; N];
        // Behind the table's own link to its virtual table, the widest fields first.
        let mut end = 4_usize;
        for wanted in [8, 4, 2, 1] {
            for (field, offset) in fields.iter().zip(&mut offsets) {
                if width(field) == wanted {
                    *offset = end.next_multiple_of(wanted);
                    end = *offset + wanted;
                }
            }
        }
        self.align(8);
        let vtable = self.bytes.len();
        self.u16(4 + 2 * N);
        self.u16(end);
        offsets.iter().for_each(|&offset| self.u16(offset));
        self.align(8);
        let table = self.bytes.len();
        self.set(at, table);
        self.bytes.resize(table + end, 0);
        self.put(table, &((table - vtable) as i32).to_le_bytes());
        for (field, offset) in fields.iter().zip(offsets) {
            match field {
                Field::U8(value) => self.put(table + offset, &value.to_le_bytes()),
                Field::I16(value) => self.put(table + offset, &value.to_le_bytes()),
                Field::I32(value) => self.put(table + offset, &value.to_le_bytes()),
                Field::I64(value) => self.put(table + offset, &value.to_le_bytes()),
                Field::Absent | Field::Link => {}
            }
        }
        offsets.map(|offset| Link(table + offset))
    }

    /// Writes a vector of tables at a link. Returns the links of its elements.
    pub(super) fn tables(&mut self, at: Link, count: usize) -> Vec<Link> {
        self.begin_vector(at, count, 4);
        (0..count).map(|_| self.link()).collect()
    }

    /// Writes a vector of structures of two numbers at a link.
    pub(super) fn pairs(&mut self, at: Link, pairs: &[(i64, i64)]) {
        self.begin_vector(at, pairs.len(), 8);
        for (one, other) in pairs {
            self.bytes.extend(one.to_le_bytes());
            self.bytes.extend(other.to_le_bytes());
        }
    }

    /// Writes a string at a link.
    pub(super) fn string(&mut self, at: Link, text: &str) {
        self.begin_vector(at, text.len(), 4);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// Writes a vector of tables of two strings, as Arrow keeps metadata, at a link.
    pub(super) fn metadata(&mut self, at: Link, pairs: &[(String, String)]) {
        let links = self.tables(at, pairs.len());
        for (link, (key, text)) in links.into_iter().zip(pairs) {
            let [key_link, text_link] = self.table(link, [Field::Link, Field::Link]);
            self.string(key_link, key);
            self.string(text_link, text);
        }
    }

    /// Writes the length of a vector, so that its elements are aligned.
    fn begin_vector(&mut self, at: Link, count: usize, align: usize) {
        self.align(4);
        while !(self.bytes.len() + 4).is_multiple_of(align) {
            self.bytes.push(0);
        }
        self.set(at, self.bytes.len());
        self.bytes.extend((count as u32).to_le_bytes());
    }

    fn link(&mut self) -> Link {
        self.bytes.extend([0; 4]);
        Link(self.bytes.len() - 4)
    }

    fn set(&mut self, link: Link, target: usize) {
        self.put(link.0, &((target - link.0) as u32).to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, value: usize) {
        self.bytes.extend((value as u16).to_le_bytes());
    }

    fn align(&mut self, align: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
    }
}
