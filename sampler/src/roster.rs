//! The objects to sample. When objects come or go, the sampler gets a new [`SourceSet`], ready to
//! use.
//!
//! Invariant: looking for objects, opening and closing them happens here, off the tick. A provider
//! that cannot answer does not affect the others.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, Filter, Object, Registry, Result, Thread, ThreadStart};

use crate::control::Control;
use crate::source_set::{ProviderObjects, SourceSet};

/// The least ratio of a pause to the look before it.
const LOOK_SHARE: u32 = 20;
/// The longest pause that [`look_pause`] returns for a slow look.
// Hidden: it is public for the tests of how soon a server notices objects.
#[doc(hidden)]
pub const LOOK_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The objects that some filters select from the providers of a registry, watched for change.
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

    /// Returns the objects that the filters select now, in the order of providers.
    ///
    /// # Errors
    /// The error of the first provider that cannot list its objects.
    pub fn objects(&self) -> Result<Vec<Object>> {
        let (objects, mut errors) = self.look();
        if !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        Ok(objects.into_iter().flat_map(|(_, objects)| objects).collect())
    }

    /// Opens the objects that the filters select now; there may be none.
    ///
    /// # Errors
    /// The error of the first provider that cannot list its objects or open them.
    pub fn open(&mut self) -> Result<SourceSet> {
        let (objects, mut errors) = self.look();
        if !errors.is_empty() {
            return Err(errors.swap_remove(0));
        }
        self.sources(objects)
    }

    /// Looks again, and returns a new source set if anything has changed, and the errors and
    /// warnings of the providers. The objects of a provider that failed are missing from the source
    /// set.
    pub fn refresh(&mut self) -> (Option<SourceSet>, Vec<Error>) {
        let (objects, mut errors) = self.look();
        let mut sources = None;
        if keys(&objects) != self.known {
            match self.sources(objects) {
                Ok(changed) => sources = Some(changed),
                Err(error) => errors.push(error),
            }
        }
        // Last, because opening may cause a warning.
        let providers = self.registry.providers();
        errors.extend(providers.iter().flat_map(|provider| provider.warnings()));
        (sources, errors)
    }

    /// Starts a thread, `vmstrobe-roster`, that refreshes every `interval`, or less often as
    /// [`look_pause`] says, and hands changes to the sampler of `control`, until the watch is
    /// dropped. It calls `report` with each error that the look before did not have: see
    /// [`ErrorDedup`].
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn watch(
        mut self,
        control: Control,
        interval: Duration,
        mut report: impl FnMut(&Error) + Send + 'static,
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
                    // The sampler did not take it: the next look finds the difference again.
                    self.known.clear();
                    errors.push(error);
                }
                control.collect();
                dedup.fresh(&errors).into_iter().for_each(&mut report);
            }
        };
        let thread = threads.spawn("vmstrobe-roster", watcher)?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    fn look(&self) -> (ProviderObjects, Vec<Error>) {
        let (mut all, mut errors) = (ProviderObjects::new(), Vec::new());
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

    fn sources(&mut self, objects: ProviderObjects) -> Result<SourceSet> {
        let known = keys(&objects);
        let sources = SourceSet::open(self.generation + 1, &self.filters, objects)?;
        self.generation += 1;
        self.known = known;
        Ok(sources)
    }
}

/// Returns the pause after a look at all objects that took the time `look`, if there should be a
/// look every `interval`.
///
/// The pause is so long that looking takes no more than a twentieth of a CPU, however many objects
/// there are. (A link in /proc costs 5 to 10 µs, and a VM of 1024 vCPUs has some 3000.) But it is
/// never longer than 10 s, unless `interval` is: any user can make a look long by processes with
/// many descriptors, and new objects would not be noticed for hours.
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
/// assert_eq!(fresh(&errors), 1); // "a" was reported before, and "b" is reported once
/// assert_eq!(fresh(&[]), 0);
/// assert_eq!(fresh(&errors[..1]), 1); // "a" was gone, and is back
/// ```
#[derive(Debug, Default)]
pub struct ErrorDedup {
    last: Vec<String>,
}

impl ErrorDedup {
    /// Returns the errors of this look whose text the look before did not have; each text once.
    pub fn fresh<'a>(&mut self, errors: &'a [Error]) -> Vec<&'a Error> {
        let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
        let is_new = |at: usize| ![&self.last, &texts[..at]].iter().any(|s| s.contains(&texts[at]));
        let each = errors.iter().enumerate();
        let fresh = each.filter(|(at, _)| is_new(*at)).map(|(_, error)| error).collect();
        self.last = texts;
        fresh
    }
}

fn keys(objects: &ProviderObjects) -> Vec<(usize, u64, Box<str>)> {
    let each = objects.iter().enumerate();
    each.flat_map(|(at, (_, objects))| objects.iter().map(move |o| (at, o.key, o.path.clone())))
        .collect()
}

/// The thread of [`Roster::watch`]. Dropping it ends the thread, after a look that is under way.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<Thread<()>>,
}

impl Watch {
    /// Ends the watch without waiting for a look that is under way, in which a provider may have to
    /// wait. The thread ends when that look does.
    pub fn end(mut self) {
        self.stop = None;
        self.thread = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, and then the panic hook has said so.
            let _ = thread.join();
        }
    }
}
