//! Tests of the lines of JSON.

use fastrand::Rng;
use serde_json::Value as Json;
use vmstrobe_core::{Desc, Mask, Object, ReadPlan, Schema, Snapshot, Target};
use vmstrobe_testing::{random, snapshots};

use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::EventKind;

fn written(samples: &[Snapshot], events: &[Event], metadata: &Metadata) -> String {
    let mut file = Vec::new();
    let mut writer = JsonLinesWriter::new(&mut file, metadata, None).expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits::default());
    let mut batches: Vec<Batch> =
        samples.iter().filter_map(|sample| batcher.push(sample).expect("few columns")).collect();
    batches.extend(batcher.take());
    for batch in &batches {
        assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
    }
    events.iter().for_each(|event| writer.event(event).expect("memory takes all"));
    assert_eq!(writer.whole_bytes(), writer.destination.whole_bytes());
    writer.finish().expect("memory takes all");
    String::from_utf8(file).expect("JSON is UTF-8")
}

#[test]
fn a_line_has_all_that_is_known_and_no_more() {
    let row = Some([1, 2, 3, 4, 1, u64::MAX]);
    let shared = snapshots::laid_out(1, 5, 10, &[(snapshots::vcpu(1), row)]);
    let mut sample = Snapshot::new(shared.layout());
    sample.begin(5).0.copy_from_slice(&[1, 2, 3, 4, 1, u64::MAX]);
    sample.begin(5).1.fill(RowState::Aged(9));
    sample.stamp(shared.window());
    let event = Event {
        monotonic_ns: 11_000_000,
        wall_offset_ns: 1_000_000_000_000_000_000,
        kind: EventKind::Trigger,
        text: "a\n\"b\"".into(),
    };
    let metadata = Metadata {
        version: "9".into(),
        labels: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        ..Metadata::default()
    };
    let want = [
        r#"{"recording": {"label.a": "1", "vmstrobe.format": "1", "vmstrobe.version": "9"}}"#,
        concat!(
            r#"{"seconds": 0.000000000, "time": "2001-09-09T01:46:40.010000000Z", "tick": 5, "#,
            r#""window_ns": 0, "vm": "web", "vcpu": 1, "path": "/vm/web/vcpu[1]", "#,
            r#""provider": "kvm", "target": "vcpu", "state": "aged", "age_ms": 9, "#,
            r#""stats": {"exits": 1, "wait_ms": 2, "wait_hist": [3, 4], "blocking": true, "#,
            r#""level": 18446744073709551615}}"#,
        ),
        concat!(
            r#"{"seconds": 0.001000000, "time": "2001-09-09T01:46:40.011000000Z", "#,
            r#""event": "trigger", "text": "a\n\"b\""}"#,
        ),
    ];
    let text = written(&[sample], &[event], &metadata);
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
}

#[test]
fn no_member_occurs_twice() {
    let counter = |name, offset| Desc::counter(name, offset);
    let descs = vec![counter("a", 0), counter("a", 8), counter("a#2", 16), counter("a", 24)];
    let schema = Schema::new("xyz", Target::Vm, descs);
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let object = Object { path: "x".into(), index: None, schema, key: 0 };
    let layout = Layout::new(0, vec![(plan, vec![object])]);
    let want = [r#""a": "#, r#""a#2": "#, r#""a#2#2": "#, r#""a#3": "#];
    assert_eq!(names(&layout.groups()[0]), want);
}

#[test]
fn random_recordings_have_the_values_of_their_samples() {
    for seed in 0..50 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        let samples = random::snapshots(&mut rng, &layout, 9);
        let text = written(&samples, &[], &Metadata::default());
        let mut lines = text.lines().skip(1);
        for view in samples.iter().flat_map(|sample| sample.objects()) {
            let line = lines.next().expect("there is a line for each object and tick");
            let line: Json = serde_json::from_str(line).expect("a line is JSON");
            assert_eq!(line["path"], *view.object().path);
            assert_eq!(line["vcpu"].as_u64(), view.object().index.map(u64::from));
            let Some(stats) = line["stats"].as_object() else {
                assert!(!view.state().has_values());
                continue;
            };
            assert!(view.state().has_values());
            assert_eq!(stats.len(), view.stats().count(), "seed {seed}");
        }
        assert!(lines.next().is_none());
    }
}
