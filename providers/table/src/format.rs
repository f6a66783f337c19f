//! The layout of a table in memory: a header, a directory of objects, and for each object the
//! kernel's binary-statistics block with two words of our own before its data.
//!
//! ```text
//! word 0   magic "vmstrobe"     1  byte order     2  version       3  segment_bytes
//!      4   directory_offset     5  slots          6  heartbeat_period_ns
//!      8   provider's name, 32 bytes
//!      16  generation           17 slots_used          (a cache line of their own)
//!      32  heartbeat                                   (likewise)
//!      64  usually the directory: 16 words a slot
//!
//! slot 0   incarnation, 0 for none      1  block_offset     2  index or u64::MAX
//!      3   shards                       4  shard_bytes      5  flags
//!      8   target's name, 32 bytes
//!
//! block    header | id: the object's path | descriptors | ... | seq | incarnation | data words
//!                                           seq lies on a cache line's start ┘
//! ```
//!
//! All are native-endian words at multiples of 8. `generation` is the number of a sequence lock
//! around the directory; `seq` is that of one around an object's data, and `incarnation` identifies
//! the object that the data belongs to: it is never used twice in a table, and 0 once the object
//! has been removed. Flag 1 says that `seq` also goes with changes of several words that belong
//! together. With several shards the data is there so many times, `shard_bytes` apart; a value is
//! the sum of them.
//!
//! Invariant: nothing here trusts a word that it was given: whatever passes lies inside the
//! segment, is aligned, and is within the limits.

use std::ops::Range;

use vmstrobe_core::wire::Header;
use vmstrobe_core::{Error, ErrorKind, Result, Target, WORD_BYTES};

/// Every table begins with these bytes.
pub(crate) const MAGIC: [u8; 8] = *b"vmstrobe";
/// The one version so far.
pub(crate) const VERSION: u64 = 1;
/// Reads the same in either byte order only where that is ours.
pub(crate) const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;

/// The most bytes of one table.
pub const MAX_SEGMENT_BYTES: u64 = 256 << 20;
/// The most objects of one table: a quarter of what a sampler takes of all providers together.
pub const MAX_SLOTS: u64 = 16_384;
/// The most shards of one object.
pub(crate) const MAX_SHARDS: u64 = 256;
/// The most bytes of a provider's or target's name.
pub const MAX_TABLE_NAME_BYTES: usize = 31;

/// Words of the header.
pub(crate) const HEADER_WORDS: usize = 64;
/// Words of a slot.
pub(crate) const SLOT_WORDS: usize = 16;
/// Words before the data: seq and incarnation.
pub(crate) const LOCK_WORDS: usize = 2;
/// Words of a cache line, and of the one that is fetched along with it.
pub(crate) const LINES_WORDS: usize = 16;

/// The indexes of the header's words that change.
pub(crate) const GENERATION: usize = 16;
pub(crate) const SLOTS_USED: usize = 17;
pub(crate) const HEARTBEAT: usize = 32;

/// The flag of an object of which words change together.
const GROUPED: u64 = 1;

const NAME_WORDS: usize = 4;

/// The facts about a table that never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) words: usize,
    pub(crate) directory_word: usize,
    pub(crate) slots: usize,
    /// 0 if the writer promises none.
    pub(crate) heartbeat_period_ns: u64,
    pub(crate) provider: String,
}

/// One object, as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) incarnation: u64,
    pub(crate) block_word: usize,
    pub(crate) index: Option<u32>,
    pub(crate) shards: usize,
    pub(crate) shard_words: usize,
    /// Whether its writer changes some of its words together.
    pub(crate) is_grouped: bool,
    pub(crate) target: Target,
}

impl Segment {
    /// Reads the header of a segment of so many words.
    ///
    /// # Errors
    /// `Malformed` if this is no table, `Unsupported` if it is one of another byte order or
    /// version, `TooLarge` if it has more slots than [`MAX_SLOTS`].
    pub(crate) fn parse(header: &[u64; HEADER_WORDS], words: usize) -> Result<Self> {
        if header[0].to_ne_bytes() != MAGIC {
            return Err(malformed("it does not begin as one"));
        }
        let unsupported = |what: String| Err(Error::new(ErrorKind::Unsupported, what));
        match (header[1], header[2]) {
            (BYTE_ORDER, VERSION) => {}
            (BYTE_ORDER, version) => {
                return unsupported(format!(
                    "it is of version {version} of the format, and this vmstrobe reads version \
                     {VERSION}: use one release in both programs"
                ));
            }
            (order, _) if order.swap_bytes() == BYTE_ORDER => {
                return unsupported(
                    "it was written on a machine of the other byte order".to_owned(),
                );
            }
            _ => return Err(malformed("its byte order is neither of the two")),
        }
        let slots = header[5];
        if slots > MAX_SLOTS {
            let text = format!("a table with {slots} places for objects; the limit is {MAX_SLOTS}");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        // Under the limit, so it fits.
        let slots = slots as usize;
        if header[3] != (words * WORD_BYTES) as u64 {
            return Err(malformed("its length is not what it says"));
        }
        let directory_word = word_at(header[4], words)
            .filter(|first| (slots * SLOT_WORDS) <= words - first)
            .ok_or_else(|| malformed("its directory lies outside"))?;
        Ok(Self {
            words,
            directory_word,
            slots,
            heartbeat_period_ns: header[6],
            provider: name(&header[8..8 + NAME_WORDS])?,
        })
    }

    /// The words of the header of an empty table.
    pub(crate) fn to_words(&self) -> [u64; HEADER_WORDS] {
        let mut header = [0; HEADER_WORDS];
        header[..7].copy_from_slice(&[
            u64::from_ne_bytes(MAGIC),
            BYTE_ORDER,
            VERSION,
            (self.words * WORD_BYTES) as u64,
            (self.directory_word * WORD_BYTES) as u64,
            self.slots as u64,
            self.heartbeat_period_ns,
        ]);
        header[8..8 + NAME_WORDS].copy_from_slice(&name_words(&self.provider));
        header
    }
}

impl Slot {
    /// Reads a slot of a segment of so many words; `None` if it is empty.
    ///
    /// # Errors
    /// `Malformed` if it points outside or makes no sense.
    pub(crate) fn parse(slot: &[u64], words: usize) -> Result<Option<Self>> {
        let incarnation = slot[0];
        if incarnation == 0 {
            return Ok(None);
        }
        let block_word = word_at(slot[1], words)
            .filter(|first| Header::BYTES / WORD_BYTES <= words - first)
            .ok_or_else(|| malformed("a block lies outside"))?;
        if !(1..=MAX_SHARDS).contains(&slot[3]) {
            return Err(malformed("an object has no shards, or too many"));
        }
        let shard_words = match slot[3] {
            1 => 0,
            _ => word_at(slot[4], words).ok_or_else(|| malformed("a shard lies outside"))?,
        };
        Ok(Some(Self {
            incarnation,
            block_word,
            index: u32::try_from(slot[2]).ok(),
            shards: slot[3] as usize,
            shard_words,
            is_grouped: slot[5] & GROUPED != 0,
            target: Target::from_name(&name(&slot[8..8 + NAME_WORDS])?),
        }))
    }

    /// The words of the slot.
    pub(crate) fn to_words(&self) -> [u64; SLOT_WORDS] {
        let mut slot = [0; SLOT_WORDS];
        slot[..6].copy_from_slice(&[
            self.incarnation,
            (self.block_word * WORD_BYTES) as u64,
            self.index.map_or(u64::MAX, u64::from),
            self.shards as u64,
            (self.shard_words * WORD_BYTES) as u64,
            if self.is_grouped { GROUPED } else { 0 },
        ]);
        slot[8..8 + NAME_WORDS].copy_from_slice(&name_words(self.target.name()));
        slot
    }

    /// Returns the range of the object's data words in the first shard, by the header of its block
    /// and the size of its data. The lock words stand right before them.
    ///
    /// # Errors
    /// `Malformed` if any shard, or the lock, would lie outside the segment of so many words.
    pub(crate) fn data(
        &self,
        header: &Header,
        data_bytes: usize,
        words: usize,
    ) -> Result<Range<usize>> {
        let outside = || malformed("an object's data lies outside");
        let data_offset = header.data_offset as usize;
        if data_offset < LOCK_WORDS * WORD_BYTES || !data_offset.is_multiple_of(WORD_BYTES) {
            return Err(outside());
        }
        // A block offset and a `u32`, some words and at most 256 shards inside the segment: none of
        // these sums comes near the end of a `usize`.
        let first = self.block_word + data_offset / WORD_BYTES;
        let count = data_bytes / WORD_BYTES;
        let last_shard = first + (self.shards - 1) * self.shard_words;
        if last_shard + count > words {
            return Err(outside());
        }
        Ok(first..first + count)
    }
}

/// A byte offset as a word of a segment: aligned and inside, or nothing.
fn word_at(offset: u64, words: usize) -> Option<usize> {
    let offset = usize::try_from(offset).ok()?;
    let word = offset / WORD_BYTES;
    (offset.is_multiple_of(WORD_BYTES) && word < words).then_some(word)
}

fn name(words: &[u64]) -> Result<String> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0);
    let end = end.filter(|&end| end > 0).ok_or_else(|| malformed("a name is empty or too long"))?;
    Ok(utf8(&bytes[..end], "the name of a provider or target")?.to_owned())
}

fn name_words(name: &str) -> [u64; NAME_WORDS] {
    let mut bytes = [0; NAME_WORDS * WORD_BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let mut words = [0; NAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Text of a table. Unlike a kernel's, it is all the writer's own, so that what is not UTF-8 is a
/// mistake; and shown all the same, it would be three times as long.
pub(super) fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    str::from_utf8(bytes).map_err(|_| malformed(format_args!("{what} is not UTF-8")))
}

pub(crate) fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Malformed, format!("not a table of statistics: {what}"))
}
