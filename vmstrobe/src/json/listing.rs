//! The JSON of the virtual machines and tables of this host: a list with an element for each.
//!
//! Invariant: the methods of reading a virtual machine are listed only if all of them were tried.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use vmstrobe_host::Access;

use crate::listing::{ListedTables, ListedVm, Listing};
use crate::read_status::ReadMethod;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Entry<'a> {
    Vm(VmEntry<'a>),
    Table(TableEntry<'a>),
}

#[derive(Serialize)]
struct VmEntry<'a> {
    pid: u32,
    name: Option<&'a str>,
    vcpus: usize,
    readable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    stats_fds: StatsFds,
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<[MethodEntry<'a>; 2]>,
}

/// The stats fds that its VMM keeps open.
#[derive(Serialize)]
struct StatsFds {
    vcpus: usize,
    vm: bool,
}

#[derive(Serialize)]
struct MethodEntry<'a> {
    method: &'static str,
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// The tables of one provider in one process.
#[derive(Serialize)]
struct TableEntry<'a> {
    pid: u32,
    name: &'a str,
    provider: &'a str,
    objects: &'a BTreeMap<String, usize>,
    readable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let vms = self.vms.iter().map(|vm| Entry::Vm(VmEntry::new(vm, self.is_bpf_tested)));
        let tables = self.tables.iter().map(|tables| Entry::Table(TableEntry::new(tables)));
        serializer.collect_seq(vms.chain(tables))
    }
}

impl<'a> VmEntry<'a> {
    /// Returns the entry of a virtual machine, with all methods if they were tried.
    fn new(listed: &'a ListedVm, has_methods: bool) -> Self {
        let ListedVm { vm, method, pread, bpf, .. } = listed;
        let stats_fds = match vm.access {
            Access::StatsFds { vcpus, vm } => StatsFds { vcpus, vm },
            _ => StatsFds { vcpus: 0, vm: false },
        };
        let methods = [
            MethodEntry {
                method: ReadMethod::Pread.name(),
                open: pread.is_ok(),
                instructions: None,
                reason: pread.as_ref().err().map(String::as_str),
            },
            MethodEntry {
                method: ReadMethod::Bpf.name(),
                open: bpf.is_ok(),
                instructions: bpf.as_deref().ok(),
                reason: bpf.as_ref().err().map(String::as_str),
            },
        ];
        Self {
            pid: vm.pid,
            name: vm.name.as_deref(),
            vcpus: vm.vcpus,
            readable: method.is_ok(),
            method: method.as_ref().ok().map(|method| method.name()),
            reason: method.as_ref().err().map(String::as_str),
            stats_fds,
            methods: has_methods.then_some(methods),
        }
    }
}

impl<'a> TableEntry<'a> {
    fn new(tables: &'a ListedTables) -> Self {
        let ListedTables { pid, comm, provider, objects, refused, .. } = tables;
        let (readable, reason) = (refused.is_none(), refused.as_deref());
        Self { pid: *pid, name: comm, provider, objects, readable, reason }
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_host::VmInfo;

    use super::super::text;
    use super::*;

    fn listed(
        access: Access,
        method: Result<ReadMethod, &str>,
        pread: Result<(), &str>,
    ) -> ListedVm {
        let vm = VmInfo { pid: 4711, name: None, start_time_ticks: 1, uid: 0, vcpus: 2, access };
        let (method, pread) = (method.map_err(str::to_owned), pread.map_err(str::to_owned));
        ListedVm { vm, method, pread, bpf: Ok("may_goto, rdonly_cast".to_owned()) }
    }

    fn old() -> ListedVm {
        listed(Access::NoStatsFds, Ok(ReadMethod::Bpf), Err("its VMM keeps none"))
    }

    fn json(vms: Vec<ListedVm>, is_bpf_tested: bool) -> String {
        text(&Listing { vms, is_bpf_tested, ..Listing::default() })
    }

    #[test]
    fn a_virtual_machine_has_its_methods_if_they_were_tried() {
        let head = r#"[{"kind": "vm", "pid": 4711, "name": null, "vcpus": 2, "#;
        let want = r#""readable": true, "method": "bpf", "stats_fds": {"vcpus": 0, "vm": false}}]"#;
        assert_eq!(json(vec![old()], false), format!("{head}{want}"));
        let refused = listed(Access::NoStatsFds, Err("it is too old"), Ok(()));
        let text = json(vec![refused], false);
        assert!(text.contains(r#""readable": false, "reason": "it is too old", "#), "{text}");
        let keeps = Access::StatsFds { vcpus: 2, vm: false };
        let text = json(vec![listed(keeps, Ok(ReadMethod::Pread), Ok(()))], true);
        let want =
            r#""readable": true, "method": "pread", "stats_fds": {"vcpus": 2, "vm": false}, "#
                .to_owned()
                + r#""methods": [{"method": "pread", "open": true}, "#
                + r#"{"method": "bpf", "open": true, "instructions": "may_goto, rdonly_cast"}]}]"#;
        assert!(text.ends_with(&want), "{text}");
        let text = json(vec![old()], true);
        assert!(text.contains(r#""open": false, "reason": "its VMM keeps none"}"#), "{text}");
    }

    #[test]
    fn tables_have_their_objects_or_the_reason_for_none() {
        let json = |objects: &[(&str, usize)], refused: Option<&str>| {
            let objects = objects.iter().map(|(name, count)| ((*name).to_owned(), *count));
            let tables = ListedTables {
                pid: 99,
                comm: "xyzd".to_owned(),
                provider: "xyz".to_owned(),
                objects: objects.collect(),
                refused: refused.map(str::to_owned),
            };
            text(&Listing { tables: vec![tables], ..Listing::default() })
        };
        let head =
            r#"[{"kind": "table", "pid": 99, "name": "xyzd", "provider": "xyz", "objects": "#;
        assert_eq!(
            json(&[("disk", 1)], None),
            format!(r#"{head}{{"disk": 1}}, "readable": true}}]"#)
        );
        let want = format!(r#"{head}{{}}, "readable": false, "reason": "it is torn"}}]"#);
        assert_eq!(json(&[], Some("it is torn")), want);
        assert_eq!(text(&Listing::default()), "[]");
    }
}
