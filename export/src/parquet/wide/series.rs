//! The series of a wide file: each statistic of each object.
//!
//! Invariant: names of columns are unique, and a histogram is one only if its buckets are those
//! that its readers will take them for.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use vmstrobe_core::{Base, Desc, Layout, Object, StatType, Unit};

use super::super::pending::Place;
use crate::columns::is_bucketed;
use crate::laid::vm_name;
use crate::metadata::Metadata;

/// The most buckets of a histogram: those of all numbers of 64 bits.
const BUCKETS_MAX: u16 = 65;

/// A statistic of an object.
#[derive(Debug)]
pub(super) struct Series {
    /// The name of the column.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The place of its first word.
    pub(super) place: Place,
    /// The name of the statistic.
    metric: String,
    unit: Option<&'static str>,
    description: String,
    labels: Vec<(&'static str, String)>,
}

/// The kind of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// A histogram of so many buckets that double.
    Histogram(u16),
}

impl Kind {
    /// Returns the type of its values.
    pub(super) fn type_(self) -> crate::heads::Type {
        match self {
            Self::Gauge => crate::heads::Type::I64,
            Self::Counter | Self::Histogram(_) => crate::heads::Type::U64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn of(desc: &Desc) -> Self {
        match desc.stat_type {
            // Bucket 0 is the number 0, bucket n those from 2^(n-1) on, as Rezolus' histograms of
            // grouping power 0 have it.
            StatType::Log2Histogram if (2..=BUCKETS_MAX).contains(&desc.size) => {
                Self::Histogram(desc.size)
            }
            StatType::Cumulative | StatType::LinearHistogram | StatType::Log2Histogram => {
                Self::Counter
            }
            // Also one of a newer kernel: a gauge claims the least.
            _ => Self::Gauge,
        }
    }
}

impl Series {
    /// Returns what a reader is told beside the values. What it does not know is a label.
    pub(super) fn field_pairs(&self) -> Vec<(String, String)> {
        let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        let mut pairs = vec![pair("metric", &self.metric), pair("metric_type", self.kind.name())];
        pairs.extend(self.unit.map(|unit| pair("unit", unit)));
        if let Kind::Histogram(buckets) = self.kind {
            pairs.push(pair("grouping_power", "0"));
            pairs.push(pair("max_value_power", &(buckets - 1).to_string()));
        }
        pairs.extend(self.labels.iter().map(|(key, text)| pair(key, text)));
        pairs
    }
}

/// Returns the series of a layout. `vm` is the VM of objects whose path names none.
pub(super) fn of(layout: &Layout, vm: Option<&str>) -> Vec<Series> {
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for (number, group) in layout.groups().iter().enumerate() {
        let schema = group.plan.schema();
        for (index, object) in group.objects.iter().enumerate() {
            for column in group.plan.columns() {
                let desc = &schema.descs()[column.desc];
                let kind = Kind::of(desc);
                let is_apart = is_bucketed(desc) && !matches!(kind, Kind::Histogram(_));
                let parts = if is_apart { desc.size } else { 1 };
                for part in 0..parts {
                    let bucket = is_apart.then_some(part);
                    let mut labels = labels(object, vm);
                    labels.extend(bucket.map(|bucket| ("bucket", bucket.to_string())));
                    all.push(Series {
                        name: unique(&mut names, name(desc, object, kind, bucket)),
                        kind,
                        place: (number, index, column.words.start + usize::from(part)),
                        metric: desc.name.to_string(),
                        unit: unit(desc),
                        description: format!("{} of {}", desc.stat_type, schema.provider()),
                        labels,
                    });
                }
            }
        }
    }
    all
}

fn name(desc: &Desc, object: &Object, kind: Kind, bucket: Option<u16>) -> String {
    let suffix = if matches!(kind, Kind::Histogram(_)) { ":buckets" } else { "" };
    let bucket = bucket.map(|bucket| format!("_{bucket}")).unwrap_or_default();
    format!("{}{bucket}@{}{suffix}", desc.name, object.path)
}

/// Returns a name that no column has yet.
fn unique(names: &mut HashSet<String>, name: String) -> String {
    let numbered = (2..).map(|number| match name.strip_suffix(":buckets") {
        Some(base) => format!("{base}#{number}:buckets"),
        None => format!("{name}#{number}"),
    });
    let mut free = std::iter::once(name.clone()).chain(numbered);
    let free = free.find(|name| !names.contains(name));
    let free = free.expect("there are fewer names than numbers");
    names.insert(free.clone());
    free
}

fn labels(object: &Object, vm: Option<&str>) -> Vec<(&'static str, String)> {
    let vm = vm_name(&object.path).or(vm).map(|vm| ("vm", vm.to_owned()));
    let vcpu = object.index.map(|index| ("vcpu", index.to_string()));
    // The path of a vCPU of a VM says no more than its two labels.
    let is_known = vm.is_some() && vcpu.is_some();
    let path = (!is_known).then(|| ("path", object.path.to_string()));
    let provider = ("provider", object.schema.provider().to_owned());
    [vm, vcpu, path, Some(provider)].into_iter().flatten().collect()
}

/// Returns the unit of a statistic as a word; `None` if there is no word for it.
fn unit(desc: &Desc) -> Option<&'static str> {
    let is_plain = desc.scale.exponent == 0;
    let is_decimal = desc.scale.base == Base::Ten;
    match (desc.unit, desc.scale.exponent) {
        (Unit::Seconds, -9) if is_decimal => Some("nanoseconds"),
        (Unit::Seconds, -6) if is_decimal => Some("microseconds"),
        (Unit::Seconds, -3) if is_decimal => Some("milliseconds"),
        (Unit::Seconds, _) if is_plain => Some("seconds"),
        (Unit::Bytes, _) if is_plain => Some("bytes"),
        (Unit::Cycles, _) if is_plain => Some("cycles"),
        _ => None,
    }
}

/// Returns the keys of the footer beside those of every recording.
pub(super) fn pairs(metadata: &Metadata, series: &[Series]) -> Vec<(String, String)> {
    let descriptions: BTreeMap<&str, &str> =
        series.iter().map(|series| (&*series.metric, &*series.description)).collect();
    let mut pairs = vec![
        ("source".to_owned(), "vmstrobe".to_owned()),
        ("version".to_owned(), metadata.version.clone()),
        ("descriptions".to_owned(), json!(descriptions).to_string()),
    ];
    // The key holds whole milliseconds, and no interval is better than a wrong one.
    let interval_ms = metadata.hz.map(|hz| 1000.0 / hz);
    let interval_ms = interval_ms.filter(|ms| ms.fract() == 0.0 && *ms >= 1.0 && *ms < 1e15);
    pairs.extend(interval_ms.map(|ms| ("sampling_interval_ms".to_owned(), format!("{ms:.0}"))));
    pairs
}
