//! `vmstrobe list`: the virtual machines on this host, and how they can be read.
//!
//! Whether one can be read is found out by trying: its stats fds are borrowed and given back.
//!
//! Invariant: every virtual machine that can be seen is listed, readable or not; processes that may
//! not be looked into are counted on standard error. None at all is an answer, not an error.

use serde::Serialize;
use vmstrobe_providers::{Access, Reaper, Vm, scan_all};

use crate::args::ListArgs;
use crate::engine::{borrowed, hidden_text};
use crate::error::{Result, with_causes};
use crate::json;
use crate::out::{Out, say};
use crate::table::{Align, Table};

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
}
