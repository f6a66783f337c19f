//! `vmstrobe list`: the virtual machines on this host, and how they can be read.
//!
//! Whether one can be read is found out by trying: its stats fds are borrowed and given back.
//!
//! Invariant: every virtual machine that can be seen is listed, readable or not; processes that may
//! not be looked into are counted on standard error. None at all is an answer, not an error.

use serde::Serialize;
use vmstrobe_providers::{Access, Reaper, Scan, Vm, scan_all};

use crate::args::ListArgs;
use crate::engine::borrowed;
use crate::error::{Result, with_causes};
use crate::json;
use crate::out::{Out, say};
use crate::table::{Align, Table};
use crate::text::thousands;

/// One virtual machine.
#[derive(Debug, Serialize)]
struct Entry {
    pid: u32,
    name: Option<String>,
    vcpus: usize,
    readable: bool,
    how: String,
}

/// Lists them.
///
/// # Errors
/// If /proc cannot be read, or the list not be written.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Result<u8> {
    let found = scan_all()?;
    let kvm = borrowed(Reaper::new()?)?;
    let mut entries = Vec::new();
    for vm in &found.vms {
        // Of several virtual machines in one process, the first attaches all.
        let refused = kvm.attach(vm.pid).map_err(|error| with_causes(&error)).err();
        entries.push(entry(vm, refused));
    }
    if let Some(hidden) = hidden_text(&found) {
        say(hidden);
    }
    if args.json {
        out.lines([json::text(&entries)])?;
    } else if entries.is_empty() {
        say("no virtual machine found on this host; `vmstrobe demo` starts one of its own");
    } else {
        out.lines(table(&entries).lines())?;
    }
    Ok(0)
}

fn entry(vm: &Vm, refused: Option<String>) -> Entry {
    let readable = refused.is_none() && vm.access != Access::NoStatsFds;
    let how = refused.unwrap_or_else(|| vm.access.to_string());
    Entry { pid: vm.pid, name: vm.name.clone(), vcpus: vm.vcpus, readable, how }
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("NAME", Align::Left)
        .column("VCPUS", Align::Right)
        .column("HOW", Align::Left);
    for entry in entries {
        let name = entry.name.clone().unwrap_or_else(|| "-".to_owned());
        let how = if entry.readable { "" } else { "cannot be read: " }.to_owned() + &entry.how;
        table.row([entry.pid.to_string(), name, entry.vcpus.to_string(), how]);
    }
    table
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
    use super::*;

    fn vm(name: Option<&str>, access: Access) -> Vm {
        let name = name.map(str::to_owned);
        Vm { pid: 4711, name, start_time_ticks: 1, vcpus: 2, access }
    }

    #[test]
    fn whether_and_how_it_can_be_read_is_said() {
        let readable = Access::StatsFds { vcpus: 2, vm: false };
        let entries = [
            entry(&vm(Some("web"), readable), None),
            entry(&vm(None, Access::NoStatsFds), Some("it is too old".to_owned())),
        ];
        let want = [
            " PID  NAME  VCPUS  HOW",
            "4711  web       2  stats fds of its vCPUs",
            "4711  -         2  cannot be read: it is too old",
        ];
        assert_eq!(table(&entries).lines(), want);
        let want = r#"{"pid": 4711, "name": null, "vcpus": 2, "readable": false, "#.to_owned()
            + r#""how": "it is too old"}"#;
        assert_eq!(json::text(&entries[1]), want);
    }
    #[test]
    fn what_is_hidden_is_counted() {
        let text = |hidden| hidden_text(&Scan { vms: Vec::new(), hidden });
        assert_eq!(text(0), None);
        assert!(text(1).is_some_and(|text| text.starts_with("1 process could not be examined: ")));
        assert!(text(1200).is_some_and(|text| text.starts_with("1,200 processes could")));
    }
}
