//! The sockets that are open, each a virtual machine's.
//!
//! Invariant: no two are at one path, and there are at most [`MAX_SOCKETS`]. What a closed one has
//! counted is kept for the end.

use std::path::{Path, PathBuf};

use vmstrobe_server::qmp::{Config, Counts, Server};

use crate::engine::{VmRegistry, Vmm};
use crate::error::{Error, Result};
use crate::out::say;
use crate::text::{counted, thousands};

/// The most sockets at a time: each takes a few threads and descriptors, and anyone who may use
/// /dev/kvm can start virtual machines.
const MAX_SOCKETS: usize = 256;

/// The sockets, and what they have done.
pub(super) struct Doors {
    config: Config,
    /// A socket stays when its virtual machine has ended.
    keeps_ended: bool,
    open: Vec<Door>,
    /// [`MAX_SOCKETS`].
    open_max: usize,
    closed: Total,
    /// It was said that there is something that only a QEMU can tell.
    has_advised: bool,
}

/// One socket.
struct Door {
    // In this order: nobody asks any more when the providers go.
    server: Server,
    path: PathBuf,
    vm: VmRegistry,
    /// Whose it is, among those that come and go.
    vmm: Option<Vmm>,
    has_ended: bool,
}

/// What servers have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    served: u64,
    refused: u64,
    dropped: u64,
    requests: u64,
    unread: u64,
}

impl Doors {
    /// None yet. `asks_qemu`: the user knows that a QEMU can be asked beside.
    pub(super) fn new(config: Config, keeps_ended: bool, asks_qemu: bool) -> Self {
        let (open, closed) = (Vec::new(), Total::default());
        Self { config, keeps_ended, open, open_max: MAX_SOCKETS, closed, has_advised: asks_qemu }
    }

    /// Opens a socket for a virtual machine at that path, and says so.
    ///
    /// # Errors
    /// If there can be none.
    pub(super) fn open(&mut self, path: PathBuf, vm: VmRegistry, vmm: Option<Vmm>) -> Result<()> {
        if self.open.len() >= self.open_max {
            let most = self.open_max;
            let text = format!("there are {most} sockets already, and no more are made");
            return Err(Error::failed(text));
        }
        let server = Server::listen(&path, vm.registry().clone(), self.config)?;
        say(announcement(&vm.title_with_counts(), &path, &vm.companions()));
        if !self.has_advised && vm.lacks_vm_statistics() {
            self.has_advised = true;
            say("without the statistics of the VM as a whole: they take the kernel-side tick \
                 (`vmstrobe list -v` says why it is closed), or its QEMU: --from-qmp SOCKET");
        }
        self.open.push(Door { server, path, vm, vmm, has_ended: false });
        Ok(())
    }

    /// Says how to try the first of them.
    pub(super) fn say_how_to_try(&self) {
        if let Some(door) = self.open.first() {
            let path = door.path.display();
            say(format_args!("try it: qmp-shell -p {path}, then query-stats target=vcpu"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Is one of them at that path?
    pub(super) fn has(&self, path: &Path) -> bool {
        self.open.iter().any(|door| door.path == path)
    }

    /// Whose they are, of those that come and go.
    pub(super) fn vmms(&self) -> Vec<Vmm> {
        self.open.iter().filter_map(|door| door.vmm).collect()
    }

    /// The virtual machines behind them.
    pub(super) fn vms(&mut self) -> impl Iterator<Item = &mut VmRegistry> {
        self.open.iter_mut().map(|door| &mut door.vm)
    }

    /// Says which virtual machines have ended, and closes their sockets unless they stay.
    pub(super) fn close_ended(&mut self) {
        for door in &mut self.open {
            if !door.has_ended && door.vm.has_ended() {
                door.has_ended = true;
                say(format_args!("{} has ended", door.vm.title()));
            }
        }
        if !self.keeps_ended {
            self.close_if(|door| door.has_ended);
        }
    }

    /// Closes those of processes that have no virtual machine any more.
    pub(super) fn close_gone(&mut self, gone: &[Vmm]) {
        let is_gone = |door: &Door| door.vmm.is_some_and(|vmm| gone.contains(&vmm));
        for door in self.open.iter().filter(|door| is_gone(door)) {
            say(format_args!("{} is no more", door.vm.title()));
        }
        self.close_if(is_gone);
    }

    fn close_if(&mut self, is_meant: impl Fn(&Door) -> bool) {
        for door in self.open.extract_if(.., |door| is_meant(door)) {
            self.closed.add(door.server.counts());
        }
    }

    /// Closes all. What they have done, in words.
    pub(super) fn close(mut self) -> String {
        self.close_if(|_| true);
        self.closed.text()
    }
}

impl Total {
    fn add(&mut self, counts: Counts) {
        self.served += counts.clients_served;
        self.refused += counts.clients_refused;
        self.dropped += counts.clients_dropped;
        self.requests += counts.requests;
        self.unread += counts.unread_rows;
    }

    fn text(&self) -> String {
        let Self { served, refused, dropped, requests, unread } = *self;
        let clients = counted(served as usize, "client");
        let requests = counted(requests as usize, "request");
        let mut text = format!("answered {requests} of {clients}");
        if refused > 0 {
            text += &format!("; sent {} away, there were too many", thousands(refused));
        }
        if dropped > 0 {
            text += &format!("; dropped {}, who did not read", thousands(dropped));
        }
        if unread > 0 {
            text += &format!("; {} could not be read", counted(unread as usize, "row"));
        }
        text
    }
}

/// What is served and where.
fn announcement(title: &str, path: &Path, companions: &[&str]) -> String {
    let mut text = format!("serving {title} at {}", path.display());
    if !companions.is_empty() {
        text += &format!(", with {}", companions.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use vmstrobe_providers::{Accel, TableWriter};

    use super::*;
    use crate::args::Source;
    use crate::engine::Setup;

    /// This process, which has a table.
    fn program() -> VmRegistry {
        let source = Source { pids: vec![std::process::id()], ..Source::default() };
        let setup = Setup { accel: Accel::off(), sched: false };
        VmRegistry::named(&source, &setup).expect("it has a table")
    }

    #[test]
    fn there_are_no_more_than_may_be_and_none_is_left() {
        let _table = TableWriter::new("doors").expect("there is memory");
        let root = std::env::temp_dir().join(format!("vmstrobe-doors-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("it can be made");
        let path = |name: &str| root.join(name);
        let mut doors = Doors::new(Config::default(), false, false);
        assert_eq!(doors.open_max, MAX_SOCKETS);
        doors.open_max = 2;
        let vmm = Vmm { pid: 1, start_time_ticks: 1 };
        doors.open(path("a"), program(), None).expect("nobody is there");
        assert!(doors.open(path("a"), program(), None).is_err());
        doors.open(path("b"), program(), Some(vmm)).expect("nobody is there");
        let error = doors.open(path("c"), program(), None).expect_err("there are two");
        assert!(error.to_string().starts_with("there are 2 sockets already"), "{error}");
        assert!(doors.has(&path("a")) && !doors.has(&path("c")));
        assert_eq!(doors.vmms(), [vmm]);
        doors.close_ended();
        assert_eq!(doors.vms().count(), 2, "this process lives");
        doors.close_gone(&[vmm]);
        assert!(!path("b").exists() && path("a").exists() && !doors.is_empty());
        assert_eq!(doors.close(), "answered 0 requests of 0 clients");
        std::fs::remove_dir(&root).expect("no socket is left");
    }

    #[test]
    fn what_is_served_and_where_is_one_line() {
        let line = |companions: &[&str]| {
            announcement("VM web (pid 4711, 4 vCPUs)", Path::new("/run/web.sock"), companions)
        };
        assert_eq!(line(&[]), "serving VM web (pid 4711, 4 vCPUs) at /run/web.sock");
        let with = ", with QEMU web (/run/web.qmp), the table /dev/shm/xyz";
        assert!(line(&["QEMU web (/run/web.qmp)", "the table /dev/shm/xyz"]).ends_with(with));
    }

    #[test]
    fn the_end_tells_what_was_done() {
        let mut total = Total::default();
        assert_eq!(total.text(), "answered 0 requests of 0 clients");
        let counts = Counts { clients: 1, clients_served: 1, requests: 1204, ..Counts::default() };
        total.add(counts);
        assert_eq!(total.text(), "answered 1,204 requests of 1 client");
        total.add(Counts { clients_served: 1, clients_refused: 2, clients_dropped: 1, ..counts });
        let want = "answered 2,408 requests of 2 clients; sent 2 away, there were too many; \
                    dropped 1, who did not read";
        assert_eq!(total.text(), want);
        total.add(Counts { unread_rows: 3, ..Counts::default() });
        assert_eq!(total.text(), format!("{want}; 3 rows could not be read"));
    }
}
