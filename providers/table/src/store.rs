//! The memory of a table, from its writer's side: the slot and the place of each object.
//!
//! Invariant: the directory changes only under its sequence lock, one change at a time. The lock
//! words of an object stay lock words for ever, and its incarnation is never given out again, so
//! that whoever still reads a removed object learns of it; and its memory is used again only once
//! nobody can write to it any more.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::wire::{self, Header};
use vmstrobe_core::{Error, ErrorKind, Result, Schema, WORD_BYTES, seq};

use super::format::{
    GENERATION, HEARTBEAT, LINES_WORDS, LOCK_WORDS, MAX_TABLE_NAME_BYTES, SLOT_WORDS, SLOTS_USED,
    Segment, Slot,
};
use super::map::Map;

/// The place of an object in its table: a block, and behind it the shards, which begin with the
/// lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: usize,
    /// Words from the first to the lock.
    pub(crate) lock: usize,
    pub(crate) shards: usize,
    pub(crate) shard_words: usize,
}

impl Place {
    pub(crate) fn lock(&self) -> usize {
        self.first + self.lock
    }

    pub(crate) fn end(&self) -> usize {
        self.lock() + self.shards * self.shard_words
    }

    pub(crate) fn is_laid_out(&self, lock: usize, shards: usize, shard_words: usize) -> bool {
        (self.lock, self.shards, self.shard_words) == (lock, shards, shard_words)
    }
}

/// The shape of an object's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: usize,
    /// The words of one shard, with the lock words of the first.
    pub(crate) shard_words: usize,
    /// Its statistics may be changed together.
    pub(crate) is_grouped: bool,
}

/// The table that a writer and its objects share.
pub(crate) struct Shared {
    pub(crate) map: Arc<Map>,
    pub(crate) descriptor: OwnedFd,
    pub(crate) path: Option<PathBuf>,
    segment: Segment,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether each slot is in use, up to the highest that ever was.
    slots: Vec<bool>,
    last_incarnation: u64,
    /// The first word that was never used.
    end: usize,
    /// The places that were used, and may be again by an object laid out alike.
    free: Vec<Place>,
}

impl Shared {
    /// An empty table in that memory, which is all zero. `descriptor` is what others get; `path`
    /// that of the file, if it is one, which is removed with this.
    pub(crate) fn new(
        map: Arc<Map>,
        descriptor: OwnedFd,
        path: Option<PathBuf>,
        segment: Segment,
    ) -> Arc<Self> {
        // The magic last: until then it is nothing.
        for (word, value) in map.words().iter().zip(segment.to_words()).rev() {
            word.store(value, Relaxed);
        }
        let end = segment.directory_word + segment.slots * SLOT_WORDS;
        let state = Mutex::new(State { end, ..State::default() });
        Arc::new(Self { map, descriptor, path, segment, state })
    }

    /// Returns the name of the table's provider.
    pub(crate) fn provider(&self) -> &str {
        &self.segment.provider
    }

    /// Lists an object, all its words 0. Returns its place and its slot.
    ///
    /// # Errors
    /// As [`TableWriter::add`](crate::TableWriter::add).
    pub(crate) fn add(
        &self,
        path: &str,
        index: Option<u32>,
        schema: &Schema,
        shape: Shape,
    ) -> Result<(Place, usize)> {
        let target = schema.target();
        if path.is_empty() || target.name().contains('\0') {
            let text =
                "an object needs a path that is not empty, and a target a name without a NUL";
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        name_fits(target.name())?;
        let mut block = wire::write(path, schema)?;
        let lock = block.len().div_ceil(WORD_BYTES).next_multiple_of(LINES_WORDS);
        let Shape { shards, shard_words, is_grouped } = shape;
        let mut state = self.state();
        let place = state.place(lock, shards, shard_words, self.segment.words);
        let slot = state.free_slot(self.segment.slots);
        let (Some(place), Some(slot)) = (place, slot) else {
            return Err(Error::new(ErrorKind::TooLarge, self.full()));
        };
        let head = block.first_chunk().expect("a block begins with a header");
        let header = Header::parse(head)?;
        let data_offset = ((lock + LOCK_WORDS) * WORD_BYTES) as u32;
        block[..Header::BYTES].copy_from_slice(&Header { data_offset, ..header }.to_bytes());
        block.resize(block.len().next_multiple_of(WORD_BYTES), 0);
        state.last_incarnation += 1;
        let entry = Slot {
            incarnation: state.last_incarnation,
            block_word: place.first,
            index,
            shards,
            shard_words,
            is_grouped,
            target: target.clone(),
        };
        self.clear(&place, entry.incarnation);
        state.slots[slot] = true;
        let used = state.slots.len() as u64;
        self.change_directory(|words| {
            for (word, bytes) in words[place.first..].iter().zip(block.as_chunks().0) {
                word.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
            let first = self.segment.directory_word + slot * SLOT_WORDS;
            for (word, value) in words[first..].iter().zip(entry.to_words()) {
                word.store(value, Relaxed);
            }
            words[SLOTS_USED].store(used, Relaxed);
        });
        drop(state);
        Ok((place, slot))
    }

    /// Counts a heartbeat.
    #[inline]
    pub(crate) fn beat(&self) {
        self.map.words()[HEARTBEAT].fetch_add(1, Relaxed);
    }

    /// Takes an object out of the directory; whoever reads it finds it gone.
    pub(crate) fn remove(&self, slot: usize, place: &Place) {
        let mut state = self.state();
        state.slots[slot] = false;
        let first = self.segment.directory_word + slot * SLOT_WORDS;
        self.change_directory(|words| words[first].store(0, Relaxed));
        self.map.words()[place.lock() + 1].store(0, Relaxed);
    }

    /// Takes back the memory of an object to which nobody can write any more.
    pub(crate) fn give_back(&self, place: Place) {
        self.state().free.push(place);
    }

    /// Makes all words of an object 0 under its own lock, for readers of the one it was before.
    fn clear(&self, place: &Place, incarnation: u64) {
        let words = &self.map.words()[place.lock()..place.end()];
        seq::write(&words[0], || {
            words[1].store(incarnation, Relaxed);
            words[LOCK_WORDS..].iter().for_each(|word| word.store(0, Relaxed));
        });
    }

    /// Changes the directory. To be called with the state locked: one change at a time.
    fn change_directory(&self, change: impl FnOnce(&[seq::AtomicU64])) {
        let words = self.map.words();
        seq::write(&words[GENERATION], || change(words));
    }

    fn full(&self) -> String {
        let Segment { words, slots, .. } = self.segment;
        let bytes = words * WORD_BYTES;
        format!(
            "the table is full: it has room for {slots} objects and {bytes} bytes: make it larger \
             (TableConfig)"
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves at worst memory unused.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Memory for an object laid out so; `None` if there is none left.
    fn place(
        &mut self,
        lock: usize,
        shards: usize,
        shard_words: usize,
        words: usize,
    ) -> Option<Place> {
        let alike = |free: &Place| free.is_laid_out(lock, shards, shard_words);
        if let Some(at) = self.free.iter().position(alike) {
            return Some(self.free.swap_remove(at));
        }
        let place = Place { first: self.end, lock, shards, shard_words };
        if place.end() > words {
            return None;
        }
        self.end = place.end();
        Some(place)
    }

    fn free_slot(&mut self, slots: usize) -> Option<usize> {
        if let Some(slot) = self.slots.iter().position(|used| !used) {
            return Some(slot);
        }
        (self.slots.len() < slots).then(|| {
            self.slots.push(false);
            self.slots.len() - 1
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // If somebody has removed it already, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("segment", &self.segment).finish_non_exhaustive()
    }
}

/// Whether that can stand in a table as a provider's or a target's name.
pub(crate) fn name_fits(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_TABLE_NAME_BYTES {
        let text = format!("'{name}' is no name of 1 to {MAX_TABLE_NAME_BYTES} bytes");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    Ok(())
}
