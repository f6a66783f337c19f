//! The format of a table, written down a second time from its documentation: to understand the
//! words of an image, and to make images for hostile writers.
//!
//! Invariant: it uses none of the code under test. It reads as leniently as possible, and checks
//! only bounds: a row that a reader takes for good must be found here too.

use std::ops::Range;

/// The bytes of a word.
pub const WORD_BYTES: usize = 8;
/// The value of word 0.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"vmstrobe");
/// The value of word 1.
pub const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;
/// The value of word 2.
pub const VERSION: u64 = 1;
/// The words of the header.
pub const HEADER_WORDS: usize = 64;
/// The words of a slot.
pub const SLOT_WORDS: usize = 16;
/// The index of a word in the header; here, of the table's length in bytes.
pub const SEGMENT_BYTES: usize = 3;
/// See [`SEGMENT_BYTES`].
pub const DIRECTORY_OFFSET: usize = 4;
/// See [`SEGMENT_BYTES`].
pub const SLOTS: usize = 5;
/// See [`SEGMENT_BYTES`].
pub const HEARTBEAT_PERIOD: usize = 6;
/// See [`SEGMENT_BYTES`].
pub const GENERATION: usize = 16;
/// See [`SEGMENT_BYTES`].
pub const SLOTS_USED: usize = 17;
/// See [`SEGMENT_BYTES`].
pub const HEARTBEAT: usize = 32;
/// The words of two cache lines, which is the alignment of an object's lock.
const LINES_WORDS: usize = 16;
/// The bytes of a block's header, and of a descriptor before its name.
pub const BLOCK_HEADER_BYTES: usize = 24;
/// See [`BLOCK_HEADER_BYTES`].
pub const DESC_BYTES: usize = 16;
/// The flag of an object of which words change together, under its seq.
pub const GROUPED: u64 = 1;
/// Types of statistics (`KVM_STATS_TYPE_*`), and a unit.
pub const LINEAR: u32 = 3;
/// See [`LINEAR`].
pub const LOG2: u32 = 4;
/// See [`LINEAR`].
pub const BOOLEAN: u32 = 4 << 4;

/// A statistic of an object that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Stat<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type, the unit and the base.
    pub flags: u32,
    /// The power of the base by which a stored number is multiplied.
    pub exponent: i16,
    /// The number of words.
    pub size: u16,
    /// The bucket size of a linear histogram.
    pub bucket_size: u32,
}

impl<'a> Stat<'a> {
    /// A count of one word.
    pub fn counter(name: &'a str) -> Self {
        Self { name, flags: 0, exponent: 0, size: 1, bucket_size: 0 }
    }
}

/// An object that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its target, such as `queue`.
    pub target: &'a str,
    /// The bytes of the path and of each name.
    pub name_bytes: usize,
    /// The number of copies of its data.
    pub shards: usize,
    /// [`GROUPED`] or 0.
    pub flags: u64,
    /// Its statistics.
    pub stats: &'a [Stat<'a>],
}

/// An object as an image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first word of its slot.
    pub slot_word: usize,
    /// The first word of its block.
    pub block_word: usize,
    /// The word of its seq; the next one holds its incarnation.
    pub lock_word: usize,
    /// The incarnation of its slot.
    pub incarnation: u64,
    /// The path up to its NUL.
    pub path: Vec<u8>,
    /// Whether its words are valid only while its seq is even and does not change.
    pub is_grouped: bool,
    /// The names, and the words of each statistic in the first shard.
    pub stats: Vec<(Vec<u8>, Range<usize>)>,
    /// The number of copies of its data.
    pub shards: usize,
    /// The words from one shard to the next.
    pub shard_words: usize,
}

/// The words of a table that somebody is about to publish.
#[derive(Clone, Debug)]
pub struct Image {
    /// The words of the image.
    pub words: Vec<u64>,
    end: usize,
    slots_used: usize,
}

impl Image {
    /// An empty table of that provider, with room for so many objects in so many bytes.
    pub fn new(provider: &str, bytes: usize, slots: usize) -> Self {
        let mut words = vec![0; bytes / WORD_BYTES];
        words[..3].copy_from_slice(&[MAGIC, BYTE_ORDER, VERSION]);
        words[SEGMENT_BYTES] = bytes as u64;
        words[DIRECTORY_OFFSET] = (HEADER_WORDS * WORD_BYTES) as u64;
        words[SLOTS] = slots as u64;
        put(&mut words, 8 * WORD_BYTES, provider.as_bytes());
        Self { words, end: HEADER_WORDS + slots * SLOT_WORDS, slots_used: 0 }
    }

    /// Adds an object behind the others, and gives its number. Its incarnation is one more than
    /// that, and its data is all zero.
    ///
    /// # Panics
    ///
    /// If there is no room.
    pub fn add(&mut self, block: &Block<'_>) -> usize {
        let slot = self.slots_used;
        let (block_word, lock_word, end) = self.write_block(block);
        let stride = end - lock_word;
        let incarnation = slot as u64 + 1;
        self.words[lock_word + 1] = incarnation;
        self.end = lock_word + block.shards * stride;
        let shards = block.shards as u64;
        let shard_bytes = (stride * WORD_BYTES) as u64;
        self.set_slot(slot, &[incarnation, (block_word * WORD_BYTES) as u64, u64::MAX, shards]);
        let slot_word = HEADER_WORDS + slot * SLOT_WORDS;
        self.words[slot_word + 4..slot_word + 6].copy_from_slice(&[shard_bytes, block.flags]);
        put(&mut self.words, (slot_word + 8) * WORD_BYTES, block.target.as_bytes());
        self.slots_used += 1;
        self.words[SLOTS_USED] = self.slots_used as u64;
        slot
    }

    /// Returns the offset of the next object's block, in bytes.
    pub fn block_bytes(&self) -> usize {
        self.end * WORD_BYTES
    }

    /// Writes a block behind the others, and gives where it, its lock and what follows begin.
    fn write_block(&mut self, block: &Block<'_>) -> (usize, usize, usize) {
        let first = self.end;
        let desc_offset = BLOCK_HEADER_BYTES + block.name_bytes;
        let desc_bytes = DESC_BYTES + block.name_bytes;
        let descs_end = desc_offset + block.stats.len() * desc_bytes;
        let lock = descs_end.div_ceil(WORD_BYTES).next_multiple_of(LINES_WORDS);
        let data_offset = ((lock + 2) * WORD_BYTES) as u32;
        let header = [
            0,
            block.name_bytes as u32,
            block.stats.len() as u32,
            BLOCK_HEADER_BYTES as u32,
            desc_offset as u32,
            data_offset,
        ];
        let at = first * WORD_BYTES;
        put(&mut self.words, at, &header.map(u32::to_ne_bytes).concat());
        put(&mut self.words, at + BLOCK_HEADER_BYTES, block.path.as_bytes());
        let mut words = 0;
        for (index, stat) in block.stats.iter().enumerate() {
            let mut desc = stat.flags.to_ne_bytes().to_vec();
            desc.extend(stat.exponent.to_ne_bytes());
            desc.extend(stat.size.to_ne_bytes());
            desc.extend(((words * WORD_BYTES) as u32).to_ne_bytes());
            desc.extend(stat.bucket_size.to_ne_bytes());
            desc.extend(stat.name.as_bytes());
            put(&mut self.words, at + desc_offset + index * desc_bytes, &desc);
            words += usize::from(stat.size);
        }
        (first, first + lock, first + (lock + 2 + words).next_multiple_of(LINES_WORDS))
    }

    /// Overwrites the first words of a slot.
    pub fn set_slot(&mut self, slot: usize, words: &[u64]) {
        let first = HEADER_WORDS + slot * SLOT_WORDS;
        self.words[first..first + words.len()].copy_from_slice(words);
    }

    /// The object of that number.
    ///
    /// # Panics
    ///
    /// If it is not there, or makes no sense.
    pub fn entry(&self, slot: usize) -> Entry {
        let bytes = bytes_of(&self.words);
        entry(&bytes, HEADER_WORDS + slot * SLOT_WORDS).expect("the image has such an object")
    }
}

impl Entry {
    /// Returns the range of all its words behind the lock.
    pub fn data(&self) -> Range<usize> {
        let first = self.lock_word + 2;
        let end = self.stats.iter().map(|(_, words)| words.end).max().unwrap_or(first);
        first..end + (self.shards - 1) * self.shard_words
    }

    /// Returns true if the words are the object's, and were not being changed if they are locked;
    /// `None` if there is no lock.
    pub fn is_whole(&self, words: &[u64]) -> Option<bool> {
        let (seq, theirs) = (words.get(self.lock_word)?, words.get(self.lock_word + 1)?);
        Some(!(self.is_grouped && *seq % 2 == 1) && *theirs == self.incarnation)
    }

    /// The words of each statistic, the sum of its shards; `None` if one lies outside.
    pub fn values(&self, words: &[u64]) -> Option<Vec<Vec<u64>>> {
        let word = |at: usize| {
            let shards = 0..self.shards;
            let mut places =
                shards.map(|shard| at.checked_add(shard.checked_mul(self.shard_words)?));
            places.try_fold(0_u64, |sum, at| Some(sum.wrapping_add(*words.get(at?)?)))
        };
        self.stats.iter().map(|(_, range)| range.clone().map(word).collect()).collect()
    }
}

/// Returns all objects of an image that can be understood.
pub fn entries(words: &[u64]) -> Vec<Entry> {
    let bytes = bytes_of(words);
    let directory = words.get(DIRECTORY_OFFSET).map_or(usize::MAX, |&offset| offset as usize);
    let number = |at: usize| words.get(at).map_or(0, |&number| number as usize);
    // More than there are is a lie, and those that there can be at all are fewer still.
    let used = Some(number(SLOTS_USED)).filter(|used| *used <= number(SLOTS)).unwrap_or(0);
    let slots = used.min(words.len() / SLOT_WORDS);
    let first = directory / WORD_BYTES;
    (0..slots).filter_map(|slot| entry(&bytes, first.checked_add(slot * SLOT_WORDS)?)).collect()
}

fn entry(bytes: &[u8], slot_word: usize) -> Option<Entry> {
    let slot = |at: usize| word_at(bytes, slot_word.checked_add(at)?.checked_mul(WORD_BYTES)?);
    let incarnation = slot(0).filter(|&incarnation| incarnation != 0)?;
    let block = usize::try_from(slot(1)?).ok()?;
    let shards = usize::try_from(slot(3)?).ok()?;
    let is_grouped = slot(5)? & GROUPED != 0;
    let shard_words = if shards == 1 { 0 } else { usize::try_from(slot(4)?).ok()? / WORD_BYTES };
    let field = |at: usize| Some(u32_at(bytes, block.checked_add(at * 4)?)? as usize);
    let (name_bytes, descs) = (field(1)?, field(2)?);
    let part = |offset: usize, length: usize| {
        let first = block.checked_add(offset)?;
        bytes.get(first..first.checked_add(length)?)
    };
    let path = until_nul(part(field(3)?, name_bytes)?)?;
    let (desc_offset, data_offset) = (field(4)?, field(5)?);
    let first = block.checked_add(data_offset)? / WORD_BYTES;
    let mut stats = Vec::new();
    for index in 0..descs {
        let desc = part(desc_offset + index * (DESC_BYTES + name_bytes), DESC_BYTES + name_bytes)?;
        stats.extend(stat(desc, first));
    }
    let lock_word = first.checked_sub(2)?;
    let block_word = block / WORD_BYTES;
    Some(Entry {
        slot_word,
        block_word,
        lock_word,
        incarnation,
        path,
        is_grouped,
        stats,
        shards,
        shard_words,
    })
}

/// Returns the name and the words of a descriptor; `None` if it has to be left out.
fn stat(desc: &[u8], first_word: usize) -> Option<(Vec<u8>, Range<usize>)> {
    let name = until_nul(&desc[DESC_BYTES..])?;
    let size = usize::from(u16::from_ne_bytes([desc[6], desc[7]]));
    let (flags, offset, bucket_size) = (u32_at(desc, 0)?, u32_at(desc, 8)?, u32_at(desc, 12)?);
    let has_no_width = flags & 0xf == LINEAR && bucket_size == 0;
    if size == 0 || !(offset as usize).is_multiple_of(WORD_BYTES) || has_no_width {
        return None;
    }
    let first = first_word + offset as usize / WORD_BYTES;
    Some((name, first..first + size))
}

/// The bytes of words.
pub fn bytes_of(words: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(words.len() * WORD_BYTES);
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
    bytes
}

/// Overwrites bytes of words.
///
/// # Panics
///
/// If they lie outside.
pub fn put(words: &mut [u64], at: usize, bytes: &[u8]) {
    let (mut at, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let (word, first) = (&mut words[at / WORD_BYTES], at % WORD_BYTES);
        let (part, behind) = rest.split_at(rest.len().min(WORD_BYTES - first));
        let mut held = word.to_ne_bytes();
        held[first..first + part.len()].copy_from_slice(part);
        *word = u64::from_ne_bytes(held);
        (at, rest) = (at + part.len(), behind);
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn until_nul(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some(bytes[..end].to_vec())
}
