//! Messages: a marker, the length of the header, the header, the body.
//!
//! The numbers are those of Arrow's `format/Message.fbs`. Invariant: header and body are multiples
//! of 8 bytes long, so that every message begins aligned.

use super::codec::Compression;
use super::flat::{Field, Flat, Link};
use super::table::Table;

/// The marker before the length of a header.
pub(super) const MARKER: [u8; 4] = [0xff; 4];
/// The end of a stream: a marker and a header of no bytes.
pub(super) const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Arrow's number for version 5 of the metadata, in use since 2020.
const VERSION_5: i16 = 4;
const SCHEMA: u8 = 1;
const DICTIONARY: u8 = 2;
const BATCH: u8 = 3;

/// The number of values of a column, and of those that are null.
pub(super) type Node = (i64, i64);
/// The start of a buffer in the body, and its length.
pub(super) type Buffer = (i64, i64);

/// Columns as they stand in the body of a message.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) nodes: Vec<Node>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) bytes: Vec<u8>,
}

impl Body {
    /// Empties the body and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.buffers.clear();
        self.bytes.clear();
    }
}

/// Begins a message. Returns the link of what its kind of header needs, and of its metadata.
fn begin(kind: u8, body_bytes: usize) -> (Flat, Link, Link) {
    let (mut flat, root) = Flat::new();
    let fields = [
        Field::I16(VERSION_5),
        Field::U8(kind),
        Field::Link,
        Field::I64(body_bytes as i64),
        Field::Link,
    ];
    let [_, _, header, _, metadata] = flat.table(root, fields);
    (flat, header, metadata)
}

/// Begins the message of a schema. Returns the link of the schema.
pub(super) fn begin_schema() -> (Flat, Link) {
    let (mut flat, schema, metadata) = begin(SCHEMA, 0);
    flat.metadata(metadata, &[]);
    (flat, schema)
}

/// Appends the message of a batch of rows, with custom metadata.
pub(super) fn batch(
    out: &mut Vec<u8>,
    rows: usize,
    body: &Body,
    compression: Compression,
    pairs: &[(String, String)],
) {
    let (mut flat, header, metadata) = begin(BATCH, body.bytes.len());
    columns(&mut flat, header, rows, body, compression);
    flat.metadata(metadata, pairs);
    append(out, &flat.finish(), &body.bytes);
}

/// Appends the message of a dictionary, which replaces an earlier one of its number.
pub(super) fn dictionary(
    out: &mut Vec<u8>,
    id: i64,
    rows: usize,
    body: &Body,
    compression: Compression,
) {
    let (mut flat, header, metadata) = begin(DICTIONARY, body.bytes.len());
    let fields = [Field::I64(id), Field::Link, Field::U8(0)];
    let [_, data, _] = flat.table(header, fields);
    columns(&mut flat, data, rows, body, compression);
    flat.metadata(metadata, &[]);
    append(out, &flat.finish(), &body.bytes);
}

fn columns(flat: &mut Flat, at: Link, rows: usize, body: &Body, compression: Compression) {
    let fields = [Field::I64(rows as i64), Field::Link, Field::Link, Field::Link];
    let [_, nodes, buffers, codec] = flat.table(at, fields);
    flat.pairs(nodes, &body.nodes);
    flat.pairs(buffers, &body.buffers);
    // Method 0: each buffer is compressed by itself.
    flat.table(codec, [Field::U8(compression.number()), Field::U8(0)]);
}

/// Appends a message.
pub(super) fn append(out: &mut Vec<u8>, header: &[u8], body: &[u8]) {
    out.extend(MARKER);
    out.extend((header.len() as u32).to_le_bytes());
    out.extend(header);
    out.extend(body);
}

/// The header of a message.
#[derive(Debug)]
pub(super) enum Header<'a> {
    Schema(Table<'a>),
    Dictionary { id: i64, is_delta: bool, columns: ColumnsHeader<'a> },
    Batch(ColumnsHeader<'a>),
}

/// The columns of a batch or of a dictionary.
#[derive(Debug)]
pub(super) struct ColumnsHeader<'a> {
    pub(super) rows: i64,
    pub(super) nodes: super::table::Vector<'a>,
    pub(super) buffers: super::table::Vector<'a>,
    pub(super) compression: Option<Compression>,
}

/// A message's header, the length of its body, and its table, which has custom metadata.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) header: Header<'a>,
    pub(super) body_bytes: i64,
    table: Table<'a>,
    header_bytes: usize,
}

impl<'a> Message<'a> {
    /// Reads a header. The error is the rule that it breaks.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let broken = "its header is no table of Arrow's format";
        let table = Table::root(bytes).ok_or(broken)?;
        if table.i16(0) != Some(VERSION_5) {
            return Err("its version is not Arrow's version 5");
        }
        let body_bytes = table.i64(3).ok_or(broken)?;
        let inner = table.table(2).ok_or(broken)?;
        let header = match table.u8(1).ok_or(broken)? {
            SCHEMA => Header::Schema(inner),
            BATCH => Header::Batch(ColumnsHeader::parse(inner)?),
            DICTIONARY => Header::Dictionary {
                id: inner.i64(0).ok_or(broken)?,
                is_delta: inner.bool(2).ok_or(broken)?,
                columns: ColumnsHeader::parse(inner.table(1).ok_or(broken)?)?,
            },
            _ => return Err("it is neither a schema, nor a dictionary, nor a batch"),
        };
        Ok(Self { header, body_bytes, table, header_bytes: bytes.len() })
    }

    /// Returns the custom metadata.
    pub(super) fn metadata(&self) -> Result<Vec<(String, String)>, &'static str> {
        let mut budget = self.header_bytes;
        self.table.metadata(4, &mut budget).ok_or("its metadata is no list of texts")
    }
}

impl<'a> ColumnsHeader<'a> {
    fn parse(table: Table<'a>) -> Result<Self, &'static str> {
        let broken = "its columns are no table of Arrow's format";
        let compression = if table.has(3) {
            let codec = table.table(3).ok_or(broken)?;
            let number = codec.u8(0).ok_or(broken)?;
            let known = Compression::from_number(number).filter(|_| codec.u8(1) == Some(0));
            Some(known.ok_or("its compression is neither LZ4 nor zstd")?)
        } else {
            None
        };
        Ok(Self {
            rows: table.i64(0).ok_or(broken)?,
            nodes: table.vector(1, 16).ok_or(broken)?,
            buffers: table.vector(2, 16).ok_or(broken)?,
            compression,
        })
    }
}
