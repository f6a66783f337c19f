//! The log of virtual machines that come and go, which is bounded however many there are.
//!
//! Invariant: nobody can fill the log by starting and ending virtual machines, and a stranger, a
//! user who is not trusted, cannot keep lines about others out of it. What is left out is counted,
//! and the next line that is said tells how many lines were.

use std::time::{Duration, Instant};

use crate::out::say;

/// How many lines may be said at once about trusted users' virtual machines: more than there are
/// sockets, ...
const LINES: RateLimit = RateLimit { burst: 600, period: Duration::from_secs(1) };
/// ... and about strangers': more than they may have sockets.
const LINES_OF_UNTRUSTED: RateLimit = RateLimit { burst: 200, period: Duration::from_secs(30) };

/// How many lines may be said.
#[derive(Clone, Copy, Debug)]
struct RateLimit {
    /// In any short time.
    burst: u32,
    /// Then another one each time so much time has passed.
    period: Duration,
}

/// Says lines, as many as may be.
#[derive(Debug)]
pub(super) struct Log {
    trusted: LimitedLines,
    untrusted: LimitedLines,
}

impl Log {
    /// Nothing has been said yet.
    pub(super) fn new() -> Self {
        Self { trusted: LimitedLines::new(LINES), untrusted: LimitedLines::new(LINES_OF_UNTRUSTED) }
    }

    /// Says this of a virtual machine, or counts it.
    pub(super) fn say(&mut self, is_untrusted: bool, text: &str) {
        let lines = if is_untrusted { &mut self.untrusted } else { &mut self.trusted };
        if let Some(line) = lines.next(Instant::now(), text) {
            say(line);
        }
    }
}

/// The lines about some users' virtual machines.
#[derive(Debug)]
struct LimitedLines {
    limit: RateLimit,
    left: u32,
    /// When the last of those that are left was granted; nothing has been said before.
    granted: Option<Instant>,
    unsaid: u64,
}

impl LimitedLines {
    fn new(limit: RateLimit) -> Self {
        Self { limit, left: limit.burst, granted: None, unsaid: 0 }
    }

    /// The line to say now, if one may be said.
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
        // What is not used does not add up beyond the allowance.
        self.granted = if left >= burst { Some(now) } else { Some(since + period * lines) };
        self.left = left.min(burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::quota::{MAX_SOCKETS, MAX_SOCKETS_OF_UNTRUSTED};

    #[test]
    fn what_is_left_out_is_counted() {
        let second = Duration::from_secs(1);
        let mut lines = LimitedLines::new(RateLimit { burst: 2, period: 10 * second });
        let begin = Instant::now();
        let mut next = |seconds: u32| lines.next(begin + second * seconds, "a");
        assert_eq!([next(0), next(0)], [Some("a".to_owned()), Some("a".to_owned())]);
        assert_eq!([next(1), next(9)], [None, None]);
        assert_eq!(next(10).as_deref(), Some("a (and 2 more lines were left out)"));
        assert_eq!(next(19), None);
        assert_eq!(next(20).as_deref(), Some("a (and 1 more line was left out)"));
        // A long silence allows no more than at the beginning.
        let said = [1000, 1000, 1000, 1009].map(&mut next);
        assert_eq!(said.map(|line| line.is_some()), [true, true, false, false]);
    }

    #[test]
    fn each_socket_can_be_told_of() {
        assert!(LINES.burst as usize > 2 * MAX_SOCKETS);
        assert!(LINES_OF_UNTRUSTED.burst as usize > MAX_SOCKETS_OF_UNTRUSTED);
        // A stranger who never rests fills less than a MB a day.
        assert!(LINES_OF_UNTRUSTED.period >= Duration::from_secs(30));
    }
}
