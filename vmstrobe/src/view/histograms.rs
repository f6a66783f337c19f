//! The histogram of the subject over the last ten seconds, and its growth over time as a heat map.
//!
//! Invariant: no count is left out: what there are no rows for is added to the lowest. A column of
//! the heat map in which nothing was read is empty, not 0.

use std::collections::BTreeMap;

use vmstrobe_core::{Desc, bucket, quantile, total};

use super::cells::scaled;
use super::compared::{Compared, Grown, has_times};
use super::curves::CurveCell;
use super::frame::{HeatMap, Histogram};
use super::objects::{ObjectId, Objects, Placed};
use crate::history::{Edges, History, Place};

/// The values that are read in a frame. Of a VM of many vCPUs, the heat map is there after some
/// frames, the newest columns first.
const VALUES_PER_FRAME: usize = 20_000;
/// The empty rows above the highest bucket with a count.
const ROWS_ABOVE: usize = 2;

/// Returns the growth of a histogram of some objects over ten seconds, in so many rows.
pub(super) fn histogram(
    of: &Compared,
    placed: &[&Placed],
    name: &str,
    rows: usize,
) -> Option<Histogram> {
    let grown = Grown::between(of.ten.as_ref(), &of.now, placed.iter().copied(), name);
    let desc = grown.desc.filter(|desc| desc.stat_type.is_histogram())?;
    let counts = if grown.known > 0 { grown.words.clone() } else { vec![0; desc.size.into()] };
    let bound = |at: usize| Some(scaled(desc, bucket(desc, at)?.end?));
    let highest = counts.iter().rposition(|&count| count > 0).unwrap_or(rows);
    let end = (highest + 1 + ROWS_ABOVE).max(rows).min(counts.len());
    let begin = end.saturating_sub(rows);
    let mut buckets: Vec<(Option<u64>, u64)> =
        (begin..end).map(|at| (bound(at), counts[at])).collect();
    if let Some((_, lowest)) = buckets.first_mut() {
        *lowest = lowest.saturating_add(total(&counts[..begin]));
    }
    let bound_of = |q| {
        let found = quantile(desc, &counts, q)?;
        Some(found.bucket.end.map(|end| scaled(desc, end)))
    };
    Some(Histogram {
        desc: desc.clone(),
        span_ns: (grown.seconds * 1e9) as u64,
        buckets,
        p50: bound_of(0.5),
        p99: bound_of(0.99),
        count: total(&counts),
    })
}

/// The heat map of a histogram, kept from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// The statistic of each object, and the width of a column in ns.
    of: (Vec<CurveCell>, u64),
    /// The growth of each bucket in a column, by the number of the column since time 0.
    columns: BTreeMap<u64, Vec<u64>>,
}

impl Heat {
    /// Returns the heat map between these edges; `None` if nothing was counted.
    pub(super) fn map(
        &mut self,
        history: &History,
        objects: &mut Objects,
        cells: Vec<CurveCell>,
        desc: &Desc,
        edges: Edges,
    ) -> Option<HeatMap> {
        let width_ns = edges.width_ns();
        if self.of.0 != cells || self.of.1 != width_ns {
            self.of = (cells, width_ns);
            self.columns.clear();
        }
        let first = edges.begin_ns / width_ns;
        let (_, newest_ns) = history.span()?;
        self.columns.retain(|&number, _| number >= first);
        let ids: Vec<ObjectId> = self.of.0.iter().map(|cell| cell.object).collect();
        let name = self.of.0.first()?.stat.clone();
        let values = 2 * ids.len() * usize::from(desc.size);
        let mut room = (VALUES_PER_FRAME / values.max(1)).max(1);
        let mut columns = Vec::with_capacity(edges.columns);
        for number in (first..first + edges.columns as u64).rev() {
            let (begin_ns, end_ns) = (number * width_ns, (number + 1) * width_ns);
            if let Some(known) = self.columns.get(&number) {
                columns.push(known.clone());
                continue;
            }
            if room == 0 {
                columns.push(Vec::new());
                continue;
            }
            let grown = history.find(begin_ns).zip(history.find(end_ns)).and_then(|(from, to)| {
                room -= usize::from(from != to);
                (from != to).then(|| grown(history, objects, &ids, &name, desc, from, to))
            });
            let grown = grown.flatten().unwrap_or_default();
            if end_ns <= newest_ns {
                self.columns.insert(number, grown.clone());
            }
            columns.push(grown);
        }
        columns.reverse();
        let counted = |row: usize| columns.iter().any(|column| column.get(row) > Some(&0));
        let rows = usize::from(desc.size);
        let low = (0..rows).find(|&row| counted(row))?;
        let high = (low..rows).rfind(|&row| counted(row))?;
        for column in columns.iter_mut().filter(|column| !column.is_empty()) {
            *column = column[low..=high].to_vec();
        }
        let bound = |at: usize| Some(scaled(desc, bucket(desc, at)?.end?));
        Some(HeatMap {
            bounds: (low..=high).map(bound).collect(),
            count_max: columns.iter().flatten().copied().max().unwrap_or(0),
            columns,
            is_time: has_times(desc),
        })
    }
}

/// Returns the growth of a histogram of some objects between two samples; `None` if no object was
/// read in both.
fn grown(
    history: &History,
    objects: &mut Objects,
    ids: &[ObjectId],
    name: &str,
    desc: &Desc,
    from: Place,
    to: Place,
) -> Option<Vec<u64>> {
    let mut sums: Option<Vec<u64>> = None;
    for &id in ids {
        let mut words = |at: Place| -> Option<Vec<u64>> {
            let (batch, tick) = history.batch(at);
            let map = objects.map(batch.layout());
            let placed = map.find(id)?;
            placed.parts.iter().find_map(|part| {
                let plan = &batch.layout().groups()[part.group].plan;
                let words = plan.column(name)?.words.clone();
                words.map(|word| batch.value(part.group, part.object, word, tick)).collect()
            })
        };
        let Some((before, now)) = words(from).zip(words(to)) else { continue };
        let is_reset = before.len() != now.len() || now.iter().zip(&before).any(|(n, b)| n < b);
        if is_reset || now.len() != usize::from(desc.size) {
            continue;
        }
        let sums = sums.get_or_insert_with(|| vec![0; now.len()]);
        for (sum, (now, before)) in sums.iter_mut().zip(now.iter().zip(&before)) {
            *sum = sum.saturating_add(now - before);
        }
    }
    sums
}
