//! The threads of vCPUs, read by the BPF reader: what the scheduler knows of the one that ran
//! each last.
//!
//! KVM remembers that thread (`kvm_vcpu.pid`), and it is looked up at each tick, under RCU. Its
//! times are those of `/proc/<pid>/task/<tid>/schedstat`, which takes a system call a thread: that
//! is what it is compared with.
//!
//! Invariant: a source that is made here has read of each of its vCPUs, if it has run, what /proc
//! says; and before any is made, the same was read of a guest of our own. A vCPU without a thread
//! is a row without data.

use std::io;
use std::process;
use std::sync::Arc;

use rustix::io::Errno;
use vmstrobe_core::{Error, ErrorKind, Mask, Object, ReadPlan, Result, Source};
use vmstrobe_kvm::{
    GROWING, MakeFallback, Schedstat, THREAD_ID, ThreadRows, Vcpu, WORD_NAMES, WORDS, sched_schema,
};

use super::audit::Audit;
use super::bulk::BulkReader;
use super::frame::LOCK_WORDS;
use super::kernel::Kernel;
use super::open::file;
use super::policy::Bpf;
use super::reference::Reference;
use super::slots::{KvmFile, Subject};
use super::source::{Fallback, KernelSource};
use super::sys::apart;

/// The number of threads whose files are open at a time while they are compared.
const COMPARED_AT_ONCE: usize = 64;
/// The number of looks at a vCPU that goes from one thread to another meanwhile.
const COMPARE_TRIES: usize = 3;

/// A vCPU that could not be compared this time.
#[derive(Debug)]
struct Undecided<'a> {
    row: usize,
    vcpu: &'a Vcpu,
    /// The thread that is said to run it, if its VMM has none of that number.
    stranger: Option<u64>,
}

impl Bpf {
    /// Whether threads can be read, which is tried once, on a guest of our own.
    ///
    /// # Errors
    /// As [`Bpf::check`]; and `Unsupported` if this kernel does not show them, or /proc shows
    /// something else, as in a pid namespace.
    pub(crate) fn try_threads(&self) -> Result<()> {
        let kernel = self.kernel()?;
        let tried = match kernel.threads.get() {
            Some(tried) => tried.clone(),
            None => {
                self.broker().run(move || kernel.threads.get_or_init(|| tried(&kernel)).clone())
            }
        };
        tried.map_err(|(kind, why)| Error::new(kind, why))
    }

    /// Opens sources of the threads of these vCPUs; `fallback` gives what reads some of them
    /// otherwise.
    ///
    /// # Errors
    /// As [`Bpf::try_threads`], and `Unsupported` if /proc says something else of one of them.
    pub(crate) fn thread_sources(
        &self,
        rows: &ThreadRows,
        fallback: MakeFallback<'_>,
    ) -> Result<Vec<Box<dyn Source>>> {
        self.try_threads()?;
        let (kernel, plan) = (self.kernel()?, &rows.plan);
        let open = |(objects, vcpus): (&[Object], &[Option<Vcpu>])| {
            let bulk = self.compared_bulk(&kernel, plan, vcpus)?;
            Ok(Box::new(KernelSource {
                // There is no stats fd to compare with.
                audit: Audit::new(plan, bulk.shape(), Box::default()),
                bulk,
                plan: Arc::clone(plan),
                health: Arc::clone(self.health()),
                fault: self.health().add_source(plan, objects),
                rows: vcpus.iter().map(|vcpu| vcpu.as_ref().map(|v| Arc::clone(&v.fd))).collect(),
                fallback: Fallback(fallback(vcpus)),
                gone_epoch: rows.gone_epoch.clone(),
                opened_at: rows.opened_at,
                read_ns: Some(0..0),
            }) as Box<dyn Source>)
        };
        let rows_max = kernel.step().rows_max();
        let chunks = rows.objects.chunks(rows_max).zip(rows.vcpus.chunks(rows_max));
        chunks.map(open).collect()
    }

    /// Returns a bulk reader of the threads of these vCPUs that has read of each what /proc says.
    fn compared_bulk(
        &self,
        kernel: &Arc<Kernel>,
        plan: &Arc<ReadPlan>,
        rows: &[Option<Vcpu>],
    ) -> Result<BulkReader> {
        let (kernel, plan, rows) = (Arc::clone(kernel), Arc::clone(plan), rows.to_vec());
        self.broker().run(move || {
            let files: Vec<_> = rows.iter().map(|row| row.as_ref().map(|v| file(&v.fd))).collect();
            let mut bulk = kernel.bulk(Subject::Thread, &plan, &files)?;
            compare(&kernel, &mut bulk, &plan, &rows, &files)?;
            Ok(bulk)
        })
    }
}

/// Tries threads on a guest of our own.
fn tried(kernel: &Kernel) -> std::result::Result<(), (ErrorKind, String)> {
    let bulk =
        |plan: &ReadPlan, vcpu: KvmFile<'_>| kernel.bulk(Subject::Thread, plan, &[Some(vcpu)]);
    // As in `Kernel::prove`.
    let tried = apart(|| prove(bulk)).and_then(|tried| tried);
    tried.map_err(|error| (error.kind(), format!("{error:#}")))
}

/// Follows the vCPU of a guest of our own to this thread, by a bulk reader of that plan and vCPU.
fn prove(bulk: impl Fn(&ReadPlan, KvmFile<'_>) -> Result<BulkReader>) -> Result<()> {
    let guest = Reference::run_here()?;
    let plan = everything();
    let vcpu = KvmFile { fd: guest.vcpu().fd(), is_object_fd: true };
    // Behind the guest, so that it is gone before that.
    let mut bulk = bulk(&plan, vcpu)?;
    let this = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let unseen = |error: io::Error| {
        let text = "cannot read in /proc how long this thread has waited for a CPU";
        Error::caused(ErrorKind::Unsupported, text, error)
    };
    let times = Schedstat::open(process::id(), this).map_err(unseen)?;
    let before = times.read().map_err(|errno| unseen(errno.into()))?;
    run(&mut bulk)?;
    let after = times.read().map_err(|errno| unseen(errno.into()))?;
    let Some(seen) = words(&bulk.copy_of(0)) else {
        return Err(unproven("it does not find the thread of a vCPU that has just run"));
    };
    if seen[THREAD_ID] != u64::from(this) {
        return Err(unproven(
            "vmstrobe runs in a pid namespace, where the kernel's own numbers of threads differ \
             from those in /proc",
        ));
    }
    // A thread that is here has been given a CPU, and has used it.
    if let Some(name) = GROWING.skip(1).find(|&at| seen[at] == 0).map(|at| WORD_NAMES[at]) {
        return Err(unproven(format!("this kernel keeps no {name}")));
    }
    check("this thread", &plan, &seen, before, after)
}

/// Compares what the bulk reader reads of each vCPU that has run with what /proc says before and
/// after.
fn compare(
    kernel: &Kernel,
    bulk: &mut BulkReader,
    plan: &ReadPlan,
    rows: &[Option<Vcpu>],
    files: &[Option<KvmFile<'_>>],
) -> Result<()> {
    // Whatever the plan keeps, this tells the threads, before and after.
    let mut guide = kernel.bulk(Subject::Thread, &everything(), files)?;
    let there = rows.iter().enumerate().filter_map(|(row, vcpu)| Some((row, vcpu.as_ref()?)));
    let there: Vec<(usize, &Vcpu)> = there.collect();
    for chunk in there.chunks(COMPARED_AT_ONCE) {
        let mut left = compare_once(&mut guide, bulk, plan, chunk)?;
        for _ in 1..COMPARE_TRIES {
            let again: Vec<(usize, &Vcpu)> =
                left.iter().map(|left| (left.row, left.vcpu)).collect();
            if again.is_empty() {
                break;
            }
            left = compare_once(&mut guide, bulk, plan, &again)?;
        }
        let stranger = left.iter().find_map(|left| Some((left.vcpu, left.stranger?)));
        if let Some((vcpu, id)) = stranger.filter(|(vcpu, _)| !vcpu.fd.is_gone()) {
            let (path, pid) = (&vcpu.path, vcpu.pid());
            return Err(unproven(format!(
                "it finds thread {id} for {path}, which is not a thread of pid {pid}"
            )));
        }
    }
    Ok(())
}

/// Compares these vCPUs once. Returns those that could not be compared: they went to another thread
/// meanwhile, or /proc does not have their thread.
fn compare_once<'a>(
    guide: &mut BulkReader,
    bulk: &mut BulkReader,
    plan: &ReadPlan,
    vcpus: &[(usize, &'a Vcpu)],
) -> Result<Vec<Undecided<'a>>> {
    let (mut held, mut undecided) = (Vec::new(), Vec::new());
    run(guide)?;
    for &(row, vcpu) in vcpus {
        let Some(seen) = words(&guide.copy_of(row)) else { continue };
        // Of 32 bits in the kernel.
        let times = Schedstat::open(vcpu.pid(), seen[THREAD_ID] as u32);
        let read = times.and_then(|times| Ok((times.read()?, times)));
        match read {
            Ok((before, times)) => held.push((row, vcpu, before, times)),
            Err(error) if is_gone(&error) => {
                let stranger = Some(seen[THREAD_ID]);
                undecided.push(Undecided { row, vcpu, stranger });
            }
            Err(error) => {
                let text = format!("cannot read in /proc how long {} waits", vcpu.path);
                return Err(Error::caused(ErrorKind::Io, text, error));
            }
        }
    }
    run(bulk)?;
    run(guide)?;
    for (row, vcpu, before, times) in held {
        let is_its = |seen: &[u64; WORDS]| seen[THREAD_ID] == before[THREAD_ID];
        let stays = words(&guide.copy_of(row)).filter(is_its);
        let (Some(seen), Ok(after)) = (stays, times.read()) else {
            undecided.push(Undecided { row, vcpu, stranger: None });
            continue;
        };
        check(&vcpu.path, &everything(), &seen, before, after)?;
        if let Some(kept) = data(&bulk.copy_of(row)) {
            check(&vcpu.path, plan, kept, before, after)?;
        }
    }
    Ok(undecided)
}

/// Whether each word that the plan keeps is between two readings of the same thread.
fn check(
    whose: &str,
    plan: &ReadPlan,
    kept: &[u64],
    before: [u64; WORDS],
    after: [u64; WORDS],
) -> Result<()> {
    for (word, &seen) in plan.kept().zip(kept) {
        let (name, before, after) = (WORD_NAMES[word], before[word], after[word]);
        if !(before..=after).contains(&seen) {
            return Err(unproven(format!(
                "it read {name} of {whose} as {seen}, while /proc had {before} before and {after} \
                 after it"
            )));
        }
    }
    Ok(())
}

/// All words of a thread, if there is one.
fn words(row: &[u64]) -> Option<[u64; WORDS]> {
    data(row)?.try_into().ok()
}

/// The data of a row that has some.
fn data(row: &[u64]) -> Option<&[u64]> {
    let (lock, data) = row.split_at(LOCK_WORDS);
    (lock[0] == 0).then_some(data)
}

/// The plan that keeps all words, in their order.
fn everything() -> Arc<ReadPlan> {
    let schema = sched_schema();
    ReadPlan::new(&schema, &Mask::all(&schema))
}

fn run(bulk: &mut BulkReader) -> Result<()> {
    bulk.run().map(drop).map_err(|unread| unproven(format!("{unread:?}")))
}

/// Whether there is no such thread, or no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

fn unproven(what: impl Into<String>) -> Error {
    let text = format!("the BPF reader failed its self-test on threads of vCPUs: {}", what.into());
    Error::new(ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests;
