//! Reports as JSON, and the change from one to another.
//!
//! Invariant: a report has the fields of an interval with the same values, and more. A change has
//! an error only if there is one.

use serde::{Serialize, Serializer};
use vmstrobe_export::End;

use super::interval::{EventEntry, IntervalEntry, IntervalReport, StatEntry};
use crate::report::{BinRates, Report, StatChange, StatReport, Verdict, compare};
use crate::tally::Amount;

/// The quantiles of a histogram that are written.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

/// One or two reports, to be written as JSON; of two, with the change from the first to the second.
///
/// ```no_run
/// use std::path::Path;
/// use vmstrobe::json::{self, ReportsText};
/// use vmstrobe::report::{Report, ReportOptions};
/// let report = Report::of_file(Path::new("run.arrows"), ReportOptions::default())?;
/// println!("{}", json::text(&ReportsText(&[report])));
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReportsText<'a>(pub &'a [Report]);

impl Serialize for ReportsText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let comparison = match self.0 {
            [before, after] => Some(compare(before, after)),
            _ => None,
        };
        let named = |stats: &[&StatReport]| {
            stats.iter().map(|stat| stat.desc().name.to_string()).collect::<Vec<_>>()
        };
        let comparison = comparison.as_ref().map(|comparison| ComparisonEntry {
            changes: comparison.changes.iter().map(ChangeEntry::new).collect(),
            only_before: named(&comparison.only_before),
            only_after: named(&comparison.only_after),
        });
        let events = self.0.iter().map(|report| report.events.iter().map(EventEntry::from));
        let events: Vec<Vec<EventEntry<'_>>> = events.map(Iterator::collect).collect();
        let intervals = self.0.iter().zip(&events);
        let intervals = intervals.map(|(report, events)| interval(report, events));
        let intervals: Vec<IntervalReport<'_>> = intervals.collect();
        let reports = self.0.iter().zip(&intervals);
        let reports =
            reports.map(|(report, interval)| ReportEntry::new(report, interval)).collect();
        ReportsEntry { reports, comparison }.serialize(serializer)
    }
}

fn interval<'a>(report: &'a Report, events: &'a [EventEntry<'a>]) -> IntervalReport<'a> {
    let Report { tally, lost_samples, read, .. } = report;
    let (lost_samples, read) = (*lost_samples, read.clone());
    IntervalReport { tally, lost_samples, read, per_object: false, events }
}

#[derive(Serialize)]
struct ReportsEntry<'a> {
    reports: Vec<ReportEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<ComparisonEntry>,
}

#[derive(Serialize)]
struct ReportEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hz: Option<f64>,
    labels: Vec<LabelEntry<'a>>,
    #[serde(flatten)]
    interval: IntervalEntry<'a, ReportStatEntry>,
    fine_ns: u64,
    gaps: u64,
    gap_seconds: f64,
    unlisted_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

#[derive(Serialize)]
struct LabelEntry<'a> {
    key: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct ReportStatEntry {
    provider: String,
    target: String,
    #[serde(flatten)]
    stat: StatEntry,
    objects: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bins: Vec<BinsEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    busiest: Option<BusiestEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quantiles: Vec<QuantileEntry>,
}

#[derive(Serialize)]
struct BinsEntry {
    width_ns: u64,
    bins: u64,
    bins_without: u64,
    min: f64,
    p50: f64,
    p99: f64,
    max: f64,
    max_at_seconds: f64,
}

#[derive(Serialize)]
struct BusiestEntry {
    #[serde(rename = "qom-path")]
    path: String,
    total: u64,
    share: f64,
}

#[derive(Serialize)]
struct QuantileEntry {
    q: f64,
    low: u64,
    end: Option<u64>,
}

#[derive(Serialize)]
struct ComparisonEntry {
    changes: Vec<ChangeEntry>,
    only_before: Vec<String>,
    only_after: Vec<String>,
}

#[derive(Serialize)]
struct ChangeEntry {
    provider: String,
    target: String,
    name: String,
    before: f64,
    after: f64,
    difference: f64,
    relative: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    verdict: &'static str,
    blocks_before: usize,
    blocks_after: usize,
}

impl<'a> ReportEntry<'a> {
    fn new(report: &'a Report, interval: &'a IntervalReport<'_>) -> Self {
        let metadata = &report.metadata;
        let stats = report.stats.iter().map(|stat| ReportStatEntry::new(stat, report)).collect();
        let (end, cut_bytes) = end(report);
        Self {
            file: report.path.as_ref().map(|path| path.display().to_string()),
            version: &metadata.version,
            host: metadata.host.as_deref(),
            kernel: metadata.kernel.as_deref(),
            method: metadata.method.as_deref(),
            hz: metadata.hz.filter(|hz| hz.is_finite()),
            labels: metadata.labels.iter().map(|(key, text)| LabelEntry { key, text }).collect(),
            interval: IntervalEntry::new(interval, stats),
            fine_ns: report.fine_ns,
            gaps: report.gaps,
            gap_seconds: report.gaps_ns as f64 * 1e-9,
            unlisted_events: report.unlisted_events,
            end,
            cut_bytes,
            damage: report.damage.as_ref().map(ToString::to_string),
        }
    }
}

/// Returns a word for the end of a recording, and the bytes that were left out.
fn end(report: &Report) -> (Option<&'static str>, Option<u64>) {
    if report.damage.is_some() {
        return (Some("damaged"), None);
    }
    match report.end {
        Some(End::Finished) => (Some("finished"), None),
        Some(End::Torn { cut_bytes, .. }) => (Some("torn"), Some(cut_bytes)),
        Some(End::Trailing { cut_bytes, .. }) => (Some("trailing"), Some(cut_bytes)),
        Some(_) => (Some("unfinished"), None),
        None => (None, None),
    }
}

impl ReportStatEntry {
    fn new(stat: &StatReport, report: &Report) -> Self {
        let schema = &stat.total.schema;
        let bins = |rates: &BinRates| BinsEntry {
            width_ns: rates.width_ns,
            bins: rates.bins,
            bins_without: rates.bins_without,
            min: rates.min,
            p50: rates.p50,
            p99: rates.p99,
            max: rates.max,
            max_at_seconds: report.seconds_at(rates.max_at_ns),
        };
        let busiest = stat.busiest.as_ref().map(|busiest| BusiestEntry {
            path: busiest.path.to_string(),
            total: busiest.total,
            share: busiest.share,
        });
        let quantile = |q| {
            stat.quantile(q).map(|bucket| QuantileEntry { q, low: bucket.low, end: bucket.end })
        };
        let mean = match &stat.total.amount {
            Amount::Level(level) if !stat.desc().is_boolean() && !stat.desc().is_id() => {
                Some(level.mean())
            }
            _ => None,
        };
        Self {
            provider: schema.provider().to_owned(),
            target: schema.target().name().to_owned(),
            stat: StatEntry::new(&stat.total),
            objects: stat.total.objects,
            mean,
            bins: stat.fine.iter().chain(&stat.coarse).map(bins).collect(),
            busiest,
            quantiles: QUANTILES.into_iter().filter_map(quantile).collect(),
        }
    }
}

impl ChangeEntry {
    fn new(change: &StatChange<'_>) -> Self {
        let schema = &change.before.total.schema;
        Self {
            provider: schema.provider().to_owned(),
            target: schema.target().name().to_owned(),
            name: change.before.desc().name.to_string(),
            before: change.means[0],
            after: change.means[1],
            difference: change.difference(),
            relative: Some(change.relative()).filter(|relative| relative.is_finite()),
            error: change.error,
            verdict: match change.verdict() {
                Verdict::Beyond => "beyond",
                Verdict::Within => "within",
                Verdict::Unknown => "unknown",
            },
            blocks_before: change.before.blocks(),
            blocks_after: change.after.blocks(),
        }
    }
}
