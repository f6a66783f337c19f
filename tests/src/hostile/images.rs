//! The tables with which hostile writers begin: a small valid one, and some that are not valid.
//!
//! Invariant: an image depends on its name alone, so that a writer in another process and the test
//! that checks the rows have the same.

use super::layout::{
    BLOCK_HEADER_BYTES, BOOLEAN, Block, DESC_BYTES, GENERATION, GROUPED, HEADER_WORDS,
    HEARTBEAT_PERIOD, Image, LINEAR, LOG2, SLOT_WORDS, SLOTS, SLOTS_USED, Stat, WORD_BYTES, put,
};

/// The most slots of a table.
pub const SLOTS_MAX: usize = 16_384;
/// The longest time between two heartbeats that the writer of "beating" promises, in ns.
const PROMISED_NS: u64 = 500_000_000;
/// The most statistics of one object.
const DESCS_MAX: usize = 4096;
/// The word of the lock in the block of an object of `crowd`: 24 bytes of header, 24 of its path
/// and 40 of its one descriptor, rounded up to 16 words.
const CROWD_LOCK_WORD: usize = 16;
/// The number of objects with statistics in the image "heavy": each counts as one statistic more.
const HEAVY_OBJECTS: usize = 65_536 / (DESCS_MAX + 1);
/// The number of objects of the image "holes".
pub const HOLE_OBJECTS: usize = 9;
/// The number of shards of each.
pub const HOLE_SHARDS: usize = 255;
/// The words of each of those objects.
pub const HOLE_WORDS: usize = 8192;
/// The number of objects in the image "a million".
const MILLION: usize = 1_000_000;
/// The number of different schemas in the image "schemas", which is the most objects of a table.
pub const SCHEMAS: usize = SLOTS_MAX;

/// Returns the image of that name.
///
/// # Panics
///
/// If there is none.
pub fn named(name: &str) -> Image {
    match name {
        "sample" => sample(1),
        "beating" => beating(),
        "busy" => busy(),
        "crowd" => crowd(),
        "crowd-held" => crowd_held(),
        "one-path" => one_path(),
        "one-block" => one_block(),
        "one-data" => one_data(),
        "schemas" => schemas(),
        "vast" => vast("ä"),
        "vast-latin" => vast("\u{ff}"),
        "heavy" => heavy(),
        "holes" => holes(),
        "million-places" => million_places(),
        "million-used" => million_used(),
        _ => panic!("there is no image '{name}'"),
    }
}

/// The number of objects in [`sample`].
pub const OBJECTS: usize = 3;

/// Returns the value of word `word` of object `object` in [`sample`] number `epoch`. The second
/// object's other shards hold 1.
pub fn value(epoch: u64, object: usize, word: usize) -> u64 {
    epoch << 32 | (object as u64) << 16 | word as u64 | 1 << 63
}

/// Makes three objects: one with all kinds of statistics, one with four shards whose words change
/// together, and one without a lock; and a free slot. Paths, incarnations and values are those of
/// the epoch.
pub fn sample(epoch: u64) -> Image {
    let mut image = Image::new("evil", 4096, 4);
    let stats = [
        Stat::counter("requests"),
        Stat { flags: 1 | BOOLEAN, ..Stat::counter("busy") },
        Stat { flags: LINEAR, size: 4, bucket_size: 10, ..Stat::counter("depth") },
        Stat { flags: LOG2, size: 8, ..Stat::counter("latency") },
    ];
    let first = Block {
        path: &format!("/evil/{epoch}/a"),
        target: "queue",
        name_bytes: 48,
        shards: 1,
        flags: GROUPED,
        stats: &stats,
    };
    let second =
        Block { path: &format!("/evil/{epoch}/b"), shards: 4, stats: &stats[..2], ..first };
    let third = Block { path: &format!("/evil/{epoch}/c"), flags: 0, stats: &stats[..3], ..first };
    for (object, block) in [first, second, third].iter().enumerate() {
        image.add(block);
        let entry = image.entry(object);
        let incarnation = epoch * OBJECTS as u64 + object as u64;
        image.words[entry.slot_word] = incarnation;
        image.words[entry.lock_word + 1] = incarnation;
        let words = entry.stats.iter().flat_map(|(_, words)| words.clone());
        for (at, word) in words.enumerate() {
            image.words[word] = value(epoch, object, at);
            let others = (1..entry.shards).map(|shard| word + shard * entry.shard_words);
            others.for_each(|word| image.words[word] = 1);
        }
    }
    image
}

/// Returns the first [`sample`], with the promise of a heartbeat every [`PROMISED_NS`].
fn beating() -> Image {
    let mut image = sample(1);
    image.words[HEARTBEAT_PERIOD] = PROMISED_NS;
    image
}

/// Returns the first [`sample`], whose directory is being changed.
fn busy() -> Image {
    let mut image = sample(1);
    image.words[GENERATION] = 1;
    image
}

/// Makes the most objects that a table may have, each with its own path, block and data.
fn crowd() -> Image {
    let mut image = Image::new("evil", 25 << 20, SLOTS_MAX);
    for object in 0..SLOTS_MAX {
        add_small(&mut image, &format!("/evil/{object}"), "requests");
    }
    image
}

/// Makes the most objects, each with a lock that is held for ever.
fn crowd_held() -> Image {
    let mut image = crowd();
    for slot in 0..SLOTS_MAX {
        let slot_word = HEADER_WORDS + slot * SLOT_WORDS;
        image.words[slot_word + 5] = GROUPED;
        // Where the first has it, they all have it.
        let lock = image.words[slot_word + 1] as usize / WORD_BYTES + CROWD_LOCK_WORD;
        image.words[lock] = 1;
    }
    image
}

/// Makes the most objects, all with one path.
fn one_path() -> Image {
    let mut image = Image::new("evil", 25 << 20, SLOTS_MAX);
    (0..SLOTS_MAX).for_each(|_| add_small(&mut image, "/evil", "requests"));
    image
}

/// Makes the most objects, all with one block of many descriptors, whose bytes are more than the
/// table has if they are counted for each object.
fn one_block() -> Image {
    let names: Vec<String> = (0..512).map(|stat| format!("n{stat}")).collect();
    let stats: Vec<Stat<'_>> = names.iter().map(|name| Stat::counter(name)).collect();
    all_in_one(&stats)
}

/// Makes the most objects, all with the same data, of which each row takes half a MiB.
fn one_data() -> Image {
    all_in_one(&[Stat { flags: LOG2, size: u16::MAX, ..Stat::counter("latency") }])
}

fn all_in_one(stats: &[Stat<'_>]) -> Image {
    let mut image = Image::new("evil", 16 << 20, SLOTS_MAX);
    let block =
        Block { path: "/evil", target: "queue", name_bytes: 48, shards: 1, flags: 0, stats };
    image.add(&block);
    let entry = image.entry(0);
    let slot = image.words[entry.slot_word..entry.slot_word + SLOT_WORDS].to_vec();
    (1..SLOTS_MAX).for_each(|at| image.set_slot(at, &slot));
    image.words[SLOTS_USED] = SLOTS_MAX as u64;
    image
}

/// Makes objects of which no two have the same statistics.
fn schemas() -> Image {
    let mut image = Image::new("evil", 16 << 20, SCHEMAS);
    for object in 0..SCHEMAS {
        add_small(&mut image, &format!("/evil/{object}"), &format!("n{object}"));
    }
    image
}

/// Makes the most objects with the longest paths, or the most statistics with the longest names.
/// `"\u{ff}"` stands for a byte that is not UTF-8.
fn vast(letter: &str) -> Image {
    let letter = if letter == "ä" { letter.as_bytes() } else { &[0xff; 2] };
    let mut image = Image::new("evil", 64 << 20, SLOTS_MAX);
    let names: Vec<String> = (0..DESCS_MAX).map(|stat| format!("{stat:255}")).collect();
    let stats: Vec<Stat<'_>> = names.iter().map(|name| Stat::counter(name)).collect();
    let path = " ".repeat(255);
    for object in 0..SLOTS_MAX {
        // Beside them, each object that has some and all those that have none count as one.
        let has_stats = object < HEAVY_OBJECTS;
        let stats = if has_stats { &stats[..] } else { &[] };
        let block =
            Block { path: &path, target: "queue", name_bytes: 256, shards: 1, flags: 0, stats };
        let block_bytes = image.block_bytes();
        image.add(&block);
        let path = block_bytes + BLOCK_HEADER_BYTES;
        let number = format!("{object:09}");
        put(&mut image.words, path, &[&letter.repeat(123)[..], number.as_bytes()].concat());
        for stat in 0..stats.len() {
            // Otherwise all objects would have the same statistics.
            let name = path + 256 + stat * (DESC_BYTES + 256) + DESC_BYTES;
            let end = [b'a', b'a', b'a' + object as u8];
            put(&mut image.words, name, &[&letter.repeat(126)[..], &end].concat());
        }
    }
    image
}

/// Makes the most statistics that a table may have, with names of at least 240 bytes, of which a
/// reader holds about 20 MiB.
fn heavy() -> Image {
    let mut image = Image::new("evil", 20 << 20, HEAVY_OBJECTS);
    for object in 0..HEAVY_OBJECTS {
        let name = |stat| format!("{}{object:04}{stat:04}", "ä".repeat(120));
        let names: Vec<String> = (0..DESCS_MAX).map(name).collect();
        let stats: Vec<Stat<'_>> = names.iter().map(|name| Stat::counter(name)).collect();
        let path = format!("/evil/{object}");
        let block = Block {
            path: &path,
            target: "queue",
            name_bytes: 256,
            shards: 1,
            flags: 0,
            stats: &stats,
        };
        image.add(&block);
    }
    image
}

/// Makes objects of [`HOLE_SHARDS`] shards of 64 KiB that are never written: 16 MiB each.
fn holes() -> Image {
    let bytes = (HOLE_OBJECTS + 1) * (HOLE_SHARDS + 1) * HOLE_WORDS * WORD_BYTES;
    let mut image = Image::new("evil", bytes, HOLE_OBJECTS);
    let stats = [Stat { flags: LOG2, size: HOLE_WORDS as u16, ..Stat::counter("latency") }];
    for object in 0..HOLE_OBJECTS {
        let path = format!("/evil/{object}");
        let block = Block {
            path: &path,
            target: "queue",
            name_bytes: 48,
            shards: HOLE_SHARDS,
            flags: 0,
            stats: &stats,
        };
        image.add(&block);
    }
    image
}

/// Makes a directory with room for a million objects, which is over the limit.
fn million_places() -> Image {
    let mut image = Image::new("evil", (MILLION + 8) * 128, 4);
    image.words[SLOTS] = MILLION as u64;
    image.words[SLOTS_USED] = MILLION as u64;
    image
}

/// Makes a directory whose header claims that a million of its four slots are used.
fn million_used() -> Image {
    let mut image = million_places();
    image.words[SLOTS] = 4;
    image
}

fn add_small(image: &mut Image, path: &str, name: &str) {
    let stats = [Stat::counter(name)];
    image.add(&Block { path, target: "queue", name_bytes: 24, shards: 1, flags: 0, stats: &stats });
}
