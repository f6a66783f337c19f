//! `vmstrobe list`: the virtual machines and the tables on this host, and how they can be read.
//!
//! Invariant: every VM and table that was found is listed, readable or not. Processes that may not
//! be examined are counted on standard error. An empty list is no error. QMP, which cannot be tried
//! without a socket, is only mentioned in the lines.

use vmstrobe::json;
use vmstrobe::{Access, ListedTables, ListedVm, ReadMethod, VmInfo, name_or_number, vm_name};

use crate::args::{BpfWhen, ListArgs, SourceArgs};
use crate::attach;
use crate::error::Result;
use crate::messages::of_left_out;
use crate::out::{Out, say, say_each};
use crate::privileges::Needs;
use crate::table::{Align, Table};
use crate::terminal;
use crate::text::counted;

/// The line about QMP, which cannot be tried without a socket.
const QMP: &str = "for a QEMU, with --from-qmp SOCKET: all that QEMU has, in 600 µs or more";

/// Lists the virtual machines and the tables.
///
/// # Errors
/// If /proc cannot be read, or the list cannot be written.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Result<u8> {
    let broker = Needs::of(&SourceArgs::default(), BpfWhen::Auto).move_to_broker()?;
    let bpf = attach::bpf_for_reading(BpfWhen::Auto, broker)?;
    let listing =
        vmstrobe::list(&attach::options(&SourceArgs::default(), bpf, false), args.verbose)?;
    listing.hidden.iter().for_each(say);
    say_each(of_left_out(&listing.left_out));
    if args.json {
        out.lines([json::text(&listing)])?;
    } else if listing.vms.is_empty() && listing.tables.is_empty() {
        say("no virtual machine and no table of statistics found on this host; `vmstrobe demo` \
             starts one of its own");
    } else {
        let width = terminal::width_of(out);
        let (vms, tables) = (&listing.vms, &listing.tables);
        let parts = [
            (!vms.is_empty()).then(|| vms_lines(vms, args.verbose, width)),
            (!tables.is_empty()).then(|| tables_table(tables).lines_fitting(width)),
        ];
        out.lines(parts.into_iter().flatten().collect::<Vec<_>>().join(&String::new()))?;
    }
    Ok(0)
}

/// Returns a line for each virtual machine, and if `verbose` its methods below it, for a terminal
/// of this width.
fn vms_lines(vms: &[ListedVm], verbose: bool, width: usize) -> Vec<String> {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("NAME", Align::Left)
        .column("VCPUS", Align::Right)
        .column("HOW", Align::Left);
    for listed in vms {
        let vm = &listed.vm;
        let how = how_vm(listed);
        table.row([vm.pid.to_string(), vm_name(vm), vm.vcpus.to_string(), how]);
        for method in if verbose { method_lines(listed) } else { Vec::new() } {
            table.row(["", "", "", &method].map(str::to_owned));
        }
    }
    table.lines_fitting(width)
}

/// Describes how a virtual machine is read, or why it cannot be.
fn how_vm(ListedVm { vm, method, .. }: &ListedVm) -> String {
    let text = match method {
        // QEMU with -preconfig, or a VMM that is just starting.
        Ok(ReadMethod::Bpf) if vm.vcpus == 0 => {
            "BPF, through its VM descriptor; it has no vCPU yet".to_owned()
        }
        Ok(ReadMethod::Bpf) => "BPF, through its vCPU descriptors".to_owned(),
        _ => vm.access.to_string(),
    };
    how(method.as_ref().map(|_| &*text))
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
        table.row([method.name().to_owned(), verdict]);
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

fn tables_table(tables: &[ListedTables]) -> Table {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("PROCESS", Align::Left)
        .column("PROVIDER", Align::Left)
        .column("OBJECTS", Align::Left)
        .column("HOW", Align::Left);
    for tables in tables {
        let counts = tables.objects.iter().map(|(target, count)| format!("{count} {target}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let objects = match (counts.is_empty(), &tables.refused) {
            (false, _) => counts,
            (true, None) => "none".to_owned(),
            (true, Some(_)) => "-".to_owned(),
        };
        let name = name_or_number(tables.comm.clone(), tables.pid);
        let how = how(tables.refused.as_ref().map_or(Ok("mapped"), Err));
        table.row([tables.pid.to_string(), name, tables.provider.clone(), objects, how]);
    }
    table
}

/// Describes the method of reading, or why there is none.
fn how(how: std::result::Result<&str, &String>) -> String {
    how.map_or_else(|why| format!("cannot be read: {why}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(comm: &str, objects: &[(&str, usize)], refused: Option<&str>) -> ListedTables {
        let objects = objects.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (comm, refused) = (comm.to_owned(), refused.map(str::to_owned));
        ListedTables { pid: 99, comm, provider: "xyz".to_owned(), objects, refused }
    }

    #[test]
    fn a_table_is_listed_with_its_objects_or_the_reason_for_none() {
        let lines = |tables| tables_table(&[tables]).lines();
        let want = [
            "PID  PROCESS  PROVIDER  OBJECTS          HOW",
            " 99  xyzd     xyz       1 disk, 2 queue  mapped",
        ];
        assert_eq!(lines(tables("xyzd", &[("disk", 1), ("queue", 2)], None)), want);
        let none = lines(tables("xyzd", &[], None)).remove(1);
        assert!(none.ends_with("xyz       none     mapped"), "{none}");
        let torn = lines(tables("xyzd", &[], Some("it is torn"))).remove(1);
        assert!(torn.ends_with("xyz       -        cannot be read: it is torn"), "{torn}");
        // A process whose name cannot be read is listed by its id.
        let blank = lines(tables(" ", &[], None)).remove(1);
        assert!(blank.starts_with(" 99  99       xyz"), "{blank}");
    }

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
        assert_eq!(vms_lines(&[listed(Some("größe"), KEEPS_STATS_FDS)], true, 80), want);
        let want = [
            " PID  NAME  VCPUS  HOW",
            "4711  4711      2  BPF, through its vCPU descriptors",
            "4711  4711      2  cannot be read: it is too old",
        ];
        let refused = ListedVm { method: Err("it is too old".to_owned()), ..old() };
        assert_eq!(vms_lines(&[old(), refused], false, 80), want);
    }

    #[test]
    fn stats_fds_are_counted() {
        let text = |vcpus, vm| stats_fds(&listed(None, Access::StatsFds { vcpus, vm }).vm);
        assert_eq!(text(2, true), "stats fds of its 2 vCPUs and of the VM");
        assert!(text(1, false).starts_with("stats fds of 1 of its 2 vCPUs, none of the VM"));
        assert_eq!(text(0, true), "stats fd of the VM, and none of its vCPUs");
    }
}
