//! The view that /proc gives of other processes: none if it is not mounted, not all if it is
//! mounted with `hidepid=`.
//!
//! Invariant: a process from which /proc hides nothing is not told that it does.

use std::fs;
use std::process;

use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use rustix::thread::CapabilitySet;
use vmstrobe_core::{Error, ErrorKind, Result};

use crate::status::Status;

/// Looks whether /proc is there, without which no process can be looked at, and numbers processes
/// as the system calls do.
///
/// # Errors
/// `Unsupported` if it does not.
pub fn mounted() -> Result<()> {
    let is_proc = statfs(c"/proc").is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC);
    let own = fs::read_link("/proc/self").unwrap_or_default();
    let what = match own.to_str().and_then(|own| own.parse::<u32>().ok()) {
        _ if !is_proc => "/proc is not mounted",
        Some(own) if own == process::id() => return Ok(()),
        _ => "/proc is that of another pid namespace, with other numbers for processes",
    };
    let text = format!("{what}: mount it (mount -t proc proc /proc)");
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Says why /proc does not show all processes to a process with these rights; `None` if it does.
pub(crate) fn hiding(ours: &Status) -> Option<String> {
    hidden_by(&fs::read_to_string("/proc/self/mountinfo").ok()?, ours)
}

/// Says why /proc does not show that process; `None` if there is none of that number.
pub(crate) fn not_shown(pid: u32, ours: &Status) -> Option<String> {
    let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
    match test_kill_process(number) {
        Ok(()) | Err(Errno::PERM) => hiding(ours),
        Err(_) => None,
    }
}

/// Says the same from the text of proc_pid_mountinfo(5).
fn hidden_by(mountinfo: &str, ours: &Status) -> Option<String> {
    // The last one is on top of the others.
    let lines = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let mut mounts = lines.filter(|(place, _)| place.split(' ').nth(4) == Some("/proc"));
    let mount = mounts.next_back()?;
    let (kind, options) = (mount.1.split(' ').next()?, mount.1.split(' ').next_back()?);
    let option = |name| options.split(',').find_map(|option| option.strip_prefix(name));
    let (level, group) = (option("hidepid=")?, option("gid=").unwrap_or("0"));
    // Kernels before 5.8 show the number.
    let by_group = match level {
        _ if kind != "proc" => return None,
        "0" | "off" => return None,
        "4" | "ptraceable" => false,
        _ => true,
    };
    let is_member = group.parse().is_ok_and(|group| ours.is_in_group(group));
    if ours.effective.contains(CapabilitySet::SYS_PTRACE) || by_group && is_member {
        return None;
    }
    let as_member =
        if by_group { format!(", as a member of group {group}") } else { String::new() };
    Some(format!(
        "/proc is mounted with hidepid={level}, so that processes of other users are hidden from \
         user {}: run vmstrobe as root{as_member}, or with CAP_SYS_PTRACE",
        ours.users.effective
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::plain;

    fn mounts(options: &str) -> String {
        format!(
            "21 27 0:20 / /sys rw - sysfs sysfs rw,hidepid=2\n\
             22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw,hidepid=invisible\n\
             63 45 0:39 / /proc rw,relatime - proc proc {options}\n\
             64 45 0:39 / /proc/sys rw,relatime - tmpfs x rw,hidepid=1\n"
        )
    }

    #[test]
    fn the_mount_on_top_says_from_whom_it_hides() {
        let hidden = |options| hidden_by(&mounts(options), &plain());
        for open in [
            "rw",
            "rw,hidepid=off",
            "rw,hidepid=0",
            "rw,gid=7,hidepid=invisible",
            "rw,gid=7,hidepid=1",
        ] {
            assert_eq!(hidden(open), None, "{open}");
        }
        let want = "/proc is mounted with hidepid=invisible, so that processes of other users are \
                    hidden from user 7: run vmstrobe as root, as a member of group 9, or with \
                    CAP_SYS_PTRACE";
        assert_eq!(hidden("rw,gid=9,hidepid=invisible").as_deref(), Some(want));
        let text = hidden("rw,hidepid=2").unwrap();
        assert!(text.contains("hidepid=2") && text.contains("a member of group 0"), "{text}");
        for level in ["noaccess", "1"] {
            let options = format!("rw,hidepid={level}");
            assert!(hidden_by(&mounts(&options), &plain()).is_some(), "{level}");
        }
        // Its group is of no use there.
        let text = hidden("rw,gid=7,hidepid=ptraceable").unwrap();
        assert!(!text.contains("member"), "{text}");
        let effective = CapabilitySet::SYS_PTRACE;
        let strong = Status { effective, ..plain() };
        assert_eq!(hidden_by(&mounts("rw,hidepid=4"), &strong), None);
        assert_eq!(hidden_by("", &plain()), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_not_hidden() {
        mounted().unwrap();
        let own = Status::own().unwrap();
        assert_eq!(not_shown(1 << 22, &own), None);
        assert_eq!(not_shown(u32::MAX, &own), None);
        // One that is there is hidden if others are.
        assert_eq!(not_shown(std::process::id(), &own), hiding(&own));
    }
}
