//! The stand-in for the BPF reader: it is switched off.

use std::fmt;

use vmstrobe_core::Result;
use vmstrobe_host::Broker;

use super::Bulk;

/// When the BPF reader is used: never, in a program that is built without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BpfMode {
    /// Never.
    #[default]
    Auto,
}

/// The state of the BPF reader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BpfStatus {
    /// It is not compiled in.
    Off,
    /// It has not been tried. Never so here.
    Untried,
    /// It cannot be used. Never so here.
    Refused(String),
    /// It can be used. Never so here.
    Open(String),
    /// It was given up. Never so here.
    GivenUp(String),
}

impl BpfStatus {
    /// Returns the status in one word.
    pub fn name(&self) -> &'static str {
        "off"
    }
}

impl fmt::Display for BpfStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not compiled in")
    }
}

/// The BPF reader, which this program is built without.
#[derive(Clone, Debug, Default)]
pub struct Bpf {
    broker: Broker,
}

impl Bpf {
    /// Returns a reader that is never used.
    pub fn new(_: BpfMode) -> Self {
        Self::off()
    }

    /// Returns a reader that is never used.
    pub fn off() -> Self {
        Self::default()
    }

    /// Returns the broker by which processes are looked at.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns the error that it is not compiled in.
    ///
    /// # Errors
    /// Always.
    pub fn check(&self) -> Result<()> {
        Err(super::without("the BPF reader", "bpf"))
    }

    /// Returns [`BpfStatus::Off`].
    pub fn status(&self) -> BpfStatus {
        BpfStatus::Off
    }
}

impl From<Bpf> for Bulk {
    fn from(_: Bpf) -> Self {
        None
    }
}
