//! Tables whose writer, in another process, does whatever it can think of. The reader neither
//! crashes nor hangs nor reads outside, and takes nothing for good that it did not read.
//!
//! Reading outside would be a fault, which ends the test; how long each call may take stands in
//! `vmstrobe_tests::hostile::reader`. What a row says is held against what the writer wrote, or
//! could have meant.

mod hostile {
    mod document;
    mod lies;
    mod descriptors;
    mod changing;
    mod resized;
    mod ended;
    mod crowded;
    mod memory;
}

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use vmstrobe_tests::command::program;
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::evil::Place;
use vmstrobe_tests::hostile::reader::Reader;
use vmstrobe_tests::rig::show;

/// The program that writes hostile tables.
static HOSTILE: LazyLock<String> = LazyLock::new(|| program("hostile"));

/// The time for which each mode runs.
const RUN: Duration = Duration::from_secs(1);

/// Starts a writer in that mode.
fn start(mode: &str, place: &Place, image: &str) -> Hostile {
    Hostile::start(&HOSTILE, mode, place, image)
}

/// Makes a folder on tmpfs, which is removed when this value is dropped.
fn shm() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there")
}

/// Repeats the work for a while, and returns the number of times.
fn again_and_again(mut work: impl FnMut()) -> u64 {
    let (end, mut times) = (Instant::now() + RUN, 0);
    while Instant::now() < end {
        work();
        times += 1;
    }
    times
}

/// Returns the number in `/evil/N/a`.
fn epoch_in(path: &str) -> u64 {
    let number = path.split('/').nth(2).expect("the writer gave such a path");
    number.parse().expect("the text is a number")
}

/// Prints the times that the reader took.
fn report(what: &str, reader: &Reader) {
    let [good, torn, gone, stale] = reader.ends;
    let (look, tick) = (reader.longest_look, reader.longest_tick);
    show(&format!(
        "{what}: rows {good} good, {torn} torn, {gone} gone, {stale} stale; a look took at most \
         {:?} ({:?} of the CPU), a tick {:?} ({:?})",
        look.wall, look.cpu, tick.wall, tick.cpu
    ));
}
