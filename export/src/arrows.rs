//! `.arrows`: a stream of Apache Arrow's IPC format (`docs/source/format/Columnar.rst`), version 5.
//!
//! A stream is a message with the schema, then messages with dictionaries and batches of rows, then
//! eight bytes that mark its end. A stream that ends behind a whole message without the mark is
//! good too, so a recording can be read while it is written and after its writer was killed.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `time` | timestamp, ns, UTC | the middle of the reading |
//! | `tick` | uint64 | the number of the tick; a gap means missed or lost ticks |
//! | `window_ns` | uint64 | the width of the reading; it began `window_ns / 2` before `time` |
//! | `wall_offset_ns` | int64 | `time` less this is `CLOCK_MONOTONIC`, which never jumps |
//! | `vm` | dictionary of text | the VM's name; null if unknown |
//! | `vcpu` | uint32 | the number of a vCPU; null for other objects |
//! | `path` | dictionary of text | the object's path |
//! | `schema` | dictionary of text | its provider and target: `kvm/vcpu` |
//! | `object` | uint64 | differs between two objects that had one path one after the other |
//! | `state` | uint8 | 0 good, 1 aged, 2 missing, 3 stale, 4 torn, 5 gone, 6 failed |
//! | `age_ms` | uint32 | the age of the values of an aged row |
//! | `errno` | int32 | the error of a failed row |
//! | statistics | uint64 | a column for each statistic or bucket; null if there is no value |
//!
//! Rows are object-major within a batch. The field metadata of a statistic has its properties, that
//! of the schema the circumstances of the recording. A later dictionary replaces the earlier one.
//! Events are the custom metadata of a batch: for event 0 `event.0.time_ns` (since 1970),
//! `event.0.wall_offset_ns`, `event.0.kind` and `event.0.text`. A batch may have events and no
//! rows.
//!
//! Invariant: a message goes to the destination in one write, and a reader trusts no number.

mod flat;
mod table;
mod codec;
mod message;
pub(crate) mod schema;
mod events;
mod column;
mod encoder;
mod writer;
mod fields;
mod decoder;
mod reader;
mod ring;

pub use self::codec::Compression;
pub use self::reader::{ArrowsReader, End, Item};
pub use self::ring::{ArrowsRing, Frozen, RingLimits, Span};
pub use self::writer::ArrowsWriter;
