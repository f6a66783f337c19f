//! The fields of all that `--json` prints, held against docs/json.md: each that is printed stands
//! there, and each that stands there is printed, with a type that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_kvm, require_lending_qemu, require_older_qemu};

use super::extremes::Tables;
use super::tables::queue_stats;
use crate::{json, paused_qemu, require_root, under, vmstrobe};

/// Each field with the types of its values.
type Fields = BTreeMap<String, BTreeSet<&'static str>>;

/// The fields of that command, each with the text of its type.
fn documented(command: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let text = fs::read_to_string(path).expect("it is there");
    let heading = format!("`vmstrobe {command} --json`\n");
    let section = text.split("\n## ").find(|section| section.starts_with(&heading));
    let section = section.unwrap_or_else(|| panic!("there is no section {heading}"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let [field, of_type, _] = cells[..] else { panic!("three cells: {line}") };
        let field = field.strip_suffix('`').expect("it is code");
        Some((field.to_owned(), of_type.to_owned()))
    };
    section.lines().filter_map(row).collect()
}

/// Notes the fields of a value and of all that is in it.
fn note(fields: &mut Fields, field: &str, value: &Json) {
    let of_type = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "list",
        Json::Object(_) => "object",
    };
    fields.entry(field.to_owned()).or_default().insert(of_type);
    match value {
        Json::Array(items) => {
            items.iter().for_each(|item| note(fields, &format!("{field}[]"), item));
        }
        Json::Object(members) => {
            for (name, value) in members {
                // Their names are those of targets.
                let name = if field == "[].objects" { "*" } else { name };
                let dot = if field.is_empty() { "" } else { "." };
                note(fields, &format!("{field}{dot}{name}"), value);
            }
        }
        _ => {}
    }
}

/// Holds what a command prints against what is documented of it.
#[track_caller]
fn check(command: &str, outputs: &[String]) {
    let mut printed = Fields::new();
    let texts = outputs.iter().flat_map(|output| output.lines());
    texts.for_each(|text| note(&mut printed, "", &json(text)));
    // The text itself, and what lists of plain values consist of.
    printed.retain(|field, _| !field.is_empty() && !field.ends_with("[]"));
    let documented = documented(command);
    let printed_fields: Vec<&String> = printed.keys().collect();
    let documented_fields: Vec<&String> = documented.keys().collect();
    assert_eq!(printed_fields, documented_fields, "printed and documented of {command}");
    for (field, types) in &printed {
        let text = &documented[field];
        for of_type in types {
            let named = match *of_type {
                // Only what is true is printed at all.
                "boolean" => text.contains("boolean") || text == "`true`",
                // A whole number is a number.
                "integer" => text.contains("integer") || text.contains("number"),
                other => text.contains(other),
            };
            assert!(named, "{command}: {field} is {text}, and was printed as {of_type}");
        }
    }
}

#[test]
fn of_stat() {
    if !require_kvm() {
        return;
    }
    let tables = Tables::new();
    let demo = ["stat", "--demo", "-d", "200ms", "--json", "--bpf", "off"];
    let outputs = [
        // All kinds grow, and are set back; of each and of all.
        tables.stat(&tables.extremes, &["--json"]).stdout,
        tables.stat(&tables.zeros, &["--json", "--per-vcpu"]).stdout,
        vmstrobe(&demo).stdout,
    ];
    check("stat", &outputs);
    // The clock on the wall is the tests' own.
    let report = json(outputs[2].trim_end());
    let since_1970 = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_nanos() as i128;
    let age_ns = since_1970 - i128::from(report["begin_wall_ns"].as_u64().expect("it is one"));
    assert!((200_000_000..60_000_000_000).contains(&age_ns), "{age_ns} ns ago");
    let text = vmstrobe(&["stat", "--demo", "-d", "100ms"]).stdout;
    let began = text.lines().find_map(|line| line.strip_prefix(" began "));
    assert!(began.is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{text}");
}

#[test]
fn of_demo() {
    if !require_kvm() {
        return;
    }
    check("demo", &[vmstrobe(&["demo", "-d", "200ms", "--json", "--bpf", "off"]).stdout]);
}

#[test]
fn of_query_and_schema() {
    let tables = Tables::new();
    tables.fill(&tables.extremes);
    for command in ["query", "schema"] {
        check(command, &[vmstrobe(&[command, "--table", &tables.path, "--json"]).stdout]);
    }
}

#[test]
fn of_list() {
    if !require_lending_qemu() || !require_older_qemu() || !require_root() {
        return;
    }
    let _qemu = paused_qemu("documented", 1);
    // Without the rights for BPF, this one cannot be read.
    let config = Config { name: "unread", paused: true, ..Config::default() };
    let _older = Qemu::start_older(&config);
    let _table = queue_stats();
    let without_bpf = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"];
    let list = ["list", "-v", "--json"];
    check("list", &[vmstrobe(&list).stdout, under(&without_bpf, &list).stdout]);
}
