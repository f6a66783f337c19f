//! The state behind a live table of virtual machines, without a terminal: which moment is shown,
//! what is selected, sorted and filtered, and the numbers of one screen.
//!
//! Invariant: nothing here draws or prints. A front door turns keys into [`Action`]s, and draws the
//! [`Frame`]s that it asks for. Taking a sample costs about as much as recording it; all else is
//! done once a frame.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Layout, Snapshot};
use vmstrobe_export::{Event, PackedBatch};

use crate::error::Result;
use crate::history::{HeldSamples, History, HistoryLimits};
use charts::Charts;
use columns::Defaults;
use compared::{Compared, Sample};
use histograms::Heat;
use objects::{ObjectId, Objects, OwnerId};
use position::{Position, Shown};
use sparks::Sparks;
use statistics::Statistics;
use table::Table;

mod act;
mod action;
mod cells;
mod charts;
mod columns;
mod compared;
mod curves;
mod details;
mod ends;
mod frame;
mod histograms;
mod loader;
mod matching;
mod objects;
mod order;
mod position;
mod show;
mod sparks;
mod statistics;
mod table;

pub use self::action::{Action, Amounts, TimeStep};
pub use self::frame::{
    Cell, Chart, ChartColumn, Column, ColumnKind, EventMark, Frame, Header, HeatMap, Histogram,
    Moment, Request, Ring, Row, RowKind, ShownStat, Sort, StatRow, TableState,
};
pub use self::loader::Loader;

/// The time over which rates of the table are taken, in ns.
const RATE_NS: u64 = 1_000_000_000;
/// The time over which quantiles and shares are taken, and which sparklines show, in ns.
const LONG_NS: u64 = 10_000_000_000;
/// The most samples that are kept to compare later ones with, and the most bytes that they take;
/// a few are kept in any case.
const MAX_SAMPLES: usize = 14;
const MAX_SAMPLES_BYTES: usize = 16 << 20;
const MIN_SAMPLES: usize = 4;
/// The time by which such a sample may be farther away than was asked for while time goes on, for
/// rates and for quantiles, in ns. So a sample that was shown serves again a second later.
const NEAR_NS: u64 = 60_000_000;
const LONG_NEAR_NS: u64 = 500_000_000;

/// Options of a [`View`].
#[derive(Clone, Debug, Default)]
pub struct ViewOptions {
    /// The limits of the samples that are held.
    pub limits: HistoryLimits,
    /// The name of the VM of vCPUs whose paths name none.
    pub vm: Option<String>,
}

/// The columns of a table, and the numbers in them.
type Shape = (Vec<ColumnKind>, Amounts);

/// The state behind a live table.
///
/// ```no_run
/// use std::time::Duration;
/// use vmstrobe::view::{Action, Request, View, ViewOptions};
///
/// let mut session = vmstrobe::attach(4711)?.sample("vcpu: *", 1000.0)?;
/// let mut view = View::new(ViewOptions::default());
/// view.take(session.first())?;
/// while let Some(sample) = session.recv(Duration::from_millis(100)) {
///     view.take(&sample)?;
/// }
/// view.act(Action::ToggleSummed);
/// let request = Request { table_rows: 20, table_columns: 5, ..Request::default() };
/// for row in view.frame(&request).rows {
///     println!("{} {:?}", row.name, row.cells);
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct View {
    history: History,
    objects: Objects,
    position: Position,
    table: Table,
    /// The vCPU that fills the screen.
    opened: Option<ObjectId>,
    focus: usize,
    baseline: Option<Arc<Snapshot>>,
    defaults: Defaults,
    /// The statistics of charts that were chosen; `None` for the default ones.
    charted: Option<Vec<String>>,
    histogram_stat: Option<String>,
    /// The histograms of the last frame's subject.
    last_histograms: Vec<String>,
    /// The time of charts.
    span_ns: u64,
    sparks: Sparks,
    charts: Charts,
    statistics: Statistics,
    heat: Heat,
    /// The last cells of VMs that have ended, with their columns.
    last_cells: HashMap<OwnerId, (Shape, Vec<Cell>)>,
    /// The request of the last frame.
    request: Request,
    /// Samples of which others are compared with, in the order in which they were asked for.
    samples: Vec<Arc<Snapshot>>,
    is_exact: bool,
    last_layout: Option<Arc<Layout>>,
    last_tick: Option<u64>,
    lost_samples: u64,
    /// The time of the newest sample of the last frame.
    noted_ns: u64,
    has_ended: bool,
}

impl View {
    /// Makes a view of the samples of a session.
    pub fn new(options: ViewOptions) -> Self {
        Self::at(Position::live(), options)
    }

    /// Makes a view of a recording, which is played: see [`View::advance`].
    pub fn of_recording(options: ViewOptions) -> Self {
        Self::at(Position::played(), options)
    }

    fn at(position: Position, options: ViewOptions) -> Self {
        Self {
            history: History::new(options.limits),
            objects: Objects::new(options.vm),
            position,
            table: Table::default(),
            opened: None,
            focus: 0,
            baseline: None,
            defaults: Defaults::default(),
            charted: None,
            histogram_stat: None,
            last_histograms: Vec::new(),
            span_ns: LONG_NS,
            sparks: Sparks::default(),
            charts: Charts::default(),
            statistics: Statistics::default(),
            heat: Heat::default(),
            last_cells: HashMap::new(),
            request: Request::default(),
            samples: Vec::new(),
            is_exact: false,
            last_layout: None,
            last_tick: None,
            lost_samples: 0,
            noted_ns: 0,
            has_ended: false,
        }
    }

    /// Takes a sample, which is later than those before. It can be handed back at once.
    ///
    /// # Errors
    /// [`Error::Export`](crate::Error::Export) if it is beyond the limits of recordings.
    pub fn take(&mut self, sample: &Snapshot) -> Result<()> {
        self.count_lost(sample.tick(), sample.tick());
        self.note_layout(sample.layout(), sample.window().middle_ns());
        self.history.push(sample)
    }

    /// Takes a batch of a recording, which is later than those before.
    pub fn take_batch(&mut self, batch: Arc<PackedBatch>) {
        let ticks = batch.ticks();
        let last = ticks[ticks.len() - 1];
        self.count_lost(ticks[0], last);
        // The ticks of a recording are any numbers that ascend.
        let missing = (last - ticks[0]).saturating_sub(ticks.len() as u64 - 1);
        self.lost_samples = self.lost_samples.saturating_add(missing);
        self.note_layout(batch.layout(), batch.windows()[0].middle_ns());
        self.history.push_packed(batch);
    }

    /// Returns whether a batch of a recording would take the place of nothing that is near the
    /// moment that is shown.
    pub fn has_room(&self, batch: &PackedBatch) -> bool {
        if self.history.bytes() + batch.bytes() <= self.history.limits().bytes {
            return true;
        }
        let middle_ns =
            self.history.span().map_or(0, |(begin_ns, end_ns)| begin_ns.midpoint(end_ns));
        self.position.shown(&self.history).is_none_or(|shown| shown.at_ns > middle_ns)
    }

    /// Takes a mark or trigger.
    pub fn take_event(&mut self, event: &Event) {
        self.history.event(event);
    }

    /// Returns the samples of the last time, or all that are held, with their events, so that
    /// another thread can write them.
    pub fn freeze(&mut self, last: Option<Duration>) -> HeldSamples {
        self.history.freeze(last)
    }

    /// Notes that no more samples will come.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Plays a recording on for so long, unless it is paused. A session moves on by itself.
    pub fn advance(&mut self, time: Duration) {
        self.position.advance(time, &self.history);
    }

    /// Counts the ticks before these that were not taken.
    fn count_lost(&mut self, first: u64, last: u64) {
        let expected = self.last_tick.map_or(first, |last| last.saturating_add(1));
        let missing = first.saturating_sub(expected);
        self.lost_samples = self.lost_samples.saturating_add(missing);
        self.last_tick = Some(last);
    }

    /// Returns the sample at a time and those that it is compared with.
    fn compare(&mut self, shown: Shown) -> Compared {
        let now = self.sample_at(shown.at_ns, 0);
        let before = |view: &mut Self, ns: u64, near_ns: u64| {
            let (begin_ns, _) = view.history.span()?;
            let wanted_ns = shown.at_ns.saturating_sub(ns).max(begin_ns);
            let near_ns = if shown.is_live { near_ns } else { 0 };
            let sample = view.sample_at(wanted_ns, near_ns);
            (sample.at_ns() < now.at_ns()).then_some(sample)
        };
        let second = before(self, RATE_NS, NEAR_NS);
        let ten = before(self, LONG_NS, LONG_NEAR_NS);
        let baseline = self.baseline.clone().map(|snapshot| {
            let map = self.objects.map(snapshot.layout());
            Sample { snapshot, map }
        });
        Compared { now, second, ten, baseline }
    }

    /// Returns the sample at a time, or one that is kept and no farther away than that.
    fn sample_at(&mut self, at_ns: u64, near_ns: u64) -> Sample {
        let distance = |sample: &Snapshot| sample.window().middle_ns().abs_diff(at_ns);
        let nearest = self.samples.iter().min_by_key(|sample| distance(sample));
        let kept = nearest.filter(|sample| distance(sample) <= near_ns).cloned();
        let snapshot = kept.unwrap_or_else(|| {
            let place = self.history.find(at_ns).expect("the time is within the history's span");
            let sample = self.history.sample(place);
            let bytes = size_of::<u64>() * sample.layout().words();
            let most = (MAX_SAMPLES_BYTES / bytes.max(1)).clamp(MIN_SAMPLES, MAX_SAMPLES);
            let excess = (self.samples.len() + 1).saturating_sub(most);
            self.samples.drain(..excess);
            self.samples.push(Arc::clone(&sample));
            sample
        });
        let map = self.objects.map(snapshot.layout());
        Sample { snapshot, map }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
