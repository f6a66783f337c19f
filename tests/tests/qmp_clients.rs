//! Foreign QMP clients with our server: `qemu.qmp`, which is QEMU's own library for Python, its
//! `qmp-shell`, and Rust's `qapi`. Each receives from our server what it receives from the QEMU
//! that our server reads.

mod qmp_clients {
    mod library;
    mod plot;
    mod shell;
    mod typed;
}

use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::serve::Serve;

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
