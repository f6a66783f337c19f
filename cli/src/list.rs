//! `vmstrobe list`: the virtual machines and the tables on this host, and how they can be read.
//!
//! Whether one can be read is found out by trying: its descriptors, its tables, are borrowed and
//! given back, and the kernel-side tick is loaded where it is needed or asked about.
//!
//! Invariant: whatever can be seen is listed, readable or not; processes that may not be looked
//! into are counted on standard error. None at all is an answer, not an error.

use std::collections::BTreeMap;

use serde::Serialize;
use vmstrobe_core::{Object, Provider, Target};
use vmstrobe_providers::{Borrowed, FoundTable, Reaper, Tables, scan_all, scan_tables};
use vmstrobe_server::json;

use crate::args::{ListArgs, Source, When};
use crate::engine::{accel_for_reading, hidden_text};
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

/// What one process publishes of one provider.
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

/// Lists them.
///
/// # Errors
/// If /proc cannot be read, or the list not be written.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Result<u8> {
    Needs::of(&Source::default(), When::Auto).keep_only();
    let found = scan_all()?;
    let accel = accel_for_reading(When::Auto)?;
    let kvm = Borrowed::with_accel(Reaper::new()?, accel.clone())?;
    let mut vms = Vec::new();
    for vm in &found.vms {
        // Of several virtual machines in one process, the first attaches all.
        let refused = kvm.attach(vm.pid).err();
        let kernel_side = vms::kernel_side(&accel, args.verbose);
        vms.push(VmEntry::new(vm, refused.as_ref(), &kernel_side, args.verbose));
    }
    let tables = tables(&scan_tables()?)?;
    if let Some(hidden) = hidden_text(&found) {
        say(hidden);
    }
    if args.json {
        let entries = vms.into_iter().map(Entry::Vm).chain(tables.into_iter().map(Entry::Table));
        out.lines([json::text(&entries.collect::<Vec<_>>())])?;
    } else if vms.is_empty() && tables.is_empty() {
        say("no virtual machine and no table of statistics found on this host; `vmstrobe demo` \
             starts one of its own");
    } else {
        out.lines(lines(&vms, &tables))?;
    }
    Ok(0)
}

/// What became of the tables of one process.
type Tried = std::result::Result<Readable, String>;

/// Those that could be read.
struct Readable {
    objects: Vec<Object>,
    /// All there are.
    is_all: bool,
}

/// Tries the tables of each process. Several of one provider in a process are one entry, as they
/// are for whoever reads them.
///
/// # Errors
/// If the system has no thread to watch a process.
fn tables(found: &[FoundTable]) -> Result<Vec<TableEntry>> {
    let mut entries = Vec::new();
    for of_process in found.chunk_by(|a, b| a.pid == b.pid) {
        let tables = Tables::new()?;
        let tried = tables.attach(of_process[0].pid).and_then(|count| {
            let objects = tables.objects()?;
            Ok(Readable { objects, is_all: count >= of_process.len() })
        });
        let tried = tried.map_err(|error| with_causes(&error));
        let mut seen: Vec<&str> = Vec::new();
        for table in of_process {
            if !seen.contains(&&*table.provider) {
                seen.push(&table.provider);
                entries.push(table_entry(table, &tried));
            }
        }
    }
    Ok(entries)
}

fn table_entry(table: &FoundTable, tried: &Tried) -> TableEntry {
    let mut objects = BTreeMap::new();
    let its_own = |object: &&Object| {
        // As it was found: harmless to a terminal.
        object.schema.provider().escape_debug().to_string() == table.provider
    };
    for object in tried.iter().flat_map(|tried| &tried.objects).filter(its_own) {
        let target: &Target = object.schema.target();
        *objects.entry(target.name().to_owned()).or_default() += 1;
    }
    let (readable, how) = match tried {
        Ok(tried) if tried.is_all || !objects.is_empty() => (true, "mapped".to_owned()),
        Ok(_) => (false, "no table of a kind that is known, or just being made".to_owned()),
        Err(why) => (false, why.clone()),
    };
    let FoundTable { pid, comm, provider } = table.clone();
    TableEntry { pid, name: comm, provider, objects, readable, how }
}

/// For people: one table below the other.
fn lines(vms: &[VmEntry], tables: &[TableEntry]) -> Vec<String> {
    let parts = [
        (!vms.is_empty()).then(|| vms::lines(vms)),
        (!tables.is_empty()).then(|| table_table(tables).lines()),
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
        let (name, provider) = (entry.name.clone(), entry.provider.clone());
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
        let tables = [table_entry(&FoundTable { pid: 99, ..found("xyz") }, &tried)];
        let want = [
            " PID  NAME  VCPUS  HOW",
            "4711  web       2  stats fds of its vCPUs",
            "4711  -         2  cannot be read: it is too old",
            "",
            "PID  PROCESS  PROVIDER  OBJECTS  HOW",
            " 99  xyzd     xyz       -        cannot be read: it is torn",
        ];
        assert_eq!(lines(&vms, &tables), want);
        assert_eq!(lines(&vms, &[]), want[..3]);
        assert_eq!(lines(&[], &tables), want[4..]);
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
        let look = || {
            let found = [found("list-me"), found("list-me"), found("someone-else")];
            tables(&found).expect("there are threads")
        };
        let entries = look();
        assert_eq!(entries.len(), 2);
        let text = table_table(&entries).lines()[1].clone();
        assert!(text.ends_with("xyzd     list-me       1 disk, 2 queue  mapped"), "{text}");
        let json = json::text(&entries[0]);
        assert!(json.contains(r#""objects": {"disk": 1, "queue": 2}, "readable": true"#), "{json}");
        objects.clear();
        assert!(look()[0].objects.is_empty());
        // Without objects it is told from one that cannot be read by their number.
        let text = |is_all| {
            let tried: Tried = Ok(Readable { objects: Vec::new(), is_all });
            let line = table_table(&[table_entry(&found("xyz"), &tried)]).lines()[1].clone();
            line.split_once("xyz ")
                .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(text(true).as_deref(), Some("none mapped"));
        assert!(text(false).is_some_and(|text| text.starts_with("- cannot be read: no table ")));
    }
}
