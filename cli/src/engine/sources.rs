//! The sources of statistics, one short function each: from what the user named to providers in the
//! registry.
//!
//! Invariant: whatever the user named is among the providers, or there is an error. Paths are
//! told apart where several sources have the same ones.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Provider, Registry, Target};
use vmstrobe_providers::{AttachedKvm, BpfStatus, FdClient, Host, Qmp, QmpShare, Reaper, scan_by};

use super::attach::Processes;
use super::attached::{Attached, process_name};
use super::distinct::{PathPolicy, Paths};
use super::providers::Setup;
use crate::args::Source;
use crate::error::{Error, Result, with_causes};
use crate::out::say;

/// Providers being put together in one registry.
#[derive(Debug)]
pub(super) struct Sources {
    registry: Registry,
    reaper: Reaper,
    setup: Setup,
    paths: Paths,
    processes: Processes,
}

/// Adds the providers of what the user named, or else of the only source there is. Returns the
/// sources that they belong to.
///
/// # Errors
/// If one of them cannot be read, or it is not clear which one is meant.
pub(super) fn open(source: &Source, registry: &Registry, setup: &Setup) -> Result<Vec<Attached>> {
    let mut sources = Sources::new(registry.clone(), Reaper::new()?, setup.clone())?;
    let mut attached = match source.all || !source.pids.is_empty() || !source.is_named() {
        true => sources.processes.attach(source)?,
        false => Vec::new(),
    };
    sources.add_processes()?;
    for file in &source.tables {
        attached.push(sources.processes.open_file(file)?);
    }
    for socket in &source.qmp {
        attached.push(sources.qmp(socket, source)?);
    }
    for socket in &source.sockets {
        attached.push(sources.handed_over(socket)?);
    }
    Ok(attached)
}

impl Sources {
    /// None yet, in a registry where nobody else adds any.
    ///
    /// # Errors
    /// If the system has no threads for them.
    pub(super) fn new(registry: Registry, reaper: Reaper, setup: Setup) -> Result<Self> {
        let processes = Processes::new(&reaper, &setup.attach)?;
        Ok(Self { registry, reaper, setup, paths: Paths::default(), processes })
    }

    /// One process and nothing else: its virtual machine, its tables.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(super) fn process(&mut self, pid: u32) -> Result<Attached> {
        let attached = self.processes.attach_one(pid)?;
        self.add_processes()?;
        Ok(attached)
    }

    /// Adds the statistics that only the QEMU of a process has, beside what is read of the process,
    /// and calls the vCPUs as QEMU does.
    pub(super) fn add_qemu(&self, pid: u32, qmp: Arc<Qmp>) {
        let kvm = &self.processes.kvm;
        kvm.use_names(pid, qmp.cpu_names());
        // Looks for the names' vCPUs, and fails for no more than it warns of.
        let _ = kvm.objects();
        kvm.warnings().iter().for_each(|warning| say(with_causes(warning)));
        let policy = self.beside_kvm(label(&qmp));
        self.add(qmp, policy);
    }

    fn add(&self, provider: Arc<dyn Provider>, policy: PathPolicy) {
        self.registry.add(self.paths.distinct(provider, policy));
    }

    /// Virtual machines, with what the scheduler says of their vCPUs where that is wanted.
    ///
    /// # Errors
    /// If the system has no thread for it.
    fn add_vms(&self, kvm: Arc<AttachedKvm>, policy: PathPolicy) -> Result<()> {
        if !self.setup.sched {
            self.add(kvm, policy);
            return Ok(());
        }
        let sched = kvm.sched()?;
        let both = self.paths.distinct_pair([kvm, Arc::new(sched)], policy);
        both.into_iter().for_each(|provider| self.registry.add(provider));
        Ok(())
    }

    /// The policy for a QEMU that is asked for what cannot be read from KVM. Where the BPF reader
    /// can read the VM as a whole, QEMU's statistics of it are left out.
    fn beside_kvm(&self, label: String) -> PathPolicy {
        let is_read = matches!(self.setup.bpf().status(), BpfStatus::Open(_));
        let hidden = is_read.then_some(("kvm", Target::Vm));
        PathPolicy { label, always: false, hidden }
    }

    /// `-p`, `--all`, or nothing at all: virtual machines and tables of processes. The tables are
    /// there for `--table` too.
    ///
    /// # Errors
    /// As [`Sources::add_vms`].
    fn add_processes(&self) -> Result<()> {
        let (kvm, tables) = (Arc::clone(&self.processes.kvm), Arc::clone(&self.processes.tables));
        let policy = labelled("/kvm");
        match self.processes.vmms.is_empty() {
            true => self.add(kvm, policy),
            false => self.add_vms(kvm, policy)?,
        }
        self.add(tables, labelled("/table"));
        Ok(())
    }

    /// `--from-qmp`: a QEMU alone, or what it knows beside a VM that is read in a quicker way.
    fn qmp(&self, socket: &Path, source: &Source) -> Result<Attached> {
        let beside = !self.processes.vmms.is_empty();
        let share = if beside { QmpShare::BesideKvm } else { QmpShare::All };
        let qmp = Qmp::connect_by(socket, share, &self.setup.attach.host)?;
        // Every QEMU has the same paths.
        let several = source.qmp.len() > 1;
        if beside {
            let (host, vmms) = (&self.setup.attach.host, &self.processes.vmms);
            let pid = vmm_behind(host, &qmp, socket, vmms, source.all, several)?;
            self.name_vcpus(pid, &qmp, several)?;
        }
        let attached = qemu(socket, &qmp, !beside);
        let label = label(&qmp);
        let policy = if beside { self.beside_kvm(label) } else { labelled(label) };
        self.add(Arc::new(qmp), PathPolicy { always: several, ..policy });
        Ok(attached)
    }

    /// Lets the vCPUs of a process be called as its QEMU does.
    fn name_vcpus(&self, pid: u32, qmp: &Qmp, several: bool) -> Result<()> {
        let kvm = &self.processes.kvm;
        if !several {
            kvm.use_names(pid, qmp.cpu_names());
            return Ok(());
        }
        // On its own, so that its paths can be told from the others'.
        let own = AttachedKvm::with_options(self.reaper.clone(), self.setup.attach.clone())?;
        own.attach(pid)?;
        own.use_names(pid, qmp.cpu_names());
        kvm.detach(pid);
        self.add_vms(Arc::new(own), PathPolicy { always: true, ..labelled(label(qmp)) })
    }

    /// `--from-socket`: what a process hands over.
    fn handed_over(&self, socket: &Path) -> Result<Attached> {
        let (reaper, options) = (self.reaper.clone(), self.setup.attach.clone());
        let lender = FdClient::connect_with(socket, reaper, options)?;
        let file = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for provider in lender.providers() {
            self.add(provider, labelled(format!("/{file}")));
        }
        let title = format!("the process behind {}", socket.display());
        Ok(Attached::remote(title, file, lender.peer_pid()))
    }
}

/// A QEMU that is asked, alone or beside its VM.
pub(super) fn qemu(socket: &Path, qmp: &Qmp, is_alone: bool) -> Attached {
    let name = qmp.vm_name().to_owned();
    let title = format!("QEMU {name} ({})", socket.display());
    let mut attached = Attached::remote(title, name, qmp.peer_pid());
    attached.is_vm = is_alone;
    attached
}

/// Of a provider whose paths are its own, as long as nobody else has them.
fn labelled(label: impl Into<String>) -> PathPolicy {
    PathPolicy { label: label.into(), ..PathPolicy::default() }
}

fn label(qmp: &Qmp) -> String {
    format!("/vm/{}", qmp.vm_name())
}

/// Returns the process whose vCPUs a QEMU has names for: the one behind the socket, or, if that has
/// no VM (it is a launcher or a relay) or cannot be seen, the only VMM that there is. If that was
/// not named but found, it takes the name of its VM to tell, and that there is one socket.
///
/// # Errors
/// If it is not clear which process that is, or QEMU calls its VM otherwise.
pub(super) fn vmm_behind(
    host: &Host,
    qmp: &Qmp,
    socket: &Path,
    vmms: &[u32],
    all: bool,
    several: bool,
) -> Result<u32> {
    let peer = qmp.peer_pid();
    if let Some(pid) = peer.filter(|pid| vmms.contains(pid)) {
        return Ok(pid);
    }
    let has_no_vm = peer.is_none_or(|pid| scan_by(host, pid).is_err());
    if let ([pid], true) = (vmms, has_no_vm) {
        let named = scan_by(host, *pid).ok().and_then(|vms| vms.into_iter().next()?.name);
        match named {
            Some(name) if name != qmp.vm_name() => return Err(another(socket, qmp, *pid, &name)),
            Some(_) if !several => return Ok(*pid),
            _ if !all => return Ok(*pid),
            _ => {}
        }
    }
    let whose = match peer {
        Some(pid) if has_no_vm => {
            format!("pid {pid} ({}), which has no VM", process_name(host, pid))
        }
        Some(pid) => format!("pid {pid}, which is not read"),
        None => "a process that the kernel does not name".to_owned(),
    };
    let advice = match peer.filter(|_| !has_no_vm && !all) {
        Some(pid) => format!("add -p {pid}, or ask QEMU alone, without -p"),
        None => "give only its QEMU with -p, or ask QEMU alone, without -p and --all".to_owned(),
    };
    Err(Error::usage(format!(
        "cannot tell which VM the socket {} belongs to: its peer is {whose}: {advice}",
        socket.display()
    )))
}

/// Returns the error for a socket whose QEMU is not the only VMM that there is: their VMs have
/// different names.
fn another(socket: &Path, qmp: &Qmp, pid: u32, name: &str) -> Error {
    Error::usage(format!(
        "{} is the socket of another QEMU, which calls its VM '{}': that of pid {pid} is '{name}'; \
         give the socket of pid {pid}, or ask QEMU alone, without -p and --all",
        socket.display(),
        qmp.vm_name()
    ))
}
