//! The objects to sample: they come and go, and the sampler gets a new [`SourceSet`] ready to use.
//!
//! Invariant: all that looks, opens, allocates or closes happens here, off the tick. A provider
//! that cannot answer keeps the others going.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, Filter, Object, Registry, Result, Thread, ThreadStart};

use crate::control::Control;
use crate::source_set::{Holdings, SourceSet};

/// A pause is at least so many times as long as the look before it.
const LOOK_SHARE: u32 = 20;
/// A pause that was not asked for is never longer, however long a look took.
pub const LOOK_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The objects of all providers that some filters want, watched for change.
#[derive(Debug)]
pub struct Roster {
    registry: Registry,
    filters: Vec<Filter>,
    threads: ThreadStart,
    generation: u64,
    /// The objects of the last source set: provider, key and path of each.
    known: Vec<(usize, u64, Box<str>)>,
}

impl Roster {
    /// Returns the roster of the objects that these filters select from these providers. If two
    /// filters have the same target, the first counts.
    pub fn new(registry: Registry, filters: Vec<Filter>) -> Self {
        Self::with_threads(registry, filters, ThreadStart::default())
    }

    /// Returns a roster as [`Roster::new`] does, whose [`Roster::watch`] starts its thread so.
    pub fn with_threads(registry: Registry, filters: Vec<Filter>, threads: ThreadStart) -> Self {
        Self { registry, filters, threads, generation: 0, known: Vec::new() }
    }

    /// The objects that the filters want now, in the order of providers.
    ///
    /// # Errors
    /// The first provider's that cannot say what it has.
    pub fn objects(&self) -> Result<Vec<Object>> {
        let (objects, mut errors) = self.look();
        if !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        Ok(objects.into_iter().flat_map(|(_, objects)| objects).collect())
    }

    /// Opens what there is now, be it nothing.
    ///
    /// # Errors
    /// The first provider's that cannot say what it has, or open it.
    pub fn open(&mut self) -> Result<SourceSet> {
        let (objects, mut errors) = self.look();
        if !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        self.sources(objects)
    }

    /// Looks again: a new source set if anything has changed, and what went wrong with whom, the
    /// providers' warnings included. The objects of a provider that failed are missing from the
    /// source set.
    pub fn refresh(&mut self) -> (Option<SourceSet>, Vec<Error>) {
        let (objects, mut errors) = self.look();
        let mut sources = None;
        if keys(&objects) != self.known {
            match self.sources(objects) {
                Ok(changed) => sources = Some(changed),
                Err(error) => errors.push(error),
            }
        }
        // Last: opening may have been worth a warning.
        let providers = self.registry.providers();
        errors.extend(providers.iter().flat_map(|provider| provider.warnings()));
        (sources, errors)
    }

    /// Refreshes every `interval`, or as seldom as [`look_pause`] says, on a thread of its own,
    /// until the watch is dropped, and hands changes to the sampler behind `control`. Errors go to
    /// `complain`, each when it was not there a look ago: see [`ErrorDedup`].
    ///
    /// # Errors
    /// If its thread, `vmstrobe-roster`, cannot be started.
    pub fn watch(
        mut self,
        control: Control,
        interval: Duration,
        mut complain: impl FnMut(&Error) + Send + 'static,
    ) -> Result<Watch> {
        let (stop, stopped) = channel::<()>();
        let threads = self.threads.clone();
        let watcher = move || {
            let (mut dedup, mut pause) = (ErrorDedup::default(), interval);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let begin = Instant::now();
                let (sources, mut errors) = self.refresh();
                pause = look_pause(interval, begin.elapsed());
                if let Some(error) = sources.and_then(|sources| control.replace(sources).err()) {
                    // It was not taken: look for the difference again next time.
                    self.known.clear();
                    errors.push(error);
                }
                control.collect();
                dedup.fresh(&errors).into_iter().for_each(&mut complain);
            }
        };
        let thread = threads.spawn("vmstrobe-roster", watcher)?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    fn look(&self) -> (Holdings, Vec<Error>) {
        let (mut all, mut errors) = (Holdings::new(), Vec::new());
        for provider in self.registry.providers() {
            match provider.objects() {
                Ok(mut objects) => {
                    objects.retain(|object| self.filters.iter().any(|f| f.wants(object)));
                    all.push((provider, objects));
                }
                Err(error) => {
                    all.push((provider, Vec::new()));
                    errors.push(error);
                }
            }
        }
        (all, errors)
    }

    fn sources(&mut self, objects: Holdings) -> Result<SourceSet> {
        let known = keys(&objects);
        let sources = SourceSet::open(self.generation + 1, &self.filters, objects)?;
        self.generation += 1;
        self.known = known;
        Ok(sources)
    }
}

/// Returns the pause after a look at all objects that took `look`, if one is wanted every
/// `interval`.
///
/// It is so long that looking takes no more than a twentieth of a CPU, however many objects there
/// are. (A link in /proc costs 5 to 10 µs, and a VM of 1024 vCPUs has some 3000.) But it is never
/// longer than [`LOOK_PAUSE_MAX`], unless `interval` is: any user can make a look long, by
/// processes with many descriptors, and new objects would not be noticed for hours.
///
/// ```
/// use std::time::Duration;
/// use vmstrobe_sampler::look_pause;
/// let [ms, second] = [Duration::from_millis(1), Duration::from_secs(1)];
/// assert_eq!(look_pause(second, ms), second);
/// assert_eq!(look_pause(second, 500 * ms), 10 * second);
/// assert_eq!(look_pause(second, 200 * second), 10 * second);
/// ```
pub fn look_pause(interval: Duration, look: Duration) -> Duration {
    interval.max(look.saturating_mul(LOOK_SHARE).min(LOOK_PAUSE_MAX))
}

/// The errors that repeated looks have already reported.
///
/// ```
/// use vmstrobe_core::{Error, ErrorKind};
/// use vmstrobe_sampler::ErrorDedup;
/// let errors = ["a", "b", "b"].map(|text| Error::new(ErrorKind::Io, text));
/// let mut dedup = ErrorDedup::default();
/// let mut fresh = |errors: &[Error]| dedup.fresh(errors).len();
/// assert_eq!(fresh(&errors[..1]), 1);
/// assert_eq!(fresh(&errors), 1); // "a" has been said, and "b" is said once
/// assert_eq!(fresh(&[]), 0);
/// assert_eq!(fresh(&errors[..1]), 1); // it was gone, and is back
/// ```
#[derive(Debug, Default)]
pub struct ErrorDedup {
    last: Vec<String>,
}

impl ErrorDedup {
    /// The errors of this look whose text was not among those of the look before; each text once.
    pub fn fresh<'a>(&mut self, errors: &'a [Error]) -> Vec<&'a Error> {
        let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
        let is_new = |at: usize| ![&self.last, &texts[..at]].iter().any(|s| s.contains(&texts[at]));
        let each = errors.iter().enumerate();
        let fresh = each.filter(|(at, _)| is_new(*at)).map(|(_, error)| error).collect();
        self.last = texts;
        fresh
    }
}

fn keys(objects: &Holdings) -> Vec<(usize, u64, Box<str>)> {
    let each = objects.iter().enumerate();
    each.flat_map(|(at, (_, objects))| objects.iter().map(move |o| (at, o.key, o.path.clone())))
        .collect()
}

/// A roster being watched; see [`Roster::watch`]. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<Thread<()>>,
}

impl Watch {
    /// Ends the watch without waiting for a look that is under way: a provider may be kept waiting.
    /// The thread ends when that look does.
    pub fn end(mut self) {
        self.stop = None;
        self.thread = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only fails if the watcher panicked, which it has then said itself.
            let _ = thread.join();
        }
    }
}
