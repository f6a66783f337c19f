//! A log of virtual machines that start and end, with a limited rate of lines.
//!
//! Invariant: no user can fill the log by starting and ending virtual machines, and a user who is
//! not trusted cannot suppress lines about the VMs of trusted users. Lines that are left out are
//! counted, and the next line that is printed has their number. A VM that runs for less than
//! [`ANNOUNCED_AFTER`] has no line; their number is kept for the final message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe::serve::{Event, ServedVm};

use super::describe::{ANNOUNCED_AFTER, announcement, lacks_vm_statistics, title, waiting_line};
use crate::error::Error;
use crate::messages::of_notices;
use crate::out::{say, say_each};

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

/// The log, and the virtual machines that were not announced yet.
#[derive(Debug)]
pub(super) struct Log {
    trusted: LimitedLines,
    untrusted: LimitedLines,
    /// The virtual machines whose announcement is printed after [`ANNOUNCED_AFTER`].
    unannounced: Vec<Arc<ServedVm>>,
    /// True once the start is complete. Virtual machines of sockets opened from then on are new.
    has_started: bool,
    /// The advice to use `--from-qmp` was printed, or the user has used it.
    has_advised: bool,
    /// The number of virtual machines that ended before they were announced.
    came_and_went: usize,
}

impl Log {
    /// Creates a log that has printed nothing. `asks_qemu` is true if the user has given
    /// `--from-qmp`.
    pub(super) fn new(asks_qemu: bool) -> Self {
        Self {
            trusted: LimitedLines::new(LINES),
            untrusted: LimitedLines::new(LINES_OF_UNTRUSTED),
            unannounced: Vec::new(),
            has_started: false,
            has_advised: asks_qemu,
            came_and_went: 0,
        }
    }

    /// Prints the lines of these events.
    pub(super) fn note(&mut self, events: Vec<Event>) {
        for event in events {
            self.note_one(event);
        }
    }

    fn note_one(&mut self, event: Event) {
        match event {
            Event::Opened(vm) => self.note_opened(vm),
            Event::Ended(vm) => self.note_change(&vm, "has ended"),
            Event::Gone(vm) => self.note_change(&vm, "does not exist any more"),
            Event::Closed(vm) => {
                let before = self.unannounced.len();
                self.unannounced.retain(|one| !Arc::ptr_eq(one, &vm));
                self.came_and_went += before - self.unannounced.len();
            }
            Event::NoSocket { title, others, limit, is_untrusted } => {
                self.say(is_untrusted, &waiting_line(&title, others, limit));
            }
            Event::Refused { title, error, is_untrusted } => {
                self.say(is_untrusted, &format!("left out: {title}: {}", Error::from(error)));
            }
            Event::Hidden(hidden) => say(hidden),
            Event::QemuUnclear(error) => say(Error::from(error)),
            Event::SearchFailed(error) => {
                let error = Error::from(error);
                say(format_args!("cannot search for virtual machines: {error}"));
            }
            Event::Notice(notice) => say_each(of_notices([notice])),
            // An event of a newer library has no words yet.
            _ => {}
        }
    }

    fn note_opened(&mut self, vm: Arc<ServedVm>) {
        if !self.has_advised && lacks_vm_statistics(&vm) {
            self.has_advised = true;
            say("the statistics of the VM as a whole are not served: they need the BPF reader \
                 (`vmstrobe list -v` says why it cannot be used) or --from-qmp SOCKET");
        }
        self.unannounced.push(vm);
        if !self.has_started {
            self.announce(Duration::ZERO);
        }
    }

    /// Logs an event of a virtual machine, if the machine was announced.
    fn note_change(&mut self, vm: &Arc<ServedVm>, what: &str) {
        if !self.unannounced.iter().any(|one| Arc::ptr_eq(one, vm)) {
            self.say(vm.is_untrusted(), &format!("{} {what}", title(vm)));
        }
    }

    /// Prints the announcements of virtual machines that have been served for long enough.
    pub(super) fn announce_due(&mut self) {
        self.announce(ANNOUNCED_AFTER);
    }

    /// Marks the start as complete.
    pub(super) fn end_start(&mut self) {
        self.has_started = true;
    }

    /// Prints all announcements that are left, and returns the number of virtual machines that
    /// ended before they were announced.
    pub(super) fn end(mut self) -> usize {
        self.announce(Duration::ZERO);
        self.came_and_went
    }

    fn announce(&mut self, for_long: Duration) {
        let is_due = |vm: &mut Arc<ServedVm>| vm.opened.elapsed() >= for_long;
        let due: Vec<_> = self.unannounced.extract_if(.., is_due).collect();
        for vm in due {
            self.say(vm.is_untrusted(), &announcement(&vm));
        }
    }

    /// Prints a line about a virtual machine, or counts it if the limit is reached.
    fn say(&mut self, is_untrusted: bool, text: &str) {
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
    use vmstrobe::serve::{MAX_SOCKETS, MAX_SOCKETS_OF_UNTRUSTED};
    use vmstrobe::{Attachment, Registry};

    use super::*;

    /// Returns a virtual machine whose socket was opened so long ago.
    fn served(age: Duration) -> Arc<ServedVm> {
        let mut vm = ServedVm::new("/a".into(), &Attachment::of(Registry::default()), None);
        vm.opened = Instant::now().checked_sub(age).expect("the host has run for longer");
        Arc::new(vm)
    }

    #[test]
    fn a_short_lived_vm_is_not_announced() {
        let mut log = Log::new(false);
        log.note(vec![Event::Opened(served(Duration::ZERO))]);
        assert!(log.unannounced.is_empty(), "a VM at the start is announced at once");
        log.end_start();
        let (short, long) = (served(Duration::ZERO), served(ANNOUNCED_AFTER));
        log.note([&short, &long].map(|vm| Event::Opened(Arc::clone(vm))).into());
        assert_eq!(log.unannounced.len(), 2);
        log.announce_due();
        let lines = log.trusted.left;
        assert_eq!((log.unannounced.len(), lines), (1, LINES.burst - 2));
        // Only the end of one that was announced has a line.
        log.note([&short, &long].map(|vm| Event::Gone(Arc::clone(vm))).into());
        assert_eq!(log.trusted.left, lines - 1);
        log.note([&short, &long].map(|vm| Event::Closed(Arc::clone(vm))).into());
        log.note(vec![Event::Opened(served(Duration::ZERO))]);
        assert_eq!(log.end(), 1);
    }

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
