//! Foreign QMP clients with our server: `qemu.qmp`, which is QEMU's own library for Python, its
//! `qmp-shell`, and Rust's `qapi`. Each receives from our server what it receives from the QEMU
//! that our server reads.

mod qmp_clients {
    mod library;
    mod plot;
    mod shell;
    mod typed;
}

use std::env;
use std::path::PathBuf;

use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::require::{require, require_lending_qemu};
use vmstrobe_tests::serve::Serve;

/// The environment variable that names a directory with a Python that has `qemu.qmp`.
const PYTHON_ENV: &str = "VMSTROBE_PYTHON";

/// Returns the path of a program of that Python: the interpreter or `qmp-shell`.
fn python_program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    // ci/install.sh has made it, beside target/<profile>/deps.
    let made =
        test.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("python");
    env::var_os(PYTHON_ENV).map_or(made, PathBuf::from).join("bin").join(name)
}

/// Starts a stopped QEMU that has run, with a crypto device and a socket for a client, and a server
/// of it in QEMU's order; `None` if there is no such QEMU.
fn both(name: &str) -> Option<(Observed, Serve)> {
    if !require_lending_qemu() {
        return None;
    }
    let plan = Plan { name, vcpus: 2, crypto_devices: &["c0"], sockets: 2 };
    let mut observed = Observed::start(&plan);
    observed.run_a_while();
    let serve = observed.serve(1, &["--qemu-order"]);
    Some((observed, serve))
}

/// Returns true if `qemu.qmp` is installed for these tests, which ci/install.sh does if it can.
fn require_library() -> bool {
    let shell = python_program("qmp-shell");
    let there = shell.metadata().map(drop).map_err(|error| format!("{}: {error}", shell.display()));
    require("qemu.qmp", there)
}
