//! The world as a container shows it: other namespaces of users and processes, a /proc that hides
//! some of them, or none at all. What cannot be done there says why, what can be done is right.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, run_within};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu, version};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{require, require_kvm, require_lending_qemu};

use super::same::list;
use crate::{LIMIT, Nobody, fine, json as parsed, paused_qemu, require_root, says, under};

/// The script of a paused QEMU in this pid namespace, as pid `$V`, with a second QMP socket at
/// `$1`.
const QEMU: &str = "qemu-system-x86_64 -accel kvm -machine q35 -m 64 -nodefaults -no-user-config \
                    -display none -S -smp 3 -name hidden -qmp unix:$1/qmp,server=on,wait=off \
                    2>/dev/null & V=$!\n\
                    until test -S $1/qmp && test $(\"$0\" list --json 2>/dev/null | \
                    grep -c '\"vcpus\": 3, \"readable\": true') = 1; do sleep 0.05; done\n";

/// The words before QEMU that run it as user 65534, who may open /dev/kvm.
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups \
                         --inh-caps=+dac_override --ambient-caps=+dac_override -- ";

/// A script beside that QEMU, in namespaces of its own; `$0` is a vmstrobe that any user may run.
struct Beside {
    script: String,
    nobody: Nobody,
    directory: TempDir,
}

impl Beside {
    fn new(script: &str) -> Beside {
        Beside::after("", script)
    }

    /// Makes a script with these words before QEMU's command line.
    fn after(words: &str, script: &str) -> Beside {
        let (nobody, directory) =
            (Nobody::new(), TempDir::new().expect("a temporary directory can be made"));
        Beside { script: format!("{words}{QEMU}{script}"), nobody, directory }
    }

    /// Returns the words of the command that runs the script.
    fn line(&self) -> Vec<&str> {
        let socket = self.directory.path().to_str().expect("the path is text");
        let binary = self.nobody.binary.to_str().expect("the path is text");
        let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        [&unshare[..], &["sh", "-c", &self.script, binary, socket]].concat()
    }

    /// Starts the script, and waits until it has made that file.
    fn start_until(&self, file: &str) -> Reaped {
        let line = self.line();
        let mut child = Reaped(
            Command::new(line[0]).args(&line[1..]).spawn().expect("the program can be executed"),
        );
        let deadline = Instant::now() + LIMIT;
        while !self.directory.path().join(file).exists() {
            assert!(
                child.wait_within(Duration::from_millis(10)).is_none(),
                "the process has ended"
            );
            assert!(Instant::now() < deadline, "there is no {file}");
        }
        child
    }
}

/// Runs the script to its end.
fn beside_a_qemu(script: &str) -> Output {
    beside_a_qemu_after("", script)
}

/// Runs the script to its end, with these words before QEMU's command line.
fn beside_a_qemu_after(words: &str, script: &str) -> Output {
    let beside = Beside::after(words, script);
    let line = beside.line();
    run_within(LIMIT, line[0], &line[1..])
}

#[test]
fn hidden_processes_are_mentioned() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let nobody = Nobody::WRAPPER.join(" ");
    for (level, name) in [("1", "noaccess"), ("2", "invisible"), ("4", "ptraceable")] {
        // It is a new instance of /proc: mounting the old one with options would change it for all
        // users.
        let mount = format!("mount -t proc -o hidepid={level},gid=9 proc /proc\n");
        let hidden = format!("/proc is mounted with hidepid={name}, so that processes of other");
        let ask = format!("{nobody} \"$0\"");
        let asked = format!("{mount}{ask} list || exit 9; {ask} query; {ask} query -p $V");
        let output = beside_a_qemu(&asked);
        says(&output, 1, &["hidden from user 65534: run vmstrobe as root", "no virtual machine"]);
        let [list, _, none, one] = output.stderr.lines().collect::<Vec<_>>()[..] else {
            panic!("four lines: {output:?}")
        };
        assert!(list.contains(&hidden) && none.contains(&format!("({hidden}")), "{output:?}");
        assert!(one.contains(&format!("cannot be examined: {hidden}")), "{output:?}");
        assert_eq!(list.contains(", as a member of group 9"), level != "4", "{list:?}");
    }
    // A command that is not affected prints no such message.
    let mount = "mount -t proc -o hidepid=2 proc /proc";
    fine(&beside_a_qemu(&format!("{mount}; \"$0\" query -z -p $V")));
    let member = nobody.replace("--clear-groups", "--groups=9");
    let list = format!("mount -t proc -o hidepid=2,gid=9 proc /proc\n{member} \"$0\" list");
    says(&beside_a_qemu(&list), 0, &["could not be examined: pid 1 (", "belongs to user 0"]);
}

#[test]
fn a_proc_that_hides_the_vmm_does_not_affect_root() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    // Nothing is hidden from the group of `gid=`, which is 0 by default.
    ["2,gid=9", "4"].into_iter().for_each(hides_nothing_from_root);
}

fn hides_nothing_from_root(hidepid: &str) {
    let beside = |script: &str| {
        let script = format!("mount -t proc -o hidepid={hidepid} proc /proc && {script}");
        let output = beside_a_qemu_after(AS_NOBODY, &script);
        assert!(!output.stderr.contains("hidepid"), "{output:?}");
        output
    };
    for what in ["--names exits --target vcpu", "--provider sched --bpf off"] {
        let query = format!("\"$0\" query --json -z -p $V --from-qmp $1/qmp {what}");
        let output = beside(&query);
        fine(&output);
        let results = parsed(&output.stdout);
        let paths = list(&results).iter().map(|result| result["qom-path"].as_str());
        let paths: Vec<&str> = paths.map(|path| path.expect("the value is a string")).collect();
        let are_qemus = paths.iter().all(|path| path.starts_with("/machine/"));
        assert!(paths.len() == 3 && are_qemus, "{what}: {paths:?}");
    }
    // The helper's rights decide on a refusal, and the message is about them.
    let few = "setpriv --bounding-set=-dac_read_search --inh-caps=-all \"$0\" query -p $V";
    let want = "it belongs to user 65534, and vmstrobe, which runs as user 0, lacks \
                CAP_DAC_READ_SEARCH: give it that capability";
    says(&beside(few), 1, &["(qemu-system-x86) cannot be examined: ", want]);
    let output = beside("setpriv --bounding-set=-dac_read_search --inh-caps=-all \"$0\" list");
    says(&output, 0, &["could not be examined: pid ", "lacks CAP_DAC_READ_SEARCH"]);
}

#[test]
fn in_the_first_pid_namespace_a_hiding_proc_names_threads_to_root() {
    let is_new = version().is_ok_and(|version| version >= (9, 1));
    let is_new = if is_new { Ok(()) } else { Err("QEMU before 9.1".to_owned()) };
    // Before Linux 5.8, to mount it with options would change those of the host.
    let is_own = release().is_some_and(|release| release >= (5, 8));
    let is_own = if is_own { Ok(()) } else { Err("Linux before 5.8".to_owned()) };
    if !require_root() || !require("hidepid", is_own) || !require_lending_qemu() {
        return;
    }
    if !require("run-with", is_new) {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let socket = directory.path().join("qmp").to_str().expect("the path is text").to_owned();
    let qmp = format!("unix:{socket},server=on,wait=off");
    let extra = ["-run-with", "user=nobody", "-qmp", &qmp];
    let config = Config { name: "hidden", vcpus: 2, extra: &extra, paused: true };
    let qemu = Qemu::start(&config);
    let pid = qemu.pid().to_string();
    let script = "mount -t proc -o hidepid=2,gid=9 proc /proc && exec \"$0\" \"$@\"";
    let hiding = |args: &[&str]| {
        let output = under(&["unshare", "--mount", "sh", "-c", script], args);
        fine(&output);
        let results = parsed(&output.stdout);
        let paths = list(&results).iter().map(|result| result["qom-path"].to_string());
        paths.collect::<Vec<_>>()
    };
    let query = ["query", "--json", "-z", "-p", &pid, "--bpf", "off"];
    let sched = hiding(&[&query[..], &["--provider", "sched"]].concat());
    assert_eq!(sched, ["\"/vm/hidden/vcpu[0]\"", "\"/vm/hidden/vcpu[1]\""]);
    let names = ["--from-qmp", &socket, "--names", "exits", "--target", "vcpu"];
    let named = hiding(&[&query[..], &names].concat());
    assert!(named.len() == 2 && named.iter().all(|path| path.contains("/machine/")), "{named:?}");
}

/// Returns the major and minor version of the kernel.
fn release() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[test]
fn without_proc_no_vm_is_reported_as_absent() {
    if !require_root() {
        return;
    }
    let without = |args: &[&str]| {
        let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
        let output = under(&["unshare", "--mount", "sh", "-c", script], args);
        assert!(!output.stderr.contains("no virtual machine"), "{output:?}");
        output
    };
    let what = "/proc is not mounted: mount it (mount -t proc proc /proc)";
    for args in [&["list"][..], &["query"], &["query", "-p", "1"], &["stat", "--all", "-d", "1s"]] {
        says(&without(args), 1, &[what]);
    }
    if require_kvm() {
        says(&without(&["demo", "-d", "100ms", "--json"]), 1, &["for a table: ", what]);
    }
    // The /proc of another pid namespace does not show a process of this one.
    let script = "sleep 60 & exec \"$0\" query -p $!";
    let output = under(&["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script], &[]);
    says(&output, 1, &["/proc is that of another pid namespace, with other numbers for "]);
}

#[test]
fn a_user_namespace_is_told_from_a_missing_capability() {
    if !require_root() {
        return;
    }
    let Some((_qemu, pid)) = paused_qemu("outside", 1) else { return };
    let inside = |args: &[&str]| under(&["unshare", "--map-root-user", "--"], args);
    let output = inside(&["query", "-p", &pid]);
    says(&output, 1, &["it is in another user namespace, where vmstrobe's capabilities do not"]);
    says(&inside(&["list"]), 0, &["could not be examined: pid 1 (", "in another user namespace"]);
    let output = inside(&["query", "-p", &pid, "--bpf", "require"]);
    says(&output, 1, &["CAP_BPF and CAP_PERFMON in the first user namespace"]);
}

#[test]
fn in_a_pid_namespace_vcpus_have_the_names_that_qemu_gives_them() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let by_qemu =
        beside_a_qemu("\"$0\" query --json -z --names exits --from-qmp $1/qmp --target vcpu");
    fine(&by_qemu);
    let results = parsed(&by_qemu.stdout);
    let paths = |results: &Json| -> Vec<String> {
        list(results).iter().map(|result| result["qom-path"].to_string()).collect()
    };
    let want = paths(&results);
    assert!(want.len() == 3 && want.iter().all(|path| path.contains("/machine/")), "{want:?}");
    for source in ["-p $V", "--all"] {
        let ask = |what: &str| {
            let query = format!("\"$0\" query --json -z {source} --from-qmp $1/qmp {what}");
            let output = beside_a_qemu(&query);
            fine(&output);
            parsed(&output.stdout)
        };
        assert_eq!(paths(&ask("--names exits --target vcpu")), want, "{source}");
        // The scheduler's statistics are of QEMU's threads.
        let sched = ask("--provider sched --names thread_id");
        assert_eq!(paths(&sched), want, "{source}");
    }
    // Sockets do not belong to a pid namespace.
    let serve = Beside::new("\"$0\" serve -p $V --from-qmp $1/qmp --qmp $1/ours 2>/dev/null");
    let _running = serve.start_until("ours");
    let mut qmp =
        Qmp::connect(&serve.directory.path().join("ours")).expect("the server accepts the client");
    assert_eq!(paths(&qmp.execute("query-stats", json!({"target": "vcpu"}))), want);
}

#[test]
fn in_a_pid_namespace_the_threads_of_vcpus_are_qemus() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let sched = "\"$0\" query --json -z -p $V --from-qmp $1/qmp --provider sched > $1/new; \
                 mv $1/new $1/threads; sleep 60";
    let sched = Beside::new(sched);
    let _running = sched.start_until("threads");
    let threads = fs::read_to_string(sched.directory.path().join("threads"));
    let threads = parsed(&threads.expect("it was written"));
    let threads = list(&threads).iter().map(|result| {
        let thread = list(&result["stats"]).iter().find(|stat| stat["name"] == "thread_id");
        (result["qom-path"].to_string(), thread.expect("it has one")["value"].as_u64())
    });
    let mut qmp =
        Qmp::connect(&sched.directory.path().join("qmp")).expect("the server accepts the client");
    let cpus = qmp.execute("query-cpus-fast", Json::Null);
    let cpus = list(&cpus).iter();
    let want = cpus.map(|cpu| (cpu["qom-path"].to_string(), cpu["thread-id"].as_u64()));
    assert_eq!(threads.collect::<BTreeMap<_, _>>(), want.collect());
    // Without QEMU's names, one line has advice.
    let output = beside_a_qemu("\"$0\" query -p $V --provider sched");
    says(&output, 1, &["which threads run 3 of the vCPUs cannot be told in a pid namespace"]);
    assert!(output.stderr.contains("-name NAME,debug-threads=on"), "{output:?}");
    assert!(!output.stderr.contains("BPF reader"), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
}
