//! Pairs: two sides measured in turn, compared pair by pair.
//!
//! Invariant: each side goes first in half of the pairs, and a ratio is of two measurements that
//! follow each other.

use std::time::{Duration, Instant};

/// The number of pairs to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A few pairs, to see that everything runs.
    Quick,
    /// Enough pairs for a stable median.
    Full,
}

/// The medians of a series of pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians {
    /// The median of our figures, in the measured unit.
    pub(crate) ours: f64,
    /// The median of the peer's figures.
    pub(crate) peer: f64,
    /// The median of the ratios of our figure to the peer's, one for each pair.
    pub(crate) ratio: f64,
}

impl Effort {
    /// Measures `pairs` pairs, or a few if it is quick. Each side returns its figure.
    pub(crate) fn pairs(
        self,
        pairs: usize,
        mut ours: impl FnMut() -> f64,
        mut peer: impl FnMut() -> f64,
    ) -> Medians {
        let pairs = if self == Self::Quick { 3 } else { pairs };
        // Caches, branch predictors and clocks settle before it counts.
        ours();
        peer();
        let (mut all_ours, mut all_peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            let (its_ours, its_peer) = if pair % 2 == 0 {
                let its_ours = ours();
                (its_ours, peer())
            } else {
                let its_peer = peer();
                (ours(), its_peer)
            };
            all_ours.push(its_ours);
            all_peers.push(its_peer);
            ratios.push(its_ours / its_peer);
        }
        Medians { ours: median(all_ours), peer: median(all_peers), ratio: median(ratios) }
    }
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the mean time of `times` calls, in ns.
pub(crate) fn ns_each(times: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    ns(start.elapsed()) / f64::from(times)
}

/// Returns a duration in ns.
pub(crate) fn ns(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}
