//! A recording that is replayed: ticks that copy from its newest sample allocate and free nothing,
//! while a thread beside them reads the recording.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use vmstrobe::export::{
    ArrowsWriter, BatchLimits, Batcher, Columns, Compression, Exporter, Metadata, Outcome,
};
use vmstrobe::{Attachment, Options, Pace};
use vmstrobe_core::{
    Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Snapshot, Target, Window,
};
use vmstrobe_sampler::Fanout;

use super::ticks::{Followed, by_hand, check};

const VCPUS: u32 = 64;
/// The samples of the recording, one each ms: more than are replayed while ticks are counted.
const SAMPLES: u64 = 30_000;
const MS: u64 = 1_000_000;

/// Records vCPUs, of which one comes and goes.
fn record(path: &Path) -> Vec<String> {
    let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let vcpu = |index: u32| Object {
        path: format!("/vm/web/vcpu[{index}]").into(),
        index: Some(index),
        schema: Arc::clone(&schema),
        key: index.into(),
    };
    let layouts = [VCPUS, VCPUS + 1].map(|vcpus| {
        Layout::new(vcpus.into(), vec![(Arc::clone(&plan), (0..vcpus).map(vcpu).collect())])
    });
    let columns = Columns::of(&layouts[0]).expect("it is one");
    let file = File::create(path).expect("there is room");
    let mut writer = ArrowsWriter::new(file, columns, &Metadata::default(), Compression::Zstd)
        .expect("there is room");
    let mut batcher = Batcher::new(BatchLimits { ticks: 100, ..BatchLimits::default() });
    let mut write = |batch| assert_eq!(writer.write(&batch).ok(), Some(Outcome::Written));
    for tick in 1..=SAMPLES {
        let mut sample = Snapshot::new(&layouts[(tick / 250 % 2) as usize]);
        let (words, states) = sample.begin(tick);
        words.fill(tick);
        states.fill(RowState::Good);
        let begin_ns = tick * MS;
        sample.stamp(Window { begin_ns, end_ns: begin_ns, wall_offset_ns: 0 });
        batcher.push(&sample).expect("it is small").into_iter().for_each(&mut write);
    }
    batcher.take().into_iter().for_each(&mut write);
    writer.finish().expect("there is room");
    (0..VCPUS).map(|index| vcpu(index).path.into()).collect()
}

#[test]
fn ticks_over_a_recording_allocate_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("run.arrows");
    let paths = record(&path);
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let replayed = Attachment::replayed(&path, Pace::OWN, &Options::default());
        let replayed = replayed.expect("it can be replayed");
        let provider = replayed.registry().providers().remove(0);
        let followed = Followed { stat: "exits", paths: paths.clone(), may_be_torn: false };
        check(provider, &["vcpu", "sampler"], &followed, fanout, by_hand);
        assert!(!replayed.has_ended(), "it was replayed all the time");
    }
}
