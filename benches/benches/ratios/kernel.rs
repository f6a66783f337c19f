//! The BPF reader. A whole tick, window and publishing included, is compared with a bare loop of
//! pread on the same vCPUs' stats fds; the cost of a sampler at 10 kHz is compared with one that
//! reads by pread.

use std::error::Error;

use vmstrobe::bpf::{Bpf, BpfMode};
use vmstrobe_sampler::{Fanout, Tick, Timing};

use crate::pairs::{Effort, ns_each};
use crate::rig::{ALL, Rig, THREE, rig, rig_with};
use crate::sleep::cpu_ns;
use crate::{Goal, Line};

/// The number of pairs of one figure.
const PAIRS: usize = 301;
/// The number of readings of the bare side of a pair, which take about 3 ms.
const READS: usize = 8192;

/// The filter of every statistic that is one word.
const SCALARS: &str = "vcpu: *,-*_hist";

/// The number of ticks of one side of a pair, which take a second.
const TICKS: u64 = 10_000;
const RATE_HZ: f64 = 10_000.0;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn tick_4(name: &str, effort: Effort) -> Result<Line> {
    tick(name, effort, 4, THREE, 0.85)
}

pub(crate) fn tick_64(name: &str, effort: Effort) -> Result<Line> {
    tick(name, effort, 64, THREE, 0.08)
}

pub(crate) fn tick_256(name: &str, effort: Effort) -> Result<Line> {
    tick(name, effort, 256, THREE, 0.04)
}

pub(crate) fn tick_1024(name: &str, effort: Effort) -> Result<Line> {
    tick(name, effort, 1024, THREE, 0.03)
}

pub(crate) fn tick_scalars_64(name: &str, effort: Effort) -> Result<Line> {
    tick(name, effort, 64, SCALARS, 0.20)
}

/// Measures every statistic, histograms included, so that whole blocks are read.
pub(crate) fn tick_all_64(name: &str, effort: Effort) -> Result<Line> {
    let line = tick(name, effort, 64, ALL, 1.0)?;
    Ok(Line { goal: Goal::None, ..line })
}

/// Makes a rig that is read by the BPF reader, also if pread would be faster.
fn kernel_rig(vcpus: usize, filter: &str) -> Result<Rig> {
    let bpf = Bpf::new(BpfMode::Require);
    bpf.check()?;
    rig_with(vcpus, filter, Fanout::Inline, bpf)
}

fn tick(name: &str, effort: Effort, vcpus: usize, filter: &str, most: f64) -> Result<Line> {
    let mut rig = kernel_rig(vcpus, filter)?;
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let times = (READS / vcpus) as u32;
    let medians = effort.pairs(
        PAIRS,
        || ns_each(times, || assert_eq!(sampler.tick(), Tick::Published)),
        || ns_each(times, || bare.read()),
    );
    let counts = sampler.health().counts();
    assert_eq!(
        (counts.bulk_rows, counts.fallback_ticks),
        (vcpus as u64, 0),
        "the rows are read by the BPF reader"
    );
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::RatioAtMost(most),
        unit: "ns",
    })
}

/// Measures the CPU time of the sampler's thread at 10 kHz. It may miss no more ticks than the
/// other.
pub(crate) fn cpu_10khz_64(name: &str, effort: Effort) -> Result<Line> {
    let mut ours = kernel_rig(64, THREE)?;
    let mut peer = rig(64, THREE, Fanout::Inline)?;
    let ticks = if effort == Effort::Quick { TICKS / 10 } else { TICKS };
    let timing = Timing { ticks_max: Some(ticks), ..Timing::hz(RATE_HZ)? };
    let run = |rig: &mut Rig| {
        let before_ns = cpu_ns();
        rig.sampler.run(&timing).expect("the kernel permits a timer slack of 1 ns");
        (cpu_ns() - before_ns) as f64 / ticks as f64 / 1000.0
    };
    let medians = effort.pairs(15, || run(&mut ours), || run(&mut peer));
    let missed = [&ours, &peer].map(|rig| rig.sampler.health().counts().missed_ticks);
    eprintln!("{name}: missed ticks, by BPF and by pread: {missed:?}");
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::RatioAtMost(0.55),
        unit: "us",
    })
}
