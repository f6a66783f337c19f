//! The common parts of the formats of text: times, states, and the ticks that are left out.
//!
//! Invariant: of each stretch of time the first tick in it is kept, and a time has all its digits.

use std::time::{Duration, SystemTime};

use vmstrobe_core::{RowState, Window};

/// The bytes after which rows are written out.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// Decides which ticks are kept, and counts the time from the first one.
#[derive(Debug)]
pub struct Thinning {
    every_ns: u64,
    start_ns: Option<u64>,
    due_ns: u64,
}

impl Thinning {
    /// Keeps the first tick of each stretch of time of that length, or all.
    pub fn new(every: Option<Duration>) -> Self {
        let every_ns = every.map_or(0, |every| every.as_nanos().try_into().unwrap_or(u64::MAX));
        Self { every_ns, start_ns: None, due_ns: 0 }
    }

    /// Returns whether the tick with that window is kept. It is asked about each, in their order.
    pub fn keeps(&mut self, window: Window) -> bool {
        let middle_ns = window.middle_ns();
        let start_ns = *self.start_ns.get_or_insert(middle_ns);
        if self.every_ns == 0 {
            return true;
        }
        let since_ns = middle_ns.saturating_sub(start_ns);
        let is_due = since_ns >= self.due_ns;
        if is_due {
            let stretch = since_ns / self.every_ns;
            self.due_ns = (stretch + 1).saturating_mul(self.every_ns);
        }
        is_due
    }

    /// Appends the time since the first tick in seconds: `0.001000000`.
    pub(crate) fn seconds(&self, out: &mut Vec<u8>, monotonic_ns: u64) {
        let start_ns = self.start_ns.unwrap_or(monotonic_ns);
        if monotonic_ns < start_ns {
            out.push(b'-');
        }
        let ns = monotonic_ns.abs_diff(start_ns);
        out.extend(format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000).as_bytes());
    }
}

/// Appends a point in time as RFC 3339 writes it, with ns.
pub(crate) fn time(out: &mut Vec<u8>, wall_ns: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns);
    // 2^64 ns end in the year 2554, and the format in 9999.
    out.extend(humantime::format_rfc3339_nanos(time).to_string().as_bytes());
}

/// Appends a number.
pub(crate) fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend(itoa::Buffer::new().format(number).as_bytes());
}

/// Returns the name of a row state.
pub(crate) fn state_name(state: RowState) -> &'static str {
    match state {
        RowState::Good => "good",
        RowState::Aged(_) => "aged",
        RowState::Stale => "stale",
        RowState::Torn => "torn",
        RowState::Gone => "gone",
        RowState::Io(_) => "failed",
        // Also one that this version does not know: it has no values.
        _ => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin_ns: u64) -> Window {
        Window { begin_ns, end_ns: begin_ns, wall_offset_ns: 0 }
    }

    #[test]
    fn the_first_tick_of_each_stretch_is_kept() {
        let mut thinning = Thinning::new(Some(Duration::from_nanos(10)));
        let kept: Vec<u64> = [1000, 1004, 1009, 1011, 1012, 1021, 1055, 1059, 1060]
            .into_iter()
            .filter(|&ns| thinning.keeps(at(ns)))
            .collect();
        assert_eq!(kept, [1000, 1011, 1021, 1055, 1060]);
        let mut all = Thinning::new(None);
        assert!([5, 5, 4].into_iter().all(|ns| all.keeps(at(ns))));
    }

    #[test]
    fn times_have_all_their_digits() {
        let mut thinning = Thinning::new(None);
        thinning.keeps(at(2_000_000_000));
        let mut out = Vec::new();
        for ns in [2_000_000_000, 3_000_000_001, 1_999_999_999] {
            thinning.seconds(&mut out, ns);
            out.push(b' ');
        }
        time(&mut out, 1_000_000_001);
        out.push(b' ');
        time(&mut out, u64::MAX);
        let want = "0.000000000 1.000000001 -0.000000001 1970-01-01T00:00:01.000000001Z \
                    2554-07-21T23:34:33.709551615Z";
        assert_eq!(String::from_utf8_lossy(&out), want);
    }
}
