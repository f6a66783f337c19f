//! Opens objects for reading, by the BPF reader where that is wanted and possible.
//!
//! Invariant: what is opened can be read, by the one way or the other; and a source that reads by
//! the program has read every object right by it before anyone gets it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use vmstrobe_core::{Error, ErrorKind, Object, Result, RowState, Rows, Schema, Source, Target};
use vmstrobe_kvm::{
    BulkOpener, KvmFd, KvmRows, MakeFallback, NoThreads, ThreadRows, ThreadSources,
};

use super::audit::Audit;
use super::bulk::MAX_ROWS;
use super::guide::Guide;
use super::policy::{Bpf, BpfMode};
use super::slots::{KvmFile, Subject};
use super::source::{Fallback, KernelSource};

/// Fewer rows than these are read by pread unless somebody insists: a call of a program costs as
/// much as two of them.
const ROWS_MIN: usize = 3;
/// The number of rows from which on the program is quicker on any machine, so nothing is measured.
const ROWS_SURE: usize = 16;
/// The number of measurements of both methods, of which the middle ones count.
const MEASUREMENTS: usize = 15;

impl BulkOpener for Bpf {
    fn refusal(&self) -> Option<String> {
        let refused = || self.check().err();
        self.given_up().or_else(refused).map(|error| error.to_string())
    }

    fn object_schema(&self, target: &Target) -> Result<Arc<Schema>> {
        Ok(Arc::clone(self.kernel()?.schema(subject_of(target))))
    }

    fn open(&self, rows: &KvmRows) -> Result<Option<Vec<Box<dyn Source>>>> {
        let is_wanted = match self.mode() {
            BpfMode::Off => false,
            BpfMode::Needed => rows.has_object_fd(),
            BpfMode::Auto => rows.has_object_fd() || rows.fds.len() >= ROWS_MIN,
            BpfMode::Require => true,
        };
        let is_possible = rows.plan.row_words() > 0 && !self.health().is_given_up();
        if !(is_wanted && is_possible) {
            return Ok(None);
        }
        let (this, rows) = (self.clone(), rows.clone());
        self.broker().run(move || this.open_sources(&rows))
    }

    fn check_threads(&self, is_only_way: bool) -> std::result::Result<(), NoThreads> {
        let is_wanted = match self.mode() {
            BpfMode::Off => false,
            BpfMode::Needed => is_only_way,
            BpfMode::Auto | BpfMode::Require => true,
        };
        if !is_wanted || self.health().is_given_up() {
            return Err(NoThreads::Unwanted);
        }
        self.try_threads().map_err(|error| self.no_threads(error))
    }

    fn open_threads(&self, rows: &ThreadRows, fallback: MakeFallback<'_>) -> ThreadSources {
        self.thread_sources(rows, fallback).map_err(|error| self.no_threads(error))
    }

    fn status(&self) -> String {
        Bpf::status(self).to_string()
    }

    fn warnings(&self) -> Vec<Error> {
        self.given_up().into_iter().collect()
    }
}

/// A reader that is never used is none.
impl From<Bpf> for Option<Arc<dyn BulkOpener>> {
    fn from(bpf: Bpf) -> Self {
        (bpf.mode() != BpfMode::Off).then(|| Arc::new(bpf) as _)
    }
}

impl Bpf {
    /// Returns why threads are not read by it, if that is for another reason than that nothing is.
    fn no_threads(&self, error: Error) -> NoThreads {
        match self.mode() {
            BpfMode::Require => NoThreads::Required(error),
            // If nothing can be read so, that is for its own status to say.
            _ if self.refusal().is_some() => NoThreads::Unwanted,
            _ => NoThreads::Refused(error),
        }
    }

    /// Opens the sources on the thread that may load programs; `None` if pread is to read them.
    fn open_sources(&self, rows: &KvmRows) -> Result<Option<Vec<Box<dyn Source>>>> {
        let open = |(objects, fds): (&[Object], &[Option<Arc<KvmFd>>])| {
            self.source(rows, objects, fds, rows.pread_source(fds))
        };
        let rows_max = self.kernel().map_or(MAX_ROWS, |kernel| kernel.step().rows_max());
        let chunks = rows.objects.chunks(rows_max).zip(rows.fds.chunks(rows_max));
        let opened: Result<Vec<KernelSource>> = chunks.map(open).collect();
        let must = self.mode() == BpfMode::Require;
        match opened {
            Err(error) if must => Err(error),
            // As if there were no such thing: `status` says why.
            Err(_) => Ok(None),
            Ok(mut sources) => {
                let is_sure = must || rows.has_object_fd() || rows.fds.len() >= ROWS_SURE;
                if !is_sure && !sources.iter_mut().all(is_quicker) {
                    return Ok(None);
                }
                let boxed = |source| Box::new(source) as Box<dyn Source>;
                Ok(Some(sources.into_iter().map(boxed).collect()))
            }
        }
    }

    /// Opens one source of some of the rows.
    fn source(
        &self,
        rows: &KvmRows,
        objects: &[Object],
        fds: &[Option<Arc<KvmFd>>],
        fallback: Box<dyn Source>,
    ) -> Result<KernelSource> {
        let (kernel, plan) = (self.kernel()?, &rows.plan);
        let subject = subject_of(plan.schema().target());
        let files: Vec<_> = fds.iter().map(|fd| fd.as_ref().map(file)).collect();
        let with_stats = fds.iter().enumerate().filter_map(|(at, fd)| Some((at, fd.as_ref()?)));
        let with_stats = with_stats.filter(|(_, fd)| !fd.is_object_fd());
        let audited: Vec<_> = with_stats.map(|(at, fd)| (at, Arc::clone(fd))).collect();
        let bulk = kernel.bulk(subject, plan, &files)?;
        // A guide takes the place of pread if no row has a stats fd.
        let guide = audited.is_empty().then(|| Guide::new(&kernel, subject, &files)).transpose()?;
        let mut source = KernelSource {
            audit: Audit::new(plan, bulk.shape(), audited.into()),
            bulk,
            plan: Arc::clone(plan),
            health: Arc::clone(self.health()),
            fault: self.health().add_source(plan, objects),
            rows: fds.into(),
            fallback: Fallback(fallback),
            gone_epoch: rows.gone_epoch.clone(),
            opened_at: rows.opened_at,
            read_ns: Some(0..0),
        };
        let proof = source.prove().and_then(|()| match guide {
            Some(mut guide) => guide.compare(&mut source.bulk, plan),
            None => Ok(()),
        });
        if let Err(fault) = proof {
            source.health.give_up(&source.fault, fault);
            let why = source.health.why().unwrap_or_default();
            let text = format!("the BPF reader read other values than pread: {why}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(source)
    }
}

/// Returns the subject of objects of a target.
fn subject_of(target: &Target) -> Subject {
    match target {
        Target::Vm => Subject::Vm,
        _ => Subject::Vcpu,
    }
}

/// Whether a source is quicker than its fall-back, here and now.
fn is_quicker(source: &mut KernelSource) -> bool {
    let (mut words, mut states) =
        (vec![0; source.rows() * source.plan.row_words()], vec![RowState::Missing; source.rows()]);
    let row_words = source.plan.row_words();
    let mut ns = |source: &mut dyn Source| {
        let begin = Instant::now();
        source.read(Rows::new(&mut words, &mut states, row_words));
        begin.elapsed().as_nanos()
    };
    let times = [(); MEASUREMENTS].map(|()| [ns(&mut *source.fallback.0), ns(source)]);
    let [pread, ours] = [0, 1].map(|way| {
        let mut times = times.map(|both| both[way]);
        times.sort_unstable();
        times[MEASUREMENTS / 2]
    });
    ours < pread
}

/// Returns the descriptor of a row, by which the program finds its object.
pub(super) fn file(row: &Arc<KvmFd>) -> KvmFile<'_> {
    KvmFile { fd: row.fd().as_fd(), is_object_fd: row.is_object_fd() }
}

#[cfg(test)]
mod tests;
