//! The fields of all that `--json` prints, held against docs/json.md: each that is printed stands
//! there, and each that stands there is printed, with a type that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use vmstrobe_tests::command::spawn_unread;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{require_kvm, require_lending_qemu, require_older_qemu};
use vmstrobe_tests::rig::wait_for;

use super::extremes::Tables;
use super::report::Files;
use super::tables::queue_stats;
use super::usage::COMMANDS;
use crate::{LIMIT, json, paused_qemu, require_root, under, vmstrobe};

/// Each field with the types of its values.
type Fields = BTreeMap<String, BTreeSet<&'static str>>;

/// Returns the sections of docs/json.md, by command, each with its text.
fn sections() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let text = fs::read_to_string(path).expect("the page can be read");
    let section = |text: &str| {
        let (heading, text) = text.split_once('\n')?;
        let command = heading.strip_prefix("`vmstrobe ")?.strip_suffix(" --json`")?;
        Some((command.to_owned(), text.to_owned()))
    };
    text.split("\n## ").filter_map(section).collect()
}

/// Returns the fields that a section documents, each with the text of its type.
fn documented(section: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let [field, of_type, _] = cells[..] else { panic!("three cells: {line}") };
        let field = field.strip_suffix('`').expect("a field is written as code");
        Some((field.to_owned(), of_type.to_owned()))
    };
    section.lines().filter_map(row).collect()
}

/// Records the fields of a value and of all values in it.
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
                // The names of these fields are those of targets.
                let name = if field == "[].objects" { "*" } else { name };
                let dot = if field.is_empty() { "" } else { "." };
                note(fields, &format!("{field}{dot}{name}"), value);
            }
        }
        _ => {}
    }
}

/// Returns the fields of these outputs, each a JSON text per line.
fn printed(outputs: &[String]) -> Fields {
    let mut printed = Fields::new();
    let texts = outputs.iter().flat_map(|output| output.lines());
    texts.for_each(|text| note(&mut printed, "", &json(text)));
    // Neither the text itself, nor the elements of lists of plain values, are fields.
    printed.retain(|field, _| !field.is_empty() && !field.ends_with("[]"));
    printed
}

/// Returns the differences between the printed fields and the documented ones.
fn differences(printed: &Fields, documented: &BTreeMap<String, String>) -> Vec<String> {
    let unprinted = documented.keys().filter(|field| !printed.contains_key(*field));
    let mut found: Vec<String> = unprinted.map(|field| format!("{field} is not printed")).collect();
    for (field, types) in printed {
        let Some(text) = documented.get(field) else {
            found.push(format!("{field} is not documented"));
            continue;
        };
        let is_named = |of_type: &str| match of_type {
            // Only a boolean that is true is printed at all.
            "boolean" => text.contains("boolean") || text == "`true`",
            // A whole number is a number.
            "integer" => text.contains("integer") || text.contains("number"),
            other => text.contains(other),
        };
        let wrong = types.iter().filter(|of_type| !is_named(of_type));
        found
            .extend(wrong.map(|of_type| format!("{field} is {text}, and is printed as {of_type}")));
    }
    found
}

/// Compares the outputs of a command with its section of docs/json.md.
#[track_caller]
fn check(command: &str, outputs: &[String]) {
    let sections = sections();
    let section = sections.get(command).expect("the command has a section in docs/json.md");
    let found = differences(&printed(outputs), &documented(section));
    assert!(found.is_empty(), "{command}: {found:#?}");
}

#[test]
fn each_command_that_prints_json_has_a_section() {
    let prints_json = |command: &&&[&str]| {
        let help = vmstrobe(&[**command, &["-h"]].concat()).stdout;
        help.lines().any(|line| line.trim_start().starts_with("--json"))
    };
    let commands = COMMANDS.iter().filter(prints_json).map(|words| words.join(" "));
    let documented: Vec<String> = sections().into_keys().collect();
    assert_eq!(commands.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), documented);
}

#[test]
fn each_difference_of_page_and_output_is_seen() {
    let page = "| field | type | meaning |\n|---|---|---|\n| `a` | integer | A number. |\n\
                | `b` | list | A list. |\n| `b[].c` | string or null | A text. |\n";
    for (output, want) in [
        (r#"{"a": 1, "b": [{"c": "x"}, {"c": null}]}"#, &[][..]),
        (r#"{"a": 1, "b": []}"#, &["b[].c is not printed"]),
        (r#"{"a": 1, "b": [{"c": "x", "d": 2}]}"#, &["b[].d is not documented"]),
        (r#"{"a": 1.5, "b": [{"c": "x"}]}"#, &["a is integer, and is printed as number"]),
    ] {
        assert_eq!(differences(&printed(&[output.to_owned()]), &documented(page)), want);
    }
}

/// A flight recorder of the demo's guest, and where it listens.
fn flight_recorder(directory: &Path) -> (Reaped, String) {
    let control = directory.join("control").display().to_string();
    let output = directory.join("run.arrows").display().to_string();
    let line = ["record", "--demo", "--last", "10s", "--control", &control, "-o", &output];
    let recorder = spawn_unread(&line);
    wait_for("it listens", LIMIT, || Qmp::connect(Path::new(&control)).is_ok());
    (recorder, control)
}

/// Returns what `stat` prints of a recording with a mark.
fn marked_replay() -> String {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (_recorder, control) = flight_recorder(directory.path());
    assert_eq!(vmstrobe(&["mark", "--control", &control, "a"]).code, Some(0));
    let dumped = vmstrobe(&["dump", "--control", &control, "--json"]);
    let files = json(&dumped.stdout);
    let path = files[0]["path"].as_str().expect("there is a file");
    vmstrobe(&["stat", "--json", "--replay", path]).stdout
}

#[test]
fn the_fields_of_recorders_are_documented() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (_recorder, control) = flight_recorder(directory.path());
    let by_control = vmstrobe(&["mark", "--control", &control, "--json", "a"]);
    // In the usual place, a recorder is told by its process id.
    let output = directory.path().join("other.arrows").display().to_string();
    let other = spawn_unread(&["record", "--demo", "--last", "10s", "-o", &output]);
    let (pid, mut by_pid) = (other.id().to_string(), String::new());
    wait_for("it listens", LIMIT, || {
        by_pid = vmstrobe(&["mark", "-p", &pid, "--json", "a"]).stdout;
        !by_pid.is_empty()
    });
    assert_eq!(json(&by_pid)["pid"], other.id());
    check("mark", &[by_control.stdout, by_pid]);
    let dumped = vmstrobe(&["dump", "--control", &control, "--json"]);
    let files = json(&dumped.stdout);
    let path = files[0]["path"].as_str().expect("there is a file").to_owned();
    assert_eq!(files[0]["bytes"], fs::metadata(&path).expect("it is there").len());
    check("dump", &[dumped.stdout]);
    let dry_run =
        |when: &str| vmstrobe(&["record", "--dry-run", &path, "--json", "--when", when]).stdout;
    let conditions = ["exits.rate > 1", "sum halt_wait_ns.delta >= 0", "sum exits.value >= 0"];
    check("record", &conditions.map(dry_run));
}

#[test]
fn the_fields_of_stat_are_documented() {
    if !require_kvm() {
        return;
    }
    let tables = Tables::new();
    let demo = ["stat", "--demo", "-d", "200ms", "--json", "--bpf", "off"];
    let outputs = [
        // Statistics of all kinds grow and are reset, for each object and in sums.
        tables.stat(&tables.extremes, &["--json"]).stdout,
        tables.stat(&tables.zeros, &["--json", "--per-vcpu"]).stdout,
        vmstrobe(&demo).stdout,
        marked_replay(),
    ];
    check("stat", &outputs);
    // The tests have the same wall clock as the command.
    let report = json(outputs[2].trim_end());
    let since_1970 =
        std::time::UNIX_EPOCH.elapsed().expect("the clock is after 1970").as_nanos() as i128;
    let age_ns =
        since_1970 - i128::from(report["begin_wall_ns"].as_u64().expect("the value is an integer"));
    assert!((200_000_000..60_000_000_000).contains(&age_ns), "{age_ns} ns ago");
    let text = vmstrobe(&["stat", "--demo", "-d", "100ms"]).stdout;
    let began = text.lines().find_map(|line| line.strip_prefix(" began "));
    assert!(began.is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{text}");
}

#[test]
fn the_fields_of_report_are_documented() {
    let Some(files) = Files::new() else { return };
    let tables = Tables::new();
    let report = |args: &[&str]| vmstrobe(&[&["report", "--json"], args].concat()).stdout;
    check(
        "report",
        &[
            // Statistics of all kinds grow and are reset.
            tables.measure("report", &tables.extremes, &["--json"]).stdout,
            tables.measure("report", &tables.zeros, &["--json"]).stdout,
            report(&["--demo", "-d", "1200ms", "--bpf", "off"]),
            report(&[&files.run, &files.torn]),
            report(&[&files.damaged, &files.run, "--names", "exits"]),
        ],
    );
}

#[test]
fn the_fields_of_demo_are_documented() {
    if !require_kvm() {
        return;
    }
    check("demo", &[vmstrobe(&["demo", "-d", "200ms", "--json", "--bpf", "off"]).stdout]);
}

#[test]
fn the_fields_of_query_and_schema_are_documented() {
    let tables = Tables::new();
    tables.fill(&tables.extremes);
    for command in ["query", "schema"] {
        check(command, &[vmstrobe(&[command, "--table", &tables.path, "--json"]).stdout]);
    }
}

#[test]
fn the_fields_of_list_are_documented() {
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
