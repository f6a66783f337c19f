//! QEMU's names for its vCPUs, by the thread that runs each.
//!
//! A KVM stats fd says which thread made its vCPU, QEMU's `query-cpus-fast` says which vCPU a
//! thread runs, and in QEMU each vCPU is made by its own thread.
//!
//! Invariant: a name is given for certain or not at all. The kernel numbers that thread as the host
//! does, QEMU as its own pid namespace does: /proc translates, unless we are in a container, which
//! `kvm/attach/names` sees to.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

/// QEMU's name for a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuName {
    /// `cpu-index`.
    pub index: u32,
    /// `qom-path`, such as `/machine/unattached/device[0]`.
    pub path: Box<str>,
}

/// The names of one QEMU's vCPUs by thread id. Clones are one: a `Qmp` keeps its own up
/// to date, about once a second, and they stay as they are when it is gone.
///
/// ```
/// use vmstrobe_host::{CpuName, CpuNames};
/// let boot = CpuName { index: 0, path: "/machine/unattached/device[0]".into() };
/// let names = CpuNames::default();
/// names.replace([(4711, boot.clone())]);
/// assert_eq!(names.clone().get(4711), Some(boot));
/// assert_eq!(names.get(4712), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct CpuNames {
    by_thread: Arc<Mutex<HashMap<u32, CpuName>>>,
}

impl CpuNames {
    /// Returns the name of the vCPU that this thread runs, by its id as QEMU sees it.
    pub fn get(&self, thread_id: u32) -> Option<CpuName> {
        self.with(|names| names.get(&thread_id).cloned())
    }

    /// Puts these in place of all others.
    pub fn replace(&self, names: impl IntoIterator<Item = (u32, CpuName)>) {
        let new = names.into_iter().collect();
        self.with(|names| *names = new);
    }

    /// Returns all of them, each with its thread's id as QEMU sees it.
    pub fn all(&self) -> Vec<(u32, CpuName)> {
        self.with(|names| names.iter().map(|(thread, name)| (*thread, name.clone())).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.with(|names| names.is_empty())
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u32, CpuName>) -> T) -> T {
        // Replaced in one step: no panic leaves it half changed.
        act(&mut self.by_thread.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the thread that made the vCPU of an id string `kvm-<tid>/vcpu-<n>`.
pub fn thread_of(id: &str) -> Option<u32> {
    let (thread, _) = id.strip_prefix("kvm-")?.split_once("/vcpu-")?;
    thread.parse().ok()
}

/// Returns the number that a thread of that process has in its own pid namespace; `None` if the
/// process has no such thread. To be called by the broker, to which /proc shows all processes.
pub fn own_number(pid: u32, thread: u32) -> Option<u32> {
    innermost(&fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?)
}

/// Returns the number of a thread in its own pid namespace: the last of `NSpid` in its status, a
/// line that kernels without such namespaces leave out.
fn innermost(status: &str) -> Option<u32> {
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next_back()?.parse().ok()
    };
    number("NSpid:").or_else(|| number("Pid:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_thread() {
        for (id, want) in [
            ("kvm-4711/vcpu-0", Some(4711)),
            ("kvm-1/vcpu-12", Some(1)),
            ("kvm-4711", None),
            ("kvm-/vcpu-0", None),
            ("kvm--1/vcpu-0", None),
            ("vcpu-0", None),
            ("", None),
        ] {
            assert_eq!(thread_of(id), want, "{id}");
        }
    }

    #[test]
    fn a_thread_is_called_as_its_own_namespace_does() {
        for (status, want) in [
            ("Name:\tx\nTgid:\t5\nPid:\t9\nPPid:\t1\nNSpid:\t9\n", Some(9)),
            ("Pid:\t9009\nNStgid:\t9000\t7\nNSpid:\t9009\t12\nNSpgid:\t1\n", Some(12)),
            ("Pid:\t9009\nPPid:\t1\n", Some(9009)),
            ("Name:\tx\n", None),
            ("", None),
        ] {
            assert_eq!(innermost(status), want, "{status}");
        }
    }

    #[test]
    fn only_a_thread_of_that_process_has_a_number() {
        let (pid, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero().get());
        let own = own_number(pid, thread.cast_unsigned());
        assert_eq!(
            own,
            fs::read_to_string("/proc/thread-self/status").ok().and_then(|s| innermost(&s))
        );
        assert!(own.is_some());
        assert_eq!(own_number(pid, 1), None, "a thread, but not of this process");
        assert_eq!(own_number(u32::MAX, 1), None);
    }
}
