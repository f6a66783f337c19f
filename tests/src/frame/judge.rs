//! Checks that a frame is consistent in itself and with the one before, and counts the results.

use std::fmt;
use std::io;

use vmstrobe_core::RowState;
use vmstrobe_providers::FrameTime;

use super::sampler::ROWS;

/// The counts of a reader. `Display` writes them as the line that [`Counts::parse`] reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that were read.
    pub reads: u64,
    /// Looks that were in vain, because the frame was being written.
    pub retries: u64,
    /// Readings that were given up for that.
    pub torn: u64,
    /// Frames that were not the one before.
    pub frames: u64,
    /// Frames in which something does not hold.
    pub violations: u64,
}

/// Watches frames, one after the other.
#[derive(Debug, Default)]
pub struct Judge {
    /// So far.
    pub counts: Counts,
    last: Option<(Option<FrameTime>, u64)>,
}

impl Judge {
    /// Judges a frame; without a time, one whose rows were read one by one.
    pub fn judge(&mut self, time: Option<FrameTime>, words: &[u64; ROWS], states: &[RowState]) {
        let counts = &mut self.counts;
        counts.reads += 1;
        counts.retries += time.map_or(0, |time| u64::from(time.looks - 1));
        let value = words[0];
        let mut holds = states.iter().all(|state| *state == RowState::Good);
        holds &= words.iter().all(|word| *word == value);
        holds &= time.is_none_or(|time| time.begin_ns <= time.end_ns);
        if let Some((last_time, last)) = self.last {
            let is_same = match (last_time, time) {
                (Some(last), Some(time)) => last.begin_ns == time.begin_ns,
                _ => last == value,
            };
            holds &= if is_same { value == last } else { value > last };
            if let (Some(last), Some(time)) = (last_time, time) {
                let follows = time.begin_ns >= last.end_ns;
                holds &= if is_same { time.end_ns == last.end_ns } else { follows };
            }
            counts.frames += u64::from(!is_same);
        }
        counts.violations += u64::from(!holds);
        self.last = Some((time, value));
    }
}

impl Counts {
    /// Reads the line again.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(line: &str) -> io::Result<Self> {
        let number = |word: &str| word.parse::<u64>().ok();
        let numbers: Vec<u64> = line.split(' ').filter_map(number).collect();
        let [reads, retries, torn, frames, violations] = numbers[..] else {
            return Err(io::Error::other(format!("no counts: {line}")));
        };
        Ok(Self { reads, retries, torn, frames, violations })
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            retries: self.retries + other.retries,
            torn: self.torn + other.torn,
            frames: self.frames + other.frames,
            violations: self.violations + other.violations,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, retries, torn, frames, violations } = self;
        write!(
            f,
            "{reads} reads, {retries} retries, {torn} torn, {frames} new frames, \
             {violations} violations"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(begin_ns: u64, end_ns: u64) -> Option<FrameTime> {
        Some(FrameTime { begin_ns, end_ns, looks: 3 })
    }

    /// How many violations these are.
    fn violations(frames: &[(Option<FrameTime>, [u64; 2])]) -> u64 {
        let mut judge = Judge::default();
        for (time, [first, last]) in frames {
            let mut words = [*first; ROWS];
            words[ROWS - 1] = *last;
            judge.judge(*time, &words, &[RowState::Good; ROWS]);
        }
        judge.counts.violations
    }

    #[test]
    fn what_is_inconsistent_is_seen() {
        let good = [(at(1, 2), [5, 5]), (at(1, 2), [5, 5]), (at(2, 4), [6, 6])];
        assert_eq!(violations(&good), 0);
        assert_eq!(violations(&good.map(|(_, words)| (None, words))), 0);
        for bad in [
            (at(5, 6), [7, 8]),
            (at(5, 6), [8, 7]),
            (at(5, 6), [6, 6]),
            (at(5, 6), [5, 5]),
            (at(6, 5), [7, 7]),
            (at(3, 6), [7, 7]),
            (at(2, 5), [6, 6]),
            (at(2, 4), [7, 7]),
            (None, [5, 5]),
        ] {
            let frames: Vec<_> = good.into_iter().chain([bad]).collect();
            assert_eq!(violations(&frames), 1, "{bad:?}");
        }
        let mut judge = Judge::default();
        let mut states = [RowState::Good; ROWS];
        states[7] = RowState::Gone;
        judge.judge(at(1, 2), &[5; ROWS], &states);
        assert_eq!(judge.counts.violations, 1);
    }

    #[test]
    fn counts_are_told_in_a_line() {
        let counts = Counts { reads: 1, retries: 2, torn: 3, frames: 4, violations: 5 };
        assert_eq!(Counts::parse(&counts.to_string()).unwrap(), counts);
        assert!(Counts::parse("1 reads").is_err());
        assert_eq!(counts.and(counts).frames, 8);
    }
}
