//! The scheduler's statistics of the threads that run vCPUs: how long each waited for a CPU while
//! its vCPU wanted to run, which is the vCPU's steal time; how long and how often it ran; and its
//! id.
//!
//! There are two methods of reading them. The BPF reader ([`BulkOpener`]) follows each vCPU to its
//! thread. Without it, the thread is found by its traces in /proc (`threads`), a thread
//! of this process reads its times there (`schedstat`, `poller`), and a tick copies them
//! ([`PolledSource`]).
//!
//! Invariant: objects are the vCPUs of a provider of KVM's, under its paths, indexes and keys, and
//! end with them: no row outlives its vCPU.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{
    Desc, Error, ErrorKind, Object, Provider, ReadPlan, Result, Scale, Schema, Source, StatType,
    Target, Unit, WORD_BYTES,
};
use vmstrobe_host::{PolledSource, procfs};

use super::bulk::{BulkOpener, NoThreads, ThreadRows};
use super::vcpu::Vcpu;
use super::vcpu_owner::VcpuOwner;
use super::{AttachedKvm, OwnKvm, SCHED};

mod schedstat;
mod threads;
mod poller;
mod watched;

use poller::Poller;
pub use schedstat::{GROWING, Schedstat, THREAD_ID, WORD_NAMES, WORDS, check as check_schedstat};
use watched::Watched;

/// The most objects of one source that asks /proc: so that several threads can share them.
const ROWS_PER_SOURCE: usize = 64;

/// The scheduler's statistics of vCPUs: those of [`AttachedKvm`] ([`AttachedKvm::sched`]) or of an
/// [`OwnKvm`] ([`OwnKvm::sched`]), under the same paths and indexes, of target vcpu. They are those
/// of the host's thread that runs the vCPU (`/proc/<pid>/task/<tid>/schedstat`):
///
/// | name | type | unit | what |
/// |---|---|---|---|
/// | `run_delay` | cumulative | seconds, -9 | how long it waited for a CPU: the guest's steal |
/// | `run_time` | cumulative | seconds, -9 | how long it ran, in the guest, in KVM and in the VMM |
/// | `timeslices` | cumulative | | how often it was given a CPU |
/// | `thread_id` | instant | | which it is |
///
/// A wait is counted when it ends, time on a CPU when the scheduler looks: at each switch, and at
/// each tick in between (1 to 10 ms; up to a second on a CPU that is alone with one thread). A vCPU
/// that goes on to another thread has that one's counts from then on, and its `thread_id`.
///
/// With the BPF reader ([`BulkOpener`]) all vCPUs are read in one call, each by the
/// thread that ran it last; a vCPU that has never run, or whose thread has ended, is a row without
/// data (`Missing`). Before that is used, it has read what /proc says, of a guest of our own once,
/// and of every vCPU that has run each time that it is opened; else it is not used, and why is
/// among the [`Provider::warnings`]. So it is not used in a pid namespace, where the kernel numbers
/// threads otherwise than /proc.
///
/// Without it, a thread of ours asks /proc ten times a second: a row is good in the first tick that
/// sees an answer and aged until the next. Nobody asks while the BPF reader reads: if that is
/// given up, rows are without data until the first answer. Which thread runs a vCPU is told
///
/// * by [`NewVcpu::here`](crate::NewVcpu::here), which was called on it;
/// * by the vCPU's stats fd, which names the thread that made it, in QEMU its own; not if that is
///   the VMM's main thread, or has made several, and in a pid namespace only if QEMU has named its
///   threads ([`AttachedKvm::use_names`]);
/// * by the thread's name, `CPU <n>/KVM` (QEMU), `fc_vcpu <n>` (Firecracker), `vcpu<n>` (Cloud
///   Hypervisor), `crosvm_vcpu<n>` or `kvm-vcpu-<n>` (kvmtool), if there is just one for each vCPU
///   of the process.
///
/// A vCPU whose thread cannot be told is then no object.
///
/// ```no_run
/// use std::sync::Arc;
/// use vmstrobe_core::{Provider, Registry};
/// use vmstrobe_host::Reaper;
/// use vmstrobe_kvm::AttachedKvm;
///
/// let kvm = Arc::new(AttachedKvm::new(Reaper::new()?)?);
/// kvm.attach(4711)?;
/// let registry = Registry::default();
/// registry.add(Arc::new(kvm.sched()?));
/// registry.add(kvm);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Sched {
    owner: Arc<dyn VcpuOwner>,
    schema: Arc<Schema>,
    poller: Arc<Poller>,
    news: Mutex<News>,
}

/// The conditions to warn of for as long as they last.
#[derive(Debug, Default)]
struct News {
    /// The reason why threads are not read by the BPF reader, although it can be used.
    refused: Option<String>,
    /// The number of vCPUs that were left out at the last look, because their threads cannot be
    /// told.
    unmatched: usize,
}

impl AttachedKvm {
    /// Returns a new provider of the scheduler's statistics of these vCPUs. If it is asked for its
    /// objects, this one looks for its own anew.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub fn sched(self: &Arc<Self>) -> Result<Sched> {
        Sched::new(Arc::clone(self) as _)
    }
}

impl OwnKvm {
    /// Returns a new provider of the scheduler's statistics of these vCPUs.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub fn sched(self: &Arc<Self>) -> Result<Sched> {
        Sched::new(Arc::clone(self) as _)
    }
}

impl Sched {
    fn new(owner: Arc<dyn VcpuOwner>) -> Result<Self> {
        let poller = Arc::new(Poller::start(&owner.broker(), owner.threads())?);
        Ok(Self { owner, schema: sched_schema(), poller, news: Mutex::default() })
    }

    /// Whether all threads are read in one call, some of which nothing else may be able to read.
    ///
    /// # Errors
    /// Why they cannot, if they must be.
    fn is_by_bulk(&self, some_untold: bool) -> Result<bool> {
        let Some(bulk) = self.owner.opener().bulk() else { return Ok(false) };
        bulk.check_threads(some_untold).map(|()| true).or_else(|no| self.do_without(no))
    }

    /// Notes why threads are not read in one call, and returns false.
    ///
    /// # Errors
    /// The reason, if they must be.
    fn do_without(&self, no: NoThreads) -> Result<bool> {
        match no {
            NoThreads::Unwanted => {}
            NoThreads::Refused(error) => self.news().refused = Some(error.to_string()),
            NoThreads::Required(error) => return Err(error),
        }
        Ok(false)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        // Each of its parts is changed in one step: no panic leaves one half changed.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source that reads what the poller finds in /proc of these.
    fn polled(&self, plan: &Arc<ReadPlan>, rows: &[Option<Arc<Watched>>]) -> Box<dyn Source> {
        Box::new(PolledSource::new(plan, rows.iter().cloned(), &self.poller))
    }

    fn object(&self, vcpu: Vcpu) -> Object {
        let Vcpu { path, index, key, .. } = vcpu;
        Object { path, index, schema: Arc::clone(&self.schema), key }
    }
}

impl Provider for Sched {
    fn name(&self) -> &str {
        SCHED
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.schema)])
    }

    /// The provider of KVM's looks anew. Of its vCPUs those that can be read: all by the
    /// BPF reader, by /proc those whose threads can be told.
    fn objects(&self) -> Result<Vec<Object>> {
        self.owner.look();
        let mut vcpus = self.owner.vcpus();
        self.poller.follow(&vcpus);
        let mut unmatched = 0;
        if !vcpus.is_empty() && !self.is_by_bulk(false)? {
            let by_proc = schedstat::check();
            let told = if by_proc.is_ok() { self.poller.tell() } else { HashMap::new() };
            unmatched = vcpus.iter().filter(|vcpu| !told.contains_key(&vcpu.key)).count();
            if unmatched > 0 && self.is_by_bulk(true)? {
                unmatched = 0;
            } else {
                by_proc?;
                vcpus.retain(|vcpu| told.contains_key(&vcpu.key));
            }
        }
        self.news().unmatched = unmatched;
        Ok(vcpus.into_iter().map(|vcpu| self.object(vcpu)).collect())
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        // Else the plan's words would be other statistics' here.
        if *plan.schema() != self.schema {
            let text = "sched has other statistics than the plan is for";
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        let opener = self.owner.opener();
        // Before anyone is asked whether it is gone; see `GoneEpoch`.
        let opened_at = opener.gone_epoch().count();
        let vcpus: HashMap<u64, Vcpu> =
            self.owner.vcpus().into_iter().map(|vcpu| (vcpu.key, vcpu)).collect();
        let row = |object: &Object| vcpus.get(&object.key).filter(|v| !v.fd.is_gone()).cloned();
        let rows: Vec<Option<Vcpu>> = objects.iter().map(row).collect();
        let some_untold = !rows.iter().flatten().all(|vcpu| self.poller.knows(vcpu));
        let bulk = opener.bulk().filter(|_| plan.row_words() > 0);
        if let Some(bulk) = bulk
            && self.is_by_bulk(some_untold)?
        {
            let polled = |rows: &[Option<Vcpu>]| self.polled(plan, &self.poller.watch(rows, false));
            let rows = ThreadRows {
                objects: objects.into(),
                plan: Arc::clone(plan),
                vcpus: rows.clone().into(),
                gone_epoch: opener.gone_epoch().clone(),
                opened_at,
            };
            match bulk.open_threads(&rows, &polled) {
                Ok(sources) => {
                    self.news().refused = None;
                    return Ok(sources);
                }
                Err(no) => self.do_without(no)?,
            };
        }
        let rows = self.poller.watch(&rows, true);
        Ok(rows.chunks(ROWS_PER_SOURCE).map(|rows| self.polled(plan, rows)).collect())
    }

    /// Asks /proc now for what is read from there, without waiting.
    fn refresh(&self, target: &Target) -> Result<()> {
        if *target == Target::Vcpu {
            self.poller.refresh();
        }
        Ok(())
    }

    fn ended(&self) -> Vec<u32> {
        self.owner.ended()
    }

    fn warnings(&self) -> Vec<Error> {
        let opener = self.owner.opener();
        let mut warnings = opener.warnings();
        let mut warn = |text| warnings.push(Error::new(ErrorKind::Unsupported, text));
        let news = self.news();
        let in_container = news.unmatched > 0 && !procfs::sees_every_process();
        if in_container {
            warn(format!(
                "which threads run {} of the vCPUs cannot be told in a pid namespace (a \
                 container): start QEMU with -name NAME,debug-threads=on, or name its QMP socket \
                 (--from-qmp), or run vmstrobe outside",
                news.unmatched
            ));
            return warnings;
        }
        if let Some(why) = &news.refused {
            warn(format!("threads of vCPUs are not read by the BPF reader: {why}"));
        }
        if news.unmatched > 0 {
            warn(format!(
                "which threads run {} of the vCPUs cannot be told, so that they have no statistics \
                 of the scheduler; the BPF reader does not need to know: {}",
                news.unmatched,
                opener.bulk().map_or_else(|| "switched off".to_owned(), BulkOpener::status)
            ));
        }
        warnings
    }
}

/// Returns the schema of [`Sched`], its statistics in the order of their data.
pub fn sched_schema() -> Arc<Schema> {
    let desc = |(at, name): (usize, &str)| Desc::counter(name, (at * WORD_BYTES) as u32);
    let mut descs: Vec<Desc> = WORD_NAMES.into_iter().enumerate().map(desc).collect();
    for desc in &mut descs[..2] {
        (desc.unit, desc.scale) = (Unit::Seconds, Scale::NANO);
    }
    descs[THREAD_ID].stat_type = StatType::Instant;
    Schema::new(SCHED, Target::Vcpu, descs)
}

#[cfg(test)]
mod tests;
