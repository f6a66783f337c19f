//! A log of virtual machines that start and end, with a limited rate of lines.
//!
//! Invariant: no user can fill the log by starting and ending virtual machines, and a user who is
//! not trusted cannot suppress lines about the VMs of trusted users. Lines that are left out are
//! counted, and the next line that is printed has their number.

use std::time::{Duration, Instant};

use crate::out::say;

/// The limit of lines about the VMs of trusted users: in a burst, more than there are sockets.
const LINES: RateLimit = RateLimit { burst: 600, period: Duration::from_secs(1) };
/// The limit of lines about the VMs of untrusted users: in a burst, more than their sockets.
const LINES_OF_UNTRUSTED: RateLimit = RateLimit { burst: 200, period: Duration::from_secs(30) };

/// A limit of the rate of lines, as a token bucket.
#[derive(Clone, Copy, Debug)]
struct RateLimit {
    /// The largest number of lines in a short time.
    burst: u32,
    /// The time after which another line is granted.
    period: Duration,
}

/// Prints lines within the limits.
#[derive(Debug)]
pub(super) struct Log {
    trusted: LimitedLines,
    untrusted: LimitedLines,
}

impl Log {
    /// Creates a log that has printed nothing.
    pub(super) fn new() -> Self {
        Self { trusted: LimitedLines::new(LINES), untrusted: LimitedLines::new(LINES_OF_UNTRUSTED) }
    }

    /// Prints a line about a virtual machine, or counts it if the limit is reached.
    pub(super) fn say(&mut self, is_untrusted: bool, text: &str) {
        let lines = if is_untrusted { &mut self.untrusted } else { &mut self.trusted };
        if let Some(line) = lines.next(Instant::now(), text) {
            say(line);
        }
    }
}

/// The lines about the virtual machines of trusted or of untrusted users.
#[derive(Debug)]
struct LimitedLines {
    limit: RateLimit,
    left: u32,
    /// The time up to which lines were granted; `None` before the first line.
    granted: Option<Instant>,
    unsaid: u64,
}

impl LimitedLines {
    fn new(limit: RateLimit) -> Self {
        Self { limit, left: limit.burst, granted: None, unsaid: 0 }
    }

    /// Returns the line to print now, unless the limit is reached.
    fn next(&mut self, now: Instant, text: &str) -> Option<String> {
        self.grant(now);
        if self.left == 0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        let unsaid = std::mem::take(&mut self.unsaid);
        Some(match unsaid {
            0 => text.to_owned(),
            1 => format!("{text} (and 1 more line was left out)"),
            _ => format!("{text} (and {unsaid} more lines were left out)"),
        })
    }

    fn grant(&mut self, now: Instant) {
        let RateLimit { burst, period } = self.limit;
        let since = *self.granted.get_or_insert(now);
        let lines = now.saturating_duration_since(since).as_nanos() / period.as_nanos().max(1);
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(lines);
        // Unused lines do not add up beyond the burst.
        self.granted = if left >= burst { Some(now) } else { Some(since + period * lines) };
        self.left = left.min(burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::quota::{MAX_SOCKETS, MAX_SOCKETS_OF_UNTRUSTED};

    #[test]
    fn lines_that_are_left_out_are_counted() {
        let second = Duration::from_secs(1);
        let mut lines = LimitedLines::new(RateLimit { burst: 2, period: 10 * second });
        let begin = Instant::now();
        let mut next = |seconds: u32| lines.next(begin + second * seconds, "a");
        assert_eq!([next(0), next(0)], [Some("a".to_owned()), Some("a".to_owned())]);
        assert_eq!([next(1), next(9)], [None, None]);
        assert_eq!(next(10).as_deref(), Some("a (and 2 more lines were left out)"));
        assert_eq!(next(19), None);
        assert_eq!(next(20).as_deref(), Some("a (and 1 more line was left out)"));
        // A long pause grants no more lines than one burst.
        let said = [1000, 1000, 1000, 1009].map(&mut next);
        assert_eq!(said.map(|line| line.is_some()), [true, true, false, false]);
    }

    #[test]
    fn the_bursts_have_a_line_for_each_socket() {
        assert!(LINES.burst as usize > 2 * MAX_SOCKETS);
        assert!(LINES_OF_UNTRUSTED.burst as usize > MAX_SOCKETS_OF_UNTRUSTED);
        // Untrusted users that start VMs all the time write less than 1 MB a day.
        assert!(LINES_OF_UNTRUSTED.period >= Duration::from_secs(30));
    }
}
