//! Headers of pages, in Thrift's compact protocol (`doc/specs/thrift-compact-protocol.md`).
//!
//! Invariant: nothing panics, and nothing is asked for that the bytes do not have.

use super::decode::Input;

/// The depth of structures in structures that are passed over. A header has two.
const DEPTH_MAX: u32 = 8;
/// The number that ends a structure.
const STOP: u8 = 0;

/// The header of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) kind: Option<PageKind>,
    pub(super) uncompressed_bytes: i32,
    pub(super) compressed_bytes: i32,
    pub(super) values: i32,
    /// The number of the encoding of the values.
    pub(super) encoding: i32,
    /// The numbers of the encodings of the levels.
    pub(super) level_encodings: [i32; 2],
}

/// The kinds of page that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageKind {
    Data,
    Dictionary,
}

/// Structures and their fields, read one after the other.
struct Fields<'a> {
    input: Input<'a>,
}

impl PageHeader {
    /// Reads a header. Returns it and the bytes behind it; `None` if it is no header.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut input = Fields { input: Input { bytes } };
        let mut header = Self::default();
        input.fields(DEPTH_MAX, &mut |input, id, type_| {
            match id {
                1 => header.kind = kind(input.number(type_)?),
                2 => header.uncompressed_bytes = input.number(type_)?,
                3 => header.compressed_bytes = input.number(type_)?,
                // The headers of data pages and of dictionaries.
                5 | 7 if type_ == STRUCT => input.fields(DEPTH_MAX, &mut |input, id, type_| {
                    match id {
                        1 => header.values = input.number(type_)?,
                        2 => header.encoding = input.number(type_)?,
                        3 | 4 if type_ == I32 => {
                            header.level_encodings[usize::from(id == 4)] = input.number(type_)?;
                        }
                        _ => input.skip(type_, DEPTH_MAX)?,
                    }
                    Some(())
                })?,
                _ => input.skip(type_, DEPTH_MAX)?,
            }
            Some(())
        })?;
        Some((header, input.input.bytes))
    }
}

fn kind(number: i32) -> Option<PageKind> {
    match number {
        0 => Some(PageKind::Data),
        2 => Some(PageKind::Dictionary),
        _ => None,
    }
}

/// Numbers of types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;

/// A function that reads the field of that number and type.
type OnField<'f, 'a> = &'f mut dyn FnMut(&mut Fields<'a>, i16, u8) -> Option<()>;

impl<'a> Fields<'a> {
    fn number(&mut self, type_: u8) -> Option<i32> {
        (type_ == I32).then_some(())?;
        self.input.zigzag()?.try_into().ok()
    }

    /// Reads the fields of a structure.
    fn fields(&mut self, depth: u32, on_field: OnField<'_, 'a>) -> Option<()> {
        depth.checked_sub(1)?;
        let mut id = 0_i16;
        loop {
            let head = self.input.byte()?;
            if head == STOP {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.input.zigzag()?.try_into().ok()?,
                step => id.checked_add(step.into())?,
            };
            on_field(self, id, head & 0xf)?;
        }
    }

    /// Passes over a value.
    fn skip(&mut self, type_: u8, depth: u32) -> Option<()> {
        match type_ {
            TRUE | FALSE => {}
            I8 => drop(self.input.byte()?),
            I16 | I32 | I64 => drop(self.input.varint()?),
            DOUBLE => drop(self.input.take(8)?),
            BINARY => {
                let count = self.input.varint()?.try_into().ok()?;
                self.input.take(count)?;
            }
            STRUCT => {
                let depth = depth.checked_sub(1)?;
                self.fields(depth, &mut |input, _, type_| input.skip(type_, depth))?;
            }
            // Lists and maps: no header has them.
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page of 9 values with statistics, which are passed over, and a checksum.
    const DATA: [u8; 31] = [
        0x15, 0, 0x15, 0x80, 1, 0x15, 0x7e, 0x15, 3, 0x1c, 0x15, 18, 0x15, 10, 0x15, 6, 0x15, 8,
        0x1c, 0x28, 2, b'a', b'b', 0x11, 0x16, 2, 0, 0, 0, 7, 7,
    ];

    #[test]
    fn a_header_is_read() {
        let (header, rest) = PageHeader::read(&DATA).expect("the header is whole");
        let want = PageHeader {
            kind: Some(PageKind::Data),
            uncompressed_bytes: 64,
            compressed_bytes: 63,
            values: 9,
            encoding: 5,
            level_encodings: [3, 4],
        };
        assert_eq!((header, rest), (want, &[7, 7][..]));
        // A dictionary page.
        let bytes = [0x15, 4, 0x15, 2, 0x15, 4, 0x4c, 0x15, 6, 0x15, 0, 0x11, 0, 0];
        let (header, rest) = PageHeader::read(&bytes).expect("the header is whole");
        let kind = Some(PageKind::Dictionary);
        let sizes = (header.uncompressed_bytes, header.compressed_bytes, header.values);
        assert_eq!((header.kind, sizes, header.encoding, rest.len()), (kind, (1, 2, 3), 0, 0));
    }

    #[test]
    fn damaged_headers_are_read_without_a_panic() {
        for at in 0..DATA.len() {
            if at < DATA.len() - 2 {
                assert_eq!(PageHeader::read(&DATA[..at]), None);
            }
            for byte in 0..=255 {
                let mut bytes = DATA;
                bytes[at] = byte;
                let _ = PageHeader::read(&bytes);
            }
        }
        let deep = [[0x1c; 64].as_slice(), &[0; 64]].concat();
        assert_eq!(PageHeader::read(&deep), None);
    }
}
