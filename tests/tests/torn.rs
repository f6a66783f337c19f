//! Tables of an honest writer in another process that never stops, and readers in several threads:
//! words that change together are read together or not at all, no counter decreases, and no object
//! has the words of another.
//!
//! We weakened the code by hand in each of these ways, and one test or both failed, on x86:
//!
//! * `core/src/seq.rs`: the number is not read again; an odd number is not waited for; it is not
//!   stored;
//! * `providers/table/src/source.rs`, `quick.rs`: mapped, or by system calls, the incarnation is
//!   not compared; by system calls, the lock is not read again, or an odd number not waited for;
//! * `providers/table/src/store.rs`: memory that changes hands is cleared without its lock.
//!
//! The tests do not fail without the fences W1, R1 and R2 or the release of W2: x86 keeps stores in
//! order and loads in order, and the compiler did too. The loom models fail without each of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe::table::Tables;
use vmstrobe_core::{ErrorKind, Mask, Object, Provider, ReadPlan, RowState, Rows, Source};
use vmstrobe_tests::command::program;
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::evil::Place;
use vmstrobe_tests::hostile::honest::COUNTERS;
use vmstrobe_tests::rig::show;

/// The program that writes hostile tables.
static HOSTILE: LazyLock<String> = LazyLock::new(|| program("hostile"));

/// The time for which a writer is read.
const RUN: Duration = Duration::from_millis(1500);
/// The longest time for which it is read, if a busy machine lets too little be seen in [`RUN`].
const BUSY_RUN: Duration = Duration::from_secs(60);
/// Readers at a time, for two CPUs.
const READERS: usize = 2;

/// The counts of the readings of one reader.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    good: u64,
    torn: u64,
    gone: u64,
    /// The number of good readings that differ from the one before.
    changed: u64,
    /// The last value of the counters.
    last: u64,
}

/// Returns true if a reader that began at `begin` has to continue.
fn goes_on(begin: Instant, has_enough: bool) -> bool {
    begin.elapsed() < if has_enough { RUN } else { BUSY_RUN }
}

/// An open object, and room for its row.
struct Opened {
    source: Box<dyn Source>,
    words: [u64; COUNTERS],
}

impl Opened {
    fn new(tables: &Tables, object: &Object) -> Self {
        let plan = ReadPlan::new(&object.schema, &Mask::all(&object.schema));
        let sources = tables
            .open(std::slice::from_ref(object), &plan)
            .expect("the provider opens its objects");
        let [source] = <[_; 1]>::try_from(sources)
            .ok()
            .expect("the provider opened one source for one object");
        Self { source, words: [0; COUNTERS] }
    }

    fn read(&mut self) -> RowState {
        let mut states = [RowState::Missing];
        self.source.read(Rows::new(&mut self.words, &mut states, COUNTERS));
        states[0]
    }
}

/// The number of tries at a table that keeps changing.
const LOOKS_MAX: u32 = 100;

fn start(mode: &str, place: &Place) -> Hostile {
    Hostile::start(&HOSTILE, mode, place, "none")
}

/// Opens the writer's tables.
fn tables(writer: &Hostile, place: &Place) -> Tables {
    let tables = Tables::new().expect("a thread can be started");
    // The directory may be changing during a look, so the look is repeated.
    for _ in 0..LOOKS_MAX {
        let outcome = match place {
            Place::Path(path) => tables.open_file(path),
            _ => tables.attach(writer.pid()).map(|count| assert_eq!(count, 1)),
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::Busy => {}
            outcome => {
                outcome.expect("the table exists");
                return tables;
            }
        }
    }
    panic!("the directory was never at rest in {LOOKS_MAX} looks");
}

/// Locks the tests, which run one at a time: a writer that waits for a CPU tears nothing.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs readers beside a writer in a memfd, which they map, and beside one in a file, and prints
/// their counts.
fn check(mode: &str, read: fn(&Tables) -> Seen) -> [Vec<Seen>; 2] {
    let _alone = alone();
    let shm = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
    let path: PathBuf = shm.path().join("table");
    [Place::Sealed, Place::Path(path)].map(|place| {
        let mut writer = start(mode, &place);
        let tables: Vec<Tables> = (0..READERS).map(|_| tables(&writer, &place)).collect();
        let seen = thread::scope(|scope| {
            let readers: Vec<_> =
                tables.iter().map(|tables| scope.spawn(move || read(tables))).collect();
            let join = |reader: thread::ScopedJoinHandle<'_, Seen>| {
                reader.join().expect("the thread does not panic")
            };
            readers.into_iter().map(join).collect::<Vec<Seen>>()
        });
        writer.must_live();
        show(&format!(
            "{mode}, {}: {seen:?}",
            if place == Place::Sealed { "mapped" } else { "file" }
        ));
        seen
    })
}

#[test]
fn words_of_a_group_are_read_together() {
    for seen in check("groups", read_group) {
        let good: u64 = seen.iter().map(|seen| seen.good).sum();
        let torn: u64 = seen.iter().map(|seen| seen.torn).sum();
        let changes = seen.iter().map(|seen| seen.last).max().unwrap();
        show(&format!("{good} good readings, {torn} torn, of {changes} changes"));
        assert!(good > 20_000, "{seen:?}");
        // Otherwise reading and writing did not overlap.
        assert!(changes > 100_000 && torn > 0, "{changes} changes, {seen:?}");
        assert!(seen.iter().any(|seen| seen.changed > 20), "{seen:?}");
    }
}

fn read_group(tables: &Tables) -> Seen {
    let objects = tables.objects().expect("the provider lists its objects");
    let mut opened = Opened::new(tables, &objects[0]);
    let (mut seen, begin) = (Seen::default(), Instant::now());
    let has_enough = |seen: &Seen| {
        seen.good > 20_000 && seen.last > 100_000 && seen.torn > 0 && seen.changed > 20
    };
    while goes_on(begin, has_enough(&seen)) {
        for _ in 0..100 {
            match opened.read() {
                RowState::Good => {
                    let words = opened.words;
                    assert!(words.iter().all(|&word| word == words[0]), "torn: {words:?}");
                    assert!(words[0] >= seen.last, "from {} back to {words:?}", seen.last);
                    seen.good += 1;
                    seen.changed += u64::from(words[0] != seen.last);
                    seen.last = words[0];
                }
                RowState::Torn => seen.torn += 1,
                other => panic!("the writer lives and keeps the object, but it is {other:?}"),
            }
        }
    }
    seen
}

#[test]
fn no_row_has_the_words_of_another_object() {
    for seen in check("churn", read_churn) {
        for seen in seen {
            assert!(seen.good > 1000 && seen.gone > 1000 && seen.changed > 100, "{seen:?}");
        }
    }
}

/// Reads objects until they are gone, one after the other. `changed` counts the objects.
fn read_churn(tables: &Tables) -> Seen {
    let (mut seen, begin) = (Seen::default(), Instant::now());
    let mut numbers = BTreeSet::new();
    while goes_on(begin, seen.good > 1000 && seen.gone > 1000 && numbers.len() > 100) {
        let objects = tables.objects().expect("the provider lists its objects");
        let open = |object: &Object| {
            let number = object.path.strip_prefix("/churn/").expect("the writer gave such a path");
            (number.parse().expect("the text is a number"), Opened::new(tables, object))
        };
        let mut opened: Vec<(u64, Opened)> = objects.iter().map(open).collect();
        // The limit is longer than any object exists.
        let until = Instant::now() + Duration::from_micros(500);
        while Instant::now() < until {
            for (number, opened) in &mut opened {
                match opened.read() {
                    RowState::Good => {
                        is_its_own(*number, &opened.words);
                        seen.good += 1;
                        numbers.insert(*number);
                        seen.last = seen.last.max(*number);
                    }
                    RowState::Torn => seen.torn += 1,
                    RowState::Gone => seen.gone += 1,
                    other => panic!("the writer lives, but it is {other:?}"),
                }
            }
        }
    }
    seen.changed = numbers.len() as u64;
    seen
}

fn is_its_own(number: u64, words: &[u64]) {
    let is_its_own = words.iter().all(|&word| word == 0 || word == number);
    let together = !number.is_multiple_of(2) || words.iter().all(|&word| word == words[0]);
    assert!(is_its_own && together, "/churn/{number} has {words:?}");
}
