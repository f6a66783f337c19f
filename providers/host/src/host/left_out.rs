//! Processes that are left out because they kept the helper waiting.
//!
//! Invariant: what is remembered is bounded by the processes there are. One that is in `execve` may
//! be a VMM in a moment, so it is tried again, ever more seldom; one that cost a helper, which
//! waits for a file's server until that ends, is not.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::helper::has_ended;
use crate::process::has_exited;

/// The time for which a process is left out after it was waited for in vain; twice as long each
/// time...
const PAUSE: Duration = Duration::from_secs(5);
/// ...up to this.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The most processes that are remembered so.
const MAX_SILENT: usize = 1024;
/// The most helpers of one user's doing that wait for a file's server. After that nothing is taken
/// from other processes of this user.
pub(crate) const MAX_LOST_HELPERS_PER_USER: usize = 4;
/// The most such helpers of all users together. After that nothing is taken from processes of any
/// user but root.
pub(crate) const MAX_LOST_HELPERS: usize = 64;

/// The processes that are left out, and the helpers that were lost to them.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    processes: HashMap<u32, Silent>,
    lost: Vec<Lost>,
}

/// A process that was waited for in vain.
#[derive(Debug)]
struct Silent {
    /// Tells its end. (When it started would tell it from a later process of its number, too, but
    /// to read that is to wait for it.)
    pidfd: OwnedFd,
    times: u32,
    /// `None`: never again.
    until: Option<Instant>,
}

/// A helper that was killed and has not ended.
#[derive(Clone, Copy, Debug)]
struct Lost {
    helper: Pid,
    /// The user whose process it waits for.
    uid: Option<u32>,
}

impl LeftOut {
    /// Whether a process is not to be looked at now.
    pub(super) fn has(&mut self, pid: u32, now: Instant) -> bool {
        let Some(silent) = self.processes.get(&pid) else { return false };
        if has_exited(&silent.pidfd) {
            self.processes.remove(&pid);
            return false;
        }
        silent.until.is_none_or(|until| now < until)
    }

    /// Whether nothing is to be taken from processes of this user now, because it was done too
    /// often in vain. The user is asked for only where that has happened at all.
    pub(super) fn has_user(&mut self, uid: impl FnOnce() -> Option<u32>) -> bool {
        self.lost.retain(|lost| !has_ended(lost.helper));
        if self.lost.is_empty() {
            return false;
        }
        let uid = uid();
        let of_user = self.lost.iter().filter(|lost| lost.uid == uid).count();
        let is_root = uid == Some(0);
        of_user >= MAX_LOST_HELPERS_PER_USER || !is_root && self.lost.len() >= MAX_LOST_HELPERS
    }

    /// Notes that a process of that user was waited for in vain; `lost` is the helper if it did not
    /// end.
    pub(super) fn note(&mut self, pid: u32, uid: Option<u32>, lost: Option<Pid>, now: Instant) {
        self.lost.extend(lost.map(|helper| Lost { helper, uid }));
        let times = self.processes.get(&pid).map_or(0, |silent| silent.times);
        let pause = PAUSE.saturating_mul(1 << times.min(16)).min(PAUSE_MAX);
        let until = lost.is_none().then(|| now + pause);
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Without one it has ended, or there is no descriptor for it: then it is tried again.
        let pidfd = number.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(pidfd) = pidfd.filter(|_| self.processes.len() < MAX_SILENT) {
            let silent = Silent { pidfd, times: times.saturating_add(1), until };
            self.processes.insert(pid, silent);
        }
    }

    /// Notes that it answers.
    pub(super) fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// Forgets processes that are not there any more.
    pub(super) fn keep(&mut self) {
        self.processes.retain(|_, silent| !has_exited(&silent.pidfd));
        self.lost.retain(|lost| !has_ended(lost.helper));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_silent_process_is_tried_again_ever_more_seldom() {
        let child = sleeper();
        let (pid, mut left_out, mut now) = (child.id(), LeftOut::default(), Instant::now());
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            left_out.note(pid, None, None, now);
            assert!(left_out.has(pid, now + Duration::from_secs(seconds - 1)), "{seconds}");
            now += Duration::from_secs(seconds);
            assert!(!left_out.has(pid, now), "{seconds}");
        }
        left_out.forget(pid);
        left_out.note(pid, None, None, now);
        assert!(!left_out.has(pid, now + PAUSE));
        left_out.note(pid, None, None, now);
        end(child);
        assert!(!left_out.has(pid, now), "another may have its number by now");
        left_out.keep();
        assert!(left_out.processes.is_empty());
    }

    #[test]
    fn one_that_cost_a_helper_is_not_tried_again_nor_are_many_of_its_user() {
        // Helpers that do not end, and processes of this user that made them so.
        let helpers: Vec<Child> = (0..MAX_LOST_HELPERS_PER_USER).map(|_| sleeper()).collect();
        let pid = |child: &Child| Pid::from_child(child);
        let (process, mut left_out) = (sleeper(), LeftOut::default());
        let now = Instant::now();
        let uid = Some(4711);
        for helper in &helpers {
            assert!(!left_out.has_user(|| uid));
            left_out.note(process.id(), uid, Some(pid(helper)), now);
        }
        assert!(left_out.has(process.id(), now + 1000 * PAUSE_MAX));
        assert!(left_out.has_user(|| uid));
        assert!(!left_out.has_user(|| Some(u32::MAX)));
        helpers.into_iter().for_each(end);
        assert!(!left_out.has_user(|| uid));
        end(process);
    }
}
