//! Refusals name their true reason: another user, which capability, a process that is not dumpable,
//! seccomp, limits, a socket, a device, a QEMU that is stopped. With real processes that are
//! refused in each of these ways.

use std::fs;
use std::os::unix::net::UnixListener;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vmstrobe_tests::command::run_within;
use vmstrobe_tests::qemu::{Config, Qemu, version};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{bpf, require, require_kvm, require_lending_qemu};

use super::attach::alone;
use crate::{LIMIT, Nobody, fine, paused_qemu, require_root, says, under, vmstrobe};

const BOTH: &str = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH";

#[test]
fn exactly_the_missing_capability_is_named() {
    if !require_root() {
        return;
    }
    let Some((_qemu, pid)) = paused_qemu("capabilities", 1) else { return };
    let nobody = Nobody::new();
    let query = ["query", "-z", "-p", &pid, "--bpf", "off"];
    for (has, lacks) in [
        ("+sys_ptrace", "CAP_DAC_READ_SEARCH"),
        ("+dac_read_search", "CAP_SYS_PTRACE"),
        ("+net_admin", BOTH),
    ] {
        let output = nobody.vmstrobe_with(has, &query);
        let what = format!("which runs as user 65534, lacks {lacks}: run vmstrobe as root, or ");
        says(&output, 1, &["it belongs to user 0, and vmstrobe", &what]);
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    fine(&nobody.vmstrobe_with("+sys_ptrace,+dac_read_search", &query));
    // Root without the capability is refused, and there is no advice to become root.
    let root = ["setpriv", "--bounding-set=-sys_ptrace,-dac_read_search", "--inh-caps=-all", "--"];
    let output = under(&root, &query);
    says(
        &output,
        1,
        &["it has capabilities that vmstrobe has not", "lacks CAP_SYS_PTRACE: give it"],
    );
    assert!(output.stderr.contains("(what it runs in withholds them: --cap-add"), "{output:?}");
    assert!(!output.stderr.contains("as root"), "{output:?}");
}

#[test]
fn a_qemu_that_changed_its_user_is_not_another_users() {
    let is_new = version().is_ok_and(|version| version >= (9, 1));
    let is_new = if is_new { Ok(()) } else { Err("QEMU before 9.1".to_owned()) };
    if !require_root() || !require_lending_qemu() || !require("run-with", is_new) {
        return;
    }
    let extra = ["-run-with", "user=nobody"];
    let qemu = Qemu::start(&Config { name: "changed", extra: &extra, ..Config::default() });
    let output = Nobody::new().vmstrobe(&["query", "-p", &qemu.pid().to_string()]);
    let what = "it belongs to user 65534, as vmstrobe does, but has changed its user or gained";
    says(&output, 1, &[what, "(it is not dumpable)", &format!("lacks {BOTH}")]);
}

/// Runs a command under a filter that makes one system call fail with an errno.
const FILTER: &str = r"
import ctypes, os, struct, sys
call, errno = int(sys.argv[1]), int(sys.argv[2])
code = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (6, 0, 0, 0x50000 | errno), (6, 0, 0, 0x7fff0000)]
code = b''.join(struct.pack('HBBI', *one) for one in code)
buffer = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('code', ctypes.c_void_p)]
program = Program(len(code) // 8, ctypes.addressof(buffer))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit('no filter: %d' % ctypes.get_errno())
os.execv(sys.argv[3], sys.argv[3:])
";
/// The numbers of `pidfd_getfd`, of `pidfd_open` and of `bpf` on x86-64.
const GETFD: &str = "438";
const OPEN: &str = "434";
const BPF: &str = "321";
const EPERM: &str = "1";
const ENOSYS: &str = "38";

#[test]
fn a_seccomp_filter_is_told_from_a_missing_capability() {
    let python = run_within(LIMIT, "python3", &["-c", "import ctypes"]);
    let python = if python.code == Some(0) { Ok(()) } else { Err("no python3".to_owned()) };
    let is_x86 = cfg!(target_arch = "x86_64");
    let is_x86 = if is_x86 { Ok(()) } else { Err("not x86-64".to_owned()) };
    if !require("python3", python) || !require("x86-64", is_x86) || !require_root() {
        return;
    }
    let Some((_qemu, pid)) = paused_qemu("filtered", 1) else { return };
    let filtered = |call: &str, errno: &str, args: &[&str]| {
        under(&["python3", "-c", FILTER, call, errno], args)
    };
    let query = ["query", "-z", "-p", &pid, "--bpf", "off"];
    let has_all = "vmstrobe has the rights for it, so that a seccomp filter of a container";
    for (call, errno, parts) in [
        (GETFD, EPERM, ["cannot be borrowed from: ", has_all, "let the filter allow pidfd_getfd"]),
        (GETFD, ENOSYS, ["cannot be borrowed from: ", "older than 5.6", "allow pidfd_getfd"]),
        (OPEN, EPERM, ["cannot be opened: ", has_all, "let the filter allow pidfd_open"]),
    ] {
        let output = filtered(call, errno, &query);
        says(&output, 1, &parts);
        assert!(!output.stderr.contains("CAP_"), "{output:?}");
    }
    let output = filtered(BPF, EPERM, &["query", "-p", &pid, "--bpf", "require"]);
    says(
        &output,
        1,
        &["let vmstrobe use BPF: ", "so that a seccomp filter of a", "allow bpf; see"],
    );
}

#[test]
fn a_limit_of_descriptors_is_named_with_its_number() {
    if !require_kvm() {
        return;
    }
    // The limit does not count descriptors that the test's parent has left open; the loader takes
    // the fourth.
    let script = "exec 3>&- && ulimit -n 4 && exec \"$0\" \"$@\"";
    let output = under(&["sh", "-c", script], &["list"]);
    let what = "Too many open files (os error 24): vmstrobe may have 4 open files (hard limit 4)";
    says(&output, 1, &[what, "raise the limit (ulimit -Hn, LimitNOFILE=)"]);
}

#[test]
fn a_missing_device_and_a_forbidden_one_have_different_errors() {
    if !require_root() || !require_kvm() {
        return;
    }
    let script = "mount -t tmpfs none /dev && exec \"$0\" \"$@\"";
    let missing = under(&["unshare", "--mount", "sh", "-c", script], &["query", "--demo"]);
    says(&missing, 1, &["/dev/kvm cannot be opened: there is no such device: "]);
    let script = "touch /run/kvm.$$ && chmod 600 /run/kvm.$$ && mount --bind /run/kvm.$$ /dev/kvm \
                  && rm -f /run/kvm.$$; exec \"$@\"";
    let nobody = Nobody::new();
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let closed = nobody.by(&[&wrapper[..], &Nobody::WRAPPER].concat(), &["query", "--demo"]);
    says(&closed, 1, &["permission denied: it belongs to user 0 and group 0, with mode 0600: add"]);
}

/// A paused QEMU with a second QMP socket that has no client.
fn second_socket(name: &str) -> Option<(Qemu, TempDir, String)> {
    if !require_lending_qemu() {
        return None;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let socket = directory.path().join("second").to_str().expect("the path is text").to_owned();
    let extra = ["-qmp", &*format!("unix:{socket},server=on,wait=off")];
    let qemu = Qemu::start(&Config { name, extra: &extra, paused: true, ..Config::default() });
    Some((qemu, directory, socket))
}

#[test]
fn a_stopped_qemu_and_a_busy_one_have_different_errors() {
    let Some((qemu, _directory, socket)) = second_socket("stopped") else { return };
    let pid = Pid::from_raw(qemu.pid().cast_signed()).expect("the pid is not 0");
    kill_process(pid, Signal::STOP).expect("the process has not been reaped");
    let output = vmstrobe(&["query", "--from-qmp", &socket]);
    let what = format!(
        "QEMU sends no QMP greeting at {socket} within 2s: its process, pid {}",
        qemu.pid()
    );
    says(&output, 1, &[&what, "is stopped (state T): let it go on (kill -CONT "]);
    assert!(!output.stderr.contains("another client"), "{output:?}");
    kill_process(pid, Signal::CONT).expect("the process has not been reaped");
    let other = Qmp::connect(socket.as_ref()).expect("the server continues");
    let output = vmstrobe(&["query", "--from-qmp", &socket]);
    says(&output, 1, &["another client has the socket", "or QEMU hangs (its process, pid "]);
    drop(other);
    fine(&vmstrobe(&["query", "-z", "--from-qmp", &socket, "--target", "vm"]));
}

#[test]
fn a_process_that_only_made_the_socket_is_not_called_qemu() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let socket = directory.path().join("silent");
    // A socket as libvirt makes it, and gives it to a QEMU that is stopped.
    let _listening = UnixListener::bind(&socket).expect("the path is free");
    let output = vmstrobe(&["query", "--from-qmp", socket.to_str().expect("the path is text")]);
    let what = format!("(the process that made the socket listen, pid {} (", std::process::id());
    says(&output, 1, &["another client has the socket", &what, "QEMU itself may be stopped)"]);
}

#[test]
fn a_socket_of_another_user_names_its_owner() {
    if !require_root() {
        return;
    }
    let Some((_qemu, directory, socket)) = second_socket("closed") else { return };
    let nobody = Nobody::new();
    let query = ["query", "--from-qmp", &socket];
    let set_mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(directory.path(), mode).expect("this user owns the file");
    };
    set_mode(0o700);
    let folder = directory.path().display();
    let what = format!("cannot connect to {socket}: the directory {folder} belongs to user 0 and");
    says(
        &nobody.vmstrobe(&query),
        1,
        &[&what, "which does not let it through: run vmstrobe as root"],
    );
    set_mode(0o755);
    let output = nobody.vmstrobe(&query);
    says(&output, 1, &["it belongs to user 0 and group 0, with mode 0", "may not write to it"]);
}

#[test]
fn a_vm_without_vcpus_is_reported_as_such() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let output = alone(
        "qemu-system-x86_64 -accel kvm -machine q35 -m 64 -nodefaults -no-user-config -preconfig \
         -display none -name early 2>/dev/null &\n\
         until \"$0\" list 2>/dev/null | grep early; do sleep 0.05; done",
    );
    let how = if bpf().is_ok() { "it has no vCPU yet" } else { "cannot be read" };
    assert!(output.stdout.contains(how), "{output:?}");
    assert!(!output.stdout.contains("through its vCPU descriptors"), "{output:?}");
}
