//! The open sockets, one for each virtual machine.
//!
//! Invariant: no two sockets have one path. The counts of a closed socket are kept for the final
//! message. The rate of messages about virtual machines is limited (see [`Log`]), and a VM that
//! runs for less than [`ANNOUNCED_AFTER`] causes none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmstrobe::{Attachment, Broker, Vmm};
use vmstrobe_listen::{Kind, Listening};
use vmstrobe_server::qmp::{Config, Counts, Server};

use super::describe::{announcement, lacks_vm_statistics, shell_word, title};
use super::log::Log;
use crate::error::Result;
use crate::out::say;
use crate::stop::SocketFiles;
use crate::text::{counted, thousands};

/// The time that a VM which started later is served before it is announced, so that a process which
/// creates short-lived VMs does not fill the log.
const ANNOUNCED_AFTER: Duration = Duration::from_secs(3);

/// The sockets, and the counts of those that were closed.
pub(super) struct VmSockets {
    config: Config,
    /// A socket stays open after its virtual machine has ended.
    keeps_ended: bool,
    open: Vec<VmSocket>,
    files: SocketFiles,
    /// The thread that creates and removes the sockets.
    broker: Broker,
    log: Log,
    /// True once the start is complete. Virtual machines of sockets opened from then on are new.
    has_started: bool,
    closed: Total,
    /// The advice to use `--from-qmp` was printed, or the user has used it.
    has_advised: bool,
}

/// The VMM of a virtual machine that was found by a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) vmm: Vmm,
    /// The user of the VMM is not trusted.
    pub(super) is_untrusted: bool,
}

/// One socket.
struct VmSocket {
    // In this order: the server is dropped before the providers that it reads.
    server: Server,
    path: PathBuf,
    vm: Attachment,
    owner: Option<Owner>,
    opened: Instant,
    /// The announcement, until it is printed after [`ANNOUNCED_AFTER`].
    unannounced: Option<String>,
    has_ended: bool,
}

/// The sums of the servers' counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    served: u64,
    refused: u64,
    dropped: u64,
    requests: u64,
    unread: u64,
    /// The number of virtual machines that ended before they were announced.
    unannounced: u64,
}

impl VmSockets {
    /// Creates an empty set. `asks_qemu` is true if the user has given `--from-qmp`. `files` gets
    /// the paths to remove at the end. The broker has the capabilities to create and remove
    /// sockets.
    pub(super) fn new(
        config: Config,
        keeps_ended: bool,
        asks_qemu: bool,
        files: SocketFiles,
        broker: Broker,
    ) -> Self {
        Self {
            config,
            keeps_ended,
            open: Vec::new(),
            files,
            broker,
            log: Log::new(),
            has_started: false,
            closed: Total::default(),
            has_advised: asks_qemu,
        }
    }

    /// Opens a socket for a virtual machine at this path, and announces it.
    ///
    /// # Errors
    /// If the socket cannot be created.
    pub(super) fn open(
        &mut self,
        path: PathBuf,
        vm: Attachment,
        owner: Option<Owner>,
    ) -> Result<()> {
        let server = self.listen(&path, &vm)?;
        let text = announcement(&vm, &path);
        if !self.has_advised && lacks_vm_statistics(&vm) {
            self.has_advised = true;
            say("the statistics of the VM as a whole are not served: they need the BPF reader \
                 (`vmstrobe list -v` says why it cannot be used) or --from-qmp SOCKET");
        }
        let (opened, unannounced) = (Instant::now(), Some(text));
        self.open.push(VmSocket { server, path, vm, owner, opened, unannounced, has_ended: false });
        if !self.has_started {
            self.announce_new(Duration::ZERO);
        }
        Ok(())
    }

    /// Starts the server of a virtual machine at this path.
    ///
    /// # Errors
    /// If the socket cannot be created.
    fn listen(&self, path: &Path, vm: &Attachment) -> Result<Server> {
        let (file, files, access) = (path.to_owned(), self.files.clone(), self.config.access);
        let make = move || {
            let listening = Listening::at(&file, Kind::Stream, &access)?;
            files.add(&file);
            Ok::<_, vmstrobe::CoreError>(listening)
        };
        let listening = self.broker.run(make)?;
        let server = Server::at(listening, vm.registry().clone(), self.config.clone());
        Ok(server.inspect_err(|_| self.remove(vec![path.to_owned()]))?)
    }

    /// Removes the files of closed sockets.
    fn remove(&self, paths: Vec<PathBuf>) {
        let files = self.files.clone();
        self.broker.run(move || files.remove(&paths));
    }

    /// Prints the announcements of virtual machines that have been served for at least this time.
    fn announce_new(&mut self, for_long: Duration) {
        for socket in self.open.iter_mut().filter(|socket| socket.opened.elapsed() >= for_long) {
            if let Some(text) = socket.unannounced.take() {
                self.log.say(socket.is_untrusted(), &text);
            }
        }
    }

    /// Logs why virtual machines cannot be served, within the limits of the log.
    pub(super) fn say_refused(&mut self, is_untrusted: bool, text: &str) {
        self.log.say(is_untrusted, text);
    }

    /// Prints how to query the first socket, and marks the start as complete.
    pub(super) fn say_how_to_try(&mut self) {
        self.has_started = true;
        if let Some(socket) = self.open.first() {
            let path = shell_word(&socket.path.to_string_lossy());
            say(format_args!("try it: qmp-shell -p {path}, then query-stats target=vcpu"));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the number of clients of the open sockets that have left.
    pub(super) fn clients_gone(&self) -> u64 {
        let counts = self.open.iter().map(|socket| socket.server.counts());
        counts.map(|counts| counts.clients_served.saturating_sub(counts.clients)).sum()
    }

    /// Returns true if a socket is open at this path.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.open.iter().any(|socket| socket.path == path)
    }

    /// Returns the VMMs that were found by searches.
    pub(super) fn vmms(&self) -> Vec<Vmm> {
        self.open.iter().filter_map(|socket| socket.owner).map(|owner| owner.vmm).collect()
    }

    /// Returns the user of each VM; `None` for one that was named on the command line.
    pub(super) fn users(&self) -> Vec<Option<u32>> {
        self.open.iter().map(|socket| socket.owner.map(|owner| owner.vmm.uid)).collect()
    }

    /// Returns the virtual machines of the sockets.
    pub(super) fn vms(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.open.iter_mut().map(|socket| &mut socket.vm)
    }

    /// Logs which virtual machines have ended, and closes their sockets unless these stay.
    pub(super) fn close_ended(&mut self) {
        self.announce_new(ANNOUNCED_AFTER);
        for socket in &mut self.open {
            if !socket.has_ended && socket.vm.has_ended() {
                socket.has_ended = true;
                socket.log_event(&mut self.log, "has ended");
            }
        }
        if !self.keeps_ended {
            self.close_if(|socket| socket.has_ended);
        }
    }

    /// Closes the sockets of processes that do not have a virtual machine any more.
    pub(super) fn close_gone(&mut self, gone: &[Vmm]) {
        let is_gone =
            |socket: &VmSocket| socket.owner.is_some_and(|owner| gone.contains(&owner.vmm));
        for socket in self.open.iter().filter(|socket| is_gone(socket)) {
            socket.log_event(&mut self.log, "does not exist any more");
        }
        self.close_if(is_gone);
    }

    fn close_if(&mut self, must_close: impl Fn(&VmSocket) -> bool) {
        let mut closed = Vec::new();
        for socket in self.open.extract_if(.., |socket| must_close(socket)) {
            self.closed.add(socket.server.counts());
            self.closed.unannounced += u64::from(socket.unannounced.is_some());
            closed.push(socket.path);
        }
        if !closed.is_empty() {
            self.remove(closed);
        }
    }

    /// Closes all sockets, and returns a line with the sums of their counts.
    pub(super) fn close(mut self) -> String {
        self.announce_new(Duration::ZERO);
        self.close_if(|_| true);
        self.closed.text()
    }
}

impl VmSocket {
    fn is_untrusted(&self) -> bool {
        self.owner.is_some_and(|owner| owner.is_untrusted)
    }

    /// Logs an event of the virtual machine, if the machine was announced.
    fn log_event(&self, log: &mut Log, what: &str) {
        if self.unannounced.is_none() {
            log.say(self.is_untrusted(), &format!("{} {what}", title(&self.vm)));
        }
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
        let Self { served, refused, dropped, requests, unread, unannounced } = *self;
        let clients = counted(served as usize, "client");
        let requests = counted(requests as usize, "request");
        let mut text = format!("answered {requests} of {clients}");
        if refused > 0 {
            text += &format!("; refused {}, beyond the limit of clients", thousands(refused));
        }
        if dropped > 0 {
            text += &format!("; dropped {} that did not read their answers", thousands(dropped));
        }
        if unannounced > 0 {
            let vms = counted(unannounced as usize, "virtual machine");
            text += &format!("; {vms} came and went within {} s", ANNOUNCED_AFTER.as_secs());
        }
        if unread > 0 {
            text += &format!("; {} could not be read", counted(unread as usize, "row"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe::table::TableWriter;
    use vmstrobe::{Bpf, Options, Sources};

    use super::*;

    /// Attaches to this process, which has a table.
    fn program() -> Attachment {
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let sources = Sources::pid(std::process::id());
        Attachment::open(&sources, &options).expect("this process has a table")
    }

    fn none() -> VmSockets {
        VmSockets::new(Config::default(), false, false, SocketFiles::default(), Broker::default())
    }

    #[test]
    fn paths_are_distinct_and_removed_at_the_end() {
        let _table = TableWriter::new("vm_sockets").expect("a table can be created");
        let root = std::env::temp_dir().join(format!("vmstrobe-vm-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("the directory can be created");
        let path = |name: &str| root.join(name);
        let mut vm_sockets = none();
        let vmm = Vmm { pid: 1, start_time_ticks: 1, uid: 7 };
        vm_sockets.open(path("a"), program(), None).expect("the path is free");
        assert!(vm_sockets.open(path("a"), program(), None).is_err());
        let owner = Owner { vmm, is_untrusted: true };
        vm_sockets.open(path("b"), program(), Some(owner)).expect("the path is free");
        assert!(vm_sockets.has(&path("a")) && !vm_sockets.has(&path("c")));
        assert_eq!((vm_sockets.vmms(), vm_sockets.users()), (vec![vmm], vec![None, Some(7)]));
        vm_sockets.close_ended();
        assert_eq!(vm_sockets.vms().count(), 2, "this process runs");
        vm_sockets.close_gone(&[vmm]);
        assert!(!path("b").exists() && path("a").exists() && !vm_sockets.is_empty());
        assert_eq!(vm_sockets.close(), "answered 0 requests of 0 clients");
        std::fs::remove_dir(&root).expect("all sockets were removed");
    }

    #[test]
    fn a_short_lived_vm_is_not_announced() {
        let _table = TableWriter::new("unannounced").expect("a table can be created");
        let path =
            std::env::temp_dir().join(format!("vmstrobe-unannounced-{}", std::process::id()));
        let owner = |pid| {
            let vmm = Vmm { pid, start_time_ticks: 1, uid: 7 };
            Some(Owner { vmm, is_untrusted: true })
        };
        let mut vm_sockets = none();
        vm_sockets.open(path.clone(), program(), owner(1)).expect("the path is free");
        assert!(vm_sockets.open[0].unannounced.is_none(), "a VM at the start is announced at once");
        vm_sockets.close_gone(&[owner(1).expect("the owner is given").vmm]);
        vm_sockets.say_how_to_try();
        vm_sockets.open(path.clone(), program(), owner(2)).expect("the path is free");
        vm_sockets.close_ended();
        assert!(vm_sockets.open[0].unannounced.is_some());
        vm_sockets.open[0].opened =
            Instant::now().checked_sub(ANNOUNCED_AFTER).expect("the host has run for longer");
        vm_sockets.close_ended();
        assert!(vm_sockets.open[0].unannounced.is_none());
        vm_sockets.close_gone(&vm_sockets.vmms());
        vm_sockets.open(path, program(), owner(3)).expect("the path is free");
        vm_sockets.close_gone(&vm_sockets.vmms());
        let want = "answered 0 requests of 0 clients; 1 virtual machine came and went within 3 s";
        assert_eq!(vm_sockets.close(), want);
    }

    #[test]
    fn the_final_message_has_the_counts() {
        let mut total = Total::default();
        assert_eq!(total.text(), "answered 0 requests of 0 clients");
        let mut counts = Counts::default();
        (counts.clients, counts.clients_served, counts.requests) = (1, 1, 1204);
        total.add(counts);
        assert_eq!(total.text(), "answered 1,204 requests of 1 client");
        (counts.clients_refused, counts.clients_dropped) = (2, 1);
        total.add(counts);
        let want = "answered 2,408 requests of 2 clients; refused 2, beyond the limit of \
                    clients; dropped 1 that did not read their answers";
        assert_eq!(total.text(), want);
        let mut counts = Counts::default();
        counts.unread_rows = 3;
        total.add(counts);
        assert_eq!(total.text(), format!("{want}; 3 rows could not be read"));
    }
}
