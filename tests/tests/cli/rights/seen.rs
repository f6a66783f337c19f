//! Looks all the time at what /proc shows of the threads of a process and of its children.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::CapabilitySet;

/// The pause between two looks; a command may run for 20 ms.
const LOOK: Duration = Duration::from_micros(300);
/// The name of the process, and of threads that have no name of their own yet.
const UNNAMED: &str = "vmstrobe";

/// A thread, as it was seen last.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) permitted: CapabilitySet,
    pub(super) effective: CapabilitySet,
    pub(super) inheritable: CapabilitySet,
    pub(super) bounding: CapabilitySet,
    pub(super) ambient: CapabilitySet,
    pub(super) no_new_privs: bool,
    pub(super) has_filter: bool,
}

/// All threads that were seen, by process and thread id.
#[derive(Debug, Default)]
pub(super) struct Seen {
    main: u32,
    tasks: BTreeMap<(u32, u32), Task>,
}

/// A thread that looks until it is stopped.
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    pub(super) fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let look = move || {
            let mut seen = Seen { main: pid, ..Seen::default() };
            while !asked.load(Ordering::Relaxed) {
                seen.look(pid);
                for child in children(pid) {
                    seen.look(child);
                }
                thread::sleep(LOOK);
            }
            seen
        };
        Self { stop, thread: thread::spawn(look) }
    }

    pub(super) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread does not panic")
    }
}

impl Seen {
    fn look(&mut self, pid: u32) {
        for tid in numbers(Path::new(&format!("/proc/{pid}/task"))) {
            let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"));
            // The thread may have ended, and one that is ending has no rights any more.
            let task = status.ok().and_then(|status| Task::of(&status));
            self.tasks.extend(task.map(|task| ((pid, tid), task)));
        }
    }

    /// Returns the threads that have their final name and rights. A new thread has its parent's
    /// until it runs; a new process is a copy until then.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter_map(|((pid, tid), task)| {
            let is_main = (*pid, *tid) == (self.main, self.main);
            let is_helper = *pid != self.main && task.name == "vmstrobe-helper";
            let is_thread = *pid == self.main && task.name != UNNAMED;
            (is_main || is_helper || is_thread).then_some(task)
        })
    }
}

impl Task {
    fn of(status: &str) -> Option<Self> {
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let set = |key| {
            let bits = u64::from_str_radix(of(key)?, 16).ok()?;
            Some(CapabilitySet::from_bits_retain(bits))
        };
        // It is a zombie, or a thread that ends.
        if of("State:")?.starts_with(['Z', 'X']) {
            return None;
        }
        Some(Self {
            name: of("Name:")?.to_owned(),
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
            inheritable: set("CapInh:")?,
            bounding: set("CapBnd:")?,
            ambient: set("CapAmb:")?,
            no_new_privs: of("NoNewPrivs:")? == "1",
            has_filter: of("Seccomp:")? == "2",
        })
    }
}

/// Returns true if this process has a filter of system calls, which every process that it starts
/// has too.
pub(super) fn has_filter() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    Task::of(&status).is_some_and(|task| task.has_filter)
}

fn numbers(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the processes that threads of this one have started.
fn children(pid: u32) -> Vec<u32> {
    let of = |tid: u32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/children"));
    let texts =
        numbers(Path::new(&format!("/proc/{pid}/task"))).into_iter().filter_map(|t| of(t).ok());
    texts
        .flat_map(|text| text.split(' ').filter_map(|p| p.parse().ok()).collect::<Vec<u32>>())
        .collect()
}
