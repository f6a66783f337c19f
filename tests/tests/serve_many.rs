//! `vmstrobe serve` on a host that users share: one user's many virtual machines, names that
//! several claim, and a stop while the server has to wait.
//!
//! A test that needs other users' virtual machines runs in namespaces of its own, as another run of
//! this very program: see [`alone`]. Each virtual machine is again a process of this program.

use std::fs;
use std::io::{Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::fcntl_getpipe_size;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::json;
use tempfile::TempDir;
use vmstrobe_guest::{Irqchip, Vm};
use vmstrobe_tests::command::{binary, run_within};
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{require, require_kvm};
use vmstrobe_tests::rig::{own_kvm, wait_for};
use vmstrobe_tests::serve::Serve;

/// The variable with the directory of the virtual machines' processes; without it they are not
/// started by a test.
const PLACE: &str = "VMSTROBE_TEST_SERVE_MANY";
/// The user with many virtual machines, and their number, which is more than there are sockets.
const MANY: u32 = 65_534;
const COUNT: usize = 300;
/// The most sockets that `vmstrobe serve` gives to a user who is not trusted.
const SHARE: usize = 64;
/// The number of another user that is not trusted.
const OTHER: u32 = 65_533;
/// The time after which a virtual machine's process ends by itself.
const LIFE: Duration = Duration::from_secs(120);
/// The longest time that anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest time that a stop may take: a second, and the time that a busy machine needs to
/// start and reap a process.
const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// Runs a test of this program in pid and mount namespaces of its own, in which every user may use
/// /dev/kvm, and can run this program as `$D/self`.
fn alone(test: &str) {
    let place = TempDir::new().expect("a temporary directory can be made");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))
        .expect("this user owns the file");
    let script = "cp -a /dev/kvm $D/kvm && chmod 666 $D/kvm && mount --bind $D/kvm /dev/kvm \
                  && cp \"$0\" $D/self && chmod 755 $D/self && mkdir -m 777 $D/ready && \
                  mkdir $D/sockets && setpriv --reuid 65533 --clear-groups head -c0 /dev/kvm";
    let (place, this) = (place.path(), std::env::current_exe().expect("a program has a path"));
    let (place, this) = (place.display(), this.to_str().expect("the path is text"));
    let namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"];
    let prepare = format!("D={place}; {script}");
    let run = |script: &str| {
        run_within(3 * LIMIT, "unshare", &[&namespaces[..], &[script, this]].concat())
    };
    let prepared = run(&prepare);
    let why = format!("no other user can have a guest here: {}", prepared.stderr.trim());
    if !require("users-with-kvm", if prepared.code == Some(0) { Ok(()) } else { Err(why) }) {
        return;
    }
    // The mounts ended with that namespace, and the other files still exist.
    let again = format!(
        "export {PLACE}={place}; mount --bind {place}/kvm /dev/kvm && \
         exec \"$0\" --exact --nocapture {test}"
    );
    let output = run(&again);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("1 passed"), "{}{}", output.stdout, output.stderr);
}

/// Returns the directory of [`alone`], in a test that runs there.
fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).expect("only `alone` runs this"))
}

/// Starts a process of that user with a virtual machine of that name.
fn start(uid: u32, name: &str, vcpus: u32) -> Reaped {
    let child = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--clear-groups"])
        .arg(place().join("self"))
        .args(["--exact", "a_process_with_a_vm", "--", "-name", name])
        .env("VMSTROBE_TEST_VCPUS", vcpus.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Reaped(child.expect("the program can be executed"))
}

/// Returns the number of virtual machines that are ready.
fn ready() -> usize {
    fs::read_dir(place().join("ready")).expect("the directory is readable").count()
}

/// Returns the pids of a user's sockets, from their names.
fn served(uid: u32, name: &str) -> Vec<u32> {
    let begin = format!("{name}-uid{uid}-");
    let files = fs::read_dir(place().join("sockets")).expect("the directory is readable");
    let names = files.map(|file| file.expect("the directory is readable").file_name());
    let names = names.map(|name| name.into_string().expect("names are text"));
    names
        .filter_map(|file| file.strip_prefix(&begin)?.strip_suffix(".sock")?.parse().ok())
        .collect()
}

fn vcpus(socket: &Path) -> usize {
    let mut client = Qmp::connect(socket).expect("the server accepts the client");
    client.execute("query-stats", json!({"target": "vcpu"})).as_array().map_or(0, Vec::len)
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a pid is not 0");
    kill_process(pid, signal).expect("the process has not been reaped");
}

/// Holds a virtual machine until the process is killed, at most for [`LIFE`], when [`start`] runs
/// it; otherwise does nothing.
#[test]
fn a_process_with_a_vm() {
    if std::env::var_os(PLACE).is_none() {
        return;
    }
    let vcpus = std::env::var("VMSTROBE_TEST_VCPUS").expect("the variable is set");
    let vm = Vm::new(Irqchip::None).expect("KVM makes VMs");
    let vcpus: Vec<_> = (0..vcpus.parse().expect("the text is a number"))
        .map(|id| vm.vcpu(id).expect("KVM can make vCPUs"))
        .collect();
    let _kvm = own_kvm("vm", &vm, &vcpus);
    let ready = place().join("ready").join(std::process::id().to_string());
    fs::write(ready, "").expect("everyone may write there");
    thread::sleep(LIFE);
}

#[test]
fn a_user_with_many_vms_takes_no_socket_of_others() {
    let is_root = geteuid().is_root();
    let root = if is_root { Ok(()) } else { Err("this takes user id 0".to_owned()) };
    if require_kvm() && require("root", root) {
        binary();
        alone("many_of_one_user");
    }
}

/// Is run by [`a_user_with_many_vms_takes_no_socket_of_others`]; by itself it does nothing.
#[test]
fn many_of_one_user() {
    if std::env::var_os(PLACE).is_none() {
        return;
    }
    let mut many: Vec<Reaped> = (0..COUNT).map(|_| start(MANY, "web", 1)).collect();
    wait_for("all have their virtual machines", LIMIT, || ready() == COUNT);
    let sockets = place().join("sockets");
    let directory = sockets.to_str().expect("the path is text");
    let mut serve = Serve::spawn(&["--all", "--qmp-dir", directory, "--bpf", "off"]);
    wait_for("one user has a share", LIMIT, || served(MANY, "web").len() == SHARE);

    // Other users are served whatever that user has, also under a name that it has claimed before.
    let web = sockets.join("web.sock");
    assert!(!web.exists(), "no trusted user has that name yet");
    let other = start(OTHER, "other", 1);
    let _trusted = start(0, "web", 2);
    wait_for("another user is served", LIMIT, || served(OTHER, "other") == [other.id()]);
    serve.wait_for_socket(&web);
    assert_eq!(vcpus(&web), 2);
    assert_eq!(served(MANY, "web").len(), SHARE);

    // A free socket goes to a VM that waits.
    let before = served(MANY, "web");
    let ended = &before[..10];
    for vm in many.iter_mut().filter(|vm| ended.contains(&vm.id())) {
        vm.kill().expect("the child has not been reaped");
        vm.wait().expect("the child has not been reaped");
    }
    wait_for("the next VMs are served", LIMIT, || {
        let now = served(MANY, "web");
        now.len() == SHARE && !now.iter().any(|pid| ended.contains(pid))
    });
    serve.wait_for_text("no socket for");
    let said = serve.said();
    let told: Vec<&str> = said.lines().filter(|line| line.contains("no socket for")).collect();
    assert_eq!(told.len(), 1, "{said}");
    assert!(told[0].contains(&format!("and {} more", COUNT - SHARE - 1)), "{said}");

    signal(serve.pid(), Signal::TERM);
    let status = serve.wait_within(STOP_LIMIT).expect("the process ends in time");
    assert_eq!(status.code(), Some(0), "{}", serve.said());
    assert_eq!(fs::read_dir(&sockets).expect("the directory is readable").count(), 0);
}

/// Starts a server that hangs because its output is not read. Returns it with the directory of its
/// socket and the pipe that is full.
fn hanging() -> (Reaped, TempDir, std::io::PipeReader) {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let socket = directory.path().join("socket");
    let (reader, mut writer) = pipe().expect("there are free descriptors");
    let size = fcntl_getpipe_size(&writer).expect("a pipe has a size");
    writer.write_all(&vec![b'.'; size]).expect("an empty pipe has room for its size");
    let child = Command::new(binary())
        .args(["serve", "--demo", "--bpf", "off", "--qmp"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn();
    let serve = Reaped(child.expect("the program can be executed"));
    wait_for("the server has its socket", LIMIT, || socket.exists());
    // Time in which the server writes its first message, and has to wait.
    thread::sleep(Duration::from_millis(300));
    (serve, directory, reader)
}

/// Sends the signals at these intervals. Returns the status, and the time from the first signal to
/// the end.
fn stopped(signals: &[Signal], pause: Duration) -> (ExitStatus, Duration) {
    let (mut serve, directory, _reader) = hanging();
    let begin = Instant::now();
    for (index, one) in signals.iter().enumerate() {
        if index > 0 {
            thread::sleep(pause);
        }
        signal(serve.id(), *one);
    }
    let status = serve.wait_within(LIMIT).expect("the process ends in time");
    let took = begin.elapsed();
    assert_eq!(
        fs::read_dir(directory.path()).expect("the directory is readable").count(),
        0,
        "{status:?}"
    );
    (status, took)
}

#[test]
fn a_server_that_hangs_ends_in_time_and_leaves_no_socket() {
    if !require_kvm() {
        return;
    }
    for one in [Signal::TERM, Signal::INT] {
        let (status, took) = stopped(&[one], Duration::ZERO);
        assert_eq!(status.code(), Some(0), "{one:?}");
        assert!(took < STOP_LIMIT, "{took:?}");
    }
    // timeout(1) and sudo(8) send a signal twice, which does not count as a second one.
    let (status, _) = stopped(&[Signal::TERM, Signal::TERM], Duration::from_millis(5));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    if !require_kvm() {
        return;
    }
    for (one, code) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let (status, _) = stopped(&[Signal::TERM, one], Duration::from_millis(200));
        assert_eq!(status.code(), Some(code));
    }
}
