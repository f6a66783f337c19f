//! Other processes: which are meant, and what is read of each: its virtual machines, its tables, or
//! both.
//!
//! Invariant: something is read of a process that was named, or there is an error that says what to
//! do. Anything else of it that cannot be read, and processes of `--all` of which nothing can be
//! read, are named on standard error: none is left out in silence.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::ErrorKind;
use vmstrobe_providers::{
    AttachOptions, AttachedKvm, FoundTable, Host, Reaper, Scan, Tables, VmInfo, scan_all_by,
    scan_by,
};

use super::attached::{Attached, name_or_number, process_name};
use super::left_out::{hidden_text, say_left_out};
use crate::args::Source;
use crate::error::{Error, Result, with_causes};
use crate::out::say;

/// The most processes that an error lists.
const LISTED_MAX: usize = 20;

/// The processes that are read, with the providers of their virtual machines and tables.
#[derive(Debug)]
pub(super) struct Processes {
    host: Host,
    /// The virtual machines.
    pub(super) kvm: Arc<AttachedKvm>,
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
    pub(super) fn new(reaper: &Reaper, options: &AttachOptions) -> Result<Self> {
        let kvm = Arc::new(AttachedKvm::with_options(reaper.clone(), options.clone())?);
        let host = options.host.clone();
        let tables = Arc::new(Tables::on_host(host.clone())?);
        Ok(Self { host, kvm, tables, vmms: Vec::new() })
    }

    /// Attaches to what the user named, or else to the only one there is.
    ///
    /// # Errors
    /// If nothing can be read of a process that was named, or it is not clear which one is meant.
    pub(super) fn attach(&mut self, source: &Source) -> Result<Vec<Attached>> {
        if source.all {
            return self.attach_all(&Found::look(&self.host)?);
        }
        let mut pids = source.pids.clone();
        if pids.is_empty() {
            pids.push(Found::look(&self.host)?.the_only_one()?);
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
                    say(format_args!("pid {pid}: only the VM is read, not the tables: {error}"));
                }
                self.vmms.push(pid);
                let vms = scan_by(&self.host, pid).unwrap_or_default();
                attached.name = name_of(&vms, pid);
                attached.title = format!("VM {} (pid {pid})", attached.name);
                attached.is_vm = true;
            }
            (Err(error), Ok(1..)) => {
                if !has_no_vm {
                    let error = with_causes(&error);
                    say(format_args!("pid {pid}: only the tables are read, not the VM: {error}"));
                }
                attached.name = process_name(&self.host, pid);
                attached.title = format!("process {} (pid {pid})", attached.name);
            }
            (Err(_), Ok(0)) if has_no_vm => {
                return Err(nothing_of(pid, &process_name(&self.host, pid)));
            }
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
        say_left_out(&found.0.left_out);
        // Together: one after the other each would be waited for. Those that are refused are asked
        // again below, and say why.
        self.kvm.attach_all(&found.vmms());
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

/// The virtual machines and tables that were found on this host.
pub(super) struct Found(Scan);

impl Found {
    pub(super) fn look(host: &Host) -> Result<Self> {
        Ok(Self(scan_all_by(host)?))
    }

    /// The processes with virtual machines, each once.
    fn vmms(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.vms.iter().map(|vm| vm.pid).collect();
        pids.dedup();
        pids
    }

    /// The processes with tables, each once.
    fn publishers(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.tables.iter().map(|table| table.pid).collect();
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
        let text = format!("{what}: choose one with -p PID, or take them all with --all");
        let vms = self.0.vms.iter().map(|vm| format!("{:>10}  {}", vm.pid, name(vm)));
        let table = |table: &FoundTable| {
            let name = name_or_number(table.comm.clone(), table.pid);
            format!("{:>10}  {name}, a table of {}", table.pid, table.provider)
        };
        let mut lines: Vec<String> = vms.chain(self.0.tables.iter().map(table)).collect();
        let more = lines.len().saturating_sub(LISTED_MAX);
        lines.truncate(LISTED_MAX);
        if more > 0 {
            lines.push(format!("            and {more} more: see `vmstrobe list`"));
        }
        Error::failed(text).above(lines)
    }

    fn none(&self) -> Error {
        let mut text = "no virtual machine and no table of statistics found on this host: start \
                        one, or try --demo"
            .to_owned();
        if let Some(hidden) = hidden_text(&self.0) {
            text += &format!(" ({hidden})");
        }
        say_left_out(&self.0.left_out);
        Error::failed(text)
    }
}

/// Returns the name of a virtual machine for people: its own, or else its process id.
pub(super) fn name(vm: &VmInfo) -> String {
    name_or_number(vm.name.clone().unwrap_or_default(), vm.pid)
}

/// Returns the name of the first of a process's virtual machines. It may have closed them since it
/// was attached to: then its process id is all that there is.
fn name_of(vms: &[VmInfo], pid: u32) -> String {
    vms.first().map_or_else(|| pid.to_string(), name)
}

/// A process that lives, and has nothing to be read.
fn nothing_of(pid: u32, comm: &str) -> Error {
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

#[cfg(test)]
mod tests {
    use vmstrobe_core::Target;
    use vmstrobe_providers::{Access, TableSchema, TableWriter};

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
        let mut blank = self::found(&[], &[8, 9]);
        blank.0.tables[0].comm = " ".to_owned();
        let text = blank.the_only_one().expect_err("several").to_string();
        assert!(text.contains("         8  8, a table of xyz"), "{text}");
        let many: Vec<u32> = (0..30).collect();
        let text = found(&many, &[8]).the_only_one().expect_err("several").to_string();
        assert!(text.ends_with("\n            and 11 more: see `vmstrobe list`"), "{text}");
    }

    #[test]
    fn a_vm_without_a_name_goes_by_its_process() {
        let mut found = found(&[7], &[]).0.vms;
        assert_eq!((name_of(&found, 7), name_of(&[], 7)), ("7".to_owned(), "7".to_owned()));
        found[0].name = Some(" ".to_owned());
        assert_eq!(name_of(&found, 7), "7");
        found[0].name = Some("web".to_owned());
        assert_eq!(name_of(&found, 7), "web");
    }

    #[test]
    fn a_process_with_a_table_needs_no_vm() {
        let pid = std::process::id();
        let reaper = Reaper::new().expect("there are threads");
        let options = AttachOptions::default();
        let mut processes = Processes::new(&reaper, &options).expect("there are threads");
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
        found.0.hidden = 1200;
        let text = found.none().to_string();
        assert!(text.contains("--demo (1,200 processes could"), "{text}");
    }
}
