//! A whole tick, window and publishing included, over a bare loop of pread on the same vCPUs.

use std::error::Error;

use vmstrobe_sampler::{Fanout, Tick};

use crate::pairs::{Effort, Medians, ns_each};
use crate::rig::{ALL, THREE, rig};
use crate::{Goal, Line};

/// The number of pairs of one figure.
const PAIRS: usize = 301;
/// The number of readings of one side of a pair, which take about 3 ms.
const READS: usize = 8192;

type Result = std::result::Result<Line, Box<dyn Error>>;

pub(crate) fn fd_4(name: &str, effort: Effort) -> Result {
    inline(name, effort, 4, THREE, 1.20)
}

pub(crate) fn fd_64(name: &str, effort: Effort) -> Result {
    inline(name, effort, 64, THREE, 1.05)
}

pub(crate) fn fd_256(name: &str, effort: Effort) -> Result {
    inline(name, effort, 256, THREE, 1.05)
}

pub(crate) fn all_64(name: &str, effort: Effort) -> Result {
    inline(name, effort, 64, ALL, 1.15)
}

fn inline(name: &str, effort: Effort, vcpus: usize, filter: &str, most: f64) -> Result {
    let mut rig = rig(vcpus, filter, Fanout::Inline)?;
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let times = (READS / vcpus) as u32;
    let medians = effort.pairs(
        PAIRS,
        || ns_each(times, || assert_eq!(sampler.tick(), Tick::Published)),
        || ns_each(times, || bare.read()),
    );
    Ok(line(name, medians, most))
}

/// Measures a tick over two CPUs, by rayon; the bare loop has one.
pub(crate) fn fanout_1024(name: &str, effort: Effort) -> Result {
    const VCPUS: usize = 1024;
    let mut rig = rig(VCPUS, THREE, Fanout::Threads(2))?;
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let times = (READS * 2 / VCPUS) as u32;
    let medians = effort.pairs(
        PAIRS,
        || sampler.inside(|sampler| ns_each(times, || assert_eq!(sampler.tick(), Tick::Published))),
        || ns_each(times, || bare.read()),
    );
    Ok(line(name, medians, 0.70))
}

fn line(name: &str, medians: Medians, most: f64) -> Line {
    Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::RatioAtMost(most),
        unit: "ns",
    }
}
