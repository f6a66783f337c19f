//! Other processes, and what is read of each: its virtual machines, its tables, or both.
//!
//! Invariant: something is read of a process that was named, or there is an error. Anything else
//! of it that cannot be read, and processes of all of which nothing can be read, have a notice.

use std::path::Path;
use std::sync::Arc;

use crate::parts::{AttachOptions, AttachedKvm, Tables, scan_by};
use vmstrobe_core::{ErrorKind, Provider};
use vmstrobe_host::{Host, Reaper};

use crate::error::{Error, Result};
use crate::found::{Found, name_of_first, process_name};
use crate::member::Member;
use crate::notice::{Notice, Notices};
use crate::sources::Sources;

/// The processes that are read, with the providers of their virtual machines and tables.
#[derive(Debug)]
pub(crate) struct Processes {
    host: Host,
    notices: Notices,
    /// The virtual machines.
    pub(crate) kvm: Arc<AttachedKvm>,
    /// The tables, also those in files.
    pub(crate) tables: Arc<Tables>,
    /// The processes of which a virtual machine is read.
    pub(crate) vmms: Vec<u32>,
}

impl Processes {
    /// Returns none yet.
    ///
    /// # Errors
    /// If the system has no threads for them.
    pub(crate) fn new(reaper: &Reaper, options: &AttachOptions, notices: Notices) -> Result<Self> {
        let kvm = Arc::new(AttachedKvm::with_options(reaper.clone(), options.clone())?);
        let host = options.host.clone();
        let tables = Arc::new(Tables::on_host(host.clone())?);
        Ok(Self { host, notices, kvm, tables, vmms: Vec::new() })
    }

    /// Attaches to the processes that the user named, or else to the only one there is.
    ///
    /// # Errors
    /// If nothing can be read of a process that was named, or it is not clear which one is meant.
    pub(crate) fn attach(&mut self, sources: &Sources) -> Result<Vec<Member>> {
        if sources.all {
            return self.attach_all(Found::look(&self.host)?);
        }
        // A process that is attached to already has nothing that is new.
        let mut pids: Vec<u32> = Vec::new();
        for pid in &sources.pids {
            if !pids.contains(pid) {
                pids.push(*pid);
            }
        }
        if pids.is_empty() {
            pids.push(Found::look(&self.host)?.only()?);
        }
        pids.into_iter().map(|pid| self.attach_one(pid)).collect()
    }

    /// Reads the table in a file.
    ///
    /// # Errors
    /// If there is none, or no program writes it.
    pub(crate) fn open_file(&self, path: &Path) -> Result<Member> {
        self.tables.open_file(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Member::remote(format!("the table {}", path.display()), name, None, Vec::new()))
    }

    /// Returns the providers that read processes.
    fn providers(&self) -> Vec<Arc<dyn Provider>> {
        vec![Arc::clone(&self.kvm) as _, Arc::clone(&self.tables) as _]
    }

    /// Attaches to one process.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(crate) fn attach_one(&mut self, pid: u32) -> Result<Member> {
        let mut member = Member::process(pid, self.providers());
        let (vm, tables) = (self.kvm.attach(pid), self.tables.attach(pid));
        let has_no_vm =
            matches!(&vm, Err(error) if tables.is_ok() && error.kind() == ErrorKind::NotFound);
        match (vm, tables) {
            (Ok(()), tables) => {
                if let Err(error) = tables {
                    self.notices.add(Notice::OnlyVm { pid, error });
                }
                self.vmms.push(pid);
                let vms = scan_by(&self.host, pid).unwrap_or_default();
                member.name = name_of_first(&vms, pid);
                member.title = format!("VM {} (pid {pid})", member.name);
                member.is_vm = true;
            }
            (Err(error), Ok(1..)) => {
                if !has_no_vm {
                    self.notices.add(Notice::OnlyTables { pid, error });
                }
                member.name = process_name(&self.host, pid);
                member.title = format!("process {} (pid {pid})", member.name);
            }
            (Err(_), Ok(0)) if has_no_vm => {
                return Err(Error::NoStatistics { pid, comm: process_name(&self.host, pid) });
            }
            // There is no such process, or it has no VM: then the error about its tables counts.
            (Err(vm), Err(error)) if vm.kind() == ErrorKind::NotFound => return Err(error.into()),
            (Err(error), _) => return Err(Error::VmRefused(error)),
        }
        Ok(member)
    }

    /// Attaches to the virtual machines of processes together, as far as they can be.
    pub(crate) fn prepare(&self, pids: impl IntoIterator<Item = u32>) {
        let pids: Vec<u32> = pids.into_iter().collect();
        if !pids.is_empty() {
            self.kvm.attach_all(&pids);
        }
    }

    fn attach_all(&mut self, found: Found) -> Result<Vec<Member>> {
        let mut pids = [found.vmms(), found.publishers()].concat();
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return Err(found.none());
        }
        let left_out = found.left_out().to_vec();
        // Together: one after the other each would be waited for. Those that are refused are asked
        // again below, and say why.
        self.prepare(found.vmms());
        let (mut members, mut refused) = (Vec::new(), Vec::new());
        for pid in pids {
            match self.attach_one(pid) {
                Ok(member) => members.push(member),
                Err(error) => refused.push(error),
            }
        }
        if members.is_empty() {
            return Err(Error::NothingReadable { left_out, refused });
        }
        if !left_out.is_empty() {
            self.notices.add(Notice::LeftOut(left_out));
        }
        refused.into_iter().for_each(|error| self.notices.add(Notice::NotRead(error)));
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Target;
    use vmstrobe_table::{TableSchema, TableWriter};

    use super::*;

    #[test]
    fn a_process_with_a_table_needs_no_vm() {
        let pid = std::process::id();
        let reaper = Reaper::new().expect("there are threads");
        let options = crate::Options::default().attach(false);
        let mut processes =
            Processes::new(&reaper, &options, Notices::default()).expect("there are threads");
        let table = TableWriter::new("attach-me").expect("there is memory");
        let sources = Sources { pids: vec![pid, pid], ..Sources::default() };
        let members = processes.attach(&sources).expect("it has a table");
        assert_eq!(members.len(), 1);
        assert!(members[0].title.ends_with(&format!("(pid {pid})")), "{members:?}");
        assert!(processes.vmms.is_empty());
        let schema = TableSchema::new(Target::from_name("queue"));
        let _queue = table.add("/attach/queue[0]", &schema).expect("there is room");
        let objects = vmstrobe_core::Provider::objects(&*processes.tables).expect("it lives");
        assert!(objects.iter().any(|object| &*object.path == "/attach/queue[0]"));
    }
}
