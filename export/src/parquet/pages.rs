//! Pages of a column chunk.
//!
//! The parquet crate asks for as much memory as the header of a page claims. Here sizes are checked
//! first.
//!
//! Invariant: a page has no more values than its row group has rows, and no more bytes than they
//! can take.

use super::codec::uncompress;
use super::header::{PageHeader, PageKind};
use crate::limits::MAX_TEXT_BYTES;

/// The most bytes of a page beside those of its values.
const PAGE_EXTRA_BYTES: usize = 4096;
/// The most bytes that a number and its level take, with what its block has for all.
const NUMBER_BYTES_MAX: usize = 10;

/// The pages of a chunk.
#[derive(Debug)]
pub(super) struct Pages {
    chunk: Vec<u8>,
    at: usize,
    rows: usize,
    /// The most bytes of a page.
    page_bytes_max: usize,
    /// The bytes that all pages may still take.
    budget: usize,
    /// The size of a number, or of the length before a text.
    value_bytes: usize,
    has_pages: bool,
}

impl Pages {
    /// Takes a chunk of numbers of that many bytes.
    pub(super) fn of_numbers(chunk: Vec<u8>, rows: usize, value_bytes: usize) -> Self {
        let page_bytes_max = rows * NUMBER_BYTES_MAX + PAGE_EXTRA_BYTES;
        let budget = 2 * page_bytes_max;
        Self { chunk, at: 0, rows, page_bytes_max, budget, value_bytes, has_pages: false }
    }

    /// Takes a chunk of texts.
    pub(super) fn of_texts(chunk: Vec<u8>, rows: usize) -> Self {
        // Each text of the dictionary has its length before it.
        let page_bytes_max = MAX_TEXT_BYTES + rows * NUMBER_BYTES_MAX + PAGE_EXTRA_BYTES;
        let budget = 2 * page_bytes_max;
        let value_bytes = size_of::<u32>();
        Self { chunk, at: 0, rows, page_bytes_max, budget, value_bytes, has_pages: false }
    }

    /// Returns the next page; the error is the rule that it breaks.
    pub(super) fn next(&mut self) -> Result<Option<Page>, &'static str> {
        let rest = self.chunk.get(self.at..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { return Ok(None) };
        let broken = "it has no header of a page";
        let (header, behind) = PageHeader::read(rest).ok_or(broken)?;
        let kind = header.kind.ok_or("it has a page that is neither of data nor a dictionary")?;
        let size = |bytes: i32| usize::try_from(bytes).map_err(|_| broken);
        let compressed_bytes = size(header.compressed_bytes)?;
        let bytes = size(header.uncompressed_bytes)?;
        let values = size(header.values)?;
        if bytes > self.page_bytes_max || bytes > self.budget {
            return Err("its pages have more bytes than its values can take");
        }
        // A dictionary has each of its values as it is.
        let is_too_many = match kind {
            PageKind::Data => values > self.rows,
            PageKind::Dictionary => values > self.rows || values > bytes / self.value_bytes,
        };
        if is_too_many {
            return Err("a page has more values than its rows");
        }
        let page = behind.get(..compressed_bytes).ok_or("its last page is cut")?;
        let buf = uncompress(page, bytes).ok_or("a page cannot be uncompressed")?;
        self.at = self.chunk.len() - behind.len() + compressed_bytes;
        self.budget -= bytes;
        let is_first = !std::mem::replace(&mut self.has_pages, true);
        let encoding = match (kind, header.encoding) {
            (PageKind::Dictionary, PLAIN) if is_first => PageEncoding::OfDictionary,
            (PageKind::Dictionary, _) => {
                return Err("a dictionary is not its first page, or not plain");
            }
            (PageKind::Data, PLAIN) => PageEncoding::Plain,
            (PageKind::Data, DELTA_BINARY_PACKED) => PageEncoding::Deltas,
            (PageKind::Data, RLE_DICTIONARY) => PageEncoding::Indexes,
            _ => return Err("a page has an encoding that vmstrobe does not write"),
        };
        if kind == PageKind::Data && header.level_encodings != [RLE; 2] {
            return Err("a page has levels of an encoding that vmstrobe does not write");
        }
        Ok(Some(Page { encoding, values, bytes: buf }))
    }
}

/// The numbers of encodings, of which others are not written here.
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const DELTA_BINARY_PACKED: i32 = 5;
const RLE_DICTIONARY: i32 = 8;

/// A page, uncompressed.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) encoding: PageEncoding,
    /// The number of its values, with nulls.
    pub(super) values: usize,
    pub(super) bytes: Vec<u8>,
}

/// The encoding of the values of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageEncoding {
    /// The page is a dictionary, of values as they are.
    OfDictionary,
    /// Values as they are.
    Plain,
    /// Indexes into the dictionary.
    Indexes,
    Deltas,
}
