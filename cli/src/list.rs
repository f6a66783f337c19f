//! `vmstrobe list`: the virtual machines and the tables on this host, and how they can be read.
//!
//! Whether one can be read is found out by trying: its descriptors, its tables, are borrowed and
//! given back, and the BPF reader is loaded where it is needed or asked about.
//!
//! Invariant: whatever can be seen is listed, readable or not; processes that may not be looked
//! into are counted on standard error. None at all is an answer, not an error.

use std::collections::BTreeMap;

use serde::Serialize;
use vmstrobe_core::{Object, Provider, Target};
use vmstrobe_providers::{FoundTable, Host, Tables, scan_all_by};
use vmstrobe_server::json;

use crate::args::{ListArgs, Source, When};
use crate::engine::{Setup, bpf_for_reading, hidden_text, name_or_number, say_left_out};
use crate::error::{Result, with_causes};
use crate::out::{Out, say};
use crate::privileges::Needs;
use crate::table::{Align, Table};
use vms::VmEntry;

mod vms;

/// One entry, for programs.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry {
    Vm(VmEntry),
    Table(TableEntry),
}

/// The tables of one provider in one process.
#[derive(Debug, Serialize)]
struct TableEntry {
    pid: u32,
    /// Of the process.
    name: String,
    provider: String,
    /// How many there are of each target.
    objects: BTreeMap<String, usize>,
    readable: bool,
    how: String,
}

/// Lists the virtual machines and the tables.
///
/// # Errors
/// If /proc cannot be read, or the list not be written.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Result<u8> {
    let broker = Needs::of(&Source::default(), When::Auto).leave_to_broker()?;
    let bpf = bpf_for_reading(When::Auto, broker)?;
    let setup = Setup::new(&Source { all: true, ..Source::default() }, bpf, false);
    let found = scan_all_by(&setup.attach.host)?;
    let vms = vms::tried(&found.vms, &setup.attach, setup.bpf(), args.verbose)?;
    let tables = tables(&found.tables, &setup.attach.host)?;
    if let Some(hidden) = hidden_text(&found) {
        say(hidden);
    }
    say_left_out(&found.left_out);
    if args.json {
        let entries = vms.into_iter().map(Entry::Vm).chain(tables.into_iter().map(Entry::Table));
        out.lines([json::text(&entries.collect::<Vec<_>>())])?;
    } else if vms.is_empty() && tables.is_empty() {
        say("no virtual machine and no table of statistics found on this host; `vmstrobe demo` \
             starts one of its own");
    } else {
        out.lines(lines(&vms, &tables, out.width()))?;
    }
    Ok(0)
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
/// are for whoever reads them. A table says itself whose it is; only of one that cannot be read
/// must the name of its memory tell.
///
/// # Errors
/// If the system has no thread to watch a process.
fn tables(found: &[FoundTable], host: &Host) -> Result<Vec<TableEntry>> {
    let mut entries = Vec::new();
    for of_process in found.chunk_by(|a, b| a.pid == b.pid) {
        let tables = Tables::on_host(host.clone())?;
        let tried = tables.attach(of_process[0].pid).and_then(|count| {
            let (objects, providers) = (tables.objects()?, tables.provider_names());
            Ok(Readable { objects, providers, is_all: count >= of_process.len() })
        });
        let tried = tried.map_err(|error| with_causes(&error));
        let process = &of_process[0];
        let entry = |provider| table_entry(process, provider, &tried);
        entries.extend(providers(of_process, &tried).into_iter().map(entry));
    }
    Ok(entries)
}

/// The providers of the tables of one process, each once.
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

/// The tables of that provider in that process.
fn table_entry(process: &FoundTable, provider: &str, tried: &Tried) -> TableEntry {
    let mut objects = BTreeMap::new();
    let its_own = |object: &&Object| object.schema.provider() == provider;
    for object in tried.iter().flat_map(|tried| &tried.objects).filter(its_own) {
        let target: &Target = object.schema.target();
        *objects.entry(target.name().to_owned()).or_default() += 1;
    }
    let (readable, how) = match tried {
        Ok(tried) if tried.providers.iter().any(|name| name == provider) => {
            (true, "mapped".to_owned())
        }
        Ok(_) => (false, "no table of a kind that is known, or just being made".to_owned()),
        Err(why) => (false, why.clone()),
    };
    let FoundTable { pid, comm, .. } = process.clone();
    TableEntry { pid, name: comm, provider: provider.to_owned(), objects, readable, how }
}

/// For people: one table below the other, on a terminal of that width.
fn lines(vms: &[VmEntry], tables: &[TableEntry], width: usize) -> Vec<String> {
    let parts = [
        (!vms.is_empty()).then(|| vms::lines(vms, width)),
        (!tables.is_empty()).then(|| table_table(tables).lines_cut(width)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(&String::new())
}

fn table_table(entries: &[TableEntry]) -> Table {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("PROCESS", Align::Left)
        .column("PROVIDER", Align::Left)
        .column("OBJECTS", Align::Left)
        .column("HOW", Align::Left);
    for entry in entries {
        let counts = entry.objects.iter().map(|(target, count)| format!("{count} {target}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let objects = match (counts.is_empty(), entry.readable) {
            (false, _) => counts,
            (true, true) => "none".to_owned(),
            (true, false) => "-".to_owned(),
        };
        let name = name_or_number(entry.name.clone(), entry.pid);
        let provider = entry.provider.clone();
        let how = how(entry.readable, &entry.how);
        table.row([entry.pid.to_string(), name, provider, objects, how]);
    }
    table
}

fn how(readable: bool, how: &str) -> String {
    if readable { how.to_owned() } else { format!("cannot be read: {how}") }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Error, ErrorKind};
    use vmstrobe_providers::{Access, TableSchema, TableWriter};

    use super::vms::tests::vm;
    use super::*;

    fn found(provider: &str) -> FoundTable {
        FoundTable { pid: std::process::id(), comm: "xyzd".to_owned(), provider: provider.into() }
    }

    #[test]
    fn whether_and_how_it_can_be_read_is_said() {
        let readable = Access::StatsFds { vcpus: 2, vm: false };
        let too_old = Error::new(ErrorKind::Unsupported, "it is too old");
        let closed = Err("it takes CAP_BPF".to_owned());
        let entry =
            |name, access, refused| VmEntry::new(&vm(name, access), refused, &closed, false);
        let vms =
            [entry(Some("web"), readable, None), entry(None, Access::NoStatsFds, Some(&too_old))];
        let tried: Tried = Err("it is torn".to_owned());
        let tables = [table_entry(&FoundTable { pid: 99, ..found("xyz") }, "xyz", &tried)];
        let want = [
            " PID  NAME  VCPUS  HOW",
            "4711  web       2  stats fds of its vCPUs",
            "4711  4711      2  cannot be read: it is too old",
            "",
            "PID  PROCESS  PROVIDER  OBJECTS  HOW",
            " 99  xyzd     xyz       -        cannot be read: it is torn",
        ];
        assert_eq!(lines(&vms, &tables, 80), want);
        assert_eq!(lines(&vms, &[], 80), want[..3]);
        assert_eq!(lines(&[], &tables, 80), want[4..]);
        let [_, vm] = vms;
        let [table] = tables;
        let want = r#"[{"kind": "vm", "pid": 4711, "name": null, "vcpus": 2, "#.to_owned()
            + r#""readable": false, "how": "it is too old"}, "#
            + r#"{"kind": "table", "pid": 99, "name": "xyzd", "provider": "xyz", "objects": {}, "#
            + r#""readable": false, "how": "it is torn"}]"#;
        assert_eq!(json::text(&[Entry::Vm(vm), Entry::Table(table)]), want);
    }

    #[test]
    fn a_table_shows_its_objects_by_target() {
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
        assert_eq!(entries.len(), 1);
        let text = table_table(&entries).lines()[1].clone();
        assert!(text.ends_with("xyzd     list-me   1 disk, 2 queue  mapped"), "{text}");
        let json = json::text(&entries[0]);
        assert!(json.contains(r#""objects": {"disk": 1, "queue": 2}, "readable": true"#), "{json}");
        // A process whose name is not seen goes by its number.
        let pid = std::process::id();
        let blank = TableEntry {
            name: " ".to_owned(),
            ..table_entry(&found("xyz"), "xyz", &Err(String::new()))
        };
        let text = table_table(&[blank]).lines()[1].clone();
        assert!(text.starts_with(&format!("{pid}  {pid}  ")), "{text}");
        objects.clear();
        assert!(look()[0].objects.is_empty());
        // Without objects it is told from one that cannot be read by their number.
        let text = |is_all| {
            let providers = if is_all { vec!["xyz".to_owned()] } else { Vec::new() };
            let tried: Tried = Ok(Readable { objects: Vec::new(), providers, is_all });
            let line = table_table(&[table_entry(&found("xyz"), "xyz", &tried)]).lines()[1].clone();
            line.split_once("xyz ")
                .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(text(true).as_deref(), Some("none mapped"));
        assert!(text(false).is_some_and(|text| text.starts_with("- cannot be read: no table ")));
    }
}
