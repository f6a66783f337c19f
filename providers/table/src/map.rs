//! Memory shared with other processes, and all the unsafe code of it: a sealed memfd, mapped, as
//! words that others may change at any time.
//!
//! Invariant: nobody can make an access through here fault, or make this process pay for memory. A
//! mapping is of a file in memory (tmpfs) whose length is sealed in both directions, or of a file
//! of our own; so every word of the mapping stays there for as long as the mapping. A page of
//! another process's file is touched only once it is known to be there, because touching a hole
//! allocates a page, on our account, or kills this process if there is no memory; until then it is
//! read by `pread`, which fills no hole ([`Map::read`]). And there is no `&u64` or `&[u8]` into the
//! mapping: words are atomics, which another process may change without undefined behaviour here.
//!
//! A page is known to be there once a word of it was read that is not 0: a hole has none. It stays
//! there, because `F_SEAL_FUTURE_WRITE` and `F_SEAL_WRITE` keep everybody, the creator with its own
//! writable mapping included (`MADV_REMOVE`), from punching a hole; and the length is sealed.

#![allow(unsafe_code, reason = "no safe crate gives a shared mapping as atomics")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs,
    ftruncate, open,
};
use rustix::io::{Errno, pread};
use vmstrobe_core::WORD_BYTES;
use vmstrobe_core::seq::AtomicU64;
use vmstrobe_host::memfd;

/// The type that `fstatfs` reports for a memfd and for a file on tmpfs. (Huge pages are of another
/// file system: touching one may kill this process when the pool is empty.)
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The seals that make a mapping safe to touch. With `FUTURE_WRITE` (Linux 5.1) nobody but the
/// creator, through the mapping that it has, can change a byte, and nobody at all punch a hole.
const SEALS: SealFlags = SealFlags::GROW.union(SealFlags::SHRINK).union(SealFlags::FUTURE_WRITE);

/// Words of a page, where pages are smallest.
const PAGE_WORDS: usize = 4096 / WORD_BYTES;

/// A shared mapping of whole words.
pub(crate) struct Map {
    raw: MmapRaw,
    words: usize,
    /// One bit a page: set once the page is known to be there.
    present: Box<[AtomicUsize]>,
    /// The file of another process, by which pages that may be holes are read; `None` of memory of
    /// our own.
    file: Option<OwnedFd>,
}

/// Some words of a mapping, which is held: nothing has to be followed to reach them.
pub(crate) struct Words {
    words: NonNull<[AtomicU64]>,
    owner: Arc<Map>,
}

// SAFETY: a value of this type may be sent to another thread if what it points to may be used
// there, and shared if what it gives out may be.
// - It points into a mapping, which belongs to the process and not to a thread, and stays there as
//   long as the owner that it holds.
// - It gives out shared references to atomics only.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Map {
    /// A new memfd of that name and length, all zero, mapped for writing; and a descriptor that can
    /// only be read, also by whoever gets hold of it.
    pub(crate) fn create(name: &str, bytes: usize) -> io::Result<(Arc<Self>, OwnedFd)> {
        let fd = memfd(name, MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, bytes as u64)?;
        let raw = MmapRaw::map_raw(&fd)?;
        fcntl_add_seals(&fd, SEALS | SealFlags::SEAL)?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let reader = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((Self::new(raw, None), reader))
    }

    /// Maps a file of ours for writing. Whoever else may write to it can kill this process by
    /// making it shorter, so nobody may.
    pub(crate) fn own_file(fd: impl AsFd) -> io::Result<Arc<Self>> {
        Ok(Self::new(MmapRaw::map_raw(fd.as_fd().as_raw_fd())?, None))
    }

    /// Maps what another process gave, for reading, and keeps the descriptor. Gives it back if it
    /// is not sealed as it must be.
    ///
    /// # Errors
    /// If the system has no room for the mapping.
    pub(crate) fn sealed(fd: OwnedFd, bytes_max: u64) -> io::Result<Result<Arc<Self>, OwnedFd>> {
        // Not a memfd: there is nothing to ask.
        let Ok(seals) = fcntl_get_seals(&fd) else { return Ok(Err(fd)) };
        let is_write_sealed = seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE);
        if !seals.contains(SealFlags::GROW | SealFlags::SHRINK) || !is_write_sealed {
            return Ok(Err(fd));
        }
        // Asked only now: before the seals it could still change.
        let bytes = fstat(&fd)?.st_size as u64;
        if fstatfs(&fd)?.f_type as u64 != TMPFS_MAGIC || bytes > bytes_max || bytes == 0 {
            return Ok(Err(fd));
        }
        // At most `bytes_max`, which is far below what an address space holds.
        let raw = MmapOptions::new().len(bytes as usize).map_raw_read_only(fd.as_raw_fd())?;
        Ok(Ok(Self::new(raw, Some(fd))))
    }

    fn new(raw: MmapRaw, file: Option<OwnedFd>) -> Arc<Self> {
        let words = raw.len() / WORD_BYTES;
        let pages = words.div_ceil(PAGE_WORDS);
        let bits = pages.div_ceil(usize::BITS as usize);
        let present = (0..bits).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self { raw, words, present, file })
    }

    /// Makes sure that these words can be touched, if that costs nobody else's memory: of our own
    /// file, holes are filled. False if they may lie in a hole of another process's file; then
    /// [`Map::read`] reads them.
    ///
    /// # Errors
    /// If they are not in the mapping, or there is no memory for holes of our own.
    pub(crate) fn populate(&self, words: &Range<usize>) -> io::Result<bool> {
        // Beyond the end there may be another mapping.
        if words.end > self.words {
            return Err(Errno::FAULT.into());
        }
        if self.is_present(words) {
            return Ok(true);
        }
        if self.file.is_some() {
            return Ok(false);
        }
        let bytes = words.start * WORD_BYTES..words.end * WORD_BYTES;
        self.raw.advise_range(Advice::PopulateRead, bytes.start, bytes.len())?;
        pages_of(words).for_each(|page| self.note_present(page));
        Ok(true)
    }

    /// Whether all pages of these words are known to be there.
    pub(crate) fn is_present(&self, words: &Range<usize>) -> bool {
        pages_of(words).all(|page| {
            let (at, bit) = place_of(page);
            // Relaxed: a page that is there stays there, whoever has found that out.
            self.present.get(at).is_some_and(|bits| bits.load(Ordering::Relaxed) & bit != 0)
        })
    }

    /// Copies words from that one on, each whole, and fills no hole: what may be one is read by a
    /// system call. True if all their pages are known to be there now.
    ///
    /// # Errors
    /// `NXIO` if they are not there, or that of `pread`.
    pub(crate) fn read(&self, words: &mut [u64], first: usize) -> Result<bool, Errno> {
        let range = first..first + words.len();
        let theirs = self.words().get(range.clone()).ok_or(Errno::NXIO)?;
        let Some(file) = self.file.as_ref().filter(|_| !self.is_present(&range)) else {
            let each = words.iter_mut().zip(theirs);
            each.for_each(|(word, theirs)| *word = theirs.load(Ordering::Relaxed));
            return Ok(true);
        };
        read_words(file, words, first)?;
        let mut are_present = true;
        for page in pages_of(&range) {
            let start = (page * PAGE_WORDS).max(first);
            let end = ((page + 1) * PAGE_WORDS).min(range.end);
            if words[start - first..end - first].iter().any(|&word| word != 0) {
                self.note_present(page);
            }
            are_present &= self.is_present(&(start..end));
        }
        Ok(are_present)
    }

    fn note_present(&self, page: usize) {
        let (at, bit) = place_of(page);
        self.present[at].fetch_or(bit, Ordering::Relaxed);
    }

    /// Whether it is another process's file, of which the descriptor is kept.
    pub(crate) fn keeps_fd(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the number of its words.
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    /// All of them. One that is only read must not be stored to: the mapping may be read-only.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let first = self.raw.as_ptr().cast::<AtomicU64>();
        debug_assert!(first.is_aligned() && self.words * WORD_BYTES <= self.raw.len());
        // SAFETY: the slice must be aligned, initialised memory of that length, which stays mapped
        // and is changed by nothing but atomics for as long as the borrow lasts.
        // - A mapping begins at a page, and the kernel fills every byte of it, holes with zero.
        // - `words` was computed from the length that was mapped, rounded down.
        // - `raw` is unmapped only when `self` is dropped; the file keeps its length: it is sealed,
        //   or our own.
        // - This process makes no other references into it (`MmapRaw` offers none). Other processes
        //   change it by machine stores, which for an aligned word is what an atomic allows for.
        unsafe { std::slice::from_raw_parts(first, self.words) }
    }
}

impl Words {
    /// So many words of a mapping from that one on; `None` if it has fewer.
    pub(crate) fn new(map: &Arc<Map>, first: usize, count: usize) -> Option<Self> {
        let end = first.checked_add(count)?;
        let words = NonNull::from(map.words().get(first..end)?);
        Some(Self { words, owner: Arc::clone(map) })
    }

    #[inline]
    pub(crate) fn get(&self) -> &[AtomicU64] {
        debug_assert!(self.is_inside(), "made by `Words::new`");
        // SAFETY: the pointer must be that of a slice which lives as long as the borrow.
        // - It was made from one of `Map::words`, which lives as long as the map.
        // - `self` holds the map, and the borrow is of `self`.
        unsafe { self.words.as_ref() }
    }

    /// Whether the words are those of the mapping that is held.
    fn is_inside(&self) -> bool {
        let (all, first) = (self.owner.words().as_ptr_range(), self.words.as_ptr().cast_const());
        all.start <= first.cast() && first.cast() <= all.end
    }
}

/// The pages that these words lie in.
fn pages_of(words: &Range<usize>) -> Range<usize> {
    if words.is_empty() {
        return 0..0;
    }
    words.start / PAGE_WORDS..words.end.div_ceil(PAGE_WORDS)
}

/// Returns the index in `Map::present` of the word that has a page's bit, and that bit as a mask.
fn place_of(page: usize) -> (usize, usize) {
    let bits = usize::BITS as usize;
    (page / bits, 1 << (page % bits))
}

/// Fills the words from that one on; `NXIO` if they are not there.
#[inline]
pub(crate) fn read_words(fd: impl AsFd, words: &mut [u64], first: usize) -> Result<(), Errno> {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
    let want = bytes.len();
    match pread(fd, bytes, (first * WORD_BYTES) as u64)? {
        got if got == want => Ok(()),
        _ => Err(Errno::NXIO),
    }
}

/// True for a file on tmpfs, of which a read waits for nobody.
pub(crate) fn is_in_memory(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    // The kernel itself answers this, and only of a file in memory. Whatever else is asked of a
    // file, its server may leave unanswered.
    fcntl_get_seals(fd).is_ok() && fstatfs(fd).is_ok_and(|fs| fs.f_type as u64 == TMPFS_MAGIC)
}

impl Clone for Words {
    fn clone(&self) -> Self {
        Self { words: self.words, owner: Arc::clone(&self.owner) }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("words", &self.words).finish()
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("count", &self.words.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::pwrite;

    use super::*;

    /// Maps it as a reader does that was given another descriptor of it.
    fn sealed(fd: impl AsFd, bytes_max: u64) -> Option<Arc<Map>> {
        Map::sealed(fd.as_fd().try_clone_to_owned().unwrap(), bytes_max).unwrap().ok()
    }

    #[test]
    fn what_the_writer_stores_the_reader_sees() {
        let (ours, fd) = Map::create("test", 4096).unwrap();
        let theirs = sealed(&fd, 1 << 20).unwrap();
        ours.words()[511].store(7, Relaxed);
        assert_eq!((theirs.len(), theirs.words()[511].load(Relaxed)), (512, 7));
        let last = Words::new(&theirs, 511, 1).unwrap();
        drop(theirs);
        assert_eq!(last.get()[0].load(Relaxed), 7);
        assert!(Words::new(&ours, 511, 2).is_none() && Words::new(&ours, usize::MAX, 2).is_none());
    }

    #[test]
    fn nobody_can_change_a_table_through_its_descriptor() {
        let (_ours, fd) = Map::create("test", 4096).unwrap();
        for bytes in [0, 8192] {
            assert!(ftruncate(&fd, bytes).is_err());
        }
        assert!(pwrite(&fd, &[1], 0).is_err() && MmapRaw::map_raw(&fd).is_err());
        // Nor through one that is open for writing.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let writable = open(path, OFlags::RDWR, Mode::empty()).unwrap();
        for bytes in [0, 8192] {
            assert_eq!(ftruncate(&writable, bytes), Err(Errno::PERM));
        }
        assert_eq!(pwrite(&writable, &[1], 0), Err(Errno::PERM));
        assert!(MmapRaw::map_raw(&writable).is_err());
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(&writable, hole, 0, 4096), Err(Errno::PERM));
    }

    #[test]
    fn what_could_shrink_is_not_mapped() {
        let all = [SealFlags::GROW, SealFlags::SHRINK, SealFlags::FUTURE_WRITE];
        for left_out in all {
            let fd = memfd("test", MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&fd, 4096).unwrap();
            let seals = all.into_iter().filter(|seal| *seal != left_out).collect();
            fcntl_add_seals(&fd, seals).unwrap();
            assert!(sealed(&fd, 1 << 20).is_none(), "{left_out:?}");
            fcntl_add_seals(&fd, left_out).unwrap();
            assert!(sealed(&fd, 1 << 20).is_some());
            assert!(sealed(&fd, 4095).is_none());
        }
        let file = tempfile();
        assert!(sealed(&file, 1 << 20).is_none());
        assert!(sealed(std::io::pipe().unwrap().0, 1 << 20).is_none());
    }

    /// Returns the bytes that a file in memory takes.
    fn allocated(fd: impl AsFd) -> i64 {
        fstat(fd).unwrap().st_blocks * 512
    }

    #[test]
    fn a_hole_of_our_own_is_filled_before_it_is_touched() {
        let (ours, fd) = Map::create("test", 1 << 20).unwrap();
        assert_eq!(allocated(&fd), 0);
        assert!(ours.populate(&(511..513)).unwrap());
        assert_eq!(allocated(&fd), 2 * 4096);
        assert!(ours.populate(&(0..0)).unwrap());
        assert!(ours.populate(&(ours.len()..ours.len() + 1)).is_err());
    }

    #[test]
    fn a_hole_of_others_is_read_and_not_filled() {
        let (ours, fd) = Map::create("test", 1 << 20).unwrap();
        let theirs = sealed(&fd, 1 << 20).unwrap();
        let all = 0..theirs.len();
        let mut words = vec![u64::MAX; all.len()];
        assert!(!theirs.populate(&all).unwrap());
        assert_eq!(theirs.read(&mut words, 0), Ok(false));
        assert!(words.iter().all(|&word| word == 0));
        assert_eq!(allocated(&fd), 0);

        // A page that says something is there: from then on it is loaded.
        ours.words()[1023].store(7, Relaxed);
        assert!(!theirs.populate(&(1022..1024)).unwrap());
        let mut word = [9];
        assert_eq!((theirs.read(&mut word, 1022), word), (Ok(false), [0]));
        assert_eq!((theirs.read(&mut word, 1023), word), (Ok(true), [7]));
        assert_eq!((theirs.read(&mut word, 1022), word), (Ok(true), [0]));
        assert!(theirs.populate(&(512..1024)).unwrap());
        assert!(!theirs.is_present(&(511..513)) && !theirs.is_present(&(1023..1025)));
        assert_eq!(theirs.read(&mut words, 0), Ok(false));
        assert_eq!((words[1023], allocated(&fd)), (7, 4096));
        assert_eq!(theirs.read(&mut word, theirs.len()), Err(Errno::NXIO));
    }

    /// Else a page that is known to be there could go, and touching it would allocate it anew.
    #[test]
    fn not_even_the_creator_can_punch_a_hole() {
        let (ours, fd) = Map::create("test", 8192).unwrap();
        ours.words().iter().for_each(|word| word.store(7, Relaxed));
        // SAFETY: removing pages of a mapping is undefined where somebody relies on their words.
        // - There are no references to them but atomics, whose words may change at any time.
        // - What is removed reads as 0; and here nothing is removed.
        let removed =
            unsafe { ours.raw.unchecked_advise_range(memmap2::UncheckedAdvice::Remove, 0, 8192) };
        assert_eq!(removed.unwrap_err().raw_os_error(), Some(Errno::PERM.raw_os_error()));
        assert_eq!((allocated(&fd), ours.words()[600].load(Relaxed)), (8192, 7));
    }

    fn tempfile() -> std::fs::File {
        let fd = open("/tmp", OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).unwrap();
        fd.into()
    }
}
