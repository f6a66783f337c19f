//! The virtual machines and tables of this host, each with the methods by which it can be read.
//!
//! Whether one can be read is found out by trying: its descriptors, its tables, are borrowed and
//! given back, and the BPF reader is loaded where it is needed or asked about.
//!
//! Invariant: whatever can be seen is listed, readable or not. A method is called open if it was
//! tried here, for this virtual machine or (the BPF reader) on this host, and closed with the
//! reason.

use std::collections::BTreeMap;

use crate::parts::{AttachOptions, AttachedKvm};
use crate::parts::{Bpf, BpfStatus};
use crate::parts::{FoundTable, Tables};
use crate::survey::{Hidden, LeftOut, scan_all_by};
use vmstrobe_core::{Error, ErrorKind, Object, Provider};
use vmstrobe_host::{Access, Host, Reaper, VmInfo};

use crate::error::Result;
use crate::read_status::ReadMethod;
use crate::sources::Options;

/// So many processes are attached to at a time, so that their descriptors have room.
const TRIED_AT_ONCE: usize = 64;

/// All that was found on this host.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The virtual machines.
    pub vms: Vec<ListedVm>,
    /// The tables: one entry for all of one provider in one process.
    pub tables: Vec<ListedTables>,
    /// The processes that this process may not examine.
    pub hidden: Option<Hidden>,
    /// The processes that were not looked at for other reasons.
    pub left_out: Vec<LeftOut>,
    /// True if the BPF reader was tested also where no virtual machine needs it, so that every
    /// method of reading one was tried.
    pub is_bpf_tested: bool,
}

/// A virtual machine, and whether and how it can be read.
#[derive(Debug)]
pub struct ListedVm {
    /// The virtual machine.
    pub vm: VmInfo,
    /// The method by which it is read; or why it cannot be read.
    pub method: std::result::Result<ReadMethod, String>,
    /// Whether one `pread` an object can be used; or why not.
    pub pread: std::result::Result<(), String>,
    /// By which instructions the BPF reader reads it; or why it does not. It is closed as not tried
    /// if [`list`] was not to test it and did not need it.
    pub bpf: BpfOnHost,
}

/// By which instructions the BPF reader works on this host, or why it does not.
type BpfOnHost = std::result::Result<String, String>;

/// The tables of one provider in one process.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedTables {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The name of the provider, as the tables say it; of tables that cannot be read, the name of
    /// their memory.
    pub provider: String,
    /// The number of objects of each target.
    pub objects: BTreeMap<String, usize>,
    /// Why they cannot be read, if they cannot.
    pub refused: Option<String>,
}

/// Lists the virtual machines and the tables of this host, and tries how each can be read. The BPF
/// reader is tested if `tests_bpf`, and else only if a virtual machine needs it.
///
/// # Errors
/// If /proc cannot be read, or the system has no threads for it.
pub fn list(options: &Options, tests_bpf: bool) -> Result<Listing> {
    let attach = options.attach(true);
    let scan = scan_all_by(&attach.host)?;
    Ok(Listing {
        vms: vms(&scan.vms, &attach, &options.bpf, tests_bpf)?,
        tables: tables(&scan.tables, &attach.host)?,
        hidden: Hidden::of(&scan),
        left_out: scan.left_out,
        is_bpf_tested: tests_bpf,
    })
}

/// Returns each of these virtual machines with the outcome of attaching to it.
fn vms(
    vms: &[VmInfo],
    options: &AttachOptions,
    bpf: &Bpf,
    tests_bpf: bool,
) -> Result<Vec<ListedVm>> {
    let reaper = Reaper::with_threads(options.host.threads())?;
    let kvm = AttachedKvm::with_options(reaper, options.clone())?;
    let processes: Vec<&[VmInfo]> = vms.chunk_by(|a, b| a.pid == b.pid).collect();
    let mut listed = Vec::new();
    for some in processes.chunks(TRIED_AT_ONCE) {
        let pids: Vec<u32> = some.iter().map(|vms| vms[0].pid).collect();
        // Of several virtual machines in one process, all are attached.
        let outcomes = kvm.attach_all(&pids);
        let bpf = bpf_on_host(bpf, tests_bpf);
        for (vms, outcome) in some.iter().zip(outcomes) {
            let refused = outcome.err();
            listed.extend(vms.iter().map(|vm| ListedVm::new(vm, refused.as_ref(), &bpf)));
        }
        for pid in pids {
            kvm.detach(pid);
        }
    }
    Ok(listed)
}

/// Returns what is known of the BPF reader so far; if it is to be tested, tries it first.
fn bpf_on_host(bpf: &Bpf, is_tested: bool) -> BpfOnHost {
    if is_tested {
        bpf.check().map_err(|error| format!("{error:#}"))?;
    }
    match bpf.status() {
        BpfStatus::Open(how) => Ok(how),
        status => Err(status.to_string()),
    }
}

impl ListedVm {
    /// Returns the entry of a virtual machine, from the outcome of attaching to its process.
    fn new(vm: &VmInfo, refused: Option<&Error>, bpf: &BpfOnHost) -> Self {
        let has_stats_fds = vm.access != Access::NoStatsFds;
        // That there are no stats fds closes one method alone.
        let closes_both = refused.filter(|error| error.kind() != ErrorKind::Unsupported);
        let closed = closes_both.map_or(Ok(()), |error| Err(format!("{error:#}")));
        let no_stats_fds = "its VMM keeps no stats fds open: QEMU does from 8.1 on, and any VMM \
                            that embeds vmstrobe";
        let pread = match has_stats_fds {
            true => closed.clone(),
            false => closed.clone().and_then(|()| Err(no_stats_fds.to_owned())),
        };
        let method = match (refused, has_stats_fds, bpf) {
            (Some(error), ..) => Err(format!("{error:#}")),
            (None, true, _) => Ok(ReadMethod::Pread),
            (None, false, Ok(_)) => Ok(ReadMethod::Bpf),
            // Beside another VM of its process, which keeps some.
            (None, false, Err(_)) => Err(vm.access.to_string()),
        };
        Self { vm: vm.clone(), method, pread, bpf: closed.and_then(|()| bpf.clone()) }
    }
}

/// The outcome of reading the tables of one process: an error is why they cannot be read.
type Tried = std::result::Result<Readable, String>;

/// The tables of one process that could be read.
struct Readable {
    objects: Vec<Object>,
    /// The name of the provider of each, as the table says it.
    providers: Vec<String>,
    /// True if all of its tables could be read.
    is_all: bool,
}

/// Tries the tables of each process. Several of one provider in a process are one entry, as they
/// are for whoever reads them. A table says itself which provider it is of; only of one that cannot
/// be read must the name of its memory tell.
fn tables(found: &[FoundTable], host: &Host) -> Result<Vec<ListedTables>> {
    let mut listed = Vec::new();
    for of_process in found.chunk_by(|a, b| a.pid == b.pid) {
        let tables = Tables::on_host(host.clone())?;
        let tried = tables.attach(of_process[0].pid).and_then(|count| {
            let (objects, providers) = (tables.objects()?, tables.provider_names());
            Ok(Readable { objects, providers, is_all: count >= of_process.len() })
        });
        let tried = tried.map_err(|error| format!("{error:#}"));
        let process = &of_process[0];
        let entry = |provider| ListedTables::new(process, provider, &tried);
        listed.extend(providers(of_process, &tried).into_iter().map(entry));
    }
    Ok(listed)
}

/// Returns the providers of the tables of one process, each once.
fn providers<'a>(found: &'a [FoundTable], tried: &'a Tried) -> Vec<&'a str> {
    let read = tried.iter().flat_map(|tried| &tried.providers).map(String::as_str);
    let is_all = tried.as_ref().is_ok_and(|tried| tried.is_all);
    let unread = found.iter().filter(|_| !is_all).map(|table| &*table.provider);
    let mut names = Vec::new();
    for name in read.chain(unread) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl ListedTables {
    /// Returns the entry of the tables of that provider in that process.
    fn new(process: &FoundTable, provider: &str, tried: &Tried) -> Self {
        let mut objects = BTreeMap::new();
        let its_own = |object: &&Object| object.schema.provider() == provider;
        for object in tried.iter().flat_map(|tried| &tried.objects).filter(its_own) {
            *objects.entry(object.schema.target().name().to_owned()).or_default() += 1;
        }
        let refused = match tried {
            Ok(tried) if tried.providers.iter().any(|name| name == provider) => None,
            Ok(_) => {
                Some("not a table that this vmstrobe can read, or it is just being made".to_owned())
            }
            Err(why) => Some(why.clone()),
        };
        let FoundTable { pid, comm, .. } = process.clone();
        Self { pid, comm, provider: provider.to_owned(), objects, refused }
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Target;
    use vmstrobe_table::{TableSchema, TableWriter};

    use super::*;

    const KEEPS_STATS_FDS: Access = Access::StatsFds { vcpus: 2, vm: false };

    fn listed(access: Access, refused: Option<&Error>, bpf: BpfOnHost) -> ListedVm {
        let vm = VmInfo { pid: 4711, name: None, start_time_ticks: 1, uid: 0, vcpus: 2, access };
        ListedVm::new(&vm, refused, &bpf)
    }

    fn open() -> BpfOnHost {
        Ok("may_goto, rdonly_cast".to_owned())
    }

    fn closed() -> BpfOnHost {
        Err("it takes CAP_BPF".to_owned())
    }

    #[test]
    fn pread_is_used_where_there_are_stats_fds_and_else_the_bpf_reader() {
        let web = listed(KEEPS_STATS_FDS, None, open());
        assert_eq!((web.method, web.pread, web.bpf), (Ok(ReadMethod::Pread), Ok(()), open()));
        let old = listed(Access::NoStatsFds, None, open());
        assert_eq!((old.method, old.bpf), (Ok(ReadMethod::Bpf), open()));
        assert!(old.pread.is_err_and(|why| why.contains("QEMU does from 8.1 on")));
        // Beside another VM of its process, which keeps some.
        let beside = listed(Access::NoStatsFds, None, closed());
        assert_eq!((beside.method.is_err(), beside.bpf), (true, closed()));
    }

    #[test]
    fn a_refusal_closes_both_methods_unless_it_is_for_want_of_stats_fds() {
        let none = Error::new(ErrorKind::Unsupported, "keeps none");
        let entry = listed(Access::NoStatsFds, Some(&none), closed());
        assert_eq!((entry.method, entry.bpf), (Err("keeps none".to_owned()), closed()));
        let denied = Error::new(ErrorKind::Denied, "it is another's");
        let entry = listed(KEEPS_STATS_FDS, Some(&denied), open());
        let why = || "it is another's".to_owned();
        assert_eq!((entry.method, entry.pread, entry.bpf), (Err(why()), Err(why()), Err(why())));
    }

    fn found(provider: &str) -> FoundTable {
        FoundTable { pid: std::process::id(), comm: "xyzd".to_owned(), provider: provider.into() }
    }

    #[test]
    fn tables_have_their_objects_by_target() {
        let table = TableWriter::new("list-me").expect("there is memory");
        let target = |name| TableSchema::new(Target::from_name(name));
        let add = |path, name| table.add(path, &target(name)).expect("there is room");
        let mut objects = vec![add("/q[0]", "queue"), add("/q[1]", "queue"), add("/d", "disk")];
        // Whatever its memory is called; other tests have tables in this process, too.
        let look = || {
            let found = [found("a-name-of-its-memory")];
            let entries = tables(&found, &Host::default()).expect("there are threads");
            assert!(entries.iter().all(|entry| entry.provider != found[0].provider), "{entries:?}");
            entries.into_iter().filter(|entry| entry.provider == "list-me").collect::<Vec<_>>()
        };
        let entries = look();
        let [entry] = &entries[..] else { panic!("there is one: {entries:?}") };
        let counts: Vec<_> = entry.objects.iter().map(|(name, count)| (&**name, *count)).collect();
        assert_eq!((counts, &entry.refused), (vec![("disk", 1), ("queue", 2)], &None));
        objects.clear();
        assert!(look()[0].objects.is_empty());
    }

    #[test]
    fn tables_that_cannot_be_read_say_why() {
        let refused = |tried: &Tried| ListedTables::new(&found("xyz"), "xyz", tried).refused;
        let readable = |providers| Ok(Readable { objects: Vec::new(), providers, is_all: true });
        assert_eq!(refused(&readable(vec!["xyz".to_owned()])), None);
        assert!(refused(&readable(Vec::new())).is_some_and(|why| why.starts_with("not a table ")));
        assert_eq!(refused(&Err("it is torn".to_owned())), Some("it is torn".to_owned()));
    }
}
