//! Looks at a table: its header once, its directory whenever that has changed.
//!
//! Invariant: whatever the table holds, a look ends, within [`LOOK_TRIES`] readings, fills no hole,
//! and holds no more memory than the limits allow. All words are copied out before they are judged,
//! so that what was judged is what is used; and they are used only if the directory stood still
//! meanwhile.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, SeekFrom, fstat, open, seek};
use rustix::io::Errno;
use vmstrobe_core::wire::Header;
use vmstrobe_core::{Error, ErrorKind, Result, Schema, WORD_BYTES};
use vmstrobe_host::READERS_POSITION;

use super::format::{
    GENERATION, HEADER_WORDS, HEARTBEAT, LOCK_WORDS, MAX_SEGMENT_BYTES, SLOT_WORDS, SLOTS_USED,
    Segment, Slot, malformed,
};
use super::map::{Map, is_in_memory, read_words};
pub(crate) use super::schemas::Schemas;

/// The most times that a directory is read that keeps changing.
pub(crate) const LOOK_TRIES: u32 = 8;
/// The pause between these readings: longer than any change takes.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// The bytes that could be read in that time, about.
const PAUSE_WORK: usize = 256 << 10;

/// The memory in which a table's words are.
#[derive(Debug)]
pub(crate) enum Memory {
    /// A sealed memfd, mapped. The descriptor of another process's memfd is kept too: holes are
    /// read through it.
    Mapped(Arc<Map>),
    /// A file on tmpfs that others may shorten: read by system calls.
    File(OwnedFd),
}

/// Whether a descriptor could be that of a table, by the kind of its file. The kernel itself
/// answers; any other question about a file, even its length, its server may leave unanswered. For
/// an `FdClient`, which asks before it takes what it was sent.
#[doc(hidden)]
pub fn can_be_table(fd: impl AsFd) -> bool {
    is_in_memory(fd)
}

/// An object as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) incarnation: u64,
    pub(crate) path: String,
    pub(crate) index: Option<u32>,
    pub(crate) schema: Arc<Schema>,
    /// The data words; seq and incarnation stand before them.
    pub(crate) data: Range<usize>,
    pub(crate) shards: usize,
    pub(crate) shard_words: usize,
    pub(crate) is_grouped: bool,
}

impl Memory {
    /// Takes a descriptor that someone gave: maps it if it may and is sealed, else keeps it for
    /// reading.
    ///
    /// # Errors
    /// `Unsupported` if it is no file in memory, of which alone a read waits for nobody; `TooLarge`
    /// if it is over [`MAX_SEGMENT_BYTES`]; `Io` if there is no room.
    pub(crate) fn of(fd: OwnedFd, may_map: bool) -> Result<Self> {
        if !is_in_memory(&fd) {
            let text = "not a table: it must be a memfd, or a file on tmpfs (/dev/shm, /run)";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let bytes = fstat(&fd).map_err(|errno| unmappable(errno.into()))?.st_size as u64;
        if bytes > MAX_SEGMENT_BYTES {
            let text = format!("a table of {bytes} bytes; the limit is {MAX_SEGMENT_BYTES}");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        if !may_map {
            return Ok(Self::File(fd));
        }
        let mapped = Map::sealed(readers_own(fd), MAX_SEGMENT_BYTES).map_err(unmappable)?;
        Ok(mapped.map_or_else(Self::File, Self::Mapped))
    }

    /// Returns the number of bytes of another process's file that are mapped, and of descriptors
    /// that are kept.
    pub(crate) fn costs(&self) -> (u64, u64) {
        match self {
            Self::Mapped(map) if map.keeps_fd() => ((map.len() * WORD_BYTES) as u64, 1),
            Self::Mapped(_) => (0, 0),
            Self::File(_) => (0, 1),
        }
    }

    /// Whether words can be loaded from a mapping: false if they are read by system calls, as a
    /// part that may be a hole. A hole of our own file is filled.
    ///
    /// # Errors
    /// `Io` if there is no memory for that.
    pub(crate) fn can_load(&self, words: &Range<usize>) -> Result<bool> {
        match self {
            Self::Mapped(map) => map.populate(words).map_err(no_memory),
            Self::File(_) => Ok(false),
        }
    }

    /// Returns the number of words that there are now.
    fn len(&self) -> Result<usize> {
        match self {
            Self::Mapped(map) => Ok(map.len()),
            Self::File(fd) => {
                let bytes = fstat(fd).map_err(unreadable)?.st_size as u64;
                Ok((bytes.min(MAX_SEGMENT_BYTES) / WORD_BYTES as u64) as usize)
            }
        }
    }

    /// Copies words, each whole.
    ///
    /// # Errors
    /// `Malformed` if they are not there, `Io` if they cannot be read.
    fn copy(&self, range: Range<usize>) -> Result<Vec<u64>> {
        let mut words = vec![0; range.len()];
        match self {
            Self::Mapped(map) => {
                if range.end > map.len() {
                    return Err(malformed("it is too short"));
                }
                map.populate(&range).map_err(no_memory)?;
                map.read(&mut words, range.start).map_err(unreadable)?;
            }
            Self::File(fd) => read_words(fd, &mut words, range.start).map_err(unreadable)?,
        }
        Ok(words)
    }

    fn word(&self, at: usize) -> Result<u64> {
        Ok(self.copy(at..at + 1)?[0])
    }

    /// Reads the part of the header that does not change.
    ///
    /// # Errors
    /// As [`Segment::parse`].
    pub(crate) fn segment(&self) -> Result<Segment> {
        let words = self.len()?;
        let header = self.copy(0..HEADER_WORDS)?;
        let header = header.first_chunk().expect("as many words as were asked for");
        Segment::parse(header, words)
    }

    /// The number of the last change of the directory.
    pub(crate) fn generation(&self) -> Result<u64> {
        self.word(GENERATION)
    }

    /// Reads the number of the writer's heartbeats so far.
    pub(crate) fn heartbeat(&self) -> Result<u64> {
        self.word(HEARTBEAT)
    }

    /// The objects there are, and the generation for which that is so.
    ///
    /// # Errors
    /// `Busy` if the directory never stood still, `Malformed` or `TooLarge` if it cannot be.
    pub(crate) fn look(
        &self,
        segment: &Segment,
        schemas: &mut Schemas,
    ) -> Result<(u64, Vec<Found>)> {
        schemas.begin();
        let outcome = self.look_until_still(segment, schemas);
        schemas.end(outcome.is_ok());
        outcome
    }

    fn look_until_still(
        &self,
        segment: &Segment,
        schemas: &mut Schemas,
    ) -> Result<(u64, Vec<Found>)> {
        for _ in 0..LOOK_TRIES {
            schemas.begin_try();
            let before = self.generation()?;
            // Pairs with the release store behind a change, as in `vmstrobe_core::seq`.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let found = self.directory(segment, schemas);
                fence(Ordering::Acquire);
                if self.generation()? == before {
                    return Ok((before, found?));
                }
            }
            schemas.note_work(PAUSE_WORK);
            thread::sleep(LOOK_PAUSE);
        }
        Err(Error::new(ErrorKind::Busy, "its list of objects keeps changing: try again"))
    }

    fn directory(&self, segment: &Segment, schemas: &mut Schemas) -> Result<Vec<Found>> {
        let used = self.word(SLOTS_USED)?;
        if used > segment.slots as u64 {
            return Err(malformed("it uses more slots than it has"));
        }
        let first = segment.directory_word;
        let slots = self.copy(first..first + used as usize * SLOT_WORDS)?;
        schemas.note_work(slots.len() * WORD_BYTES);
        // Blocks that do not overlap cannot be more than the segment: what is over is a lie.
        let mut allowed_bytes = segment.words * WORD_BYTES;
        let mut found = Vec::new();
        for slot in slots.chunks_exact(SLOT_WORDS) {
            if let Some(slot) = Slot::parse(slot, segment.words)? {
                found.push(self.object(segment, &slot, schemas, &mut allowed_bytes)?);
            }
        }
        Ok(found)
    }

    fn object(
        &self,
        segment: &Segment,
        slot: &Slot,
        schemas: &mut Schemas,
        allowed_bytes: &mut usize,
    ) -> Result<Found> {
        let head = self.copy(slot.block_word..slot.block_word + Header::BYTES / WORD_BYTES)?;
        let head: &[u8] = bytemuck::cast_slice(&head);
        let header = Header::parse(head.first_chunk().expect("as many words as it has bytes"))?;
        let mut claim = |bytes: usize| -> Result<()> {
            let left = allowed_bytes.checked_sub(bytes);
            *allowed_bytes = left.ok_or_else(|| malformed("its objects overlap"))?;
            Ok(())
        };
        let (id, descs) = (header.id_range(), header.desc_range());
        claim((id.end - id.start + descs.end - descs.start) as usize)?;
        let id = self.bytes(slot.block_word, id)?;
        let descs = self.bytes(slot.block_word, descs)?;
        let (path, schema) = schemas.parse(&header, &id, &descs, segment, slot)?;
        let data = slot.data(&header, schema.data_bytes(), segment.words)?;
        claim(data.len() * slot.shards * WORD_BYTES)?;
        Ok(Found {
            incarnation: slot.incarnation,
            path,
            index: slot.index,
            data,
            schema,
            shards: slot.shards,
            shard_words: slot.shard_words,
            is_grouped: slot.is_grouped,
        })
    }

    /// The bytes at that place of a block; both ends are within limits that the header has passed.
    fn bytes(&self, block_word: usize, range: Range<u64>) -> Result<Vec<u8>> {
        let (start, end) = (range.start as usize, range.end as usize);
        let (first, last) = (start / WORD_BYTES, end.div_ceil(WORD_BYTES));
        let words = self.copy(block_word + first..block_word + last)?;
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let skipped = start - first * WORD_BYTES;
        Ok(bytes[skipped..skipped + (end - start)].to_vec())
    }
}

/// Opens the file once more, so that nothing is shared with whoever gave the descriptor, and marks
/// it as a reader's. Gives the same descriptor if the file may not be opened.
fn readers_own(fd: OwnedFd) -> OwnedFd {
    let path = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    // Does not wait for a lease that somebody has taken on it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(own) = open(path, flags, Mode::empty()) else { return fd };
    // If it cannot be marked, the table is found in this process too.
    let _ = seek(&own, SeekFrom::Start(READERS_POSITION));
    own
}

fn unmappable(error: io::Error) -> Error {
    Error::caused(ErrorKind::Io, "cannot map a table", error)
}

fn no_memory(error: io::Error) -> Error {
    Error::caused(ErrorKind::Io, "there is no memory for a part of the table", error)
}

fn unreadable(errno: Errno) -> Error {
    Error::caused(ErrorKind::Io, "cannot read the table", errno)
}

/// Returns the index of an object's first lock word, by the range of its data.
pub(crate) fn lock_of(data: &Range<usize>) -> usize {
    data.start - LOCK_WORDS
}
