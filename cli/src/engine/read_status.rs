//! The BPF reader as commands use it: whether they want it, and which method was really used.
//!
//! Invariant: what is said was counted by the sampler in its ticks, not concluded from what was
//! asked for. Nothing is said where there is no choice: of a table, or of what a QEMU is asked.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use vmstrobe_core::{Filter, Group, Layout, Provider, Registry, Target};
use vmstrobe_providers::{Bpf, BpfMode, BpfStatus, Broker};
use vmstrobe_sampler::{Catalog, Health, OnDemandReader, TARGET};

use crate::args::{SCHED, When};
use crate::error::{Error, Result, with_causes};
use crate::text::{counted, thousands};

/// The provider of which each object takes a system call, or all of them one.
const KVM: &str = "kvm";
/// How each object of [`SCHED`] is read that is not read with the others; see
/// [`vmstrobe_providers::Sched`].
const BY_PROC: &str =
    "/proc, asked ten times a second (rates and shares are of the time between its answers)";
/// The provider that gives the same statistics as its QEMU tells them.
const QMP: &str = "qmp";

/// Returns the BPF reader for a command that samples. It is tried at once if it is required,
/// and else when there is something to read.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_sampling(when: When, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Auto, broker)
}

/// Returns the BPF reader for a command that reads once. Unless it is required, it is used
/// only for what nothing else can read: otherwise loading a program is not worth it.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_reading(when: When, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Needed, broker)
}

fn bpf(when: When, auto: BpfMode, broker: Broker) -> Result<Bpf> {
    let mode = match when {
        When::Auto => auto,
        When::Off => BpfMode::Off,
        When::Require => BpfMode::Require,
    };
    let bpf = Bpf::with_broker(mode, broker);
    if when == When::Require {
        let explain = |error| Error::failed(format!("--bpf require: {}", with_causes(&error)));
        bpf.check().map_err(explain)?;
    }
    Ok(bpf)
}

/// How the objects of KVM, or the threads of its vCPUs, were read in the last tick,
/// and the number of ticks so far in which a source that can read its rows in one call did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadStatus {
    /// How many there are.
    objects: usize,
    /// How many of them were read all in one call.
    bulk: usize,
    /// Ticks in which the one call that should have read them did not.
    fallback_ticks: u64,
    status: BpfStatus,
    per_object: PerObject,
}

/// How those are read that are not read all in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PerObject {
    /// Objects of KVM.
    Pread,
    /// Threads of vCPUs; with what their provider warns of.
    Proc(Option<String>),
}

/// How objects were read, for programs. docs/json.md has the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Read {
    method: ReadMethod,
    objects: usize,
    bpf_objects: usize,
    fallback_ticks: u64,
    bpf: BpfState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The means by which some of the objects, or each of them, are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ReadMethod {
    Bpf,
    Pread,
    Proc,
}

/// The state of the BPF reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum BpfState {
    Off,
    Untried,
    Refused,
    Open,
    GivenUp,
}

impl From<&BpfStatus> for BpfState {
    fn from(status: &BpfStatus) -> Self {
        match status {
            BpfStatus::Off => Self::Off,
            BpfStatus::Untried => Self::Untried,
            BpfStatus::Open(_) => Self::Open,
            BpfStatus::GivenUp(_) => Self::GivenUp,
            // Whatever else it is, it is not used.
            _ => Self::Refused,
        }
    }
}

impl ReadStatus {
    /// As data, for programs.
    pub(crate) fn data(&self) -> Read {
        Read {
            method: match (self.bulk, &self.per_object) {
                (1.., _) => ReadMethod::Bpf,
                (0, PerObject::Pread) => ReadMethod::Pread,
                (0, PerObject::Proc(_)) => ReadMethod::Proc,
            },
            objects: self.objects,
            bpf_objects: self.bulk,
            fallback_ticks: self.fallback_ticks,
            bpf: (&self.status).into(),
            reason: self.reason(),
        }
    }

    /// As [`ReadStatus::text`], and why so, for people.
    pub(crate) fn sentence(&self, article: &str, noun: &str) -> String {
        let reason = self.reason().map(|reason| format!("; {reason}")).unwrap_or_default();
        self.text(article, noun) + &reason
    }

    /// Of objects that are read one by one, because the BPF reader is switched off.
    #[cfg(test)]
    pub(crate) fn by_pread(objects: usize) -> Self {
        let (status, per_object) = (BpfStatus::Off, PerObject::Pread);
        Self { objects, bulk: 0, fallback_ticks: 0, status, per_object }
    }

    /// In words, for objects of which one is called `noun` with that article: `one pread a vCPU and
    /// tick`.
    pub(crate) fn text(&self, article: &str, noun: &str) -> String {
        let Self { objects, bulk, fallback_ticks, status, per_object } = self;
        let one_by_one = match per_object {
            PerObject::Pread => format!("one pread {article} {noun}"),
            PerObject::Proc(_) => BY_PROC.to_owned(),
        };
        let program = match status {
            BpfStatus::Open(how) => format!("the BPF reader ({how})"),
            _ => "the BPF reader".to_owned(),
        };
        match (*bulk, *fallback_ticks) {
            (0, 0) if *per_object == PerObject::Pread => format!("{one_by_one} and tick"),
            (0, 0) => one_by_one,
            (0, ticks) => {
                let ticks = counted(ticks as usize, "tick");
                format!("{one_by_one} in the last {ticks}")
            }
            (bulk, _) if bulk >= *objects => {
                format!("{program}: one call for {}", counted(*objects, noun))
            }
            (bulk, _) => {
                let (bulk, objects) = (thousands(bulk as u64), counted(*objects, noun));
                let each = match per_object {
                    PerObject::Pread => "a pread for each other",
                    PerObject::Proc(_) => "the others by /proc",
                };
                format!("{program}: one call for {bulk} of {objects}, {each}")
            }
        }
    }

    /// Why it was not the BPF reader, if there is something to say.
    pub(crate) fn reason(&self) -> Option<String> {
        match (&self.status, self.bulk, self.fallback_ticks) {
            (BpfStatus::GivenUp(why), ..) => Some(format!("the BPF reader was given up: {why}")),
            (_, 1.., 0) => None,
            (_, _, ticks @ 1..) => {
                let ticks = counted(ticks as usize, "tick");
                let how = if self.per_object == PerObject::Pread { "pread" } else { "/proc" };
                Some(format!("{ticks} by {how}"))
            }
            (BpfStatus::Open(_) | BpfStatus::Untried, ..) => match &self.per_object {
                PerObject::Pread => Some("quicker here than the BPF reader".to_owned()),
                PerObject::Proc(why) => why.clone(),
            },
            (status, ..) => Some(format!("BPF reader: {status}")),
        }
    }
}

/// Tells the [`ReadStatus`] of a sampler that runs.
#[derive(Debug)]
pub(super) struct ReadMonitor {
    /// The providers that ask a QEMU.
    asking: Vec<Arc<dyn Provider>>,
    /// The providers of the vCPUs' threads.
    sched: Vec<Arc<dyn Provider>>,
    bpf: Bpf,
    /// Of our own health alone.
    health: OnDemandReader,
}

impl ReadMonitor {
    /// Of a sampler with this health, of these providers.
    ///
    /// # Errors
    /// If its health cannot be opened.
    pub(super) fn new(registry: &Registry, bpf: Bpf, health: Health) -> Result<Self> {
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
    pub(super) fn read_status(&mut self, layout: &Layout) -> Option<ReadStatus> {
        let of_sched = self.objects(layout, SCHED);
        let objects = self.objects(layout, KVM) + of_sched;
        if objects == 0 {
            return None;
        }
        let per_object =
            match of_sched {
                0 => PerObject::Pread,
                _ => PerObject::Proc(self.sched.iter().find_map(|sched| {
                    sched.warnings().first().map(|warning| with_causes(warning))
                })),
            };
        // Our own health only fails to be read while it is written all the time.
        let health = self.health.read().ok()?;
        let count = |name| health.stat(name).next().and_then(|(_, value)| value.number());
        let [bulk, fallback_ticks] =
            ["bulk_rows", "fallback_ticks"].map(|name| count(name).unwrap_or(0));
        let status = self.bpf.status();
        Some(ReadStatus { objects, bulk: bulk as usize, fallback_ticks, status, per_object })
    }

    /// How many objects are of this provider, and not as a QEMU tells of them.
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

    fn status_texts(
        bulk: usize,
        fallback_ticks: u64,
        status: BpfStatus,
    ) -> (String, Option<String>) {
        texts(bulk, fallback_ticks, status, PerObject::Pread)
    }

    fn texts(
        bulk: usize,
        fallback_ticks: u64,
        status: BpfStatus,
        per_object: PerObject,
    ) -> (String, Option<String>) {
        let read = ReadStatus { objects: 5, bulk, fallback_ticks, status, per_object };
        (read.text("an", "object"), read.reason())
    }

    #[test]
    fn programs_get_it_as_data() {
        let json = |read: &ReadStatus| vmstrobe_server::json::text(&read.data());
        let read = ReadStatus::by_pread(5);
        let want = r#"{"method": "pread", "objects": 5, "bpf_objects": 0, "fallback_ticks": 0, "#
            .to_owned()
            + r#""bpf": "off", "reason": "BPF reader: switched off"}"#;
        assert_eq!(json(&read), want);
        let status = BpfStatus::Open("may_goto".to_owned());
        let read = ReadStatus { bulk: 5, status, ..read };
        let want = r#"{"method": "bpf", "objects": 5, "bpf_objects": 5, "fallback_ticks": 0, "#
            .to_owned()
            + r#""bpf": "open"}"#;
        assert_eq!(json(&read), want);
        let status = BpfStatus::GivenUp("it was wrong".to_owned());
        let read = ReadStatus { bulk: 0, status, per_object: PerObject::Proc(None), ..read };
        let json = json(&read);
        assert!(json.contains(r#""method": "proc""#) && json.contains(r#""given-up""#), "{json}");
    }

    #[test]
    fn the_method_for_threads_is_said_too() {
        let open = || BpfStatus::Open("may_goto".to_owned());
        let (proc, program) = (BY_PROC, "the BPF reader (may_goto): one call for");
        let why = "a pid namespace";
        for (bulk, fallback_ticks, status, text, reason) in [
            (5, 0, open(), format!("{program} 5 objects"), None),
            (3, 0, open(), format!("{program} 3 of 5 objects, the others by /proc"), None),
            (5, 2, open(), format!("{program} 5 objects"), Some("2 ticks by /proc")),
            (0, 0, open(), proc.to_owned(), Some(why)),
            (0, 0, BpfStatus::Off, proc.to_owned(), Some("BPF reader: switched off")),
            (
                0,
                7,
                BpfStatus::GivenUp("it was wrong".to_owned()),
                format!("{proc} in the last 7 ticks"),
                Some("the BPF reader was given up: it was wrong"),
            ),
        ] {
            let want = (text, reason.map(str::to_owned));
            let per_object = PerObject::Proc(Some(why.to_owned()));
            assert_eq!(texts(bulk, fallback_ticks, status.clone(), per_object), want, "{status:?}");
        }
    }

    #[test]
    fn the_method_is_said_with_its_reason() {
        let open = || BpfStatus::Open("may_goto, rdonly_cast".to_owned());
        let refused = || BpfStatus::Refused("it takes CAP_BPF".to_owned());
        let given_up = || BpfStatus::GivenUp("it was wrong".to_owned());
        let program = "the BPF reader (may_goto, rdonly_cast): one call for";
        for (bulk, fallback_ticks, status, text, reason) in [
            (5, 0, open(), format!("{program} 5 objects"), None),
            (3, 0, open(), format!("{program} 3 of 5 objects, a pread for each other"), None),
            (5, 1, open(), format!("{program} 5 objects"), Some("1 tick by pread")),
            (
                0,
                0,
                open(),
                "one pread an object and tick".to_owned(),
                Some("quicker here than the BPF reader"),
            ),
            (
                0,
                0,
                BpfStatus::Off,
                "one pread an object and tick".to_owned(),
                Some("BPF reader: switched off"),
            ),
            (
                0,
                0,
                refused(),
                "one pread an object and tick".to_owned(),
                Some("BPF reader: it takes CAP_BPF"),
            ),
            (
                0,
                1200,
                given_up(),
                "one pread an object in the last 1,200 ticks".to_owned(),
                Some("the BPF reader was given up: it was wrong"),
            ),
        ] {
            let want = (text, reason.map(str::to_owned));
            assert_eq!(status_texts(bulk, fallback_ticks, status.clone()), want, "{status:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_providers_get() {
        let mode = |when| bpf_for_sampling(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(When::Auto), Some(BpfMode::Auto));
        assert_eq!(mode(When::Off), Some(BpfMode::Off));
        let mode = |when| bpf_for_reading(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(When::Auto), Some(BpfMode::Needed));
        // Here it can be used, or there is a word why not.
        match bpf_for_sampling(When::Require, Broker::default()) {
            Ok(bpf) => assert!(matches!(bpf.status(), BpfStatus::Open(_)), "{bpf:?}"),
            Err(error) => assert!(error.to_string().starts_with("--bpf require: "), "{error}"),
        }
    }
}
