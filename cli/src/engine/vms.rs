//! Several virtual machines, each by itself: one registry a VM.
//!
//! Invariant: what belongs to one VM is in no other's registry. A QEMU that is asked beside them
//! belongs to the VM whose process is behind its socket, also after it was started again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_providers::{Access, Bpf, LeftOut, Qmp, QmpShare, Reaper, Scan, scan_all_by};

use super::attach::{self, name};
use super::hidden_text;
use super::providers::Setup;
use super::sources::vmm_behind;
use super::vm::VmRegistry;
use crate::args::Source;
use crate::error::Result;

/// A process with virtual machines, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Vmm {
    pub(crate) pid: u32,
    /// In clock ticks since boot. With it, a later process of the same number is another.
    pub(crate) start_time_ticks: u64,
    /// The user that it runs as: its real user id.
    pub(crate) uid: u32,
}

/// How to open virtual machines one by one.
pub(crate) struct Vms {
    reaper: Reaper,
    setup: Setup,
    /// The QEMUs that are asked beside the VMs.
    qemus: Vec<Qemu>,
    all: bool,
}

struct Qemu {
    socket: PathBuf,
    qmp: Arc<Qmp>,
}

impl Vms {
    /// Connects to the QEMUs that the user named beside virtual machines.
    ///
    /// # Errors
    /// If one of them cannot be asked.
    pub(crate) fn new(source: &Source, setup: Setup) -> Result<Self> {
        let connect = |socket: &PathBuf| -> Result<Qemu> {
            let qmp = Qmp::connect_by(socket, QmpShare::BesideKvm, &setup.attach.host)?;
            Ok(Qemu { socket: socket.clone(), qmp: Arc::new(qmp) })
        };
        if source.all {
            // Tried here, where it is no part of a look: the longer one takes, the later is the
            // next. Whether it can be used is asked again for each VM.
            let _ = setup.bpf().check();
        }
        let is_alone = !source.all && source.pids.is_empty();
        let sockets = if is_alone { &[][..] } else { &source.qmp[..] };
        let qemus = sockets.iter().map(connect).collect::<Result<_>>()?;
        Ok(Self { reaper: Reaper::new()?, setup, qemus, all: source.all })
    }

    /// Opens what the user named, each process or QEMU by itself, or else the only source there is.
    /// Opens nothing for `--all`, whose virtual machines come and go.
    ///
    /// # Errors
    /// If one of them cannot be read, or it is not clear which one is meant.
    pub(crate) fn named(&self, source: &Source) -> Result<Vec<VmRegistry>> {
        if source.all {
            return Ok(Vec::new());
        }
        if source.demo {
            return Ok(vec![VmRegistry::named(source, &self.setup)?]);
        }
        if !source.is_named() {
            return Ok(vec![
                self.open(attach::Found::look(&self.setup.attach.host)?.the_only_one()?)?,
            ]);
        }
        if source.pids.is_empty() {
            let of_qemu = |socket: &PathBuf| VmRegistry::of_qemu(socket, &self.setup);
            return source.qmp.iter().map(of_qemu).collect();
        }
        let mut seen = HashSet::new();
        let pids = source.pids.iter().filter(|pid| seen.insert(**pid));
        pids.map(|&pid| self.open(pid)).collect()
    }

    /// One virtual machine of this host, with what only its QEMU knows.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(crate) fn open(&self, pid: u32) -> Result<VmRegistry> {
        let mut vm = VmRegistry::of_process(pid, self.reaper.clone(), self.setup.clone())?;
        self.add_qemus(&mut vm);
        Ok(vm)
    }

    /// Adds the QEMUs that are known to be this VM's by now.
    pub(crate) fn add_qemus(&self, vm: &mut VmRegistry) {
        let its_own = |qemu: &&Qemu| vm.pid().is_some() && qemu.qmp.peer_pid() == vm.pid();
        let its_own: Vec<&Qemu> = self.qemus.iter().filter(its_own).collect();
        its_own.into_iter().for_each(|qemu| vm.add_qemu(&qemu.qmp));
    }

    /// Returns the user that a process belongs to; `None` if it has ended.
    pub(crate) fn uid(&self, pid: u32) -> Option<u32> {
        self.setup.attach.host.uid(pid)
    }

    /// Looks for the processes with virtual machines on this host.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub(crate) fn look(&self) -> Result<Found> {
        let scan = scan_all_by(&self.setup.attach.host)?;
        let (hidden, vms) = (hidden_text(&scan), by_process(&scan, self.setup.bpf()));
        Ok(Found { hidden, vms, left_out: scan.left_out, waited: scan.waited })
    }

    /// Gives each QEMU to its VM, at the start.
    ///
    /// # Errors
    /// If it is not clear whose vCPUs one speaks of.
    pub(crate) fn share_out<'a>(
        &self,
        vms: impl IntoIterator<Item = &'a mut VmRegistry>,
    ) -> Result<()> {
        let mut vms: Vec<&mut VmRegistry> = vms.into_iter().collect();
        let pids: Vec<u32> = vms.iter().filter_map(|vm| vm.pid()).collect();
        for Qemu { socket, qmp } in &self.qemus {
            let (host, several) = (&self.setup.attach.host, self.qemus.len() > 1);
            let pid = vmm_behind(host, qmp, socket, &pids, self.all, several)?;
            let its_own = vms.iter_mut().filter(|vm| vm.pid() == Some(pid));
            its_own.for_each(|vm| vm.add_qemu(qmp));
        }
        Ok(())
    }
}

/// The result of [`Vms::look`].
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) vms: Vec<FoundVm>,
    /// The message about processes that we may not look into, if there are any.
    pub(crate) hidden: Option<String>,
    /// The processes that were not looked at.
    pub(crate) left_out: Vec<LeftOut>,
    /// How long of the look was spent waiting for some of these.
    pub(crate) waited: Duration,
}

/// A process with virtual machines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundVm {
    pub(crate) vmm: Vmm,
    /// As people call it: `VM web (pid 4711)`.
    pub(crate) title: String,
    /// Why it cannot be read, if that is known already.
    pub(crate) refused: Option<String>,
}

/// Each process once, with the first of its virtual machines.
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
            FoundVm { vmm, title: format!("VM {} (pid {})", name(vm), vm.pid), refused }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vmstrobe_providers::VmInfo;

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
    fn each_process_is_served_by_itself() {
        let table = vmstrobe_providers::TableWriter::new("vms").expect("there is memory");
        let pid = std::process::id();
        let source = Source { pids: vec![pid, pid], ..Source::default() };
        let setup = Setup::new(&Source::default(), Bpf::off(), false);
        let vms = Vms::new(&source, setup).expect("there are threads");
        let named = vms.named(&source).expect("it has a table");
        assert_eq!(named.iter().map(VmRegistry::pid).collect::<Vec<_>>(), [Some(pid)]);
        assert!(!named[0].has_ended());
        drop(table);
        let all = Source { all: true, ..Source::default() };
        assert!(vms.named(&all).expect("they come later").is_empty());
    }
}
