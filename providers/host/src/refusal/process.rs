//! Why we may not look into a process, or not borrow a descriptor from it.
//!
//! The kernel's rules, which [`lacking`] follows: to list the descriptors of a process takes its
//! file system rights on `/proc/<pid>/fd` (mode 0500), to read where one leads the right to trace
//! it (`ptrace(2)`, "ptrace access mode checking"), and to take one the same in the mode of
//! attaching, of which Yama has rules of its own.
//!
//! Invariant: [`reason`] is a pure function of the [`Facts`].

use std::fs;
use std::os::linux::fs::MetadataExt;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::{names, proc, these};
use crate::status::Status;

/// The thing that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Taking hold of it (`pidfd_open`), which is open to everyone.
    Hold,
    /// Listing its descriptors and their links.
    Look,
    /// Taking a duplicate of one (`pidfd_getfd`).
    Borrow,
}

/// The `kernel.yama.ptrace_scope` in which nobody may attach to a process.
const YAMA_NO_ATTACH: u32 = 3;

/// The facts from which a refusal is explained.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
    /// The rights of the process that was refused, which may be our helper.
    pub(crate) ours: Status,
    /// The process that it was refused of; `None` if not even its status can be read.
    pub(crate) target: Option<Target>,
    /// `kernel.yama.ptrace_scope`; 0 without Yama.
    pub(crate) yama_setting: u32,
    /// The security module's label of the process; empty without one.
    pub(crate) label: String,
    /// Why /proc does not show the process, if it does not.
    pub(crate) hiding: Option<String>,
}

/// The facts that everyone may know about the process that something was refused of.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) status: Status,
    /// The owner of `/proc/<pid>/fd`: its effective user, or root's if it is not dumpable.
    pub(crate) owner: u32,
    /// Whether it is in our user namespace, as far as the maps of both tell.
    pub(crate) is_in_our_namespace: bool,
}

impl Target {
    fn of(pid: u32) -> Option<Self> {
        // The link /proc/<pid>/ns/user would tell for certain: reading it takes the right that we
        // have not, and may wait for the process.
        let map = |pid: &str| fs::read(format!("/proc/{pid}/uid_map")).ok();
        Some(Self {
            status: Status::of(pid)?,
            owner: fs::metadata(format!("/proc/{pid}/fd")).ok()?.st_uid(),
            is_in_our_namespace: map(&pid.to_string()) == map("self"),
        })
    }

    /// Whether the kernel lets its own user look into it. It does not if it has changed its user or
    /// was started from a file that only could be executed. Of root's processes this is not known.
    fn is_dumpable(&self) -> bool {
        self.owner == self.status.users.effective
    }
}

impl Facts {
    /// Gathers the facts, on a thread to which /proc shows the process; `None` if nothing is known
    /// even of ourselves.
    pub(crate) fn of(pid: u32, step: Step, errno: Errno, ours: Option<Status>) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let ours = ours.or_else(Status::own)?;
        Some(Self {
            step,
            errno,
            target: Target::of(pid),
            yama_setting: read("/proc/sys/kernel/yama/ptrace_scope").parse().unwrap_or(0),
            label: read(&format!("/proc/{pid}/attr/current")),
            hiding: proc::hiding(&ours),
            ours,
        })
    }

    /// Returns Yama's scope if it counts: for attaching, not for reading links.
    fn yama_scope(&self) -> u32 {
        if self.step == Step::Borrow { self.yama_setting } else { 0 }
    }
}

/// Says what is the matter and what to do, without the subject. Names in it are as they were
/// written: whoever prints it makes them printable, as [`Error`](vmstrobe_core::Error) does.
pub(crate) fn reason(facts: &Facts) -> String {
    let Facts { ours, errno, step, .. } = facts;
    if *errno == Errno::NOSYS {
        return no_such_call(ours, *step);
    }
    // Everyone may take hold of a process, so that no right can be missing.
    if *step == Step::Hold {
        return forbidden(facts);
    }
    let Some(target) = &facts.target else {
        let unknown = || format!("{errno}: run vmstrobe as root");
        return facts.hiding.clone().unwrap_or_else(unknown);
    };
    let lacks = lacking(ours, target, facts.yama_scope());
    let is_missing = !lacks.is_empty();
    if facts.yama_scope() == YAMA_NO_ATTACH {
        let yama = "kernel.yama.ptrace_scope is 3, which forbids it to everyone until the next \
                    boot: boot with another value";
        return match is_missing {
            true => format!("{yama}; besides, {}", missing(facts, target, lacks)),
            false => yama.to_owned(),
        };
    }
    if is_missing {
        return missing(facts, target, lacks);
    }
    if !target.is_in_our_namespace {
        return "it is in another user namespace, where vmstrobe's capabilities do not count: run \
                vmstrobe in that namespace, or on the host"
            .to_owned();
    }
    forbidden(facts)
}

/// Says what else than a missing right forbids it.
fn forbidden(facts: &Facts) -> String {
    let Facts { ours, errno, step, .. } = facts;
    let call = call(*step).0;
    let label = facts.label.trim_end_matches('\0');
    let module = match label {
        "" => "a security module".to_owned(),
        _ => format!("the security module, to which the process is '{label}'"),
    };
    match (ours.has_seccomp, label) {
        // The filter of `vmstrobe serve` forbids none of this, but cannot be told from others.
        (true, _) => format!(
            "vmstrobe has the rights for it, so that a seccomp filter of a container or a service \
             forbids it, or {module}: let the filter allow {call}; see the audit log"
        ),
        (false, "") => format!(
            "{errno}, although vmstrobe has the rights for it: a security module may forbid it, or \
             another user namespace; see the audit log"
        ),
        (false, _) => format!(
            "vmstrobe has the rights for it, so that {module} forbids it: see the audit log, and \
             let it allow ptrace"
        ),
    }
}

/// The system call of a step, and the version of Linux that it came with.
fn call(step: Step) -> (&'static str, &'static str) {
    match step {
        Step::Hold => ("pidfd_open", "5.3"),
        Step::Look => ("reading /proc", "2.6"),
        Step::Borrow => ("pidfd_getfd", "5.6"),
    }
}

/// Says why the system has no such call, or behaves as if it had none.
fn no_such_call(ours: &Status, step: Step) -> String {
    let (call, version) = call(step);
    match ours.has_seccomp {
        true => format!(
            "the kernel is older than {version} and has no {call}, or a seccomp filter of a \
             container or a service forbids it: use Linux {version} or later, and let the filter \
             allow {call}"
        ),
        false => format!("this kernel has no {call}: use Linux {version} or later"),
    }
}

/// Returns the capabilities that the step takes and that we have not. A scope of Yama's in which
/// nobody may attach takes none.
fn lacking(ours: &Status, target: &Target, yama_scope: u32) -> CapabilitySet {
    let mut needed = CapabilitySet::empty();
    if target.owner != ours.users.filesystem {
        needed |= CapabilitySet::DAC_READ_SEARCH;
    }
    let may_trace = is_same_user(ours, target)
        && target.is_dumpable()
        && ours.effective.contains(target.status.permitted)
        && [0, YAMA_NO_ATTACH].contains(&yama_scope);
    // In another namespace it counts only from outside, where the kernel knows its maker.
    if !may_trace {
        needed |= CapabilitySet::SYS_PTRACE;
    }
    needed - ours.effective
}

fn is_same_user(ours: &Status, target: &Target) -> bool {
    target.status.users.are_all(ours.users.real) && target.status.groups.are_all(ours.groups.real)
}

/// Says which capabilities are missing, and why they are needed: the first reason that holds.
fn missing(facts: &Facts, target: &Target, lacks: CapabilitySet) -> String {
    let (ours, yama_scope) = (&facts.ours, facts.yama_scope());
    let users = target.status.users;
    let (we, names) = (ours.users.effective, names(lacks));
    let belongs = match users.are_all(users.real) {
        true => format!("it belongs to user {}", users.real),
        false => format!(
            "it belongs to several users (real {}, effective {}, saved {})",
            users.real, users.effective, users.saved
        ),
    };
    let what = if !users.are_all(ours.users.real) {
        format!("{belongs}, and vmstrobe, which runs as user {we}, lacks {names}")
    } else if !target.is_dumpable() {
        format!(
            "it belongs to user {we}, as vmstrobe does, but has changed its user or gained rights \
             (it is not dumpable), and vmstrobe lacks {names}"
        )
    } else if !is_same_user(ours, target) {
        format!("it is of group {}, and vmstrobe lacks {names}", target.status.groups.real)
    } else if !ours.effective.contains(target.status.permitted) {
        format!("it has capabilities that vmstrobe has not, and vmstrobe lacks {names}")
    } else if ![0, YAMA_NO_ATTACH].contains(&yama_scope) {
        format!("kernel.yama.ptrace_scope is {yama_scope}, and vmstrobe lacks {names}")
    } else {
        format!("{belongs}, and vmstrobe lacks {names}")
    };
    let it_takes_its_user = users.are_all(users.real)
        && !users.are_all(ours.users.real)
        && target.is_dumpable()
        && target.status.permitted.is_empty()
        && target.is_in_our_namespace
        // As that user, Yama would refuse the borrowing.
        && facts.yama_setting == 0;
    format!("{what}: {}", advice(ours, lacks, it_takes_its_user.then_some(users.real)))
}

/// Says how to come by these capabilities; or to do without, as that user.
fn advice(ours: &Status, lacks: CapabilitySet, as_user: Option<u32>) -> String {
    let give = format!("give it {}", these(lacks));
    let run = match (ours.users.effective, as_user) {
        // Root without them, in a container say: to be root is not enough.
        (0, _) => give,
        (_, None | Some(0)) => format!("run vmstrobe as root, or {give}"),
        (_, Some(user)) => format!("run vmstrobe as root or as user {user}, or {give}"),
    };
    // Its bounding set does not tell: a program may have emptied it itself.
    match ours.users.effective {
        0 => format!("{run} (what it runs in withholds them: --cap-add, CapabilityBoundingSet=)"),
        _ => run,
    }
}

#[cfg(test)]
mod tests;
