//! Tables that were refused, and why: so that what costs work to refuse is refused again for
//! nothing, until the table changes.
//!
//! Invariant: a table is not read again as long as its directory says that it has not changed, but
//! for once in [`REFUSED_FOR`], because others may have made room for it. What is remembered of
//! tables that are not held is bounded.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, ErrorKind, Result};

use super::format::GENERATION;
use super::map::read_words;

/// The time for which a refused table that has not changed is not read again.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The most refused tables that are remembered.
pub(crate) const MAX_REFUSED: usize = 4096;

/// Why a table was refused, and what it was then.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    kind: ErrorKind,
    text: String,
    generation: u64,
    at: Instant,
}

/// The tables, and the rows of tables, that a provider does not read, and why.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Tables that are not held, by what tells a file from all others.
    files: HashMap<(u64, u64), Refused>,
    /// Why rows of tables that are held were not opened, by the numbers of the tables.
    rows: BTreeMap<u64, Error>,
}

impl Refused {
    /// A table that was refused when the number of its directory's last change was that.
    pub(super) fn new(error: &Error, generation: u64, at: Instant) -> Self {
        Self { kind: error.kind(), text: error.to_string(), generation, at }
    }

    /// Why.
    pub(super) fn error(&self) -> Error {
        Error::new(self.kind, self.text.as_str())
    }

    /// Whether it would be refused again.
    pub(super) fn stands(&self, generation: u64, now: Instant) -> bool {
        self.generation == generation && now.duration_since(self.at) < REFUSED_FOR
    }
}

impl Refusals {
    /// Remembers a file. Others are forgotten if there are too many.
    pub(super) fn add_file(&mut self, file: (u64, u64), refused: Refused) {
        self.files.retain(|_, other| refused.at.duration_since(other.at) < REFUSED_FOR);
        if self.files.len() >= MAX_REFUSED {
            self.files.clear();
        }
        self.files.insert(file, refused);
    }

    /// Whether this file, which is in memory, may be read.
    ///
    /// # Errors
    /// As it was refused, if it still is.
    pub(super) fn check(&mut self, file: (u64, u64), fd: impl AsFd, now: Instant) -> Result<()> {
        let Some(refused) = self.files.get(&file) else { return Ok(()) };
        let mut generation = [0];
        let has_read = read_words(fd, &mut generation, GENERATION).is_ok();
        if has_read && refused.stands(generation[0], now) {
            return Err(refused.error());
        }
        self.files.remove(&file);
        Ok(())
    }

    /// Notes that rows of tables were not opened.
    pub(super) fn add_rows(&mut self, refused: BTreeMap<u64, Error>) {
        self.rows.extend(refused);
    }

    /// Forgets the rows of tables that are not held any more.
    pub(super) fn keep_rows(&mut self, is_held: impl Fn(u64) -> bool) {
        self.rows.retain(|number, _| is_held(*number));
    }

    /// Everything that is over a limit, these tables among it: each text once.
    pub(super) fn warnings<'a>(&'a self, held: impl Iterator<Item = &'a Refused>) -> Vec<Error> {
        let now = Instant::now();
        let files = self.files.values().filter(|file| now.duration_since(file.at) < REFUSED_FOR);
        let tables = held.chain(files).map(Refused::error);
        let rows = self.rows.values().map(|error| Error::new(error.kind(), error.to_string()));
        let too_large = tables.chain(rows).filter(|error| error.kind() == ErrorKind::TooLarge);
        let by_text: BTreeMap<String, Error> =
            too_large.map(|error| (error.to_string(), error)).collect();
        by_text.into_values().collect()
    }
}
