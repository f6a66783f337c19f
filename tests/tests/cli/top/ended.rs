//! A virtual machine that ends while it is shown.

use std::process::Command;

use vmstrobe_tests::command::binary;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::{require_kvm, require_tmux};
use vmstrobe_tests::tmux::Tmux;

use super::row_of;

/// The keys of the help that are tested here.
pub(super) const KEYS: &[&str] = &["Del"];

/// Starts a process with the demo's guest.
fn guest() -> Reaped {
    let mut command = Command::new(binary());
    command.args(["serve", "--demo", "--qmp"]);
    let socket = std::env::temp_dir().join(format!("vmstrobe-top-{}.sock", std::process::id()));
    command.arg(socket).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Reaped(command.spawn().expect("the program can be executed"))
}

#[test]
fn an_ended_vm_is_kept_until_it_is_dismissed() {
    if !require_kvm() || !require_tmux() {
        return;
    }
    let mut guest = guest();
    let pid = guest.id().to_string();
    let script = format!("for i in 1 2 3 4 5 6 7 8 9; do vmstrobe top -p {pid}; sleep 0.3; done");
    let tmux = Tmux::open((100, 24), &script);
    tmux.wait("its vCPUs", |screen| screen.iter().any(|line| row_of(line) == Some("3")));
    // The process of a VM is known by its number.
    tmux.text("p");
    tmux.wait_for("process id: ");
    tmux.text(&pid);
    tmux.keys(&["Enter"]);
    tmux.wait("its VM alone", |screen| screen[0].contains("filter \"/^"));
    tmux.text("c");
    guest.kill().expect("it runs");
    let screen = tmux.wait_for("; Del");
    assert!(screen.iter().any(|line| line.contains("ended ")), "{screen:?}");
    tmux.keys(&["DC"]);
    tmux.wait("it is dismissed", |screen| !screen.iter().any(|line| line.contains("; Del")));
}
