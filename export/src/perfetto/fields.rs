//! The numbers of the fields and enumerators that are written: `protos/perfetto/trace/*.proto` of
//! Perfetto v58.

/// `Trace`.
pub(super) mod trace {
    pub(in crate::perfetto) const PACKET: u64 = 1;
}

/// `TracePacket`.
pub(super) mod packet {
    pub(in crate::perfetto) const CLOCK_SNAPSHOT: u64 = 6;
    pub(in crate::perfetto) const TIMESTAMP: u64 = 8;
    pub(in crate::perfetto) const SEQUENCE_ID: u64 = 10;
    pub(in crate::perfetto) const TRACK_EVENT: u64 = 11;
    pub(in crate::perfetto) const SEQUENCE_FLAGS: u64 = 13;
    pub(in crate::perfetto) const COMPRESSED_PACKETS: u64 = 50;
    pub(in crate::perfetto) const TIMESTAMP_CLOCK_ID: u64 = 58;
    pub(in crate::perfetto) const TRACE_PACKET_DEFAULTS: u64 = 59;
    pub(in crate::perfetto) const TRACK_DESCRIPTOR: u64 = 60;
    /// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing before it is needed.
    pub(in crate::perfetto) const STATE_CLEARED: u64 = 1;
    /// `SEQ_NEEDS_INCREMENTAL_STATE`: the defaults before it are.
    pub(in crate::perfetto) const NEEDS_STATE: u64 = 2;
}

/// `ClockSnapshot`, and the numbers of `BuiltinClock`.
pub(super) mod clock {
    pub(in crate::perfetto) const CLOCKS: u64 = 1;
    pub(in crate::perfetto) const PRIMARY: u64 = 2;
    pub(in crate::perfetto) const ID: u64 = 1;
    pub(in crate::perfetto) const TIMESTAMP: u64 = 2;
    pub(in crate::perfetto) const REALTIME: u64 = 1;
    pub(in crate::perfetto) const MONOTONIC: u64 = 3;
    pub(in crate::perfetto) const BOOTTIME: u64 = 6;
}

/// `TrackDescriptor`.
pub(super) mod track {
    pub(in crate::perfetto) const UUID: u64 = 1;
    pub(in crate::perfetto) const NAME: u64 = 2;
    pub(in crate::perfetto) const PARENT_UUID: u64 = 5;
    pub(in crate::perfetto) const COUNTER: u64 = 8;
    pub(in crate::perfetto) const CHILD_ORDERING: u64 = 11;
    pub(in crate::perfetto) const RANK: u64 = 12;
    pub(in crate::perfetto) const DESCRIPTION: u64 = 14;
    /// `EXPLICIT`: children are ordered by their ranks.
    pub(in crate::perfetto) const EXPLICIT: u64 = 3;
}

/// `CounterDescriptor`.
pub(super) mod counter {
    pub(in crate::perfetto) const UNIT: u64 = 3;
    pub(in crate::perfetto) const UNIT_NAME: u64 = 6;
    pub(in crate::perfetto) const SHARE_KEY: u64 = 7;
    pub(in crate::perfetto) const TIME_NS: u64 = 1;
    pub(in crate::perfetto) const COUNT: u64 = 2;
    pub(in crate::perfetto) const SIZE_BYTES: u64 = 3;
}

/// `TrackEvent`.
pub(super) mod event {
    pub(in crate::perfetto) const TYPE: u64 = 9;
    pub(in crate::perfetto) const TRACK_UUID: u64 = 11;
    pub(in crate::perfetto) const EXTRA_VALUES: u64 = 12;
    pub(in crate::perfetto) const CATEGORIES: u64 = 22;
    pub(in crate::perfetto) const NAME: u64 = 23;
    pub(in crate::perfetto) const COUNTER_VALUE: u64 = 30;
    pub(in crate::perfetto) const EXTRA_TRACK_UUIDS: u64 = 31;
    pub(in crate::perfetto) const SLICE_BEGIN: u64 = 1;
    pub(in crate::perfetto) const SLICE_END: u64 = 2;
    pub(in crate::perfetto) const INSTANT: u64 = 3;
    pub(in crate::perfetto) const COUNTER: u64 = 4;
}
