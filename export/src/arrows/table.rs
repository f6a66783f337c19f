//! Tables of FlatBuffers, read from bytes that may be hostile.
//!
//! Invariant: every access is checked against the bytes, so that nothing panics, and a reader that
//! follows links of a fixed depth ends. What is absent has its default; what lies outside is
//! `None`.

/// A table in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The virtual table: its place and its size.
    vtable: usize,
    vtable_bytes: usize,
}

/// A vector of tables or of structures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector<'a> {
    bytes: &'a [u8],
    first: usize,
    count: usize,
}

impl<'a> Table<'a> {
    /// Returns the root table of a buffer.
    pub(super) fn root(bytes: &'a [u8]) -> Option<Self> {
        Self::at(bytes, follow(bytes, 0)?)
    }

    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let back = i32::from_le_bytes(array(bytes, at)?);
        let vtable = usize::try_from(i64::try_from(at).ok()? - i64::from(back)).ok()?;
        let vtable_bytes = usize::from(u16::from_le_bytes(array(bytes, vtable)?));
        bytes.get(vtable..vtable.checked_add(vtable_bytes)?)?;
        Some(Self { bytes, at, vtable, vtable_bytes })
    }

    /// Returns the place of a field; `None` if it is absent.
    fn field(&self, number: usize) -> Option<usize> {
        let entry = 4 + 2 * number;
        if entry + 2 > self.vtable_bytes {
            return None;
        }
        let offset = u16::from_le_bytes(array(self.bytes, self.vtable + entry)?);
        (offset != 0).then(|| self.at + usize::from(offset))
    }

    /// Returns a number of that many bytes, or `default` if the field is absent.
    fn number<const N: usize, T>(
        &self,
        number: usize,
        default: T,
        parse: fn([u8; N]) -> T,
    ) -> Option<T> {
        match self.field(number) {
            None => Some(default),
            Some(at) => array(self.bytes, at).map(parse),
        }
    }

    pub(super) fn u8(&self, number: usize) -> Option<u8> {
        self.number(number, 0, u8::from_le_bytes)
    }

    pub(super) fn bool(&self, number: usize) -> Option<bool> {
        self.u8(number).map(|value| value != 0)
    }

    pub(super) fn i16(&self, number: usize) -> Option<i16> {
        self.number(number, 0, i16::from_le_bytes)
    }

    pub(super) fn i32(&self, number: usize) -> Option<i32> {
        self.number(number, 0, i32::from_le_bytes)
    }

    pub(super) fn i64(&self, number: usize) -> Option<i64> {
        self.number(number, 0, i64::from_le_bytes)
    }

    /// Returns whether a field is present.
    pub(super) fn has(&self, number: usize) -> bool {
        self.field(number).is_some()
    }

    /// Returns the table that a field links to.
    pub(super) fn table(&self, number: usize) -> Option<Self> {
        Self::at(self.bytes, follow(self.bytes, self.field(number)?)?)
    }

    /// Returns the string that a field links to; an empty one if it is absent.
    pub(super) fn string(&self, number: usize) -> Option<&'a str> {
        let Some(at) = self.field(number) else { return Some("") };
        let at = follow(self.bytes, at)?;
        let count = u32::from_le_bytes(array(self.bytes, at)?) as usize;
        str::from_utf8(self.bytes.get(at + 4..(at + 4).checked_add(count)?)?).ok()
    }

    /// Returns the vector that a field links to, whose elements have that many bytes; an empty one
    /// if it is absent.
    pub(super) fn vector(&self, number: usize, element_bytes: usize) -> Option<Vector<'a>> {
        let Some(at) = self.field(number) else {
            return Some(Vector { bytes: self.bytes, first: 0, count: 0 });
        };
        let at = follow(self.bytes, at)?;
        let count = u32::from_le_bytes(array(self.bytes, at)?) as usize;
        let first = at + 4;
        self.bytes.get(first..first.checked_add(count.checked_mul(element_bytes)?)?)?;
        Some(Vector { bytes: self.bytes, first, count })
    }

    /// Returns the pairs of a vector of tables of two strings. Their bytes come off the budget:
    /// links of a hostile buffer may lead to one long string many times.
    pub(super) fn metadata(
        &self,
        number: usize,
        budget: &mut usize,
    ) -> Option<Vec<(String, String)>> {
        let vector = self.vector(number, 4)?;
        let pairs = (0..vector.len()).map(|index| {
            let pair = vector.table(index)?;
            let (key, text) = (pair.string(0)?, pair.string(1)?);
            *budget = budget.checked_sub(key.len() + text.len())?;
            Some((key.to_owned(), text.to_owned()))
        });
        pairs.collect()
    }
}

impl<'a> Vector<'a> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns a table of a vector of links.
    pub(super) fn table(&self, index: usize) -> Option<Table<'a>> {
        let at = (index < self.count).then(|| self.first + 4 * index)?;
        Table::at(self.bytes, follow(self.bytes, at)?)
    }

    /// Returns a structure of two numbers of a vector of such.
    pub(super) fn pair(&self, index: usize) -> Option<(i64, i64)> {
        let at = (index < self.count).then(|| self.first + 16 * index)?;
        let number = |at| array(self.bytes, at).map(i64::from_le_bytes);
        Some((number(at)?, number(at + 8)?))
    }
}

/// Returns the place that the link at this place points to.
fn follow(bytes: &[u8], at: usize) -> Option<usize> {
    let offset = u32::from_le_bytes(array(bytes, at)?);
    at.checked_add(offset as usize)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::super::flat::{Field, Flat};
    use super::*;

    fn buffer() -> Vec<u8> {
        let (mut flat, root) = Flat::new();
        let fields = [
            Field::U8(7),
            Field::Absent,
            Field::Link,
            Field::I64(-5),
            Field::Link,
            Field::I16(-2),
            Field::Link,
            Field::I32(9),
        ];
        let [_, _, text, _, pairs, _, metadata, _] = flat.table(root, fields);
        flat.string(text, "häh");
        flat.pairs(pairs, &[(1, 2), (3, i64::MIN)]);
        flat.metadata(metadata, &[("k".into(), "v".into()), (String::new(), "w".into())]);
        flat.finish()
    }

    #[test]
    fn a_buffer_is_read_as_it_was_written() {
        let bytes = buffer();
        assert!(bytes.len().is_multiple_of(8));
        let table = Table::root(&bytes).expect("the root is whole");
        assert_eq!((table.u8(0), table.i64(3), table.i16(5)), (Some(7), Some(-5), Some(-2)));
        assert_eq!((table.i32(7), table.i32(1), table.i32(99)), (Some(9), Some(0), Some(0)));
        assert_eq!((table.string(2), table.string(1)), (Some("häh"), Some("")));
        let pairs = table.vector(4, 16).expect("the vector is whole");
        assert_eq!((pairs.len(), pairs.pair(1), pairs.pair(2)), (2, Some((3, i64::MIN)), None));
        let metadata = table.metadata(6, &mut 3).expect("the metadata is whole");
        assert_eq!(metadata, [("k".into(), "v".into()), (String::new(), "w".into())]);
        assert_eq!(table.metadata(6, &mut 2), None, "beyond the budget");
    }

    /// Every cut and every changed byte gives something or nothing, and no panic.
    #[test]
    fn damaged_buffers_are_read_without_a_panic() {
        let whole = buffer();
        let look = |bytes: &[u8]| {
            let Some(table) = Table::root(bytes) else { return };
            for number in 0..9 {
                let _ = (table.i64(number), table.string(number), table.metadata(number, &mut 99));
                let _ = table.vector(number, 16).map(|vector| vector.pair(vector.len()));
                let _ = table.table(number).map(|table| table.string(0));
            }
        };
        for at in 0..whole.len() {
            look(&whole[..at]);
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                look(&bytes);
            }
        }
    }
}
