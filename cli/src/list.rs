//! `vmstrobe list`: the virtual machines and the tables on this host, and how they can be read.
//!
//! Invariant: every VM and table that was found is listed, readable or not. Processes that may not
//! be examined are counted on standard error. An empty list is no error.

use std::collections::BTreeMap;

use serde::Serialize;
use vmstrobe::json;
use vmstrobe::{ListedTables, name_or_number};

use crate::args::{BpfWhen, ListArgs, SourceArgs};
use crate::attach;
use crate::error::Result;
use crate::messages::of_left_out;
use crate::out::{Out, say, say_each};
use crate::privileges::Needs;
use crate::table::{Align, Table};
use vms::VmEntry;

mod vms;

/// One entry of the JSON array. docs/json.md has the fields.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry<'a> {
    Vm(VmEntry<'a>),
    Table(TableEntry<'a>),
}

/// The tables of one provider in one process.
#[derive(Debug, Serialize)]
struct TableEntry<'a> {
    pid: u32,
    /// The name of the process.
    name: &'a str,
    provider: &'a str,
    /// The number of objects of each target.
    objects: &'a BTreeMap<String, usize>,
    readable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> From<&'a ListedTables> for TableEntry<'a> {
    fn from(tables: &'a ListedTables) -> Self {
        let ListedTables { pid, comm, provider, objects, refused, .. } = tables;
        let (readable, reason) = (refused.is_none(), refused.as_deref());
        Self { pid: *pid, name: comm, provider, objects, readable, reason }
    }
}

/// Lists the virtual machines and the tables.
///
/// # Errors
/// If /proc cannot be read, or the list cannot be written.
pub(crate) fn run(args: &ListArgs, out: &mut Out) -> Result<u8> {
    let broker = Needs::of(&SourceArgs::default(), BpfWhen::Auto).move_to_broker()?;
    let bpf = attach::bpf_for_reading(BpfWhen::Auto, broker)?;
    let listing =
        vmstrobe::list(&attach::options(&SourceArgs::default(), bpf, false), args.verbose)?;
    listing.hidden.iter().for_each(say);
    say_each(of_left_out(&listing.left_out));
    if args.json {
        let vms = listing.vms.iter().map(|vm| Entry::Vm(VmEntry::new(vm, args.verbose)));
        let tables = listing.tables.iter().map(|tables| Entry::Table(tables.into()));
        out.lines([json::text(&vms.chain(tables).collect::<Vec<_>>())])?;
    } else if listing.vms.is_empty() && listing.tables.is_empty() {
        say("no virtual machine and no table of statistics found on this host; `vmstrobe demo` \
             starts one of its own");
    } else {
        let width = out.width();
        let (vms, tables) = (&listing.vms, &listing.tables);
        let parts = [
            (!vms.is_empty()).then(|| vms::lines(vms, args.verbose, width)),
            (!tables.is_empty()).then(|| tables_table(tables).lines_fitting(width)),
        ];
        out.lines(parts.into_iter().flatten().collect::<Vec<_>>().join(&String::new()))?;
    }
    Ok(0)
}

fn tables_table(tables: &[ListedTables]) -> Table {
    let mut table = Table::new()
        .column("PID", Align::Right)
        .column("PROCESS", Align::Left)
        .column("PROVIDER", Align::Left)
        .column("OBJECTS", Align::Left)
        .column("HOW", Align::Left);
    for tables in tables {
        let counts = tables.objects.iter().map(|(target, count)| format!("{count} {target}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let objects = match (counts.is_empty(), &tables.refused) {
            (false, _) => counts,
            (true, None) => "none".to_owned(),
            (true, Some(_)) => "-".to_owned(),
        };
        let name = name_or_number(tables.comm.clone(), tables.pid);
        let how = how(tables.refused.as_ref().map_or(Ok("mapped"), Err));
        table.row([tables.pid.to_string(), name, tables.provider.clone(), objects, how]);
    }
    table
}

/// Describes the method of reading, or why there is none.
fn how(how: std::result::Result<&str, &String>) -> String {
    how.map_or_else(|why| format!("cannot be read: {why}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(comm: &str, objects: &[(&str, usize)], refused: Option<&str>) -> ListedTables {
        let objects = objects.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (comm, refused) = (comm.to_owned(), refused.map(str::to_owned));
        ListedTables { pid: 99, comm, provider: "xyz".to_owned(), objects, refused }
    }

    #[test]
    fn a_table_is_listed_with_its_objects_or_the_reason_for_none() {
        let lines = |tables| tables_table(&[tables]).lines();
        let want = [
            "PID  PROCESS  PROVIDER  OBJECTS          HOW",
            " 99  xyzd     xyz       1 disk, 2 queue  mapped",
        ];
        assert_eq!(lines(tables("xyzd", &[("disk", 1), ("queue", 2)], None)), want);
        let none = lines(tables("xyzd", &[], None)).remove(1);
        assert!(none.ends_with("xyz       none     mapped"), "{none}");
        let torn = lines(tables("xyzd", &[], Some("it is torn"))).remove(1);
        assert!(torn.ends_with("xyz       -        cannot be read: it is torn"), "{torn}");
        // A process whose name cannot be read is listed by its id.
        let blank = lines(tables(" ", &[], None)).remove(1);
        assert!(blank.starts_with(" 99  99       xyz"), "{blank}");
    }

    #[test]
    fn json_of_tables() {
        let json = |tables: &ListedTables| json::text(&Entry::Table(tables.into()));
        let head = r#"{"kind": "table", "pid": 99, "name": "xyzd", "provider": "xyz", "objects": "#;
        let want = format!(r#"{head}{{"disk": 1}}, "readable": true}}"#);
        assert_eq!(json(&tables("xyzd", &[("disk", 1)], None)), want);
        let want = format!(r#"{head}{{}}, "readable": false, "reason": "it is torn"}}"#);
        assert_eq!(json(&tables("xyzd", &[], Some("it is torn"))), want);
    }
}
