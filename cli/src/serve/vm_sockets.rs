//! The sockets that are open, each a virtual machine's.
//!
//! Invariant: no two are at one path. What a closed one has counted is kept for the end. What is
//! said of virtual machines that come and go is bounded: see [`Log`]; of one that is there for less
//! than [`ANNOUNCED_AFTER`], nothing is.

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

/// How long one that came later is served before that is said: a process that has a virtual machine
/// for a moment, every few seconds, must not fill the log.
const ANNOUNCED_AFTER: Duration = Duration::from_secs(3);

/// The sockets, and what they have done.
pub(super) struct VmSockets {
    config: Config,
    /// A socket stays when its virtual machine has ended.
    keeps_ended: bool,
    open: Vec<VmSocket>,
    files: SocketFiles,
    /// Makes the sockets and removes them.
    broker: Broker,
    log: Log,
    /// True once the start is over: a socket that is opened from now on is for a later arrival.
    has_started: bool,
    closed: Total,
    /// It was said that there is something that only a QEMU can tell.
    has_advised: bool,
}

/// The owner of the socket of a virtual machine that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) vmm: Vmm,
    /// Its user is not trusted.
    pub(super) is_untrusted: bool,
}

/// One socket.
struct VmSocket {
    // In this order: nobody asks any more when the providers go.
    server: Server,
    path: PathBuf,
    vm: Attachment,
    owner: Option<Owner>,
    opened: Instant,
    /// The announcement, as long as it has not been said: that waits for [`ANNOUNCED_AFTER`].
    unannounced: Option<String>,
    has_ended: bool,
}

/// Counts of what the servers have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    served: u64,
    refused: u64,
    dropped: u64,
    requests: u64,
    unread: u64,
    /// Virtual machines of which nothing was said.
    unannounced: u64,
}

impl VmSockets {
    /// None yet. `asks_qemu`: the user knows that a QEMU can be asked beside. `files` will know
    /// what to remove. The broker has the rights to make sockets and to remove them.
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

    /// Opens a socket for a virtual machine at that path, and says so.
    ///
    /// # Errors
    /// If there can be none.
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
            say("without the statistics of the VM as a whole: they take the BPF reader \
                 (`vmstrobe list -v` says why it is closed), or its QEMU: --from-qmp SOCKET");
        }
        let (opened, unannounced) = (Instant::now(), Some(text));
        self.open.push(VmSocket { server, path, vm, owner, opened, unannounced, has_ended: false });
        if !self.has_started {
            self.announce_new(Duration::ZERO);
        }
        Ok(())
    }

    /// Starts the server of a virtual machine at that path.
    ///
    /// # Errors
    /// If it cannot listen there.
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

    /// Removes the files of sockets that were closed.
    fn remove(&self, paths: Vec<PathBuf>) {
        let files = self.files.clone();
        self.broker.run(move || files.remove(&paths));
    }

    /// Announces those that have been served for so long and were not announced yet.
    fn announce_new(&mut self, for_long: Duration) {
        for socket in self.open.iter_mut().filter(|socket| socket.opened.elapsed() >= for_long) {
            if let Some(text) = socket.unannounced.take() {
                self.log.say(socket.is_untrusted(), &text);
            }
        }
    }

    /// Says of virtual machines that cannot be served why not. It is bounded as all that is said.
    pub(super) fn say_refused(&mut self, is_untrusted: bool, text: &str) {
        self.log.say(is_untrusted, text);
    }

    /// Says how to try the first of them. Those that come from now on came later.
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

    /// Returns the number of clients that have left, of the sockets that there are now.
    pub(super) fn clients_gone(&self) -> u64 {
        let counts = self.open.iter().map(|socket| socket.server.counts());
        counts.map(|counts| counts.clients_served.saturating_sub(counts.clients)).sum()
    }

    /// Is one of them at that path?
    pub(super) fn has(&self, path: &Path) -> bool {
        self.open.iter().any(|socket| socket.path == path)
    }

    /// Returns the processes behind those that come and go.
    pub(super) fn vmms(&self) -> Vec<Vmm> {
        self.open.iter().filter_map(|socket| socket.owner).map(|owner| owner.vmm).collect()
    }

    /// The user of each; none of those that were named.
    pub(super) fn users(&self) -> Vec<Option<u32>> {
        self.open.iter().map(|socket| socket.owner.map(|owner| owner.vmm.uid)).collect()
    }

    /// The virtual machines behind them.
    pub(super) fn vms(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.open.iter_mut().map(|socket| &mut socket.vm)
    }

    /// Says which virtual machines have ended, and closes their sockets unless they stay.
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

    /// Closes those of processes that have no virtual machine any more.
    pub(super) fn close_gone(&mut self, gone: &[Vmm]) {
        let is_gone =
            |socket: &VmSocket| socket.owner.is_some_and(|owner| gone.contains(&owner.vmm));
        for socket in self.open.iter().filter(|socket| is_gone(socket)) {
            socket.log_event(&mut self.log, "is no more");
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

    /// Closes all, and returns what they have done, in words.
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

    /// Says what has become of its virtual machine, if it was said that there is one.
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
            text += &format!("; sent {} away, there were too many", thousands(refused));
        }
        if dropped > 0 {
            text += &format!("; dropped {}, who did not read", thousands(dropped));
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

    /// This process, which has a table.
    fn program() -> Attachment {
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let sources = Sources::pid(std::process::id());
        Attachment::open(&sources, &options).expect("it has a table")
    }

    fn none() -> VmSockets {
        VmSockets::new(Config::default(), false, false, SocketFiles::default(), Broker::default())
    }

    #[test]
    fn each_has_a_path_of_its_own_and_none_is_left() {
        let _table = TableWriter::new("vm_sockets").expect("there is memory");
        let root = std::env::temp_dir().join(format!("vmstrobe-vm-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("it can be made");
        let path = |name: &str| root.join(name);
        let mut vm_sockets = none();
        let vmm = Vmm { pid: 1, start_time_ticks: 1, uid: 7 };
        vm_sockets.open(path("a"), program(), None).expect("nobody is there");
        assert!(vm_sockets.open(path("a"), program(), None).is_err());
        let owner = Owner { vmm, is_untrusted: true };
        vm_sockets.open(path("b"), program(), Some(owner)).expect("nobody is there");
        assert!(vm_sockets.has(&path("a")) && !vm_sockets.has(&path("c")));
        assert_eq!((vm_sockets.vmms(), vm_sockets.users()), (vec![vmm], vec![None, Some(7)]));
        vm_sockets.close_ended();
        assert_eq!(vm_sockets.vms().count(), 2, "this process lives");
        vm_sockets.close_gone(&[vmm]);
        assert!(!path("b").exists() && path("a").exists() && !vm_sockets.is_empty());
        assert_eq!(vm_sockets.close(), "answered 0 requests of 0 clients");
        std::fs::remove_dir(&root).expect("no socket is left");
    }

    #[test]
    fn of_one_that_is_there_for_a_moment_nothing_is_said() {
        let _table = TableWriter::new("unannounced").expect("there is memory");
        let path =
            std::env::temp_dir().join(format!("vmstrobe-unannounced-{}", std::process::id()));
        let owner = |pid| {
            let vmm = Vmm { pid, start_time_ticks: 1, uid: 7 };
            Some(Owner { vmm, is_untrusted: true })
        };
        let mut vm_sockets = none();
        vm_sockets.open(path.clone(), program(), owner(1)).expect("nobody is there");
        assert!(vm_sockets.open[0].unannounced.is_none(), "it was there at the start");
        vm_sockets.close_gone(&[owner(1).expect("it is somebody's").vmm]);
        vm_sockets.say_how_to_try();
        vm_sockets.open(path.clone(), program(), owner(2)).expect("nobody is there");
        vm_sockets.close_ended();
        assert!(vm_sockets.open[0].unannounced.is_some());
        vm_sockets.open[0].opened =
            Instant::now().checked_sub(ANNOUNCED_AFTER).expect("uptime is longer");
        vm_sockets.close_ended();
        assert!(vm_sockets.open[0].unannounced.is_none());
        vm_sockets.close_gone(&vm_sockets.vmms());
        vm_sockets.open(path, program(), owner(3)).expect("nobody is there");
        vm_sockets.close_gone(&vm_sockets.vmms());
        let want = "answered 0 requests of 0 clients; 1 virtual machine came and went within 3 s";
        assert_eq!(vm_sockets.close(), want);
    }

    #[test]
    fn the_end_tells_what_was_done() {
        let mut total = Total::default();
        assert_eq!(total.text(), "answered 0 requests of 0 clients");
        let mut counts = Counts::default();
        (counts.clients, counts.clients_served, counts.requests) = (1, 1, 1204);
        total.add(counts);
        assert_eq!(total.text(), "answered 1,204 requests of 1 client");
        (counts.clients_refused, counts.clients_dropped) = (2, 1);
        total.add(counts);
        let want = "answered 2,408 requests of 2 clients; sent 2 away, there were too many; \
                    dropped 1, who did not read";
        assert_eq!(total.text(), want);
        let mut counts = Counts::default();
        counts.unread_rows = 3;
        total.add(counts);
        assert_eq!(total.text(), format!("{want}; 3 rows could not be read"));
    }
}
