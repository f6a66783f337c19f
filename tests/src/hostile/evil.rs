//! A table of a hostile writer: in a sealed memfd, in one that is not sealed, or in a locked file
//! on tmpfs.
//!
//! Invariant: the writer survives all changes of its table: one that can become shorter is written
//! by system calls.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{FlockOperation, fcntl_lock};

use super::layout::{GENERATION, WORD_BYTES, bytes_of};
use super::memory::{Mapping, unsealed};

/// The name of the memfd.
const NAME: &str = "vmstrobe-table:evil";

/// The place of a table: a memfd or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A memfd that readers map.
    Sealed,
    /// A memfd that readers read by system calls.
    Unsealed,
    /// A file on tmpfs.
    Path(PathBuf),
}

impl Place {
    /// Parses an argument of the command line: `sealed`, `unsealed` or a path.
    pub fn from_arg(arg: &str) -> Self {
        match arg {
            "sealed" => Self::Sealed,
            "unsealed" => Self::Unsealed,
            path => Self::Path(path.into()),
        }
    }

    /// Returns the argument for the command line.
    pub fn to_arg(&self) -> String {
        match self {
            Self::Sealed => "sealed".to_owned(),
            Self::Unsealed => "unsealed".to_owned(),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

/// A table that can be written.
#[derive(Debug)]
pub enum Evil {
    /// The writer stores to memory.
    Mapped(Mapping),
    /// The writer makes system calls.
    File(File),
}

impl Evil {
    /// Publishes these words.
    ///
    /// # Errors
    ///
    /// If there is no memory for it, or the path cannot be written and locked.
    pub fn publish(place: &Place, words: &[u64]) -> io::Result<Self> {
        match place {
            Place::Sealed => Mapping::sealed(NAME, words).map(Self::Mapped),
            Place::Unsealed => unsealed(NAME, words).map(Self::File),
            Place::Path(path) => locked(path, words).map(Self::File),
        }
    }

    /// Stores one word atomically.
    ///
    /// # Errors
    ///
    /// If there is no such word in memory, or the file cannot be written.
    pub fn set(&self, at: usize, value: u64) -> io::Result<()> {
        match self {
            Self::Mapped(mapping) => {
                let word = mapping.words().get(at);
                word.ok_or(io::ErrorKind::NotFound)?.store(value, Ordering::Relaxed);
                Ok(())
            }
            Self::File(file) => file.write_all_at(&value.to_ne_bytes(), (at * WORD_BYTES) as u64),
        }
    }

    /// Stores these words, from that index on.
    ///
    /// # Errors
    ///
    /// As [`Evil::set`].
    pub fn set_all(&self, first: usize, words: &[u64]) -> io::Result<()> {
        match self {
            Self::Mapped(_) => {
                let mut each = (first..).zip(words);
                each.try_for_each(|(at, &word)| self.set(at, word))
            }
            Self::File(file) => file.write_all_at(&bytes_of(words), (first * WORD_BYTES) as u64),
        }
    }

    /// Changes something under a sequence lock, as an honest writer does, and returns the new
    /// number. `number` is the present, even one.
    ///
    /// # Errors
    ///
    /// The errors of `change` and of [`Evil::set`].
    pub fn change(
        &self,
        lock: usize,
        number: u64,
        change: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<u64> {
        self.set(lock, number | 1)?;
        fence(Ordering::SeqCst);
        change(self)?;
        fence(Ordering::SeqCst);
        let even = number.wrapping_add(2);
        self.set(lock, even)?;
        Ok(even)
    }

    /// Restores an image, with a number of the directory that no reader has seen.
    ///
    /// # Errors
    ///
    /// As [`Evil::set`].
    pub fn restore(&self, words: &[u64], generation: u64) -> io::Result<()> {
        self.set_all(0, &words[..GENERATION])?;
        self.set_all(GENERATION + 1, &words[GENERATION + 1..])?;
        self.set(GENERATION, generation)
    }

    /// Sets the length of the table.
    ///
    /// # Errors
    ///
    /// If it is sealed, or there is no room.
    pub fn resize(&self, bytes: u64) -> io::Result<()> {
        self.file().set_len(bytes)
    }

    /// Locks the file as its writer does.
    ///
    /// # Errors
    ///
    /// If somebody else has.
    pub fn lock(&self) -> io::Result<()> {
        Ok(fcntl_lock(self.file().as_fd(), FlockOperation::NonBlockingLockExclusive)?)
    }

    fn file(&self) -> &File {
        match self {
            Self::Mapped(mapping) => mapping.file(),
            Self::File(file) => file,
        }
    }
}

/// Makes a file of these words at a path, where it is complete and locked from the first moment.
fn locked(path: &Path, words: &[u64]) -> io::Result<File> {
    let draft = path.with_extension("draft");
    let file = File::options().read(true).write(true).create_new(true).open(&draft)?;
    file.write_all_at(&bytes_of(words), 0)?;
    fcntl_lock(file.as_fd(), FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(draft, path)?;
    Ok(file)
}
