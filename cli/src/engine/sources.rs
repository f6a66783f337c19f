//! Where statistics come from, one short function a source: from what the user named to providers
//! in the registry.
//!
//! Invariant: whatever the user named is among the providers, or there is an error. Paths are
//! told apart where several sources have the same ones.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Provider, Registry};
use vmstrobe_providers::{Borrowed, HandedOver, Qmp, QmpShare, Reaper, scan};

use super::attach::Processes;
use super::attached::{Attached, comm};
use super::distinct::Paths;
use crate::args::Source;
use crate::error::{Error, Result};

/// Providers being put together.
struct Sources<'a> {
    registry: &'a Registry,
    reaper: Reaper,
    paths: Paths,
    processes: Processes,
    source: &'a Source,
}

/// Adds the providers of what the user named, or else of the only one there is. Gives whose
/// statistics they are.
///
/// # Errors
/// If one of them cannot be read, or it is not clear which one is meant.
pub(super) fn open(source: &Source, registry: &Registry) -> Result<Vec<Attached>> {
    let reaper = Reaper::new()?;
    let (processes, paths) = (Processes::new(reaper.clone())?, Paths::default());
    let mut sources = Sources { registry, reaper, paths, processes, source };
    let mut attached = sources.processes()?;
    for file in &source.tables {
        attached.push(sources.processes.open_file(file)?);
    }
    for socket in &source.qmp {
        attached.push(sources.qmp(socket)?);
    }
    for socket in &source.sockets {
        attached.push(sources.handed_over(socket)?);
    }
    Ok(attached)
}

impl Sources<'_> {
    fn add(&self, provider: Arc<dyn Provider>, label: String, always: bool) {
        self.registry.add(self.paths.distinct(provider, label, always));
    }

    /// `-p`, `--all`, or nothing at all: virtual machines and tables of processes. The tables are
    /// there for `--table` too.
    fn processes(&mut self) -> Result<Vec<Attached>> {
        let Source { pids, all, .. } = self.source;
        let attached = match *all || !pids.is_empty() || !self.source.is_named() {
            true => self.processes.attach(self.source)?,
            false => Vec::new(),
        };
        let (kvm, tables) = (Arc::clone(&self.processes.kvm), Arc::clone(&self.processes.tables));
        self.add(kvm, "/kvm".to_owned(), false);
        self.add(tables, "/table".to_owned(), false);
        Ok(attached)
    }

    /// `--from-qmp`: a QEMU alone, or what it knows beside a VM that is read in a quicker way.
    fn qmp(&self, socket: &Path) -> Result<Attached> {
        let beside = !self.processes.vmms.is_empty();
        let share = if beside { QmpShare::BesideKvm } else { QmpShare::All };
        let qmp = Qmp::connect(socket, share)?;
        let (name, peer) = (qmp.vm_name().to_owned(), qmp.peer_pid());
        // Every QEMU has the same paths.
        let (label, several) = (format!("/vm/{name}"), self.source.qmp.len() > 1);
        if beside {
            let pid = vmm_behind(socket, peer, &self.processes.vmms, self.source.all)?;
            self.name_vcpus(pid, &qmp, label.clone(), several)?;
        }
        self.add(Arc::new(qmp), label, several);
        Ok(Attached::remote(format!("QEMU {name} ({})", socket.display()), peer))
    }

    /// Lets the vCPUs of a process be called as its QEMU does.
    fn name_vcpus(&self, pid: u32, qmp: &Qmp, label: String, several: bool) -> Result<()> {
        let kvm = &self.processes.kvm;
        if !several {
            kvm.use_names(pid, qmp.cpu_names());
            return Ok(());
        }
        // On its own, so that its paths can be told from the others'.
        let own = Borrowed::new(self.reaper.clone())?;
        own.attach(pid)?;
        own.use_names(pid, qmp.cpu_names());
        kvm.detach(pid);
        self.add(Arc::new(own), label, true);
        Ok(())
    }

    /// `--from-socket`: what a process hands over.
    fn handed_over(&self, socket: &Path) -> Result<Attached> {
        let lender = HandedOver::connect(socket, self.reaper.clone())?;
        let file = socket.file_stem().unwrap_or_default().to_string_lossy();
        for provider in lender.providers() {
            self.add(provider, format!("/{file}"), false);
        }
        let title = format!("the process behind {}", socket.display());
        Ok(Attached::remote(title, lender.peer_pid()))
    }
}

/// Whose vCPUs a QEMU has names for: those of the process behind the socket, or of the only VMM
/// there is, if it is a launcher or a relay that is behind it.
fn vmm_behind(socket: &Path, peer: Option<u32>, vmms: &[u32], all: bool) -> Result<u32> {
    if let Some(pid) = peer.filter(|pid| vmms.contains(pid)) {
        return Ok(pid);
    }
    let has_no_vm = peer.is_none_or(|pid| scan(pid).is_err());
    if let ([pid], false, true) = (vmms, all, has_no_vm) {
        return Ok(*pid);
    }
    let whose = match peer {
        Some(pid) if has_no_vm => format!("pid {pid} ({}), which has no VM", comm(pid)),
        Some(pid) => format!("pid {pid}, which is not read"),
        None => "a process that the kernel does not tell".to_owned(),
    };
    let advice = match peer.filter(|_| !has_no_vm && !all) {
        Some(pid) => format!("add -p {pid}, or ask this QEMU alone, without -p"),
        None => "name its QEMU alone by -p, or ask it alone, without -p and --all".to_owned(),
    };
    Err(Error::usage(format!(
        "whose vCPUs does {} speak of? Behind it is {whose}: {advice}",
        socket.display()
    )))
}
