//! Without the right to load programs, and if the host refuses it: a VM of the own process is read
//! by pread, one line says why, and a user that requires the BPF reader is told which rights it
//! needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::geteuid;
use serde_json::Value as Json;
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, RUN_LIMIT, binary, run_within};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require, require_kvm, require_lending_qemu};

use crate::fine;

/// The wrapper that drops the rights to load programs, and no others.
const WITHOUT: [&str; 4] =
    ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all", "--"];
/// The wrapper that drops one of these two rights.
const WITHOUT_BPF: [&str; 4] =
    ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-all", "--"];
const WITHOUT_PERFMON: [&str; 4] =
    ["setpriv", "--bounding-set=-perfmon,-sys_admin", "--inh-caps=-all", "--"];
/// The wrapper in which root has all rights in a user namespace of its own, where the kernel
/// ignores them.
const ELSEWHERE: [&str; 2] = ["unshare", "-Ur"];

/// A script that runs a program as user 65534, which may use KVM and nothing else: in a mount
/// namespace where /dev/kvm is open to all users.
const NOBODY: &str = "cp -a /dev/kvm \"$0/kvm\" && chmod 666 \"$0/kvm\" && \
     mount --bind \"$0/kvm\" /dev/kvm && \
     exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all -- \"$@\"";

fn require_root() -> bool {
    let root = geteuid().is_root();
    require("root", if root { Ok(()) } else { Err("this takes user id 0".to_owned()) })
}

/// A program that runs another with fewer rights, and a copy of vmstrobe that any user may run.
struct Less {
    wrapper: Vec<String>,
    directory: TempDir,
}

impl Less {
    /// Returns the wrapper; `None` if the host does not permit it.
    fn by(wrapper: &[&str]) -> Option<Less> {
        let less = Less::of(wrapper);
        let probe = less.run("true", &[]);
        let may = if probe.code == Some(0) { Ok(()) } else { Err(probe.stderr) };
        require(wrapper[0], may).then_some(less)
    }

    fn of(wrapper: &[&str]) -> Less {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let all_may = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all_may).expect("this user owns the file");
        let copy = directory.path().join("vmstrobe");
        fs::copy(binary(), copy).expect("the directory is writable");
        Less { wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(), directory }
    }

    /// Returns the wrapper [`NOBODY`]; `None` if the host does not let it open /dev/kvm.
    fn nobody() -> Option<Less> {
        let mut less = Less::of(&["unshare", "--mount", "sh", "-c", NOBODY]);
        less.wrapper.push(less.directory.path().to_str().expect("the path is text").to_owned());
        let probe = less.run("sh", &["-c", ": <>/dev/kvm"]);
        let may = if probe.code == Some(0) { Ok(()) } else { Err(probe.stderr) };
        require("kvm-for-nobody", may).then_some(less)
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let wrapper = self.wrapper.iter().map(String::as_str);
        let line: Vec<&str> = wrapper.chain([program]).chain(args.iter().copied()).collect();
        run_within(RUN_LIMIT, line[0], &line[1..])
    }

    #[track_caller]
    fn vmstrobe(&self, args: &[&str]) -> Output {
        let path: PathBuf = self.directory.path().join("vmstrobe");
        let output = self.run(path.to_str().expect("the path is text"), args);
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        output
    }
}

const BOTH: &str = "it takes CAP_BPF and CAP_PERFMON";

/// A VM of the own process is read by pread, and one line has the reason; requiring the BPF reader
/// fails.
#[track_caller]
fn reads_by_pread(less: &Less, reason: &str) {
    let reason = format!("BPF reader: the kernel does not let vmstrobe use BPF: {reason}");
    let output = less.vmstrobe(&["demo", "-d", "1s", "--json"]);
    fine(&output);
    let summary: Json = serde_json::from_str(&output.stdout).expect("the text is JSON");
    let read = &summary["read"];
    assert_eq!((&read["method"], &read["bpf"]), (&"pread".into(), &"refused".into()), "{read}");
    assert!(read["reason"].as_str().is_some_and(|text| text.starts_with(&reason)), "{read}");
    assert_eq!((&summary["unread_rows"], &summary["vcpus"]), (&0.into(), &4.into()), "{summary}");
    assert!(summary["ticks"].as_u64() > Some(20), "{summary}");
    for args in [&["demo"][..], &["stat", "--demo", "--names", "exits"]] {
        let output = less.vmstrobe(&[args, &["-d", "300ms"]].concat());
        fine(&output);
        assert_eq!(output.stdout.matches(&reason).count(), 1, "{args:?}: {output:?}");
        assert!(output.stdout.lines().any(|line| line.contains("one pread")), "{output:?}");
    }
    fine(&less.vmstrobe(&["query", "--demo", "--names", "exits"]));
    for args in [&["demo", "-d", "100ms"][..], &["stat", "--demo", "-d", "100ms"]] {
        let output = less.vmstrobe(&[args, &["--bpf", "require"]].concat());
        assert_eq!((output.code, &*output.stdout), (Some(1), ""), "{args:?}: {output:?}");
        let said = &output.stderr;
        assert!(said.starts_with("vmstrobe: --bpf require: "), "{said}");
        assert!(said.contains("CAP_BPF and CAP_PERFMON"), "it does not say what to do: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn root_without_the_capabilities_reads_by_pread() {
    if !require_kvm() || !require_root() {
        return;
    }
    for (wrapper, lacks) in [
        (&WITHOUT, "CAP_BPF and CAP_PERFMON"),
        (&WITHOUT_BPF, "CAP_BPF"),
        (&WITHOUT_PERFMON, "CAP_PERFMON"),
    ] {
        let Some(less) = Less::by(wrapper) else { return };
        reads_by_pread(&less, &format!("{BOTH}, and vmstrobe lacks {lacks}: run it as root"));
    }
}

#[test]
fn a_user_without_rights_reads_by_pread() {
    if !require_kvm() || !require_root() {
        return;
    }
    let Some(nobody) = Less::nobody() else { return };
    reads_by_pread(&nobody, &format!("{BOTH}, and vmstrobe lacks CAP_BPF and CAP_PERFMON: "));
}

#[test]
fn root_of_a_user_namespace_reads_by_pread() {
    if !require_kvm() || !require_root() {
        return;
    }
    let Some(elsewhere) = Less::by(&ELSEWHERE) else { return };
    reads_by_pread(&elsewhere, &format!("{BOTH} in the first user namespace, and vmstrobe runs"));
}

/// A VM of another process: its statistics descriptors are read, and the BPF reader is reported as
/// closed.
#[test]
fn list_names_the_missing_rights() {
    if !require_lending_qemu() || !require_root() {
        return;
    }
    let Some(less) = Less::by(&WITHOUT) else { return };
    let config = Config { name: "closed", vcpus: 2, paused: true, ..Config::default() };
    let qemu = Qemu::start(&config);
    let output = less.vmstrobe(&["list", "-v", "--json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let entries: Json = serde_json::from_str(&output.stdout).expect("the text is JSON");
    let ours = crate::list(&entries).iter().find(|entry| entry["pid"] == qemu.pid());
    let ours = ours.expect("the list has the running VM");
    let way = |name: &str| {
        let way = crate::list(&ours["methods"]).iter().find(|way| way["method"] == name);
        way.unwrap_or_else(|| panic!("no way {name}: {ours}")).clone()
    };
    assert_eq!((&ours["readable"], &way("pread")["open"]), (&true.into(), &true.into()));
    let bpf = way("bpf");
    assert_eq!(bpf["open"], false, "{ours}");
    let why = bpf["reason"].as_str().expect("the value is a string");
    assert!(why.contains("CAP_BPF and CAP_PERFMON"), "{why}");
    let pid = qemu.pid().to_string();
    fine(&less.vmstrobe(&["query", "-p", &pid, "--names", "exits"]));
}
