//! The memory that a hostile writer shows to its victims, and the unsafe code of these tests: a
//! sealed memfd, mapped for writing.
//!
//! Invariant: no access through here faults. The memfd's length is sealed before it is mapped, and
//! words are atomics only, so that others may read them at any time.

#![allow(unsafe_code, reason = "no safe crate gives a shared mapping as atomics")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::layout::{WORD_BYTES, bytes_of};

/// The words of the smallest page.
const PAGE_WORDS: usize = 4096 / WORD_BYTES;

/// A memfd that readers map.
#[derive(Debug)]
pub struct Mapping {
    file: File,
    raw: MmapRaw,
}

/// A memfd of that name with these words, not sealed.
///
/// # Errors
///
/// If there is no memory for it.
pub fn unsealed(name: &str, words: &[u64]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags)?);
    file.set_len((words.len() * WORD_BYTES) as u64)?;
    // Pages of zeros are holes, which cost nothing.
    for (page, words) in words.chunks(PAGE_WORDS).enumerate() {
        if words.iter().any(|&word| word != 0) {
            file.write_all_at(&bytes_of(words), (page * PAGE_WORDS * WORD_BYTES) as u64)?;
        }
    }
    Ok(file)
}

impl Mapping {
    /// A memfd of that name with these words, sealed as readers ask for it: nobody can make it
    /// shorter or longer, nor write to it except through this.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn sealed(name: &str, words: &[u64]) -> io::Result<Self> {
        let file = unsealed(name, words)?;
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK)?;
        let raw = MmapRaw::map_raw(&file)?;
        fcntl_add_seals(&file, SealFlags::FUTURE_WRITE)?;
        Ok(Self { file, raw })
    }

    /// Its descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns all words.
    pub fn words(&self) -> &[AtomicU64] {
        let count = self.raw.len() / WORD_BYTES;
        // SAFETY: the slice must be aligned, initialised memory of that length, which stays mapped
        // and is changed by nothing but atomics for as long as the borrow lasts.
        // - A mapping begins at a page, and the kernel has filled every byte of it.
        // - `count` words are what was mapped, rounded down.
        // - `raw` is unmapped only when `self` is dropped, and the length of the file is sealed.
        // - `MmapRaw` gives no other references into it, and nobody else can map it for writing.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().cast::<AtomicU64>(), count) }
    }
}
