//! Buckets and quantiles of the two kinds of histogram.
//!
//! The bounds are those of the kernel (`kvm_stats_linear_hist_update`, `kvm_stats_log_hist_update`
//! in `include/linux/kvm_host.h`): linear bucket i is `[i·w, (i+1)·w)`; log2 bucket 0 is `{0}` and
//! bucket i is `[2^(i-1), 2^i)`. The last bucket of either is open upwards.
//!
//! Invariant: a quantile is a bucket and never a single value, because a histogram does not say
//! where in a bucket its values are.

use crate::schema::Desc;
use crate::stat::StatType;

/// The values that one bucket counts, in stored units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The smallest value.
    pub low: u64,
    /// The largest value plus 1; `None` if the bucket is open.
    pub end: Option<u64>,
}

/// Returns the bounds of bucket `index` of a histogram; `None` if `desc` is no histogram or has no
/// such bucket.
///
/// ```
/// use vmstrobe_core::{Bucket, Desc, StatType, bucket};
/// let desc = Desc { stat_type: StatType::Log2Histogram, size: 32, ..Desc::counter("h", 0) };
/// assert_eq!(bucket(&desc, 0), Some(Bucket { low: 0, end: Some(1) }));
/// assert_eq!(bucket(&desc, 11), Some(Bucket { low: 1024, end: Some(2048) }));
/// assert_eq!(bucket(&desc, 31), Some(Bucket { low: 1 << 30, end: None }));
/// ```
pub fn bucket(desc: &Desc, index: usize) -> Option<Bucket> {
    let last = usize::from(desc.size).checked_sub(1)?;
    if index > last {
        return None;
    }
    let bound = |index: usize| match desc.stat_type {
        StatType::LinearHistogram => (index as u64).checked_mul(u64::from(desc.bucket_size)),
        // This is 2^(i-1), and 0 for bucket 0.
        _ => match index {
            0 => Some(0),
            1..=64 => Some(1 << (index - 1)),
            _ => None,
        },
    };
    if !desc.stat_type.is_histogram() {
        return None;
    }
    // If no 64-bit value reaches the lower bound, the bucket is empty and gets the largest bound.
    let low = bound(index).unwrap_or(u64::MAX);
    let end = if index == last { None } else { bound(index + 1) };
    Some(Bucket { low, end })
}

/// A quantile of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantile {
    /// The bucket in which it lies.
    pub bucket: Bucket,
    /// The number of values in all buckets; see [`total`].
    pub count: u64,
}

/// Returns the bucket that holds the `q`-quantile (0 ≤ q ≤ 1) of these counts: the first bucket up
/// to whose end at least `q` of all values lie. `None` if nothing was counted or `desc` is no
/// histogram.
///
/// `counts` may be the words of a histogram, or their difference over a time.
pub fn quantile(desc: &Desc, counts: &[u64], q: f64) -> Option<Quantile> {
    // A u128 is wide enough for any histogram. With a saturated u64 the rank would be too low.
    let count: u128 = counts.iter().map(|&n| u128::from(n)).sum();
    if count == 0 {
        return None;
    }
    let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u128).clamp(1, count);
    let mut seen = 0;
    let index = counts.iter().position(|&n| {
        seen += u128::from(n);
        seen >= rank
    })?;
    Some(Quantile { bucket: bucket(desc, index)?, count: total(counts) })
}

/// Returns the sum of the counts, or `u64::MAX` if it is larger.
pub fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log2(size: u16) -> Desc {
        Desc { stat_type: StatType::Log2Histogram, size, ..Desc::counter("log2", 0) }
    }

    fn linear(size: u16, bucket_size: u32) -> Desc {
        let stat_type = StatType::LinearHistogram;
        Desc { stat_type, size, bucket_size, ..Desc::counter("linear", 0) }
    }

    /// The kernel's own rule: index = min(fls64(value), size - 1).
    #[test]
    fn log2_buckets_hold_what_the_kernel_puts_there() {
        let desc = log2(32);
        for value in [0, 1, 2, 3, 4, 1023, 1024, (1 << 30) - 1, 1 << 30, u64::MAX] {
            let index = (64 - u64::leading_zeros(value) as usize).min(31);
            let bucket = bucket(&desc, index).expect("the histogram has 32 buckets");
            assert!(bucket.low <= value, "{value}");
            assert!(bucket.end.is_none_or(|end| value < end), "{value}");
        }
    }

    #[test]
    fn linear_buckets_are_of_one_width() {
        let desc = linear(4, 1000);
        assert_eq!(bucket(&desc, 2), Some(Bucket { low: 2000, end: Some(3000) }));
        assert_eq!(bucket(&desc, 3), Some(Bucket { low: 3000, end: None }));
        assert_eq!(bucket(&desc, 4), None);
    }

    #[test]
    fn odd_histograms_have_bounds_without_overflow() {
        assert_eq!(bucket(&log2(u16::MAX), 64).map(|b| b.low), Some(1 << 63));
        assert_eq!(bucket(&log2(u16::MAX), 200), Some(Bucket { low: u64::MAX, end: None }));
        assert!(bucket(&linear(u16::MAX, u32::MAX), 65534).is_some());
        assert_eq!(bucket(&log2(1), 0), Some(Bucket { low: 0, end: None }));
        assert_eq!(bucket(&Desc::counter("n", 0), 0), None);
    }

    #[test]
    fn quantiles_are_buckets() {
        let desc = log2(8);
        let counts = [0, 0, 50, 40, 9, 1, 0, 0];
        let low = |q| quantile(&desc, &counts, q).expect("the counts are not all 0").bucket.low;
        assert_eq!([low(0.0), low(0.5), low(0.51), low(0.99), low(1.0)], [2, 2, 4, 8, 16]);
        assert_eq!(quantile(&desc, &[0; 8], 0.5), None);
        let huge = [u64::MAX, u64::MAX, 0, 0, 0, 0, 0, 1];
        assert!(quantile(&desc, &huge, 0.999).is_some());
        // Two thirds of what was counted lie in the last bucket, above the sum's own limit.
        let top = [1 << 63, 0, 0, 0, 0, 0, 0, u64::MAX];
        let median = quantile(&desc, &top, 0.5).expect("the counts are not all 0");
        assert_eq!((median.bucket.end, median.count), (None, u64::MAX));
    }

    #[test]
    fn a_total_stays_at_the_top() {
        assert_eq!(total(&[]), 0);
        assert_eq!(total(&[1 << 63, (1 << 63) - 6, 5]), u64::MAX);
        assert_eq!(total(&[1 << 63, 1 << 63, 5]), u64::MAX);
    }
}
