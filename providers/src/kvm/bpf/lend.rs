//! The frames of sources, for other processes: which there are, and how they are given away.
//!
//! Invariant: who has got a frame's descriptor can read the frame and nothing else. It is frozen
//! before it comes here, so that no process can write it; but a program can that is loaded with the
//! descriptor, so it is given away only where loading one needs a privilege. A number is never used
//! again, and a frame that is believed no more is given to nobody.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vmstrobe_core::{Error, ErrorKind, Result};

use super::policy::Bpf;
use super::sys::ArrayMap;
use crate::handover::{ExportFds, ExportedFd};

/// The file of the setting that is 0 if anybody may load BPF programs (the kernel's
/// `admin-guide/sysctl/kernel.rst`).
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// The frames of all sources of a [`Bpf`], each as long as its source is there.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<(u64, Weak<ArrayMap>)>,
    last: u64,
}

impl Frames {
    /// From now on this one is given away too.
    pub(super) fn add(&self, array: &Arc<ArrayMap>) {
        // A number and a list: no panic leaves them half changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.known.retain(|(_, known)| known.strong_count() > 0);
        state.last += 1;
        let number = state.last;
        state.known.push((number, Arc::downgrade(array)));
    }

    /// Returns the frames whose sources still exist, each with its number.
    fn all(&self) -> Vec<(u64, Arc<ArrayMap>)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |(number, array): &(u64, Weak<ArrayMap>)| Some((*number, array.upgrade()?));
        state.known.iter().filter_map(held).collect()
    }
}

impl Bpf {
    /// Returns descriptors of the frames of its open sources, the first opened first, for
    /// [`KernelFrame::open`](crate::KernelFrame::open) in this process or another. They can be sent
    /// over a Unix socket or inherited. A process that holds one can read the frame and nothing
    /// else, and still sees the last values when the source is gone. After the BPF reader is
    /// given up there are none.
    ///
    /// # Errors
    /// `Unsupported` if anybody may load BPF programs here, and so write a frame with its
    /// descriptor, or if that cannot be told; `Io` if this process has no room for the descriptors.
    pub fn frames(&self) -> Result<Vec<OwnedFd>> {
        let frames = self.numbered_frames()?;
        Ok(frames.into_iter().map(|(_, frame)| frame).collect())
    }

    fn numbered_frames(&self) -> Result<Vec<(u64, OwnedFd)>> {
        let setting = fs::read_to_string(UNPRIVILEGED_BPF).map_err(|error| {
            let text = format!("cannot read {UNPRIVILEGED_BPF}, so no frame is lent");
            Error::caused(ErrorKind::Unsupported, text, error)
        })?;
        check_lendable(&setting)?;
        if self.health().is_given_up() {
            return Ok(Vec::new());
        }
        let copy = |(number, array): (u64, Arc<ArrayMap>)| {
            let frame = array.as_fd().try_clone_to_owned();
            frame.map(|frame| (number, frame)).map_err(|error| {
                Error::caused(ErrorKind::Io, "cannot make another descriptor of a frame", error)
            })
        };
        self.lent().all().into_iter().map(copy).collect()
    }
}

/// Lends the frames of its sources, as tables: those that are open now, and later ones. When one is
/// closed, or the BPF reader is given up, its rows are gone wherever they are read. One that
/// is not ticked for 10 s has no values meanwhile.
impl ExportFds for Bpf {
    fn loans(&self) -> Result<Vec<ExportedFd>> {
        let frames = self.numbered_frames()?;
        Ok(frames.into_iter().map(|(number, frame)| ExportedFd::table(number, frame)).collect())
    }
}

/// Whether what is given away stays as we write it, by the system's setting.
fn check_lendable(setting: &str) -> Result<()> {
    if matches!(setting.trim(), "1" | "2") {
        return Ok(());
    }
    let text = "frames are not lent where anybody may load BPF programs, by which they could be \
                written: set kernel.unprivileged_bpf_disabled to 1 or 2";
    Err(Error::new(ErrorKind::Unsupported, text))
}

#[cfg(test)]
mod tests;
