//! The sockets together with the search for virtual machines, and when each is due.
//!
//! Invariant: nothing waits. A search is made about once a second, and less often if it takes long.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmstrobe_host::trim_memory;
use vmstrobe_sampler::look_pause;
use vmstrobe_server::qmp::Counts;

use crate::attachment::Attachment;
use crate::error::Result;

use super::directory_server::{DirectoryConfig, DirectoryServer};
use super::event::Event;
use super::vm_sockets::{ServingConfig, VmSockets};

/// The shortest time between two searches for virtual machines.
const SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// The time after which a search is continued that had no time for some virtual machines.
const UNFINISHED_PAUSE: Duration = Duration::from_millis(50);
/// The number of searches after which freed memory is returned once clients have left.
const TRIMS: u32 = 10;

/// QMP sockets for virtual machines, one for each. Dropping it closes them.
#[derive(Debug)]
pub struct Serving {
    vm_sockets: VmSockets,
    directory: Option<DirectoryServer>,
    freed: FreedMemory,
    next_look: Instant,
}

impl Serving {
    /// Returns no sockets yet.
    pub fn new(config: ServingConfig) -> Self {
        Self {
            vm_sockets: VmSockets::new(config),
            directory: None,
            freed: FreedMemory::default(),
            next_look: Instant::now(),
        }
    }

    /// Serves a virtual machine at this path.
    ///
    /// # Errors
    /// If the socket cannot be created.
    pub fn serve_at(&mut self, path: PathBuf, vm: Attachment) -> Result<()> {
        self.vm_sockets.open(path, vm, None)
    }

    /// Serves the sources of a directory as they are now, until `must_stop` returns true. Virtual
    /// machines that start later are served by [`Serving::poll`], if all are. A directory that was
    /// given before is not searched for any more.
    ///
    /// # Errors
    /// If the directory cannot have the sockets, a trusted user does not exist, a source that was
    /// named cannot be served, or /proc cannot be read.
    pub fn serve_in(
        &mut self,
        directory: DirectoryConfig,
        must_stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let directory = self.directory.insert(DirectoryServer::new(directory)?);
        directory.serve_sources(&mut self.vm_sockets, must_stop)
    }

    /// Serves a virtual machine of this process in a directory, under this name, and none of the
    /// directory's sources.
    ///
    /// # Errors
    /// If the directory cannot have the socket, or it cannot be created.
    pub fn serve_own_in(
        &mut self,
        directory: DirectoryConfig,
        name: &str,
        vm: Attachment,
    ) -> Result<()> {
        let directory = self.directory.insert(DirectoryServer::new(directory)?);
        directory.serve_named(name, vm, &mut self.vm_sockets)
    }

    /// Closes the sockets of virtual machines that have ended; and about once a second, searches
    /// for changes of which there is no event, until `must_stop` returns true. To be called about
    /// every 50 ms.
    pub fn poll(&mut self, must_stop: &dyn Fn() -> bool) {
        self.vm_sockets.close_ended();
        let begin = Instant::now();
        if begin < self.next_look {
            return;
        }
        self.vm_sockets.vms().for_each(|vm| vm.look());
        self.freed.trim(self.vm_sockets.clients_gone());
        let mut took = begin.elapsed();
        let mut is_unfinished = false;
        if let Some(directory) = &mut self.directory {
            let look = directory.look(&mut self.vm_sockets, must_stop);
            took += look.took;
            is_unfinished = look.is_unfinished;
        }
        let pause = if is_unfinished { UNFINISHED_PAUSE } else { look_pause(SEARCH_PERIOD, took) };
        self.next_look = Instant::now() + pause;
    }

    /// Takes the events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        self.vm_sockets.events.take()
    }

    /// Returns true if no socket is open.
    pub fn is_empty(&self) -> bool {
        self.vm_sockets.is_empty()
    }

    /// Returns the path of the open socket that was opened first.
    pub fn first_path(&self) -> Option<&Path> {
        self.vm_sockets.first_path()
    }

    /// Returns the path of the directory, if one is open.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(DirectoryServer::path)
    }

    /// Returns the sums of the counts of all sockets, also of those that were closed.
    pub fn counts(&self) -> Counts {
        self.vm_sockets.counts()
    }

    /// Closes all sockets, and returns the sums of their counts.
    pub fn close(mut self) -> Counts {
        self.vm_sockets.close_all();
        self.vm_sockets.counts()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.vm_sockets.close_all();
    }
}

/// Returns the freed memory of clients' streams, up to 100 MiB, from the C library to the kernel.
#[derive(Debug, Default)]
struct FreedMemory {
    /// The number of clients that had left at the last search.
    clients_gone: u64,
    trims_left: u32,
}

impl FreedMemory {
    /// Returns freed memory if clients have left, now and after the next searches, because the
    /// threads of their streams may end later than the clients.
    fn trim(&mut self, clients_gone: u64) {
        // The number falls if a socket was closed, with all of its clients.
        if clients_gone != self.clients_gone {
            self.trims_left = TRIMS;
        }
        self.clients_gone = clients_gone;
        if self.trims_left > 0 {
            self.trims_left -= 1;
            trim_memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vmstrobe_core::Registry;
    use vmstrobe_table::TableWriter;

    use super::*;
    use crate::error::Error;
    use crate::parts::Bpf;
    use crate::sources::{Options, Sources};

    /// Returns the configuration of a directory for sources of this process.
    fn config(path: &Path) -> DirectoryConfig {
        let options = Options { bpf: Bpf::off(), ..Options::default() };
        let sources = Sources::pid(std::process::id());
        DirectoryConfig { path: path.to_owned(), trusted_users: Vec::new(), sources, options }
    }

    /// Returns an empty directory.
    fn tempdir(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("vmstrobe-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).expect("the directory can be created");
        root
    }

    /// Returns the paths of the sockets that were opened since the last call.
    fn opened(serving: &mut Serving) -> Vec<PathBuf> {
        let events = serving.events().into_iter();
        let opened = events.filter_map(|event| match event {
            Event::Opened(vm) => Some(vm.path.clone()),
            _ => None,
        });
        opened.collect()
    }

    #[test]
    fn each_source_has_a_socket_in_the_directory_until_the_end() {
        let _table = TableWriter::new("serving").expect("a table can be created");
        let root = tempdir("serving");
        let mut serving = Serving::new(ServingConfig::default());
        serving.serve_in(config(&root), &|| false).expect("this process has a table");
        let paths = opened(&mut serving);
        let [path] = &paths[..] else { panic!("one process was named: {paths:?}") };
        assert!(path.exists() && path.starts_with(&root));
        assert_eq!((serving.first_path(), serving.directory()), (Some(&**path), Some(&*root)));
        serving.poll(&|| false);
        assert!(serving.events().is_empty() && !serving.is_empty(), "this process runs");
        let own = Attachment::of(Registry::default());
        serving.serve_own_in(config(&root), "web", own).expect("the name is free");
        assert_eq!(opened(&mut serving), [root.join("web.sock")]);
        assert_eq!(serving.close().clients_served, 0);
        fs::remove_dir(&root).expect("all sockets were removed");
    }

    #[test]
    fn what_cannot_be_served_is_an_error() {
        let mut serving = Serving::new(ServingConfig::default());
        let missing = config(Path::new("/nowhere/at/all"));
        let error = serving.serve_in(missing, &|| false).expect_err("there is no directory");
        assert!(matches!(error, Error::SocketDirectory { .. }), "{error:?}");
        let want = "the directory /nowhere/at/all does not exist: create it first";
        assert_eq!(error.to_string(), want);
        let root = tempdir("unserved");
        let users = vec!["no such user".to_owned()];
        let config = DirectoryConfig { trusted_users: users, ..config(&root) };
        let error = serving.serve_in(config, &|| false).expect_err("there is no such user");
        assert!(matches!(error, Error::UnknownAccount { .. }), "{error:?}");
        assert!(serving.is_empty() && serving.directory().is_none());
        fs::remove_dir(&root).expect("the directory is ours");
    }

    #[test]
    fn memory_is_returned_after_clients_have_left() {
        let mut freed = FreedMemory::default();
        freed.trim(0);
        assert_eq!(freed.trims_left, 0);
        for left in (0..TRIMS).rev() {
            freed.trim(1);
            assert_eq!(freed.trims_left, left);
        }
        freed.trim(1);
        assert_eq!(freed.trims_left, 0);
    }
}
