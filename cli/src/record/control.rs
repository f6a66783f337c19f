//! The control socket of `vmstrobe record`, by which `dump` and `mark` reach it.
//!
//! Invariant: a recorder that cannot listen in the usual place says so and records. Only a place
//! that the user named is an error.

use vmstrobe::control::{ControlEvent, ControlListener, ControlPlace, ControlSocket};
use vmstrobe::{Broker, RecordingHandle, Registry};

use super::report::dump_lines;
use crate::args::ControlArgs;
use crate::error::Result;
use crate::out::{say, say_each};
use crate::privileges::unprivileged_threads;
use crate::text::utc;

/// Listens, if the user wants it and the system permits it. Clients wait until they are served.
///
/// # Errors
/// If the socket that the user named cannot be made.
pub(super) fn listen(args: &ControlArgs, broker: Broker) -> Result<Option<ControlListener>> {
    let Some(place) = args.place() else { return Ok(None) };
    match ControlListener::bind(&place, broker) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if place == ControlPlace::OfUser => {
            say_deaf(&error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Serves clients from now on.
pub(super) fn serve(
    listener: Option<ControlListener>,
    registry: Registry,
    recording: RecordingHandle,
) -> Option<ControlSocket> {
    let served = listener?.serve(registry, recording, unprivileged_threads());
    served.inspect_err(say_deaf).ok()
}

/// Reports what clients had the recorder do.
pub(super) fn report(events: Vec<ControlEvent>) {
    for event in events {
        match event {
            ControlEvent::Dumped(dump) => say_each(dump_lines(&dump)),
            ControlEvent::Marked { text, wall_ns } => {
                say(format_args!("marked at {}: {text}", utc(wall_ns)));
            }
            _ => {}
        }
    }
}

fn say_deaf(error: &vmstrobe::Error) {
    say(format_args!(
        "`vmstrobe dump` and `vmstrobe mark` cannot reach this recorder, which records all the \
         same: {error}; --control SOCKET chooses another place"
    ));
}
