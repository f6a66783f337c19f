//! Stretches: samples joined until they cover a width of time, so that their rate is one of that
//! width.
//!
//! The rate between two neighbouring samples can be fiction. After a late tick the next one comes
//! early, and the time between them is short by more than the error of either. So samples are
//! joined until the width has passed, give or take the jitter of a tick.
//!
//! Invariant: every sample is in exactly one stretch, and each stretch begins at the sample that
//! ended the one before. So the growths of all stretches add up to the growth from the first sample
//! to the last, and their times to the time between these.

use std::ops::Range;

use vmstrobe_core::Window;

/// The share of the width by which a stretch may be shorter than it: a twentieth.
const SLACK_SHARE: u64 = 20;
/// The number of widths from which on a stretch is a gap. With two, a single lost tick would make
/// one if the width is the time of a tick: less than one width before it, and two for it.
const GAP_WIDTHS: u64 = 3;

/// A stretch of time between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The middle of the sample at which it begins, in ns of `CLOCK_MONOTONIC`. That sample ended
    /// the stretch before.
    pub begin_ns: u64,
    /// The middle of the sample that ended it, in ns of `CLOCK_MONOTONIC`.
    pub end_ns: u64,
    /// The number of samples in it, the one at its end included.
    pub samples: u64,
    /// Whether it has a rate of the width.
    pub kind: StretchKind,
}

/// Whether a stretch has a rate of the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StretchKind {
    /// It covers the width: it has a rate.
    Whole,
    /// It is much longer than the width, because samples are missing: what happened in it is known,
    /// but not when.
    Gap,
    /// It was ended before the width had passed: its rate would be one of another width.
    Short,
}

/// Joins samples to stretches of one width.
///
/// ```
/// use vmstrobe::{StretchKind, Stretches, Window};
/// // Samples at 1 kHz, of which the third is late.
/// let at_us = [0, 1000, 2900, 3000, 4000];
/// let window = |at_ns| Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 };
/// let mut stretches = Stretches::new(1_000_000);
/// let joined = at_us.iter().filter_map(|us| stretches.push(window(us * 1000)));
/// let joined: Vec<_> = joined.collect();
/// let lengths: Vec<u64> = joined.iter().map(|stretch| stretch.length_ns()).collect();
/// assert_eq!(lengths, [1_000_000, 1_900_000, 1_100_000]);
/// assert!(joined.iter().all(|stretch| stretch.kind == StretchKind::Whole));
/// ```
#[derive(Clone, Debug)]
pub struct Stretches {
    width_ns: u64,
    open: Option<Open>,
}

/// The stretch that has begun.
#[derive(Clone, Copy, Debug)]
struct Open {
    begin_ns: u64,
    /// The newest sample.
    end_ns: u64,
    samples: u64,
}

impl Stretch {
    /// Returns the time from its begin to its end, in ns.
    pub fn length_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.begin_ns)
    }
}

impl Stretches {
    /// Makes stretches of this width, in ns. It should not be less than the time from one sample
    /// to the next; else every stretch is one step between two samples, or a gap.
    pub fn new(width_ns: u64) -> Self {
        Self { width_ns: width_ns.max(1), open: None }
    }

    /// Returns the width, in ns.
    pub fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// Adds the next sample, which is not earlier than the one before. Returns the stretch that it
    /// ends. The first sample only opens the first stretch.
    pub fn push(&mut self, window: Window) -> Option<Stretch> {
        let at_ns = window.middle_ns();
        let Some(open) = &mut self.open else {
            self.open = Some(Open { begin_ns: at_ns, end_ns: at_ns, samples: 1 });
            return None;
        };
        let step_ns = at_ns.saturating_sub(open.end_ns);
        open.end_ns = open.end_ns.max(at_ns);
        open.samples += 1;
        // Another step like this one would end farther from the width than this sample is.
        let slack_ns = (self.width_ns / SLACK_SHARE).min(step_ns / 2);
        let is_due = (open.end_ns - open.begin_ns).saturating_add(slack_ns) >= self.width_ns;
        if is_due { self.cut() } else { None }
    }

    /// Ends the stretch that has begun, if it has any sample: after the last sample, or where what
    /// follows is to stand by itself. The next stretch begins at the newest sample.
    pub fn cut(&mut self) -> Option<Stretch> {
        let open = self.open.as_mut().filter(|open| open.samples > 0)?;
        let Open { begin_ns, end_ns, samples } = *open;
        *open = Open { begin_ns: end_ns, end_ns, samples: 0 };
        let length_ns = end_ns - begin_ns;
        let kind = match length_ns {
            _ if length_ns >= self.width_ns.saturating_mul(GAP_WIDTHS) => StretchKind::Gap,
            _ if length_ns >= self.width_ns - self.width_ns / SLACK_SHARE => StretchKind::Whole,
            _ => StretchKind::Short,
        };
        Some(Stretch { begin_ns, end_ns, samples, kind })
    }

    /// Splits the next samples, such as those of a batch, into ranges of one stretch each. With
    /// each range comes the stretch that its last sample ends; the last range has none if its
    /// stretch goes on with the samples that follow.
    pub fn split(
        &mut self,
        windows: &[Window],
    ) -> impl Iterator<Item = (Range<usize>, Option<Stretch>)> {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let rest = windows.get(begin..).filter(|rest| !rest.is_empty())?;
            let samples = rest.iter().zip(begin + 1..);
            let mut ended =
                samples.filter_map(|(&window, end)| Some((end, Some(self.push(window)?))));
            let (end, stretch) = ended.next().unwrap_or((windows.len(), None));
            let range = begin..end;
            begin = end;
            Some((range, stretch))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn window(at_ns: u64) -> Window {
        Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns: 0 }
    }

    fn stretches(width_ns: u64, at_ns: &[u64]) -> Vec<Stretch> {
        let mut stretches = Stretches::new(width_ns);
        let mut all: Vec<_> = at_ns.iter().filter_map(|&at| stretches.push(window(at))).collect();
        all.extend(stretches.cut());
        assert_eq!(stretches.cut(), None, "all samples are in a stretch");
        all
    }

    fn lengths_us(width_ns: u64, at_us: &[u64]) -> Vec<(u64, StretchKind)> {
        let at_ns: Vec<u64> = at_us.iter().map(|us| us * 1000).collect();
        let all = stretches(width_ns, &at_ns);
        all.iter().map(|stretch| (stretch.length_ns() / 1000, stretch.kind)).collect()
    }

    /// Times of samples at 1 kHz with jitter, late ticks, lost ticks and longer gaps.
    fn times(seed: u64, count: usize) -> Vec<u64> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut random = move |below: u64| rng.u64(..below);
        let (mut tick, mut last) = (random(100), 0);
        let time = |_| {
            tick += match random(100) {
                0 => random(50),
                1..=3 => 1,
                _ => 0,
            } + 1;
            let late = if random(20) == 0 { random(MS) } else { random(MS / 50) };
            last = (tick * MS + late).max(last + 1);
            last
        };
        (0..count).map(time).collect()
    }

    #[test]
    fn a_width_of_many_ticks_is_kept_to_the_tick() {
        use StretchKind::{Short, Whole};
        // Not 950 ms, although the slack is a twentieth.
        let at_us: Vec<u64> = (0..=2100).map(|ms| ms * 1000 + ms % 3 * 20).collect();
        let want = [(1_000_020, Whole), (1_000_020, Whole), (99_960, Short)];
        assert_eq!(lengths_us(1000 * MS, &at_us), want);
        let tens: Vec<u64> = (0..=30).map(|ms| ms * 1000 - ms % 2 * 30 + 30).collect();
        assert_eq!(lengths_us(10 * MS, &tens), [(10_000, Whole); 3]);
    }

    #[test]
    fn an_early_tick_has_no_rate_of_its_own() {
        use StretchKind::{Short, Whole};
        assert_eq!(
            lengths_us(MS, &[0, 1000, 2840, 3000, 4000, 4960]),
            [(1000, Whole), (1840, Whole), (1160, Whole), (960, Whole)]
        );
        assert_eq!(lengths_us(MS, &[0, 1000, 1940]), [(1000, Whole), (940, Short)]);
        assert_eq!(lengths_us(MS, &[5]), [(0, Short)]);
    }

    #[test]
    fn only_several_missing_ticks_are_a_gap() {
        use StretchKind::{Gap, Whole};
        // One lost tick, the one before it late; then four lost ones.
        let at_us = [0, 940, 2990, 4000, 9000, 10_000];
        let want = [(2990, Whole), (1010, Whole), (5000, Gap), (1000, Whole)];
        assert_eq!(lengths_us(MS, &at_us), want);
        assert_eq!(lengths_us(u64::MAX, &[0, 1]), [(1, StretchKind::Short)]);
    }

    #[test]
    fn every_sample_is_in_one_stretch_and_all_add_up() {
        for seed in 0..50 {
            let at_ns = times(seed, 2000);
            for width_ns in [MS / 3, MS, 10 * MS, 100 * MS, 1000 * MS] {
                let all = stretches(width_ns, &at_ns);
                let samples: u64 = all.iter().map(|stretch| stretch.samples).sum();
                assert_eq!(samples as usize, at_ns.len());
                let length: u64 = all.iter().map(Stretch::length_ns).sum();
                assert_eq!(length, at_ns[at_ns.len() - 1] - at_ns[0]);
                assert!(all.windows(2).all(|pair| pair[0].end_ns == pair[1].begin_ns));
                let (last, before) = all.split_last().expect("there are samples");
                assert!(before.iter().all(|stretch| stretch.length_ns() >= width_ns / 20 * 19));
                let is_whole = |stretch: &&Stretch| stretch.kind == StretchKind::Whole;
                let wholes = all.iter().filter(is_whole);
                assert!({ wholes }.all(|stretch| stretch.length_ns() < 3 * width_ns));
                assert!(last.kind != StretchKind::Short || last.length_ns() < width_ns);
            }
        }
    }

    #[test]
    fn the_growths_of_all_stretches_are_the_total() {
        for seed in 0..20 {
            let at_ns = times(seed, 1000);
            let value = |sample: usize| (sample * sample) as u64;
            let (mut sample, mut grown) = (0, 0);
            for stretch in stretches(10 * MS, &at_ns) {
                let first = sample;
                sample += stretch.samples as usize;
                // The first sample of all has nothing before it.
                grown += value(sample - 1) - value(first.saturating_sub(1));
            }
            assert_eq!(grown, value(at_ns.len() - 1));
        }
    }

    #[test]
    fn batches_of_any_size_are_split_as_all_samples_together() {
        let at_ns = times(7, 3000);
        let windows: Vec<Window> = at_ns.iter().map(|&at| window(at)).collect();
        let want = stretches(10 * MS, &at_ns);
        for size in [1, 7, 500, 3000] {
            let (mut stretches, mut all, mut ranges) = (Stretches::new(10 * MS), vec![], 0);
            for batch in windows.chunks(size) {
                let mut end = 0;
                for (range, stretch) in stretches.split(batch) {
                    assert!(range.start == end && !range.is_empty());
                    end = range.end;
                    let last = batch[end - 1].middle_ns();
                    assert!(stretch.is_none_or(|stretch| stretch.end_ns == last));
                    assert!(stretch.is_some() || end == batch.len());
                    all.extend(stretch);
                    ranges += 1;
                }
                assert_eq!(end, batch.len());
            }
            all.extend(stretches.cut());
            assert_eq!(all, want);
            assert!(ranges >= want.len() && ranges <= want.len() + windows.len() / size + 1);
        }
    }
}
