//! The methods by which objects are read, as data: by the BPF reader or one by one, and why.
//!
//! Invariant: what is said was counted by the sampler in its ticks, not concluded from what was
//! asked for. Nothing is said where there is no choice: of a table, or of what a QEMU is asked.

use std::collections::HashSet;
use std::sync::Arc;

use crate::parts::{Bpf, BpfStatus, KVM, QMP, SCHED};
use vmstrobe_core::text::counted;
use vmstrobe_core::{Filter, Group, Layout, Provider, Registry, Target};
use vmstrobe_sampler::{Catalog, Health, OnDemandReader, TARGET};

use crate::error::Result;

/// The method by which the objects of KVM, or the threads of its vCPUs, were read in the newest
/// sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadStatus {
    /// The number of objects.
    pub objects: usize,
    /// The number of those that the BPF reader read, all in one call.
    pub bpf_objects: usize,
    /// The ticks so far in which a source fell back from the BPF reader to reading one by one.
    pub fallback_ticks: u64,
    /// The state of the BPF reader.
    pub bpf: BpfStatus,
    /// The method for those that the BPF reader does not read.
    pub one_by_one: OneByOne,
}

/// The method for objects that the BPF reader does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneByOne {
    /// One `pread` of its stats fd for each object of KVM and tick.
    Pread,
    /// The threads of vCPUs from /proc, ten times a second; with the warning of their provider, if
    /// it has one.
    Proc {
        /// Why the BPF reader does not read them.
        warning: Option<String>,
    },
}

/// The method by which some of the objects, or each of them, are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMethod {
    /// The BPF reader: all in one call.
    Bpf,
    /// One `pread` for each.
    Pread,
    /// /proc.
    Proc,
}

impl ReadMethod {
    /// Returns the name: `bpf`, `pread` or `proc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Pread => "pread",
            Self::Proc => "proc",
        }
    }
}

impl ReadStatus {
    /// Returns the status of objects that are read one by one because the BPF reader is switched
    /// off.
    #[doc(hidden)] // For tests of texts made from it.
    pub fn by_pread(objects: usize) -> Self {
        let (bpf, one_by_one) = (BpfStatus::Off, OneByOne::Pread);
        Self { objects, bpf_objects: 0, fallback_ticks: 0, bpf, one_by_one }
    }

    /// Returns the quickest method by which any of the objects was read.
    pub fn method(&self) -> ReadMethod {
        match (self.bpf_objects, &self.one_by_one) {
            (1.., _) => ReadMethod::Bpf,
            (0, OneByOne::Pread) => ReadMethod::Pread,
            (0, OneByOne::Proc { .. }) => ReadMethod::Proc,
        }
    }

    /// Returns why it was not the BPF reader, or not in all ticks, if there is something to say.
    pub fn reason(&self) -> Option<String> {
        match (&self.bpf, self.bpf_objects, self.fallback_ticks) {
            (BpfStatus::GivenUp(why), ..) => Some(format!("the BPF reader was given up: {why}")),
            (_, 1.., 0) => None,
            (_, _, ticks @ 1..) => {
                let ticks = counted(ticks as usize, "tick");
                let how = if self.one_by_one == OneByOne::Pread { "pread" } else { "/proc" };
                Some(format!("{ticks} by {how}"))
            }
            (BpfStatus::Open(_) | BpfStatus::Untried, ..) => match &self.one_by_one {
                OneByOne::Pread => Some("quicker here than the BPF reader".to_owned()),
                OneByOne::Proc { warning } => warning.clone(),
            },
            (status, ..) => Some(format!("BPF reader: {status}")),
        }
    }
}

/// Returns the [`ReadStatus`] of a sampler that runs.
#[derive(Debug)]
pub(crate) struct ReadMonitor {
    /// The providers that ask a QEMU.
    asking: Vec<Arc<dyn Provider>>,
    /// The providers of the vCPUs' threads.
    sched: Vec<Arc<dyn Provider>>,
    bpf: Bpf,
    /// The reader of the sampler's health alone.
    health: OnDemandReader,
}

impl ReadMonitor {
    /// Returns the monitor of a sampler with this health, of these providers.
    ///
    /// # Errors
    /// If its health cannot be opened.
    pub(crate) fn new(registry: &Registry, bpf: Bpf, health: Health) -> Result<Self> {
        let named = |name| {
            let mut providers = registry.providers();
            providers.retain(|provider| provider.name() == name);
            providers
        };
        let (asking, sched) = (named(QMP), named(SCHED));
        let own = Registry::default();
        own.add(Arc::new(health));
        let health = Catalog::look(&own).0.reader(&Filter::all(Target::from_name(TARGET)))?;
        Ok(Self { asking, sched, bpf, health })
    }

    /// Returns the status for the newest sample, whose layout this is; `None` if nothing in it is
    /// of KVM.
    pub(crate) fn read_status(&mut self, layout: &Layout) -> Option<ReadStatus> {
        let of_sched = self.objects(layout, SCHED);
        let objects = self.objects(layout, KVM) + of_sched;
        if objects == 0 {
            return None;
        }
        let first_warning = |sched: &Arc<dyn Provider>| {
            sched.warnings().first().map(|warning| format!("{warning:#}"))
        };
        let one_by_one = match of_sched {
            0 => OneByOne::Pread,
            _ => OneByOne::Proc { warning: self.sched.iter().find_map(first_warning) },
        };
        // The health only fails to be read while it is written all the time.
        let health = self.health.read().ok()?;
        let count = |name| health.stat(name).next().and_then(|(_, value)| value.number());
        let [bpf_objects, fallback_ticks] =
            ["bulk_rows", "fallback_ticks"].map(|name| count(name).unwrap_or(0));
        let (bpf, bpf_objects) = (self.bpf.status(), bpf_objects as usize);
        Some(ReadStatus { objects, bpf_objects, fallback_ticks, bpf, one_by_one })
    }

    /// Returns how many objects are of this provider, and not as a QEMU tells of them.
    fn objects(&self, layout: &Layout, provider: &str) -> usize {
        // They never wait for their QEMU.
        let told = self.asking.iter().flat_map(|qemu| qemu.objects().unwrap_or_default());
        let told: HashSet<Box<str>> = told.map(|object| object.path).collect();
        let is_its = |group: &&Group| group.plan.schema().provider() == provider;
        let objects = layout.groups().iter().filter(is_its).flat_map(|group| &group.objects);
        objects.filter(|object| !told.contains(&object.path)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bpf_objects: usize, fallback_ticks: u64, bpf: BpfStatus) -> ReadStatus {
        ReadStatus { bpf_objects, fallback_ticks, bpf, ..ReadStatus::by_pread(5) }
    }

    #[test]
    fn the_method_is_that_of_the_last_tick() {
        let open = || BpfStatus::Open("may_goto".to_owned());
        let proc = OneByOne::Proc { warning: None };
        assert_eq!(status(5, 0, open()).method(), ReadMethod::Bpf);
        assert_eq!(status(0, 7, open()).method(), ReadMethod::Pread);
        let by_proc = ReadStatus { one_by_one: proc, ..status(0, 0, open()) };
        assert_eq!((by_proc.method(), by_proc.reason()), (ReadMethod::Proc, None));
    }

    #[test]
    fn there_is_a_reason_unless_all_is_read_by_the_bpf_reader() {
        let open = || BpfStatus::Open("may_goto, rdonly_cast".to_owned());
        for (bpf_objects, fallback_ticks, bpf, reason) in [
            (5, 0, open(), None),
            (3, 0, open(), None),
            (5, 1, open(), Some("1 tick by pread")),
            (0, 0, open(), Some("quicker here than the BPF reader")),
            (0, 0, BpfStatus::Off, Some("BPF reader: switched off")),
            (
                0,
                0,
                BpfStatus::Refused("it takes CAP_BPF".to_owned()),
                Some("BPF reader: it takes CAP_BPF"),
            ),
            (
                0,
                1200,
                BpfStatus::GivenUp("it was wrong".to_owned()),
                Some("the BPF reader was given up: it was wrong"),
            ),
        ] {
            let status = status(bpf_objects, fallback_ticks, bpf);
            assert_eq!(status.reason().as_deref(), reason, "{status:?}");
        }
    }
}
