//! The tracks of a trace: one for each statistic, with a counter below it for each object.
//!
//! Invariant: a track is described once, before its first event; its counter begins at 0 if the
//! statistic counts, because Perfetto keeps values as floating-point numbers, which lose bits of
//! large ones.

use std::collections::HashMap;

use vmstrobe_core::{Desc, Object, StatType, Unit};

use super::fields::{counter, packet, track};
use super::proto::Message;
use super::{Packets, label};
use crate::error::{Error, Result};

/// The most tracks of a trace. Far fewer can be looked at.
const MAX_TRACKS: usize = 1 << 16;

/// A track for each statistic and each object that was seen.
#[derive(Debug)]
pub(super) struct Tracks {
    /// The id of the first track, the root. Ids of different traces differ, so that traces can be
    /// merged.
    root: u64,
    next: u64,
    stats: HashMap<Box<str>, u64>,
    counters: HashMap<CounterKey, usize>,
    states: Vec<Counter>,
    others: HashMap<Box<str>, u64>,
}

/// A counter is of one object and one statistic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CounterKey {
    path: Box<str>,
    object: u64,
    stat: Box<str>,
}

/// The state of one counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    pub(super) track: u64,
    /// The value that is shown as 0; `None` before the first value.
    base: Option<u64>,
    counts: bool,
    last: u64,
}

impl Counter {
    /// Returns whether it has had a value.
    pub(super) fn has_begun(&self) -> bool {
        self.base.is_some()
    }

    /// Takes a value and returns it as it is shown; `None` if it is the last one again.
    pub(super) fn shown(&mut self, value: u64) -> Option<i64> {
        let is_first = self.base.is_none();
        let base = *self.base.get_or_insert(if self.counts { value } else { 0 });
        if !is_first && value == self.last {
            return None;
        }
        self.last = value;
        // After a reset, a count is below its base.
        let distance = i128::from(value) - i128::from(base);
        Some(distance.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }
}

impl Tracks {
    /// Makes the tracks of a trace that begins at this time.
    pub(super) fn new(begin_ns: u64) -> Self {
        // 21 bits of the time and 14 of a number: short in the file, and seldom those of another.
        let root = (begin_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 43 << 14) | 1;
        let (stats, counters, others) = Default::default();
        Self { root, next: root + 1, stats, counters, states: Vec::new(), others }
    }

    /// Describes the root.
    pub(super) fn describe_root(&self, packets: &mut Packets, name: &str, description: &str) {
        packets.add(|out| {
            out.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(track::UUID, self.root).text(track::NAME, name);
                out.text(track::DESCRIPTION, description);
                out.uint(track::CHILD_ORDERING, track::EXPLICIT);
            });
        });
    }

    /// Returns the number of a counter's state, and describes the counter if it is new.
    ///
    /// # Errors
    /// `TooLarge` if there are too many tracks.
    pub(super) fn counter(
        &mut self,
        object: &Object,
        desc: &Desc,
        provider: &str,
        packets: &mut Packets,
    ) -> Result<usize> {
        let stat = format!("{provider}/{}", desc.name).into_boxed_str();
        let key = CounterKey { path: object.path.clone(), object: object.key, stat };
        if let Some(&known) = self.counters.get(&key) {
            return Ok(known);
        }
        let parent = self.stat(&key.stat, desc, provider, packets)?;
        let uuid = self.take()?;
        let rank = object.index.map_or(0, u64::from);
        packets.add(|out| {
            out.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(track::UUID, uuid).text(track::NAME, &label(object));
                out.uint(track::PARENT_UUID, parent).uint(track::RANK, rank);
                out.message(track::COUNTER, |out| describe_counter(out, desc, &key.stat));
                out.text(track::DESCRIPTION, &format!("{} of {}", desc.name, object.path));
            });
        });
        let counts = desc.stat_type == StatType::Cumulative;
        self.states.push(Counter { track: uuid, base: None, counts, last: 0 });
        self.counters.insert(key, self.states.len() - 1);
        Ok(self.states.len() - 1)
    }

    /// Returns the state of a counter.
    pub(super) fn state(&mut self, counter: usize) -> &mut Counter {
        &mut self.states[counter]
    }

    /// Returns the track of events or gaps of that name, below the root.
    ///
    /// # Errors
    /// `TooLarge` if there are too many tracks.
    pub(super) fn other(&mut self, name: &str, packets: &mut Packets) -> Result<u64> {
        if let Some(&known) = self.others.get(name) {
            return Ok(known);
        }
        let uuid = self.take()?;
        packets.add(|out| {
            out.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(track::UUID, uuid).text(track::NAME, name);
                out.uint(track::PARENT_UUID, self.root).uint(track::RANK, 0);
            });
        });
        self.others.insert(name.into(), uuid);
        Ok(uuid)
    }

    fn stat(
        &mut self,
        key: &str,
        desc: &Desc,
        provider: &str,
        packets: &mut Packets,
    ) -> Result<u64> {
        if let Some(&known) = self.stats.get(key) {
            return Ok(known);
        }
        let uuid = self.take()?;
        let rank = self.stats.len() as u64 + 1;
        let text = describe_stat(desc, provider);
        packets.add(|out| {
            out.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(track::UUID, uuid).text(track::NAME, &desc.name);
                out.uint(track::PARENT_UUID, self.root).uint(track::RANK, rank);
                out.uint(track::CHILD_ORDERING, track::EXPLICIT);
                out.text(track::DESCRIPTION, &text);
            });
        });
        self.stats.insert(key.into(), uuid);
        Ok(uuid)
    }

    fn take(&mut self) -> Result<u64> {
        let count = (self.next - self.root) as usize;
        Error::check("the number of tracks", count + 1, MAX_TRACKS)?;
        self.next += 1;
        Ok(self.next - 1)
    }
}

/// Writes the unit, and that all objects share the range of the statistic's axis.
fn describe_counter(out: &mut Message, desc: &Desc, share: &str) {
    let is_ns = desc.unit == Unit::Seconds && desc.scale.factor() == Some(1e-9);
    let is_plain = desc.scale.exponent == 0;
    match desc.unit {
        Unit::Seconds if is_ns => out.uint(counter::UNIT, counter::TIME_NS),
        Unit::Bytes if is_plain => out.uint(counter::UNIT, counter::SIZE_BYTES),
        Unit::None if is_plain => out.uint(counter::UNIT, counter::COUNT),
        unit => out.text(counter::UNIT_NAME, &desc.scale.text(unit)),
    };
    out.text(counter::SHARE_KEY, share);
}

/// Returns a description of a statistic for people.
fn describe_stat(desc: &Desc, provider: &str) -> String {
    let unit = desc.scale.text(desc.unit);
    let unit = if unit.is_empty() { String::new() } else { format!(", in {unit}") };
    let rebased = match desc.stat_type {
        StatType::Cumulative => ", counted from the first sample on",
        _ => "",
    };
    format!("{} of provider {provider}{unit}{rebased}", desc.stat_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(counts: bool) -> Counter {
        Counter { track: 1, base: None, counts, last: 0 }
    }

    #[test]
    fn counts_begin_at_0_and_levels_do_not() {
        let mut count = counter(true);
        let values = [1 << 60, 1 << 60, (1 << 60) + 5, 3];
        assert!(!count.has_begun());
        let shown: Vec<_> = values.iter().map(|&value| count.shown(value)).collect();
        assert_eq!(shown, [Some(0), None, Some(5), Some(3 - (1 << 60))]);
        let mut level = counter(false);
        assert_eq!(
            [0, 7, 7, u64::MAX].map(|value| level.shown(value)),
            [Some(0), Some(7), None, Some(i64::MAX)]
        );
        assert!(level.has_begun());
    }

    #[test]
    fn ids_of_two_traces_differ_and_are_short() {
        let (a, b) = (Tracks::new(1_000_000_000), Tracks::new(1_000_000_001));
        assert_ne!(a.root >> 14, b.root >> 14);
        assert!(a.root < 1 << 35 && b.root < 1 << 35);
        let mut last = Tracks::new(1);
        last.next = last.root + MAX_TRACKS as u64 - 1;
        assert!(last.take().is_ok() && last.take().is_err());
    }
}
