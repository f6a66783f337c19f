//! Virtual machines of others: which are meant, how they are attached to, and when they have ended.
//!
//! Invariant: a virtual machine that was named is attached to, or there is an error that says what
//! to do; of `--all` those that cannot be are named on standard error, none is left out in silence.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmstrobe_providers::{Borrowed, Reaper, Scan, Vm, scan, scan_all};

use crate::args::Source;
use crate::error::{Error, Result};
use crate::out::say;
use crate::text::thousands;

/// The most virtual machines that an error lists.
const LISTED_MAX: usize = 20;

/// A process whose virtual machines are sampled.
#[derive(Debug)]
pub(crate) struct Attached {
    /// What it is called, for people: `VM guest1 (pid 4711)`.
    pub(crate) title: String,
    /// Readable once it has ended. Without one, only its rows tell.
    pidfd: Option<OwnedFd>,
}

impl Attached {
    /// Has the process ended? A zombie has.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }
}

/// The provider for virtual machines of others, attached to nothing yet.
pub(crate) fn borrowed(reaper: Reaper) -> Result<Borrowed> {
    Ok(Borrowed::new(reaper)?)
}

/// Attaches to what the user named, or else to the only one there is.
pub(super) fn attach(provider: &Borrowed, source: &Source) -> Result<Vec<Attached>> {
    if source.all {
        return attach_all(provider);
    }
    let pids = if source.pids.is_empty() { vec![the_only_one()?] } else { source.pids.clone() };
    pids.into_iter().map(|pid| attach_one(provider, pid)).collect()
}

fn attach_one(provider: &Borrowed, pid: u32) -> Result<Attached> {
    // Opened before, so that it can be no later process of the same number.
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pidfd = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
    provider.attach(pid)?;
    let vms = scan(pid).unwrap_or_default();
    let name = vms.first().map(name).unwrap_or_default();
    Ok(Attached { title: format!("VM {name} (pid {pid})"), pidfd })
}

fn attach_all(provider: &Borrowed) -> Result<Vec<Attached>> {
    let found = scan_all()?;
    let mut attached = Vec::new();
    for pid in pids(&found) {
        match attach_one(provider, pid) {
            Ok(vm) => attached.push(vm),
            Err(error) => say(format_args!("left out: {error}")),
        }
    }
    if found.vms.is_empty() {
        return Err(none_found(&found));
    }
    if attached.is_empty() {
        return Err(Error::failed(
            "none of the virtual machines on this host can be read: `vmstrobe list` says why",
        ));
    }
    Ok(attached)
}

fn the_only_one() -> Result<u32> {
    let found = scan_all()?;
    match pids(&found)[..] {
        [] => Err(none_found(&found)),
        [pid] => Ok(pid),
        _ => {
            let more = found.vms.len().saturating_sub(LISTED_MAX);
            let mut text = "several virtual machines run on this host: choose one with -p PID, \
                            or take them all with --all"
                .to_owned();
            for vm in found.vms.iter().take(LISTED_MAX) {
                text += &format!("\n{:>10}  {}", vm.pid, name(vm));
            }
            if more > 0 {
                text += &format!("\n            and {more} more: see `vmstrobe list`");
            }
            Err(Error::failed(text))
        }
    }
}

/// The processes found, each once.
fn pids(found: &Scan) -> Vec<u32> {
    let mut pids: Vec<u32> = found.vms.iter().map(|vm| vm.pid).collect();
    pids.dedup();
    pids
}

/// What people call it.
fn name(vm: &Vm) -> String {
    vm.name.clone().unwrap_or_else(|| vm.pid.to_string())
}

fn none_found(found: &Scan) -> Error {
    let mut text = "no virtual machine found on this host: start one, or try --demo".to_owned();
    if let Some(hidden) = hidden_text(found) {
        text += &format!(" ({hidden})");
    }
    Error::failed(text)
}

/// What to say of processes that we may not look into, if there are any.
pub(crate) fn hidden_text(found: &Scan) -> Option<String> {
    let processes = if found.hidden == 1 { "process" } else { "processes" };
    let advice = match rustix::process::geteuid().is_root() {
        true => "the kernel forbids it even to root",
        false => "run as root, or give vmstrobe CAP_SYS_PTRACE",
    };
    let hidden = thousands(found.hidden as u64);
    (found.hidden > 0).then(|| format!("{hidden} {processes} could not be examined: {advice}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("sleep starts");
        let number = Pid::from_child(&child);
        let pidfd = pidfd_open(number, PidfdFlags::empty()).expect("it lives");
        let attached = Attached { title: String::new(), pidfd: Some(pidfd) };
        assert!(!attached.has_ended());
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(attached.has_ended());
        assert!(!Attached { title: String::new(), pidfd: None }.has_ended());
    }

    #[test]
    fn that_there_is_none_is_said_with_what_is_hidden() {
        let found = Scan { vms: Vec::new(), hidden: 1200 };
        let text = none_found(&found).to_string();
        assert!(text.contains("--demo (1,200 processes could"), "{text}");
    }

    #[test]
    fn what_is_hidden_is_counted() {
        let text = |hidden| hidden_text(&Scan { vms: Vec::new(), hidden });
        assert_eq!(text(0), None);
        assert!(text(1).is_some_and(|text| text.starts_with("1 process could not be examined: ")));
        assert!(text(1200).is_some_and(|text| text.starts_with("1,200 processes could")));
    }
}
