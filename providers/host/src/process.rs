//! Another process: a hold on it that outlasts the reuse of its number, and its end.
//!
//! The end is learnt from a pidfd, because nothing else tells: a stats fd goes on returning its
//! last values. One thread watches all processes of a provider.
//!
//! Invariant: a [`Process`] is the one that was opened, for ever. Its number is another's at the
//! earliest after [`Process::lives`] has turned false. So whoever reads /proc by the number and
//! then finds it living has read about this process. A [`DeathWatch`] knows one process of a
//! number, and no lock of it is held while anything is waited for.

use std::fmt::{self, Debug};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmstrobe_core::{Error, ErrorKind, Result, Thread, ThreadStart};

use crate::budget::FdSeat;
use crate::gone_epoch::GoneEpoch;
use crate::procfs;
use crate::refusal::{self, Step};

/// The watcher's pause if the system refuses to wait, which takes being out of memory.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// A process, held by a pidfd.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    alive: Arc<AtomicBool>,
    gone_epoch: GoneEpoch,
}

impl Process {
    /// Takes hold of a process. Its end advances `gone_epoch`.
    ///
    /// # Errors
    /// `NotFound` if there is none of that number.
    pub fn open(pid: u32, gone_epoch: &GoneEpoch) -> Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| procfs::no_process(pid))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => procfs::no_process(pid),
            // The kernel's answer for a thread that is not its process's first.
            Errno::INVAL | Errno::NOENT => {
                let text = format!("{pid} is a thread, not a process: give the process id");
                Error::new(ErrorKind::NotFound, text)
            }
            Errno::PERM | Errno::NOSYS => refusal::of_process(pid, Step::Hold, errno, None),
            _ => Error::caused(ErrorKind::Io, format!("cannot open pid {pid}"), errno),
        })?;
        let alive = Arc::new(AtomicBool::new(true));
        Ok(Self { pid, pidfd, alive, gone_epoch: gone_epoch.clone() })
    }

    /// Returns the number of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the flag that is true until its end was noticed, or it was given up. For the tick.
    pub fn alive(&self) -> &Arc<AtomicBool> {
        &self.alive
    }

    /// Asks the kernel whether it still lives. A zombie does not.
    pub fn lives(&self) -> bool {
        let ended = has_exited(&self.pidfd);
        if ended {
            self.give_up();
        }
        !ended
    }

    /// Marks all that was borrowed from it as gone.
    pub fn give_up(&self) {
        // Relaxed: `GoneEpoch` sees to it that no source misses it for good.
        self.alive.store(false, Ordering::Relaxed);
        self.gone_epoch.note();
    }

    /// Returns the pidfd, through which descriptors are borrowed from it.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }
}

/// Asks the kernel whether the process of a pidfd has ended; a zombie has. Does not wait.
pub fn has_exited(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

/// The process or connection that a descriptor came from.
#[derive(Clone, Debug)]
pub struct FdOwner {
    /// True until it has ended.
    pub alive: Arc<AtomicBool>,
    /// The watcher that notices its end. It is held by the descriptors, which may outlive the
    /// provider.
    pub watch: Arc<dyn Debug + Send + Sync>,
    /// Its place among the descriptors that may be held, if they are counted here.
    pub seat: Option<Arc<FdSeat>>,
}

impl FdOwner {
    /// Whether it has ended, as far as that was noticed. For the tick.
    #[inline]
    pub fn has_ended(&self) -> bool {
        // Relaxed: `GoneEpoch` sees to it that no source misses it for good.
        !self.alive.load(Ordering::Relaxed)
    }
}

/// A thread that notices the end of processes within a moment, and the list of those that have
/// ended. The thread ends when this is dropped.
pub struct DeathWatch {
    shared: Arc<Shared>,
    thread: Option<Thread<()>>,
}

struct Shared {
    watched: Mutex<Watched>,
    stop: AtomicBool,
    /// Readable when either of the above has changed.
    wake: OwnedFd,
}

/// The processes of one provider, each number once.
#[derive(Default)]
struct Watched {
    living: Vec<Arc<Process>>,
    /// The numbers of those whose end was noticed: their pidfds are not needed any more.
    ended: Vec<u32>,
}

impl DeathWatch {
    /// Starts the thread so, `vmstrobe-watch`.
    ///
    /// # Errors
    /// `Io` if the system has no thread or no fd for it; or as [`ThreadStart::spawn`].
    pub fn new(threads: &ThreadStart) -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { watched: Mutex::default(), stop, wake });
        let theirs = Arc::clone(&shared);
        let thread = threads.spawn("vmstrobe-watch", move || theirs.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches a process until its end. An earlier one of its number is forgotten.
    pub fn add(&self, process: &Arc<Process>) {
        let mut watched = self.shared.watched();
        // It has ended, or there would be no other of its number.
        watched.forget(process.pid).iter().for_each(|earlier| earlier.give_up());
        watched.living.push(Arc::clone(process));
        drop(watched);
        self.shared.wake();
    }

    /// Forgets the process of that number, whether it has ended or not.
    pub fn remove(&self, pid: u32) {
        self.shared.watched().forget(pid);
        self.shared.wake();
    }

    /// Returns the numbers of the processes that have ended, by the kernel's word at this moment;
    /// a zombie has. Does not wait.
    pub fn ended(&self) -> Vec<u32> {
        let watched = self.shared.watched();
        let mut fds = poll_fds(&watched.living);
        let mut ended = watched.ended.clone();
        // Refused only for want of memory: then the thread will notice.
        if let Ok(1..) = poll(&mut fds, Some(&Timespec::default())) {
            let each = watched.living.iter().zip(&fds);
            ended.extend(each.filter(|(_, fd)| !fd.revents().is_empty()).map(|(one, _)| one.pid));
        }
        ended
    }
}

impl Watched {
    /// Forgets the process of that number; returns it if its end was not noticed yet.
    fn forget(&mut self, pid: u32) -> Vec<Arc<Process>> {
        self.ended.retain(|ended| *ended != pid);
        self.living.extract_if(.., |process| process.pid == pid).collect()
    }

    /// Gives up those of these processes that are still watched, and moves all whose end was
    /// noticed to those that have ended.
    fn note_ends<'p>(&mut self, ended: impl Iterator<Item = &'p Arc<Process>>) {
        for process in ended {
            // One may have been removed since it was polled.
            if self.living.iter().any(|one| Arc::ptr_eq(one, process)) {
                process.give_up();
            }
        }
        let noticed = self.living.extract_if(.., |one| !one.alive.load(Ordering::Relaxed));
        self.ended.extend(noticed.map(|process| process.pid));
    }
}

fn poll_fds(processes: &[Arc<Process>]) -> Vec<PollFd<'_>> {
    processes.iter().map(|process| PollFd::new(&process.pidfd, PollFlags::IN)).collect()
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        // A list of independent processes: no panic leaves it half changed.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then it is readable as it is.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn run(&self) {
        // Relaxed: nothing is read because of the flag, and the wake-up follows it.
        while !self.stop.load(Ordering::Relaxed) {
            let watched = self.watched().living.clone();
            let mut fds = poll_fds(&watched);
            fds.push(PollFd::new(&self.wake, PollFlags::IN));
            if poll(&mut fds, None).is_err_and(|errno| errno != Errno::INTR) {
                thread::sleep(REFUSED_PAUSE);
            }
            let woken = !fds[watched.len()].revents().is_empty();
            let readable = watched.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
            self.watched().note_ends(readable.map(|(process, _)| process));
            if woken {
                // Before the list is read again, so that no change to it is missed.
                let _ = read(&self.wake, &mut [0; 8]);
            }
        }
    }
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for DeathWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeathWatch").field("watched", &self.shared.watched().living.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn noticed(process: &Process, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while process.alive.load(Ordering::Relaxed) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    #[test]
    fn the_end_of_each_process_is_noticed() {
        let watch = DeathWatch::new(&ThreadStart::default()).unwrap();
        let mut children: Vec<Child> = (0..3).map(|_| sleeper()).collect();
        let processes: Vec<_> = children
            .iter()
            .map(|child| Arc::new(Process::open(child.id(), &GoneEpoch::default()).unwrap()))
            .collect();
        processes.iter().for_each(|process| watch.add(process));
        for at in [1, 2, 0] {
            assert!(processes[at].lives());
            children[at].kill().unwrap();
            // Not yet waited for: a zombie counts as ended.
            assert!(noticed(&processes[at], Duration::from_secs(5)), "child {at}");
            assert!(!processes[at].lives());
            children[at].wait().unwrap();
        }
        // Noticed by its flag, then moved.
        wait_for("they are sorted out", || watch.shared.watched().living.is_empty());
        let pids = [1, 2, 0].map(|at| children[at].id());
        assert_eq!(watch.ended(), pids);
    }

    #[test]
    fn one_that_is_removed_is_left_alone() {
        let watch = DeathWatch::new(&ThreadStart::default()).unwrap();
        let mut child = sleeper();
        let process = Arc::new(Process::open(child.id(), &GoneEpoch::default()).unwrap());
        watch.add(&process);
        watch.remove(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!noticed(&process, Duration::from_millis(50)));
        assert!(watch.ended().is_empty());
        drop(watch);
    }

    #[test]
    fn an_end_before_the_watch_is_noticed_too() {
        let watch = DeathWatch::new(&ThreadStart::default()).unwrap();
        let mut child = sleeper();
        let process = Arc::new(Process::open(child.id(), &GoneEpoch::default()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        watch.add(&process);
        assert!(noticed(&process, Duration::from_secs(5)));
    }

    #[test]
    fn an_end_is_known_before_the_thread_has_noticed_it() {
        let watch = DeathWatch::new(&ThreadStart::default()).unwrap();
        let (child, other) = (sleeper(), sleeper());
        let pid = child.id();
        for child in [&child, &other] {
            watch.add(&Arc::new(Process::open(child.id(), &GoneEpoch::default()).unwrap()));
        }
        assert!(watch.ended().is_empty());
        end(child);
        // In whichever list it is by now.
        for _ in 0..100 {
            assert_eq!(watch.ended(), [pid]);
        }
        wait_for("it is sorted out", || watch.shared.watched().living.len() == 1);
        assert_eq!(watch.ended(), [pid]);
        watch.remove(pid);
        assert!(watch.ended().is_empty());
        end(other);
    }

    #[test]
    fn a_later_process_of_the_same_number_has_not_ended() {
        let watch = DeathWatch::new(&ThreadStart::default()).unwrap();
        for is_noticed in [false, true] {
            let (earlier, later) = (sleeper(), sleeper());
            let pid = earlier.id();
            let first = Arc::new(Process::open(pid, &GoneEpoch::default()).unwrap());
            watch.add(&first);
            end(earlier);
            if is_noticed {
                wait_for("it is sorted out", || watch.shared.watched().living.is_empty());
            }
            let second = Process::open(later.id(), &GoneEpoch::default()).unwrap();
            watch.add(&Arc::new(Process { pid, ..second }));
            assert!(watch.ended().is_empty(), "{is_noticed}");
            // Its rows are told, whoever was quicker.
            assert!(!first.alive.load(Ordering::Relaxed));
            end(later);
            wait_for("the later one has ended", || watch.ended() == [pid]);
            watch.remove(pid);
        }
    }

    #[test]
    fn what_is_no_process_is_said_to_be_none() {
        for pid in [0, u32::MAX, i32::MAX as u32] {
            let error = Process::open(pid, &GoneEpoch::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert_eq!(error.to_string(), format!("there is no process {pid}: it may have ended"));
        }
    }
}
