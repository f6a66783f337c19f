//! The change of each statistic from one report to another, with its error.
//!
//! Samples that follow each other are alike: a guest that is busy now is busy a millisecond later.
//! So their number says little about the error of a mean. The error comes from blocks of at least
//! a second, and of at most a thirtieth of the recording: the rates of blocks differ by what
//! happens within either time. The error of the difference is that of Welch's t-test, for 95 % on
//! both sides. It does not know of anything slower than the recordings are long.
//!
//! Invariant: what has no error is not said to be beyond it.

use std::collections::HashMap;

use super::Report;
use super::summary::StatReport;
use crate::tally::{Amount, Statistic};

/// The fewest blocks of which the error is judged.
pub const MIN_BLOCKS: usize = 3;
/// Student's t for 95 % on both sides, for 1 degree of freedom and more.
const STUDENT_T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// Student's t for more degrees of freedom, on the safe side.
const STUDENT_T_MORE: f64 = 2.042;

/// The comparison of two reports.
#[derive(Debug)]
#[non_exhaustive]
pub struct Comparison<'a> {
    /// The changes, those beyond their error first, then those within it, then those that have
    /// none; of each the largest relative change first.
    pub changes: Vec<StatChange<'a>>,
    /// The statistics that only the earlier report has.
    pub only_before: Vec<&'a StatReport>,
    /// The statistics that only the later report has.
    pub only_after: Vec<&'a StatReport>,
}

/// The change of one statistic.
#[derive(Debug)]
#[non_exhaustive]
pub struct StatChange<'a> {
    /// The statistic in the earlier report.
    pub before: &'a StatReport,
    /// The statistic in the later report.
    pub after: &'a StatReport,
    /// The mean rate in each, in stored units per second; of a level, its mean.
    pub means: [f64; 2],
    /// The error of the difference, in the unit of the means; `None` of a level, and if one of the
    /// reports has fewer than [`MIN_BLOCKS`] blocks.
    pub error: Option<f64>,
}

/// The meaning of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is larger than its error.
    Beyond,
    /// It is not.
    Within,
    /// The error is not known.
    Unknown,
}

impl StatChange<'_> {
    /// Returns how much more it is in the later report.
    pub fn difference(&self) -> f64 {
        self.means[1] - self.means[0]
    }

    /// Returns the difference as a share of the earlier value; infinite if that is 0 and the later
    /// one is not.
    pub fn relative(&self) -> f64 {
        match self.difference() {
            0.0 => 0.0,
            difference => difference / self.means[0].abs(),
        }
    }

    /// Returns whether it is more than its error.
    pub fn verdict(&self) -> Verdict {
        match self.error {
            None => Verdict::Unknown,
            Some(error) if self.difference().abs() > error => Verdict::Beyond,
            Some(_) => Verdict::Within,
        }
    }
}

/// Compares two reports, statistic by statistic.
pub fn compare<'a>(before: &'a Report, after: &'a Report) -> Comparison<'a> {
    let mut known: HashMap<Statistic, &StatReport> =
        after.stats.iter().map(|stat| (Statistic::of(&stat.total), stat)).collect();
    let (mut changes, mut only_before) = (Vec::new(), Vec::new());
    for earlier in &before.stats {
        match known.remove(&Statistic::of(&earlier.total)) {
            Some(later) => changes.extend(change(earlier, later)),
            None => only_before.push(earlier),
        }
    }
    changes.sort_by(|one, other| {
        let size = |change: &StatChange<'_>| change.relative().abs();
        one.verdict().cmp(&other.verdict()).then(size(other).total_cmp(&size(one)))
    });
    let is_left = |stat: &&StatReport| known.contains_key(&Statistic::of(&stat.total));
    let only_after = after.stats.iter().filter(is_left).collect();
    Comparison { changes, only_before, only_after }
}

/// Returns the change of a statistic; `None` if it has no mean, as an id has none.
fn change<'a>(before: &'a StatReport, after: &'a StatReport) -> Option<StatChange<'a>> {
    let means = [mean(before)?, mean(after)?];
    Some(StatChange { before, after, means, error: error(&before.blocks, &after.blocks) })
}

fn mean(stat: &StatReport) -> Option<f64> {
    match &stat.total.amount {
        Amount::Level(_) if stat.desc().is_id() => None,
        Amount::Level(level) if stat.desc().is_boolean() => Some(level.true_share()),
        Amount::Level(level) => Some(level.mean()),
        Amount::Count(_) | Amount::Buckets(_) => stat.mean_rate(),
    }
}

/// Returns the error of the difference of the means of two sets of blocks, if there are enough.
fn error(before: &[f64], after: &[f64]) -> Option<f64> {
    if before.len().min(after.len()) < MIN_BLOCKS {
        return None;
    }
    let of_mean = [before, after].map(|blocks| variance(blocks) / blocks.len() as f64);
    let variance = of_mean[0] + of_mean[1];
    if variance == 0.0 {
        return Some(0.0);
    }
    let part = |of_mean: f64, blocks: &[f64]| of_mean * of_mean / (blocks.len() - 1) as f64;
    let freedom = variance * variance / (part(of_mean[0], before) + part(of_mean[1], after));
    Some(student_t(freedom) * variance.sqrt())
}

/// Returns the variance of which some blocks are a sample.
fn variance(blocks: &[f64]) -> f64 {
    let mean = blocks.iter().sum::<f64>() / blocks.len() as f64;
    let squares = blocks.iter().map(|block| (block - mean) * (block - mean));
    squares.sum::<f64>() / (blocks.len() - 1) as f64
}

fn student_t(freedom: f64) -> f64 {
    let whole = freedom.floor().max(1.0) as usize;
    STUDENT_T.get(whole - 1).copied().unwrap_or(STUDENT_T_MORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_welch() {
        // By hand: the means differ by 3, their variances are 1 / 3 and 4 / 3.
        let (before, after) = ([9.0, 10.0, 11.0], [11.0, 13.0, 15.0]);
        let freedom = (5.0_f64 / 3.0).powi(2) / ((1.0 / 9.0) / 2.0 + (16.0 / 9.0) / 2.0);
        assert!((2.9..3.0).contains(&freedom));
        let want = 4.303 * (5.0_f64 / 3.0).sqrt();
        let got = error(&before, &after).expect("there are enough blocks");
        assert!((got - want).abs() < 1e-9, "{got} {want}");
        assert_eq!(error(&before[..2], &after), None);
        assert_eq!(error(&[5.0; 3], &[7.0; 3]), Some(0.0));
        assert_eq!([student_t(0.3), student_t(30.9), student_t(1e9)], [12.706, 2.042, 2.042]);
    }

    /// Of two sets of one distribution, about 5 % differ by more than the error.
    #[test]
    fn the_error_holds_as_often_as_it_should() {
        let mut rng = fastrand::Rng::with_seed(1);
        // The sum of twelve is as good as normal.
        let mut blocks = |count| -> Vec<f64> {
            (0..count).map(|_| (0..12).map(|_| rng.f64()).sum::<f64>()).collect()
        };
        for count in [3, 10, 30] {
            let mean = |blocks: &[f64]| blocks.iter().sum::<f64>() / blocks.len() as f64;
            let is_beyond = (0..4000).filter(|_| {
                let (one, other) = (blocks(count), blocks(count));
                let error = error(&one, &other).expect("there are enough blocks");
                (mean(&one) - mean(&other)).abs() > error
            });
            let share = is_beyond.count() as f64 / 4000.0;
            assert!((0.02..0.065).contains(&share), "{count} blocks: {share}");
        }
    }
}
