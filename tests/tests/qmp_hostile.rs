//! Clients that are hostile or broken: whatever one of them does, the server keeps its limits,
//! another client is answered nearly as soon as without it, and when it has gone the server holds
//! nothing for it any more.

mod qmp_hostile {
    mod bounds;
    mod harm;
    mod large;
    mod latency;
    mod neighbour;
}

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::serve::Serve;
use vmstrobe_tests::wire::Wire;

/// The most memory that the server may ever have had, whatever one client did.
const MEMORY_MAX_BYTES: u64 = 64 << 20;
/// The longest time for which the server may hold a client's resources after the client has gone.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// The lock under which one test runs at a time, because the tests measure time.
static ALONE: Mutex<()> = Mutex::new(());

/// A server of a QEMU at rest with 4 vCPUs, and what it took before anybody came.
struct Target {
    serve: Serve,
    before: Footprint,
    _observed: Observed,
    _alone: MutexGuard<'static, ()>,
}

impl Target {
    fn start(name: &str) -> Option<Target> {
        if !require_lending_qemu() {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let observed = Observed::start(&Plan { name, ..Plan::default() });
        let serve = observed.serve(0, &[]);
        // What the first client makes the server have, such as a thread that looks around.
        drop(serve.connect());
        let mut before = Footprint::of(&serve);
        wait_for("the first client is gone", GONE_LIMIT, || {
            let last = std::mem::replace(&mut before, Footprint::of(&serve));
            std::thread::sleep(Duration::from_millis(50));
            last == before && last == Footprint::of(&serve)
        });
        Some(Target { serve, before, _observed: observed, _alone: alone })
    }

    fn connect(&self) -> Wire {
        self.serve.connect()
    }

    /// The server has kept its bounds, holds nothing more than before, and answers.
    #[track_caller]
    fn is_well(&self) {
        self.is_well_within(MEMORY_MAX_BYTES);
    }

    /// Checks as [`Target::is_well`] does, but with this limit on memory: many clients take more.
    #[track_caller]
    fn is_well_within(&self, memory_max_bytes: u64) {
        let peak = status(&self.serve, "VmHWM") * 1024;
        assert!(peak <= memory_max_bytes, "{peak} bytes of memory at its peak");
        wait_for("nothing is left of the clients that have gone", GONE_LIMIT, || {
            Footprint::of(&self.serve) == self.before
        });
        let reply =
            self.connect().ask(br#"{"execute": "query-stats", "arguments": {"target": "vm"}}"#);
        let reply = reply.unwrap_or_else(|error| panic!("{error}; it said: {}", self.serve.said()));
        assert!(reply.starts_with(b"{\"return\": [{"), "{}", reply.escape_ascii());
        assert!(!self.serve.said().contains("panicked"), "{}", self.serve.said());
    }
}

/// The threads and file descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint {
    threads: u64,
    descriptors: usize,
}

impl Footprint {
    fn of(serve: &Serve) -> Footprint {
        let descriptors = format!("/proc/{}/fd", serve.pid());
        let descriptors = fs::read_dir(descriptors).expect("the server runs, and is ours").count();
        Footprint { threads: status(serve, "Threads"), descriptors }
    }
}

/// A number from /proc/PID/status; of memory, in KiB.
#[track_caller]
fn status(serve: &Serve, name: &str) -> u64 {
    let path = format!("/proc/{}/status", serve.pid());
    let text = fs::read_to_string(path).expect("the server runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is not in: {text}"))
}
