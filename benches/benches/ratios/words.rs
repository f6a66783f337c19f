//! The bare loops over tables: the same words, mapped once more, and loaded one after the other.
//!
//! Invariant: they load the very words that the sampler's plan keeps, of the same tables, into one
//! buffer. They ask for no lock and for nobody's life.
#![allow(unsafe_code, reason = "the peer is a mapping with nothing around it")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapOptions;

/// The words of shared memory.
#[derive(Debug)]
pub(crate) struct BareWords {
    tables: Vec<&'static [AtomicU64]>,
    places: Vec<usize>,
    /// References to all words, made before.
    found: Vec<&'static AtomicU64>,
    buffer: Vec<u64>,
}

impl BareWords {
    /// Maps each table from its first data word on, of which the words at these places are loaded.
    pub(crate) fn new(
        tables: &[(OwnedFd, usize)],
        places: Vec<usize>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let map = |(fd, first): &(OwnedFd, usize)| {
            let map = MmapOptions::new().map_raw_read_only(fd.as_raw_fd())?;
            let count = map.len() / size_of::<AtomicU64>();
            // SAFETY: aligned, initialised memory that stays mapped and is changed as atomics only.
            // - A mapping begins at a page; the file's length is sealed, and `count` is within it.
            // - It is never unmapped: the map is forgotten below, as a bench may.
            // - This process writes to the file by atomic stores alone.
            let all: &'static [AtomicU64] =
                unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), count) };
            std::mem::forget(map);
            all.get(*first..).ok_or_else(|| "the data lies outside".into())
        };
        let map = |table| map(table).map_err(|error: Box<dyn std::error::Error>| error);
        let tables = tables.iter().map(map).collect::<Result<Vec<_>, _>>()?;
        let found: Vec<_> =
            tables.iter().flat_map(|table| places.iter().map(|&at| &table[at])).collect();
        let buffer = vec![0; found.len()];
        Ok(Self { tables, places, found, buffer })
    }

    /// Loads every word once: for each table, for each place.
    #[inline]
    pub(crate) fn read(&mut self) {
        let rows = self.buffer.chunks_exact_mut(self.places.len());
        for (table, row) in self.tables.iter().zip(rows) {
            for (kept, &at) in row.iter_mut().zip(&self.places) {
                *kept = table[at].load(Ordering::Relaxed);
            }
        }
        std::hint::black_box(&mut self.buffer);
    }

    /// Loads the same words once, by a list of all their addresses.
    #[inline]
    pub(crate) fn read_found(&mut self) {
        for (kept, word) in self.buffer.iter_mut().zip(&self.found) {
            *kept = word.load(Ordering::Relaxed);
        }
        std::hint::black_box(&mut self.buffer);
    }

    /// Returns the words that were loaded last.
    pub(crate) fn values(&self) -> &[u64] {
        &self.buffer
    }
}
