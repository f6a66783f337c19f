//! The values of column chunks, and the texts among them as numbers.
//!
//! Invariant: a column has a value or a null for each row, or is refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{self, Input};
use super::pages::{Page, PageEncoding, Pages};
use crate::limits::MAX_TEXT_BYTES;
use crate::rebuild::{Broken, Values};

/// The texts of a column, each with its number.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u64>,
    bytes: usize,
}

impl Texts {
    /// Returns the text of a number.
    pub(super) fn get(&self, number: u64) -> Option<&str> {
        self.texts.get(usize::try_from(number).ok()?).map(|text| &**text)
    }

    /// Forgets all texts if they take much memory. Returns whether it did.
    pub(super) fn limit(&mut self) -> bool {
        let is_full = self.bytes > MAX_TEXT_BYTES;
        if is_full {
            *self = Self::default();
        }
        is_full
    }

    fn number(&mut self, text: &[u8]) -> Option<u64> {
        let text = str::from_utf8(text).ok()?;
        if let Some(&number) = self.numbers.get(text) {
            return Some(number);
        }
        let number = self.texts.len() as u64;
        let text: Arc<str> = text.into();
        self.bytes += text.len();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        Some(number)
    }
}

/// The type of the values of a chunk.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Bits64,
    Bits32,
    Text(&'a mut Texts),
}

impl Kind<'_> {
    /// Returns the least bytes of a value.
    fn bytes(&self) -> usize {
        match self {
            Self::Bits64 => 8,
            Self::Bits32 | Self::Text(_) => 4,
        }
    }

    /// Appends so many values as they are.
    fn plain(&mut self, mut input: Input<'_>, count: usize, into: &mut Vec<u64>) -> Option<()> {
        for _ in 0..count {
            into.push(match self {
                Self::Bits64 => u64::from_le_bytes(*input.take(8)?.first_chunk()?),
                Self::Bits32 => u32::from_le_bytes(*input.take(4)?.first_chunk()?).into(),
                Self::Text(texts) => texts.number(input.counted()?)?,
            });
        }
        Some(())
    }
}

/// The buffers of a chunk that is decoded.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    dictionary: Vec<u64>,
    levels: Vec<u32>,
    indexes: Vec<u32>,
    numbers: Vec<u64>,
}

impl Decoder {
    /// Reads a chunk.
    pub(super) fn read(
        &mut self,
        chunk: Vec<u8>,
        mut kind: Kind<'_>,
        is_nullable: bool,
        rows: usize,
        into: &mut Values,
    ) -> Result<(), Broken> {
        self.dictionary.clear();
        into.values.clear();
        into.valid.clear();
        let mut pages = match kind {
            Kind::Text(_) => Pages::of_texts(chunk, rows),
            _ => Pages::of_numbers(chunk, rows, kind.bytes()),
        };
        let mut has_nulls = false;
        while let Some(page) = pages.next()? {
            let mut input = Input { bytes: &page.bytes };
            if page.encoding == PageEncoding::OfDictionary {
                let read = kind.plain(input, page.values, &mut self.dictionary);
                read.ok_or("its dictionary has not the values that it should have")?;
                continue;
            }
            if page.values > rows - into.values.len() {
                return Err("it has more values than its rows".into());
            }
            let broken = "a page has not the values that it should have";
            self.levels.clear();
            if is_nullable {
                let levels = input.counted().ok_or(broken)?;
                decode::hybrid(levels, 1, page.values, &mut self.levels).ok_or(broken)?;
            }
            let nulls = self.levels.iter().filter(|level| **level != 1).count();
            has_nulls |= nulls > 0;
            self.numbers(&page, input, &mut kind, page.values - nulls).ok_or(broken)?;
            self.append(into, nulls);
        }
        if into.values.len() != rows {
            return Err("its values are not as many as its rows".into());
        }
        if !has_nulls {
            into.valid.clear();
        }
        Ok(())
    }

    /// Decodes the values of a page, of which there are so many without nulls.
    fn numbers(
        &mut self,
        page: &Page,
        mut input: Input<'_>,
        kind: &mut Kind<'_>,
        count: usize,
    ) -> Option<()> {
        self.numbers.clear();
        if count == 0 {
            return Some(());
        }
        match page.encoding {
            PageEncoding::Plain => kind.plain(input, count, &mut self.numbers),
            PageEncoding::Deltas if matches!(kind, Kind::Bits64) => {
                decode::deltas(input.bytes, count, &mut self.numbers)
            }
            PageEncoding::Indexes => {
                let bits = input.byte()?;
                self.indexes.clear();
                decode::hybrid(input.bytes, bits.into(), count, &mut self.indexes)?;
                for &index in &self.indexes {
                    self.numbers.push(*self.dictionary.get(usize::try_from(index).ok()?)?);
                }
                Some(())
            }
            PageEncoding::Deltas | PageEncoding::OfDictionary => None,
        }
    }

    /// Appends the values of a page, and its nulls between them.
    fn append(&self, into: &mut Values, nulls: usize) {
        let start = into.values.len();
        if nulls == 0 {
            into.values.extend(&self.numbers);
            set_valid(&mut into.valid, start, into.values.len());
            return;
        }
        let mut numbers = self.numbers.iter();
        for (row, level) in (start..).zip(&self.levels) {
            if *level == 1 {
                set_valid(&mut into.valid, row, row + 1);
                into.values.extend(numbers.next());
            } else {
                into.valid.resize((row + 1).div_ceil(8), 0);
                into.values.push(0);
            }
        }
    }
}

/// Marks rows as valid.
fn set_valid(valid: &mut Vec<u8>, start: usize, end: usize) {
    valid.resize(end.div_ceil(8), 0);
    (start..end).for_each(|row| valid[row / 8] |= 1 << (row % 8));
}
