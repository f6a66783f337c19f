//! A frame as those read it who have only its descriptor: all rows as one run of the program left
//! them.
//!
//! Invariant: the writer may be any program. Whatever it writes, opening a frame ends and keeps
//! within the limits of tables, and a reading ends, is never beyond the array, and is of one
//! unchanged number of its lock or is called [`Torn`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstrobe_core::seq::{self, Torn};
use vmstrobe_core::{Object, Result, RowState};

use super::frame::{BEGIN, END, FIRST_ROW, READ, ROW_WORDS, ROWS, SEQ, state_of};
use crate::table::format::{HEADER_WORDS, LOCK_WORDS, malformed};
use crate::table::look::{Found, Memory, Schemas};
use crate::table::map::Map;

/// How often the lock is looked at: longer than a tick of 1024 vCPUs takes.
const LOOKS_MAX: u32 = 1024;
/// How often rows are copied that keep changing...
const COPIES_MAX: usize = 32;
/// ...and the most words that are copied so, once they were copied twice.
const COPIED_WORDS_MAX: usize = 1 << 16;

/// A frame of the BPF reader: what a sampler, in whatever process, has read in its last tick
/// of many objects at one time. It is read without a system call and without any right.
///
/// Its descriptor is one of [`Bpf::frames`](crate::Bpf::frames). Who wants single objects,
/// among those of others, takes it as a table ([`Tables::add_fd`](crate::Tables::add_fd)).
///
/// ```no_run
/// use vmstrobe_core::RowState;
/// use vmstrobe_providers::KernelFrame;
///
/// # fn reader(frame: std::os::fd::OwnedFd) -> vmstrobe_core::Result<()> {
/// let frame = KernelFrame::open(frame)?;
/// let rows = frame.objects().len();
/// let (mut words, mut states) =
///     (vec![0; rows * frame.row_words()], vec![RowState::Missing; rows]);
/// if let Ok(time) = frame.read(&mut words, &mut states) {
///     let exits = frame.objects()[0].schema.find("exits").expect("its sampler selects it");
///     let exits = &frame.objects()[0].schema.descs()[exits];
///     println!("{:?} at {} ns", &words[exits.words()], time.end_ns);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KernelFrame {
    map: Arc<Map>,
    first_row: usize,
    /// With the two lock words.
    row_words: usize,
    copies_max: usize,
    objects: Box<[Object]>,
}

/// When a frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTime {
    /// In ns of `CLOCK_MONOTONIC`, before the first word was read from the kernel.
    pub begin_ns: u64,
    /// In ns of `CLOCK_MONOTONIC`, after the last word was read.
    pub end_ns: u64,
    /// How often it was looked at: once if nobody wrote it meanwhile.
    pub looks: u32,
}

impl KernelFrame {
    /// Maps a frame. The descriptor is not needed any more.
    ///
    /// # Errors
    /// `Unsupported` if it is no frozen BPF array, or a table of another version; `Malformed` or
    /// `TooLarge` if what it holds is no frame; `Io` if there is no room, or /proc cannot be read.
    pub fn open(frame: OwnedFd) -> Result<Self> {
        Self::of(Memory::array(frame)?)
    }

    fn of(memory: Memory) -> Result<Self> {
        let segment = memory.segment()?;
        let (_, found) = memory.look(&segment, &mut Schemas::default())?;
        let Memory::Mapped(map) = memory else { return Err(malformed("it cannot be mapped")) };
        let head = |at: usize| usize::try_from(map.words()[at].load(Ordering::Relaxed)).ok();
        let (first_row, row_words, rows) = (head(FIRST_ROW), head(ROW_WORDS), head(ROWS));
        let outside = || malformed("a frame's rows lie outside");
        let first_row = first_row.filter(|first| *first >= HEADER_WORDS).ok_or_else(outside)?;
        let row_words = row_words.filter(|words| *words > LOCK_WORDS).ok_or_else(outside)?;
        let rows = rows.ok_or_else(outside)?;
        let end = rows.checked_mul(row_words).and_then(|words| words.checked_add(first_row));
        if end.is_none_or(|end| end > map.len()) {
            return Err(outside());
        }
        let is_row = |(at, found): (usize, &Found)| {
            let data = first_row + at * row_words + LOCK_WORDS;
            found.data.start == data
                && found.data.len() <= row_words - LOCK_WORDS
                && (found.incarnation, found.shards) == (at as u64 + 1, 1)
        };
        if found.len() > rows || !found.iter().enumerate().all(is_row) {
            return Err(malformed("a frame's objects are not its rows"));
        }
        let object = |found: Found| Object {
            path: found.path.into(),
            index: found.index,
            schema: found.schema,
            key: found.incarnation,
        };
        let copied = (found.len() * row_words).max(1);
        Ok(Self {
            map,
            first_row,
            row_words,
            copies_max: (COPIED_WORDS_MAX / copied).clamp(2, COPIES_MAX),
            objects: found.into_iter().map(object).collect(),
        })
    }

    /// Returns the objects in the order of their rows. Their schemas have the statistics that the
    /// sampler selects, and say where each lies in a row.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// How many words each object has.
    pub fn row_words(&self) -> usize {
        self.row_words - LOCK_WORDS
    }

    /// Copies all rows as one tick left them, and says of each what became of it. They are as old
    /// as the time that this returns: nothing else tells whether the sampler goes on.
    ///
    /// # Errors
    /// [`Torn`] if it was written all the while, or its writer has stopped in the middle of a tick:
    /// then words and states mean nothing.
    ///
    /// # Panics
    /// If there is not a state for each object, and [`KernelFrame::row_words`] words: a bug of the
    /// caller.
    pub fn read(
        &self,
        words: &mut [u64],
        states: &mut [RowState],
    ) -> std::result::Result<FrameTime, Torn> {
        let rows = self.objects.len();
        assert_eq!((states.len(), words.len()), (rows, rows * self.row_words()), "one per row");
        let (number, mut copies) = (&self.map.words()[SEQ], 0);
        for looks in 1..=LOOKS_MAX {
            let mut ns = [0; 2];
            let outcome = seq::read(number, 1, || {
                ns = self.copy(words, states);
                copies += 1;
            });
            if outcome.is_ok() {
                let [begin_ns, end_ns] = ns;
                return Ok(FrameTime { begin_ns, end_ns, looks });
            }
            if copies >= self.copies_max {
                break;
            }
        }
        Err(Torn)
    }

    /// Copies what is there, and when it was read.
    fn copy(&self, words: &mut [u64], states: &mut [RowState]) -> [u64; 2] {
        let all = self.map.words();
        let load = |at: usize| all[at].load(Ordering::Relaxed);
        // If the program stopped on its way, the rows behind are of an earlier tick.
        let read = load(READ);
        let theirs = all[self.first_row..].chunks_exact(self.row_words);
        let ours = words.chunks_exact_mut(self.row_words()).zip(states);
        for (at, (row, (words, state))) in (0..).zip(theirs.zip(ours)) {
            let (lock, data) = row.split_at(LOCK_WORDS);
            words.iter_mut().zip(data).for_each(|(to, word)| *to = word.load(Ordering::Relaxed));
            let mark = lock[0].load(Ordering::Relaxed);
            *state = if at < read { state_of(mark) } else { RowState::Missing };
        }
        [BEGIN, END].map(load)
    }
}

#[cfg(test)]
pub(super) mod tests;
