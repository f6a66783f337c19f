//! The loads of the demo: the time that a vCPU sleeps, and the work that it does on waking, as pure
//! functions of its number and the time.
//!
//! Invariant: a sleep lasts [`PERIOD_NS_MIN`] to [`PERIOD_NS_MAX`]. The upper bound limits the time
//! that stopping the guest takes; the lower one is above the kernel's default halt polling (200
//! us), which would use a whole CPU to wait for shorter sleeps.
//!
//! vCPU 0 to 3 have a shape each; vCPU 4 to 7 repeat them somewhat later, and so on. Four vCPUs
//! make about 12 000 port exits a second on average: a fifth of a CPU where KVM emulates real mode
//! in software, and less elsewhere.

/// The shortest sleep.
pub(crate) const PERIOD_NS_MIN: u32 = 500_000;
/// The longest sleep.
pub(crate) const PERIOD_NS_MAX: u32 = 40 * NS_PER_MS as u32;

const NS_PER_MS: u64 = 1_000_000;

/// The delay of each further group of four vCPUs, which runs through the same shapes.
const PHASE_MS: u64 = 700;

/// The next action of a vCPU: a sleep, and port writes when it wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// The time for which it sleeps, in ns.
    pub(crate) period_ns: u32,
    /// The number of port writes that it makes on waking.
    pub(crate) outs: u16,
}

/// Returns the load of vCPU `vcpu` when the guest has been running for `elapsed_ns`.
pub(crate) fn load(vcpu: u32, elapsed_ns: u64) -> Load {
    let now_ms = elapsed_ns / NS_PER_MS + u64::from(vcpu / 4) * PHASE_MS;
    match vcpu % 4 {
        0 => steady(),
        1 => square(now_ms % 3_000),
        2 => saw_tooth(now_ms % 4_000),
        _ => rare_burst(now_ms % 5_000),
    }
}

/// Returns a description of the load of vCPU `vcpu`, one line for users.
pub(crate) fn describe(vcpu: u32) -> &'static str {
    match vcpu % 4 {
        0 => "steady: sleeps 1 ms, makes 2 port writes, and again",
        1 => "square wave: 1.5 s busy, 1.5 s quiet",
        2 => "saw-tooth: its sleeps shrink from 20 ms to 1 ms within 4 s, then start over",
        _ => "nearly idle: sleeps of 40 ms, and a burst of 0.25 s every 5 s",
    }
}

/// Returns a constant load, which is a flat line in every chart.
fn steady() -> Load {
    Load { period_ns: 1_000_000, outs: 2 }
}

/// Returns a load in steps, which fill two distant buckets of the halt histogram.
fn square(at_ms: u64) -> Load {
    if at_ms < 1_500 {
        Load { period_ns: 1_000_000, outs: 6 }
    } else {
        Load { period_ns: 20_000_000, outs: 0 }
    }
}

/// Returns a load whose wake-ups per second grow linearly, and so do its rates.
fn saw_tooth(at_ms: u64) -> Load {
    let wakeups_per_s = 50 + at_ms * 950 / 4_000;
    Load { period_ns: (1_000 * NS_PER_MS / wakeups_per_s) as u32, outs: 4 }
}

/// Returns a low load with a short burst, which only a fast sampler shows.
fn rare_burst(at_ms: u64) -> Load {
    // The burst is not at the start of the demo, where it would look like a busy vCPU.
    if (3_000..3_250).contains(&at_ms) {
        Load { period_ns: PERIOD_NS_MIN, outs: 8 }
    } else {
        Load { period_ns: PERIOD_NS_MAX, outs: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn over_a_minute(vcpu: u32) -> impl Iterator<Item = Load> {
        (0..60 * SECOND_NS).step_by(NS_PER_MS as usize).map(move |now_ns| load(vcpu, now_ns))
    }

    #[test]
    fn every_sleep_is_within_its_bounds() {
        for vcpu in 0..64 {
            for Load { period_ns, .. } in over_a_minute(vcpu) {
                assert!((PERIOD_NS_MIN..=PERIOD_NS_MAX).contains(&period_ns), "vCPU {vcpu}");
            }
        }
    }

    #[test]
    fn four_vcpus_stay_cheap() {
        let exits_per_s: f64 = (0..4)
            .flat_map(over_a_minute)
            .map(|load| (2.0 + f64::from(load.outs)) * 1e9 / f64::from(load.period_ns) / 60_000.0)
            .sum();
        assert!((8_000.0..14_000.0).contains(&exits_per_s), "{exits_per_s}");
    }

    #[test]
    fn loads_are_as_described() {
        fn check(vcpu: u32, now_ms: u64, period_ns: u32, outs: u16) {
            assert_eq!(load(vcpu, now_ms * NS_PER_MS), Load { period_ns, outs }, "{now_ms} ms");
        }
        check(0, 12_345, 1_000_000, 2);
        check(1, 1_499, 1_000_000, 6);
        check(1, 1_500, 20_000_000, 0);
        check(1, 3_000, 1_000_000, 6);
        check(2, 0, 20_000_000, 4);
        check(2, 2_000, 1_904_761, 4);
        check(2, 3_999, 1_001_001, 4);
        check(2, 4_000, 20_000_000, 4);
        check(3, 0, 40_000_000, 0);
        check(3, 3_249, 500_000, 8);
    }

    #[test]
    fn later_groups_repeat_with_a_shift() {
        assert_eq!(describe(5), describe(1));
        assert_eq!(load(5, 800 * NS_PER_MS), load(1, 1_500 * NS_PER_MS));
        assert_ne!(load(5, 800 * NS_PER_MS), load(1, 800 * NS_PER_MS));
    }
}
