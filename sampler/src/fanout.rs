//! Reading the sources, one after the other or on several CPUs. The only file that uses rayon.
//!
//! Handing work to a sleeping thread costs about 10 µs, so it is faster only above a number of rows
//! that depends on the machine: [`Fanout::Auto`] measures both costs at start. rayon's `join`
//! allocates nothing when it is called from inside its pool, so the sampler's loop runs there; a
//! tick from outside reads inline.
//!
//! Invariant: each source gets exactly its rows, whichever thread reads it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};
use vmstrobe_core::{Error, ErrorKind, Result, RowState, Rows, ThreadStart};

use crate::clock;
use crate::source_set::Slot;

/// The number of rows below which a second CPU never pays, so that nothing is measured.
const MEASURED_ROWS_MIN: usize = 128;
/// The number of measurements of each cost, whose median is used.
const MEASUREMENTS: usize = 15;
/// A pause in which an idle worker falls asleep.
const IDLE_PAUSE: Duration = Duration::from_micros(300);
/// The longest wait for a hand-off; a longer one counts as this long.
const HANDOFF_NS_MAX: u64 = 2_000_000;

/// The number of threads that read the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fanout {
    /// A thread for each CPU, above a number of rows that is measured at start; else one.
    #[default]
    Auto,
    /// The sampler's thread alone.
    Inline,
    /// This number of threads, on one of which the sampler itself runs.
    Threads(usize),
}

/// The threads that read the sources, and the number of rows from which they are used.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pool: Option<Arc<ThreadPool>>,
    rows_min: usize,
}

impl Reader {
    /// Decides on the number of threads and starts them. [`Fanout::Auto`] measures, for which it
    /// reads these slots several times.
    pub(crate) fn new(mode: Fanout, slots: &mut [Slot], threads: &ThreadStart) -> Result<Self> {
        let rows: usize = slots.iter().map(|slot| slot.rows).sum();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        match mode {
            Fanout::Auto if cpus > 1 && rows >= MEASURED_ROWS_MIN => {
                let pool = pool(cpus, threads)?;
                let rows_min = break_even(handoff_ns(&pool), row_ns(slots), cpus);
                let pays = rows >= rows_min;
                Ok(Self { pool: pays.then(|| Arc::new(pool)), rows_min })
            }
            Fanout::Auto | Fanout::Inline | Fanout::Threads(0 | 1) => {
                Ok(Self { pool: None, rows_min: usize::MAX })
            }
            Fanout::Threads(count) => {
                Ok(Self { pool: Some(Arc::new(pool(count, threads)?)), rows_min: 0 })
            }
        }
    }

    /// Runs `work` inside the pool, if there is one, where reading may be spread.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Returns the number of threads that read.
    pub(crate) fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Lets every source fill its rows, which follow each other in `words` and `states`.
    #[inline]
    pub(crate) fn read(&self, slots: &mut [Slot], words: &mut [u64], states: &mut [RowState]) {
        // From outside the pool, `join` would allocate, or start a pool of its own.
        let spread = states.len() >= self.rows_min
            && self.pool.as_ref().is_some_and(|pool| pool.current_thread_index().is_some());
        if spread { read_spread(slots, words, states) } else { read_inline(slots, words, states) }
    }
}

/// Lets every source fill its rows, one after the other on this thread.
pub(crate) fn read_inline(slots: &mut [Slot], mut words: &mut [u64], mut states: &mut [RowState]) {
    for slot in slots {
        let (its_words, other_words) = words.split_at_mut(slot.rows * slot.row_words);
        let (its_states, other_states) = states.split_at_mut(slot.rows);
        slot.source.read(Rows::new(its_words, its_states, slot.row_words));
        (words, states) = (other_words, other_states);
    }
}

fn read_spread(slots: &mut [Slot], words: &mut [u64], states: &mut [RowState]) {
    if slots.len() < 2 {
        return read_inline(slots, words, states);
    }
    let (some, others) = slots.split_at_mut(slots.len() / 2);
    let rows = some.iter().map(|slot| slot.rows).sum();
    let row_words = some.iter().map(|slot| slot.rows * slot.row_words).sum();
    let (some_words, other_words) = words.split_at_mut(row_words);
    let (some_states, other_states) = states.split_at_mut(rows);
    rayon::join(
        || read_spread(some, some_words, some_states),
        || read_spread(others, other_words, other_states),
    );
}

/// Starts a pool of `count` threads, `vmstrobe-0` and so on.
fn pool(count: usize, threads: &ThreadStart) -> Result<ThreadPool> {
    let spawn = |thread: rayon::ThreadBuilder| {
        let name = format!("vmstrobe-{}", thread.index());
        // The pool ends its threads and keeps no handle of them.
        threads.spawn(&name, || thread.run()).map(drop).map_err(io::Error::other)
    };
    let pool = ThreadPoolBuilder::new().num_threads(count).spawn_handler(spawn).build();
    let pool = pool
        .map_err(|error| Error::caused(ErrorKind::Io, "cannot start the reading threads", error))?;
    // Waits until each has worked: a thread that gets its CPU late would free in a tick what its
    // start took.
    pool.broadcast(|_| ());
    Ok(pool)
}

/// The number of rows from which `n·row > n·row/cpus + handoff`.
fn break_even(handoff_ns: u64, row_ns: u64, cpus: usize) -> usize {
    let saved_ns = row_ns.max(1) as f64 * (1.0 - 1.0 / cpus as f64);
    (handoff_ns as f64 / saved_ns).ceil() as usize
}

/// Measures the ns from handing work to a sleeping worker until it begins.
fn handoff_ns(pool: &ThreadPool) -> u64 {
    pool.install(|| {
        median(|| {
            std::thread::sleep(IDLE_PAUSE);
            let begun = AtomicBool::new(false);
            let start_ns = clock::now_ns();
            let since = || clock::now_ns() - start_ns;
            let (taken_ns, ()) = rayon::join(
                || {
                    while !begun.load(Ordering::Relaxed) && since() < HANDOFF_NS_MAX {
                        std::hint::spin_loop();
                    }
                    since()
                },
                || begun.store(true, Ordering::Relaxed),
            );
            taken_ns
        })
    })
}

/// Measures the ns that one row takes, read inline.
fn row_ns(slots: &mut [Slot]) -> u64 {
    let rows: usize = slots.iter().map(|slot| slot.rows).sum();
    let mut words = vec![0; slots.iter().map(|slot| slot.rows * slot.row_words).sum()];
    let mut states = vec![RowState::Missing; rows];
    median(|| {
        let start_ns = clock::now_ns();
        read_inline(slots, &mut words, &mut states);
        (clock::now_ns() - start_ns) / rows.max(1) as u64
    })
}

/// Returns the median of [`MEASUREMENTS`] measurements.
fn median(mut measure: impl FnMut() -> u64) -> u64 {
    let mut times: [u64; MEASUREMENTS] = std::array::from_fn(|_| measure());
    times.sort_unstable();
    times[MEASUREMENTS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_core::Source;

    /// A source that writes its number into each of its rows.
    struct Stamp(u64, usize);

    impl Source for Stamp {
        fn rows(&self) -> usize {
            self.1
        }

        fn read(&mut self, rows: Rows<'_>) {
            rows.fill(|_, words| {
                words.fill(self.0);
                RowState::Good
            });
        }
    }

    /// Checks that each source fills exactly its rows.
    fn check(mode: Fanout) {
        let shapes = [(3, 2), (1, 5), (64, 1), (7, 0), (2, 140), (1, 1), (10, 3)];
        let mut slots: Vec<Slot> = shapes
            .into_iter()
            .zip(1..)
            .map(|((rows, row_words), n)| Slot {
                source: Box::new(Stamp(n, rows)),
                rows,
                row_words,
                reports_times: false,
            })
            .collect();
        let want: Vec<u64> = shapes
            .into_iter()
            .zip(1..)
            .flat_map(|((rows, row_words), n)| std::iter::repeat_n(n, rows * row_words))
            .collect();
        let rows = shapes.iter().map(|(rows, _)| rows).sum();
        let reader =
            Reader::new(mode, &mut slots, &ThreadStart::default()).expect("threads can be started");
        let (mut words, mut states) = (vec![0; want.len()], vec![RowState::Missing; rows]);
        reader.inside(|| reader.read(&mut slots, &mut words, &mut states));
        assert_eq!(words, want);
        assert!(states.iter().all(|state| *state == RowState::Good));
    }

    #[test]
    fn each_source_gets_its_rows_inline_and_spread() {
        for mode in [Fanout::Inline, Fanout::Auto, Fanout::Threads(2), Fanout::Threads(5)] {
            check(mode);
        }
    }

    #[test]
    fn the_break_even_follows_from_both_costs() {
        assert_eq!(break_even(10_000, 400, 2), 50);
        assert_eq!(break_even(10_000, 400, 8), 29);
        assert!(break_even(HANDOFF_NS_MAX, 0, 2) > 1_000_000);
    }
}
