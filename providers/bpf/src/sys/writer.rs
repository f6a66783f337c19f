//! A program with the array that it alone writes, mapped for reading.
//!
//! Invariant: the words are atomics: no Rust reference to plain memory leads to what the kernel
//! changes. The mapping is as long as the array, which never changes its length.

#![allow(unsafe_code, reason = "no safe crate gives a shared mapping as atomics")]

use std::io;
use std::os::fd::AsRawFd;

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use vmstrobe_core::WORD_BYTES;
use vmstrobe_core::seq::AtomicU64;

use super::{ArrayMap, Program, Runner};

/// A program and the array that nobody else writes, so that it stands still between two runs.
#[derive(Debug)]
pub(crate) struct Writer {
    runner: Runner,
    map: ArrayWords,
}

/// The words of an array, mapped for reading.
#[derive(Debug)]
pub(super) struct ArrayWords {
    raw: MmapRaw,
    words: usize,
}

impl Writer {
    /// Maps the array that the program writes.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub(crate) fn new(program: Program, array: &ArrayMap) -> io::Result<Self> {
        Ok(Self { runner: Runner::new(program), map: ArrayWords::map(array)? })
    }

    /// As [`Runner::run`].
    #[inline]
    pub(crate) fn run(&mut self) -> Result<u32, Errno> {
        self.runner.run()
    }

    /// Returns the words of the array, as the last run left them.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.map.words()
    }
}

impl ArrayWords {
    /// Maps an array for reading (Linux 5.5).
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL` if the array cannot be mapped.
    pub(super) fn map(array: &ArrayMap) -> io::Result<Self> {
        let bytes = array.value_bytes as usize;
        let raw = MmapOptions::new().len(bytes).map_raw_read_only(array.fd.as_raw_fd())?;
        Ok(Self { raw, words: bytes / WORD_BYTES })
    }

    /// Returns all words. The mapping is read-only: they must not be stored to.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        let first = self.raw.as_ptr().cast::<AtomicU64>();
        debug_assert!(first.is_aligned() && self.words * WORD_BYTES <= self.raw.len());
        // SAFETY: the slice must be aligned, initialised memory of that length, which stays mapped
        // and is changed by nothing but atomics for as long as the borrow lasts.
        // - A mapping begins at a page.
        // - `words` is the length that was mapped, rounded down. An array is as long for ever as it
        //   was created, a mapping of more is refused, and all its pages are put in place when it
        //   is mapped (`array_map_mmap` in the kernel's `bpf/arraymap.c`).
        // - `raw` is unmapped only when `self` is dropped.
        // - This process makes no other references into it (`MmapRaw` offers none). BPF programs
        //   change it by machine stores, which for an aligned word is what an atomic allows for.
        unsafe { std::slice::from_raw_parts(first, self.words) }
    }
}
