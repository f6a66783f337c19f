//! Descriptors and blocks that overlap, reach to the last word, or point outside.

use vmstrobe_core::RowState;
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::judge::must_be_read;
use vmstrobe_tests::hostile::layout::{
    BLOCK_HEADER_BYTES, DESC_BYTES, Entry, GENERATION, Image, WORD_BYTES, put,
};
use vmstrobe_tests::hostile::reader::{Reader, Row};

use crate::{Place, start};

/// The bytes of a path or name in a [`sample`].
const NAME_BYTES: usize = 48;

/// A table that is changed before a reader opens it.
struct Changed {
    hostile: Hostile,
    image: Image,
    generation: u64,
}

impl Changed {
    fn new(place: &Place) -> Self {
        let hostile = start("commands", place, "sample");
        Self { hostile, image: sample(1), generation: 0 }
    }

    /// Writes bytes at a place, returns the objects that a new reader finds, and restores the
    /// bytes.
    fn rows_with(&mut self, at: usize, bytes: &[u8]) -> Vec<Row> {
        let mut changed = self.image.clone();
        put(&mut changed.words, at, bytes);
        self.generation += 2;
        changed.words[GENERATION] = self.generation;
        for word in [at / WORD_BYTES, (at + bytes.len() - 1) / WORD_BYTES, GENERATION] {
            self.hostile.set(word, changed.words[word]);
        }
        let mut reader = Reader::new();
        // A table that is refused has no objects.
        let _ = reader.attach(self.hostile.pid());
        let objects = reader.look();
        reader.open(&objects);
        let rows = reader.tick();
        must_be_read(&rows, &changed.words);
        self.generation += 2;
        self.hostile.tell(&format!("restore {}", self.generation));
        rows
    }
}

/// Returns the byte of the table at which a descriptor's field lies, `field` bytes into it.
fn field(entry: &Entry, desc: usize, field: usize) -> usize {
    let descs = entry.block_word * WORD_BYTES + BLOCK_HEADER_BYTES + NAME_BYTES;
    descs + desc * (DESC_BYTES + NAME_BYTES) + field
}

const SIZE: usize = 6;
const OFFSET: usize = 8;

fn all_are_good(rows: &[Row]) -> bool {
    rows.len() == OBJECTS && rows.iter().all(|row| row.state == RowState::Good)
}

#[test]
fn statistics_may_share_words() {
    for place in [Place::Sealed, Place::Unsealed] {
        let mut changed = Changed::new(&place);
        let entry = changed.image.entry(2);
        let rows = changed.rows_with(field(&entry, 1, OFFSET), &0_u32.to_ne_bytes());
        assert!(all_are_good(&rows));
        assert_eq!(rows[2].values[0].1, rows[2].values[1].1);
    }
}

#[test]
fn nothing_is_read_beyond_the_last_word() {
    for place in [Place::Sealed, Place::Unsealed] {
        let mut changed = Changed::new(&place);
        let entry = changed.image.entry(2);
        let first = entry.stats[2].1.start;
        let fits = (changed.image.words.len() - first) as u16;
        let rows = changed.rows_with(field(&entry, 2, SIZE), &fits.to_ne_bytes());
        assert!(all_are_good(&rows));
        assert_eq!(rows[2].values[2].1.len(), usize::from(fits));
        // One more than fits, and the largest number.
        for size in [fits + 1, u16::MAX] {
            assert_eq!(changed.rows_with(field(&entry, 2, SIZE), &size.to_ne_bytes()), []);
        }
        let last = ((changed.image.words.len() - entry.data().start - 1) * WORD_BYTES) as u32;
        assert!(all_are_good(&changed.rows_with(field(&entry, 0, OFFSET), &last.to_ne_bytes())));
        for offset in [last + 8, 1 << 19, 1 << 31, u32::MAX - 7] {
            assert_eq!(changed.rows_with(field(&entry, 0, OFFSET), &offset.to_ne_bytes()), []);
        }
    }
}

/// An object can point to the block of another: the block is not its own, so the row is gone.
#[test]
fn a_block_of_another_object_is_not_used() {
    for place in [Place::Sealed, Place::Unsealed] {
        let mut changed = Changed::new(&place);
        let [first, third] = [changed.image.entry(0), changed.image.entry(2)];
        let theirs = (first.block_word * WORD_BYTES) as u64;
        let at = (third.slot_word + 1) * WORD_BYTES;
        let rows = changed.rows_with(at, &theirs.to_ne_bytes());
        let states: Vec<RowState> = rows.iter().map(|row| row.state).collect();
        assert_eq!(states, [RowState::Good, RowState::Good, RowState::Gone]);
        assert_eq!(rows[2].path, "/evil/1/a.1");
    }
}
