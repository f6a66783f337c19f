//! `--from-qmp`: a real QEMU, asked over a socket of its own while another socket gives QEMU's own
//! answer. Checked are its values, and its names for the vCPUs of its process.

use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe_tests::command::{RUN_LIMIT, spawn};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{bpf, require_lending_qemu};
use vmstrobe_tests::rig::show;

use super::same::{ascending, by_name, list, run_a_while, sorted_by};
use crate::{fine, json as parsed, says, vmstrobe};

/// A stopped QEMU with two crypto devices, and a second socket for vmstrobe.
struct Second {
    qemu: Qemu,
    pid: String,
    socket: String,
    _directory: TempDir,
}

impl Second {
    /// Starts a QEMU; `None` if there is none of that kind.
    fn start(name: &str) -> Option<Self> {
        if !require_lending_qemu() {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let socket: PathBuf = directory.path().join("second");
        let socket = socket.to_str().expect("the path is text").to_owned();
        let qmp = format!("unix:{socket},server=on,wait=off");
        let object = |id| format!("cryptodev-backend-builtin,id={id}");
        let (c1, zz) = (object("c1"), object("zz"));
        let extra = ["-object", &c1, "-object", &zz, "-qmp", &qmp];
        let qemu = Qemu::start(&Config { name, vcpus: 3, paused: true, extra: &extra });
        let pid = qemu.pid().to_string();
        Some(Self { qemu, pid, socket, _directory: directory })
    }

    /// Returns QEMU's own answer, over its own socket.
    fn stats(&mut self, target: &str) -> Vec<Json> {
        let theirs = self.qemu.execute("query-stats", json!({"target": target}));
        sorted(list(&theirs).iter().cloned().map(ascending))
    }
}

fn sorted(results: impl Iterator<Item = Json>) -> Vec<Json> {
    sorted_by(results.map(by_name).collect(), "qom-path")
}

fn query(args: &[&str]) -> Vec<Json> {
    let output = vmstrobe(&[&["query", "--json"], args].concat());
    fine(&output);
    sorted(list(&parsed(&output.stdout)).iter().cloned())
}

fn paths(results: &[Json]) -> Vec<&Json> {
    results.iter().map(|result| &result["qom-path"]).collect()
}

#[test]
fn query_json_is_query_stats_of_every_target() {
    let Some(mut qemu) = Second::start("asked") else { return };
    run_a_while(&mut qemu.qemu);
    let socket = qemu.socket.clone();
    for (target, count) in [("cryptodev", 2), ("vm", 1), ("vcpu", 3)] {
        let ours = query(&["--from-qmp", &socket, "--target", target]);
        assert_eq!(ours, qemu.stats(target));
        assert_eq!(ours.len(), count);
        let values: usize = ours.iter().map(|result| list(&result["stats"]).len()).sum();
        show(&format!("--from-qmp --target {target}: {values} values as QEMU's"));
    }
    // The default target is vcpu; there is one VM, which has no path.
    assert_eq!(query(&["--from-qmp", &socket]), qemu.stats("vcpu"));
    assert_eq!(query(&["--from-qmp", &socket, "--target", "vm"])[0].get("qom-path"), None);
    let four = query(&["--from-qmp", &socket, "--provider", "cryptodev"]);
    assert_eq!(four, qemu.stats("cryptodev"));
    let one = query(&["--from-qmp", &socket, "--vcpu", "1", "--names", "exits"]);
    assert_eq!(list(&one[0]["stats"]).len(), 1);
    let columns = vmstrobe(&["query", "-z", "--from-qmp", &socket, "--target", "cryptodev"]);
    let head = columns.stdout.lines().next().unwrap_or_default().split_whitespace();
    assert_eq!(head.collect::<Vec<_>>(), ["/objects", "c1", "zz"]);
}

#[test]
fn schema_json_is_query_stats_schemas_of_all() {
    let Some(mut qemu) = Second::start("schemas2") else { return };
    let theirs = qemu.qemu.execute("query-stats-schemas", Json::Null);
    let output = vmstrobe(&["schema", "--from-qmp", &qemu.socket, "--json"]);
    fine(&output);
    let by_target =
        |schemas: &Json| sorted_by(list(schemas).iter().cloned().map(by_name).collect(), "target");
    assert_eq!(by_target(&parsed(&output.stdout)), by_target(&theirs));
}

/// The values come from the stats fds, and the names from QEMU.
#[test]
fn beside_a_pid_vcpus_have_qemus_own_paths() {
    let Some(mut qemu) = Second::start("named") else { return };
    run_a_while(&mut qemu.qemu);
    let (pid, socket) = (qemu.pid.clone(), qemu.socket.clone());
    let both = ["-p", &*pid, "--from-qmp", &socket];
    let ours = query(&[&both[..], &["--target", "vcpu"]].concat());
    assert_eq!(ours, qemu.stats("vcpu"));
    // Each provider uses these names of the vCPUs.
    let threads = query(&[&both[..], &["--provider", "sched"]].concat());
    assert_eq!(paths(&threads), paths(&ours));
    assert_eq!(query(&[&both[..], &["--target", "cryptodev"]].concat()), qemu.stats("cryptodev"));
    assert_eq!(query(&[&both[..], &["--target", "vm"]].concat()), qemu.stats("vm"));
    // Without the socket the vCPUs have the kernel's names, and without the BPF reader there are no
    // other objects.
    let alone = query(&["-p", &pid]);
    assert_eq!(alone[0]["qom-path"], "/vm/named/vcpu[0]");
    if bpf().is_ok() {
        assert_eq!(query(&["-p", &pid, "--target", "vm"]), qemu.stats("vm"));
    }
    let without = ["--bpf", "off"];
    let told = query(&[&both[..], &["--target", "vm"], &without].concat());
    assert_eq!(told, qemu.stats("vm"));
    let output = vmstrobe(&[&["query", "-p", &pid, "--target", "vm"], &without[..]].concat());
    says(&output, 1, &["no statistics of the virtual machine as a whole", "--from-qmp SOCKET"]);
    let output = vmstrobe(&["query", "-p", &pid, "--target", "cryptodev"]);
    says(&output, 1, &["no objects of target 'cryptodev' here, only of vcpu"]);
}

/// Each QEMU has the same paths, so the paths of several begin with the names of their VMs.
#[test]
fn several_qemus_have_different_paths() {
    let (Some(mut a), Some(mut b)) = (Second::start("a"), Second::start("b")) else { return };
    let [a_socket, b_socket] = [&a, &b].map(|qemu| qemu.socket.clone());
    let [a_pid, b_pid] = [&a, &b].map(|qemu| qemu.pid.clone());
    let sockets = ["--from-qmp", &*a_socket, "--from-qmp", &b_socket];
    let pids = ["-p", &*a_pid, "-p", &b_pid];
    let under = |vm: &str, results: Vec<Json>| {
        let renamed = |mut result: Json| {
            let path = result["qom-path"].as_str().expect("the object has a path");
            result["qom-path"] = format!("/vm/{vm}{path}").into();
            result
        };
        results.into_iter().map(renamed).collect::<Vec<Json>>()
    };
    for target in ["vcpu", "cryptodev"] {
        let want = [under("a", a.stats(target)), under("b", b.stats(target))].concat();
        let want = sorted_by(want, "qom-path");
        let wanted = ["--target", target];
        assert_eq!(query(&[&sockets[..], &wanted].concat()), want);
        assert_eq!(query(&[&pids[..], &sockets, &wanted].concat()), want);
    }
    let ours = query(&[&pids[..], &sockets, &["--target", "vcpu"]].concat());
    let threads = query(&[&pids[..], &sockets, &["--provider", "sched"]].concat());
    assert_eq!(paths(&threads), paths(&ours));
    // A QEMU that is only asked for statistics has unknown threads.
    let output = vmstrobe(&["query", "--from-qmp", &a_socket, "--provider", "sched"]);
    says(&output, 1, &["there is no provider 'sched' here", "named by -p or --all"]);
    // The VM of the vCPUs cannot be known.
    let output = vmstrobe(&["query", "-p", &a_pid, "--from-qmp", &b_socket]);
    let what =
        format!("cannot tell which VM the socket {b_socket} belongs to: its peer is pid {b_pid}");
    says(&output, 2, &[&what, &format!("add -p {b_pid}")]);
}

/// Relays each connection to the socket behind, so that its peer is this process.
fn relay(path: &Path, behind: &str) {
    let listener = UnixListener::bind(path).expect("the path is free");
    let behind = behind.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("the server accepts the client");
            let server = UnixStream::connect(&behind).expect("QEMU listens");
            for (from, to) in [(&client, &server), (&server, &client)] {
                let [mut from, mut to] = [from, to].map(|end| end.try_clone().expect("an fd"));
                thread::spawn(move || {
                    // Either end may close first.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
}

/// The kernel names the process that called listen as the peer: a launcher, or a relay, has no VM.
#[test]
fn another_process_may_hold_the_socket() {
    let Some(mut qemu) = Second::start("relayed") else { return };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("relay");
    relay(&path, &qemu.socket);
    let (pid, socket) = (qemu.pid.clone(), path.to_str().expect("the path is text"));
    let theirs = qemu.stats("vcpu");
    assert_eq!(query(&["-p", &pid, "--from-qmp", socket]), theirs);
    assert_eq!(query(&["--from-qmp", socket]), theirs);
    // With two VMs the right one cannot be known.
    let other = Qemu::start(&Config { name: "other", paused: true, ..Config::default() });
    let other = other.pid().to_string();
    let output = vmstrobe(&["query", "-p", &pid, "-p", &other, "--from-qmp", socket]);
    says(&output, 2, &["cannot tell which VM", "which has no VM: select only its QEMU with -p"]);
    // With the name of one of the VMs it can be known.
    let output = vmstrobe(&["query", "-p", &other, "--from-qmp", socket]);
    let what =
        format!("another QEMU, which calls its VM 'relayed': that of pid {other} is 'other'");
    says(&output, 2, &[&what, &format!("give the socket of pid {other}")]);
}

#[test]
fn a_qemu_that_ends_is_reported_and_ends_the_run() {
    let Some(qemu) = Second::start("ending") else { return };
    let socket = qemu.socket.clone();
    let args = ["stat", "--from-qmp", &socket, "-i", "200", "-z", "--json", "--names", "exits"];
    let mut child = spawn(&args);
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the child prints lines");
    assert_eq!(parsed(&line)["stats"][0]["name"], "exits", "{line}");
    drop(qemu);
    let status = child.wait_within(RUN_LIMIT).expect("the process ends in time");
    let (mut rest, mut stderr) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("the output is text");
    child
        .stderr
        .take()
        .expect("the child's stream is a pipe")
        .read_to_string(&mut stderr)
        .expect("the output is text");
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, format!("vmstrobe: QEMU ending ({socket}) has ended\n"));
    rest.lines().for_each(|line| drop(parsed(line)));
}

#[test]
fn a_socket_that_does_not_answer_says_why() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let none = directory.path().join("none");
    let none = none.to_str().expect("the path is text");
    says(&vmstrobe(&["query", "--from-qmp", none]), 1, &[none, "start QEMU with -qmp unix:"]);
    let Some(qemu) = Second::start("taken") else { return };
    // QEMU serves one client at a time, and it has one.
    let taken = qemu.qemu.socket();
    let taken = taken.to_str().expect("the path is text");
    says(&vmstrobe(&["query", "--from-qmp", taken]), 1, &[taken]);
}
