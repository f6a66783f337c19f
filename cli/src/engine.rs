//! The wiring, all of it: from arguments to providers, to a roster, to a sampler that runs.
//!
//! This is the only place that names concrete providers. A command asks for an [`Engine`] of the
//! source that the user named, has the filter checked against it, and then reads once or starts a
//! [`Session`].
//!
//! Invariant: what is lent by a guest of our own is given back before the guest goes, which is what
//! the order of the fields is for. A command that passes statistics on gets a [`VmRegistry`], which
//! does not contain our own health. The broker of [`Bpf`] does what opening takes: no thread here
//! needs a capability.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Filter, Object, Schema, Snapshot};
use vmstrobe_providers::Bpf;
use vmstrobe_sampler::{
    Control, ErrorDedup, Fanout, Health, HealthWriter, Roster, Running, Sampler, Subscriber,
    Timing, Watch,
};

use crate::args::{ProviderSet, Source};
use crate::error::{Error, Result, with_causes};
use crate::out::say;

mod attached;
mod left_out;
mod attach;
mod distinct;
mod sources;
mod providers;
mod vm;
mod vms;
mod wanted;
mod read_status;

use attached::Absence;
pub(crate) use attached::{Attached, name_or_number};
pub(crate) use left_out::{hidden_text, say_left_out};
pub(crate) use providers::Setup;
use providers::{Demo, Providers};
use read_status::ReadMonitor;
pub(crate) use read_status::{Read, ReadStatus, bpf_for_reading, bpf_for_sampling};
pub(crate) use vm::VmRegistry;
pub(crate) use vms::{FoundVm, Vmm, Vms};
pub(crate) use wanted::Ask;

/// vCPUs of a demo guest that nobody said more about.
pub(crate) const DEMO_VCPUS: u32 = 4;
/// How long a demo guest runs before it is read once: else there would be nothing to see.
const DEMO_WARM_UP: Duration = Duration::from_millis(500);
/// How often the roster looks for objects that came or went.
const ROSTER_PERIOD: Duration = Duration::from_secs(1);

/// A subscriber's queue lasts so long without being drained, in s, ...
const QUEUE_SECONDS: f64 = 0.5;
/// ... but is never less deep, ...
const QUEUE_SAMPLES_MIN: usize = 32;
/// ... nor takes more memory, in words.
const QUEUE_WORDS_MAX: usize = 8 << 20;

/// Providers, ready to be read.
pub(crate) struct Engine {
    providers: Providers,
    bpf: Bpf,
    health: Health,
    health_writer: HealthWriter,
}

impl Engine {
    /// Opens what the user named; if they named nothing and a source is needed, the only virtual
    /// machine on this host, or else the only program with tables. Our own health is always among
    /// the providers.
    ///
    /// # Errors
    /// If what the user named cannot be read, or it is not clear what is meant.
    pub(crate) fn new(source: &Source, whose: ProviderSet, bpf: Bpf) -> Result<Self> {
        let setup = Setup::new(source, bpf, whose == ProviderSet::WithSched);
        let providers = match whose {
            _ if source.demo => Providers::demo(DEMO_VCPUS, &setup)?,
            ProviderSet::Own if !source.is_named() => Providers::none(),
            _ => Providers::named(source, &setup)?,
        };
        Ok(Self::with_health(providers, setup.bpf))
    }

    /// An engine with a guest and a crypto device of our own, running.
    ///
    /// # Errors
    /// If there is no usable `/dev/kvm`.
    pub(crate) fn demo(vcpus: u32, bpf: Bpf) -> Result<Self> {
        let setup = Setup::new(&Source::default(), bpf, false);
        let providers = Providers::demo(vcpus, &setup)?;
        Ok(Self::with_health(providers, setup.bpf))
    }

    /// An engine with the crypto device alone, for a host where there can be no guest.
    ///
    /// # Errors
    /// If the system has no memory or threads for it.
    pub(crate) fn demo_without_guest() -> Result<Self> {
        Ok(Self::with_health(Providers::demo_without_guest()?, Bpf::off()))
    }

    fn with_health(providers: Providers, bpf: Bpf) -> Self {
        let (health, health_writer) = Health::new();
        providers.registry.add(Arc::new(health.clone()));
        Self { providers, bpf, health, health_writer }
    }

    pub(crate) fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.providers.registry.schemas()?)
    }

    fn objects(&self) -> Result<Vec<Object>> {
        providers::objects(&self.providers.registry)
    }

    /// Everything that the filter wants, read once.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn once(self, filter: Filter) -> Result<Arc<Snapshot>> {
        if self.providers.demo.is_some() {
            thread::sleep(DEMO_WARM_UP);
        }
        let sources = Roster::new(self.providers.registry.clone(), vec![filter]).open()?;
        let warnings = providers::warnings(&self.providers.registry, |_| true);
        for warning in ErrorDedup::default().fresh(&warnings) {
            say(with_causes(warning));
        }
        let (mut sampler, control) = Sampler::new(sources, self.health_writer, Fanout::Inline)?;
        sampler.tick();
        Ok(control.latest().load_full())
    }

    /// Starts to sample what the filters want.
    ///
    /// # Errors
    /// If it cannot be opened, or no thread can be had.
    pub(crate) fn start(self, filters: Vec<Filter>, timing: Timing) -> Result<Session> {
        let Self { providers: Providers { registry, attached, demo }, health_writer, .. } = self;
        let read_monitor = ReadMonitor::new(&registry, self.bpf, self.health)?;
        let mut roster = Roster::new(registry, filters);
        let sources = roster.open()?;
        let depth = queue_depth(timing, sources.layout().words());
        let (mut sampler, control) = Sampler::new(sources, health_writer, Fanout::Auto)?;
        let samples = control.subscribe(depth)?;
        // The first sample, taken before whatever the caller starts next.
        sampler.tick();
        let first = samples.try_recv();
        let first = first.ok_or_else(|| Error::failed("the first sample did not arrive"))?;
        let complain = |error: &vmstrobe_core::Error| say(with_causes(error));
        let watch = roster.watch(control.clone(), ROSTER_PERIOD, complain)?;
        let running = sampler.start(timing)?;
        let state = State::Running(running);
        Ok(Session {
            first,
            samples,
            absence: Absence::default(),
            watch: Some(watch),
            state,
            control,
            read_monitor,
            attached,
            _demo: demo,
        })
    }
}

/// How deep a queue has to be that is looked at every few milliseconds.
fn queue_depth(timing: Timing, words: usize) -> usize {
    let samples = QUEUE_SECONDS * 1e9 / timing.period_ns as f64;
    let affordable = QUEUE_WORDS_MAX / words.max(1);
    let most = affordable.clamp(QUEUE_SAMPLES_MIN, vmstrobe_sampler::MAX_QUEUE_SAMPLES);
    (samples as usize).clamp(QUEUE_SAMPLES_MIN, most)
}

/// A sampler that runs, and its samples.
pub(crate) struct Session {
    /// The sample that was taken before it began to run.
    pub(crate) first: Arc<Snapshot>,
    samples: Subscriber,
    absence: Absence,
    watch: Option<Watch>,
    state: State,
    /// Holds what the tick retires, which is dropped with it.
    control: Control,
    read_monitor: ReadMonitor,
    attached: Vec<Attached>,
    _demo: Option<Demo>,
}

enum State {
    Running(Running),
    Stopped(Box<Sampler>),
    /// It failed, and has said so.
    Failed,
}

impl Session {
    /// The next sample, if one comes in time.
    pub(crate) fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        self.noted(self.samples.recv_timeout(timeout))
    }

    /// The next sample, if it is there.
    pub(crate) fn try_recv(&self) -> Option<Arc<Snapshot>> {
        self.noted(self.samples.try_recv())
    }

    fn noted(&self, sample: Option<Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        sample.inspect(|sample| self.absence.note(sample))
    }

    /// Samples that came faster than they were received.
    pub(crate) fn lost_samples(&self) -> u64 {
        self.samples.lost_samples()
    }

    /// True once the sampler has come to its end by itself.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.state {
            State::Running(running) => running.is_finished(),
            State::Stopped(_) | State::Failed => true,
        }
    }

    /// Returns the sources that have ended since the last call.
    pub(crate) fn newly_ended(&mut self) -> Vec<Attached> {
        let gone_for = self.absence.lasts();
        self.attached.extract_if(.., |attached| attached.has_ended(gone_for)).collect()
    }

    /// True if nobody is left, or nothing that was sampled has been there for a while.
    pub(crate) fn is_deserted(&self) -> bool {
        self.attached.is_empty() || self.absence.is_for_good()
    }

    /// Returns how the objects of KVM were read in the newest sample, if it has any.
    pub(crate) fn read_status(&mut self) -> Option<ReadStatus> {
        let newest = self.control.latest().load_full();
        self.read_monitor.read_status(newest.layout())
    }

    /// Ends the sampling and returns the sampler, to tick once more or to tell of its health.
    ///
    /// # Errors
    /// The error that made the sampler fail.
    pub(crate) fn stop(&mut self) -> Result<&mut Sampler> {
        match self.watch.take() {
            // What a guest of our own has lent is given back before the guest goes.
            Some(watch) if self._demo.is_some() => drop(watch),
            Some(watch) => watch.end(),
            None => {}
        }
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Running(running) => State::Stopped(Box::new(running.stop()?)),
            ended => ended,
        };
        match &mut self.state {
            State::Stopped(sampler) => Ok(sampler),
            State::Running(_) | State::Failed => Err(Error::failed("the sampler has failed")),
        }
    }
}
