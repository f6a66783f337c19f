//! Facts about other processes, from /proc.
//!
//! Invariant: nothing here waits for a foreign process. What may keep a reader waiting is read by
//! the helper; the rest by the broker, because with `hidepid` /proc shows the processes of other
//! users only to a thread that may trace them.

use vmstrobe_core::Result;

use super::Host;
use super::wire::{self, Request};
use crate::procfs;

impl Host {
    /// Returns the numbers of all processes, ascending.
    ///
    /// # Errors
    /// `Io` if /proc cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        self.broker().run(procfs::pids)
    }

    /// Returns the user of a process: its real user id. `None` if it has ended.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        self.broker().run(move || procfs::uid(pid))
    }

    /// Returns the name that a process has given itself (its `comm`), as it was written: see
    /// [`vmstrobe_core::text`]. Empty if it has ended.
    pub fn comm(&self, pid: u32) -> String {
        self.broker().run(move || procfs::comm(pid))
    }

    /// Returns the arguments of a process, each with a NUL behind it; nothing if it has ended or
    /// gives none.
    pub fn cmdline(&self, pid: u32) -> Vec<u8> {
        // Part of it is good enough for a name.
        self.read(pid, wire::CMDLINE)
    }

    /// Returns when a process started, in clock ticks since boot: with its number, this tells it
    /// from all others. `None` if it has ended, or does not let itself be looked at.
    pub fn start_time_ticks(&self, pid: u32) -> Option<u64> {
        procfs::start_time_in(&String::from_utf8_lossy(&self.read(pid, wire::STAT)))
    }

    fn read(&self, pid: u32, file: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let request = Request { kind: wire::READ, pid, flags: file, ..Request::default() };
        let _ = self.ask(pid, request, &[], None, |packet| {
            bytes.extend_from_slice(packet.bytes.get(32..).unwrap_or_default());
        });
        bytes
    }
}
