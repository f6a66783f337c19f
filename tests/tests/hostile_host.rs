//! Attacks by another user of the host on root's `vmstrobe`. It ends in time, it serves the other
//! VMs, and SIGTERM ends it, whatever that user's processes do.
//!
//! Each test has namespaces of its own, in which the attacker is uid 65534. Every wait has a limit,
//! and a process that hangs all the same ends with the namespace.

mod hostile_host {
    mod crowds;
    mod floods;
    mod forged;
    mod locked;
    mod stuck;
}

use std::sync::LazyLock;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vmstrobe_sampler::LOOK_PAUSE_MAX;
use vmstrobe_tests::command::Output;
use vmstrobe_tests::command::program;
use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::helper::Helper;
use vmstrobe_tests::host::namespace::run_in_namespaces;
use vmstrobe_tests::host::run;
use vmstrobe_tests::host::serve_dir::ServeDir;
use vmstrobe_tests::require::{require_fuse, require_kvm, require_namespaces};

static VMM: LazyLock<String> = LazyLock::new(|| program("vmm"));
static ATTACKER: LazyLock<String> = LazyLock::new(|| program("attacker"));

/// The longest time that a test may take in its namespaces.
const TEST_LIMIT: Duration = Duration::from_secs(80);
/// The longest time until a server that has just been started serves the VMs that are there.
const START_LIMIT: Duration = Duration::from_secs(15);
/// The longest time that `list` and `query` may take.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// The longest time until a VM that starts is served, and until a client is answered: a slow look,
/// which a busy machine makes slower, is followed by a pause of up to [`LOOK_PAUSE_MAX`].
const SERVE_LIMIT: Duration = LOOK_PAUSE_MAX.saturating_add(Duration::from_secs(5));
/// The longest time that `serve` may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Runs a test in namespaces of its own, if the machine lets it.
fn with_namespaces(test: &str, body: impl FnOnce()) {
    if require_kvm() && require_namespaces() {
        run_in_namespaces(test, TEST_LIMIT, body);
    }
}

/// Runs a test as [`with_namespaces`] does, one at a time, because it takes most of the machine's
/// time.
fn with_the_machine(test: &str, body: impl FnOnce()) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    with_namespaces(test, body);
}

/// Runs a test as [`with_namespaces`] does that needs a FUSE file system.
fn with_fuse(test: &str, body: impl FnOnce()) {
    if require_kvm() && require_namespaces() && require_fuse() {
        run_in_namespaces(test, TEST_LIMIT, body);
    }
}

/// Starts a VM of root.
fn vm(name: &str, vcpus: u32) -> Helper {
    Helper::start(&VMM, &["stats", &vcpus.to_string(), "-name", name])
}

/// Starts a program of the other user.
fn attacker(words: &[&str]) -> Helper {
    Helper::start(&ATTACKER, words)
}

/// Starts a server and waits until it serves the VM `web`, which has 4 vCPUs.
fn serving_web() -> ServeDir {
    let serve = ServeDir::all();
    assert_eq!(serve.serves_within(START_LIMIT, "web", 4), Ok(()));
    serve
}

/// Checks that the VM of this name is served with `vcpus` vCPUs.
fn is_served(found: &mut Findings, serve: &ServeDir, vm: &str, vcpus: usize) {
    found.note("serve", serve.serves_within(SERVE_LIMIT, vm, vcpus));
}

/// Checks that `list` ends in time and shows the VM `web`. Returns its output, if it ended.
fn list_shows_web(found: &mut Findings) -> Option<Output> {
    let list = found.note("list", run::vmstrobe(READ_LIMIT, &["list"]))?;
    found.must(list.stdout.contains("web"), || format!("list shows no web: {list:?}"));
    Some(list)
}

/// Checks that the server serves a VM that starts now and the first one, and that SIGTERM ends it.
fn goes_on_and_ends(found: &mut Findings, serve: &mut ServeDir) {
    let _late = vm("late", 2);
    is_served(found, serve, "late", 2);
    is_served(found, serve, "web", 4);
    found.note("serve", serve.terminate_within(END_LIMIT));
}

/// Returns true if the text has this number in it as a word.
fn names(text: &str, number: u32) -> bool {
    let number = number.to_string();
    text.split(|c: char| !c.is_ascii_digit()).any(|word| word == number)
}
