//! Why the system refuses something, found out from the facts, and what to do about it.
//!
//! An errno says next to nothing: EPERM of `pidfd_getfd` is another user's process, a capability
//! that is missing, a process that is not dumpable, Yama, a seccomp filter or a security module. So
//! the facts are gathered when something was refused, and `process::reason` tells from them.
//!
//! Invariant: each reason is one line, without its subject, which the caller names: what is the
//! matter, then what to do. What cannot be told for certain is not claimed. Gathering waits for no
//! process. The thread that calls reads /proc, and should be the broker's: with `hidepid` /proc
//! shows other users' processes only to a thread that may trace them.

use std::fs;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use vmstrobe_core::text::printable;
use vmstrobe_core::{Error, ErrorKind};

use crate::procfs;
use crate::status::Status;

pub mod path;
pub mod proc;
mod process;

pub use process::Step;

/// Makes the error for a process that we may not look into, or not borrow from. `ours` are the
/// rights of the process that was refused.
pub(crate) fn of_process(pid: u32, step: Step, errno: Errno, ours: Option<Status>) -> Error {
    let what = match step {
        Step::Hold => "opened",
        Step::Look => "examined",
        Step::Borrow => "borrowed from",
    };
    let why = process::Facts::of(pid, step, errno, ours).map_or_else(
        // Without a status of our own: /proc has been unmounted meanwhile.
        || format!("{errno}"),
        |facts| process::reason(&facts),
    );
    let kind = if errno == Errno::NOSYS { ErrorKind::Unsupported } else { ErrorKind::Denied };
    Error::new(kind, format!("{} cannot be {what}: {why}", subject(pid)))
}

/// Returns `pid 4711 (qemu-kvm)`, as far as its name can be seen.
fn subject(pid: u32) -> String {
    match &*procfs::comm(pid) {
        "" => format!("pid {pid}"),
        comm => format!("pid {pid} ({comm})"),
    }
}

/// Says, in printable text, why there are processes that we may not look into: why the first of
/// them is refused to a process with the rights `ours`, or why /proc does not show it all of them.
/// `None` if there is no such process.
pub fn of_some(first: Option<(u32, Errno)>, ours: Option<Status>) -> Option<String> {
    let Some((pid, errno)) = first else { return proc::hiding(&ours?) };
    let facts = process::Facts::of(pid, Step::Look, errno, ours)?;
    let why = facts
        .hiding
        .clone()
        .unwrap_or_else(|| format!("{}, for one: {}", subject(pid), process::reason(&facts)));
    Some(printable(&why).into_owned())
}

/// Makes the error for a process that /proc does not have: it has ended, or /proc does not show it
/// to a process with the rights `ours`.
pub(crate) fn not_found(pid: u32, ours: Option<Status>) -> Error {
    let none = || procfs::no_process(pid);
    if let Err(error) = proc::mounted() {
        return error;
    }
    let why = ours.or_else(Status::own).and_then(|ours| proc::not_shown(pid, &ours));
    why.map_or_else(none, |why| {
        Error::new(ErrorKind::Denied, format!("{} cannot be examined: {why}", subject(pid)))
    })
}

/// Says why the kernel refuses `bpf(2)` to this thread.
pub fn of_bpf() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let ours = Status::own();
    bpf_reason(
        ours.as_ref().map(|ours| (ours.effective, ours.has_seccomp)),
        is_whole(&read("/proc/self/uid_map")),
        &read("/sys/kernel/security/lockdown"),
    )
}

/// Whether this is the map of a user namespace in which each user is itself: the first one.
fn is_whole(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Says why `bpf(2)` is refused. `rights` are the effective capabilities, and whether there is a
/// seccomp filter; `None` if they cannot be read.
fn bpf_reason(
    rights: Option<(CapabilitySet, bool)>,
    is_first_namespace: bool,
    lockdown: &str,
) -> String {
    let needed = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let Some((has, has_seccomp)) = rights else {
        return "it takes CAP_BPF and CAP_PERFMON: run vmstrobe as root, or give it these"
            .to_owned();
    };
    // One who may administer the system may do both.
    let has = if has.contains(CapabilitySet::SYS_ADMIN) { has | needed } else { has };
    let lacks = needed - has;
    if !lacks.is_empty() {
        return format!(
            "it takes CAP_BPF and CAP_PERFMON, and vmstrobe lacks {}: run it as root, or give it \
             {}",
            names(lacks),
            these(lacks)
        );
    }
    if !is_first_namespace {
        return "it takes CAP_BPF and CAP_PERFMON in the first user namespace, and vmstrobe runs \
                in another one, a container's say: run it outside"
            .to_owned();
    }
    if lockdown.contains("[confidentiality]") {
        return "the kernel is locked down (confidentiality), which forbids BPF programs to read \
                its memory: boot with lockdown=integrity or none"
            .to_owned();
    }
    match has_seccomp {
        // The filter of `vmstrobe serve` allows it, but cannot be told from others.
        true => "vmstrobe has the capabilities for it, so that a seccomp filter of a container or \
                 a service forbids it, or a security module (SELinux, AppArmor): let the filter \
                 allow bpf; see the audit log"
            .to_owned(),
        false => "vmstrobe has the capabilities for it, so that a security module forbids it \
                  (SELinux, AppArmor): see the audit log"
            .to_owned(),
    }
}

/// The capabilities that a reason may name.
const NAMED: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

/// Returns the names: `CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH`.
fn names(set: CapabilitySet) -> String {
    let named = NAMED.iter().filter(|(one, _)| set.contains(*one)).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(" and ")
}

/// Returns `that capability`, or `these capabilities` if there are several.
fn these(set: CapabilitySet) -> &'static str {
    if set.bits().count_ones() == 1 { "that capability" } else { "these capabilities" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_bpf_names_what_is_missing() {
        let (bpf, perfmon) = (CapabilitySet::BPF, CapabilitySet::PERFMON);
        let none = CapabilitySet::empty();
        for (rights, is_first, lockdown, want) in [
            (Some((none, false)), true, "", "vmstrobe lacks CAP_BPF and CAP_PERFMON: run it as"),
            (Some((bpf, false)), true, "", "vmstrobe lacks CAP_PERFMON: run it as root, or give"),
            (Some((perfmon, true)), false, "", "vmstrobe lacks CAP_BPF: run it as root, or give"),
            (Some((bpf | perfmon, true)), false, "", "in the first user namespace"),
            (Some((CapabilitySet::SYS_ADMIN, true)), false, "", "in the first user namespace"),
            (
                Some((bpf | perfmon, false)),
                true,
                "none integrity [confidentiality]\n",
                "the kernel is locked down",
            ),
            (Some((bpf | perfmon, true)), true, "none [integrity]", "a security module (SELinux, "),
            (Some((bpf | perfmon, true)), true, "", "let the filter allow bpf; see the audit"),
            (Some((bpf | perfmon, false)), true, "[none] integrity", "a security module"),
            (None, true, "", "run vmstrobe as root"),
        ] {
            let text = bpf_reason(rights, is_first, lockdown);
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn foreign_names_in_a_reason_are_printable() {
        let link = std::env::temp_dir().join(format!("v{}-\u{1b}[2J", std::process::id() % 1000));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
        let mut child = std::process::Command::new(&link).arg("600").spawn().unwrap();
        let pid = child.id();
        assert!(vmstrobe_testing::soon(std::time::Duration::from_secs(5), || {
            procfs::comm(pid).contains('\u{1b}')
        }));
        let text = of_some(Some((pid, Errno::PERM)), None).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&link).unwrap();
        let is_hidden = text.starts_with("/proc is mounted with hidepid=");
        assert!(is_hidden || text.contains("\u{fffd}[2J), for one: "), "{text}");
        assert!(text.chars().all(vmstrobe_core::text::is_printable), "{text:?}");
    }

    #[test]
    fn only_the_first_namespace_has_every_user_as_itself() {
        assert!(is_whole("         0          0 4294967295\n"));
        for map in ["0 0 1\n", "0 1000 1\n1 100000 65536\n", ""] {
            assert!(!is_whole(map), "{map}");
        }
    }
}
