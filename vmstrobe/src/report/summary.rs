//! One statistic of a report: its total, its rates, and the object that has most of it.
//!
//! Invariant: a rate is that of a span of its width. Spans that are too short, or in which samples
//! or values are missing, are counted and have none. An object is named only if its total is known
//! by itself.

use std::collections::HashMap;

use vmstrobe_core::{Bucket, Desc, quantile};

use super::axis::{Span, Spans};
use super::rates::Series;
use crate::tally::{Amount, StatTally, Statistic, Tally};

/// A statistic of a report.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StatReport {
    /// The total of all objects, with its rate over the whole time.
    pub total: StatTally,
    /// The object with the largest total, if there are several and it has any.
    pub busiest: Option<BusiestObject>,
    /// The rates over short bins, of 10 ms if samples are not farther apart; `None` of a level, if
    /// no bin has a rate, and if they would not be shorter than the coarse ones.
    pub fine: Option<BinRates>,
    /// The rates over bins of a second, or longer if samples are farther apart; `None` of a level,
    /// and if no bin has a rate.
    pub coarse: Option<BinRates>,
    /// The rates of blocks of at least a second, for the error of a comparison.
    pub(super) blocks: Vec<f64>,
}

/// The object that has most of a statistic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BusiestObject {
    /// Its path.
    pub path: Box<str>,
    /// Its total, in stored units.
    pub total: u64,
    /// Its share of the total of all.
    pub share: f64,
}

/// The rates of a statistic over bins of one width, in stored units per second, of all objects
/// together. A quantile is the rate of a bin: the lowest that so many of the bins do not exceed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BinRates {
    /// The width of a bin, in ns.
    pub width_ns: u64,
    /// The number of bins with a rate.
    pub bins: u64,
    /// The number of bins without: in a gap, or where a value was too old.
    pub bins_without: u64,
    /// The lowest rate.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The rate that 99 % of the bins do not exceed.
    pub p99: f64,
    /// The highest rate.
    pub max: f64,
    /// The begin of the first bin with the highest rate, in ns of `CLOCK_MONOTONIC`.
    pub max_at_ns: u64,
}

impl StatReport {
    /// Returns the descriptor of the statistic.
    pub fn desc(&self) -> &Desc {
        self.total.desc()
    }

    /// Returns the mean rate over the whole time, in stored units per second: of a counter that was
    /// reset, that of its blocks. `None` of a level.
    pub fn mean_rate(&self) -> Option<f64> {
        let blocks = (!self.blocks.is_empty())
            .then(|| self.blocks.iter().sum::<f64>() / self.blocks.len() as f64);
        match self.total.amount {
            Amount::Level(_) => None,
            _ => self.total.rate.map(|rate| rate.per_second).or(blocks),
        }
    }

    /// Returns the number of blocks of at least a second, by which the error of its rate is judged.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Returns the bucket that holds a quantile of a histogram's growth; `None` of anything else,
    /// and if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<Bucket> {
        let Amount::Buckets(counts) = &self.total.amount else { return None };
        quantile(self.desc(), counts, q).map(|quantile| quantile.bucket)
    }
}

impl BinRates {
    /// Returns the rates of a series in these spans, if any has one.
    pub(super) fn of(series: &Series, spans: &Spans) -> Option<Self> {
        let mut rates = Vec::new();
        let mut highest: Option<(f64, &Span)> = None;
        for (rate, span) in series.rates(spans) {
            rates.push(rate);
            if highest.is_none_or(|(max, _)| rate > max) {
                highest = Some((rate, span));
            }
        }
        let (max, span) = highest?;
        Some(Self {
            width_ns: spans.width_ns,
            bins: rates.len() as u64,
            bins_without: (spans.spans.len() - rates.len()) as u64,
            min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            p50: nearest_rank(&mut rates, 0.5),
            p99: nearest_rank(&mut rates, 0.99),
            max,
            max_at_ns: span.time_ns.start,
        })
    }
}

/// Returns the busiest object of each statistic that counts, by the statistic.
pub(super) fn busiest_of_all(tally: &Tally) -> HashMap<Statistic, BusiestObject> {
    let mut found: HashMap<Statistic, Found> = HashMap::new();
    for line in tally.stats(true) {
        if matches!(line.amount, Amount::Level(_)) {
            continue;
        }
        let found = found.entry(Statistic::of(&line)).or_default();
        let total = line.amount.total();
        found.sum += u128::from(total);
        found.objects += line.objects;
        if let Some(path) = line.path.filter(|_| total > found.most.as_ref().map_or(0, |m| m.1)) {
            found.most = Some((path, total));
        }
    }
    found.into_iter().filter_map(|(of, found)| Some((of, found.busiest()?))).collect()
}

#[derive(Default)]
struct Found {
    objects: usize,
    sum: u128,
    most: Option<(Box<str>, u64)>,
}

impl Found {
    fn busiest(self) -> Option<BusiestObject> {
        let (path, total) = self.most.filter(|_| self.objects > 1)?;
        Some(BusiestObject { path, total, share: total as f64 / self.sum as f64 })
    }
}

/// Returns the lowest of some rates that the share `q` of them do not exceed. Their order changes.
fn nearest_rank(rates: &mut [f64], q: f64) -> f64 {
    let rank = (rates.len() as f64 * q).ceil() as usize;
    let at = rank.clamp(1, rates.len()) - 1;
    *rates.select_nth_unstable_by(at, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_rates_of_bins() {
        let ascending = || (1..=200).map(f64::from).collect::<Vec<_>>();
        let of = |q| nearest_rank(&mut ascending(), q);
        assert_eq!([of(0.0), of(0.5), of(0.99), of(1.0)], [1.0, 100.0, 198.0, 200.0]);
        assert_eq!(nearest_rank(&mut [3.0, 1.0], 0.5), 1.0);
        assert_eq!(nearest_rank(&mut [3.0], 0.99), 3.0);
    }
}
