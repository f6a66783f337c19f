//! The open sockets, one for each virtual machine.
//!
//! Invariant: no two sockets have one path. The counts of a closed socket are kept. A socket is
//! opened and closed with an event.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmstrobe_core::Error as CoreError;
use vmstrobe_host::Broker;
use vmstrobe_listen::{Kind, Listening};
use vmstrobe_server::qmp::{Config, Counts, Server};

use crate::attachment::Attachment;
use crate::error::Result;
use crate::vm_tracker::Vmm;

use super::event::{Event, Events, Owner, ServedVm};
use super::socket_files::SocketFiles;

/// The configuration of all sockets.
#[derive(Clone, Debug, Default)]
pub struct ServingConfig {
    /// The configuration of the server on each socket.
    pub server: Config,
    /// True if the socket of a virtual machine stays open after its end.
    pub keeps_ended: bool,
    /// The list that has the files of the sockets that exist.
    pub files: SocketFiles,
    /// The thread that has the rights to create and remove the sockets.
    pub broker: Broker,
}

/// The sockets, and the counts of those that were closed.
#[derive(Debug)]
pub(super) struct VmSockets {
    config: ServingConfig,
    open: Vec<VmSocket>,
    closed: Counts,
    pub(super) events: Events,
}

/// One socket.
#[derive(Debug)]
struct VmSocket {
    // In this order: the server is dropped before the providers that it reads.
    server: Server,
    vm: Attachment,
    served: Arc<ServedVm>,
    has_ended: bool,
}

impl VmSockets {
    /// Creates an empty set.
    pub(super) fn new(config: ServingConfig) -> Self {
        let (open, closed, events) = (Vec::new(), Counts::default(), Events::default());
        Self { config, open, closed, events }
    }

    /// Opens a socket for a virtual machine at this path.
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
        let served = Arc::new(ServedVm::new(path, &vm, owner));
        self.events.add(Event::Opened(Arc::clone(&served)));
        self.open.push(VmSocket { server, vm, served, has_ended: false });
        Ok(())
    }

    /// Starts the server of a virtual machine at this path.
    ///
    /// # Errors
    /// If the socket cannot be created.
    fn listen(&self, path: &Path, vm: &Attachment) -> Result<Server> {
        let ServingConfig { server: config, files, broker, .. } = &self.config;
        let (file, files, access) = (path.to_owned(), files.clone(), config.access);
        let make = move || {
            let listening = Listening::at(&file, Kind::Stream, &access)?;
            files.add(&file);
            Ok::<_, CoreError>(listening)
        };
        let listening = broker.run(make)?;
        let server = Server::at(listening, vm.registry().clone(), config.clone());
        Ok(server.inspect_err(|_| self.remove(vec![path.to_owned()]))?)
    }

    /// Removes the files of closed sockets.
    fn remove(&self, paths: Vec<PathBuf>) {
        let files = self.config.files.clone();
        self.config.broker.run(move || files.remove(&paths));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the path of the socket that was opened first.
    pub(super) fn first_path(&self) -> Option<&Path> {
        self.open.first().map(|socket| &*socket.served.path)
    }

    /// Returns the number of clients of the open sockets that have left.
    pub(super) fn clients_gone(&self) -> u64 {
        let counts = self.open.iter().map(|socket| socket.server.counts());
        counts.map(|counts| counts.clients_served.saturating_sub(counts.clients)).sum()
    }

    /// Returns the sums of the counts of all sockets, also of those that were closed.
    pub(super) fn counts(&self) -> Counts {
        let mut sums = self.closed;
        self.open.iter().for_each(|socket| sums += socket.server.counts());
        sums
    }

    /// Returns true if a socket is open at this path.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.open.iter().any(|socket| socket.served.path == path)
    }

    /// Returns the VMMs that were found by searches.
    pub(super) fn vmms(&self) -> Vec<Vmm> {
        self.open.iter().filter_map(|socket| socket.served.owner).map(|owner| owner.vmm).collect()
    }

    /// Returns the user of each VM; `None` for one that was named.
    pub(super) fn users(&self) -> Vec<Option<u32>> {
        self.open.iter().map(|socket| socket.served.owner.map(|owner| owner.vmm.uid)).collect()
    }

    /// Returns the virtual machines of the sockets.
    pub(super) fn vms(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.open.iter_mut().map(|socket| &mut socket.vm)
    }

    /// Notes which virtual machines have ended, and closes their sockets unless these stay.
    pub(super) fn close_ended(&mut self) {
        for socket in &mut self.open {
            if !socket.has_ended && socket.vm.has_ended() {
                socket.has_ended = true;
                let notices = socket.vm.notices().into_iter();
                notices.for_each(|notice| self.events.add(Event::Notice(notice)));
                self.events.add(Event::Ended(Arc::clone(&socket.served)));
            }
        }
        if !self.config.keeps_ended {
            self.close_if(|socket| socket.has_ended);
        }
    }

    /// Closes the sockets of processes that do not have a virtual machine any more.
    pub(super) fn close_gone(&mut self, gone: &[Vmm]) {
        let is_gone =
            |socket: &VmSocket| socket.served.owner.is_some_and(|one| gone.contains(&one.vmm));
        for socket in self.open.iter().filter(|socket| is_gone(socket)) {
            self.events.add(Event::Gone(Arc::clone(&socket.served)));
        }
        self.close_if(is_gone);
    }

    /// Closes all sockets.
    pub(super) fn close_all(&mut self) {
        self.close_if(|_| true);
    }

    fn close_if(&mut self, must_close: impl Fn(&VmSocket) -> bool) {
        let mut closed = Vec::new();
        for socket in self.open.extract_if(.., |socket| must_close(socket)) {
            let mut counts = socket.server.counts();
            // They are disconnected with the server.
            counts.clients = 0;
            self.closed += counts;
            closed.push(socket.served.path.clone());
            self.events.add(Event::Closed(socket.served));
        }
        if !closed.is_empty() {
            self.remove(closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_table::TableWriter;

    use super::*;
    use crate::parts::Bpf;
    use crate::sources::{Options, Sources};

    /// Attaches to this process, which has a table.
    fn program() -> Attachment {
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let sources = Sources::pid(std::process::id());
        Attachment::open(&sources, &options).expect("this process has a table")
    }

    /// Returns the kinds and the file names of the events since the last call.
    fn said(vm_sockets: &mut VmSockets) -> Vec<String> {
        let events = vm_sockets.events.take().into_iter().map(|event| {
            let (kind, vm) = match event {
                Event::Opened(vm) => ("opened", vm),
                Event::Gone(vm) => ("gone", vm),
                Event::Closed(vm) => ("closed", vm),
                other => panic!("{other:?}"),
            };
            format!("{kind} {}", vm.path.file_name().expect("it has a name").display())
        });
        events.collect()
    }

    #[test]
    fn paths_are_distinct_and_removed_at_the_end() {
        let _table = TableWriter::new("vm_sockets").expect("a table can be created");
        let root = std::env::temp_dir().join(format!("vmstrobe-vm-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("the directory can be created");
        let path = |name: &str| root.join(name);
        let mut vm_sockets = VmSockets::new(ServingConfig::default());
        let vmm = Vmm { pid: 1, start_time_ticks: 1, uid: 7 };
        vm_sockets.open(path("a"), program(), None).expect("the path is free");
        assert!(vm_sockets.open(path("a"), program(), None).is_err());
        let owner = Owner { vmm, is_untrusted: true };
        vm_sockets.open(path("b"), program(), Some(owner)).expect("the path is free");
        assert!(vm_sockets.has(&path("a")) && !vm_sockets.has(&path("c")));
        assert_eq!((vm_sockets.vmms(), vm_sockets.users()), (vec![vmm], vec![None, Some(7)]));
        assert_eq!(vm_sockets.first_path(), Some(&*path("a")));
        assert_eq!(said(&mut vm_sockets), ["opened a", "opened b"]);
        vm_sockets.close_ended();
        assert_eq!(vm_sockets.vms().count(), 2, "this process runs");
        vm_sockets.close_gone(&[vmm]);
        assert!(!path("b").exists() && path("a").exists() && !vm_sockets.is_empty());
        assert_eq!(said(&mut vm_sockets), ["gone b", "closed b"]);
        vm_sockets.close_all();
        assert_eq!(said(&mut vm_sockets), ["closed a"]);
        assert_eq!(vm_sockets.counts(), Counts::default());
        std::fs::remove_dir(&root).expect("all sockets were removed");
    }

    #[test]
    fn the_counts_of_closed_sockets_are_kept() {
        use std::io::{BufRead, BufReader, Write};
        let _table = TableWriter::new("vm_sockets_counts").expect("a table can be created");
        let path = std::env::temp_dir().join(format!("vmstrobe-counts-{}", std::process::id()));
        let mut vm_sockets = VmSockets::new(ServingConfig::default());
        vm_sockets.open(path.clone(), program(), None).expect("the path is free");
        let client = std::os::unix::net::UnixStream::connect(&path).expect("the socket listens");
        (&client).write_all(br#"{"execute": "qmp_capabilities"}"#).expect("the server reads");
        let mut replies = BufReader::new(&client).lines();
        assert!(replies.by_ref().take(2).all(|reply| reply.is_ok()));
        // It counts behind its answer.
        let has_counted = || {
            let counts = vm_sockets.counts();
            (counts.clients, counts.clients_served, counts.requests) == (1, 1, 1)
        };
        assert!(vmstrobe_testing::soon(std::time::Duration::from_secs(10), has_counted));
        vm_sockets.close_all();
        let counts = vm_sockets.counts();
        assert_eq!((counts.clients, counts.clients_served, counts.requests), (0, 1, 1));
    }
}
