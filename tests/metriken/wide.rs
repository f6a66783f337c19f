//! Wide Parquet files, read by the reader of Rezolus' viewer, with the values that were recorded.
//!
//! The reader is silent about columns that it cannot use, so every series is counted.

#![cfg(test)]

use std::sync::Arc;

use metriken_query::{MetricsSource, ParquetReader, QueryResult};
use vmstrobe_core::{
    Base, Desc, Layout, Mask, Object, ReadPlan, RowState, Scale, Schema, Snapshot, StatType,
    Target, Unit, Window,
};
use vmstrobe_export::{
    BatchLimits, Batcher, Event, EventKind, Exporter, Metadata, Outcome, WideParquetWriter,
};

const TICKS: u64 = 60_000;
const START_NS: u64 = 1_700_000_000_000_000_000;
const TICK_NS: u64 = 1_000_000;
/// The bucket of the times from 524,288 to 1,048,575 ns.
const BUCKET: usize = 20;

fn layout() -> Arc<Layout> {
    let ns = Desc {
        unit: Unit::Seconds,
        scale: Scale { base: Base::Ten, exponent: -9 },
        ..Desc::counter("halt_wait_ns", 8)
    };
    let running = Desc { stat_type: StatType::Instant, ..Desc::counter("guest_mode", 16) };
    let hist = Desc {
        stat_type: StatType::Log2Histogram,
        size: 32,
        ..Desc::counter("halt_wait_hist", 24)
    };
    let schema =
        Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0), ns, running, hist]);
    let objects = (0..2).map(|index| Object {
        path: format!("/vm/web/vcpu[{index}]").into(),
        index: Some(index),
        schema: Arc::clone(&schema),
        key: index.into(),
    });
    Layout::new(0, vec![(ReadPlan::new(&schema, &Mask::all(&schema)), objects.collect())])
}

/// The exits of a vCPU up to a tick: 4,400 and 100 a second, and twice as many in the second half.
fn exits(vcpu: u64, tick: u64) -> u64 {
    let ticks = tick + tick.saturating_sub(TICKS / 2);
    // Ten at once, so that they are uneven within a second.
    if vcpu == 0 { ticks / 5 * 22 } else { ticks / 10 }
}

fn file() -> Vec<u8> {
    let layout = layout();
    let mut file = Vec::new();
    let metadata = Metadata { hz: Some(1000.0), ..Metadata::default() };
    let mut writer = WideParquetWriter::new(&mut file, &metadata);
    let mut batcher = Batcher::new(BatchLimits::default());
    let mut snapshot = Snapshot::new(&layout);
    let mut write = |batch: Option<_>| {
        if let Some(batch) = batch {
            assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
        }
    };
    for tick in 0..TICKS {
        let (words, states) = snapshot.begin(tick);
        states.fill(RowState::Good);
        for (vcpu, words) in (0..).zip(words.chunks_exact_mut(35)) {
            words[..3].copy_from_slice(&[exits(vcpu, tick), tick * 500_000, vcpu + tick % 2]);
            words[3 + BUCKET] = exits(vcpu, tick);
        }
        let begin_ns = tick * TICK_NS;
        let wall_offset_ns = START_NS as i64;
        snapshot.stamp(Window { begin_ns, end_ns: begin_ns + 1000, wall_offset_ns });
        write(batcher.push(&snapshot).expect("few columns"));
    }
    write(batcher.take());
    let kind = EventKind::Mark;
    let event = Event { monotonic_ns: 5, wall_offset_ns: START_NS as i64, kind, text: "a".into() };
    writer.event(&event).expect("there are few events");
    writer.finish().expect("memory takes all");
    drop(writer);
    file
}

/// Asks for one series at whole seconds, by the second since the start.
fn series(reader: &ParquetReader, query: &str) -> Vec<(u64, f64)> {
    let start = (START_NS / 1_000_000_000) as f64;
    let answer = reader.query_range(query, start + 2.0, start + 59.0, 1.0);
    let QueryResult::Matrix { result, .. } = answer.expect("the query has an answer") else {
        panic!("{query} gives no matrix")
    };
    assert_eq!(result.len(), 1, "{query} gives {} series", result.len());
    let values = result[0].values.iter();
    values.map(|&(time, value)| ((time - start).round() as u64, value)).collect()
}

#[test]
fn every_series_is_there() {
    let reader = ParquetReader::open_bytes(file()).expect("the file is Rezolus' own layout");
    assert_eq!(reader.source(), "vmstrobe");
    assert_eq!(reader.version(), env!("CARGO_PKG_VERSION"));
    assert_eq!(reader.interval(), 0.001);
    let mut counters = reader.counter_names();
    counters.sort();
    // The width of the reading is a count to this reader, in files of Rezolus' own too.
    assert_eq!(counters, ["duration", "exits", "halt_wait_ns"]);
    assert_eq!(reader.gauge_names(), ["guest_mode"]);
    assert_eq!(reader.histogram_names(), ["halt_wait_hist"]);
    assert_eq!(reader.total_series_count(), 9);
    let labels = &reader.counter_labels("exits")[0];
    let texts: Vec<(&str, &str)> = labels.iter().map(|(key, text)| (&**key, &**text)).collect();
    let known = ["vm", "vcpu", "provider"].map(|key| labels.get(key).map(|text| &**text));
    assert_eq!(known, [Some("web"), Some("0"), Some("kvm")], "{texts:?}");
    let events = reader.metadata_get("events").expect("the footer has events");
    assert!(events.contains("\"timestamp\":1700000000000000005"), "{events}");
    let (start, end) = reader.time_range_ns().expect("the footer has the range of times");
    assert_eq!((start, end), (START_NS + 500, START_NS + (TICKS - 1) * TICK_NS + 500));
}

#[test]
fn rates_are_those_of_the_raw_counters() {
    let reader = ParquetReader::open_bytes(file()).expect("the file is Rezolus' own layout");
    for (vcpu, per_second) in [(0, 4400.0), (1, 100.0)] {
        let query = format!("rate(exits{{vcpu=\"{vcpu}\"}}[1s])");
        let rates = series(&reader, &query);
        assert!(rates.len() >= 50, "{query}: {} values", rates.len());
        for (second, rate) in rates.into_iter().filter(|(second, _)| *second != 30) {
            let from = 1000 * (second - 1);
            let raw = (exits(vcpu, from + 1000) - exits(vcpu, from)) as f64;
            let factor = if second <= 30 { 1.0 } else { 2.0 };
            assert_eq!(raw, per_second * factor);
            // The reader's windows begin between two ticks.
            assert!((rate / raw - 1.0).abs() < 0.01, "{query} at {second} s: {rate}, not {raw}");
        }
    }
}

#[test]
fn gauges_and_histograms_have_their_values() {
    let reader = ParquetReader::open_bytes(file()).expect("the file is Rezolus' own layout");
    let gauge = series(&reader, "guest_mode{vcpu=\"1\"}");
    assert!(gauge.len() >= 50 && gauge.iter().all(|(_, value)| *value == 1.0 || *value == 2.0));
    let quantile = series(&reader, "histogram_quantile(0.99, halt_wait_hist{vcpu=\"0\"})");
    assert!(!quantile.is_empty());
    assert!(quantile.iter().all(|(_, value)| *value == 1_048_575.0), "{:?}", quantile[0]);
}
