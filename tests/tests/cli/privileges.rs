//! What rights the threads of a command have, and that giving them up costs nobody anything: as
//! root, who has them all, a command still opens what only root may.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;
use vmstrobe_tests::command::spawn;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_kvm, require_lending_qemu};
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::serve::Serve;

use crate::{LIMIT, Nobody, fine, paused_qemu, require_root, vmstrobe};

/// To load the kernel-side tick, to look into processes of others, to open files of others.
const LOAD: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
const LOOK: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// What root has that no command of ours needs.
const NEEDLESS: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SETUID);
const OPEN: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// What the kernel itself does for the guest that the kernel-side tick is proven by.
const WORKER: &str = "kvm-nx-lpage-re";
/// The threads that read, ...
const TICK: &str = "vmstrobe-tick";
/// ... and that open what comes.
const ROSTER: &str = "vmstrobe-roster";

/// The user who is nobody.
const NOBODY: u32 = 65534;

/// The permitted and the effective set of each thread of a process, by its name.
fn threads(pid: u32) -> BTreeMap<String, Vec<[CapabilitySet; 2]>> {
    let mut threads: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten() {
        // It may have ended.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let set = |key| {
            let bits = u64::from_str_radix(of(key).expect("the kernel shows it"), 16);
            CapabilitySet::from_bits_retain(bits.expect("it is a number"))
        };
        let name = of("Name:").expect("the kernel shows it").to_owned();
        threads.entry(name).or_default().push([set("CapPrm:"), set("CapEff:")]);
    }
    threads
}

/// Waits until it samples, and gives its threads.
#[track_caller]
fn threads_of_a_sampler(child: &mut Reaped) -> BTreeMap<String, Vec<[CapabilitySet; 2]>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = threads(child.id());
        // Each takes its name when it has begun. Of some it was seen what they had before.
        if seen.contains_key(TICK) && seen.contains_key(ROSTER) {
            return threads(child.id());
        }
        assert!(child.wait_within(Duration::from_millis(2)).is_none(), "it ended early");
        assert!(Instant::now() < deadline, "it does not sample: {seen:?}");
    }
}

/// None but the thread that goes on opening has anything, and that one no more than `kept`; nor
/// has the kernel's worker of the guest that proved the kernel-side tick.
#[track_caller]
fn samples_without(args: &[&str], kept: CapabilitySet) {
    let had = rustix::thread::capabilities(None).expect("one's own are known").permitted;
    assert!(had.intersects(NEEDLESS), "root without rights proves nothing: {had:?}");
    let mut child = spawn(args);
    let threads = threads_of_a_sampler(&mut child);
    assert!(threads.contains_key("vmstrobe"), "{threads:?}");
    for (name, sets) in &threads {
        let may = if name == ROSTER { had & kept } else { CapabilitySet::empty() };
        let may_have_more = name == WORKER;
        for set in sets {
            let has = *set == [may; 2];
            let has_no_more = set.iter().all(|set| (kept | OPEN).contains(*set));
            assert!(has || may_have_more && has_no_more, "{args:?} {name}: {threads:?}");
        }
    }
}

#[test]
fn who_samples_has_no_capabilities() {
    if !require_root() || !require_kvm() {
        return;
    }
    samples_without(&["stat", "--demo", "-d", "2s"], LOAD);
    samples_without(&["demo", "-d", "2s", "--json"], LOAD);
    samples_without(&["stat", "--demo", "-d", "2s", "--accel", "off"], CapabilitySet::empty());
    samples_without(&["stat", "--demo", "--provider", "sched", "-d", "2s"], LOAD);
    let Some((_qemu, pid)) = paused_qemu("rights", 1) else { return };
    samples_without(&["stat", "-p", &pid, "-d", "2s"], LOOK | LOAD);
    samples_without(&["stat", "-p", &pid, "-d", "2s", "--accel", "off"], LOOK);
}

/// A directory of a user who lets nobody in, with these files of his; for root alone.
fn home(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().join("home");
    fs::create_dir(&home).expect("it is ours");
    for (name, text) in files {
        let path = home.join(name);
        fs::write(&path, text).expect("it is ours");
        close(&path);
    }
    close(&home);
    (directory, home)
}

/// Makes it nobody's, and his alone.
fn close(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o700)).expect("it is ours");
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

#[test]
fn root_writes_and_runs_where_only_root_may() {
    if !require_root() || !require_kvm() {
        return;
    }
    let (_directory, home) = home(&[("run", "#!/bin/sh\necho ran\n")]);
    let (program, report) = (home.join("run"), home.join("report"));
    let args = ["stat", "--demo", "--names", "exits", "-o", text(&report), "--", text(&program)];
    let output = vmstrobe(&args);
    fine(&output);
    assert_eq!(output.stdout, "ran\n");
    let report = fs::read_to_string(report).expect("it was written");
    assert!(report.contains(" exits "), "{report}");
}

#[test]
fn root_asks_at_a_socket_where_only_root_may() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let (_directory, home) = home(&[]);
    let socket = home.join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", text(&socket));
    let extra = ["-qmp", &qmp];
    let _qemu = Qemu::start(&Config { name: "asked", paused: true, extra: &extra, vcpus: 1 });
    chown(&socket, Some(NOBODY), Some(NOBODY)).expect("root may");
    let output = vmstrobe(&["query", "--from-qmp", text(&socket), "--names", "exits", "--json"]);
    fine(&output);
    assert!(output.stdout.contains("\"exits\""), "{output:?}");
}

/// The sets of the capabilities of whoever is asked, as the kernel shows them.
const ASK: [&str; 3] = ["grep", "^Cap", "/proc/self/status"];

#[test]
fn a_command_runs_with_what_it_would_have_without_us() {
    let stat = ["stat", "--target", "sampler", "--names", "ticks", "-o", "/dev/null", "--"];
    let sets = |output: vmstrobe_tests::command::Output| {
        fine(&output);
        output.stdout
    };
    let limit = vmstrobe_tests::command::RUN_LIMIT;
    let plain = vmstrobe_tests::command::run_within(limit, ASK[0], &ASK[1..]);
    assert_eq!(sets(vmstrobe(&[&stat[..], &ASK].concat())), sets(plain));
    if !require_root() {
        return;
    }
    // A user with a right of which we have no need, handed down from program to program.
    let nobody = Nobody::new();
    let rights = ["--inh-caps=+net_raw", "--ambient-caps=+net_raw", "--"];
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let as_user = |program: &[&str]| {
        let line = [&user[..], &rights, program].concat();
        sets(vmstrobe_tests::command::run_within(limit, line[0], &line[1..]))
    };
    let plain = as_user(&ASK);
    let net_raw = format!("CapEff:\t{:016x}\n", CapabilitySet::NET_RAW.bits());
    assert!(plain.contains(&net_raw), "{plain}");
    assert_eq!(as_user(&[&[text(&nobody.binary)], &stat[..], &ASK].concat()), plain);
}

#[test]
fn a_server_keeps_what_opening_and_answering_take() {
    if !require_root() || !require_kvm() {
        return;
    }
    let (_directory, home) = home(&[]);
    let socket = home.join("demo.sock");
    let mut serve = Serve::spawn(&["--demo", "--qmp", text(&socket)]);
    serve.wait_for_socket(&socket);
    let listen = OPEN | CapabilitySet::CHOWN | CapabilitySet::FOWNER;
    let had = rustix::thread::capabilities(None).expect("one's own are known").permitted;
    // Each takes its name when it has begun.
    let named = ["vmstrobe-accept", "vmstrobe-census", "crypto0/decrypt", "CPU 0/KVM"];
    wait_for("its threads run", LIMIT, || {
        let threads = threads(serve.pid());
        named.iter().all(|name| threads.contains_key(*name))
    });
    let threads = threads(serve.pid());
    for (name, sets) in &threads {
        let within = sets.iter().flatten().all(|set| (LOAD | listen).contains(*set));
        assert!(within, "{name}: {threads:?}");
    }
    for busy in ["vmstrobe", "vmstrobe-accept", "vmstrobe-census"] {
        assert_eq!(threads[busy], [[had & (LOAD | listen); 2]], "{threads:?}");
    }
    for idle in ["CPU 0/KVM", "crypto0/decrypt"] {
        assert_eq!(threads[idle], [[CapabilitySet::empty(); 2]], "{threads:?}");
    }

    let pid = Pid::from_raw(serve.pid() as i32).expect("a process has a number");
    kill_process(pid, Signal::TERM).expect("it is ours");
    let status = serve.wait_within(LIMIT).expect("it ends when it is told to");
    assert_eq!(status.code(), Some(0), "{}", serve.said());
    assert!(!socket.exists(), "it leaves its socket");
}
