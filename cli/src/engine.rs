//! The wiring, all of it: from arguments to providers, to a roster, to a sampler that runs.
//!
//! This is the only place that names concrete providers. A command asks for an [`Engine`] of the
//! source that the user named, has the filter checked against it, and then reads once or starts a
//! [`Session`].
//!
//! Invariant: what is lent by a guest of our own is given back before the guest goes, which is what
//! the order of the fields is for.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Filter, Object, Registry, Schema, Snapshot};
use vmstrobe_guest::DemoGuest;
use vmstrobe_providers::{OwnKvm, Reaper};
use vmstrobe_sampler::{
    Control, Fanout, Health, Recorder, Roster, Running, Sampler, Subscriber, Timing, Watch,
};

use crate::args::Source;
use crate::error::{Error, Result};
use crate::out::say;

mod attach;
mod wanted;

pub(crate) use attach::{Attached, borrowed, hidden_text};
pub(crate) use wanted::Ask;

/// What the demo's guest is called.
const DEMO_NAME: &str = "demo";
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
    registry: Registry,
    recorder: Recorder,
    vms: Vec<Attached>,
    guest: Option<DemoGuest>,
}

impl Engine {
    /// The engine for what the user named: the one virtual machine on this host if he named none
    /// and one is needed. Our own health is always among the providers.
    ///
    /// # Errors
    /// If a virtual machine cannot be read, or it is not clear which one is meant.
    pub(crate) fn new(source: &Source, needs_vm: bool) -> Result<Self> {
        if source.demo {
            return Self::demo(DEMO_VCPUS);
        }
        let registry = Registry::default();
        let mut vms = Vec::new();
        if needs_vm || source.all || !source.pids.is_empty() {
            let provider = borrowed(Reaper::new()?)?;
            vms = attach::attach(&provider, source)?;
            registry.add(Arc::new(provider));
        }
        Ok(Self::with_health(registry, vms, None))
    }

    /// An engine with a guest of our own, running.
    ///
    /// # Errors
    /// If there is no usable `/dev/kvm`.
    pub(crate) fn demo(vcpus: u32) -> Result<Self> {
        vmstrobe_guest::usable()?;
        let mut guest = DemoGuest::new(vcpus)?;
        let provider = OwnKvm::new(DEMO_NAME, guest.vm().fd())?;
        // Before they run: later, the kernel would make this wait.
        for vcpu in guest.vcpus() {
            provider.add_vcpu(vcpu.id(), vcpu.fd())?;
        }
        guest.start()?;
        let registry = Registry::default();
        registry.add(Arc::new(provider));
        Ok(Self::with_health(registry, Vec::new(), Some(guest)))
    }

    /// An engine with nothing but its own health.
    pub(crate) fn health_alone() -> Self {
        Self::with_health(Registry::default(), Vec::new(), None)
    }

    fn with_health(registry: Registry, vms: Vec<Attached>, guest: Option<DemoGuest>) -> Self {
        let (health, recorder) = Health::new();
        registry.add(Arc::new(health));
        Self { registry, recorder, vms, guest }
    }

    pub(crate) fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.registry.schemas()?)
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        for provider in self.registry.providers() {
            objects.extend(provider.objects()?);
        }
        Ok(objects)
    }

    /// The providers' names, also of those whose statistics another one carries.
    fn provider_names(&self) -> Vec<String> {
        let schemas = self.schemas().unwrap_or_default();
        let mut names: Vec<String> =
            schemas.iter().map(|schema| schema.provider().to_owned()).collect();
        names.extend(self.registry.providers().iter().map(|provider| provider.name().to_owned()));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Everything that the filter wants, read once.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn once(self, filter: Filter) -> Result<Arc<Snapshot>> {
        if self.guest.is_some() {
            thread::sleep(DEMO_WARM_UP);
        }
        let sweep = Roster::new(self.registry.clone(), vec![filter]).open()?;
        let (mut sampler, control) = Sampler::new(sweep, self.recorder, Fanout::Inline)?;
        sampler.tick();
        Ok(control.latest().load_full())
    }

    /// Starts to sample what the filters want.
    ///
    /// # Errors
    /// If it cannot be opened, or no thread can be had.
    pub(crate) fn start(self, filters: Vec<Filter>, timing: Timing) -> Result<Session> {
        let mut roster = Roster::new(self.registry, filters);
        let sweep = roster.open()?;
        let depth = queue_depth(timing, sweep.layout().words());
        let (mut sampler, control) = Sampler::new(sweep, self.recorder, Fanout::Auto)?;
        let samples = control.subscribe(depth)?;
        // The first sample, taken before whatever the caller starts next.
        sampler.tick();
        let first = samples.try_recv();
        let first = first.ok_or_else(|| Error::failed("the first sample did not arrive"))?;
        let running = sampler.start(timing)?;
        let complain = |error: &vmstrobe_core::Error| say(crate::error::with_causes(error));
        let watch = roster.watch(control.clone(), ROSTER_PERIOD, complain)?;
        let state = State::Running(running);
        let (vms, _guest) = (self.vms, self.guest);
        Ok(Session { first, samples, watch: Some(watch), state, _control: control, vms, _guest })
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
    watch: Option<Watch>,
    state: State,
    /// What the tick retires is dropped with it.
    _control: Control,
    vms: Vec<Attached>,
    _guest: Option<DemoGuest>,
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
        self.samples.recv_timeout(timeout)
    }

    /// The next sample, if it is there.
    pub(crate) fn try_recv(&self) -> Option<Arc<Snapshot>> {
        self.samples.try_recv()
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

    /// The virtual machines that have ended since the last call.
    pub(crate) fn newly_ended(&mut self) -> Vec<Attached> {
        self.vms.extract_if(.., |vm| vm.has_ended()).collect()
    }

    /// True if there are virtual machines of others, or were, and none is left.
    pub(crate) fn is_deserted(&self) -> bool {
        self.vms.is_empty()
    }

    /// Ends the sampling and gives the sampler, to tick once more or tell of its health.
    ///
    /// # Errors
    /// What made the sampler fail.
    pub(crate) fn stop(&mut self) -> Result<&mut Sampler> {
        self.watch = None;
        if let State::Running(running) = std::mem::replace(&mut self.state, State::Failed) {
            self.state = State::Stopped(Box::new(running.stop()?));
        }
        match &mut self.state {
            State::Stopped(sampler) => Ok(sampler),
            State::Running(_) | State::Failed => Err(Error::failed("the sampler has failed")),
        }
    }
}
