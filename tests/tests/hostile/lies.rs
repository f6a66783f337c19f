//! Wrong values in every field of every header: of the segment, the slots, the locks, the blocks
//! and the descriptors. Each is alone, in a table that is right otherwise.

use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::judge::{must_be_read, must_be_read_as};
use vmstrobe_tests::hostile::layout::{
    BLOCK_HEADER_BYTES, DESC_BYTES, Entry, GENERATION, HEADER_WORDS, HEARTBEAT, Image, SLOT_WORDS,
    SLOTS_USED, WORD_BYTES, bytes_of, put,
};
use vmstrobe_tests::hostile::reader::Reader;
use vmstrobe_tests::rig::show;

use crate::{Place, report, shm, start};

/// A word with a wrong value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lie {
    word: usize,
    value: u64,
}

#[test]
fn lies_in_a_mapped_table_do_no_harm() {
    check(&Place::Sealed, 1);
}

#[test]
fn lies_in_a_table_read_by_system_calls_do_no_harm() {
    // It differs from the look above only in the way in which words are copied.
    check(&Place::Unsealed, 3);
}

#[test]
fn lies_in_a_table_in_a_file_do_no_harm() {
    let shm = shm();
    // It differs from the others only in the way in which it is opened.
    check(&Place::Path(shm.path().join("table")), 10);
}

/// Looks at a table before and after each of the wrong values, or one of several: by a reader that
/// has it open already, and by one that opens it then.
fn check(place: &Place, one_in: usize) {
    let image = sample(1);
    let entries: Vec<Entry> = (0..OBJECTS).map(|object| image.entry(object)).collect();
    let lies: Vec<Lie> = lies(&image, &entries).into_iter().step_by(one_in).collect();
    let mut hostile = start("commands", place, "sample");
    let mut known = Reader::new();
    attach(&mut known, &hostile, place);
    let (mut refused, mut generation) = (0, 0);
    for lie in &lies {
        looks_right(&mut known, &image);
        generation += 2;
        hostile.set(GENERATION, generation);
        hostile.set(lie.word, lie.value);
        let mut words = image.words.clone();
        words[GENERATION] = generation;
        words[lie.word] = lie.value;
        for (row, entry) in known.tick().iter().zip(&entries) {
            must_be_read_as(row, entry, &words);
        }
        let objects = known.look();
        known.open(&objects);
        must_be_read(&known.tick(), &as_known(&words, &image));

        let mut fresh = Reader::new();
        attach(&mut fresh, &hostile, place);
        let objects = fresh.look();
        fresh.open(&objects);
        must_be_read(&fresh.tick(), &words);
        refused += usize::from(objects.is_empty());
        known.count(&fresh);

        generation += 2;
        hostile.tell(&format!("restore {generation}"));
    }
    looks_right(&mut known, &image);
    show(&format!("{place:?}: {} lies, {refused} refused", lies.len()));
    report(&format!("{place:?}"), &known);
    // Otherwise the wrong values would change nothing.
    assert!(refused > lies.len() / 20 && refused < lies.len(), "{refused} of {}", lies.len());
}

/// A table that cannot be read is refused here, or the looks that follow find nothing in it.
fn attach(reader: &mut Reader, hostile: &Hostile, place: &Place) {
    let _ = match place {
        Place::Path(path) => reader.open_file(path),
        _ => reader.attach(hostile.pid()).map(drop),
    };
}

/// Checks that the table can be read now, although it was refused before.
fn looks_right(reader: &mut Reader, image: &Image) {
    let objects = reader.look();
    reader.open(&objects);
    let rows = reader.tick();
    let paths: Vec<&str> = rows.iter().map(|row| &*row.path).collect();
    assert_eq!(paths, ["/evil/1/a", "/evil/1/b", "/evil/1/c"]);
    must_be_read(&rows, &image.words);
    assert!(rows.iter().all(|row| !row.values.is_empty()), "{rows:?}");
}

/// Returns the words as a reader takes them that has read the header before: only three words of it
/// can change.
fn as_known(words: &[u64], before: &Image) -> Vec<u64> {
    let mut known = words.to_vec();
    known[..HEADER_WORDS].copy_from_slice(&before.words[..HEADER_WORDS]);
    for at in [GENERATION, SLOTS_USED, HEARTBEAT] {
        known[at] = words[at];
    }
    known
}

fn lies(image: &Image, entries: &[Entry]) -> Vec<Lie> {
    let mut lies = Vec::new();
    let slots = entries.len() * SLOT_WORDS;
    let locks = entries.iter().flat_map(|entry| [entry.lock_word, entry.lock_word + 1]);
    for word in (0..HEADER_WORDS + slots).chain(locks) {
        let of_words = words_instead_of(image.words[word], image.words.len());
        lies.extend(of_words.into_iter().map(|value| Lie { word, value }));
    }
    for entry in entries {
        let block = entry.block_word * WORD_BYTES;
        let mut field = |at: usize, bytes: usize| lies.extend(in_field(image, at, bytes));
        (0..6).for_each(|number| field(block + number * 4, 4));
        // The path, and each name.
        let descs = entry.stats.len();
        for number in 0..descs {
            let desc = block + BLOCK_HEADER_BYTES + 48 + number * (DESC_BYTES + 48);
            for (at, bytes) in [(0, 4), (4, 2), (6, 2), (8, 4), (12, 4)] {
                field(desc + at, bytes);
            }
            (0..6).for_each(|word| field(desc + DESC_BYTES + word * WORD_BYTES, WORD_BYTES));
        }
        (0..6).for_each(|word| field(block + BLOCK_HEADER_BYTES + word * WORD_BYTES, WORD_BYTES));
    }
    lies.retain(|lie| image.words[lie.word] != lie.value);
    lies.dedup();
    lies
}

/// Returns wrong values of a field of `bytes` bytes.
fn in_field(image: &Image, at: usize, bytes: usize) -> Vec<Lie> {
    let word = at / WORD_BYTES;
    let held = image.words[word];
    let mut field = [0; WORD_BYTES];
    field[..bytes].copy_from_slice(&bytes_of(&[held])[at % WORD_BYTES..][..bytes]);
    let instead = words_instead_of(u64::from_ne_bytes(field), image.words.len());
    let lie = |value: u64| {
        let mut words = [held];
        put(&mut words, at % WORD_BYTES, &value.to_ne_bytes()[..bytes]);
        Lie { word, value: words[0] }
    };
    instead.into_iter().map(lie).collect()
}

/// Returns numbers to stand in the place of `held`, in a table of so many words.
fn words_instead_of(held: u64, words: usize) -> Vec<u64> {
    let length = (words * WORD_BYTES) as u64;
    let mut values = vec![0, 1, 2, 3, 7, 8, 15, 16, 24, 63, 255, 256, 257, 4096, 4097];
    values.extend([
        16_383,
        16_384,
        16_385,
        65_535,
        65_536,
        65_537,
        1_000_000,
        u64::MAX,
        u64::MAX - 7,
        u64::MAX / 2,
    ]);
    let near =
        |value: u64| [value.wrapping_sub(8), value.wrapping_sub(1), value, value + 1, value + 8];
    values.extend(near(length));
    values.extend([15, 16, 31, 32, 33, 47, 48, 62, 63].map(|bit| 1 << bit));
    values.extend([1, 2, 3, 4, 8, 16, 32, 63].map(|bit| held ^ 1 << bit));
    values.extend([held ^ 1, !held, held.swap_bytes(), held.wrapping_add(8), held.wrapping_sub(8)]);
    values
}
