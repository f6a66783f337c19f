//! The stand-in for programs that offer descriptors: none can be connected to.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Provider, Result};
use vmstrobe_host::Reaper;

use super::AttachOptions;

/// A program that offers descriptors.
#[derive(Debug)]
pub(crate) enum FdClient {}

impl FdClient {
    pub(crate) fn connect_with(path: &Path, _: Reaper, _: AttachOptions) -> Result<Self> {
        Err(super::without(&format!("the socket {}", path.display()), "fd-server"))
    }

    pub(crate) fn providers(&self) -> Vec<Arc<dyn Provider>> {
        match *self {}
    }

    pub(crate) fn peer_pid(&self) -> Option<u32> {
        match *self {}
    }
}
