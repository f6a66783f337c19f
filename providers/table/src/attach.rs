//! Takes the tables of a process: the ones it has now, and later the ones it makes.

use std::collections::HashSet;
use std::sync::Arc;

use rustix::io::Errno;
use vmstrobe_core::{Error, Result};
use vmstrobe_host::{Care, FdOwner, Process, SeenTable, procfs, refusal::Step};

use super::budget::MAX_PROCESS_TABLES;
use super::held::{Giver, Origin, Table, file_of};
use super::reader::{State, Tables};

impl Tables {
    /// Takes the tables of a process that are not here yet. Returns their number, and why others
    /// could not be taken.
    ///
    /// # Errors
    /// If its fds cannot be seen.
    pub(super) fn take(
        &self,
        state: &mut State,
        process: &Arc<Process>,
    ) -> Result<(usize, Vec<Error>)> {
        let pid = process.pid();
        let seen = self.host.look(pid, Care { makers: false, ..Care::FULL })?;
        // Only now is it certain that this was the process, and not a later one of its number.
        if !process.lives() {
            return Err(procfs::no_process(pid));
        }
        let (mut count, mut refused, mut unseen) = (0, Vec::new(), false);
        let mut files = HashSet::new();
        // Without its name, which it can change: so it has one warning at most of each kind.
        let title = format!("a table of pid {pid}");
        let is_here = |table: &&SeenTable| {
            state.tables.iter().any(|held| held.file.is_some_and(|(_, inode)| inode == table.inode))
        };
        let seen = seen.tables.iter().take(MAX_PROCESS_TABLES);
        let (here, new): (Vec<_>, Vec<_>) = seen.partition(is_here);
        files.extend(here.iter().map(|table| table.inode));
        let wanted: Vec<_> = new.iter().map(|table| (table.fd, None)).collect();
        let borrowed =
            if wanted.is_empty() { Vec::new() } else { self.host.borrow(process, &wanted)? };
        for fd in borrowed {
            let fd = match fd {
                Ok(fd) => fd,
                // Closed meanwhile.
                Err(Errno::NOENT | Errno::BADF | Errno::SRCH) => continue,
                Err(errno) => {
                    unseen = true;
                    refused.push(self.host.refused(pid, Step::Borrow, errno));
                    continue;
                }
            };
            let file = file_of(&fd);
            files.extend(file.map(|(_, inode)| inode));
            if file.is_some() && state.tables.iter().any(|table| table.file == file) {
                continue;
            }
            let watch = Arc::clone(&self.watch);
            let alive = Arc::clone(process.alive());
            let owner = FdOwner { alive, watch, seat: None };
            let origin = Origin { title: title.clone(), giver: Giver::FdOwner(owner) };
            match self.hold(state, fd, origin) {
                Ok(_) => count += 1,
                Err(error) => refused.push(error),
            }
        }
        // A table that the process has closed is not written any more.
        let is_closed = |table: &mut Table| {
            let is_open = table.file.is_some_and(|(_, inode)| files.contains(&inode));
            !unseen && !is_open && table.is_lent_by(process.alive())
        };
        let closed = state.tables.extract_if(.., is_closed);
        closed.for_each(|table| table.give_up(&self.gone_epoch));
        Ok((count, refused))
    }
}
