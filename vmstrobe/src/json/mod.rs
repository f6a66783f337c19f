//! Results as JSON: those of the library, and those of QEMU's statistics commands.
//!
//! [`Listing`](crate::Listing), [`ReadStatus`](crate::ReadStatus),
//! [`RunSummary`](crate::RunSummary) and [`IntervalReport`] implement `serde::Serialize`, and
//! [`text`] writes any of them:
//!
//! ```no_run
//! let listing = vmstrobe::list(&vmstrobe::Options::default(), true)?;
//! println!("{}", vmstrobe::json::text(&listing));
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Invariant: JSON has data. Only the fields that docs/json.md marks have text for people. A field
//! is absent only if it has no value.

mod interval;
mod listing;
#[cfg(feature = "export")]
mod recording;
#[cfg(feature = "export")]
mod report;
mod run;

pub use interval::{EventEntry, IntervalReport};
#[cfg(feature = "export")]
pub use recording::TriggerReport;
#[cfg(all(feature = "export", feature = "server"))]
pub use recording::{DumpReport, MarkReport};
#[cfg(feature = "export")]
pub use report::ReportsText;
pub use vmstrobe_core::json::*;
