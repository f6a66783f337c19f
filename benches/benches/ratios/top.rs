//! The CPU time that the state behind `top` takes for each sample of 64 vCPUs with all their
//! statistics, with ten frames a second of a large screen, over that of a flight recorder that
//! takes the same samples.
//!
//! Eight vCPUs have the demo's loads and run; the others do not. Sampling and drawing are in
//! neither.

use std::error::Error;
use std::time::Duration;

use vmstrobe::view::{Request, View, ViewOptions};
use vmstrobe_core::Snapshot;
use vmstrobe_export::{ArrowsRing, BatchLimits, Batcher, Compression, Metadata, RingLimits};

use crate::pairs::Effort;
use crate::recording::Vms;
use crate::sleep::cpu_ns;
use crate::{Goal, Line};

const PAIRS: usize = 9;
/// The samples of one side of a pair, which take 72 KB each.
const SAMPLES: usize = 1500;
/// The samples between two frames: ten frames a second at 1 kHz.
const FRAME_SAMPLES: usize = 100;
/// The parts of a screen of 200 columns and 60 rows.
const SCREEN: Request = Request {
    table_rows: 28,
    table_columns: 10,
    spark_cells: 70,
    charts: 3,
    chart_columns: 240,
    statistics: 16,
    histogram_rows: 14,
    heat_columns: 40,
    events: 5,
};

pub(crate) fn state_64(name: &str, effort: Effort) -> Result<Line, Box<dyn Error>> {
    let samples = samples(if effort == Effort::Quick { SAMPLES / 10 } else { SAMPLES })?;
    let each = |work: &dyn Fn()| {
        let before_ns = cpu_ns();
        work();
        (cpu_ns() - before_ns) as f64 / samples.len() as f64 / 1000.0
    };
    let medians = effort.pairs(PAIRS, || each(&|| watch(&samples)), || each(&|| record(&samples)));
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::OursAtMost(40.0),
        unit: "us",
    })
}

/// Takes samples of 64 vCPUs.
fn samples(count: usize) -> Result<Vec<Snapshot>, Box<dyn Error>> {
    let vms = Vms::new()?;
    let mut session = vms.session()?;
    let samples = session.samples().take(count).map(|sample| {
        // Held as it is, it would take a buffer from the sampler.
        let mut copy = Snapshot::new(sample.layout());
        let (words, states) = copy.begin(sample.tick());
        let mut rest = words;
        for (view, state) in sample.objects().zip(states) {
            let (row, others) = rest.split_at_mut(view.words().len());
            row.copy_from_slice(view.words());
            *state = view.state();
            rest = others;
        }
        copy.stamp(sample.window());
        copy
    });
    Ok(samples.collect())
}

fn watch(samples: &[Snapshot]) {
    let mut view = View::new(ViewOptions::default());
    for (number, sample) in samples.iter().enumerate() {
        view.take(sample).expect("it is within the limits");
        if number % FRAME_SAMPLES == 0 {
            assert_eq!(view.frame(&SCREEN).header.vcpus, 64);
        }
    }
}

fn record(samples: &[Snapshot]) {
    let limits = RingLimits { time: Duration::from_secs(30), bytes: 256 << 20 };
    let mut ring = ArrowsRing::new(limits, Metadata::default(), Compression::default());
    let mut batcher = Batcher::new(BatchLimits::default());
    for sample in samples {
        if let Some(batch) = batcher.push(sample).expect("it is within the limits") {
            ring.push(&batch).expect("it is within the limits");
        }
    }
    let rest = batcher.take().expect("there are samples");
    ring.push(&rest).expect("it is within the limits");
}
