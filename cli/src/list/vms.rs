//! The virtual machines of a list, each with the methods by which it can be read.
//!
//! Invariant: a method is called open if it was tried here, for this virtual machine or (the BPF
//! reader) on this host, and closed with the reason. Those that cannot be told from
//! outside are named without a verdict, and only to people.

use serde::Serialize;
use vmstrobe_core::{Error, ErrorKind};
use vmstrobe_providers::{Access, AttachOptions, AttachedKvm, Bpf, BpfStatus, Reaper, VmInfo};

use crate::engine::name_or_number;
use crate::error::{Result, with_causes};
use crate::table::{Align, Table};
use crate::text::counted;

/// The method that cannot be tried without its socket.
const QMP: &str = "--from-qmp SOCKET, if it is a QEMU: in 600 µs or more, all that QEMU knows";
/// The names of the two methods that are tried, in the list and in its JSON.
const PREAD: &str = "pread";
const BPF: &str = "bpf";

/// One virtual machine, for programs.
#[derive(Debug, Serialize)]
pub(super) struct VmEntry {
    pid: u32,
    name: Option<String>,
    vcpus: usize,
    readable: bool,
    how: String,
    /// If they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<[MethodEntry; 2]>,
}

/// One method to read it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct MethodEntry {
    method: &'static str,
    open: bool,
    /// By what; or why not.
    how: String,
}

/// By which instructions the BPF reader works on this host, or why it does not.
pub(super) type BpfOnHost = std::result::Result<String, String>;

/// Returns what is known of the BPF reader so far; if it `must_tell`, tries it first.
pub(super) fn on_host(bpf: &Bpf, must_tell: bool) -> BpfOnHost {
    if must_tell {
        bpf.check().map_err(|error| with_causes(&error))?;
    }
    match bpf.status() {
        BpfStatus::Open(how) => Ok(how),
        status => Err(status.to_string()),
    }
}

/// So many processes are attached to at a time, so that their descriptors have room.
const TRIED_AT_ONCE: usize = 64;

/// Each of these virtual machines with what came of attaching to it.
///
/// # Errors
/// If the system has no threads for it.
pub(super) fn tried(
    vms: &[VmInfo],
    options: &AttachOptions,
    bpf: &Bpf,
    verbose: bool,
) -> Result<Vec<VmEntry>> {
    let kvm = AttachedKvm::with_options(Reaper::new()?, options.clone())?;
    let processes: Vec<&[VmInfo]> = vms.chunk_by(|a, b| a.pid == b.pid).collect();
    let mut entries = Vec::new();
    for some in processes.chunks(TRIED_AT_ONCE) {
        let pids: Vec<u32> = some.iter().map(|vms| vms[0].pid).collect();
        // Of several virtual machines in one process, all are attached.
        let outcomes = kvm.attach_all(&pids);
        let bpf = on_host(bpf, verbose);
        for (vms, outcome) in some.iter().zip(outcomes) {
            let refused = outcome.err();
            let entry = |vm| VmEntry::new(vm, refused.as_ref(), &bpf, verbose);
            entries.extend(vms.iter().map(entry));
        }
        for pid in pids {
            kvm.detach(pid);
        }
    }
    Ok(entries)
}

impl VmEntry {
    /// The entry of a virtual machine, from the outcome of attaching to it; with all methods if
    /// `verbose`.
    pub(super) fn new(
        vm: &VmInfo,
        refused: Option<&Error>,
        bpf: &BpfOnHost,
        verbose: bool,
    ) -> Self {
        // One that keeps none can stand beside one that does, in the same process.
        let readable = refused.is_none() && (vm.access != Access::NoStatsFds || bpf.is_ok());
        let how = match refused {
            Some(error) => with_causes(error),
            // QEMU with -preconfig, or a VMM that is just starting.
            None if readable && vm.access == Access::NoStatsFds && vm.vcpus == 0 => {
                "BPF, through its VM descriptor; it has no vCPU yet".to_owned()
            }
            None if readable && vm.access == Access::NoStatsFds => {
                "BPF, through its vCPU descriptors".to_owned()
            }
            None => vm.access.to_string(),
        };
        let methods = verbose.then(|| methods(vm, refused, bpf));
        Self { pid: vm.pid, name: vm.name.clone(), vcpus: vm.vcpus, readable, how, methods }
    }
}

/// Returns both methods, each with what it reads if it is open, or why it is closed.
fn methods(vm: &VmInfo, refused: Option<&Error>, bpf: &BpfOnHost) -> [MethodEntry; 2] {
    let vcpus = counted(vm.vcpus, "vCPU");
    // That there are no stats fds closes one method alone.
    let no_way = refused
        .filter(|error| error.kind() != ErrorKind::Unsupported)
        .map(|error| with_causes(error));
    let pread = match (&no_way, vm.access) {
        (Some(why), _) => Err(why.clone()),
        (None, Access::StatsFds { vcpus: 0, .. }) => {
            Ok("stats fd of the VM, and none of its vCPUs".to_owned())
        }
        (None, Access::StatsFds { vcpus: some, vm: has_vm }) => {
            let of = if some < vm.vcpus { format!("{some} of its ") } else { "its ".to_owned() };
            let whole = match has_vm {
                true => " and of the VM",
                false => ", none of the VM (QEMU opens it only while it is asked)",
            };
            Ok(format!("stats fds of {of}{vcpus}{whole}"))
        }
        (None, _) => {
            Err("its VMM keeps no stats fds open: QEMU does from 8.1 on, and any VMM that \
                          embeds vmstrobe"
                .to_owned())
        }
    };
    let bpf = match (no_way, bpf) {
        (Some(why), _) => Err(why),
        (None, Err(why)) => Err(why.clone()),
        (None, Ok(how)) => Ok(format!("descriptors of the VM and of its {vcpus} ({how})")),
    };
    [(PREAD, pread), (BPF, bpf)].map(|(method, how)| MethodEntry {
        method,
        open: how.is_ok(),
        how: how.unwrap_or_else(|why| why),
    })
}

/// Returns, for people, a line each, and below it the methods, if there are any; on a terminal of
/// that width.
pub(super) fn lines(entries: &[VmEntry], width: usize) -> Vec<String> {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("NAME", Align::Left)
        .column("VCPUS", Align::Right)
        .column("HOW", Align::Left);
    for entry in entries {
        let name = name_or_number(entry.name.clone().unwrap_or_default(), entry.pid);
        let how = super::how(entry.readable, &entry.how);
        table.row([entry.pid.to_string(), name, entry.vcpus.to_string(), how]);
        for method in entry.methods.iter().flat_map(|methods| method_lines(methods)) {
            table.row(["", "", "", &method].map(str::to_owned));
        }
    }
    table.lines_cut(width)
}

/// A line each method.
fn method_lines(methods: &[MethodEntry]) -> Vec<String> {
    let mut table = Table::new().column("", Align::Left).column("", Align::Left);
    for MethodEntry { method, open, how } in methods {
        let verdict = if *open { "open" } else { "closed" };
        table.row([(*method).to_owned(), format!("{verdict}: {how}")]);
    }
    table.row(["qmp", QMP].map(str::to_owned));
    table.lines()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn vm(name: Option<&str>, access: Access) -> VmInfo {
        let name = name.map(str::to_owned);
        VmInfo { pid: 4711, name, start_time_ticks: 1, uid: 0, vcpus: 2, access }
    }

    const KEEPS_STATS_FDS: Access = Access::StatsFds { vcpus: 2, vm: false };

    fn open() -> BpfOnHost {
        Ok("may_goto, rdonly_cast".to_owned())
    }

    #[test]
    fn the_methods_stand_below_each_vm() {
        let web = VmEntry::new(&vm(Some("größe"), KEEPS_STATS_FDS), None, &open(), true);
        let old = VmEntry::new(&vm(None, Access::NoStatsFds), None, &open(), false);
        let want = [
            " PID  NAME   VCPUS  HOW",
            "4711  größe      2  stats fds of its vCPUs",
            "                    pread  open: stats fds of its 2 vCPUs, none of the VM (QEMU",
            "                      opens it only while it is asked)",
            "                    bpf    open: descriptors of the VM and of its 2 vCPUs",
            "                      (may_goto, rdonly_cast)",
            "                    qmp    --from-qmp SOCKET, if it is a QEMU: in 600 µs or",
            "                      more, all that QEMU knows",
            "4711  4711       2  BPF, through its vCPU descriptors",
        ];
        assert_eq!(lines(&[web, old], 80), want);
    }

    #[test]
    fn a_closed_method_says_why() {
        let verdicts = |access, refused, bpf: BpfOnHost| {
            let entry = VmEntry::new(&vm(None, access), refused, &bpf, true);
            let methods = entry.methods.expect("they were asked for");
            (entry.readable, methods.map(|method| (method.open, method.how)))
        };
        let closed = || Err("it takes CAP_BPF".to_owned());
        let (readable, [borrowed, bpf]) = verdicts(KEEPS_STATS_FDS, None, closed());
        assert!(readable && borrowed.0, "{borrowed:?}");
        assert_eq!(bpf, (false, "it takes CAP_BPF".to_owned()));

        let none = Error::new(ErrorKind::Unsupported, "keeps none");
        let (readable, methods) = verdicts(Access::NoStatsFds, Some(&none), closed());
        assert!(!readable && methods.iter().all(|(open, _)| !open), "{methods:?}");
        assert!(methods[0].1.contains("QEMU does from 8.1 on"), "{methods:?}");

        let denied = Error::new(ErrorKind::Denied, "it is another's");
        let (readable, methods) = verdicts(KEEPS_STATS_FDS, Some(&denied), open());
        assert!(!readable, "{methods:?}");
        assert_eq!(methods, [(); 2].map(|()| (false, "it is another's".to_owned())));

        // Beside another VM of its process, which keeps some.
        let (readable, _) = verdicts(Access::NoStatsFds, None, closed());
        assert!(!readable);
    }

    #[test]
    fn stats_fds_are_counted() {
        let how = |vcpus, of_vm| {
            let access = Access::StatsFds { vcpus, vm: of_vm };
            let entry = VmEntry::new(&vm(None, access), None, &open(), true);
            let [borrowed, _] = entry.methods.expect("they were asked for");
            borrowed.how
        };
        assert_eq!(how(2, true), "stats fds of its 2 vCPUs and of the VM");
        assert!(how(1, false).starts_with("stats fds of 1 of its 2 vCPUs, none of the VM"));
        assert_eq!(how(0, true), "stats fd of the VM, and none of its vCPUs");
    }
}
