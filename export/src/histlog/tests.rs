//! Logs, read back with the crate's own reader.

use std::sync::Arc;

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use vmstrobe_core::{
    Base, Layout, Mask, ReadPlan, RowState, Scale, Schema, Snapshot, StatType, Target, Unit, Window,
};

use super::*;
use crate::batcher::{BatchLimits, Batcher};

/// The begin of the samples, in ms since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

struct Vm {
    layout: Arc<Layout>,
    words: [[u64; 4]; 2],
}

impl Vm {
    fn new(vcpus: u32) -> Self {
        let paths = (0..vcpus).map(|index| format!("/a b/vcpu[{index}]"));
        Self::with_paths(&paths.collect::<Vec<_>>())
    }

    fn with_paths(paths: &[String]) -> Self {
        let ns = Scale { base: Base::Ten, exponent: -9 };
        let hist = Desc { size: 4, scale: ns, ..Desc::counter("wait_hist", 0) };
        let hist = Desc { stat_type: StatType::Log2Histogram, unit: Unit::Seconds, ..hist };
        let schema = Schema::new("kvm", Target::Vcpu, vec![hist]);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let objects = paths.iter().zip(0_u32..).map(|(path, index)| Object {
            path: path.as_str().into(),
            index: Some(index),
            schema: Arc::clone(&schema),
            key: index.into(),
        });
        let objects = objects.collect();
        Self { layout: Layout::new(0, vec![(plan, objects)]), words: [[0; 4]; 2] }
    }

    /// A batch of samples at these times, in ms, each after a change of the words.
    fn batch(&mut self, samples: &[(u64, [[u64; 4]; 2], RowState)]) -> Batch {
        let mut batcher = Batcher::new(BatchLimits::default());
        for (ms, words, state) in samples {
            self.words = *words;
            let mut sample = Snapshot::new(&self.layout);
            let (to, states) = sample.begin(*ms);
            let len = to.len();
            to.copy_from_slice(&self.words.concat()[..len]);
            states.fill(*state);
            let at_ns = ms * 1_000_000;
            let wall_offset_ns = BEGIN_MS as i64 * 1_000_000;
            sample.stamp(Window { begin_ns: at_ns, end_ns: at_ns, wall_offset_ns });
            assert!(batcher.push(&sample).expect("it is small").is_none());
        }
        batcher.take().expect("samples were pushed")
    }
}

fn log(batches: &[Batch]) -> String {
    let mut out = Vec::new();
    let mut writer = HistlogWriter::new(&mut out, "wait_hist", Duration::from_secs(1));
    for batch in batches {
        assert_eq!(writer.write(batch).expect("it is writable"), Outcome::Written);
    }
    writer.finish().expect("a Vec takes all");
    String::from_utf8(out).expect("a log is text")
}

/// A line: its tag, begin and length in ms, and the values with their counts.
type Line = (String, u64, u64, Vec<(u64, u64)>);

/// Returns tag, begin in ms since the first sample, length in ms, and the values with their counts.
fn lines(log: &str) -> Vec<Line> {
    let entries = IntervalLogIterator::new(log.as_bytes()).map(|entry| entry.expect("it is whole"));
    let lines = entries.filter_map(|entry| {
        let LogEntry::Interval(line) = entry else { return None };
        let mut deserializer = Deserializer::new();
        let bytes = base64(line.encoded_histogram());
        let histogram: Histogram<u64> = deserializer.deserialize(&mut &bytes[..]).expect("whole");
        let values = histogram.iter_recorded();
        let values = values.map(|value| (value.value_iterated_to(), value.count_at_value()));
        let tag = line.tag().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
        let begin_ms = line.start_timestamp().as_millis() as u64 - BEGIN_MS;
        Some((tag, begin_ms, line.duration().as_millis() as u64, values.collect()))
    });
    lines.collect()
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').chars();
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | ALPHABET.find(digit).expect("it is a digit") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn intervals_have_what_was_counted_in_them() {
    let mut vm = Vm::new(2);
    let good = RowState::Good;
    let batches = [
        vm.batch(&[
            (0, [[5, 5, 5, 5], [0; 4]], good),
            (400, [[5, 6, 5, 5], [0; 4]], good),
            (500, [[5, 7, 5, 5], [0, 0, 0, 3]], good),
        ]),
        vm.batch(&[(1000, [[6, 7, 5, 5], [0, 0, 0, 3]], good)]),
        vm.batch(&[(1500, [[6, 7, 9, 5], [0, 0, 0, 3]], good)]),
    ];
    let log = log(&batches);
    assert!(
        log.starts_with("#[Histogram log format version 1.3]\n#wait_hist of vmstrobe, in ns\n")
    );
    let vcpu = |index| format!("/a_b/vcpu[{index}]");
    assert_eq!(
        lines(&log),
        [
            (String::new(), 0, 1000, vec![(0, 1), (1, 2), (4, 3)]),
            (vcpu(0), 0, 1000, vec![(0, 1), (1, 2)]),
            (vcpu(1), 0, 1000, vec![(4, 3)]),
            (String::new(), 1000, 500, vec![(3, 4)]),
            (vcpu(0), 1000, 500, vec![(3, 4)]),
            (vcpu(1), 1000, 500, vec![]),
        ]
    );
}

#[test]
fn what_was_not_read_or_was_reset_is_in_no_line() {
    let mut vm = Vm::new(1);
    let good = RowState::Good;
    let batches = [
        vm.batch(&[(0, [[9, 0, 0, 0]; 2], good)]),
        vm.batch(&[(500, [[0, 7, 7, 7]; 2], RowState::Gone)]),
        // Reset between two batches, and within one.
        vm.batch(&[(1000, [[1, 0, 0, 0]; 2], good), (1100, [[2, 0, 0, 0]; 2], good)]),
        vm.batch(&[(2000, [[0, 3, 0, 0]; 2], good), (2100, [[4, 3, 0, 0]; 2], good)]),
        vm.batch(&[
            (3000, [[4, 4, 0, 0]; 2], good),
            (3100, [[0, 0, 0, 0]; 2], good),
            (3200, [[9, 9, 9, 9]; 2], good),
        ]),
    ];
    let values: Vec<_> = lines(&log(&batches)).into_iter().map(|line| (line.1, line.3)).collect();
    assert_eq!(values, [(0, vec![(0, 1)]), (1100, vec![(0, 4)]), (2100, vec![(1, 1)])]);
}

#[test]
fn without_the_histogram_the_log_is_empty() {
    let mut vm = Vm::new(1);
    let batch = vm.batch(&[(0, [[0; 4]; 2], RowState::Good)]);
    let mut out = Vec::new();
    let mut writer = HistlogWriter::new(&mut out, "exits", Duration::from_secs(1));
    assert_eq!(writer.write(&batch).expect("it is writable"), Outcome::Written);
    writer.finish().expect("a Vec takes all");
    assert_eq!(writer.whole_bytes(), 0);
    assert!(matches!(writer.flush(), Err(Error::Ended)));
}

#[test]
fn a_hostile_path_is_one_tag_in_one_line() {
    let hostile = "Tag=x,1.0,2.0,3.0,\r\n#[StartTime: 7]\nTag=y \"\u{2028}".to_owned();
    let long = "/x,\n".repeat(1 << 18);
    let mut vm = Vm::with_paths(&[hostile, long.clone()]);
    let good = RowState::Good;
    let batch = vm.batch(&[(0, [[0; 4]; 2], good), (10, [[1, 0, 0, 0], [0, 2, 0, 0]], good)]);
    let log = log(&[batch]);
    let tags: Vec<_> = lines(&log).into_iter().map(|line| (line.0, line.3)).collect();
    let want = [
        (String::new(), vec![(0, 1), (1, 2)]),
        ("Tag=x_1.0_2.0_3.0___#[StartTime:_7]_Tag=y_\"\u{2028}".to_owned(), vec![(0, 1)]),
        (long.replace([',', '\n'], "_"), vec![(1, 2)]),
    ];
    assert_eq!(tags, want);
    let starts = log.lines().filter(|line| line.starts_with("#[StartTime")).count();
    assert!(starts <= 1 && log.lines().filter(|line| line.starts_with("Tag=")).count() == 2);
}
