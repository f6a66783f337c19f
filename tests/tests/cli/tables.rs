//! Tables: of a process that is named, found, or the only one; in a file; received over a socket.
//! Checked are the default target, and the messages if nothing can be read.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe::fd_server::FdServer;
use vmstrobe::table::{TableConfig, TableObject, TableSchema, TableWriter};
use vmstrobe_core::Target;
use vmstrobe_tests::command::{example, spawn};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::terminal::{COLUMNS, on_terminal};

use super::attach::alone;
use super::same::list;
use crate::{LIMIT, Nobody, fine, json as parsed, require_root, says, vmstrobe};

/// A program of the workspace that publishes the statistics of `/xyz/queue[0]`, and its pid.
pub(crate) fn queue_stats() -> (Reaped, String) {
    let child = Command::new(example("queue_stats"))
        .args(["--seconds", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program can be executed");
    let child = Reaped(child);
    let pid = child.id().to_string();
    // The queue appears a moment after its table.
    wait_for("the table has a queue", LIMIT, || listed(&pid)["objects"] == json!({"queue": 1}));
    (child, pid)
}

/// Returns the entry of that process's table; null if there is none.
fn listed(pid: &str) -> Json {
    let entries = parsed(&vmstrobe(&["list", "--json"]).stdout);
    let pid: u32 = pid.parse().expect("the text is a number");
    let is_it = |entry: &&Json| entry["kind"] == "table" && entry["pid"] == pid;
    list(&entries).iter().find(is_it).cloned().unwrap_or_default()
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("there is a tmpfs at that path")
}

/// Makes queues in a table, one for each count.
pub(crate) fn queues(table: &TableWriter, counts: &[u64]) -> Vec<TableObject> {
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let requests = schema.counter("requests");
    let add = |(at, &count): (usize, &u64)| {
        let queue =
            table.add(&format!("/xyz/queue[{at}]"), &schema).expect("the table has a free slot");
        queue.get(requests).add(count);
        queue
    };
    counts.iter().enumerate().map(add).collect()
}

/// Returns the `--json` output for queues with these counts.
fn queues_json(counts: &[u64]) -> Json {
    let queue = |(at, count): (usize, &u64)| {
        let stats = json!([{"name": "requests", "value": count}]);
        json!({"provider": "xyz", "qom-path": format!("/xyz/queue[{at}]"), "stats": stats})
    };
    counts.iter().enumerate().map(queue).collect()
}

#[test]
fn a_process_with_a_table_is_listed_and_read() {
    let (_program, pid) = queue_stats();
    let want = json!({
        "kind": "table", "pid": pid.parse::<u32>().expect("a number"), "name": "queue_stats",
        "provider": "xyz", "objects": {"queue": 1}, "readable": true,
    });
    assert_eq!(listed(&pid), want);
    let output = vmstrobe(&["list"]);
    let line = output.stdout.lines().find(|line| line.trim_start().starts_with(&pid));
    let words: Vec<&str> = line.expect("the list has the entry").split_whitespace().collect();
    assert_eq!(words, [&*pid, "queue_stats", "xyz", "1", "queue", "mapped"]);
    let heads = ["PID", "PROCESS", "PROVIDER", "OBJECTS", "HOW"];
    let is_head = |line: &str| line.split_whitespace().eq(heads);
    assert!(output.stdout.lines().any(is_head), "{output:?}");

    // The only target is the default, for each source.
    for wanted in [&[][..], &["--target", "queue"], &["--provider", "xyz"]] {
        let output = vmstrobe(&[&["query", "-p", &pid, "-z"], wanted].concat());
        fine(&output);
        let head: Vec<&str> =
            output.stdout.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head, ["/xyz", "queue[0]"], "{wanted:?}");
        assert!(output.stdout.contains("\nrequests "), "{output:?}");
    }
    let info = vmstrobe(&["info", "stats", "queue", "requests", "xyz", "-p", &pid]);
    assert!(info.stdout.starts_with("    requests (cumulative): "), "{info:?}");
    let schema = vmstrobe(&["schema", "-p", &pid]);
    fine(&schema);
    assert!(schema.stdout.starts_with("xyz queue: "), "{schema:?}");
    let stat = vmstrobe(&["stat", "-p", &pid, "-d", "300ms"]);
    fine(&stat);
    assert!(stat.stdout.starts_with("\n /xyz/queue[0], 1 queue over "), "{stat:?}");

    let only = "there are no objects of target 'vcpu' here, only of queue";
    says(&vmstrobe(&["query", "-p", &pid, "--target", "vcpu"]), 1, &[only]);
    let only = "there is no provider 'zyx' here, only vmstrobe and xyz";
    says(&vmstrobe(&["query", "-p", &pid, "--provider", "zyx"]), 1, &[only]);
}

#[test]
fn a_demo_can_be_watched_from_another_shell() {
    if !require_kvm() {
        return;
    }
    let demo = spawn(&["demo", "-d", "60s", "--vcpus", "2", "--json"]);
    let pid = demo.id().to_string();
    wait_for("its device is listed", LIMIT, || listed(&pid)["objects"] == json!({"cryptodev": 1}));
    let query = |wanted: &[&str]| {
        let output = vmstrobe(&[&["query", "--json", "-p", &pid], wanted].concat());
        fine(&output);
        parsed(&output.stdout)
    };
    let devices = query(&["--target", "cryptodev"]);
    assert_eq!(devices[0]["qom-path"], "/objects/crypto0");
    let names: Vec<_> = list(&devices[0]["stats"]).iter().map(|s| &s["name"]).collect();
    let four = ["sym-encrypt-ops", "sym-decrypt-ops", "sym-encrypt-bytes", "sym-decrypt-bytes"];
    assert_eq!(names, four);
    // There are vCPUs, so the default target is vcpu.
    let vcpus = query(&["--names", "exits"]);
    assert_eq!(vcpus.as_array().map(Vec::len), Some(2), "{vcpus}");
    assert_eq!(query(&["--provider", "cryptodev"])[0]["qom-path"], "/objects/crypto0");
    let stat = ["stat", "-p", &pid, "--provider", "cryptodev", "-d", "500ms", "--json"];
    let output = vmstrobe(&stat);
    fine(&output);
    let moved = |stat: &Json| stat["delta"].as_u64() > Some(0);
    let stats = parsed(&output.stdout)["stats"].clone();
    assert!(list(&stats).iter().all(moved), "{stats}");
}

#[test]
fn a_table_in_a_file_is_read() {
    let directory = directory();
    let path = directory.path().join("xyz");
    let table = TableWriter::at(&path, TableConfig::of("xyz")).expect("the directory is on tmpfs");
    let _queues = queues(&table, &[3, 5]);
    let path = path.to_str().expect("the path is text");
    let output = vmstrobe(&["query", "--table", path, "--json"]);
    fine(&output);
    assert_eq!(parsed(&output.stdout), queues_json(&[3, 5]));
    let output = vmstrobe(&["query", "--table", path]);
    fine(&output);
    let want = "/xyz        queue[0]  queue[1]\nrequests           3         5\n";
    assert_eq!(output.stdout, want);

    let none = directory.path().join("none");
    let none = none.to_str().expect("the path is text");
    says(
        &vmstrobe(&["query", "--table", none]),
        1,
        &["there is no table", none, "start the program that writes it"],
    );
    fs::write(none, "no table").expect("the directory is writable");
    says(&vmstrobe(&["query", "--table", none]), 1, &["no program writes the table", none]);
}

#[test]
fn objects_received_over_a_socket_are_read() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("xyz.sock");
    let table = TableWriter::new("xyz").expect("there is memory for a table");
    let _queues = queues(&table, &[7]);
    let hand_over = FdServer::listen(&path).expect("the path is free");
    hand_over.offer(Arc::new(table)).expect("the server runs");
    let path = path.to_str().expect("the path is text");
    let output = vmstrobe(&["query", "--from-socket", path, "--json"]);
    fine(&output);
    assert_eq!(parsed(&output.stdout), queues_json(&[7]));
    drop(hand_over);
    let start = "start the program that makes this socket";
    says(&vmstrobe(&["query", "--from-socket", path]), 1, &["there is no ", path, start]);
    fs::write(path, "no socket").expect("the directory is writable");
    says(&vmstrobe(&["query", "--from-socket", path]), 1, &[path, " is no socket: give one at"]);
}

/// Objects of two sources with one path have different names, and each has its own values.
#[test]
fn equal_paths_of_two_sources_are_made_distinct() {
    let directory = directory();
    let lend = |name: &str, count: u64| {
        let table = TableWriter::new("xyz").expect("there is memory for a table");
        let queues = queues(&table, &[count]);
        let path = directory.path().join(name);
        let hand_over = FdServer::listen(&path).expect("the path is free");
        hand_over.offer(Arc::new(table)).expect("the server runs");
        (hand_over, queues, path.to_str().expect("the path is text").to_owned())
    };
    let (a, b) = (lend("a.sock", 3), lend("b.sock", 5));
    let output = vmstrobe(&["query", "--from-socket", &a.2, "--from-socket", &b.2, "--json"]);
    fine(&output);
    let found = parsed(&output.stdout);
    let value = |at: usize| (&found[at]["qom-path"], &found[at]["stats"][0]["value"]);
    assert_eq!(value(0), (&json!("/xyz/queue[0]"), &json!(3)));
    assert_eq!(value(1), (&json!("/b/xyz/queue[0]"), &json!(5)));
}

#[test]
fn of_several_targets_one_must_be_chosen() {
    let directory = directory();
    let path = directory.path().join("both");
    let table = TableWriter::at(&path, TableConfig::of("xyz")).expect("the directory is on tmpfs");
    let _queues = queues(&table, &[1]);
    let disks = TableSchema::new(Target::from_name("disk"));
    let _disk = table.add("/xyz/disk", &disks).expect("the table has a free slot");
    let path = path.to_str().expect("the path is text");
    for command in [&["query"][..], &["stat", "-d", "1s"], &["query", "--provider", "xyz"]] {
        let output = vmstrobe(&[command, &["--table", path]].concat());
        let what = "there are no vCPUs here, but objects of target disk and queue: select one with";
        says(&output, 2, &[what]);
    }
    fine(&vmstrobe(&["query", "--table", path, "--target", "queue"]));
}

#[test]
fn no_row_breaks_on_a_terminal_however_long_the_names_are() {
    let pid = std::process::id().to_string();
    for length in [8, 40, 128] {
        // Only a path can have this length.
        let name = |c: &str| c.repeat(length.min(31));
        let provider = name("p");
        let table = TableWriter::new(&provider).expect("there is memory for a table");
        let mut schema = TableSchema::new(Target::from_name(&name("t")));
        let requests = schema.counter(&*name("r"));
        let path = format!("/{}/queue[0]", "q".repeat(length));
        let object = table.add(&path, &schema).expect("the table has a free slot");
        object.get(requests).add(u64::MAX / 2);
        let of_table = ["-p", &pid, "--provider", &provider, "-z"];
        let interval = ["-i", "100", "-d", "250ms"];
        let stat = [&["stat"][..], &of_table, &interval].concat();
        for args in [
            vec!["list"],
            vec!["list", "-v"],
            vec!["schema", "-p", &pid, "--provider", &provider],
            [&["query"][..], &of_table].concat(),
            stat.clone(),
            [&stat[..], &["--per-vcpu"]].concat(),
        ] {
            let screen = on_terminal(LIMIT, &args).stdout;
            // Messages and the notes of a report are no rows.
            let is_row = |line: &&str| {
                let notes = ["vmstrobe: ", "sampled by", "provider "];
                !notes.iter().any(|note| line.contains(note))
            };
            let rows: Vec<&str> = screen.lines().filter(is_row).collect();
            assert!(rows.len() > 1, "{args:?}: {screen}");
            for row in rows {
                let columns = row.chars().count();
                assert!(columns <= COLUMNS.into(), "{args:?}: {columns}: {row}");
            }
        }
    }
}

#[test]
fn the_only_process_with_tables_is_found() {
    if !require_root() {
        return;
    }
    let program = example("queue_stats");
    let program = program.to_str().expect("the path is text");
    let start = |count: usize| {
        format!(
            "\"{program}\" --seconds 600 >/dev/null 2>&1 &\n\
             until test $(\"$0\" list --json 2>/dev/null | grep -o '\"queue\": 1' | wc -l) = \
             {count}; do sleep 0.02; done\n"
        )
    };
    let one = alone(&(start(1) + "\"$0\" query -z --names requests --json"));
    fine(&one);
    assert_eq!(parsed(&one.stdout)[0]["qom-path"], "/xyz/queue[0]", "{one:?}");
    let both = start(1) + &start(2);
    let two = alone(&(both.clone() + "\"$0\" query"));
    let what = "several processes on this host have tables of statistics: choose one with -p PID";
    says(&two, 1, &[what, "queue_stats, a table of xyz"]);
    let all = alone(&(both + "\"$0\" query --all -z --names requests --json"));
    fine(&all);
    let paths = parsed(&all.stdout);
    assert_eq!(paths[0]["qom-path"], "/xyz/queue[0]");
    assert_eq!(paths.as_array().map(Vec::len), Some(2), "{paths}");
}

#[test]
fn a_table_of_another_user_says_what_to_do() {
    if !require_root() {
        return;
    }
    let (_program, pid) = queue_stats();
    let output = Nobody::new().vmstrobe(&["query", "-p", &pid]);
    let what = format!("pid {pid} (queue_stats) cannot be examined: it belongs to user 0, and ");
    says(
        &output,
        1,
        &[&what, "lacks CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run vmstrobe as root"],
    );
}
