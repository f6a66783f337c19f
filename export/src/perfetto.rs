//! A trace for Perfetto: a counter track for each vCPU and statistic, marks and triggers as
//! instants, gaps as slices.
//!
//! Values are written when they change, those of one tick together. A batch becomes one compressed
//! packet, and names all that it needs but the tracks, so that a trace which was cut off is good up
//! to its last whole packet.
//!
//! Invariant: a trace holds counters of the busiest statistics of its first batch, at most as many
//! as [`PerfettoOptions::stats_max`]; the others are named by [`Exporter::left_out`].

use std::collections::HashMap;
use std::io::Write;

use vmstrobe_core::{Desc, Group, Object, RowState};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::exporter::{Destination, Event, Exporter, Outcome};
use crate::limits::MAX_WAITING_EVENTS;
use crate::metadata::Metadata;
use changes::{Changes, Value};
use fields::event;
use packets::Packets;
use proto::Message;
use tracks::Tracks;

mod changes;
mod fields;
mod packets;
mod proto;
mod tracks;

/// The most values of one packet. Perfetto drops what is beyond one and eight more.
const PACKET_VALUES: usize = 9;

/// Options of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfettoOptions {
    /// The most statistics.
    pub stats_max: usize,
    /// The difference of `CLOCK_BOOTTIME` to `CLOCK_MONOTONIC`, in ns, by which the trace can be
    /// merged with others of the same boot.
    pub boottime_offset_ns: Option<i64>,
}

impl Default for PerfettoOptions {
    fn default() -> Self {
        Self { stats_max: 24, boottime_offset_ns: None }
    }
}

/// A writer of a trace.
#[derive(Debug)]
pub struct PerfettoWriter<W: Write> {
    out: Destination<W>,
    metadata: Metadata,
    options: PerfettoOptions,
    packets: Packets,
    begun: Option<Begun>,
    changes: Changes,
    /// Events before the first batch.
    waiting: Vec<Event>,
}

/// The state of a trace that has begun.
#[derive(Debug)]
struct Begun {
    tracks: Tracks,
    /// Statistics that are written (true) or left out, by provider and name.
    stats: HashMap<(Box<str>, Box<str>), bool>,
    /// The last tick and the end of its window.
    last: (u64, u64),
    /// The tracks of objects that could not be read in the last tick.
    unread: HashMap<Box<str>, u64>,
}

impl<W: Write> PerfettoWriter<W> {
    /// Makes a writer. Nothing is written before the first batch or event.
    pub fn new(out: W, metadata: Metadata, options: PerfettoOptions) -> Self {
        let (packets, changes, waiting) = Default::default();
        let out = Destination::new(out);
        Self { out, metadata, options, packets, begun: None, changes, waiting }
    }

    fn begin(&mut self, batch: &Batch) -> Begun {
        let first = batch.windows()[0];
        let stats = busiest(batch, self.options.stats_max);
        let tracks = Tracks::new(first.begin_ns);
        let name = self.metadata.vm.as_ref().map_or_else(
            || "KVM statistics (vmstrobe)".to_owned(),
            |vm| format!("KVM statistics of {vm} (vmstrobe)"),
        );
        let pairs = self.metadata.pairs();
        let mut lines: Vec<String> =
            pairs.iter().map(|(key, text)| format!("{key}: {text}")).collect();
        let (written, left_out): (Vec<_>, Vec<_>) =
            stats.iter().partition(|(_, written)| **written);
        lines.push(format!("statistics: {} written, {} left out", written.len(), left_out.len()));
        tracks.describe_root(&mut self.packets, &name, &lines.join("\n"));
        let last = (batch.ticks()[0].wrapping_sub(1), first.begin_ns);
        Begun { tracks, stats, last, unread: HashMap::new() }
    }

    /// Finds the tracks and the changes of all counters of a batch.
    fn collect(&mut self, begun: &mut Begun, batch: &Batch) -> Result<()> {
        let ticks = batch.ticks().len();
        self.changes.clear(ticks);
        for (number, group) in batch.layout().groups().iter().enumerate() {
            for (desc, word) in scalars(group) {
                let provider = group.plan.schema().provider();
                if !begun.is_written(provider, desc, self.options.stats_max) {
                    continue;
                }
                for (at, object) in group.objects.iter().enumerate() {
                    let Some(first) = first_read(batch, group.first_row + at) else { continue };
                    let packets = &mut self.packets;
                    let number_of = begun.tracks.counter(object, desc, provider, packets)?;
                    let counter = begun.tracks.state(number_of);
                    let list = batch.word(number, at, word);
                    // A new counter begins with its first value, whatever was there before.
                    let first = if counter.has_begun() { 0 } else { first };
                    for (run, value) in list.runs(ticks) {
                        if run.end <= first {
                            continue;
                        }
                        if let Some(value) = counter.shown(value) {
                            self.changes.add(run.start.max(first), counter.track, value);
                        }
                    }
                }
            }
        }
        self.changes.sort();
        Ok(())
    }

    /// Writes the values and gaps, tick by tick.
    fn write_ticks(&mut self, begun: &mut Begun, batch: &Batch) -> Result<()> {
        for (at, (&tick, window)) in batch.ticks().iter().zip(batch.windows()).enumerate() {
            let missed = tick.wrapping_sub(begun.last.0).saturating_sub(1);
            if missed > 0 {
                let track = begun.tracks.other("ticks not sampled", &mut self.packets)?;
                let name = format!("{missed} ticks not sampled");
                self.packets.named(begun.last.1, event::SLICE_BEGIN, track, &name);
                self.packets.end_slice(window.begin_ns, track);
            }
            begun.last = (tick, window.end_ns);
            for values in self.changes.of(at).chunks(PACKET_VALUES) {
                self.packets.event(window.middle_ns(), |out| write_values(out, values));
            }
        }
        Ok(())
    }

    /// Writes when objects could not be read.
    fn write_unread(&mut self, begun: &mut Begun, batch: &Batch) -> Result<()> {
        let (windows, layout) = (batch.windows(), batch.layout());
        let objects = layout.groups().iter().flat_map(|group| &group.objects);
        for (row, object) in objects.enumerate() {
            for (ticks, state) in batch.states(row).runs(windows.len()) {
                let at_ns = windows[ticks.start].middle_ns();
                if state.has_values() {
                    if let Some(track) = begun.unread.remove(&object.path) {
                        self.packets.end_slice(at_ns, track);
                    }
                } else if !begun.unread.contains_key(&object.path) {
                    let name = format!("{} not read", label(object));
                    let track = begun.tracks.other(&name, &mut self.packets)?;
                    self.packets.named(at_ns, event::SLICE_BEGIN, track, state_name(state));
                    begun.unread.insert(object.path.clone(), track);
                }
            }
        }
        Ok(())
    }

    /// Writes the packets so far as one.
    fn send(&mut self) -> Result<()> {
        self.packets.take().map_or(Ok(()), |message| self.out.write(message.bytes()))
    }
}

impl<W: Write> Exporter for PerfettoWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin(batch),
        };
        self.packets.clocks(batch.windows()[0], self.options.boottime_offset_ns);
        let written = self
            .collect(&mut begun, batch)
            .and_then(|()| self.write_ticks(&mut begun, batch))
            .and_then(|()| self.write_unread(&mut begun, batch));
        self.begun = Some(begun);
        written?;
        for event in std::mem::take(&mut self.waiting) {
            self.event(&event)?;
        }
        self.send()?;
        Ok(Outcome::Written)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        let Some(begun) = &mut self.begun else {
            let waiting = self.waiting.len() + 1;
            Error::check(
                "the number of events before the first sample",
                waiting,
                MAX_WAITING_EVENTS,
            )?;
            self.waiting.push(event.clone());
            return Ok(());
        };
        let track = begun.tracks.other("events", &mut self.packets)?;
        let name = format!("{}: {}", event.kind.name(), event.text);
        self.packets.named(event.monotonic_ns, event::INSTANT, track, &name);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.send()?;
        self.out.flush()
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(begun) = &mut self.begun {
            for (_, track) in begun.unread.drain() {
                self.packets.end_slice(begun.last.1, track);
            }
        }
        self.flush()?;
        self.out.end();
        Ok(())
    }

    fn whole_bytes(&self) -> u64 {
        self.out.whole_bytes()
    }

    /// Returns the names in alphabetical order.
    fn left_out(&self) -> Vec<String> {
        let stats = self.begun.iter().flat_map(|begun| &begun.stats);
        let left_out = stats.filter(|(_, is_written)| !**is_written);
        let mut names: Vec<String> = left_out.map(|((_, name), _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }
}

impl Begun {
    /// Returns whether a statistic is written. One that comes later takes a free place.
    fn is_written(&mut self, provider: &str, desc: &Desc, stats_max: usize) -> bool {
        let key = (provider.into(), desc.name.clone());
        let written = self.stats.values().filter(|written| **written).count();
        *self.stats.entry(key).or_insert(written < stats_max)
    }
}

/// Returns the statistics of a batch, with whether each is among those that change most. Histograms
/// are not.
fn busiest(batch: &Batch, stats_max: usize) -> HashMap<(Box<str>, Box<str>), bool> {
    let mut changes: HashMap<(Box<str>, Box<str>), usize> = HashMap::new();
    let mut stats = HashMap::new();
    for (number, group) in batch.layout().groups().iter().enumerate() {
        let schema = group.plan.schema();
        let key = |desc: &Desc| (Box::<str>::from(schema.provider()), desc.name.clone());
        for column in group.plan.columns() {
            stats.insert(key(&schema.descs()[column.desc]), false);
        }
        for (desc, word) in scalars(group) {
            let objects = 0..group.objects.len();
            let count: usize = objects.map(|at| batch.word(number, at, word).at.len()).sum();
            *changes.entry(key(desc)).or_default() += count;
        }
    }
    let mut ranked: Vec<_> = changes.into_iter().collect();
    ranked
        .sort_unstable_by(|(a, a_changes), (b, b_changes)| b_changes.cmp(a_changes).then(a.cmp(b)));
    stats.extend(ranked.into_iter().take(stats_max).map(|(key, _)| (key, true)));
    stats
}

/// Returns the statistics of a group that are one number, and their words.
fn scalars(group: &Group) -> impl Iterator<Item = (&Desc, usize)> {
    let descs = group.plan.schema().descs();
    let columns = group.plan.columns().iter();
    let columns = columns.map(|column| (&descs[column.desc], column.words.clone()));
    let scalars =
        columns.filter(|(desc, words)| words.len() == 1 && !desc.stat_type.is_histogram());
    scalars.map(|(desc, words)| (desc, words.start))
}

/// Returns the first tick in which a row has values, as an index.
fn first_read(batch: &Batch, row: usize) -> Option<usize> {
    let mut runs = batch.states(row).runs(batch.ticks().len());
    runs.find(|(_, state)| state.has_values()).map(|(ticks, _)| ticks.start)
}

/// Writes values of one tick: the first in the event's own fields, the others behind them.
fn write_values(out: &mut Message, values: &[Value]) {
    let Some((first, others)) = values.split_first() else { return };
    out.uint(event::TYPE, event::COUNTER).uint(event::TRACK_UUID, first.track);
    for other in others {
        out.int(event::EXTRA_VALUES, other.value);
    }
    out.int(event::COUNTER_VALUE, first.value);
    for other in others {
        out.uint(event::EXTRA_TRACK_UUIDS, other.track);
    }
}

/// Returns the name of an object's track.
fn label(object: &Object) -> String {
    match object.index {
        Some(index) => format!("vCPU {index} ({})", object.path),
        None => object.path.to_string(),
    }
}

fn state_name(state: RowState) -> &'static str {
    match state {
        RowState::Gone => "gone",
        RowState::Stale => "no answer",
        RowState::Torn => "kept changing",
        RowState::Io(_) => "system call failed",
        _ => "not read",
    }
}

#[cfg(test)]
mod tests;
