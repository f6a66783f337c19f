//! The modes of a hostile writer: each keeps a table open, and most go on changing it.
//!
//! Invariant: a mode ends only with its process: when standard input closes, or by a signal. Its
//! random choices come from a fixed seed.

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::Duration;

use super::evil::{Evil, Place};
use super::honest;
use super::images::{self, OBJECTS, sample};
use super::layout::{Entry, GENERATION, HEADER_WORDS, HEARTBEAT, Image, SLOT_WORDS, WORD_BYTES};

/// The exclusive or of all words of the first object, in the mode "checksum".
pub const CHECKSUM: u64 = 0xc0ff_ee00_c0ff_ee00;

/// Tables under [`many`].
const MANY: usize = 300;

/// Publishes an image and goes on by a mode.
///
/// # Errors
///
/// If the table cannot be written.
pub fn run(mode: &str, place: &Place, image: &str) -> io::Result<()> {
    match mode {
        "groups" => return honest::groups(place),
        "churn" => return honest::churn(place),
        "tables" => return honest::tables(place),
        _ => {}
    }
    let image = images::named(image);
    let evil = Evil::publish(place, &image.words)?;
    match mode {
        "many" => many(evil, place, &image, MANY),
        "three" => many(evil, place, &image, 3),
        "commands" => commands(&evil, &image),
        "locked" => locked(&evil),
        "odd" => odd(&evil, &image),
        "generation" => generation(&evil),
        "directory" => directory(&evil),
        "checksum" => checksum(&evil, &image),
        "random" => random(&evil, &image),
        "resize" => resize(&evil, &image),
        "replace" => replace(evil, place),
        "beat" => beat(&evil),
        _ => Err(io::Error::other(format!("there is no mode '{mode}'"))),
    }
}

/// Says that the table is there.
///
/// # Errors
///
/// If nobody listens.
pub fn ready() -> io::Result<()> {
    writeln!(io::stdout(), "ok")
}

/// Says that the table is there, and ends the process when standard input closes.
///
/// # Errors
///
/// As [`ready`].
pub fn ready_until_closed() -> io::Result<()> {
    thread::spawn(|| {
        let end = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(i32::from(end.is_err()));
    });
    ready()
}

/// Obeys orders: `set WORD VALUE`, `restore GENERATION`, `resize BYTES`. It answers each with ok.
fn commands(evil: &Evil, image: &Image) -> io::Result<()> {
    ready()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = words.map(str::parse).collect();
        match (command, numbers.as_deref()) {
            ("set", Ok(&[word, value])) => evil.set(word as usize, value)?,
            ("restore", Ok(&[generation])) => evil.restore(&image.words, generation)?,
            ("resize", Ok(&[bytes])) => evil.resize(bytes)?,
            _ => return Err(io::Error::other(format!("'{line}' is no command"))),
        }
        ready()?;
    }
    Ok(())
}

/// Publishes the same until there are so many, and rests.
fn many(first: Evil, place: &Place, image: &Image, count: usize) -> io::Result<()> {
    let others = (1..count).map(|_| Evil::publish(place, &image.words));
    let held = others.chain([Ok(first)]).collect::<io::Result<Vec<Evil>>>()?;
    ready_until_closed()?;
    loop {
        thread::park();
        std::hint::black_box(&held);
    }
}

/// Locks the memfd as if it were a file with a path, and rests.
fn locked(evil: &Evil) -> io::Result<()> {
    evil.lock()?;
    ready_until_closed()?;
    loop {
        thread::park();
    }
}

/// Holds the locks of the objects that need one for ever, and goes on changing what is under them.
fn odd(evil: &Evil, image: &Image) -> io::Result<()> {
    let (entries, mut chance) = ([image.entry(0), image.entry(1)], Chance::new());
    entries.iter().try_for_each(|entry| evil.set(entry.lock_word, 1))?;
    ready_until_closed()?;
    loop {
        for entry in &entries {
            let data = entry.data();
            evil.set(data.start + chance.below(data.len()), chance.next())?;
            // Never even.
            evil.set(entry.lock_word, chance.next() | 1)?;
        }
    }
}

/// Says all the time that the directory has changed.
fn generation(evil: &Evil) -> io::Result<()> {
    ready_until_closed()?;
    for number in (2..).step_by(2) {
        evil.set(GENERATION, number)?;
    }
    Ok(())
}

/// Replaces all objects by others of the next epoch, again and again, as it should be done.
fn directory(evil: &Evil) -> io::Result<()> {
    let (mut generation, mut numbers) = (0, [0; OBJECTS]);
    ready_until_closed()?;
    for epoch in 2.. {
        let next = sample(epoch);
        let entries = (0..OBJECTS).map(|object| next.entry(object)).collect::<Vec<_>>();
        generation = evil.change(GENERATION, generation, |evil| {
            let directory = HEADER_WORDS..HEADER_WORDS + OBJECTS * SLOT_WORDS;
            evil.set_all(directory.start, &next.words[directory])?;
            for (entry, number) in entries.iter().zip(&mut numbers) {
                let block = entry.block_word..entry.lock_word;
                evil.set_all(block.start, &next.words[block])?;
                // Nobody's, before it is another's: who reads without the lock sees that.
                evil.set(entry.lock_word + 1, 0)?;
                *number = evil.change(entry.lock_word, *number, |evil| {
                    let object = entry.lock_word + 1..entry.data().end;
                    evil.set_all(object.start, &next.words[object])
                })?;
            }
            Ok(())
        })?;
        // Long enough that somebody can read it.
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// Keeps a promise about the first object's words, and breaks it only while it holds the lock;
/// which it sometimes does for long.
fn checksum(evil: &Evil, image: &Image) -> io::Result<()> {
    let (entry, mut chance, mut number) = (image.entry(0), Chance::new(), 0);
    let change = |evil: &Evil, chance: &mut Chance| {
        let data = entry.data();
        let mut words: Vec<u64> = data.clone().map(|_| chance.next()).collect();
        evil.set_all(data.start, &words)?;
        if chance.below(64) == 0 {
            thread::sleep(Duration::from_micros(200));
        }
        words[0] ^= words.iter().fold(CHECKSUM, |all, word| all ^ word);
        evil.set(data.start, words[0])
    };
    number = evil.change(entry.lock_word, number, |evil| change(evil, &mut chance))?;
    ready_until_closed()?;
    loop {
        number = evil.change(entry.lock_word, number, |evil| change(evil, &mut chance))?;
        // Else nobody would ever find it open.
        (0..chance.below(2000)).for_each(|_| std::hint::spin_loop());
    }
}

/// Writes anything anywhere; now and then all is right again.
fn random(evil: &Evil, image: &Image) -> io::Result<()> {
    let mut chance = Chance::new();
    let entries: Vec<Entry> = (0..OBJECTS).map(|object| image.entry(object)).collect();
    ready_until_closed()?;
    for round in 1.. {
        let lies = 1 + chance.below(64);
        for _ in 0..lies {
            let at = chance.place(image, &entries);
            evil.set(at, chance.lie(image))?;
        }
        evil.set(GENERATION, 4 * round)?;
        if chance.below(8) == 0 {
            thread::sleep(Duration::from_micros(100));
        }
        evil.restore(&image.words, 4 * round + 2)?;
    }
    Ok(())
}

/// Makes the table shorter or longer, and writes it again.
fn resize(evil: &Evil, image: &Image) -> io::Result<()> {
    let (mut chance, whole) = (Chance::new(), (image.words.len() * WORD_BYTES) as u64);
    let lengths =
        [0, 1, 8, 511, 512, 1000, whole - 1, whole - 8, whole, whole + 8, 1 << 20, 1 << 40];
    ready_until_closed()?;
    for round in 1.. {
        evil.resize(lengths[chance.below(lengths.len())])?;
        thread::sleep(Duration::from_micros(chance.next() % 300));
        evil.resize(whole)?;
        evil.set_all(1, &image.words[1..])?;
        // The first word last: until then it is nothing.
        evil.set_all(0, &image.words[..1])?;
        evil.set(GENERATION, 2 * round)?;
        thread::sleep(Duration::from_micros(chance.next() % 300));
    }
    Ok(())
}

/// Puts another table in its place, and gives the one before up.
fn replace(first: Evil, place: &Place) -> io::Result<()> {
    let mut held = first;
    ready_until_closed()?;
    for epoch in 2.. {
        thread::sleep(Duration::from_millis(2));
        held = Evil::publish(place, &sample(epoch).words)?;
    }
    drop(held);
    Ok(())
}

/// Says that it lives.
fn beat(evil: &Evil) -> io::Result<()> {
    ready_until_closed()?;
    for count in 1.. {
        evil.set(HEARTBEAT, count)?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Numbers by chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A word of an image, more often one that says where others are.
    fn place(&mut self, image: &Image, entries: &[Entry]) -> usize {
        let entry = &entries[self.below(entries.len())];
        match self.below(8) {
            0 => self.below(image.words.len()),
            1 => self.below(HEADER_WORDS),
            2 | 3 => entry.slot_word + self.below(SLOT_WORDS),
            4 | 5 => entry.block_word + self.below(entry.lock_word - entry.block_word),
            6 => entry.lock_word + self.below(2),
            _ => entry.block_word + self.below(3),
        }
    }

    /// A number that somebody could fall for.
    fn lie(&mut self, image: &Image) -> u64 {
        let length = (image.words.len() * WORD_BYTES) as u64;
        match self.below(6) {
            0 => self.next(),
            1 => self.next() % 64,
            2 => 1 << self.below(64),
            3 => length - 32 + self.next() % 64,
            4 => (self.next() % length) & !7,
            _ => image.words[self.below(image.words.len())],
        }
    }
}
