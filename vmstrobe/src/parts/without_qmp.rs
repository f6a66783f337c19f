//! The stand-in for QEMUs that are asked: none can be connected to, so no value of it exists.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Object, Provider, ReadPlan, Result, Schema, Source};
use vmstrobe_host::{CpuNames, Host};

/// The provider's name.
pub(crate) const QMP: &str = "qmp";

/// The part of a QEMU's statistics that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QmpShare {
    All,
    BesideKvm,
}

/// A QEMU that is asked.
#[derive(Debug)]
pub(crate) enum Qmp {}

impl Qmp {
    pub(crate) fn connect_by(path: &Path, _: QmpShare, _: &Host) -> Result<Self> {
        Err(super::without(&format!("the QMP socket {}", path.display()), "qmp"))
    }

    pub(crate) fn vm_name(&self) -> &str {
        match *self {}
    }

    pub(crate) fn peer_pid(&self) -> Option<u32> {
        match *self {}
    }

    pub(crate) fn cpu_names(&self) -> CpuNames {
        match *self {}
    }
}

impl Provider for Qmp {
    fn name(&self) -> &str {
        match *self {}
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        match *self {}
    }

    fn objects(&self) -> Result<Vec<Object>> {
        match *self {}
    }

    fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        match *self {}
    }
}
