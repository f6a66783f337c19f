//! Tests of the text of CSV; `tests/tests/recordings` has it read by other programs.

use fastrand::Rng;
use vmstrobe_core::{Snapshot, Window};
use vmstrobe_testing::{random, snapshots};

use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::EventKind;

/// Reads a cell and what is behind it, by RFC 4180.
fn cell(text: &str) -> (String, &str) {
    if let Some(mut rest) = text.strip_prefix('"') {
        let mut cell = String::new();
        loop {
            let (before, after) = rest.split_once('"').expect("a quoted cell ends");
            cell.push_str(before);
            let Some(more) = after.strip_prefix('"') else { return (cell, after) };
            cell.push('"');
            rest = more;
        }
    }
    let end = text.find([',', '\r']).expect("a row ends");
    assert!(!text[..end].contains(['"', '\n']));
    (text[..end].to_owned(), &text[end..])
}

fn rows(mut text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![Vec::new()];
    while !text.is_empty() {
        let (cell, rest) = cell(text);
        rows.last_mut().expect("there is a row").push(cell);
        text = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None => {
                rows.push(Vec::new());
                rest.strip_prefix("\r\n").expect("a row ends as RFC 4180 says")
            }
        };
    }
    rows.pop();
    rows
}

#[test]
fn a_row_has_all_that_is_known_and_no_more() {
    let samples = [
        snapshots::laid_out(1, 5, 10, &[(snapshots::vcpu(1), Some([1, 2, 3, 4, 1, u64::MAX]))]),
        snapshots::laid_out(1, 6, 11, &[(snapshots::vcpu(1), None)]),
    ];
    let columns = Columns::of(samples[0].layout()).expect("few columns");
    let mut file = Vec::new();
    let mut writer =
        CsvWriter::new(&mut file, columns, &Metadata::default(), None).expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits::default());
    for sample in &samples {
        let batch = batcher.push(sample).expect("few columns").or_else(|| batcher.take());
        let written = writer.write(&batch.expect("it was pushed")).expect("memory takes all");
        assert_eq!(written, Outcome::Written);
    }
    let event = Event {
        monotonic_ns: 9_000_000,
        wall_offset_ns: 1_000_000_000_000_000_000,
        kind: EventKind::Mark,
        text: "=a \"b\"".into(),
    };
    writer.event(&event).expect("memory takes all");
    assert_eq!(writer.rows, 4);
    writer.finish().expect("memory takes all");
    let want = "seconds,time,tick,vm,vcpu,path,schema,state,event,text,exits,wait_ms,wait_hist_0,\
                wait_hist_1,blocking,level\r\n\
                0.000000000,2001-09-09T01:46:40.010000000Z,5,web,1,/vm/web/vcpu[1],kvm/vcpu,good,,,\
                1,2,3,4,1,18446744073709551615\r\n\
                0.001000000,2001-09-09T01:46:40.011000000Z,6,web,1,/vm/web/vcpu[1],kvm/vcpu,gone,,,\
                ,,,,,\r\n\
                -0.001000000,2001-09-09T01:46:40.009000000Z,,,,,,,mark,\"'=a \"\"b\"\"\",,,,,,\r\n";
    assert_eq!(String::from_utf8_lossy(&file), want);
}

#[test]
fn cells_hold_whatever_is_in_a_text() {
    for text_ in ["", "a", "a b", "a,b", "\"", "a\"\"b\r\n", "'", "häh", "a=1", "\u{1b}"] {
        for text_ in [text_.to_owned(), format!("={text_}"), format!("-{text_}")] {
            let mut out = Vec::new();
            text(&mut out, &text_);
            out.extend(END);
            let out = String::from_utf8(out).expect("cells are UTF-8");
            let (read, rest) = cell(&out);
            assert_eq!(rest, "\r\n");
            assert_eq!(read.strip_prefix('\'').unwrap_or(&read), text_.trim_start_matches('\''));
            assert!(!read.starts_with(['=', '+', '-', '@', '\u{1b}']));
        }
    }
}

#[test]
fn random_recordings_have_one_cell_for_each_value() {
    for seed in 0..50 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        let columns = Columns::of(&layout).expect("few columns");
        let (mut file, width) = (Vec::new(), 10 + columns.len());
        let metadata = Metadata { vm: Some("of all".into()), ..Metadata::default() };
        let mut writer =
            CsvWriter::new(&mut file, columns, &metadata, None).expect("memory takes all");
        let mut batcher = Batcher::new(BatchLimits { ticks: 5, ..BatchLimits::default() });
        let samples = random::snapshots(&mut rng, &layout, 12);
        let mut batches: Vec<Batch> = samples
            .iter()
            .filter_map(|sample| batcher.push(sample).expect("few columns"))
            .collect();
        batches.extend(batcher.take());
        for batch in &batches {
            assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
        }
        let count = writer.rows;
        let rows = rows(str::from_utf8(&file).expect("CSV is UTF-8"));
        assert_eq!((rows.len() as u64, rows.len()), (count, 1 + 12 * layout.rows()));
        assert!(rows.iter().all(|row| row.len() == width), "seed {seed}");
        let mut rows = rows[1..].iter();
        for sample in &samples {
            for view in sample.objects() {
                let row = rows.next().expect("there is a row for each object and tick");
                assert_eq!(row[2], sample.tick().to_string());
                assert_eq!(row[5].trim_start_matches('\''), &*view.object().path);
                // The statistics of a schema need not have the order of the columns.
                let mut cells: Vec<&str> =
                    row[10..].iter().map(|cell| &**cell).filter(|cell| !cell.is_empty()).collect();
                let words = view.stats().flat_map(|value| value.words());
                let mut words: Vec<String> = words.map(u64::to_string).collect();
                cells.sort_unstable();
                words.sort_unstable();
                assert_eq!(cells, words, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_thinned_file_has_the_first_tick_of_each_stretch() {
    let columns = Columns::default();
    let layout = Layout::new(0, Vec::new());
    let mut writer =
        CsvWriter::new(Vec::new(), columns, &Metadata::default(), Some(Duration::from_millis(5)))
            .expect("memory takes all");
    let kept = (0..20).filter(|tick| {
        let mut snapshot = Snapshot::new(&layout);
        snapshot.stamp(Window { begin_ns: tick * 1_000_000, ..Window::default() });
        writer.thinning.keeps(snapshot.window())
    });
    assert_eq!(kept.collect::<Vec<u64>>(), [0, 5, 10, 15]);
}
