//! The time that a sampler takes to stop. A test binary of its own, because cargo runs one binary
//! after the other: nothing else of the workspace's tests runs beside what is timed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_core::Registry;
use vmstrobe_sampler::{Fanout, Health, MIN_RATE_HZ, Roster, Sampler, Timing};

/// The longest time that a stop may take: 50 ms by its contract, the rest is for the machine.
const STOP_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn a_sampler_that_sleeps_for_long_stops_in_time() {
    let (health, health_writer) = Health::new();
    let registry = Registry::default();
    registry.add(Arc::new(health));
    let filter = "sampler: ticks".parse().expect("the filter is well formed");
    let sources = Roster::new(registry, vec![filter]).open().expect("health can be opened");
    let (sampler, control) =
        Sampler::new(sources, health_writer, Fanout::Inline).expect("no thread is started");
    let timing = Timing::hz(MIN_RATE_HZ).expect("the lowest rate is a rate");
    let running = sampler.start(timing).expect("a thread can be started");
    // Time to fall asleep until the first deadline, a quarter of an hour from now.
    thread::sleep(Duration::from_millis(20));
    let before = Instant::now();
    control.stop();
    let sampler = running.stop().expect("the sampler's thread does not panic");
    assert!(before.elapsed() < STOP_LIMIT, "{:?}", before.elapsed());
    assert_eq!(sampler.health().counts().ticks, 0, "no deadline has passed");
}
