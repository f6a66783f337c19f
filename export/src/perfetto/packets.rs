//! Packets of a trace, which are collected and compressed together.
//!
//! Invariant: the first packet of a collection sets the defaults that the others need, so that each
//! compressed packet can be read without those before it, but for the descriptions of tracks.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use vmstrobe_core::Window;

use super::fields::{clock, event, packet, trace};
use super::proto::Message;

/// The id of the only sequence of packets.
const SEQUENCE: u64 = 1;

/// The packets that become one compressed packet.
#[derive(Debug, Default)]
pub(super) struct Packets {
    message: Message,
    is_begun: bool,
}

impl Packets {
    /// Adds a packet of the sequence.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Message)) {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        self.message.message(trace::PACKET, |out| {
            out.uint(packet::SEQUENCE_ID, SEQUENCE);
            if is_first {
                out.uint(packet::SEQUENCE_FLAGS, packet::STATE_CLEARED);
                out.message(packet::TRACE_PACKET_DEFAULTS, |out| {
                    out.uint(packet::TIMESTAMP_CLOCK_ID, clock::MONOTONIC);
                });
            } else {
                out.uint(packet::SEQUENCE_FLAGS, packet::NEEDS_STATE);
            }
            write(out);
        });
    }

    /// Adds an event of a track.
    pub(super) fn event(&mut self, at_ns: u64, write: impl FnOnce(&mut Message)) {
        self.add(|out| {
            out.uint(packet::TIMESTAMP, at_ns).message(packet::TRACK_EVENT, write);
        });
    }

    /// Adds the begin of a slice, or an instant.
    pub(super) fn named(&mut self, at_ns: u64, kind: u64, track: u64, name: &str) {
        self.event(at_ns, |out| {
            out.uint(event::TYPE, kind).uint(event::TRACK_UUID, track);
            out.text(event::CATEGORIES, "vmstrobe").text(event::NAME, name);
        });
    }

    pub(super) fn end_slice(&mut self, at_ns: u64, track: u64) {
        self.event(at_ns, |out| {
            out.uint(event::TYPE, event::SLICE_END).uint(event::TRACK_UUID, track);
        });
    }

    /// Relates the clocks.
    pub(super) fn clocks(&mut self, window: Window, boottime_offset_ns: Option<i64>) {
        let at_ns = window.middle_ns();
        let boottime_ns = boottime_offset_ns.map(|offset| at_ns.saturating_add_signed(offset));
        let clocks = [
            Some((clock::MONOTONIC, at_ns)),
            Some((clock::REALTIME, window.wall_ns())),
            boottime_ns.map(|ns| (clock::BOOTTIME, ns)),
        ];
        let primary = boottime_ns.map_or(clock::MONOTONIC, |_| clock::BOOTTIME);
        self.add(|out| {
            out.message(packet::CLOCK_SNAPSHOT, |out| {
                for (id, ns) in clocks.into_iter().flatten() {
                    out.message(clock::CLOCKS, |out| {
                        out.uint(clock::ID, id).uint(clock::TIMESTAMP, ns);
                    });
                }
                out.uint(clock::PRIMARY, primary);
            });
        });
    }

    /// Takes all packets, compressed into one; `None` if there are none.
    pub(super) fn take(&mut self) -> Option<Message> {
        if self.message.is_empty() {
            return None;
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        let compressed = encoder.write_all(self.message.bytes());
        let compressed = compressed.and_then(|()| encoder.finish());
        let compressed = compressed.expect("a Vec takes all that is written");
        let mut message = Message::default();
        message.message(trace::PACKET, |out| {
            out.data(packet::COMPRESSED_PACKETS, &compressed);
        });
        self.message.clear();
        self.is_begun = false;
        Some(message)
    }
}
