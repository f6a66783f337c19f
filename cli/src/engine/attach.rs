//! Processes of others: which are meant, and what of each is read: its virtual machines, its
//! tables, or both.
//!
//! Invariant: of a process that was named something is read, or there is an error that says what to
//! do. What else of it cannot be read, and those of `--all` of which nothing can be, are named on
//! standard error: none is left out in silence.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::ErrorKind;
use vmstrobe_providers::{
    Accel, Borrowed, FoundTable, Reaper, Scan, Tables, Vm, scan, scan_all, scan_tables,
};

use super::attached::{Attached, comm};
use super::sources::borrowed;
use crate::args::Source;
use crate::error::{Error, Result, with_causes};
use crate::out::say;
use crate::privileges::without;
use crate::text::thousands;

/// The most processes that an error lists.
const LISTED_MAX: usize = 20;

/// What is read of processes.
#[derive(Debug)]
pub(super) struct Processes {
    /// The virtual machines.
    pub(super) kvm: Arc<Borrowed>,
    /// The tables, also those in files.
    pub(super) tables: Arc<Tables>,
    /// The processes of which a virtual machine is read.
    pub(super) vmms: Vec<u32>,
}

impl Processes {
    /// None yet.
    ///
    /// # Errors
    /// If the system has no threads for them.
    pub(super) fn new(reaper: &Reaper, accel: &Accel) -> Result<Self> {
        let kvm = Arc::new(borrowed(reaper, accel)?);
        Ok(Self { kvm, tables: Arc::new(without(Tables::new)??), vmms: Vec::new() })
    }

    /// Attaches to what the user named, or else to the only one there is.
    ///
    /// # Errors
    /// If nothing can be read of one that he named, or it is not clear which one is meant.
    pub(super) fn attach(&mut self, source: &Source) -> Result<Vec<Attached>> {
        if source.all {
            return self.attach_all(&Found::look()?);
        }
        let mut pids = source.pids.clone();
        if pids.is_empty() {
            pids.push(Found::look()?.the_only_one()?);
        }
        // Who is attached already has nothing that is new.
        let mut seen = Vec::new();
        pids.retain(|pid| {
            !seen.contains(pid) && {
                seen.push(*pid);
                true
            }
        });
        pids.into_iter().map(|pid| self.attach_one(pid)).collect()
    }

    /// Reads the table in a file.
    ///
    /// # Errors
    /// If it is none, or nobody writes it.
    pub(super) fn open_file(&self, path: &Path) -> Result<Attached> {
        self.tables.open_file(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Attached::remote(format!("the table {}", path.display()), name, None))
    }

    /// Attaches to one process.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(super) fn attach_one(&mut self, pid: u32) -> Result<Attached> {
        // Before its fds are looked at.
        let mut attached = Attached::process(pid);
        let (vm, tables) = (self.kvm.attach(pid), self.tables.attach(pid));
        let has_no_vm =
            matches!(&vm, Err(error) if tables.is_ok() && error.kind() == ErrorKind::NotFound);
        match (vm, tables) {
            (Ok(()), tables) => {
                if let Err(error) = tables {
                    let error = with_causes(&error);
                    say(format_args!("of pid {pid} no table is read, only its VM: {error}"));
                }
                self.vmms.push(pid);
                let vms = scan(pid).unwrap_or_default();
                attached.name = vms.first().map(name).unwrap_or_default();
                attached.title = format!("VM {} (pid {pid})", attached.name);
                attached.is_vm = true;
            }
            (Err(error), Ok(1..)) => {
                if !has_no_vm {
                    let error = with_causes(&error);
                    say(format_args!("of pid {pid} no VM is read, only its tables: {error}"));
                }
                attached.name = comm(pid);
                attached.title = format!("process {} (pid {pid})", attached.name);
            }
            (Err(_), Ok(0)) if has_no_vm => return Err(nothing_of(pid)),
            // It is the process that there is not, or it has no VM: then this is of its table.
            (Err(vm), Err(error)) if vm.kind() == ErrorKind::NotFound => return Err(error.into()),
            (Err(error), _) => return Err(refused(&error)),
        }
        Ok(attached)
    }

    fn attach_all(&mut self, found: &Found) -> Result<Vec<Attached>> {
        let mut pids = [found.vmms(), found.publishers()].concat();
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return Err(found.none());
        }
        let mut attached = Vec::new();
        for pid in pids {
            match self.attach_one(pid) {
                Ok(one) => attached.push(one),
                Err(error) => say(format_args!("left out: {error}")),
            }
        }
        if attached.is_empty() {
            return Err(Error::failed(
                "none of the virtual machines and tables on this host can be read: \
                 `vmstrobe list` says why",
            ));
        }
        Ok(attached)
    }
}

/// What there is on this host.
pub(super) struct Found {
    vms: Scan,
    tables: Vec<FoundTable>,
}

impl Found {
    pub(super) fn look() -> Result<Self> {
        Ok(Self { vms: scan_all()?, tables: scan_tables()? })
    }

    /// The processes with virtual machines, each once.
    fn vmms(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.vms.vms.iter().map(|vm| vm.pid).collect();
        pids.dedup();
        pids
    }

    /// The processes with tables, each once.
    fn publishers(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.tables.iter().map(|table| table.pid).collect();
        pids.dedup();
        pids
    }

    /// The one process with a virtual machine; if there is none, the one with tables.
    ///
    /// # Errors
    /// If there is none, or several.
    pub(super) fn the_only_one(&self) -> Result<u32> {
        match (&self.vmms()[..], &self.publishers()[..]) {
            ([], []) => Err(self.none()),
            ([pid], _) | ([], [pid]) => Ok(*pid),
            (vmms, _) => Err(self.several(!vmms.is_empty())),
        }
    }

    fn several(&self, vms: bool) -> Error {
        let what = match vms {
            true => "several virtual machines run on this host",
            false => "several processes on this host have tables of statistics",
        };
        let mut text = format!("{what}: choose one with -p PID, or take them all with --all");
        let vms = self.vms.vms.iter().map(|vm| format!("\n{:>10}  {}", vm.pid, name(vm)));
        let table = |table: &FoundTable| {
            format!("\n{:>10}  {}, a table of {}", table.pid, table.comm, table.provider)
        };
        let lines: Vec<String> = vms.chain(self.tables.iter().map(table)).collect();
        text.extend(lines.iter().take(LISTED_MAX).map(String::as_str));
        let more = lines.len().saturating_sub(LISTED_MAX);
        if more > 0 {
            text += &format!("\n            and {more} more: see `vmstrobe list`");
        }
        Error::failed(text)
    }

    fn none(&self) -> Error {
        let mut text = "no virtual machine and no table of statistics found on this host: start \
                        one, or try --demo"
            .to_owned();
        if let Some(hidden) = hidden_text(&self.vms) {
            text += &format!(" ({hidden})");
        }
        Error::failed(text)
    }
}

/// What people call it.
pub(super) fn name(vm: &Vm) -> String {
    vm.name.clone().unwrap_or_else(|| vm.pid.to_string())
}

/// A process that lives, and has nothing to be read.
fn nothing_of(pid: u32) -> Error {
    let comm = comm(pid);
    Error::failed(format!(
        "pid {pid} ({comm}) has neither a KVM virtual machine nor a table of statistics open: give \
         the pid of a VMM, or of a program that publishes statistics; `vmstrobe list` shows them"
    ))
}

/// Why a VM cannot be read, and what else can be done about it.
fn refused(error: &vmstrobe_core::Error) -> Error {
    let mut text = with_causes(error);
    if error.kind() == ErrorKind::Unsupported {
        text += "; a QEMU can be asked instead: --from-qmp SOCKET";
    }
    Error::failed(text)
}

/// What to say of processes that we may not look into, if there are any.
pub(crate) fn hidden_text(found: &Scan) -> Option<String> {
    let processes = if found.hidden == 1 { "process" } else { "processes" };
    let advice = match rustix::process::geteuid().is_root() {
        true => "the kernel forbids it even to root",
        false => "run as root, or give vmstrobe CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
    };
    let hidden = thousands(found.hidden as u64);
    (found.hidden > 0).then(|| format!("{hidden} {processes} could not be examined: {advice}"))
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Target;
    use vmstrobe_providers::{Access, TableSchema, TableWriter};

    use super::*;

    fn found(vms: &[u32], tables: &[u32]) -> Found {
        let vm = |&pid: &u32| Vm {
            pid,
            name: None,
            start_time_ticks: 1,
            vcpus: 1,
            access: Access::NoStatsFds,
        };
        let vms = Scan { vms: vms.iter().map(vm).collect(), hidden: 0 };
        let table = |&pid: &u32| FoundTable { pid, comm: "p".into(), provider: "xyz".into() };
        Found { vms, tables: tables.iter().map(table).collect() }
    }

    #[test]
    fn the_only_one_is_a_vm_or_else_a_process_with_tables() {
        for (vms, tables, want) in [
            (&[7][..], &[][..], Ok(7)),
            (&[7, 7], &[8, 9], Ok(7)),
            (&[], &[8, 8], Ok(8)),
            (&[7, 9], &[], Err("several virtual machines run on this host: choose one with -p")),
            (&[], &[8, 9], Err("several processes on this host have tables of statistics")),
            (&[], &[], Err("no virtual machine and no table of statistics found on this host")),
        ] {
            match (found(vms, tables).the_only_one(), want) {
                (Ok(pid), Ok(want)) => assert_eq!(pid, want),
                (Err(error), Err(want)) => assert!(error.to_string().starts_with(want), "{error}"),
                (got, _) => panic!("{vms:?} {tables:?}: {got:?}"),
            }
        }
        let text = found(&[7, 9], &[8]).the_only_one().expect_err("several").to_string();
        assert!(text.ends_with("\n         7  7\n         9  9\n         8  p, a table of xyz"));
        let many: Vec<u32> = (0..30).collect();
        let text = found(&many, &[8]).the_only_one().expect_err("several").to_string();
        assert!(text.ends_with("\n            and 11 more: see `vmstrobe list`"), "{text}");
    }

    #[test]
    fn a_process_with_a_table_needs_no_vm() {
        let pid = std::process::id();
        let reaper = Reaper::new().expect("there are threads");
        let accel = Accel::off();
        let mut processes = Processes::new(&reaper, &accel).expect("there are threads");
        let table = TableWriter::new("attach-me").expect("there is memory");
        let source = Source { pids: vec![pid, pid], ..Source::default() };
        let attached = processes.attach(&source).expect("it has a table");
        assert_eq!(attached.len(), 1);
        assert!(attached[0].title.ends_with(&format!("(pid {pid})")), "{attached:?}");
        assert!(processes.vmms.is_empty());
        let schema = TableSchema::new(Target::from_name("queue"));
        let _queue = table.add("/attach/queue[0]", &schema).expect("there is room");
        let objects = vmstrobe_core::Provider::objects(&*processes.tables).expect("it lives");
        assert!(objects.iter().any(|object| &*object.path == "/attach/queue[0]"));
    }

    #[test]
    fn that_there_is_none_is_said_with_what_is_hidden() {
        let mut found = found(&[], &[]);
        found.vms.hidden = 1200;
        let text = found.none().to_string();
        assert!(text.contains("--demo (1,200 processes could"), "{text}");
    }

    #[test]
    fn what_is_hidden_is_counted() {
        let text = |hidden| hidden_text(&Scan { vms: Vec::new(), hidden });
        assert_eq!(text(0), None);
        assert!(text(1).is_some_and(|text| text.starts_with("1 process could not be examined: ")));
        assert!(text(1200).is_some_and(|text| text.starts_with("1,200 processes could")));
    }
}
