//! An interval log of HdrHistogram: how a histogram statistic grew in each interval.
//!
//! An interval has a line for the sum of all objects and, if there are several, one for each of
//! them, tagged with its path. A value of a bucket is logged as the largest
//! that the bucket holds, so that it comes back in its bucket; one of the open bucket is logged as
//! the smallest. Values are in stored units, which a comment names.
//!
//! Invariant: what is logged was counted between two readings of one object; what was counted
//! before the first, or around a reset, is in no line.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use vmstrobe_core::{Desc, Object, bucket};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::exporter::{Destination, Event, Exporter, Outcome};
use crate::lists::Changes;

/// The significant digits of a histogram. Two are enough to keep a value in its bucket.
const DIGITS: u8 = 2;
/// The most objects that have lines of their own in one log.
const MAX_OBJECTS: usize = 1 << 16;

/// A writer of an interval log.
#[derive(Debug)]
pub struct HistlogWriter<W: Write> {
    out: Destination<W>,
    statistic: String,
    interval: Duration,
    /// The time of the sample at which the open interval began, in ns since 1970.
    begin_wall_ns: Option<u64>,
    /// The time of the last sample.
    end_wall_ns: u64,
    objects: HashMap<(Box<str>, u64), Counts>,
    lines: Vec<u8>,
}

/// The counts of one object.
#[derive(Clone, Debug)]
struct Counts {
    tag: String,
    desc: Desc,
    /// The words at the last reading.
    last: Vec<u64>,
    /// The growth in the open interval.
    grown: Vec<u64>,
}

impl Counts {
    /// Takes a reading.
    fn take(&mut self, words: impl Iterator<Item = u64>) {
        let words: Vec<u64> = words.collect();
        let is_reset = words.len() != self.last.len()
            || words.iter().zip(&self.last).any(|(now, before)| now < before);
        if !is_reset {
            let growth = words.iter().zip(&self.last).map(|(now, before)| now - before);
            for (grown, growth) in self.grown.iter_mut().zip(growth) {
                *grown = grown.saturating_add(growth);
            }
        }
        self.grown.resize(words.len(), 0);
        self.last = words;
    }
}

impl<W: Write> HistlogWriter<W> {
    /// Makes a writer for a histogram statistic such as `halt_wait_hist`. An interval ends with the
    /// first batch that makes it at least this long.
    pub fn new(out: W, statistic: &str, interval: Duration) -> Self {
        Self {
            out: Destination::new(out),
            statistic: statistic.to_owned(),
            interval,
            begin_wall_ns: None,
            end_wall_ns: 0,
            objects: HashMap::new(),
            lines: Vec::new(),
        }
    }

    /// Writes the head of the log, at the time of the first sample.
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let Some(desc) = self.histograms(batch).next().map(|(_, desc, ..)| desc.clone()) else {
            return Ok(());
        };
        let wall_ns = batch.windows()[0].wall_ns();
        let unit = desc.scale.text(desc.unit);
        let unit = if unit.is_empty() { "no unit".to_owned() } else { unit };
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("[Histogram log format version 1.3]");
        builder.add_comment(&format!("{} of vmstrobe, in {unit}", self.statistic));
        builder.with_start_time(UNIX_EPOCH + Duration::from_nanos(wall_ns));
        // Times are absolute: some readers ignore a base.
        builder.with_base_time(UNIX_EPOCH);
        let mut serializer = V2DeflateSerializer::new();
        builder.begin_log_with(&mut self.lines, &mut serializer).expect("a Vec takes all");
        self.lines.extend_from_slice(
            b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\
              \"Interval_Compressed_Histogram\"\n",
        );
        self.begin_wall_ns = Some(wall_ns);
        self.send()
    }

    /// Returns the objects that have the histogram: the group's number, the descriptor, the first
    /// word, the object's place in the group, the row, and the object.
    fn histograms<'a>(
        &self,
        batch: &'a Batch,
    ) -> impl Iterator<Item = (usize, &'a Desc, usize, usize, usize, &'a Object)> + use<'a, W> {
        let statistic = self.statistic.clone();
        let groups = batch.layout().groups().iter().enumerate();
        groups.flat_map(move |(number, group)| {
            let column = group.plan.column(&statistic);
            let found = column
                .map(|column| (&group.plan.schema().descs()[column.desc], column.words.start));
            let found = found.filter(|(desc, _)| desc.stat_type.is_histogram());
            found.into_iter().flat_map(move |(desc, word)| {
                let objects = group.objects.iter().enumerate();
                objects
                    .map(move |(at, object)| (number, desc, word, at, group.first_row + at, object))
            })
        })
    }

    /// Takes the first and the last reading of each object in a batch.
    fn take(&mut self, batch: &Batch) -> Result<()> {
        let ticks = batch.ticks().len();
        for (number, desc, first_word, at, row, object) in self.histograms(batch) {
            let read = batch.states(row).runs(ticks).filter(|(_, state)| state.has_values());
            let read: Vec<usize> = read.flat_map(|(run, _)| [run.start, run.end - 1]).collect();
            let (Some(&first), Some(&last)) = (read.first(), read.last()) else { continue };
            let key = (object.path.clone(), object.key);
            if !self.objects.contains_key(&key) {
                Error::check("the number of objects", self.objects.len() + 1, MAX_OBJECTS)?;
            }
            let counts = self.objects.entry(key).or_insert_with(|| Counts {
                tag: object.path.replace([',', ' ', '\r', '\n'], "_"),
                desc: desc.clone(),
                last: Vec::new(),
                grown: Vec::new(),
            });
            let buckets = 0..usize::from(desc.size);
            let lists = buckets.map(|bucket| batch.word(number, at, first_word + bucket));
            let lists: Vec<_> = lists.collect();
            counts.take(lists.iter().map(|list| value_at(list, first)));
            let is_reset = |list: &Changes<'_, u64>| {
                list.values.first().is_some_and(|&next| next < list.first)
                    || !list.values.is_sorted()
            };
            if lists.iter().any(is_reset) {
                // A reset within the batch.
                counts.last.clear();
            }
            counts.take(lists.iter().map(|list| value_at(list, last)));
        }
        Ok(())
    }

    /// Writes the lines of the open interval, and begins the next.
    fn end_interval(&mut self, begin_wall_ns: u64) -> Result<()> {
        let time = Duration::from_nanos(begin_wall_ns);
        let length = self.length_since(begin_wall_ns);
        let Some(any) = self.objects.values().next() else { return Ok(()) };
        let mut sum = Counts { grown: vec![0; any.grown.len()], ..any.clone() };
        let mut objects: Vec<&mut Counts> = self.objects.values_mut().collect();
        objects.sort_by(|a, b| a.tag.len().cmp(&b.tag.len()).then_with(|| a.tag.cmp(&b.tag)));
        let is_several = objects.len() > 1;
        let mut tagged = Vec::new();
        for counts in objects {
            sum.grown.resize(sum.grown.len().max(counts.grown.len()), 0);
            for (sum, grown) in sum.grown.iter_mut().zip(&counts.grown) {
                *sum = sum.saturating_add(*grown);
            }
            if is_several {
                write_line(
                    &mut tagged,
                    &counts.desc,
                    &counts.grown,
                    time,
                    length,
                    Some(&counts.tag),
                );
            }
            counts.grown.fill(0);
        }
        write_line(&mut self.lines, &sum.desc, &sum.grown, time, length, None);
        self.lines.append(&mut tagged);
        self.begin_wall_ns = Some(self.end_wall_ns);
        self.send()
    }

    fn length_since(&self, begin_wall_ns: u64) -> Duration {
        Duration::from_nanos(self.end_wall_ns.saturating_sub(begin_wall_ns))
    }

    fn send(&mut self) -> Result<()> {
        let lines = std::mem::take(&mut self.lines);
        self.out.write(&lines)
    }
}

/// Writes the histogram of one interval.
fn write_line(
    lines: &mut Vec<u8>,
    desc: &Desc,
    counts: &[u64],
    time: Duration,
    length: Duration,
    tag: Option<&str>,
) {
    let mut histogram = Histogram::<u64>::new(DIGITS).expect("2 digits are supported");
    for (index, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let Some(bounds) = bucket(desc, index) else { continue };
        let value = bounds.end.map_or(bounds.low, |end| end - 1);
        // A value that is too large for a histogram of this crate is logged as its largest.
        let value = value.min(u64::MAX >> 2);
        histogram.record_n(value, count).expect("the histogram grows");
    }
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .begin_log_with(lines, &mut serializer)
        .expect("a Vec takes all");
    let tag = tag.and_then(Tag::new);
    log.write_histogram(&histogram, time, length, tag).expect("a Vec takes all");
}

/// Returns the value of a list at a tick.
fn value_at(list: &Changes<'_, u64>, tick: usize) -> u64 {
    let changes = list.at.partition_point(|&at| at as usize <= tick);
    changes.checked_sub(1).map_or(list.first, |last| list.values[last])
}

impl<W: Write> Exporter for HistlogWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        if self.begin_wall_ns.is_none() {
            self.begin(batch)?;
        }
        self.take(batch)?;
        self.end_wall_ns = batch.windows().last().expect("a batch has a tick").wall_ns();
        match self.begin_wall_ns {
            Some(begin) if self.length_since(begin) >= self.interval => self.end_interval(begin)?,
            _ => {}
        }
        Ok(Outcome::Written)
    }

    /// Events have no place in such a log.
    fn event(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(begin) = self.begin_wall_ns.filter(|&begin| begin < self.end_wall_ns) {
            self.end_interval(begin)?;
        }
        self.flush()?;
        self.out.end();
        Ok(())
    }

    fn whole_bytes(&self) -> u64 {
        self.out.whole_bytes()
    }
}

#[cfg(test)]
mod tests;
