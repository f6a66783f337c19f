//! `serve --qmp-dir`: a socket for each virtual machine that was named, or for all on this host,
//! including those that start later.
//!
//! Invariant: a virtual machine is opened only if the limits leave a socket for it and its user. A
//! search opens new virtual machines for at most [`OPENING_LIMIT`], so that the existing ones are
//! not neglected; the next search continues.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use vmstrobe::{Attachment, FoundVm, LeftOut, Options, VmOpener, VmTracker, Vmm, WhyLeftOut};

use super::accounts::TrustedUsers;
use super::describe::{name, pid};
use super::directory::SocketDirectory;
use super::quota::{LimitReached, Quota};
use super::vm_sockets::{Owner, VmSockets};
use crate::args::{OnExit, ServeArgs};
use crate::attach;
use crate::error::{Error, Result};
use crate::messages::{of_left_out, of_notices};
use crate::out::{say, say_each};
use crate::signals::StopFlag;

/// The longest time for which a search opens virtual machines.
const OPENING_LIMIT: Duration = Duration::from_millis(500);
/// The longest time of the first search: VMs that run already are served before the start is
/// reported.
const OPENING_LIMIT_AT_FIRST: Duration = Duration::from_secs(10);

/// The search for virtual machines, and the decisions on their sockets.
pub(super) struct VmServers {
    directory: SocketDirectory,
    vms: VmOpener,
    quota: Quota,
    tracker: VmTracker,
    /// Virtual machines that start later are served too.
    follows_all: bool,
    /// The last search failed, and its error was printed.
    has_look_failed: bool,
    /// The processes that the last search could not examine.
    left_out: HashSet<u32>,
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

impl VmServers {
    /// Opens the sockets of the virtual machines that run.
    ///
    /// # Errors
    /// If a VM that was named cannot be served; with `--all`, if there is none and `--on-exit` is
    /// `end`.
    pub(super) fn open(
        args: &ServeArgs,
        path: &Path,
        options: Options,
        vm_sockets: &mut VmSockets,
        stop: &StopFlag,
    ) -> Result<Self> {
        let path = path.to_owned();
        let directory = options.bpf.broker().run(move || SocketDirectory::new(&path))?;
        let trusted = TrustedUsers::new(&args.vm_users, directory.owner())?;
        let mut vm_servers = Self {
            directory,
            vms: VmOpener::new(&args.source.sources(), options.clone())?,
            quota: Quota::new(trusted),
            tracker: VmTracker::default(),
            follows_all: args.follows_all(),
            has_look_failed: false,
            left_out: HashSet::new(),
        };
        let mut named = match args.source.demo {
            true => vec![attach::open_one(&args.source, &options)?],
            false => vm_servers.vms.named(&args.source.sources())?,
        };
        if !vm_servers.follows_all {
            vm_servers.vms.share_out(&mut named)?;
        }
        for vm in named {
            vm_servers.serve_named(vm, vm_sockets)?;
        }
        if vm_servers.follows_all {
            let found = vm_servers.vms.look()?;
            found.hidden.iter().for_each(say);
            vm_servers.say_left_out(found.left_out);
            vm_servers.update(&found.vms, vm_sockets, stop, OPENING_LIMIT_AT_FIRST);
            if !stop.is_set() {
                vm_servers.check_found(args.on_exit(), vm_sockets)?;
            }
            // The virtual machine of a QMP socket may start later, so this is no error.
            vm_servers.vms.share_out(vm_sockets.vms()).map_err(Error::from).unwrap_or_else(say);
        }
        Ok(vm_servers)
    }

    fn check_found(&self, on_exit: OnExit, vm_sockets: &VmSockets) -> Result<()> {
        if !vm_sockets.is_empty() {
            return Ok(());
        }
        if on_exit == OnExit::End {
            return Err(Error::failed(
                "no virtual machine on this host can be served: `vmstrobe list` says why; \
                 --on-exit wait waits for one",
            ));
        }
        let path = self.directory.path().join("NAME.sock");
        let path = path.display();
        say(format_args!("no virtual machine runs yet: each will be served at {path}"));
        Ok(())
    }

    /// Searches for virtual machines that have started or ended, and for QEMUs that were restarted.
    pub(super) fn look(&mut self, vm_sockets: &mut VmSockets, stop: &StopFlag) -> Look {
        let begin = Instant::now();
        let mut look = Look::default();
        if self.follows_all {
            let found = self.vms.look();
            look.took = begin.elapsed();
            match found {
                Ok(found) => {
                    self.has_look_failed = false;
                    // Waiting uses no CPU, so it does not lengthen the pause.
                    look.took = look.took.saturating_sub(found.waited);
                    self.say_left_out(found.left_out);
                    look.is_unfinished = self.update(&found.vms, vm_sockets, stop, OPENING_LIMIT);
                }
                Err(error) if !self.has_look_failed => {
                    self.has_look_failed = true;
                    let error = Error::from(error);
                    say(format_args!("cannot search for virtual machines: {error}"));
                }
                Err(_) => {}
            }
        }
        vm_sockets.vms().for_each(|vm| {
            self.vms.add_qemus(vm);
            say_each(of_notices(vm.notices()));
        });
        look
    }

    /// Prints each process that cannot be examined, once. Processes for which there was no time are
    /// not printed: the next search examines them.
    fn say_left_out(&mut self, left_out: Vec<LeftOut>) {
        let silent = left_out.into_iter().filter(|one| one.why != WhyLeftOut::NoTime);
        let (known, new): (Vec<_>, Vec<_>) =
            silent.partition(|one| self.left_out.contains(&one.pid));
        say_each(of_left_out(&new));
        // Other processes are forgotten, so that the set does not grow.
        self.left_out = known.iter().chain(&new).map(|one| one.pid).collect();
    }

    /// Closes the sockets of VMs that have ended, and opens new VMs up to the time limit. Returns
    /// true if some of them were not tried.
    fn update(
        &mut self,
        found: &[FoundVm],
        vm_sockets: &mut VmSockets,
        stop: &StopFlag,
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
            if stop.is_set() {
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
        without_socket.say(vm_sockets);
        is_unfinished
    }

    fn serve_or_refuse(&mut self, found: &FoundVm, vm_sockets: &mut VmSockets) {
        let vmm = found.vmm;
        let error = match &found.refused {
            Some(why) => Error::failed(why),
            None => match self.serve_found(found, vm_sockets) {
                Ok(()) => return self.tracker.accept(vmm),
                Err(error) => error,
            },
        };
        if self.tracker.refuse(vmm) {
            let text = format!("left out: {}: {error}", found.title);
            vm_sockets.say_refused(self.quota.untrusted(vmm.uid).is_some(), &text);
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
        if !is_same_users || vm.has_ended() || name(&vm).is_empty() {
            return Err(Error::failed("its process ended or changed while it was opened"));
        }
        let untrusted = self.quota.untrusted(vmm.uid);
        let path =
            self.directory.socket(name(&vm), pid(&vm), untrusted, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, Some(Owner { vmm, is_untrusted: untrusted.is_some() }))
    }

    /// Serves a VM that was named on the command line. It gets a plain name, whatever its user.
    fn serve_named(&self, vm: Attachment, vm_sockets: &mut VmSockets) -> Result<()> {
        self.quota
            .check(&vm_sockets.users(), None)
            .map_err(|full| Error::failed(full.to_string()))?;
        let path = self.directory.socket(name(&vm), pid(&vm), None, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, None)
    }
}

/// The virtual machines for which there is no socket, with one line for each limit.
#[derive(Debug, Default)]
struct WithoutSocket {
    of: BTreeMap<(LimitReached, bool), (String, usize)>,
}

impl WithoutSocket {
    fn add(&mut self, full: LimitReached, is_untrusted: bool, title: &str) {
        let new = || (title.to_owned(), 0);
        self.of.entry((full, is_untrusted)).or_insert_with(new).1 += 1;
    }

    fn say(self, vm_sockets: &mut VmSockets) {
        for ((full, is_untrusted), (title, count)) in self.of {
            vm_sockets.say_refused(is_untrusted, &waiting_line(full, &title, count));
        }
    }
}

/// Returns the line about `count` virtual machines without a socket, of which one has this title.
fn waiting_line(full: LimitReached, title: &str, count: usize) -> String {
    let more = match count {
        0 | 1 => String::new(),
        _ => format!(" and {} more", count - 1),
    };
    format!("no socket for {title}{more} until one becomes free: {full}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_machines_without_a_socket_are_counted() {
        let mut without_socket = WithoutSocket::default();
        for title in ["VM a (pid 1)", "VM b (pid 2)", "VM c (pid 3)"] {
            without_socket.add(LimitReached::User(1000), true, title);
        }
        without_socket.add(LimitReached::All, false, "VM d (pid 4)");
        let texts: Vec<String> = without_socket
            .of
            .iter()
            .map(|((full, _), (title, count))| waiting_line(*full, title, *count))
            .collect();
        assert_eq!(texts.len(), 2);
        let begin = "no socket for VM d (pid 4) until one becomes free: there are 256 sockets";
        assert!(texts[0].starts_with(begin), "{texts:?}");
        let begin = "no socket for VM a (pid 1) and 2 more until one becomes free: user 1000 has";
        assert!(texts[1].starts_with(begin), "{texts:?}");
    }
}
