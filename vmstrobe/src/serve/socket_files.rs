//! The files of the sockets that exist now, for a thread that removes them when the process ends.
//!
//! Invariant: the list is not locked while a file is removed, but at the end; then a file that is
//! added is removed at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_listen::SocketFile;

/// The files of the sockets that exist now. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct SocketFiles {
    shared: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    present: Vec<Arc<SocketFile>>,
    /// True once all files were removed because the process ends.
    is_closed: bool,
}

impl SocketFiles {
    /// Adds the file of a socket that was just created, or removes it if the process ends.
    pub fn add(&self, path: &Path) {
        let Some(file) = SocketFile::at(path) else { return };
        let mut files = self.lock();
        if files.is_closed {
            file.remove();
        } else {
            files.present.push(Arc::new(file));
        }
    }

    /// Removes the files at these paths, if they are still ours, from the disk and from the list.
    pub fn remove(&self, paths: &[PathBuf]) {
        // Not under the lock, for which the exiting thread may be waiting.
        let paths: Vec<_> = paths.iter().flat_map(std::path::absolute).collect();
        let mut closed = self.lock().present.clone();
        closed.retain(|file| paths.iter().any(|path| path == file.path()));
        closed.iter().for_each(|file| file.remove());
        let is_closed = |file: &_| closed.iter().any(|closed| Arc::ptr_eq(file, closed));
        self.lock().present.retain(|file| !is_closed(file));
    }

    /// Removes all files that are still ours, and from now on each that is added.
    pub fn remove_all(&self) {
        let mut files = self.lock();
        files.is_closed = true;
        files.present.drain(..).for_each(|file| file.remove());
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_that_were_created_here_are_removed() {
        let root =
            std::env::temp_dir().join(format!("vmstrobe-socket-files-{}", std::process::id()));
        fs::create_dir_all(&root).expect("the directory can be created");
        let path = |name: &str| root.join(name);
        let sockets = ["ours", "gone", "another's"]
            .map(|name| UnixListener::bind(path(name)).expect("the path is free"));
        let files = SocketFiles::default();
        for name in ["ours", "gone", "another's"] {
            files.add(&path(name));
        }
        fs::remove_file(path("gone")).expect("the socket exists");
        files.remove(&[path("gone")]);
        assert_eq!(files.lock().present.len(), 2);
        // The moved file keeps its inode number, so that the next file gets another one.
        fs::rename(path("another's"), path("moved")).expect("the socket exists");
        fs::write(path("another's"), "").expect("the path is free");
        files.remove_all();
        assert!(!path("ours").exists() && path("another's").exists());
        // A socket that is created after the removal is removed too.
        let late = UnixListener::bind(path("late")).expect("the path is free");
        files.add(&path("late"));
        assert!(!path("late").exists());
        drop((sockets, late));
        fs::remove_dir_all(&root).expect("the directory is ours");
    }
}
