//! The time that a guest takes to stop. A test binary of its own, because cargo runs one binary
//! after the other: nothing else of the workspace's tests runs beside what is timed.

use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_guest::{DemoGuest, usable};
use vmstrobe_require::require;

/// The longest time that a stop may take: a vCPU returns every 40 ms, the rest is for the machine.
const STOP_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn a_running_guest_stops_in_time() {
    if !require("kvm", usable()) {
        return;
    }
    let mut guest = DemoGuest::new(4).expect("KVM is usable");
    guest.start().expect("the guest was stopped");
    let deadline = Instant::now() + Duration::from_secs(10);
    while (0..4).any(|vcpu| guest.exits_seen(vcpu) == 0) {
        assert!(Instant::now() < deadline, "each vCPU runs within 10 s");
        thread::sleep(Duration::from_millis(5));
    }
    let before = Instant::now();
    guest.stop().expect("the guest was running");
    assert!(before.elapsed() < STOP_LIMIT, "{:?}", before.elapsed());
}
