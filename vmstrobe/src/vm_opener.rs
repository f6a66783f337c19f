//! Opens virtual machines one by one, each as an attachment of its own.
//!
//! Invariant: providers of one VM are in no other's registry. A QEMU that is asked beside them
//! belongs to the VM whose process is behind its socket, also after it was started again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::parts::Bpf;
use crate::parts::{Qmp, QmpShare};
use crate::survey::{Hidden, LeftOut, Scan, scan_all_by};
use vmstrobe_host::{Access, Host, Reaper};

use crate::attachment::Attachment;
use crate::error::Result;
use crate::found::{Found, vm_name};
use crate::qemu::Vmms;
use crate::sources::{Options, Sources};
use crate::vm_tracker::Vmm;

/// Opens virtual machines one by one, for a server that answers for each by itself.
///
/// ```no_run
/// use vmstrobe::{Options, Sources, VmOpener};
/// let opener = VmOpener::new(&Sources { all: true, ..Sources::default() }, Options::default())?;
/// for vm in opener.look()?.vms {
///     println!("{}: {}", vm.title, opener.open(vm.vmm.pid)?.objects()?.len());
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct VmOpener {
    reaper: Reaper,
    options: Options,
    host: Host,
    /// The QEMUs that are asked beside the VMs.
    qemus: Vec<Qemu>,
    all: bool,
}

#[derive(Debug)]
struct Qemu {
    socket: PathBuf,
    qmp: Arc<Qmp>,
}

impl VmOpener {
    /// Connects to the QEMUs that the user named beside virtual machines.
    ///
    /// # Errors
    /// If one of them cannot be asked.
    pub fn new(sources: &Sources, options: Options) -> Result<Self> {
        let host = options.host();
        let connect = |socket: &PathBuf| -> Result<Qemu> {
            let qmp = Qmp::connect_by(socket, QmpShare::BesideKvm, &host)?;
            Ok(Qemu { socket: socket.clone(), qmp: Arc::new(qmp) })
        };
        if sources.all {
            // Tried here, where it is no part of a look: the longer one takes, the later is the
            // next. Whether it can be used is asked again for each VM.
            let _ = options.bpf.check();
        }
        let is_alone = !sources.all && sources.pids.is_empty();
        let sockets = if is_alone { &[][..] } else { &sources.qmp[..] };
        let qemus = sockets.iter().map(connect).collect::<Result<_>>()?;
        let reaper = Reaper::with_threads(&options.threads)?;
        Ok(Self { reaper, options, host, qemus, all: sources.all })
    }

    /// Opens what the user named, each process or QEMU by itself, or else the only source there is.
    /// Opens nothing for all, whose virtual machines come and go.
    ///
    /// # Errors
    /// If one of them cannot be read, or it is not clear which one is meant.
    pub fn named(&self, sources: &Sources) -> Result<Vec<Attachment>> {
        if sources.all {
            return Ok(Vec::new());
        }
        if !sources.is_any() {
            return Ok(vec![self.open(Found::look(&self.host)?.only()?)?]);
        }
        if sources.pids.is_empty() {
            let of_qemu = |socket: &PathBuf| Attachment::of_qemu(socket, &self.options);
            return sources.qmp.iter().map(of_qemu).collect();
        }
        let mut seen = HashSet::new();
        let pids = sources.pids.iter().filter(|pid| seen.insert(**pid));
        pids.map(|&pid| self.open(pid)).collect()
    }

    /// Opens one virtual machine of this host, with what only its QEMU knows.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub fn open(&self, pid: u32) -> Result<Attachment> {
        let mut vm = Attachment::of_process(pid, self.reaper.clone(), &self.options)?;
        self.add_qemus(&mut vm);
        Ok(vm)
    }

    /// Adds the QEMUs that are known to be this VM's by now. To be called about once a second: a
    /// QEMU that was started again comes back.
    pub fn add_qemus(&self, vm: &mut Attachment) {
        let Some(pid) = vm.main().and_then(|vm| vm.pid) else { return };
        for qemu in self.qemus.iter().filter(|qemu| qemu.qmp.peer_pid() == Some(pid)) {
            vm.add_qemu(&qemu.qmp);
        }
    }

    /// Returns the user that a process belongs to; `None` if it has ended.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        self.host.uid(pid)
    }

    /// Looks for the processes with virtual machines on this host.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn look(&self) -> Result<FoundVms> {
        let scan = scan_all_by(&self.host)?;
        let (hidden, vms) = (Hidden::of(&scan), by_process(&scan, &self.options.bpf));
        Ok(FoundVms { hidden, vms, left_out: scan.left_out, waited: scan.waited })
    }

    /// Gives each QEMU to its VM, at the start.
    ///
    /// # Errors
    /// If it is not clear which VM one belongs to.
    pub fn share_out<'a>(&self, vms: impl IntoIterator<Item = &'a mut Attachment>) -> Result<()> {
        let mut vms: Vec<&mut Attachment> = vms.into_iter().collect();
        let pid = |vm: &Attachment| vm.main().and_then(|vm| vm.pid);
        let pids: Vec<u32> = vms.iter().filter_map(|vm| pid(vm)).collect();
        for Qemu { socket, qmp } in &self.qemus {
            let (host, several_sockets) = (&self.host, self.qemus.len() > 1);
            let vmms = Vmms { host, pids: &pids, all: self.all, several_sockets };
            let behind = vmms.behind(qmp, socket)?;
            vms.iter_mut().filter(|vm| pid(vm) == Some(behind)).for_each(|vm| vm.add_qemu(qmp));
        }
        Ok(())
    }
}

/// The result of [`VmOpener::look`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct FoundVms {
    /// The processes with virtual machines.
    pub vms: Vec<FoundVm>,
    /// The processes that this process may not examine.
    pub hidden: Option<Hidden>,
    /// The processes that were not looked at for other reasons.
    pub left_out: Vec<LeftOut>,
    /// The part of the look that was spent waiting for some of these.
    pub waited: Duration,
}

/// A process with virtual machines.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundVm {
    /// The process.
    pub vmm: Vmm,
    /// The title for people: `VM web (pid 4711)`.
    pub title: String,
    /// Why it cannot be read, if that is known already.
    pub refused: Option<String>,
}

/// Returns each process once, with the first of its virtual machines.
fn by_process(scan: &Scan, bpf: &Bpf) -> Vec<FoundVm> {
    let of_process = scan.vms.chunk_by(|a, b| a.pid == b.pid);
    of_process
        .map(|vms| {
            let vm = &vms[0];
            let (pid, start_time_ticks) = (vm.pid, vm.start_time_ticks);
            let vmm = Vmm { pid, start_time_ticks, uid: vm.uid };
            let has_stats_fds = vms.iter().any(|vm| vm.access != Access::NoStatsFds);
            let is_readable = has_stats_fds || bpf.check().is_ok();
            let refused = (!is_readable).then(|| {
                format!("it {}; the BPF reader, which needs none: {}", vm.access, bpf.status())
            });
            FoundVm { vmm, title: format!("VM {} (pid {})", vm_name(vm), vm.pid), refused }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vmstrobe_host::VmInfo;

    use super::*;

    #[test]
    fn a_process_counts_once_and_is_readable_if_one_of_its_vms_is() {
        let vm = |pid, name: Option<&str>, access| VmInfo {
            pid,
            name: name.map(str::to_owned),
            start_time_ticks: 7,
            uid: 0,
            vcpus: 1,
            access,
        };
        let readable = Access::StatsFds { vcpus: 1, vm: false };
        let vms = vec![
            vm(3, Some("web"), Access::NoStatsFds),
            vm(3, Some("web#2"), readable),
            vm(5, None, Access::NoStatsFds),
        ];
        let found = by_process(&Scan { vms, ..Scan::default() }, &Bpf::off());
        let found: Vec<_> =
            found.iter().map(|vm| (vm.vmm.pid, &*vm.title, vm.refused.as_deref())).collect();
        let why = "it keeps no stats fds open (QEMU 8.1 and later do); the BPF reader, which \
                   needs none: switched off";
        assert_eq!(found, [(3, "VM web (pid 3)", None), (5, "VM 5 (pid 5)", Some(why))]);
    }

    #[test]
    fn each_process_is_opened_by_itself() {
        let table = vmstrobe_table::TableWriter::new("vms").expect("there is memory");
        let pid = std::process::id();
        let sources = Sources { pids: vec![pid, pid], ..Sources::default() };
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let opener = VmOpener::new(&sources, options).expect("there are threads");
        let named = opener.named(&sources).expect("it has a table");
        let pids: Vec<_> = named.iter().map(|vm| vm.main().and_then(|vm| vm.pid)).collect();
        assert_eq!(pids, [Some(pid)]);
        assert!(!named[0].has_ended());
        drop(table);
        let all = Sources { all: true, ..Sources::default() };
        assert!(opener.named(&all).expect("they come later").is_empty());
    }
}
