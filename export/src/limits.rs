//! The limits of a recording. Writers keep to them and readers enforce them, so that a recording
//! that was written here is always read.
//!
//! Invariant: what a reader holds is bounded by these constants, whatever a file claims.

/// The most columns of statistics in one recording. A vCPU of Linux 6.18 has 138.
pub const MAX_COLUMNS: usize = 16_384;
/// The most schemas in one recording: kinds of object, by provider, target and kept statistics.
pub const MAX_SCHEMAS: usize = 1024;
/// The most rows of one batch: objects times ticks.
pub const MAX_BATCH_ROWS: usize = 1 << 20;
/// The most values of one batch: rows times columns. 64 vCPUs of 138 words have 4.4 million in 500
/// ticks.
pub const MAX_BATCH_VALUES: usize = 1 << 26;
/// The most words of one tick. 64 vCPUs have 8,832.
pub const MAX_TICK_WORDS: usize = 1 << 22;
/// The most changes of one batch; each takes 12 bytes.
pub const MAX_BATCH_CHANGES: usize = 1 << 23;
/// The most bytes of the header of one message. That of a schema takes about 300 for each column.
pub const MAX_HEADER_BYTES: usize = 32 << 20;
/// The most bytes of the body of one message.
pub const MAX_BODY_BYTES: usize = 256 << 20;
/// The most bytes of all texts of a dictionary, such as the paths of all objects.
pub const MAX_TEXT_BYTES: usize = 32 << 20;
/// The most bytes of the text of one event.
pub const MAX_EVENT_BYTES: usize = 64 << 10;
/// The most events that wait for the next batch. A further one has them written at once.
pub const MAX_WAITING_EVENTS: usize = 256;
