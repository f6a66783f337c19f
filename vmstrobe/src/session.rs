//! A session: a sampler that runs over an attachment, and its samples.
//!
//! Invariant: what the tick retires, and what a virtual machine of this process has lent, is
//! dropped before that machine is, which is what the order of the fields is for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe_core::{Filter, Snapshot, ThreadStart};
use vmstrobe_sampler::{
    Control, Fanout, Health, Roster, Running, Sampler, Subscriber, Timing, Watch,
};

use crate::arrivals::Newcomers;
use crate::attachment::{Attachment, Guard};
use crate::error::{Error, Result};
use crate::member::{self, Absence, Member};
use crate::notice::{Notice, Notices};
use crate::read_status::{ReadMonitor, ReadStatus};

/// The time between two looks of the roster for objects that came or went.
const ROSTER_PERIOD: Duration = Duration::from_secs(1);
/// The time for which [`Session::samples`] waits for a sample before it looks for the end.
const SAMPLE_WAIT: Duration = Duration::from_millis(50);

/// A subscriber's queue lasts so long without being drained, in s, ...
const QUEUE_SECONDS: f64 = 0.25;
/// ... but is never less deep, ...
const QUEUE_SAMPLES_MIN: usize = 32;
/// ... nor takes more memory, in words.
const QUEUE_WORDS_MAX: usize = 8 << 20;

/// A sampler that runs, and its samples.
///
/// ```no_run
/// let mut session = vmstrobe::attach(4711)?.sample("vcpu: exits", 1000.0)?;
/// for sample in session.samples().take(1000) {
///     for (object, exits) in sample.stat("exits") {
///         println!("{} {} {:?}", sample.window().begin_ns, object.object().path, exits.number());
///     }
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    first: Arc<Snapshot>,
    /// The samples, until a recorder takes them.
    samples: Option<Subscriber>,
    absence: Absence,
    watch: Option<Watch>,
    state: State,
    /// Holds what the tick retires, which is dropped with it.
    control: Control,
    read_monitor: ReadMonitor,
    notices: Notices,
    members: Vec<Member>,
    /// The members that come later, if all of this host are sampled.
    newcomers: Option<Newcomers>,
    /// True if it had members, so that it ends with them.
    has_members: bool,
    period_ns: u64,
    threads: ThreadStart,
    guard: Option<Guard>,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Stopped(Box<Sampler>),
    /// The sampler failed, and its error was returned.
    Failed,
}

impl Attachment {
    /// Starts to sample what a filter such as `vcpu: exits, halt_*` wants, at that rate.
    ///
    /// # Errors
    /// If the filter cannot be understood or selects nothing, the rate is out of bounds, or as
    /// [`Attachment::start`].
    pub fn sample(self, filter: &str, rate_hz: f64) -> Result<Session> {
        let filter: Filter = filter.parse()?;
        self.check(&filter)?;
        self.start(vec![filter], Timing::hz(rate_hz)?)
    }

    /// Starts to sample what the filters want; of each target, the first filter counts.
    ///
    /// # Errors
    /// If it cannot be opened, or no thread can be had.
    pub fn start(self, filters: Vec<Filter>, timing: Timing) -> Result<Session> {
        Session::start(self, filters, timing)
    }
}

impl Session {
    /// Starts to sample what the filters want of the attachment.
    fn start(attachment: Attachment, filters: Vec<Filter>, timing: Timing) -> Result<Self> {
        let Attachment {
            registry, members, arrivals, bpf, health, notices, guard, threads, ..
        } = attachment;
        let (health, writer) = health.unwrap_or_else(Health::new);
        let read_monitor = ReadMonitor::new(&registry, bpf, health)?;
        let mut roster = Roster::with_threads(registry, filters, threads.clone());
        let sources = roster.open()?;
        let depth = queue_depth(timing, sources.layout().words());
        let (mut sampler, control) =
            Sampler::with_threads(sources, writer, Fanout::Auto, threads.clone())?;
        let samples = control.subscribe(depth)?;
        // The first sample, taken before whatever the caller starts next.
        sampler.tick();
        let first = samples.try_recv().ok_or(Error::NoFirstSample)?;
        let noted = notices.clone();
        let complain = move |error: &vmstrobe_core::Error| {
            noted.add(Notice::Provider(error.clone()));
        };
        let watch = roster.watch(control.clone(), ROSTER_PERIOD, complain)?;
        let newcomers = arrivals.map(|arrivals| arrivals.watch(&threads)).transpose()?;
        let running = sampler.start(timing)?;
        Ok(Self {
            first,
            samples: Some(samples),
            absence: Absence::default(),
            watch: Some(watch),
            state: State::Running(running),
            control,
            read_monitor,
            notices,
            has_members: !members.is_empty(),
            members,
            newcomers,
            period_ns: timing.period_ns,
            threads,
            guard,
        })
    }

    /// Returns the sample that was taken before the sampler began to run.
    pub fn first(&self) -> &Arc<Snapshot> {
        &self.first
    }

    /// Returns the time from one tick to the next, in ns.
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Samples at another rate from the next tick on. The queue keeps its depth, so at a higher
    /// rate it has to be looked at more often.
    ///
    /// # Errors
    /// If the rate is out of bounds.
    pub fn set_rate(&mut self, rate_hz: f64) -> Result<()> {
        let timing = Timing::hz(rate_hz)?;
        self.control.set_timing(&timing);
        self.period_ns = timing.period_ns;
        Ok(())
    }

    /// Returns the next sample, if one comes in time.
    pub fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        self.noted(self.samples.as_ref()?.recv_timeout(timeout))
    }

    /// Returns the next sample, if it is there.
    pub fn try_recv(&self) -> Option<Arc<Snapshot>> {
        self.noted(self.samples.as_ref()?.try_recv())
    }

    /// Returns an iterator over the samples to come. It waits for each, and ends with the sampler,
    /// or as [`Session::has_ended`] says, which it asks every 50 ms.
    ///
    /// A sample holds its values; drop it soon, or the sampler runs out of buffers and skips ticks.
    pub fn samples(&mut self) -> impl Iterator<Item = Arc<Snapshot>> {
        let (mut has_ended, mut ask_at) = (false, Instant::now());
        std::iter::from_fn(move || {
            loop {
                let now = Instant::now();
                if now >= ask_at {
                    (has_ended, ask_at) = (self.has_ended(), now + SAMPLE_WAIT);
                }
                // What is queued by then still counts. A sampler goes on when its objects are gone.
                if has_ended || self.is_finished() {
                    return self.try_recv();
                }
                if let Some(sample) = self.recv(SAMPLE_WAIT) {
                    return Some(sample);
                }
            }
        })
    }

    fn noted(&self, sample: Option<Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        sample.inspect(|sample| self.absence.note(sample))
    }

    /// Returns the number of samples that came faster than they were received, and are lost.
    pub fn lost_samples(&self) -> u64 {
        self.samples.as_ref().map_or(0, Subscriber::lost_samples)
    }

    /// Takes the samples to come. From then on, [`Session::recv`] gives none.
    #[cfg(feature = "export")]
    pub(crate) fn take_samples(&mut self) -> Result<Subscriber> {
        self.samples.take().ok_or(Error::SamplesTaken)
    }

    /// Notes whether anything that is sampled is there, for who does not receive the samples.
    #[cfg(feature = "export")]
    pub(crate) fn look(&self) {
        self.absence.note(&self.control.latest().load_full());
    }

    /// Takes the notices that have come up since the last call.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.take()
    }

    /// Returns true once the sampler has come to its end by itself.
    pub fn is_finished(&self) -> bool {
        match &self.state {
            State::Running(running) => running.is_finished(),
            State::Stopped(_) | State::Failed => true,
        }
    }

    /// Returns the members that have ended since the last call.
    pub fn newly_ended(&mut self) -> Vec<Member> {
        let ended: Vec<bool> = member::ended(&self.members, self.absence.lasts()).collect();
        let mut ended = ended.into_iter();
        let ended = self.members.extract_if(.., |_| ended.next() == Some(true)).collect();
        self.members.extend(self.newcomers.iter().flat_map(Newcomers::take));
        ended
    }

    /// Returns true once every member has ended, or nothing that is sampled has been there for some
    /// seconds. Providers of this process have no end, and neither has a session of all virtual
    /// machines of this host, where others may come.
    pub fn has_ended(&self) -> bool {
        if self.newcomers.is_some() {
            return false;
        }
        let all_ended = || member::ended(&self.members, self.absence.lasts()).all(|ended| ended);
        self.has_members && (self.absence.is_for_good() || all_ended())
    }

    /// Returns how objects of KVM were read in the newest sample; `None` if it has none.
    pub fn read_status(&mut self) -> Option<ReadStatus> {
        let newest = self.control.latest().load_full();
        self.read_monitor.read_status(newest.layout())
    }

    /// Returns the start of threads for this session.
    pub(crate) fn threads(&self) -> &ThreadStart {
        &self.threads
    }

    /// Returns the handle by which other threads get at the newest sample, subscribe, or end it.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends the sampling and returns the sampler, to tick once more or to ask for its health.
    ///
    /// # Errors
    /// The error that made the sampler fail; [`Error::SamplerFailed`] if it was returned before.
    pub fn stop(&mut self) -> Result<&mut Sampler> {
        self.newcomers = None;
        match self.watch.take() {
            // What a machine of this process has lent is given back before the machine goes.
            Some(watch) if self.guard.is_some() => drop(watch),
            Some(watch) => watch.end(),
            None => {}
        }
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Running(running) => State::Stopped(Box::new(running.stop()?)),
            ended => ended,
        };
        match &mut self.state {
            State::Stopped(sampler) => Ok(sampler),
            State::Running(_) | State::Failed => Err(Error::SamplerFailed),
        }
    }
}

/// Returns how deep a queue has to be that is looked at every few milliseconds.
fn queue_depth(timing: Timing, words: usize) -> usize {
    let samples = QUEUE_SECONDS * 1e9 / timing.period_ns as f64;
    let affordable = QUEUE_WORDS_MAX / words.max(1);
    let most = affordable.clamp(QUEUE_SAMPLES_MIN, vmstrobe_sampler::MAX_QUEUE_SAMPLES);
    (samples as usize).clamp(QUEUE_SAMPLES_MIN, most)
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Registry;

    use super::*;
    use crate::member::tests::provider;

    #[test]
    fn the_rate_of_a_running_session_can_be_changed() {
        let attachment = Attachment::of(Registry::default()).with_own_statistics();
        // The next tick would come in 1000 s.
        let mut session = attachment.sample("sampler: ticks", 0.001).expect("there are threads");
        assert!(session.set_rate(0.0).is_err() && session.set_rate(1e9).is_err());
        session.set_rate(1000.0).expect("it is a rate");
        assert_eq!(session.period_ns(), 1_000_000);
        let samples: Vec<_> = session.samples().take(20).collect();
        assert_eq!(samples.len(), 20);
        assert!(samples.windows(2).all(|pair| pair[0].tick() < pair[1].tick()));
    }

    #[test]
    fn samples_end_with_the_last_member() {
        let process = |pid| Member::process(pid, vec![provider(&[7, 8]) as _]);
        let session = |pids: &[u32]| {
            let members = pids.iter().map(|pid| process(*pid)).collect();
            // The sampler's own statistics are there for as long as it runs.
            let mut attachment = Attachment::of(Registry::default()).with_own_statistics();
            attachment.members = members;
            attachment.sample("sampler: ticks", 1000.0).expect("there are threads")
        };
        let mut lives = session(&[7, 9, 8]);
        assert_eq!(lives.samples().take(100).count(), 100);
        let ended: Vec<_> = lives.newly_ended().iter().map(|member| member.pid).collect();
        assert_eq!(ended, [Some(7), Some(8)]);
        assert!(!lives.has_ended() && lives.newly_ended().is_empty());
        // At most what was queued by then.
        let queue = queue_depth(Timing::hz(1000.0).expect("it is a rate"), 1);
        assert!(session(&[7, 8]).samples().take(queue + 1).count() <= queue);
    }
}
