//! The wiring, all of it: from arguments to providers, to a roster, to a sampler that runs.
//!
//! This is the only place that names concrete providers. A command asks for an [`Engine`] of the
//! source that the user named, has the filter checked against it, and then reads once or starts a
//! [`Session`].
//!
//! Invariant: what is lent by a guest of our own is given back before the guest goes, which is what
//! the order of the fields is for. Whoever passes statistics on gets a [`VmRegistry`], in which our
//! own health is not. Nothing is read before this thread has given up what opening took, and the
//! only thread that keeps it is the one that goes on opening.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Filter, Object, Schema, Snapshot};
use vmstrobe_providers::Accel;
use vmstrobe_sampler::{
    Complaints, Control, Fanout, Health, Recorder, Roster, Running, Sampler, Subscriber, Timing,
    Watch,
};

use crate::args::{Source, Whose};
use crate::error::{Error, Result, with_causes};
use crate::out::say;
use crate::privileges::{drop_all, keep_to_look, without};

mod attached;
mod attach;
mod distinct;
mod sources;
mod providers;
mod vm;
mod vms;
mod wanted;
mod way;

pub(crate) use attach::hidden_text;
use attached::Absence;
pub(crate) use attached::Attached;
pub(crate) use providers::Setup;
use providers::{Demo, Providers};
pub(crate) use vm::VmRegistry;
pub(crate) use vms::{FoundVm, Vmm, Vms};
pub(crate) use wanted::Ask;
use way::WayMark;
pub(crate) use way::{Way, accel_for_reading, accel_for_sampling};

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
    accel: Accel,
    health: Health,
    recorder: Recorder,
}

impl Engine {
    /// The engine for what the user named: the one virtual machine on this host if he named none
    /// and one is needed. Our own health is always among the providers.
    ///
    /// # Errors
    /// If what he named cannot be read, or it is not clear what is meant.
    pub(crate) fn new(source: &Source, whose: Whose, accel: Accel) -> Result<Self> {
        let setup = Setup { accel, sched: whose == Whose::WithSched };
        let providers = match whose {
            _ if source.demo => Providers::demo(DEMO_VCPUS, &setup)?,
            Whose::Own if !source.is_named() => Providers::none(),
            _ => Providers::named(source, &setup)?,
        };
        Ok(Self::with_health(providers, setup.accel))
    }

    /// An engine with a guest and a crypto device of our own, running.
    ///
    /// # Errors
    /// If there is no usable `/dev/kvm`.
    pub(crate) fn demo(vcpus: u32, accel: Accel) -> Result<Self> {
        let setup = Setup { accel, sched: false };
        let providers = Providers::demo(vcpus, &setup)?;
        Ok(Self::with_health(providers, setup.accel))
    }

    /// The same where there can be no guest.
    ///
    /// # Errors
    /// If the system has no memory or threads for it.
    pub(crate) fn demo_without_guest() -> Result<Self> {
        Ok(Self::with_health(Providers::demo_without_guest()?, Accel::off()))
    }

    fn with_health(providers: Providers, accel: Accel) -> Self {
        let (health, recorder) = Health::new();
        providers.registry.add(Arc::new(health.clone()));
        Self { providers, accel, health, recorder }
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
        let sweep = Roster::new(self.providers.registry.clone(), vec![filter]).open()?;
        let warnings = providers::warnings(&self.providers.registry, |_| true);
        for warning in Complaints::default().news(&warnings) {
            say(with_causes(warning));
        }
        drop_all();
        let (mut sampler, control) = Sampler::new(sweep, self.recorder, Fanout::Inline)?;
        sampler.tick();
        Ok(control.latest().load_full())
    }

    /// Starts to sample what the filters want.
    ///
    /// # Errors
    /// If it cannot be opened, or no thread can be had.
    pub(crate) fn start(self, filters: Vec<Filter>, timing: Timing) -> Result<Session> {
        let Self { providers: Providers { registry, attached, demo }, recorder, .. } = self;
        let way_mark = WayMark::new(&registry, self.accel, self.health)?;
        let mut roster = Roster::new(registry, filters);
        let sweep = roster.open()?;
        let depth = queue_depth(timing, sweep.layout().words());
        let sampler = || Sampler::new(sweep, recorder, Fanout::Auto);
        let (mut sampler, control) = without(sampler)??;
        let samples = control.subscribe(depth)?;
        // The first sample, taken before whatever the caller starts next.
        sampler.tick();
        let first = samples.try_recv();
        let first = first.ok_or_else(|| Error::failed("the first sample did not arrive"))?;
        let complain = |error: &vmstrobe_core::Error| say(with_causes(error));
        // The roster's thread gets what it takes to open more; the tick's gets nothing.
        keep_to_look();
        let watch = roster.watch(control.clone(), ROSTER_PERIOD, complain)?;
        drop_all();
        let running = sampler.start(timing)?;
        let state = State::Running(running);
        Ok(Session {
            first,
            samples,
            absence: Absence::default(),
            watch: Some(watch),
            state,
            control,
            way_mark,
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
    /// What the tick retires is dropped with it.
    control: Control,
    way_mark: WayMark,
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

    /// Those who have ended since the last call.
    pub(crate) fn newly_ended(&mut self) -> Vec<Attached> {
        let gone_for = self.absence.lasts();
        self.attached.extract_if(.., |attached| attached.has_ended(gone_for)).collect()
    }

    /// True if nobody is left, or nothing that was sampled has been there for a while.
    pub(crate) fn is_deserted(&self) -> bool {
        self.attached.is_empty() || self.absence.is_for_good()
    }

    /// Which way the objects of KVM went in the newest sample, if it has any.
    pub(crate) fn way(&mut self) -> Option<Way> {
        let newest = self.control.latest().load_full();
        self.way_mark.way(newest.layout())
    }

    /// Ends the sampling and gives the sampler, to tick once more or tell of its health.
    ///
    /// # Errors
    /// What made the sampler fail.
    pub(crate) fn stop(&mut self) -> Result<&mut Sampler> {
        self.watch = None;
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
