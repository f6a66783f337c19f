//! `serve --qmp-dir`: a socket for each virtual machine, of those that were named or of all that
//! come and go.
//!
//! Invariant: a virtual machine is opened only if there is a socket left for it, and for its user.
//! However many there are, a look opens them for at most [`OPENING_LIMIT`], so that others have
//! their turn; the next look goes on.

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
use crate::messages::{say_left_out, say_notices};
use crate::out::say;
use crate::signals::StopFlag;

/// How long a look opens virtual machines, ...
const OPENING_LIMIT: Duration = Duration::from_millis(500);
/// ... and how long the first: what is there at the start is to be served before anything is said.
const OPENING_LIMIT_AT_FIRST: Duration = Duration::from_secs(10);

/// A socket for each virtual machine.
pub(super) struct VmServers {
    directory: SocketDirectory,
    vms: VmOpener,
    quota: Quota,
    tracker: VmTracker,
    /// Virtual machines that come later are served too.
    follows_all: bool,
    /// The last look failed, and it was said.
    has_look_failed: bool,
    /// The processes that were left out of the last look.
    left_out: HashSet<u32>,
}

/// A look that was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// How long it took to see what there is. What it takes to open what has come is not counted:
    /// that is not done again at each look.
    pub(super) took: Duration,
    /// Not all that came were tried.
    pub(super) is_unfinished: bool,
}

impl VmServers {
    /// Opens the sockets of those there are.
    ///
    /// # Errors
    /// If one that was named cannot be served; of `--all`, if there is none and nobody waits for
    /// one.
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
            // Its virtual machine may be yet to come.
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
                "no virtual machine on this host can be served: `vmstrobe list` says why; or wait \
                 for one with --on-exit wait",
            ));
        }
        let path = self.directory.path().join("NAME.sock");
        let path = path.display();
        say(format_args!("no virtual machine yet: each will be at {path} by its name"));
        Ok(())
    }

    /// Looks who has come or gone, and which QEMU has been started again.
    pub(super) fn look(&mut self, vm_sockets: &mut VmSockets, stop: &StopFlag) -> Look {
        let begin = Instant::now();
        let mut look = Look::default();
        if self.follows_all {
            let found = self.vms.look();
            look.took = begin.elapsed();
            match found {
                Ok(found) => {
                    self.has_look_failed = false;
                    // To wait costs nobody anything.
                    look.took = look.took.saturating_sub(found.waited);
                    self.say_left_out(found.left_out);
                    look.is_unfinished = self.update(&found.vms, vm_sockets, stop, OPENING_LIMIT);
                }
                Err(error) if !self.has_look_failed => {
                    self.has_look_failed = true;
                    let error = Error::from(error);
                    say(format_args!("cannot look for virtual machines: {error}"));
                }
                Err(_) => {}
            }
        }
        vm_sockets.vms().for_each(|vm| {
            self.vms.add_qemus(vm);
            say_notices(vm.notices());
        });
        look
    }

    /// Names each process once that does not let itself be looked at. There can be many that there
    /// was no time for: they have their turn in the next look.
    fn say_left_out(&mut self, left_out: Vec<LeftOut>) {
        let silent = left_out.into_iter().filter(|one| one.why != WhyLeftOut::NoTime);
        let (known, new): (Vec<_>, Vec<_>) =
            silent.partition(|one| self.left_out.contains(&one.pid));
        say_left_out(&new);
        // What is not left out any more is forgotten, so that nothing grows.
        self.left_out = known.iter().chain(&new).map(|one| one.pid).collect();
    }

    /// Closes those that have gone and opens those that came, for so long. True if not all of them
    /// were tried.
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
            // First: to ask costs nothing, and to open what then has no socket costs much.
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
        // Asked again: the process that was found may have ended, and another have its number. What
        // was opened is held, so if it has not ended by now, this was its user.
        let is_same_users = self.vms.uid(vmm.pid) == Some(vmm.uid);
        if !is_same_users || vm.has_ended() || name(&vm).is_empty() {
            return Err(Error::failed("its process ended or changed while it was opened"));
        }
        let untrusted = self.quota.untrusted(vmm.uid);
        let path =
            self.directory.socket(name(&vm), pid(&vm), untrusted, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, Some(Owner { vmm, is_untrusted: untrusted.is_some() }))
    }

    /// One that was named on the command line has its name, whoever its user is.
    fn serve_named(&self, vm: Attachment, vm_sockets: &mut VmSockets) -> Result<()> {
        self.quota
            .check(&vm_sockets.users(), None)
            .map_err(|full| Error::failed(full.to_string()))?;
        let path = self.directory.socket(name(&vm), pid(&vm), None, |path| vm_sockets.has(path));
        vm_sockets.open(path, vm, None)
    }
}

/// The virtual machines for which there is no socket left, to be said in one line for each reason.
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

/// Returns the line about `count` virtual machines for which there is no socket; `title` is one's.
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
    fn those_without_a_socket_are_counted() {
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
