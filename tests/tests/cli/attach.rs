//! The choice of a process: pids that are no process, no VMM or another user's; and virtual
//! machines that are found without a pid.

use std::process::Command;

use vmstrobe_tests::command::Output;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{bpf, require_lending_qemu, require_older_qemu};

use crate::{Nobody, fine, json, paused_qemu, require_root, says, under, vmstrobe};

/// A number above the largest process id of Linux.
const NO_PID: &str = "4194305";

#[test]
fn a_pid_without_statistics_says_why() {
    let sleeper =
        Reaped(Command::new("sleep").arg("600").spawn().expect("the program can be executed"));
    let own = sleeper.id().to_string();
    for command in [&["query"][..], &["schema"], &["stat", "-d", "1s"], &["info", "stats", "vcpu"]]
    {
        let with = |pid: &str| vmstrobe(&[command, &["-p", pid]].concat());
        says(&with(NO_PID), 1, &["there is no process 4194305"]);
        says(
            &with(&own),
            1,
            &[
                &format!("pid {own} (sleep) has neither a KVM virtual machine nor a table of "),
                "statistics open: give the pid of a VMM, or of a program that publishes ",
                "statistics; `vmstrobe list` shows them",
            ],
        );
    }
}

#[test]
fn a_thread_is_no_process() {
    let Some((mut qemu, _)) = paused_qemu("threads", 1) else { return };
    let cpus = qemu.execute("query-cpus-fast", serde_json::Value::Null);
    let thread = cpus[0]["thread-id"].to_string();
    let output = vmstrobe(&["query", "-p", &thread]);
    says(&output, 1, &[&format!("{thread} is a thread, not a process: give the process id")]);
}

const LACKS_BOTH: &str = "lacks CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run vmstrobe as root";

#[test]
fn a_vm_of_another_user_says_what_to_do() {
    if !require_root() {
        return;
    }
    let Some((_qemu, pid)) = paused_qemu("others", 1) else { return };
    let nobody = Nobody::new();
    for command in [&["query"][..], &["stat", "-d", "1s"], &["schema"]] {
        let output = nobody.vmstrobe(&[command, &["-p", &pid]].concat());
        let what = format!("pid {pid} (qemu-system-x86) cannot be examined: it belongs to user 0");
        says(&output, 1, &[&what, LACKS_BOTH]);
    }
    let list = nobody.vmstrobe(&["list"]);
    says(&list, 0, &["processes could not be examined: pid 1 (", "for one: it ", LACKS_BOTH]);
}

#[test]
fn list_shows_what_can_be_read() {
    let Some((qemu, pid)) = paused_qemu("listed", 3) else { return };
    // Other VMs may come and go meanwhile, so only ours is compared.
    let output = vmstrobe(&["list", "--json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let entries = json(&output.stdout);
    let entries = entries.as_array().expect("the value is a list");
    let ours = entries.iter().find(|entry| entry["pid"] == qemu.pid()).expect("the thread runs");
    let want = json(&format!(
        r#"{{"kind": "vm", "pid": {pid}, "name": "listed", "vcpus": 3, "readable": true,
             "method": "pread", "stats_fds": {{"vcpus": 3, "vm": false}}}}"#
    ));
    assert_eq!(*ours, want);
    let output = vmstrobe(&["list"]);
    let mut lines = output.stdout.lines();
    let head: Vec<&str> =
        lines.next().expect("the output has a first line").split_whitespace().collect();
    assert_eq!(head, ["PID", "NAME", "VCPUS", "HOW"]);
    let line =
        lines.find(|line| line.trim_start().starts_with(&pid)).expect("the list has the entry");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, [&*pid, "listed", "3", "stats", "fds", "of", "its", "vCPUs"]);
}

/// Runs a script in a pid namespace of its own; `$0` is vmstrobe.
pub(crate) fn alone(script: &str) -> Output {
    under(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script], &[])
}

/// Starts a paused QEMU of that name and waits until `count` of them can be read.
fn start(name: &str, count: usize) -> String {
    format!(
        "qemu-system-x86_64 -accel kvm -machine q35 -m 64 -nodefaults -no-user-config \
         -display none -S -name {name} 2>/dev/null &\n\
         until test $(\"$0\" list --json 2>/dev/null | grep -o '\"readable\": true' | wc -l) = \
         {count}; do sleep 0.02; done\n"
    )
}

#[test]
fn without_a_vm_there_is_an_error_with_advice() {
    if !require_root() {
        return;
    }
    let output = alone("\"$0\" query");
    let none = "no virtual machine and no table of statistics found on this host";
    says(&output, 1, &[none, ": start one, or try --demo"]);
    says(&alone("\"$0\" stat --all -d 1s"), 1, &[none]);
    // An empty list is a valid answer.
    let list = alone("\"$0\" list");
    says(&list, 0, &[none, "; `vmstrobe demo` starts one"]);
    let list = alone("\"$0\" list --json");
    assert_eq!((list.code, json(&list.stdout)), (Some(0), json("[]")));
}

#[test]
fn the_one_vm_is_found_and_of_two_one_must_be_chosen() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let one = alone(&(start("solo", 1) + "\"$0\" query -z --names exits --json"));
    fine(&one);
    let results = json(&one.stdout);
    assert_eq!(results[0]["qom-path"], "/vm/solo/vcpu[0]", "{results}");

    let both = start("first", 1) + &start("second", 2);
    let two = alone(&(both.clone() + "\"$0\" query"));
    says(&two, 1, &["several virtual machines run on this host: choose one with -p PID", "--all"]);
    assert!(two.stderr.contains("  first") && two.stderr.contains("  second"), "{two:?}");
    let all = alone(&(both + "\"$0\" query --all -z --names exits --json"));
    fine(&all);
    assert_eq!(json(&all.stdout).as_array().map(Vec::len), Some(2), "{all:?}");
}

#[test]
fn a_qemu_without_stats_fds_is_refused_with_advice() {
    if !require_older_qemu() {
        return;
    }
    let qemu =
        Qemu::start_older(&Config { name: "old", vcpus: 2, paused: true, ..Config::default() });
    let pid = qemu.pid().to_string();
    let query = vmstrobe(&["query", "-p", &pid, "--bpf", "off"]);
    let advice = "if it is a QEMU, use --from-qmp SOCKET instead";
    says(&query, 1, &["keeps no stats fds open (QEMU 8.1 and later do", advice]);
    let list = vmstrobe(&["list", "--json"]);
    let listed = json(&list.stdout);
    let vm = listed.as_array().and_then(|vms| vms.iter().find(|vm| vm["pid"] == qemu.pid()));
    let vm = vm.expect("a VM that cannot be read is listed too");
    let is_open = bpf().is_ok();
    assert_eq!((&vm["readable"], &vm["vcpus"]), (&is_open.into(), &2.into()), "{vm}");
    if is_open {
        assert_eq!((&vm["method"], &vm["stats_fds"]["vcpus"]), (&"bpf".into(), &0.into()));
        fine(&vmstrobe(&["query", "-z", "-p", &pid]));
        fine(&vmstrobe(&["query", "-z", "-p", &pid, "--target", "vm"]));
    }
}
