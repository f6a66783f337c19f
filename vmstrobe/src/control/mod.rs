//! Recorders that run, from other processes: a recorder has a control socket that speaks QMP, and
//! other processes of its user ask it there for dumps and give it marks.
//!
//! The recorder:
//!
//! ```no_run
//! use vmstrobe::control::{ControlListener, ControlPlace};
//! use vmstrobe::{Attachment, Broker, FileOptions, Options, Sources, ThreadStart};
//!
//! let attachment = Attachment::open(&Sources::pid(4711), &Options::default())?;
//! let registry = attachment.registry().clone();
//! let listener = ControlListener::bind(&ControlPlace::OfUser, Broker::default())?;
//! let session = attachment.sample("vcpu: *", 1000.0)?;
//! let recording = session.record_to("run.arrows".as_ref(), FileOptions::default())?;
//! let control = listener.serve(registry, recording.handle(), ThreadStart::default())?;
//! // ... at the end, in this order:
//! drop(control);
//! recording.stop()?;
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Another process:
//!
//! ```no_run
//! use vmstrobe::Broker;
//! use vmstrobe::control::running_recorders;
//!
//! for recorder in running_recorders()? {
//!     recorder.mark("migration begins", &Broker::default())?;
//! }
//! # Ok::<(), vmstrobe::Error>(())
//! ```
//!
//! Invariant: only root and the recorder's own user can ask a recorder for anything: by the
//! directory, by the mode of the socket, and by what the kernel says about the process that
//! connects. Nothing that a client does loses a sample, and nothing that a recorder does keeps a
//! client waiting without end.

mod error;
mod directory;
mod socket;
mod client;

pub use client::{RunningRecorder, running_recorders};
pub use error::{ControlError, UnsafeDirectory};
pub use socket::{ControlEvent, ControlListener, ControlPlace, ControlSocket};
pub use vmstrobe_server::qmp::{DumpArguments, DumpedFile};
