//! Requests made up at random, sent to a real QEMU and to servers of ours that look at it: the
//! replies are the same, byte for byte in `--qemu-order`.
//!
//! VMSTROBE_QMP_SEED says which requests, VMSTROBE_QMP_REQUESTS how many; a difference is reported
//! with both. What a seed gives also depends on which statistics QEMU has. First QEMU is held
//! against itself, so that a difference is never the harness's.

mod qmp_random {
    mod report;
    pub(crate) mod side;
}

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, io};

use serde_json::{Value as Json, json};
use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::replies::Alike;
use vmstrobe_tests::requests::{Requests, Vocabulary};
use vmstrobe_tests::require::{require_lending_qemu, require_qemu};
use vmstrobe_tests::wire::Wire;

use qmp_random::side::{Run, Side, compare};

const REQUESTS: u64 = 10_000;
/// The number of requests with which QEMU is held against itself.
const REQUESTS_OF_ITSELF: u64 = 600;
const REQUESTS_OUT_OF_BAND: u64 = 1000;
/// The number of requests in flight at once.
const WINDOW: u64 = 8;

/// A number that may be set from outside.
fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seed() -> u64 {
    setting("VMSTROBE_QMP_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        u64::from(since.subsec_nanos())
    })
}

/// A QEMU at rest whose counters are not all 0.
fn at_rest(name: &str, crypto_devices: &[&str], sockets: usize) -> Observed {
    let mut observed = Observed::start(&Plan { name, crypto_devices, sockets, ..Plan::default() });
    observed.run_a_while();
    observed
}

/// Requests in the words of this QEMU.
fn run(observed: &mut Observed) -> Run {
    let schemas = observed.qemu.execute("query-stats-schemas", Json::Null);
    let vcpus = observed.qemu.execute("query-stats", json!({"target": "vcpu"}));
    let seed = seed();
    let requests = Requests::new(seed, Vocabulary::new(&schemas, &vcpus));
    Run { requests, seed, count: REQUESTS, window: WINDOW }
}

#[test]
fn qemu_against_itself() {
    if !require_qemu() {
        return;
    }
    let mut observed = at_rest("itself", &[], 2);
    let run = Run { count: REQUESTS_OF_ITSELF, ..run(&mut observed) };
    let side = |name, i| Side::connect(name, Alike::Exactly, Wire::negotiated, observed.socket(i));
    compare(run, side("QEMU", 0), &mut [side("QEMU's other socket", 1)]);
}

/// Our servers in both modes against a QEMU with two crypto devices.
#[track_caller]
fn compare_ours(name: &str, connect: fn(&Path) -> io::Result<Wire>, adapt: fn(Run) -> Run) {
    if !require_lending_qemu() {
        return;
    }
    let mut observed = at_rest(name, &["c1", "zz"], 3);
    let run = adapt(run(&mut observed));
    let (default, exact) = (observed.serve(1, &[]), observed.serve(2, &["--qemu-order"]));
    let reference = Side::connect("QEMU", Alike::Exactly, connect, observed.socket(0));
    let mut ours = [
        Side::connect("vmstrobe serve", Alike::InAnyOrder, connect, default.socket()),
        Side::connect("vmstrobe serve --qemu-order", Alike::Exactly, connect, exact.socket()),
    ];
    compare(run, reference, &mut ours);
}

#[test]
fn our_servers_against_qemu() {
    let all = |run| Run { count: setting("VMSTROBE_QMP_REQUESTS").unwrap_or(REQUESTS), ..run };
    compare_ours("random", Wire::negotiated, all);
}

/// Replies to what is run out of band may come before others: one request at a time. None is
/// malformed: a text with several errors then comes to fill QEMU 10.0's queue of requests, and it
/// aborts.
#[test]
fn our_servers_against_qemu_out_of_band() {
    let some = |run: Run| {
        let requests = run.requests.well_formed();
        Run { requests, count: REQUESTS_OUT_OF_BAND, window: 1, ..run }
    };
    compare_ours("oob", Wire::with_oob, some);
}
