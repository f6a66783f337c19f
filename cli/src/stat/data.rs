//! The report of one interval as JSON. docs/json.md has its fields.
//!
//! Invariant: a field is absent only if it has no value, such as the sum of levels or the rate of a
//! statistic that was reset. Only the fields that docs/json.md marks have text for people.

use serde::Serialize;
use vmstrobe::{Amount, Desc, StatTally};

use super::report::{Report, Style};
use crate::read_status::ReadData;

/// The report of one interval.
#[derive(Serialize)]
pub(super) struct IntervalData<'a> {
    begin_ns: u64,
    end_ns: u64,
    begin_wall_ns: u64,
    seconds: f64,
    stats: Vec<StatData>,
    ticks: u64,
    missed_ticks: u64,
    lost_samples: u64,
    unread_rows: u64,
    joined: Vec<&'a str>,
    left: Vec<&'a str>,
    forgotten_objects: usize,
    unsummed_stats: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<ReadData>,
}

/// One statistic of one object, or of all objects together.
#[derive(Default, Serialize)]
struct StatData {
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

impl Report<'_> {
    /// Returns the report as data, for each object or for all objects together.
    pub(super) fn data(&self, style: Style) -> IntervalData<'_> {
        let tally = self.tally;
        IntervalData {
            begin_ns: tally.begin().begin_ns,
            end_ns: tally.end().end_ns,
            begin_wall_ns: tally.begin().begin_wall_ns(),
            seconds: tally.interval().map_or(0.0, |interval| interval.seconds),
            stats: tally.stats(style.per_object).iter().map(stat_data).collect(),
            ticks: tally.samples(),
            missed_ticks: self.missed_ticks(),
            lost_samples: self.lost_samples,
            unread_rows: tally.unread_rows(),
            joined: tally.joined().collect(),
            left: tally.left().collect(),
            forgotten_objects: tally.forgotten_objects(),
            unsummed_stats: tally.lost_stats(),
            read: self.read.as_ref().map(ReadData::from),
        }
    }
}

fn stat_data(line: &StatTally) -> StatData {
    let desc: &Desc = line.desc();
    let mut stat = StatData {
        path: line.path.as_ref().map(ToString::to_string),
        name: desc.name.to_string(),
        reset: line.was_reset(),
        rate: line.rate.map(|rate| rate.per_second),
        rate_low: line.rate.map(|rate| rate.low),
        rate_high: line.rate.map(|rate| rate.high),
        ..StatData::default()
    };
    match &line.amount {
        Amount::Count(count) => stat.delta = Some(*count),
        Amount::Buckets(counts) => stat.deltas = Some(counts.clone()),
        Amount::Level(level) if desc.is_boolean() => {
            stat.true_share = Some(level.trues as f64 / level.samples.max(1) as f64);
        }
        Amount::Level(level) => {
            stat.level = (!line.has_no_sum()).then_some(level.last);
            (stat.min, stat.max) = (Some(level.min), Some(level.max));
        }
    }
    stat
}
