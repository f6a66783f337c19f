//! The tick, and the loop around it.
//!
//! ```text
//! take a change, if one waits · take a free snapshot from the pool (none: starved) · read every
//! source into its rows · stamp the window · push to the queues, swap the newest · record its times
//! ```
//!
//! Invariant: after start a tick allocates nothing, waits for nothing and does bounded work. The
//! control plane drops the things that a tick replaces.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Layout, Result, Snapshot, Thread, ThreadStart, Window};

use crate::clock;
use crate::control::{Change, Control, MAX_RETIRED, MAX_SUBSCRIBERS, Mailbox, Retired, buffers};
use crate::fanout::{Fanout, Reader};
use crate::health::{Counts, HealthWriter};
use crate::pool::Pool;
use crate::publish::Publisher;
use crate::source_set::SourceSet;
use crate::subscribe::Outlet;
use crate::ticker::{Ticker, Timing, make_punctual};

/// The snapshots beyond those in queues: one being filled, the rest for readers that keep one. They
/// cost address space, and memory only once they are used.
pub(crate) const SPARES: usize = 64;
/// The most things that one tick retires: a queue, the things that a change replaces, a snapshot of
/// the old layout.
const RETIRED_BY_A_TICK: usize = 3;
/// The period in which the wall clock is compared with the monotonic one.
const WALL_PERIOD_NS: u64 = 1_000_000_000;

/// The result of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tick {
    /// A snapshot was published.
    Published,
    /// Readers hold every snapshot, so nothing was read. The tick is counted.
    Starved,
}

/// The sampling loop: on every tick it reads all sources and publishes a snapshot.
///
/// [`Sampler::tick`] makes one tick. [`Sampler::run`] ticks at a rate on the calling thread, and
/// [`Sampler::start`] does so on a thread of its own.
///
/// ```
/// use std::sync::Arc;
/// use vmstrobe_core::{Filter, Registry, Target};
/// use vmstrobe_sampler::{Fanout, Health, Roster, Sampler, Tick};
///
/// let (health, health_writer) = Health::new();
/// let registry = Registry::default();
/// registry.add(Arc::new(health));
/// let mut roster = Roster::new(registry, vec!["sampler: ticks".parse()?]);
/// let (mut sampler, control) = Sampler::new(roster.open()?, health_writer, Fanout::Auto)?;
/// assert_eq!(sampler.tick(), Tick::Published);
/// assert_eq!(sampler.tick(), Tick::Published);
/// let newest = control.latest().load_full();
/// let (_, ticks) = newest.stat("ticks").next().expect("it has just been read");
/// assert_eq!(ticks.number(), Some(1)); // the second tick read the count of the first
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    sources: SourceSet,
    reader: Reader,
    pool: Pool<Snapshot>,
    newest: Publisher,
    outlets: Vec<Outlet>,
    mailbox: Arc<Mailbox>,
    retired: Vec<Retired>,
    health_writer: HealthWriter,
    threads: ThreadStart,
    /// The number of the last tick, missed ones included.
    ticks: u64,
    wall_offset_ns: i64,
    wall_read_ns: u64,
}

impl Sampler {
    /// Returns a sampler of that source set, and the control plane's handle to it.
    ///
    /// # Errors
    /// If the threads to read with cannot be started.
    pub fn new(
        sources: SourceSet,
        health_writer: HealthWriter,
        fanout: Fanout,
    ) -> Result<(Self, Control)> {
        Self::with_threads(sources, health_writer, fanout, ThreadStart::default())
    }

    /// Returns a sampler as [`Sampler::new`] does, which starts its threads so: those that read,
    /// and that of [`Sampler::start`].
    ///
    /// # Errors
    /// If the threads to read with cannot be started.
    pub fn with_threads(
        mut sources: SourceSet,
        health_writer: HealthWriter,
        fanout: Fanout,
        threads: ThreadStart,
    ) -> Result<(Self, Control)> {
        let reader = Reader::new(fanout, &mut sources.slots, &threads)?;
        let newest = Publisher::new(Arc::new(Snapshot::new(&sources.layout)));
        let mailbox = Mailbox::new(&sources.layout, SPARES);
        let control = Control::new(Arc::clone(&mailbox), newest.clone());
        let mut sampler = Self {
            pool: Pool::new(buffers(&sources.layout, SPARES)),
            sources,
            reader,
            newest,
            outlets: Vec::with_capacity(MAX_SUBSCRIBERS),
            mailbox,
            retired: Vec::with_capacity(MAX_RETIRED),
            health_writer,
            threads,
            ticks: 0,
            wall_offset_ns: clock::wall_offset_ns(),
            wall_read_ns: clock::now_ns(),
        };
        sampler.count_rows();
        Ok((sampler, control))
    }

    /// Makes one tick now: reads everything once and publishes it.
    ///
    /// It spreads the reading over CPUs only inside [`Sampler::inside`]. The time that health
    /// records for such a tick ends when everything has been read.
    #[inline]
    pub fn tick(&mut self) -> Tick {
        let begin_ns = clock::now_ns();
        match self.tick_at(begin_ns, 0) {
            Some(end_ns) => {
                self.health_writer.record(None, begin_ns, end_ns);
                Tick::Published
            }
            None => Tick::Starved,
        }
    }

    /// Makes a tick that begins at `begin_ns`, with `missed` deadlines between it and the last one.
    /// Returns the time at which everything had been read; `None` if the tick starved.
    #[inline]
    fn tick_at(&mut self, begin_ns: u64, missed: u64) -> Option<u64> {
        self.take_change();
        self.ticks += 1 + missed;
        self.health_writer.counts_mut().missed_ticks += missed;
        if begin_ns.saturating_sub(self.wall_read_ns) >= WALL_PERIOD_NS {
            (self.wall_offset_ns, self.wall_read_ns) = (clock::wall_offset_ns(), begin_ns);
        }
        let (mut end_ns, mut unread) = (0, 0);
        let fresh = self.pool.take(|snapshot| {
            let (words, states) = snapshot.begin(self.ticks);
            self.reader.read(&mut self.sources.slots, words, states);
            end_ns = clock::now_ns();
            unread = states.iter().filter(|state| !state.has_values()).count();
            let mut when = begin_ns..end_ns;
            if self.sources.reports_times {
                when = narrowed(&self.sources, when, self.health_writer.counts_mut());
            }
            let wall_offset_ns = self.wall_offset_ns;
            snapshot.stamp(Window { begin_ns: when.start, end_ns: when.end, wall_offset_ns });
        });
        let Some(fresh) = fresh else {
            self.health_writer.counts_mut().starved_ticks += 1;
            return None;
        };
        self.publish(fresh);
        let counts = self.health_writer.counts_mut();
        counts.ticks += 1;
        counts.unread_rows += unread as u64;
        Some(end_ns)
    }

    /// Publishes a snapshot to the queues and as the newest.
    #[inline]
    fn publish(&mut self, fresh: Arc<Snapshot>) {
        for outlet in &self.outlets {
            if !outlet.push(&fresh) {
                self.health_writer.counts_mut().lost_samples += 1;
            }
        }
        let before = self.newest.swap(fresh);
        if Arc::ptr_eq(before.layout(), &self.sources.layout) {
            self.pool.put_back(before);
        } else {
            // It has the layout before the last change: it is of no use any more, but must not be
            // freed on the tick.
            self.retired.push(Retired::Snapshot(before));
        }
    }

    /// Takes a change that the control plane has prepared, and hands over the retired things.
    #[inline]
    fn take_change(&mut self) {
        if let Some(left) = self.outlets.iter().position(Outlet::has_left)
            && self.retired.len() + RETIRED_BY_A_TICK <= MAX_RETIRED
        {
            self.retired.push(Retired::Outlet(self.outlets.swap_remove(left)));
            self.health_writer.counts_mut().subscribers -= 1;
        }
        match self.mailbox.exchange(&mut self.retired) {
            None => {}
            Some(Change::SourceSet(sources, pool)) => {
                let sources = std::mem::replace(&mut self.sources, sources);
                let pool = std::mem::replace(&mut self.pool, pool);
                self.retired.push(Retired::SourceSet(sources, pool));
                self.count_rows();
            }
            Some(Change::Subscribe(outlet, mut pool)) => {
                pool.absorb(&mut self.pool);
                let emptied = std::mem::replace(&mut self.pool, pool);
                self.retired.push(Retired::Pool(emptied));
                self.outlets.push(outlet);
                self.health_writer.counts_mut().subscribers += 1;
            }
        }
    }

    fn count_rows(&mut self) {
        let counts = self.health_writer.counts_mut();
        (counts.rows, counts.bulk_rows) = (self.sources.layout.rows() as u64, 0);
    }

    /// Ticks at the rate of `timing` until [`Control::stop`] or its last tick: on the calling
    /// thread or, if reading is spread, on one of the reading threads.
    ///
    /// CPU and priority stay as they are; only the thread's timer slack becomes 1 ns. So a program
    /// that wants punctual ticks calls this on a thread that it has set up itself, or sets up the
    /// reading threads by [`Sampler::with_threads`]. A thread inherits affinity and policy from
    /// the one that starts it: `taskset -c 3 chrt -f 10 PROGRAM` sets up all of a program.
    ///
    /// # Errors
    /// `Io` if the kernel refuses the timer slack.
    pub fn run(&mut self, timing: &Timing) -> Result<()> {
        let timing = *timing;
        self.inside(move |sampler| {
            make_punctual()?;
            sampler.run_here(&timing);
            Ok(())
        })
    }

    fn run_here(&mut self, timing: &Timing) {
        let mut ticker = Ticker::new(timing, clock::now_ns());
        let mailbox = Arc::clone(&self.mailbox);
        while !ticker.is_over() {
            let Some(now_ns) = ticker.wait(|| mailbox.stopped() || mailbox.has_timing()) else {
                let Some(timing) = mailbox.take_timing() else { break };
                self.health_writer.counts_mut().missed_ticks += ticker.missed();
                ticker = Ticker::new(&timing, clock::now_ns());
                continue;
            };
            let begun = ticker.begin(now_ns);
            let published = self.tick_at(now_ns, begun.missed).is_some();
            let done_ns = clock::now_ns();
            if published {
                self.health_writer.record(Some(begun.late_ns), now_ns, done_ns);
            }
            ticker.end(done_ns);
        }
        self.health_writer.counts_mut().missed_ticks += ticker.missed();
    }

    /// Calls `work` on a reading thread, if there are any, where [`Sampler::tick`] can spread its
    /// reading over all of them; else on the calling thread.
    pub fn inside<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> T + Send) -> T {
        let reader = self.reader.clone();
        reader.inside(|| work(self))
    }

    /// Runs on a thread of its own, `vmstrobe-tick`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(mut self, timing: Timing) -> Result<Running> {
        let (mailbox, threads) = (Arc::clone(&self.mailbox), self.threads.clone());
        let thread = threads.spawn("vmstrobe-tick", move || self.run(&timing).map(|()| self))?;
        Ok(Running { thread: Some(thread), mailbox })
    }

    /// Returns the layout of the objects that are sampled now.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.sources.layout
    }

    /// Returns the number of threads that read.
    pub fn threads(&self) -> usize {
        self.reader.threads()
    }

    /// Returns the writer of the sampler's own statistics.
    pub fn health(&self) -> &HealthWriter {
        &self.health_writer
    }
}

/// Returns the window of the tick that took `tick_ns`, narrowed to the times that the sources
/// report, and counts the rows that were read in bulk. Not inlined, so that a set in which no
/// source reports a time costs one test.
#[inline(never)]
fn narrowed(sources: &SourceSet, tick_ns: Range<u64>, counts: &mut Counts) -> Range<u64> {
    let reports = sources.read_times(tick_ns.clone());
    counts.bulk_rows = reports.bulk_rows as u64;
    counts.fallback_ticks += u64::from(reports.fell_back);
    reports.window_ns.unwrap_or(tick_ns)
}

/// A sampler that runs on a thread of its own, see [`Sampler::start`]. Dropping it stops the
/// sampler.
#[derive(Debug)]
pub struct Running {
    thread: Option<Thread<Result<Sampler>>>,
    mailbox: Arc<Mailbox>,
}

impl Running {
    /// Returns true once the sampler has ended, by itself or because it was stopped.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(Thread::is_finished)
    }

    /// Stops the sampler, within 50 ms or a tick, and returns it with its health.
    ///
    /// # Errors
    /// The error of [`Sampler::run`]; `Io` if the thread panicked.
    pub fn stop(mut self) -> Result<Sampler> {
        self.mailbox.request_stop();
        let thread = self.thread.take().expect("the thread is taken only here and in drop");
        thread.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Io, "the sampler's thread panicked: please report it"))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.mailbox.request_stop();
        if let Some(thread) = self.thread.take() {
            // A caller that wants to know how it ended calls `stop`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
