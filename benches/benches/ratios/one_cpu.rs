//! Everybody on one CPU, where waking a thread on another would drown what is measured.

use std::error::Error;
use std::fs;
use std::io;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// While it lives, this thread and what is kept with it run on one CPU.
pub(crate) struct OneCpu {
    one: CpuSet,
    before: CpuSet,
}

impl OneCpu {
    /// Keeps this thread on the last CPU that it may use.
    pub(crate) fn stay() -> Result<Self, Box<dyn Error>> {
        let before = sched_getaffinity(None)?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| before.is_set(*cpu));
        let mut one = CpuSet::new();
        one.set(last.ok_or("a thread that runs may use a CPU")?);
        sched_setaffinity(None, &one)?;
        Ok(Self { one, before })
    }

    /// Keeps a process's threads there; those that they start from now on stay with them.
    pub(crate) fn keep(&self, pid: u32) -> io::Result<()> {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = thread?.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(Some(id.ok_or(io::ErrorKind::InvalidData)?), &self.one)?;
        }
        Ok(())
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // It fails only if those CPUs have gone. A drop must not panic.
        let _ = sched_setaffinity(None, &self.before);
    }
}
