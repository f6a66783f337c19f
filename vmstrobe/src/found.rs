//! The virtual machines and tables that were found on this host, and the one that is meant if
//! none was named.
//!
//! Invariant: processes that could not be examined are part of the answer, as data.

use crate::survey::{Hidden, LeftOut, Scan, scan_all_by};
use vmstrobe_host::{Host, VmInfo};

use crate::error::{Error, Result};

/// The virtual machines and tables that were found on this host.
pub(crate) struct Found(Scan);

impl Found {
    pub(crate) fn look(host: &Host) -> Result<Self> {
        Ok(Self(scan_all_by(host)?))
    }

    /// Returns the processes with virtual machines, each once.
    pub(crate) fn vmms(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.vms.iter().map(|vm| vm.pid).collect();
        pids.dedup();
        pids
    }

    /// Returns the processes with tables, each once.
    pub(crate) fn publishers(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.tables.iter().map(|table| table.pid).collect();
        pids.dedup();
        pids
    }

    /// Returns the processes that were not looked at.
    pub(crate) fn left_out(&self) -> &[LeftOut] {
        &self.0.left_out
    }

    /// Returns the one process with a virtual machine; if there is none, the one with tables.
    ///
    /// # Errors
    /// If there is none, or several.
    pub(crate) fn only(self) -> Result<u32> {
        match (&self.vmms()[..], &self.publishers()[..]) {
            ([], []) => Err(self.none()),
            ([pid], _) | ([], [pid]) => Ok(*pid),
            _ => Err(Error::SeveralFound { vms: self.0.vms, tables: self.0.tables }),
        }
    }

    /// Returns the error that there is none.
    pub(crate) fn none(self) -> Error {
        Error::NothingFound { hidden: Hidden::of(&self.0), left_out: self.0.left_out }
    }
}

/// Returns the name of a virtual machine for people: its own, or else its process id.
pub fn vm_name(vm: &VmInfo) -> String {
    name_or_number(vm.name.clone().unwrap_or_default(), vm.pid)
}

/// Returns the name of the first of a process's virtual machines. The process may have closed them
/// since it was attached to: then its id is all that there is.
pub(crate) fn name_of_first(vms: &[VmInfo], pid: u32) -> String {
    vms.first().map_or_else(|| pid.to_string(), vm_name)
}

/// Returns the name of a process, or else its number: one that has ended has no name.
pub(crate) fn process_name(host: &Host, pid: u32) -> String {
    name_or_number(host.comm(pid), pid)
}

/// Returns that name, or else the process's number. A name of blanks is none: nobody sees it.
pub fn name_or_number(name: String, pid: u32) -> String {
    if name.trim().is_empty() { pid.to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use vmstrobe_host::Access;
    use vmstrobe_table::FoundTable;

    use super::*;

    fn found(vms: &[u32], tables: &[u32]) -> Found {
        let vm = |&pid: &u32| VmInfo {
            pid,
            name: None,
            start_time_ticks: 1,
            uid: 0,
            vcpus: 1,
            access: Access::NoStatsFds,
        };
        let vms = vms.iter().map(vm).collect();
        let table = |&pid: &u32| FoundTable { pid, comm: "p".into(), provider: "xyz".into() };
        Found(Scan { vms, tables: tables.iter().map(table).collect(), ..Scan::default() })
    }

    #[test]
    fn the_only_source_is_a_vm_or_else_a_process_with_tables() {
        for (vms, tables, want) in [
            (&[7][..], &[][..], Ok(7)),
            (&[7, 7], &[8, 9], Ok(7)),
            (&[], &[8, 8], Ok(8)),
            (&[7, 9], &[], Err("several virtual machines run on this host: name one, or all")),
            (&[], &[8, 9], Err("several processes on this host have tables of statistics")),
            (&[], &[], Err("no virtual machine and no table of statistics found on this host")),
        ] {
            match (found(vms, tables).only(), want) {
                (Ok(pid), Ok(want)) => assert_eq!(pid, want),
                (Err(error), Err(want)) => assert!(error.to_string().starts_with(want), "{error}"),
                (got, _) => panic!("{vms:?} {tables:?}: {got:?}"),
            }
        }
        let several = found(&[7, 9], &[8]).only();
        let Err(Error::SeveralFound { vms, tables }) = several else { panic!("{several:?}") };
        assert_eq!(vms.iter().map(|vm| vm.pid).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(tables.iter().map(|table| table.pid).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_vm_without_a_name_goes_by_its_process() {
        let mut vms = found(&[7], &[]).0.vms;
        assert_eq!((name_of_first(&vms, 7), name_of_first(&[], 7)), ("7".into(), "7".into()));
        vms[0].name = Some(" ".to_owned());
        assert_eq!(name_of_first(&vms, 7), "7");
        vms[0].name = Some("web".to_owned());
        assert_eq!(name_of_first(&vms, 7), "web");
    }

    #[test]
    fn processes_that_could_not_be_examined_are_said() {
        let hidden = |hidden, why: Option<&str>| {
            let why_hidden = why.map(str::to_owned);
            let scan = Scan { hidden, why_hidden, ..Scan::default() };
            Hidden::of(&scan).map(|hidden| hidden.to_string())
        };
        assert_eq!(hidden(0, None), None);
        assert_eq!(hidden(0, Some("no /proc")), Some("no /proc".to_owned()));
        assert_eq!(hidden(1, None), Some("1 process could not be examined".to_owned()));
        let want = "1,200 processes could not be examined: root may".to_owned();
        assert_eq!(hidden(1200, Some("root may")), Some(want));
        let mut none = found(&[], &[]);
        none.0.hidden = 1200;
        let text = none.none().to_string();
        assert!(text.ends_with("on this host (1,200 processes could not be examined)"), "{text}");
    }

    #[test]
    fn a_process_has_a_name() {
        let mut child =
            std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts");
        let (id, host) = (child.id(), Host::default());
        // The kernel gives it a moment after the program has begun.
        let deadline = Instant::now() + Duration::from_secs(10);
        while process_name(&host, id) != "sleep" && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(process_name(&host, id), "sleep");
        child.kill().and_then(|()| child.wait()).expect("it is ours");
        assert_eq!(process_name(&host, id), id.to_string());
        for (name, want) in [("a b", "a b"), ("", "7"), (" \t\n\u{3000}", "7")] {
            assert_eq!(name_or_number(name.to_owned(), 7), want);
        }
    }
}
