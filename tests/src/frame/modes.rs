//! The modes of the child process, one function each.
//!
//! Invariant: every mode ends, by itself or when its standard input ends.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use vmstrobe_core::{Error, Mask, Object, Provider, ReadPlan, RowState, Rows, Source};
use vmstrobe_providers::{FdClient, KernelFrame, Reaper, Tables};

use super::judge::{Counts, Judge};
use super::sampler::{ROWS, Sampler};

/// How long a mode goes on at most.
const LIMIT: Duration = Duration::from_secs(240);
/// How long frames are read at least: so few ticks meet ten million quick readings.
const TIME_MIN: Duration = Duration::from_secs(8);
/// How often the time is asked.
const READS_AT_ONCE: u64 = 1000;
/// So many good readings of a table, of which so many differ from the one before, are enough to say
/// that it is read.
const GOOD_MIN: u64 = 100_000;
const CHANGES_MIN: u64 = 100;

/// Runs a mode.
///
/// # Errors
///
/// If there is no such mode, or it cannot do its work, or finds that somebody else did not.
pub fn run(args: &[&str]) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let count = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    match args {
        ["whole", reads] => whole(count(reads)?, deadline),
        ["rows", reads] => rows(count(reads)?),
        ["sample", path] => sample(Path::new(path)),
        ["borrow", path] => borrow(Path::new(path), deadline),
        _ => Err(io::Error::other(format!("no such mode: {args:?}"))),
    }
}

/// Whether so many readings are enough: asked before each.
fn is_enough(counts: &Counts, reads: u64, begun: Instant) -> bool {
    let is_time = counts.reads >= reads && counts.reads.is_multiple_of(READS_AT_ONCE);
    is_time && begun.elapsed() >= TIME_MIN
}

/// Reads the frame that is standard input so often or more, each time all of it under its lock.
fn whole(reads: u64, deadline: Instant) -> io::Result<()> {
    let frame = KernelFrame::open(input()?).map_err(told)?;
    if (frame.objects().len(), frame.row_words()) != (ROWS, 1) {
        return Err(io::Error::other(format!("not the sampler's frame: {frame:?}")));
    }
    let (mut judge, mut torn) = (Judge::default(), 0);
    let (mut words, mut states) = ([0; ROWS], [RowState::Missing; ROWS]);
    let begun = Instant::now();
    while !is_enough(&judge.counts, reads, begun) {
        match frame.read(&mut words, &mut states) {
            Ok(time) => judge.judge(Some(time), &words, &states),
            Err(_) if Instant::now() > deadline => return Err(late()),
            Err(_) => torn += 1,
        }
    }
    judge.counts.torn = torn;
    println!("{}", judge.counts);
    Ok(())
}

/// Reads it so often or more as a table: row by row, without the lock around all. The last row
/// first, so that the writer comes the other way.
fn rows(reads: u64) -> io::Result<()> {
    let tables = Tables::new().map_err(told)?;
    tables.add_fd(input()?).map_err(told)?;
    let mut objects = tables.objects().map_err(told)?;
    objects.reverse();
    let mut source = opened(&tables, &objects)?;
    let mut judge = Judge::default();
    let (mut words, mut states) = ([0; ROWS], [RowState::Missing; ROWS]);
    let begun = Instant::now();
    while !is_enough(&judge.counts, reads, begun) {
        source.read(Rows::new(&mut words, &mut states, 1));
        judge.judge(None, &words, &states);
    }
    println!("{}", judge.counts);
    Ok(())
}

/// Ticks without rest, and lends what it reads to anybody, until standard input ends.
fn sample(path: &Path) -> io::Result<()> {
    let mut sampler = Sampler::new();
    let _hand_over = sampler.lend(path);
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    println!("ok");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            sampler.tick();
        }
    });
    Ok(())
}

/// Reads what is lent there, as rows of a table, until it is gone.
fn borrow(path: &Path, deadline: Instant) -> io::Result<()> {
    let handed_over = FdClient::connect(path, Reaper::new().map_err(told)?).map_err(told)?;
    let [_, tables] = &handed_over.providers()[..] else { return Err(late()) };
    let objects = tables.objects().map_err(told)?;
    let mut source = opened(&**tables, &objects)?;
    let (mut words, mut states) = ([0; ROWS], [RowState::Missing; ROWS]);
    let (mut last, mut reads, mut changes, mut is_told) = ([0; ROWS], 0_u64, 0_u64, false);
    while Instant::now() < deadline {
        source.read(Rows::new(&mut words, &mut states, 1));
        if states == [RowState::Gone; ROWS] {
            println!("gone after {reads} readings, {changes} of them new");
            let left = tables.objects().map_err(told)?.len();
            return if left == 0 { Ok(()) } else { Err(io::Error::other("it is listed still")) };
        }
        // Of the tick that the connection ended in, some rows may be read before it.
        let is_good = |state: &RowState| matches!(state, RowState::Good | RowState::Gone);
        let grows = words.iter().zip(last).all(|(word, last)| *word >= last);
        if !states.iter().all(is_good) || !grows {
            return Err(io::Error::other(format!("{states:?}: {words:?} after {last:?}")));
        }
        reads += 1;
        changes += u64::from(words != last);
        last = words;
        if !is_told && reads >= GOOD_MIN && changes >= CHANGES_MIN {
            println!("reading");
            is_told = true;
        }
    }
    Err(late())
}

/// One source of these rows, of a word each.
fn opened(provider: &dyn Provider, objects: &[Object]) -> io::Result<Box<dyn Source>> {
    let first = objects.first().filter(|_| objects.len() == ROWS);
    let first = first.ok_or_else(|| io::Error::other(format!("{} objects", objects.len())))?;
    let plan = ReadPlan::new(&first.schema, &Mask::all(&first.schema));
    let sources = provider.open(objects, &plan).map_err(told)?;
    let [source] = <[_; 1]>::try_from(sources).map_err(|_| io::Error::other("no one source"))?;
    Ok(source)
}

fn input() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

fn late() -> io::Error {
    io::Error::other(format!("it did not come to its end within {LIMIT:?}"))
}

fn told(error: Error) -> io::Error {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    io::Error::other(format!("{error}: {}", cause.unwrap_or_default()))
}
