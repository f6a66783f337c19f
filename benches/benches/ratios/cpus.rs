//! The CPU affinity of measurements that the scheduler's choice of CPUs would distort: to wake a
//! thread on another CPU can take longer than everything else together.

use std::error::Error;
use std::fs;
use std::io;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// The CPU of the servers' threads, while the client is on the last CPU that it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// The client's CPU.
    Beside,
    /// The first CPU.
    Apart,
}

/// The affinity of a measurement: as long as it exists, the calling thread is on one CPU, and the
/// kept processes are on theirs.
pub(crate) struct Placed {
    theirs: CpuSet,
    before: CpuSet,
}

impl Placed {
    /// Keeps this thread on the last CPU that it may use.
    pub(crate) fn here(servers: Servers) -> Result<Self, Box<dyn Error>> {
        let before = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu));
        let first = usable.next().ok_or("a thread that runs may use a CPU")?;
        let last = usable.next_back();
        let only = |cpu| {
            let mut only = CpuSet::new();
            only.set(cpu);
            only
        };
        let theirs = match servers {
            Servers::Beside => last.unwrap_or(first),
            Servers::Apart if last.is_none() => return Err("there is only one CPU".into()),
            Servers::Apart => first,
        };
        sched_setaffinity(None, &only(last.unwrap_or(first)))?;
        Ok(Self { theirs: only(theirs), before })
    }

    /// Keeps a process's threads there; those that they start from now on stay with them.
    pub(crate) fn keep(&self, pid: u32) -> io::Result<()> {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = thread?.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(Some(id.ok_or(io::ErrorKind::InvalidData)?), &self.theirs)?;
        }
        Ok(())
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // It fails only if those CPUs have gone. A drop must not panic.
        let _ = sched_setaffinity(None, &self.before);
    }
}
