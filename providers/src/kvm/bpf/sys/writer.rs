//! A program with the array that it alone writes.
//!
//! Invariant: nobody looks at the array while the program runs: running it takes the whole value,
//! looking a borrow of it. So the words are plain memory, which is copied as fast as any; those of
//! other processes look through atomics.

#![allow(unsafe_code, reason = "memory that the kernel writes now and then, as plain words")]

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::{ArrayMap, Program, Runner};
use crate::table::map::Map;

/// A program and the array that nobody else writes, so that it stands still between two runs.
#[derive(Debug)]
pub(crate) struct Writer {
    runner: Runner,
    map: Arc<Map>,
}

impl Writer {
    /// `array` must be one that no other program writes, whoever has its descriptor: then it is
    /// ours, and frozen, or `None`.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub(crate) fn new(program: Program, array: &ArrayMap) -> io::Result<Option<Self>> {
        let map = Map::frozen_array(array, array.value_bytes.into())?;
        Ok(map.map(|map| Self { runner: Runner::new(program), map }))
    }

    /// As [`Runner::run`].
    #[inline]
    pub(crate) fn run(&mut self) -> Result<u32, Errno> {
        self.runner.run()
    }

    /// Returns the words of the array, as the last run left them.
    #[inline]
    pub(crate) fn words(&self) -> &[u64] {
        let words = self.map.words();
        // SAFETY: the slice must be aligned, initialised memory of that length, which stays mapped
        // and which nobody changes for as long as the borrow lasts.
        // - It is that of a slice of atomics, which are laid out as integers; `self` holds the map.
        // - No user space writes it: the array is frozen.
        // - Our program writes it only while it runs, in `run`, which wants `self` for itself.
        // - Another program would have to be loaded with the array's descriptor, by somebody with
        //   CAP_BPF. `new` wants an array that is written by nobody else: those that it is lent to
        //   read it. (Whoever breaks that can make these words wrong, which any bits are not.)
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u64>(), words.len()) }
    }
}
