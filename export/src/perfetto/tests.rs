//! Traces, read back with a reader of the few fields that matter here. What Perfetto's own classes
//! read of a trace is in the tests of the workspace.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use flate2::read::ZlibDecoder;
use vmstrobe_core::{Layout, Mask, ReadPlan, Schema, Snapshot, StatType, Target, Unit, Window};

use super::fields::{clock, packet, trace, track};
use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::EventKind;

const MS: u64 = 1_000_000;

/// The fields of a message: numbers, and bytes.
#[derive(Clone, Debug, Default)]
struct Fields(Vec<(u64, std::result::Result<u64, Vec<u8>>)>);

impl Fields {
    fn parse(mut bytes: &[u8]) -> Self {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = varint(&mut bytes);
            let value = if tag & 7 == 0 {
                Ok(value)
            } else {
                let (data, rest) = bytes.split_at(value as usize);
                bytes = rest;
                Err(data.to_vec())
            };
            fields.push((tag >> 3, value));
        }
        Self(fields)
    }

    fn uints(&self, field: u64) -> Vec<u64> {
        let all = self.0.iter().filter(|(number, _)| *number == field);
        all.map(|(_, value)| *value.as_ref().expect("it is a number")).collect()
    }

    fn data(&self, field: u64) -> Vec<&[u8]> {
        let all = self.0.iter().filter(|(number, _)| *number == field);
        all.map(|(_, value)| &**value.as_ref().expect_err("it is bytes")).collect()
    }

    fn messages(&self, field: u64) -> Vec<Self> {
        self.data(field).into_iter().map(Self::parse).collect()
    }

    fn text(&self, field: u64) -> String {
        String::from_utf8(self.data(field).concat()).expect("it is text")
    }
}

/// Returns all packets of a trace.
fn packets(trace: &[u8]) -> Vec<Fields> {
    let outer = Fields::parse(trace).messages(trace::PACKET);
    let inner = outer.iter().flat_map(|packet| {
        let compressed = packet.data(packet::COMPRESSED_PACKETS).concat();
        let mut bytes = Vec::new();
        ZlibDecoder::new(&compressed[..]).read_to_end(&mut bytes).expect("it is compressed");
        Fields::parse(&bytes).messages(trace::PACKET)
    });
    inner.collect()
}

/// Returns the names of all tracks with those of their parents, by id.
fn names(packets: &[Fields]) -> BTreeMap<u64, String> {
    let tracks = packets.iter().flat_map(|packet| packet.messages(packet::TRACK_DESCRIPTOR));
    let mut names = BTreeMap::new();
    for track in tracks {
        let parent = track.uints(track::PARENT_UUID).first().map(|parent| &names[parent]);
        let name = parent.map_or_else(String::new, |parent: &String| format!("{parent}/"));
        let name = name + &track.text(track::NAME);
        assert_eq!(names.insert(track.uints(track::UUID)[0], name), None, "described once");
    }
    names
}

/// Returns the values of each counter with their times in ms.
fn values(packets: &[Fields]) -> BTreeMap<String, Vec<(u64, i64)>> {
    let names = names(packets);
    let mut values: BTreeMap<String, Vec<(u64, i64)>> = BTreeMap::new();
    for packet in packets {
        for event in packet.messages(packet::TRACK_EVENT) {
            if event.uints(event::TYPE) != [event::COUNTER] {
                continue;
            }
            let tracks = [event.uints(event::TRACK_UUID), event.uints(event::EXTRA_TRACK_UUIDS)];
            let numbers = [event.uints(event::COUNTER_VALUE), event.uints(event::EXTRA_VALUES)];
            assert!(tracks[1].len() < PACKET_VALUES && tracks[1].len() == numbers[1].len());
            let at_ms = packet.uints(packet::TIMESTAMP)[0] / MS;
            for (track, number) in tracks.concat().iter().zip(numbers.concat()) {
                values.entry(names[track].clone()).or_default().push((at_ms, number as i64));
            }
        }
    }
    values
}

/// Returns the names of events with their kinds and times in ms.
fn others(packets: &[Fields]) -> Vec<(u64, u64, String, String)> {
    let names = names(packets);
    let events = packets.iter().flat_map(|packet| {
        let at_ms = packet.uints(packet::TIMESTAMP).first().map(|ns| ns / MS);
        let events = packet.messages(packet::TRACK_EVENT);
        events.into_iter().map(move |event| (at_ms.expect("an event has a time"), event))
    });
    let others = events.filter(|(_, event)| event.uints(event::TYPE) != [event::COUNTER]);
    let others = others.map(|(at_ms, event)| {
        let track = names[&event.uints(event::TRACK_UUID)[0]].clone();
        (at_ms, event.uints(event::TYPE)[0], track, event.text(event::NAME))
    });
    others.collect()
}

struct Vm {
    layout: Arc<Layout>,
    batcher: Batcher,
}

impl Vm {
    /// Two vCPUs with a counter, a level, a histogram and further counters.
    fn new(further: usize) -> Self {
        let level = Desc { stat_type: StatType::Instant, ..Desc::counter("level", 8) };
        let hist = Desc { size: 2, ..Desc::counter("hist", 16) };
        let hist = Desc { stat_type: StatType::Log2Histogram, unit: Unit::Seconds, ..hist };
        let mut descs = vec![Desc::counter("exits", 0), level, hist];
        let further = (0..further).map(|n| Desc::counter(&format!("n{n:02}"), 32 + 8 * n as u32));
        descs.extend(further);
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let vcpu = |index: u32| Object {
            path: format!("/vm/web/vcpu[{index}]").into(),
            index: Some(index),
            schema: Arc::clone(&schema),
            key: index.into(),
        };
        let layout = Layout::new(0, vec![(plan, vec![vcpu(0), vcpu(1)])]);
        Self { layout, batcher: Batcher::new(BatchLimits::default()) }
    }

    /// Takes a sample at tick `ms`: exits and level of both vCPUs, and whether they were read.
    fn push(&mut self, ms: u64, exits: [u64; 2], level: u64, state: [RowState; 2]) {
        let mut sample = Snapshot::new(&self.layout);
        let width = self.layout.words() / 2;
        let (words, states) = sample.begin(ms);
        for (row, exits) in words.chunks_mut(width).zip(exits) {
            row.fill(exits);
            row[0] = exits;
            row[1] = level;
        }
        states.copy_from_slice(&state);
        let window = Window { begin_ns: ms * MS, end_ns: ms * MS + 2, wall_offset_ns: 5 };
        sample.stamp(window);
        assert!(self.batcher.push(&sample).expect("it is small").is_none());
    }

    fn take(&mut self) -> Batch {
        self.batcher.take().expect("samples were pushed")
    }
}

const GOOD: [RowState; 2] = [RowState::Good; 2];

fn written(write: impl FnOnce(&mut PerfettoWriter<&mut Vec<u8>>)) -> Vec<Fields> {
    let mut out = Vec::new();
    let metadata = Metadata { vm: Some("web".into()), ..Metadata::default() };
    let mut writer = PerfettoWriter::new(&mut out, metadata, PerfettoOptions::default());
    write(&mut writer);
    writer.finish().expect("a Vec takes all");
    let whole = writer.whole_bytes();
    assert_eq!(whole, out.len() as u64);
    packets(&out)
}

fn write<W: Write>(writer: &mut PerfettoWriter<W>, batch: &Batch) {
    assert_eq!(writer.write(batch).expect("it is writable"), Outcome::Written);
}

#[test]
fn values_are_written_when_they_change() {
    let mut vm = Vm::new(0);
    let packets = written(|writer| {
        for (ms, exits) in [(1, [1 << 60, 7]), (2, [1 << 60, 9]), (3, [(1 << 60) + 4, 9])] {
            vm.push(ms, exits, 3, GOOD);
        }
        write(writer, &vm.take());
        // Neither has changed since the batch before.
        vm.push(4, [(1 << 60) + 4, 9], 3, GOOD);
        vm.push(5, [(1 << 60) + 5, 9], 2, GOOD);
        write(writer, &vm.take());
    });
    let root = "KVM statistics of web (vmstrobe)";
    let of = |stat: &str, vcpu| format!("{root}/{stat}/vCPU {vcpu} (/vm/web/vcpu[{vcpu}])");
    let want = BTreeMap::from([
        (of("exits", 0), vec![(1, 0), (3, 4), (5, 5)]),
        (of("exits", 1), vec![(1, 0), (2, 2)]),
        (of("level", 0), vec![(1, 3), (5, 2)]),
        (of("level", 1), vec![(1, 3), (5, 2)]),
    ]);
    assert_eq!(values(&packets), want);
    // The histogram is left out, and each batch relates the clocks.
    let clocks: Vec<_> =
        packets.iter().filter(|p| !p.data(packet::CLOCK_SNAPSHOT).is_empty()).collect();
    assert_eq!(clocks.len(), 2);
}

#[test]
fn the_busiest_statistics_are_written_and_the_others_named() {
    let mut vm = Vm::new(40);
    let mut out = Vec::new();
    let options = PerfettoOptions { stats_max: 20, boottime_offset_ns: Some(100) };
    let mut writer = PerfettoWriter::new(&mut out, Metadata::default(), options);
    for ms in 1..10 {
        vm.push(ms, [ms, ms], 3, GOOD);
    }
    write(&mut writer, &vm.take());
    // 'level' does not change, the histogram is none of them, and 41 counters change alike.
    let left_out = writer.left_out();
    assert_eq!((left_out.len(), &*left_out[0], &*left_out[1]), (23, "hist", "level"));
    writer.finish().expect("a Vec takes all");
    assert!(matches!(writer.flush(), Err(Error::Ended)));
    let packets = packets(&out);
    assert_eq!(values(&packets).len(), 40);
    let clocks = packets.iter().flat_map(|packet| packet.messages(packet::CLOCK_SNAPSHOT));
    let ids = clocks.flat_map(|clocks| clocks.messages(clock::CLOCKS));
    let ids: Vec<_> =
        ids.map(|clock| (clock.uints(clock::ID)[0], clock.uints(clock::TIMESTAMP)[0])).collect();
    let at_ns = MS + 1;
    assert_eq!(ids, [(3, at_ns), (1, at_ns + 5), (6, at_ns + 100)]);
}

#[test]
fn gaps_and_events_stand_in_tracks_of_their_own() {
    let mut vm = Vm::new(0);
    let event = |ms: u64, text: &str| Event {
        monotonic_ns: ms * MS,
        wall_offset_ns: 0,
        kind: EventKind::Mark,
        text: text.into(),
    };
    let packets = written(|writer| {
        writer.event(&event(1, "before the first sample")).expect("it is short");
        vm.push(1, [0, 0], 0, [RowState::Good, RowState::Missing]);
        vm.push(2, [1, 5], 0, GOOD);
        vm.push(6, [1, 5], 0, [RowState::Gone, RowState::Good]);
        write(writer, &vm.take());
        writer.event(&event(6, "here")).expect("it is short");
    });
    let root = "KVM statistics of web (vmstrobe)";
    let mut others = others(&packets);
    others.sort();
    let other =
        |ms, kind, track: &str, name: &str| (ms, kind, format!("{root}/{track}"), name.into());
    let vcpu = |index| format!("vCPU {index} (/vm/web/vcpu[{index}]) not read");
    assert_eq!(
        others,
        [
            other(1, event::SLICE_BEGIN, &vcpu(1), "not read"),
            other(1, event::INSTANT, "events", "mark: before the first sample"),
            other(2, event::SLICE_BEGIN, "ticks not sampled", "3 ticks not sampled"),
            other(2, event::SLICE_END, &vcpu(1), ""),
            other(6, event::SLICE_BEGIN, &vcpu(0), "gone"),
            other(6, event::SLICE_END, "ticks not sampled", ""),
            other(6, event::SLICE_END, &vcpu(0), ""),
            other(6, event::INSTANT, "events", "mark: here"),
        ]
    );
    // vCPU 1 begins where it was first read, not with a 0 before.
    let exits = &values(&packets)[&format!("{root}/exits/vCPU 1 (/vm/web/vcpu[1])")];
    assert_eq!(exits, &[(2, 0)]);
}
