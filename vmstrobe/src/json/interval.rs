//! The JSON of one interval of a measurement.
//!
//! Invariant: a field is absent only if it has no value, such as the sum of levels or the rate of a
//! statistic that was reset.

use serde::{Serialize, Serializer};

use crate::read_status::ReadStatus;
use crate::tally::{Amount, StatTally, Tally};

/// One interval of a measurement, to be written as JSON.
///
/// ```no_run
/// use vmstrobe::json::{self, IntervalReport};
/// let session = vmstrobe::attach(4711)?.sample("vcpu: exits", 1000.0)?;
/// let (_, mut measured) = vmstrobe::measure(session, || println!("while this runs"))?;
/// let report = IntervalReport {
///     tally: &measured.tally,
///     lost_samples: measured.lost_samples,
///     read: measured.session.read_status(),
///     per_object: true,
///     events: &[],
/// };
/// println!("{}", json::text(&report));
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct IntervalReport<'a> {
    /// The samples of the interval.
    pub tally: &'a Tally,
    /// The number of samples of the interval that were lost.
    pub lost_samples: u64,
    /// The method by which objects of KVM were read.
    pub read: Option<ReadStatus>,
    /// True for an element for each object and statistic, false for sums over all objects.
    pub per_object: bool,
    /// The marks and triggers of the interval, in a recording.
    pub events: &'a [EventEntry<'a>],
}

/// A mark or a trigger in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EventEntry<'a> {
    /// The time, in ns of `CLOCK_MONOTONIC`.
    pub ns: u64,
    /// The time, in ns since 1970.
    pub wall_ns: u64,
    /// The kind: `mark`, `trigger`, or one of a later version.
    pub kind: &'a str,
    /// The text of the mark, or the condition that came true.
    pub text: &'a str,
}

#[cfg(feature = "export")]
impl<'a> From<&'a vmstrobe_export::Event> for EventEntry<'a> {
    fn from(event: &'a vmstrobe_export::Event) -> Self {
        let (ns, wall_ns) = (event.monotonic_ns, event.wall_ns());
        Self { ns, wall_ns, kind: event.kind.name(), text: &event.text }
    }
}

impl Serialize for IntervalReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stats = self.tally.stats(self.per_object).iter().map(StatEntry::new).collect();
        IntervalEntry::new(self, stats).serialize(serializer)
    }
}

/// An interval with its statistics in some form.
#[derive(Serialize)]
pub(super) struct IntervalEntry<'a, S> {
    begin_ns: u64,
    end_ns: u64,
    begin_wall_ns: u64,
    seconds: f64,
    stats: Vec<S>,
    ticks: u64,
    missed_ticks: u64,
    lost_samples: u64,
    unread_rows: u64,
    joined: Vec<&'a str>,
    left: Vec<&'a str>,
    forgotten_objects: usize,
    unsummed_stats: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    events: &'a [EventEntry<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<&'a ReadStatus>,
}

/// One statistic of one object, or of all objects together.
#[derive(Default, Serialize)]
pub(super) struct StatEntry {
    #[serde(rename = "qom-path", skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deltas: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    true_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reset: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_high: Option<f64>,
}

impl<'a, S> IntervalEntry<'a, S> {
    pub(super) fn new(report: &'a IntervalReport<'_>, stats: Vec<S>) -> Self {
        let IntervalReport { tally, lost_samples, ref read, per_object: _, events } = *report;
        Self {
            begin_ns: tally.begin().begin_ns,
            end_ns: tally.end().end_ns,
            begin_wall_ns: tally.begin().begin_wall_ns(),
            seconds: tally.interval().map_or(0.0, |interval| interval.seconds),
            stats,
            ticks: tally.samples(),
            missed_ticks: tally.missed_ticks(lost_samples),
            lost_samples,
            unread_rows: tally.unread_rows(),
            joined: tally.joined().collect(),
            left: tally.left().collect(),
            forgotten_objects: tally.forgotten_objects(),
            unsummed_stats: tally.lost_stats(),
            events,
            read: read.as_ref(),
        }
    }
}

impl StatEntry {
    pub(super) fn new(line: &StatTally) -> Self {
        let desc = line.desc();
        let mut stat = Self {
            path: line.path.as_ref().map(ToString::to_string),
            name: desc.name.to_string(),
            reset: line.was_reset(),
            rate: line.rate.map(|rate| rate.per_second),
            rate_low: line.rate.map(|rate| rate.low),
            rate_high: line.rate.map(|rate| rate.high),
            ..Self::default()
        };
        match &line.amount {
            Amount::Count(count) => stat.delta = Some(*count),
            Amount::Buckets(counts) => stat.deltas = Some(counts.clone()),
            Amount::Level(level) if desc.is_boolean() => stat.true_share = Some(level.true_share()),
            Amount::Level(level) => {
                stat.level = (!line.has_no_sum()).then_some(level.last);
                (stat.min, stat.max) = (Some(level.min), Some(level.max));
            }
        }
        stat
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_testing::snapshots::{snapshot, vcpu};

    use super::super::text;
    use super::*;

    #[test]
    fn an_interval_has_all_facts() {
        // The second vCPU appears late and is reset.
        let begin = snapshot(1, 0, &[(vcpu(0), Some([0, 0, 0, 0, 0, 0]))]);
        let mut tally = Tally::new(&begin);
        let later = [(vcpu(0), Some([600, 250, 1, 0, 1, 0])), (vcpu(1), Some([9, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(2, 500, &later));
        let last = [(vcpu(0), Some([1200, 500, 3, 1, 0, 0])), (vcpu(1), Some([4, 0, 0, 0, 1, 0]))];
        tally.add(&snapshot(4, 1000, &last));
        let read = Some(ReadStatus::by_pread(2));
        let report =
            IntervalReport { tally: &tally, lost_samples: 0, read, per_object: false, events: &[] };
        let line = text(&report);
        for part in [
            r#"{"begin_ns": 0, "end_ns": 1000000000, "begin_wall_ns": 1000000000000000000, "#,
            r#""seconds": 1.0, "stats": [{"name": "exits", "#,
            r#""delta": 1204, "reset": true}"#,
            r#""deltas": [3, 1], "rate": 4.0, "rate_low": "#,
            r#"{"name": "blocking", "true_share": 0.75}"#,
            r#"{"name": "level", "level": 0, "min": 0, "max": 0}"#,
            r#""ticks": 2, "missed_ticks": 1, "lost_samples": 0, "unread_rows": 0, "#,
            r#""joined": ["/vm/web/vcpu[1]"], "left": [], "forgotten_objects": 0, "#,
            r#""unsummed_stats": 0, "read": {"method": "pread", "objects": 2, "#,
        ] {
            assert!(line.contains(part), "{part} is not in\n{line}");
        }
        let events = [EventEntry { ns: 7, wall_ns: 8, kind: "mark", text: "a\nb" }];
        let with_events = text(&IntervalReport { events: &events, ..report.clone() });
        let part = r#""events": [{"ns": 7, "wall_ns": 8, "kind": "mark", "text": "a\nb"}], "read""#;
        assert!(with_events.contains(part) && !line.contains("events"), "{with_events}");
        let of_each = text(&IntervalReport { read: None, per_object: true, ..report });
        assert!(
            of_each.contains(r#"{"qom-path": "/vm/web/vcpu[1]", "name": "exits", "delta": 4,"#)
        );
        assert!(!of_each.contains(r#""read""#), "{of_each}");
    }
}
