//! From sources as a user names them to providers in a registry, one short function a kind.
//!
//! Invariant: each source that was named is among the providers, or there is an error.

use std::path::Path;
use std::sync::Arc;

use crate::parts::FdClient;
use crate::parts::{AttachOptions, AttachedKvm, KVM};
use crate::parts::{Bpf, BpfStatus};
use crate::parts::{Qmp, QmpShare};
use vmstrobe_core::{PathPolicy, Provider, Registry, Target};
use vmstrobe_host::{Host, Reaper};

use crate::arrivals::Arrivals;
use crate::error::Result;
use crate::member::Member;
use crate::notice::{Notice, Notices};
use crate::processes::Processes;
use crate::qemu::{self, Vmms};
use crate::sources::{Options, Sources};

/// Opens providers into one registry.
#[derive(Debug)]
pub(crate) struct Opener {
    registry: Registry,
    reaper: Reaper,
    options: AttachOptions,
    bpf: Bpf,
    sched: bool,
    notices: Notices,
    processes: Processes,
}

/// Adds the providers of the sources that the user named, or else of the only one there is, to the
/// registry. Returns the members that they belong to, and the search for others if all are meant.
///
/// # Errors
/// If one of them cannot be read, or it is not clear which one is meant.
pub(crate) fn open(
    sources: &Sources,
    options: &Options,
    registry: &Registry,
    notices: &Notices,
) -> Result<(Vec<Member>, Option<Arrivals>)> {
    let (registry, notices) = (registry.clone(), notices.clone());
    let reaper = Reaper::with_threads(&options.threads)?;
    let mut opener = Opener::new(registry, reaper, options, sources.all, notices)?;
    let mut members = match sources.has_processes() {
        true => opener.processes.attach(sources)?,
        false => Vec::new(),
    };
    opener.add_processes()?;
    for file in &sources.tables {
        members.push(opener.processes.open_file(file)?);
    }
    for socket in &sources.qmp {
        let member = opener.qmp(socket, sources, &mut members)?;
        members.push(member);
    }
    for socket in &sources.sockets {
        members.push(opener.fd_client(socket)?);
    }
    let Opener { processes, options, notices, .. } = opener;
    let arrivals = || Arrivals::new(processes, options.host, notices, &members);
    let arrivals = sources.all.then(arrivals);
    Ok((members, arrivals))
}

impl Opener {
    /// Returns an opener that has opened nothing yet; `all` as in [`Sources`].
    ///
    /// # Errors
    /// If the system has no threads for it.
    pub(crate) fn new(
        registry: Registry,
        reaper: Reaper,
        options: &Options,
        all: bool,
        notices: Notices,
    ) -> Result<Self> {
        let (sched, bpf, options) = (options.sched, options.bpf.clone(), options.attach(all));
        let processes = Processes::new(&reaper, &options, notices.clone())?;
        Ok(Self { registry, reaper, options, bpf, sched, notices, processes })
    }

    /// Opens one process and nothing else: its virtual machine, its tables.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(crate) fn process(&mut self, pid: u32) -> Result<Member> {
        let member = self.processes.attach_one(pid)?;
        self.add_processes()?;
        Ok(member)
    }

    /// Adds the statistics that only the QEMU of a process has, beside what is read of the process,
    /// and calls the vCPUs as QEMU does.
    pub(crate) fn add_qemu(&self, pid: u32, qmp: Arc<Qmp>) {
        let kvm = &self.processes.kvm;
        kvm.use_names(pid, qmp.cpu_names());
        // Looks for the names' vCPUs, and fails for no more than it warns of.
        let _ = kvm.objects();
        kvm.warnings().into_iter().for_each(|warning| self.notices.add(Notice::Provider(warning)));
        let policy = self.beside_kvm(&qmp);
        self.registry.add_with(qmp, policy);
    }

    /// Adds virtual machines, with the scheduler's statistics of their vCPUs where they are wanted.
    ///
    /// # Errors
    /// If the system has no thread for it.
    fn add_vms(&self, kvm: Arc<AttachedKvm>, policy: PathPolicy) -> Result<()> {
        if self.sched {
            let sched = Arc::new(kvm.sched()?);
            self.registry.add_pair([kvm, sched], policy);
        } else {
            self.registry.add_with(kvm, policy);
        }
        Ok(())
    }

    /// Returns the policy for a QEMU that is asked for what cannot be read from KVM. Where the BPF
    /// reader can read the VM as a whole, QEMU's statistics of it are left out.
    fn beside_kvm(&self, qmp: &Qmp) -> PathPolicy {
        let is_read = matches!(self.bpf.status(), BpfStatus::Open(_));
        let hidden = is_read.then_some((KVM, Target::Vm));
        PathPolicy { hidden, ..qemu::policy(qmp) }
    }

    /// Adds the virtual machines and tables of processes. The provider of tables is there for those
    /// in files too.
    ///
    /// # Errors
    /// As [`Opener::add_vms`].
    fn add_processes(&self) -> Result<()> {
        let (kvm, tables) = (Arc::clone(&self.processes.kvm), Arc::clone(&self.processes.tables));
        match self.processes.vmms.is_empty() {
            true => self.registry.add(kvm),
            false => self.add_vms(kvm, PathPolicy::default())?,
        }
        self.registry.add(tables);
        Ok(())
    }

    /// Adds a QEMU alone, or what it knows beside the VM of one of the members, which is read in a
    /// quicker way.
    fn qmp(&self, socket: &Path, sources: &Sources, members: &mut [Member]) -> Result<Member> {
        let beside = !self.processes.vmms.is_empty();
        let share = if beside { QmpShare::BesideKvm } else { QmpShare::All };
        let qmp = Arc::new(Qmp::connect_by(socket, share, self.host())?);
        let several_sockets = sources.qmp.len() > 1;
        if beside {
            let (host, pids, all) = (self.host(), &*self.processes.vmms, sources.all);
            let pid = Vmms { host, pids, all, several_sockets }.behind(&qmp, socket)?;
            if several_sockets {
                let own = self.name_vcpus_apart(pid, &qmp)?;
                let is_its = |member: &&mut Member| member.is_process() && member.pid == Some(pid);
                members.iter_mut().filter(is_its).for_each(|vm| vm.add_provider(own.clone()));
            } else {
                self.processes.kvm.use_names(pid, qmp.cpu_names());
            }
        }
        let member = qemu::member(socket, &qmp, !beside);
        let policy = if beside { self.beside_kvm(&qmp) } else { qemu::policy(&qmp) };
        let policy = PathPolicy { always: several_sockets, ..policy };
        self.registry.add_with(qmp, policy);
        Ok(member)
    }

    /// Lets the vCPUs of a process be called as its QEMU does, by a provider of its own, whose
    /// paths have a label of their own.
    fn name_vcpus_apart(&self, pid: u32, qmp: &Qmp) -> Result<Arc<AttachedKvm>> {
        let own = AttachedKvm::with_options(self.reaper.clone(), self.options.clone())?;
        let own = Arc::new(own);
        own.attach(pid)?;
        own.use_names(pid, qmp.cpu_names());
        self.processes.kvm.detach(pid);
        self.add_vms(Arc::clone(&own), PathPolicy { always: true, ..qemu::policy(qmp) })?;
        Ok(own)
    }

    /// Adds what a program offers on a socket.
    fn fd_client(&self, socket: &Path) -> Result<Member> {
        let (reaper, options) = (self.reaper.clone(), self.options.clone());
        let client = FdClient::connect_with(socket, reaper, options)?;
        let file = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let providers = client.providers();
        for provider in providers.iter().cloned() {
            let label = Some(format!("/{file}"));
            self.registry.add_with(provider, PathPolicy { label, ..PathPolicy::default() });
        }
        let title = format!("the process behind {}", socket.display());
        Ok(Member::remote(title, file, client.peer_pid(), providers))
    }

    fn host(&self) -> &Host {
        &self.options.host
    }
}
