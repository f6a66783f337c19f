//! The time to read the newest snapshot and one value of it, beside a relaxed load of a plain
//! atomic.

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use vmstrobe_sampler::Fanout;

use crate::pairs::{Effort, ns_each};
use crate::rig::{THREE, rig};
use crate::{Goal, Line};

const TIMES: u32 = 200_000;

pub(crate) fn latest(name: &str, effort: Effort) -> Result<Line, Box<dyn Error>> {
    let rig = rig(4, THREE, Fanout::Inline)?;
    let mut latest = rig.control.latest();
    let cell = {
        let newest = latest.load_full();
        let path = &newest.layout().groups()[0].objects[2].path;
        newest.layout().find(path, "halt_exits").ok_or("x86 has halt_exits")?
    };
    let plain = AtomicU64::new(0);
    let medians = effort.pairs(
        101,
        || {
            ns_each(TIMES, || {
                let value = latest.load().get(black_box(cell));
                assert!(black_box(value).is_some(), "the row was read");
            })
        },
        || {
            ns_each(TIMES, || {
                black_box(black_box(&plain).load(Ordering::Relaxed));
            })
        },
    );
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::OursAtMost(10.0),
        unit: "ns",
    })
}
