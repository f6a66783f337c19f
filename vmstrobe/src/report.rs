//! Reports: a recording or a live session in numbers, and the change from one to another.
//!
//! A report is made of batches, and so takes time for what changed and not for every value: ten
//! minutes of eight vCPUs at 1 kHz, 660 million values, in about a second.
//!
//! ```no_run
//! use std::path::Path;
//! use vmstrobe::report::{Report, ReportOptions};
//!
//! let report = Report::of_file(Path::new("run.arrows"), ReportOptions::default())?;
//! for stat in &report.stats {
//!     let max = stat.fine.as_ref().map(|rates| rates.max);
//!     println!("{} {} {max:?}", stat.desc().name, stat.total.amount.total());
//! }
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Invariant: the totals are those of a [`Tally`] of the same samples. Whatever a recording claims,
//! memory is bounded by the limits of [`Tally`] and those of the bins and events here; what is
//! beyond them is counted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vmstrobe_core::{Filter, Snapshot, Window};
use vmstrobe_export::{Batch, BatchLimits, Batcher, End, Event, Item, Metadata};
use vmstrobe_host::Broker;

use crate::error::{Error, Result};
use crate::read_status::ReadStatus;
use crate::record::Replay;
use crate::session::Session;
use crate::tally::{Statistic, Tally};
use rates::Rates;

pub use compare::{Comparison, MIN_BLOCKS, StatChange, Verdict, compare};
pub use summary::{BinRates, BusiestObject, StatReport};

mod axis;
mod compare;
mod rates;
mod summary;

/// The width of fine bins, unless samples are farther apart.
pub const FINE: Duration = Duration::from_millis(10);
/// The width of coarse bins, and the shortest of a block.
pub const COARSE: Duration = Duration::from_secs(1);
/// The most blocks of which the error of a mean is judged: longer blocks know of slower changes.
const BLOCKS_MAX: u64 = 30;
/// The most events that a report has.
pub const MAX_EVENTS: usize = 4096;
/// The most bytes of their texts.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// A recording or a session in numbers.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The recording; `None` of a session.
    pub path: Option<PathBuf>,
    /// The circumstances under which it was sampled.
    pub metadata: Metadata,
    /// The samples of a session that came too fast to be taken. Of a recording they are among the
    /// ticks that are missing.
    pub lost_samples: u64,
    /// The method by which objects of KVM were read, if that is known: of a session.
    pub read: Option<ReadStatus>,
    /// The totals of all statistics, and what is missing in them.
    pub tally: Tally,
    /// The statistics, in the order of their schemas.
    pub stats: Vec<StatReport>,
    /// Marks and triggers, in the order in which they were recorded.
    pub events: Vec<Event>,
    /// The number of further events, for which there was no room.
    pub unlisted_events: u64,
    /// The width of the fine bins, in ns: more than [`FINE`] if samples are farther apart, or if
    /// there would be too many bins.
    pub fine_ns: u64,
    /// The time in which samples are missing for so long that it has no rates, in ns.
    pub gaps_ns: u64,
    /// The number of such gaps.
    pub gaps: u64,
    /// The end of the recording, if it is one and has no damage.
    pub end: Option<End>,
    /// The damage behind what was read.
    pub damage: Option<Error>,
}

/// The choice of what a report is of.
#[derive(Debug, Default)]
pub struct ReportOptions {
    /// The filters of the statistics; `None` for all.
    pub filters: Option<Vec<Filter>>,
    /// The broker that opens the file.
    pub broker: Broker,
}

/// Makes a report of samples that come one after the other.
///
/// ```no_run
/// use std::time::Duration;
/// use vmstrobe::report::Reporter;
///
/// let mut session = vmstrobe::attach(4711)?.sample("vcpu: *", 1000.0)?;
/// let mut reporter = Reporter::new(session.period_ns());
/// reporter.add(session.first())?;
/// for _ in 0..10_000 {
///     if let Some(sample) = session.recv(Duration::from_secs(1)) {
///         reporter.add(&sample)?;
///     }
/// }
/// let report = reporter.finish_session(&mut session).expect("samples were added");
/// println!("{} statistics", report.stats.len());
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct Reporter {
    fine_ns: u64,
    batcher: Batcher,
    sums: Option<(Tally, Rates)>,
    events: Vec<Event>,
    event_bytes: usize,
    unlisted_events: u64,
}

impl Reporter {
    /// Makes a reporter of samples that are this far apart, in ns; 0 if that is not known.
    pub fn new(period_ns: u64) -> Self {
        Self {
            fine_ns: period_ns.max(FINE.as_nanos() as u64),
            batcher: Batcher::new(BatchLimits::default()),
            sums: None,
            events: Vec::new(),
            event_bytes: 0,
            unlisted_events: 0,
        }
    }

    /// Adds a sample, which is later than those before it.
    ///
    /// # Errors
    /// If it has more objects or statistics than a batch can have.
    pub fn add(&mut self, sample: &Snapshot) -> Result<()> {
        if let Some(batch) = self.batcher.push(sample).map_err(Error::Export)? {
            self.add_batch(&batch);
        }
        Ok(())
    }

    /// Adds the samples of a batch, which are later than those before it.
    pub fn add_batch(&mut self, batch: &Batch) {
        let first = batch.windows()[0];
        let new = || (Tally::of_batches(batch), Rates::new(self.fine_ns, first));
        let (tally, rates) = self.sums.get_or_insert_with(new);
        tally.enrol_batch(batch);
        rates.add(batch, tally);
        tally.add_batch(batch);
    }

    /// Adds an event.
    pub fn add_event(&mut self, event: Event) {
        let bytes = self.event_bytes + event.text.len() + event.kind.name().len();
        if self.events.len() >= MAX_EVENTS || bytes > MAX_EVENT_BYTES {
            self.unlisted_events += 1;
            return;
        }
        self.event_bytes = bytes;
        self.events.push(event);
    }

    /// Returns the report of samples of a session, with its circumstances; `None` if none was
    /// added.
    pub fn finish_session(self, session: &mut Session) -> Option<Report> {
        let mut metadata = Metadata::default();
        session.fill(&mut metadata);
        let (read, lost_samples) = (session.read_status(), session.lost_samples());
        Some(Report { metadata, read, lost_samples, ..self.finish()? })
    }

    /// Returns the report of all that was added, without its circumstances; `None` if that is no
    /// sample.
    pub fn finish(mut self) -> Option<Report> {
        if let Some(batch) = self.batcher.take() {
            self.add_batch(&batch);
        }
        let (tally, rates) = self.sums?;
        let fine = rates.axis.spans(0);
        let coarse = rates.axis.spans(COARSE.as_nanos() as u64);
        let has_fine = fine.width_ns < coarse.width_ns;
        let span_ns = tally.end().middle_ns().saturating_sub(tally.begin().middle_ns());
        let block_ns = (span_ns / BLOCKS_MAX).max(coarse.width_ns);
        let blocks = rates.axis.spans(block_ns);
        let mut busiest = summary::busiest_of_all(&tally);
        let stat = |total| {
            let of = Statistic::of(&total);
            let series = rates.series(&of);
            StatReport {
                busiest: busiest.remove(&of),
                fine: series.filter(|_| has_fine).and_then(|series| BinRates::of(series, &fine)),
                coarse: series.and_then(|series| BinRates::of(series, &coarse)),
                blocks: series.map_or_else(Vec::new, |series| {
                    series.rates(&blocks).map(|(rate, _)| rate).collect()
                }),
                total,
            }
        };
        let stats = tally.stats(false).into_iter().map(stat).collect();
        let (gaps, gaps_ns) = fine.gaps();
        Some(Report {
            path: None,
            metadata: Metadata::default(),
            lost_samples: 0,
            read: None,
            stats,
            tally,
            events: self.events,
            unlisted_events: self.unlisted_events,
            fine_ns: fine.width_ns,
            gaps_ns,
            gaps,
            end: None,
            damage: None,
        })
    }
}

impl Report {
    /// Makes the report of a recording. Of one that is damaged, it is a report of what stands
    /// before the damage.
    ///
    /// # Errors
    /// [`Error::RecordFile`] if it cannot be opened, [`Error::Recording`] if it is none or damaged
    /// before its first sample, [`Error::NothingRecorded`] if it has no sample.
    pub fn of_file(path: &Path, options: ReportOptions) -> Result<Self> {
        let mut replay = Replay::open_by(path, &options.broker)?;
        if let Some(filters) = options.filters {
            replay = replay.with_filters(filters);
        }
        let metadata = replay.metadata().clone();
        let mut reporter = Reporter::new(replay.period_ns());
        let read = replay.run_batches(|item| {
            match item {
                Item::Batch(batch) => reporter.add_batch(&batch),
                Item::Event(event) => reporter.add_event(event),
            }
            Ok(true)
        });
        let report = reporter.finish();
        let (end, damage) = match (read, &report) {
            (Ok(end), _) => (end, None),
            (Err(error), Some(_)) => (None, Some(error)),
            (Err(error), None) => return Err(error),
        };
        let path: PathBuf = path.to_owned();
        match report {
            Some(report) => Ok(Self { path: Some(path), metadata, end, damage, ..report }),
            None => Err(Error::NothingRecorded { path }),
        }
    }

    /// Returns the time from the first sample to the last, in s; 0 if there is but one.
    pub fn seconds(&self) -> f64 {
        self.tally.interval().map_or(0.0, |interval| interval.seconds)
    }

    /// Returns the time of an event, or another time of `CLOCK_MONOTONIC`, in s since the first
    /// sample; negative before it.
    pub fn seconds_at(&self, monotonic_ns: u64) -> f64 {
        let Window { begin_ns, .. } = self.tally.begin();
        (i128::from(monotonic_ns) - i128::from(begin_ns)) as f64 * 1e-9
    }
}

#[cfg(test)]
mod tests;
