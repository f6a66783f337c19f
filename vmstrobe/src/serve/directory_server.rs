//! A socket in a directory for each virtual machine that was named, or for all on this host,
//! including those that start later.
//!
//! Invariant: a virtual machine is opened only if the limits leave a socket for it and its user. A
//! search opens new virtual machines for at most [`OPENING_LIMIT`], so that the existing ones are
//! not neglected; the next search continues.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error as CoreError, ErrorKind};

use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::notice::Notice;
use crate::sources::{Options, Sources};
use crate::survey::{KnownLeftOut, LeftOut};
use crate::vm_opener::{FoundVm, VmOpener};
use crate::vm_tracker::{VmTracker, Vmm};

use super::accounts::TrustedUsers;
use super::directory::SocketDirectory;
use super::event::{Event, Owner};
use super::quota::{LimitReached, Quota};
use super::vm_sockets::VmSockets;

/// The longest time for which a search opens virtual machines.
const OPENING_LIMIT: Duration = Duration::from_millis(500);
/// The longest time of the first search: VMs that run already are served before the start is
/// reported.
const OPENING_LIMIT_AT_FIRST: Duration = Duration::from_secs(10);

/// The directory of sockets, and the virtual machines that get one.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The directory, which exists.
    pub path: PathBuf,
    /// The users, by name or number, whose virtual machines get plain names and any number of
    /// sockets, beside root, this user and the owner of the directory. If there are none, the
    /// system's users, and those that QEMU runs as under libvirt.
    pub trusted_users: Vec<String>,
    /// The virtual machines; for all, also those that start later.
    pub sources: Sources,
    /// The options for opening them.
    pub options: Options,
}

/// The search for virtual machines, and the decisions on their sockets.
#[derive(Debug)]
pub(super) struct DirectoryServer {
    directory: SocketDirectory,
    sources: Sources,
    vms: VmOpener,
    quota: Quota,
    tracker: VmTracker,
    /// The last search failed, which had its event.
    has_look_failed: bool,
    /// The processes that the last search could not examine.
    left_out: KnownLeftOut,
}

/// The result of a search.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// The time that the search took, without the time to open new VMs, which later searches do not
    /// need again.
    pub(super) took: Duration,
    /// Some new VMs were not tried for lack of time.
    pub(super) is_unfinished: bool,
}

impl DirectoryServer {
    /// Examines the directory, and connects to the QEMUs that were named beside virtual machines.
    ///
    /// # Errors
    /// If the directory cannot have the sockets, a user does not exist, or a QEMU cannot be asked.
    pub(super) fn new(config: DirectoryConfig) -> Result<Self> {
        let DirectoryConfig { path, trusted_users, sources, options } = config;
        let directory = options.bpf.broker().run(move || SocketDirectory::new(&path))?;
        let trusted = TrustedUsers::new(&trusted_users, directory.owner())?;
        Ok(Self {
            directory,
            vms: VmOpener::new(&sources, options)?,
            sources,
            quota: Quota::new(trusted),
            tracker: VmTracker::default(),
            has_look_failed: false,
            left_out: KnownLeftOut::default(),
        })
    }

    /// Returns the path of the directory.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Opens the sockets of the virtual machines that run: of those that were named, or of all.
    ///
    /// # Errors
    /// If a VM that was named cannot be served, or /proc cannot be read.
    pub(super) fn serve_sources(
        &mut self,
        vm_sockets: &mut VmSockets,
        must_stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut named = self.vms.named(&self.sources)?;
        if !self.sources.all {
            self.vms.share_out(&mut named)?;
        }
        for vm in named {
            let name = vm.main().map(|member| member.name.clone()).unwrap_or_default();
            self.serve_named(&name, vm, vm_sockets)?;
        }
        if self.sources.all {
            let found = self.vms.look()?;
            found
                .hidden
                .into_iter()
                .for_each(|hidden| vm_sockets.events.add(Event::Hidden(hidden)));
            self.note_left_out(found.left_out, vm_sockets);
            self.update(&found.vms, vm_sockets, must_stop, OPENING_LIMIT_AT_FIRST);
            // The virtual machine of a QMP socket may start later, so this is no error.
            if let Err(error) = self.vms.share_out(vm_sockets.vms()) {
                vm_sockets.events.add(Event::QemuUnclear(error));
            }
        }
        Ok(())
    }

    /// Serves a virtual machine that was named. It gets a plain name, whatever its user.
    ///
    /// # Errors
    /// If there is no socket left, or it cannot be created.
    pub(super) fn serve_named(
        &self,
        name: &str,
        vm: Attachment,
        vm_sockets: &mut VmSockets,
    ) -> Result<()> {
        self.quota.check(&vm_sockets.users(), None).map_err(Error::NoSocketLeft)?;
        let pid = vm.main().map_or(Some(std::process::id()), |member| member.pid);
        let path = self.directory.socket(name, pid, None, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, None)
    }

    /// Searches for virtual machines that have started or ended, and for QEMUs that were restarted.
    pub(super) fn look(
        &mut self,
        vm_sockets: &mut VmSockets,
        must_stop: &dyn Fn() -> bool,
    ) -> Look {
        let begin = Instant::now();
        let mut look = Look::default();
        if self.sources.all {
            let found = self.vms.look();
            look.took = begin.elapsed();
            match found {
                Ok(found) => {
                    self.has_look_failed = false;
                    // Waiting uses no CPU, so it does not lengthen the pause.
                    look.took = look.took.saturating_sub(found.waited);
                    self.note_left_out(found.left_out, vm_sockets);
                    look.is_unfinished =
                        self.update(&found.vms, vm_sockets, must_stop, OPENING_LIMIT);
                }
                Err(error) if !self.has_look_failed => {
                    self.has_look_failed = true;
                    vm_sockets.events.add(Event::SearchFailed(error));
                }
                Err(_) => {}
            }
        }
        let mut notices = Vec::new();
        vm_sockets.vms().for_each(|vm| {
            self.vms.add_qemus(vm);
            notices.extend(vm.notices());
        });
        notices.into_iter().for_each(|notice| vm_sockets.events.add(Event::Notice(notice)));
        look
    }

    /// Notes each process that cannot be examined, once.
    fn note_left_out(&mut self, left_out: Vec<LeftOut>, vm_sockets: &mut VmSockets) {
        let new = self.left_out.news(left_out);
        if !new.is_empty() {
            vm_sockets.events.add(Event::Notice(Notice::LeftOut(new)));
        }
    }

    /// Closes the sockets of VMs that have ended, and opens new VMs up to the time limit. Returns
    /// true if some of them were not tried.
    fn update(
        &mut self,
        found: &[FoundVm],
        vm_sockets: &mut VmSockets,
        must_stop: &dyn Fn() -> bool,
        limit: Duration,
    ) -> bool {
        let vmms: Vec<Vmm> = found.iter().map(|vm| vm.vmm).collect();
        let found: HashMap<Vmm, &FoundVm> = found.iter().map(|vm| (vm.vmm, vm)).collect();
        let begin = Instant::now();
        let changes = self.tracker.compare(&vmms, &vm_sockets.vmms(), begin);
        vm_sockets.close_gone(&changes.gone);
        let mut without_socket = WithoutSocket::default();
        let mut is_unfinished = false;
        for vmm in self.quota.opening_order(changes.came) {
            if must_stop() {
                return false;
            }
            let Some(found) = found.get(&vmm) else { continue };
            // Checked before opening, which is expensive.
            if let Err(full) = self.quota.check(&vm_sockets.users(), Some(vmm.uid)) {
                if self.tracker.wait(vmm) {
                    without_socket.add(full, self.quota.untrusted(vmm.uid).is_some(), &found.title);
                }
                continue;
            }
            if begin.elapsed() >= limit {
                is_unfinished = true;
                continue;
            }
            self.serve_or_refuse(found, vm_sockets);
        }
        without_socket.note(vm_sockets);
        is_unfinished
    }

    fn serve_or_refuse(&mut self, found: &FoundVm, vm_sockets: &mut VmSockets) {
        let vmm = found.vmm;
        let error = match &found.refused {
            Some(why) => CoreError::new(ErrorKind::Unsupported, why.clone()).into(),
            None => match self.serve_found(found, vm_sockets) {
                Ok(()) => return self.tracker.accept(vmm),
                Err(error) => error,
            },
        };
        if self.tracker.refuse(vmm) {
            let is_untrusted = self.quota.untrusted(vmm.uid).is_some();
            let title = found.title.clone();
            vm_sockets.events.add(Event::Refused { title, error, is_untrusted });
        }
        if found.refused.is_none() {
            self.tracker.put_off(vmm, Instant::now());
        }
    }

    fn serve_found(&self, found: &FoundVm, vm_sockets: &mut VmSockets) -> Result<()> {
        let vmm = found.vmm;
        let vm = self.vms.open(vmm.pid)?;
        // The process that was found may have ended, and another may have its id. The one that was
        // opened is held, so if it still runs, this is its user.
        let is_same_users = self.vms.uid(vmm.pid) == Some(vmm.uid);
        let name = vm.main().map(|member| member.name.clone()).unwrap_or_default();
        if !is_same_users || vm.has_ended() || name.is_empty() {
            return Err(Error::ChangedWhileOpened { pid: vmm.pid });
        }
        let pid = vm.main().and_then(|member| member.pid);
        let untrusted = self.quota.untrusted(vmm.uid);
        let path = self.directory.socket(&name, pid, untrusted, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, Some(Owner { vmm, is_untrusted: untrusted.is_some() }))
    }
}

/// The virtual machines for which there is no socket, with one event for each limit.
#[derive(Debug, Default)]
struct WithoutSocket {
    of: BTreeMap<(LimitReached, bool), (String, usize)>,
}

impl WithoutSocket {
    fn add(&mut self, full: LimitReached, is_untrusted: bool, title: &str) {
        let new = || (title.to_owned(), 0);
        self.of.entry((full, is_untrusted)).or_insert_with(new).1 += 1;
    }

    fn note(self, vm_sockets: &mut VmSockets) {
        for ((limit, is_untrusted), (title, count)) in self.of {
            let others = count.saturating_sub(1);
            vm_sockets.events.add(Event::NoSocket { title, others, limit, is_untrusted });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vm_sockets::ServingConfig;
    use super::*;

    #[test]
    fn virtual_machines_without_a_socket_are_counted() {
        let mut without_socket = WithoutSocket::default();
        for title in ["VM a (pid 1)", "VM b (pid 2)", "VM c (pid 3)"] {
            without_socket.add(LimitReached::User(1000), true, title);
        }
        without_socket.add(LimitReached::All, false, "VM d (pid 4)");
        let mut vm_sockets = VmSockets::new(ServingConfig::default());
        without_socket.note(&mut vm_sockets);
        let events = vm_sockets.events.take().into_iter().map(|event| match event {
            Event::NoSocket { title, others, limit, is_untrusted } => {
                (title, others, limit, is_untrusted)
            }
            other => panic!("{other:?}"),
        });
        let want = [
            ("VM d (pid 4)".to_owned(), 0, LimitReached::All, false),
            ("VM a (pid 1)".to_owned(), 2, LimitReached::User(1000), true),
        ];
        assert_eq!(events.collect::<Vec<_>>(), want);
    }
}
