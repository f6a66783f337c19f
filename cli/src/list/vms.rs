//! The virtual machines of a list, each with the methods by which it can be read.
//!
//! Invariant: the JSON has data, and the lines for people are made from the same data. QMP, which
//! cannot be tried without a socket, is only mentioned in the lines.

use serde::Serialize;
use vmstrobe::{Access, ListedVm, ReadMethod, VmInfo, vm_name};

use crate::read_status::method_name;
use crate::table::{Align, Table};
use crate::text::counted;

/// The line about QMP, which cannot be tried without a socket.
const QMP: &str = "for a QEMU, with --from-qmp SOCKET: all that QEMU has, in 600 µs or more";

/// One virtual machine in JSON.
#[derive(Debug, Serialize)]
pub(super) struct VmEntry<'a> {
    pid: u32,
    name: Option<&'a str>,
    vcpus: usize,
    readable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    stats_fds: StatsFds,
    /// Present with `--verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<[MethodEntry<'a>; 2]>,
}

/// The stats fds that its VMM keeps open.
#[derive(Debug, Serialize)]
struct StatsFds {
    vcpus: usize,
    vm: bool,
}

/// One method to read a virtual machine.
#[derive(Debug, Serialize)]
struct MethodEntry<'a> {
    method: &'static str,
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> VmEntry<'a> {
    /// Returns the entry of a virtual machine, with all methods if `verbose`.
    pub(super) fn new(listed: &'a ListedVm, verbose: bool) -> Self {
        let ListedVm { vm, method, pread, bpf, .. } = listed;
        let stats_fds = match vm.access {
            Access::StatsFds { vcpus, vm } => StatsFds { vcpus, vm },
            _ => StatsFds { vcpus: 0, vm: false },
        };
        let methods = [
            MethodEntry {
                method: method_name(ReadMethod::Pread),
                open: pread.is_ok(),
                instructions: None,
                reason: pread.as_ref().err().map(String::as_str),
            },
            MethodEntry {
                method: method_name(ReadMethod::Bpf),
                open: bpf.is_ok(),
                instructions: bpf.as_deref().ok(),
                reason: bpf.as_ref().err().map(String::as_str),
            },
        ];
        Self {
            pid: vm.pid,
            name: vm.name.as_deref(),
            vcpus: vm.vcpus,
            readable: method.is_ok(),
            method: method.as_ref().ok().copied().map(method_name),
            reason: method.as_ref().err().map(String::as_str),
            stats_fds,
            methods: verbose.then_some(methods),
        }
    }
}

/// Returns a line for each virtual machine, and if `verbose` its methods below it, for a terminal
/// of this width.
pub(super) fn lines(vms: &[ListedVm], verbose: bool, width: usize) -> Vec<String> {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("NAME", Align::Left)
        .column("VCPUS", Align::Right)
        .column("HOW", Align::Left);
    for listed in vms {
        let vm = &listed.vm;
        let how = how(listed);
        table.row([vm.pid.to_string(), vm_name(vm), vm.vcpus.to_string(), how]);
        for method in if verbose { method_lines(listed) } else { Vec::new() } {
            table.row(["", "", "", &method].map(str::to_owned));
        }
    }
    table.lines_fitting(width)
}

/// Describes how a virtual machine is read, or why it cannot be.
fn how(ListedVm { vm, method, .. }: &ListedVm) -> String {
    let text = match method {
        // QEMU with -preconfig, or a VMM that is just starting.
        Ok(ReadMethod::Bpf) if vm.vcpus == 0 => {
            "BPF, through its VM descriptor; it has no vCPU yet".to_owned()
        }
        Ok(ReadMethod::Bpf) => "BPF, through its vCPU descriptors".to_owned(),
        _ => vm.access.to_string(),
    };
    super::how(method.as_ref().map(|_| &*text))
}

/// Returns a line for each method: the descriptors that it reads if it can be used, else the
/// reason.
fn method_lines(ListedVm { vm, pread, bpf, .. }: &ListedVm) -> Vec<String> {
    let vcpus = counted(vm.vcpus, "vCPU");
    let pread = pread.as_ref().map(|()| stats_fds(vm));
    let bpf = bpf.as_ref().map(|how| format!("descriptors of the VM and of its {vcpus} ({how})"));
    let mut table = Table::new().column("", Align::Left).column("", Align::Left);
    for (method, verdict) in [(ReadMethod::Pread, pread), (ReadMethod::Bpf, bpf)] {
        let verdict = match verdict {
            Ok(what) => format!("open: {what}"),
            Err(why) => format!("closed: {why}"),
        };
        table.row([method_name(method).to_owned(), verdict]);
    }
    table.row(["qmp", QMP].map(str::to_owned));
    table.lines()
}

/// Describes the stats fds that the VMM keeps open. It keeps at least one.
fn stats_fds(vm: &VmInfo) -> String {
    match vm.access {
        Access::StatsFds { vcpus: 0, .. } => "stats fd of the VM, and none of its vCPUs".to_owned(),
        Access::StatsFds { vcpus: some, vm: has_vm } => {
            let of = if some < vm.vcpus { format!("{some} of its ") } else { "its ".to_owned() };
            let whole = match has_vm {
                true => " and of the VM",
                false => ", none of the VM (QEMU opens that one only while it answers query-stats)",
            };
            format!("stats fds of {of}{}{whole}", counted(vm.vcpus, "vCPU"))
        }
        access => access.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPS_STATS_FDS: Access = Access::StatsFds { vcpus: 2, vm: false };

    fn listed(name: Option<&str>, access: Access) -> ListedVm {
        let name = name.map(str::to_owned);
        let vm = VmInfo { pid: 4711, name, start_time_ticks: 1, uid: 0, vcpus: 2, access };
        let bpf = Ok("may_goto, rdonly_cast".to_owned());
        ListedVm { vm, method: Ok(ReadMethod::Pread), pread: Ok(()), bpf }
    }

    fn old() -> ListedVm {
        let pread = Err("its VMM keeps none".to_owned());
        ListedVm { method: Ok(ReadMethod::Bpf), pread, ..listed(None, Access::NoStatsFds) }
    }

    #[test]
    fn verbose_lists_the_methods_below_each_vm() {
        let want = [
            " PID  NAME   VCPUS  HOW",
            "4711  größe      2  stats fds of its vCPUs",
            "                    pread  open: stats fds of its 2 vCPUs, none of the VM (QEMU",
            "                      opens that one only while it answers query-stats)",
            "                    bpf    open: descriptors of the VM and of its 2 vCPUs",
            "                      (may_goto, rdonly_cast)",
            "                    qmp    for a QEMU, with --from-qmp SOCKET: all that QEMU",
            "                      has, in 600 µs or more",
        ];
        assert_eq!(lines(&[listed(Some("größe"), KEEPS_STATS_FDS)], true, 80), want);
        let want = [
            " PID  NAME  VCPUS  HOW",
            "4711  4711      2  BPF, through its vCPU descriptors",
            "4711  4711      2  cannot be read: it is too old",
        ];
        let refused = ListedVm { method: Err("it is too old".to_owned()), ..old() };
        assert_eq!(lines(&[old(), refused], false, 80), want);
    }

    #[test]
    fn json_of_virtual_machines() {
        let json = |vm: &ListedVm, verbose| vmstrobe::json::text(&VmEntry::new(vm, verbose));
        let head = r#"{"pid": 4711, "name": null, "vcpus": 2, "#;
        let want = r#""readable": true, "method": "bpf", "stats_fds": {"vcpus": 0, "vm": false}}"#;
        assert_eq!(json(&old(), false), format!("{head}{want}"));
        let refused = ListedVm { method: Err("it is too old".to_owned()), ..old() };
        let text = json(&refused, false);
        assert!(text.contains(r#""readable": false, "reason": "it is too old", "#), "{text}");
        let text = json(&listed(None, KEEPS_STATS_FDS), true);
        let want =
            r#""readable": true, "method": "pread", "stats_fds": {"vcpus": 2, "vm": false}, "#
                .to_owned()
                + r#""methods": [{"method": "pread", "open": true}, "#
                + r#"{"method": "bpf", "open": true, "instructions": "may_goto, rdonly_cast"}]}"#;
        assert!(text.ends_with(&want), "{text}");
        let text = json(&old(), true);
        assert!(text.contains(r#""open": false, "reason": "its VMM keeps none"}"#), "{text}");
    }

    #[test]
    fn stats_fds_are_counted() {
        let text = |vcpus, vm| stats_fds(&listed(None, Access::StatsFds { vcpus, vm }).vm);
        assert_eq!(text(2, true), "stats fds of its 2 vCPUs and of the VM");
        assert!(text(1, false).starts_with("stats fds of 1 of its 2 vCPUs, none of the VM"));
        assert_eq!(text(0, true), "stats fd of the VM, and none of its vCPUs");
    }
}
