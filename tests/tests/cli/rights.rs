//! docs/rights.md compared with /proc: every thread of every command has the rights of the page,
//! and every thread on the page exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;
use serde_json::json;
use tempfile::TempDir;
use vmstrobe::fd_server::FdServer;
use vmstrobe::table::TableWriter;
use vmstrobe_tests::command::spawn_unread;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::rig::wait_for;

use crate::{LIMIT, require_root, vmstrobe};

use page::Page;
use seen::{Seen, Task, Watcher};

mod page;
mod seen;

/// Threads of the page that need not be seen here: there are too few objects for reading threads,
/// and the others exist only for the time of a few system calls.
const SELDOM_SEEN: [&str; 4] = ["vmstrobe-N", "vmstrobe-path", "vmstrobe-stats", "vmstrobe-dump"];
/// The capabilities of root that no command of ours needs.
const NEEDLESS: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SETUID);

/// The sources that the commands read.
struct Sources {
    directory: TempDir,
    qemu: Qemu,
    /// A recorder that is asked.
    _recorder: Reaped,
    _hand_over: FdServer,
}

impl Sources {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = directory.path().join("qmp");
        let qmp = format!("unix:{},server=on,wait=off", socket.display());
        let extra = ["-qmp", &qmp];
        let qemu = Qemu::start(&Config { name: "rights", paused: true, extra: &extra, vcpus: 3 });
        let hand_over = FdServer::listen(&directory.path().join("lent")).expect("the path is free");
        let table = TableWriter::new("rights").expect("there is memory for a table");
        hand_over.offer(Arc::new(table)).expect("the server runs");
        let run = directory.path().join("run.arrows").display().to_string();
        let recorded = vmstrobe(&["record", "--demo", "-d", "400ms", "-o", &run, "--no-control"]);
        assert_eq!(recorded.code, Some(0), "{recorded:?}");
        let control = directory.path().join("control");
        let line = ["record", "--target", "sampler", "--last", "9s", "--control"];
        let recorder = spawn_unread(&[&line[..], &[&control.to_string_lossy()]].concat());
        wait_for("the recorder listens", LIMIT, || Qmp::connect(&control).is_ok());
        Self { directory, qemu, _recorder: recorder, _hand_over: hand_over }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the command lines: each command at least once, and each kind of thread.
    fn lines(&self) -> Vec<Vec<String>> {
        let pid = self.qemu.pid();
        let names = ["qmp", "lent", "ours", "control", "a.arrows", "b.arrows", "run.arrows"];
        let paths = names.map(|name| self.path(name));
        let [qmp, lent, sock, control, a, b, run] = paths.each_ref().map(|path| path.display());
        let lines = [
            "list -v".to_owned(),
            format!("schema -p {pid}"),
            format!("query -p {pid} --bpf require"),
            format!("query --from-socket {lent} --target sampler"),
            format!("info stats vcpu -p {pid}"),
            format!("stat -p {pid} --bpf require -d 400ms"),
            format!("stat -p {pid} --bpf off -d 400ms"),
            format!("stat -p {pid} --from-qmp {qmp} -d 400ms"),
            format!("stat --from-socket {lent} --target sampler -d 400ms"),
            "stat --all --bpf off -d 400ms".to_owned(),
            "stat --demo --provider sched --bpf off -d 400ms".to_owned(),
            "stat --demo -- sleep 0.4".to_owned(),
            "demo -d 400ms --json".to_owned(),
            format!("top -p {pid} --bpf require -b -n 1 -i 400"),
            "top --demo --bpf off -b -n 1 -i 400".to_owned(),
            format!("top --replay {run} -b -n 2 -i 100"),
            format!("dump --control {control} -o {a}"),
            format!("mark --control {control} x"),
            format!("convert {a} {b}"),
            format!("report {run}"),
            format!("report -p {pid} --bpf require -d 400ms"),
            "report --demo -- sleep 0.4".to_owned(),
            format!("record --demo --overwrite -o {a} --no-control -- sleep 0.4"),
            format!("record -p {pid} --bpf require --overwrite -o {a} --control {sock}"),
            format!("record --demo --last 5s --control {sock}"),
            format!("serve -p {pid} --qmp {sock} --bpf require"),
            format!("serve --demo --qmp {sock}"),
            format!("query --replay {run}"),
            format!("stat --replay {run} --speed 1"),
            format!("serve --replay {run} --qmp {sock} --on-exit wait"),
        ];
        lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }
}

/// Runs a command to its end, or a server or recorder for two clients, and returns its threads as
/// they were seen.
fn run(line: &[String], socket: &Path) -> Seen {
    let args: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut child = spawn_unread(&args);
    let watcher = Watcher::start(child.id());
    if args[0] == "serve" || args.contains(&socket.to_str().expect("the path is text")) {
        ask(socket);
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a process has a number");
        kill_process(pid, Signal::TERM).expect("the process has not been reaped");
    }
    assert!(child.wait_within(LIMIT).is_some_and(|status| status.success()), "{}", said(child));
    watcher.end()
}

fn said(mut child: Reaped) -> String {
    let mut text = String::new();
    let stderr = child.stderr.as_mut().expect("the child's stream is a pipe");
    std::io::Read::read_to_string(stderr, &mut text).expect("the output is text");
    text
}

/// Queries a server once, and subscribes to its samples, so that all its threads exist.
fn ask(socket: &Path) {
    wait_for("the server listens", LIMIT, || Qmp::connect(socket).is_ok());
    let mut qmp = Qmp::connect(socket).expect("the server accepts the client");
    qmp.execute("query-stats", json!({"target": "vcpu"}));
    qmp.execute("stats-subscribe", json!({"target": "vcpu", "rate": 100, "batch": 10}));
    std::thread::sleep(std::time::Duration::from_millis(300));
}

/// Checks one thread, as it was seen last.
fn check(page: &Page, line: &[String], had: CapabilitySet, task: &Task) {
    let may = page.capabilities(line, &task.name);
    let may: Vec<CapabilitySet> = may.iter().map(|set| *set & had).collect();
    assert!(!may.is_empty(), "{line:?}: docs/rights.md does not name {task:?}");
    assert!(may.contains(&task.permitted), "{line:?}: {task:?} may only have {may:?}");
    assert_eq!(task.permitted, task.effective, "{line:?}: {task:?}");
    if task.name == "vmstrobe-launch" {
        return;
    }
    assert!(task.bounding.is_empty() && task.ambient.is_empty(), "{line:?}: {task:?}");
    assert!(task.inheritable.is_empty() && task.no_new_privs, "{line:?}: {task:?}");
    let has_filter = line[0] == "serve" || seen::has_filter();
    assert_eq!(task.has_filter, has_filter, "{line:?}: {task:?}");
}

#[test]
fn every_thread_of_every_command_has_the_rights_that_the_page_says() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let had = rustix::thread::capabilities(None)
        .expect("a thread may ask for its own capabilities")
        .permitted;
    assert!(had.intersects(NEEDLESS), "root without rights proves nothing: {had:?}");
    let (page, sources) = (Page::read(), Sources::new());
    let lines = sources.lines();
    let commands: BTreeSet<&str> = lines.iter().map(|line| &*line[0]).collect();
    assert_eq!(commands, page::commands(&vmstrobe(&["--help"]).stdout), "a command is left out");
    let mut names = BTreeSet::new();
    for line in &lines {
        let seen = run(line, &sources.path("ours"));
        for task in seen.tasks() {
            check(&page, line, had, task);
            names.insert(page::general(&task.name));
        }
    }
    names.extend(SELDOM_SEEN.map(str::to_owned));
    assert_eq!(page.names(), names, "docs/rights.md and what was seen");
}
