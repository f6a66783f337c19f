//! Recording 64 vCPUs with all their statistics: comparing, batching, compressing and writing,
//! beside writing the raw words of the same snapshots to a file. Sampling is not in it.
//!
//! The words are those of the demo's guest, sampled at 1 kHz. Since 64 busy vCPUs do not fit on a
//! small machine, each of its 4 vCPUs stands for 16, with its changes in another order each time:
//! the same changes in the same order would compress better than those of real vCPUs. "few" has 8
//! that are as busy and 56 that do the same 40 times as slowly.

use std::error::Error;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe::kvm::{NewVcpu, OwnKvm};
use vmstrobe_core::{Layout, Object, ReadPlan, Registry, RowState, Snapshot, StatType, Window};
use vmstrobe_export::{
    ArrowsWriter, Batch, BatchLimits, Batcher, Columns, Compression, Exporter, Metadata, Outcome,
};
use vmstrobe_guest::DemoGuest;
use vmstrobe_sampler::{Fanout, HealthWriter, Roster, Sampler};

use crate::pairs::{Effort, Medians, ns};
use crate::rig::ALL;
use crate::{Goal, Line};

const PAIRS: usize = 41;
/// The vCPUs that are sampled, and those that are made of them.
const SAMPLED: usize = 4;
const VCPUS: usize = 64;
/// The ticks of one batch, and the batches.
const TICKS: usize = 500;
const BATCHES: usize = 2;
/// The number of vCPUs that are busy in "few", and how much slower the others are.
const BUSY: usize = 8;
const SLOWER: usize = 40;
/// The ticks to sample: one more than there are changes.
const SAMPLES: usize = BATCHES * TICKS + 1;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The vCPUs that are busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Few,
    All,
}

pub(crate) fn few(name: &str, effort: Effort) -> Result<Line> {
    let (medians, _) = measure(effort, Load::Few)?;
    Ok(line(name, medians, Goal::None, "ns"))
}

pub(crate) fn all(name: &str, effort: Effort) -> Result<Line> {
    let (medians, _) = measure(effort, Load::All)?;
    Ok(line(name, medians, Goal::None, "ns"))
}

pub(crate) fn few_size(name: &str, _: Effort) -> Result<Line> {
    size(name, Load::Few, 0.06)
}

pub(crate) fn all_size(name: &str, _: Effort) -> Result<Line> {
    size(name, Load::All, 0.15)
}

/// The bytes of a value in the file, beside the 8 of a word.
fn size(name: &str, load: Load, most: f64) -> Result<Line> {
    let (_, bytes) = measure(Effort::Quick, load)?;
    let medians = Medians { ours: bytes, peer: 8.0, ratio: bytes / 8.0 };
    Ok(line(name, medians, Goal::OursAtMost(most), "B"))
}

fn line(name: &str, medians: Medians, goal: Goal, unit: &'static str) -> Line {
    let Medians { ours, peer, ratio } = medians;
    Line { name: name.into(), ours, peer, ratio, goal, unit }
}

/// Measures the time of one tick, in ns. Returns the bytes of a value as well.
fn measure(effort: Effort, load: Load) -> Result<(Medians, f64)> {
    let snapshots = snapshots(load)?;
    let words: usize = snapshots.iter().map(|snapshot| snapshot.layout().words()).sum();
    let ours = tempfile::tempfile()?;
    let columns = Columns::of(snapshots[0].layout())?;
    let mut writer = ArrowsWriter::new(&ours, columns, &Metadata::default(), Compression::Zstd)?;
    let mut batcher = Batcher::new(BatchLimits { ticks: TICKS, ..BatchLimits::default() });
    let mut bytes = 0;
    let mut record = || -> Result<f64> {
        // As long as a raw file.
        (&ours).rewind()?;
        let before = writer.whole_bytes();
        let start = Instant::now();
        for snapshot in &snapshots {
            let mut write = |batch: Batch| writer.write(&batch);
            batcher.push(snapshot)?.map(&mut write).transpose()?;
            if batcher.is_full() {
                let written = batcher.take().map(&mut write).transpose()?;
                assert_eq!(written, Some(Outcome::Written));
            }
        }
        let taken = start.elapsed();
        bytes = writer.whole_bytes() - before;
        Ok(ns(taken) / snapshots.len() as f64)
    };
    let mut raw = tempfile::tempfile()?;
    let medians = effort.pairs(
        PAIRS,
        || record().expect("the file system has room"),
        || write_raw(&mut raw, &snapshots).expect("the file system has room"),
    );
    Ok((medians, bytes as f64 / words as f64))
}

/// Writes the words of each snapshot as they are. Returns the time of one tick, in ns.
fn write_raw(file: &mut File, snapshots: &[Snapshot]) -> Result<f64> {
    let mut row: Vec<u64> = Vec::new();
    file.rewind()?;
    let start = Instant::now();
    for snapshot in snapshots {
        row.clear();
        snapshot.objects().for_each(|view| row.extend(view.words()));
        file.write_all(bytemuck::cast_slice(&row))?;
    }
    Ok(ns(start.elapsed()) / snapshots.len() as f64)
}

/// Returns snapshots of 64 vCPUs.
fn snapshots(load: Load) -> Result<Vec<Snapshot>> {
    let samples = sample()?;
    let group = &samples[0].layout().groups()[0];
    let objects = (0..VCPUS).map(|number| Object {
        path: format!("/vm/demo/vcpu[{number}]").into(),
        index: Some(number as u32),
        key: number as u64,
        ..group.objects[0].clone()
    });
    let layout = Layout::new(0, vec![(Arc::clone(&group.plan), objects.collect())]);
    let is_level = levels(&group.plan);
    let mut vcpus: Vec<Vcpu> = (0..VCPUS).map(|number| Vcpu::new(number, &samples, load)).collect();
    let snapshots = (0..BATCHES * TICKS).map(|tick| {
        let mut snapshot = Snapshot::new(&layout);
        let (words, states) = snapshot.begin(tick as u64);
        for (vcpu, row) in vcpus.iter_mut().zip(words.chunks_exact_mut(is_level.len())) {
            vcpu.advance(tick, &samples, &is_level);
            row.copy_from_slice(&vcpu.words);
        }
        states.fill(RowState::Good);
        snapshot.stamp(samples[tick].window());
        snapshot
    });
    Ok(snapshots.collect())
}

/// A vCPU that is made of a sampled one.
#[derive(Debug)]
struct Vcpu {
    of: usize,
    /// The order in which it makes the sampled changes.
    order: Vec<usize>,
    /// The number of ticks for each of its changes.
    slower: usize,
    words: Vec<u64>,
}

impl Vcpu {
    fn new(number: usize, samples: &[Arc<Snapshot>], load: Load) -> Self {
        let of = number % SAMPLED;
        let mut order: Vec<usize> = (1..samples.len()).collect();
        fastrand::Rng::with_seed(number as u64).shuffle(&mut order);
        let slower = if load == Load::All || number < BUSY { 1 } else { SLOWER };
        Self { of, order, slower, words: row(&samples[0], of).to_vec() }
    }

    /// Makes the change of a tick: counts grow by what they grew by, levels become what they were.
    fn advance(&mut self, tick: usize, samples: &[Arc<Snapshot>], is_level: &[bool]) {
        if !tick.is_multiple_of(self.slower) {
            return;
        }
        let at = self.order[tick / self.slower];
        let (before, after) = (row(&samples[at - 1], self.of), row(&samples[at], self.of));
        let changes = before.iter().zip(after).zip(is_level);
        for (word, ((before, &after), &is_level)) in self.words.iter_mut().zip(changes) {
            *word = if is_level { after } else { *word + (after - before) };
        }
    }
}

/// Returns the words of a vCPU in a sample.
fn row(sample: &Snapshot, vcpu: usize) -> &[u64] {
    sample.objects().nth(vcpu).expect("each sample has each vCPU").words()
}

/// Returns for each word of a row whether it is a level, and no count.
fn levels(plan: &ReadPlan) -> Vec<bool> {
    let mut levels = vec![false; plan.row_words()];
    for column in plan.columns() {
        let stat_type = plan.schema().descs()[column.desc].stat_type;
        let is_level = stat_type != StatType::Cumulative && !stat_type.is_histogram();
        levels[column.words.clone()].fill(is_level);
    }
    levels
}

/// Samples the demo's guest at 1 kHz.
fn sample() -> Result<Vec<Arc<Snapshot>>> {
    vmstrobe_guest::usable()?;
    let mut guest = DemoGuest::new(SAMPLED as u32)?;
    let kvm = OwnKvm::new("demo", guest.vm().fd())?;
    for vcpu in guest.vcpus() {
        kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()))?;
    }
    let registry = Registry::default();
    registry.add(Arc::new(kvm));
    let mut roster = Roster::new(registry, vec![ALL.parse()?]);
    let (mut sampler, control) =
        Sampler::new(roster.open()?, HealthWriter::default(), Fanout::Inline)?;
    let mut latest = control.latest();
    guest.start()?;
    // Loads settle first.
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    let mut samples = Vec::new();
    for tick in 0..SAMPLES as u32 {
        let due = start + tick * Duration::from_millis(1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        sampler.tick();
        samples.push(copy(&latest.load_full()));
    }
    guest.stop()?;
    Ok(samples)
}

/// Copies a snapshot, so that the sampler gets its own back.
fn copy(snapshot: &Snapshot) -> Arc<Snapshot> {
    let mut copy = Snapshot::new(snapshot.layout());
    let window: Window = snapshot.window();
    let (words, states) = copy.begin(snapshot.tick());
    let mut rest = words;
    for (view, state) in snapshot.objects().zip(states) {
        let (row, others) = rest.split_at_mut(view.words().len());
        row.copy_from_slice(view.words());
        *state = view.state();
        rest = others;
    }
    copy.stamp(window);
    Arc::new(copy)
}
