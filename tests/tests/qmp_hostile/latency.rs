//! The time that a filtered query takes: alone, beside a harmful client, and alone again.

use std::num::NonZero;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::rig::show;
use vmstrobe_tests::wire::Wire;

use super::harm::Harm;
use crate::{Target, status};

/// The most that a harmful client may multiply the time of another.
pub(super) const RATIO_MAX: f64 = 2.0;
/// The time for which each part of a round is measured.
const PART: Duration = Duration::from_millis(120);
/// The time for which the harmful client has run when measuring begins.
const SETTLING: Duration = Duration::from_millis(60);
/// The rounds, of which more than half have to be good, because the machine may be busy in any one.
const ROUNDS: usize = 9;

const QUERY: &[u8] =
    b"{\"execute\": \"query-stats\", \"arguments\": {\"target\": \"vcpu\", \"providers\": \
    [{\"provider\": \"kvm\", \"names\": [\"exits\", \"halt_wait_ns\"]}]}}\n";

/// The median of how long queries take now.
#[track_caller]
pub(super) fn median(client: &mut Wire) -> Duration {
    let (end, mut times) = (Instant::now() + PART, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        client.send(QUERY).expect("the server takes it");
        let reply = client.line().expect("the server answers");
        times.push(begin.elapsed());
        assert!(reply.starts_with(b"{\"return\": [{"), "{}", reply.escape_ascii());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Keeps all CPUs busy with what makes way for anything else: a CPU that has gone to sleep takes
/// longer to answer than one that somebody else's doings keep awake.
pub(super) fn keep_awake() -> Vec<Reaped> {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let spin = || {
        let mut command = Command::new("nice");
        command.args(["-n", "19", "sh", "-c", "while :; do :; done"]);
        Reaped(command.spawn().expect("a shell starts"))
    };
    (0..cpus).map(|_| spin()).collect()
}

/// Checks that another client is answered within [`RATIO_MAX`] of the time beside the harmful one.
#[track_caller]
pub(super) fn others_hardly_notice(what: &str, harm: Harm) {
    let Some(target) = Target::start(what) else { return };
    let (mut client, _awake) = (target.connect(), keep_awake());
    median(&mut client);
    let (mut good, mut ratios, mut taken) = (0, Vec::new(), 0);
    while good <= ROUNDS / 2 && ratios.len() < ROUNDS {
        let before = median(&mut client);
        let stop = AtomicBool::new(false);
        let during = thread::scope(|scope| {
            let harm = scope.spawn(|| harm(target.serve.socket(), &stop));
            thread::sleep(SETTLING);
            let during = median(&mut client);
            stop.store(true, Relaxed);
            taken += harm.join().expect("the thread does not panic");
            during
        });
        let alone = (before + median(&mut client)) / 2;
        let ratio = during.as_secs_f64() / alone.as_secs_f64();
        good += usize::from(ratio <= RATIO_MAX);
        ratios.push(ratio);
    }
    let peak_kib = status(&target.serve, "VmHWM");
    show(&format!(
        "{what}: {ratios:.2?} times as long; {taken} bytes sent; {peak_kib} KiB at its peak"
    ));
    assert!(taken > 0, "there were no operations");
    assert!(good > ROUNDS / 2, "{what}: {ratios:.2?} times as long");
    drop(client);
    target.is_well();
}
