//! Opens objects for reading, by the BPF reader where that is wanted and possible.
//!
//! Invariant: what is opened can be read, by the one way or the other; and a source that reads by
//! the program has read every object right by it before anyone gets it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use vmstrobe_core::{Error, ErrorKind, Object, ReadPlan, Result, RowState, Rows, Source, Target};
use vmstrobe_host::GoneEpoch;

use super::audit::Audit;
use super::bulk::MAX_ROWS;
use super::guide::Guide;
use super::policy::{Bpf, BpfMode};
use super::slots::{KvmFile, Subject};
use super::source::{Fallback, KernelSource};
use crate::fd::{KvmFd, pread_source, pread_sources};

/// Fewer rows than these are read by pread unless somebody insists: a call of a program costs as
/// much as two of them.
const ROWS_MIN: usize = 3;
/// From here on the program is quicker on any machine, and nothing is measured.
const ROWS_SURE: usize = 16;
/// How often both ways are measured; the middle ones count.
const MEASUREMENTS: usize = 15;

impl Bpf {
    /// Sources of these rows, which are `None` where the object had gone.
    ///
    /// # Errors
    /// Why it cannot be used, if it must be.
    pub(crate) fn sources(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
        rows: Box<[Option<Arc<KvmFd>>]>,
        gone_epoch: &GoneEpoch,
        opened_at: u64,
    ) -> Result<Vec<Box<dyn Source>>> {
        let has_object_fd = rows.iter().flatten().any(|row| row.is_object_fd());
        let is_wanted = match self.mode() {
            BpfMode::Off => false,
            BpfMode::Needed => has_object_fd,
            BpfMode::Auto => has_object_fd || rows.len() >= ROWS_MIN,
            BpfMode::Require => true,
        };
        let is_possible = plan.row_words() > 0 && !self.health().is_given_up();
        if !(is_wanted && is_possible) {
            return Ok(pread_sources(plan, &rows, gone_epoch, opened_at));
        }
        let (this, objects, plan) = (self.clone(), objects.to_vec(), Arc::clone(plan));
        let gone_epoch = gone_epoch.clone();
        let open = move || this.open_sources(&objects, &plan, &rows, &gone_epoch, opened_at);
        self.broker().run(open)
    }

    /// Opens the sources by the thread that may load programs.
    fn open_sources(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
        rows: &[Option<Arc<KvmFd>>],
        gone_epoch: &GoneEpoch,
        opened_at: u64,
    ) -> Result<Vec<Box<dyn Source>>> {
        let has_object_fd = rows.iter().flatten().any(|row| row.is_object_fd());
        let open = |(objects, rows): (&[Object], &[Option<Arc<KvmFd>>])| {
            let fallback = pread_source(plan, rows, gone_epoch, opened_at);
            self.source(objects, plan, rows, fallback, gone_epoch, opened_at)
        };
        let rows_max = self.kernel().map_or(MAX_ROWS, |kernel| kernel.step().rows_max());
        let chunks = objects.chunks(rows_max).zip(rows.chunks(rows_max));
        let opened: Result<Vec<KernelSource>> = chunks.map(open).collect();
        let must = self.mode() == BpfMode::Require;
        match opened {
            Err(error) if must => Err(error),
            // As if there were no such thing: `status` says why.
            Err(_) => Ok(pread_sources(plan, rows, gone_epoch, opened_at)),
            Ok(mut sources) => {
                let is_sure = must || has_object_fd || rows.len() >= ROWS_SURE;
                if !is_sure && !sources.iter_mut().all(is_quicker) {
                    return Ok(pread_sources(plan, rows, gone_epoch, opened_at));
                }
                let boxed = |source| Box::new(source) as Box<dyn Source>;
                Ok(sources.into_iter().map(boxed).collect())
            }
        }
    }

    fn source(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
        rows: &[Option<Arc<KvmFd>>],
        fallback: Box<dyn Source>,
        gone_epoch: &GoneEpoch,
        opened_at: u64,
    ) -> Result<KernelSource> {
        let kernel = self.kernel()?;
        let subject = match *plan.schema().target() {
            Target::Vm => Subject::Vm,
            _ => Subject::Vcpu,
        };
        let files: Vec<_> = rows.iter().map(|row| row.as_ref().map(file)).collect();
        let with_stats = rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_ref()?)));
        let with_stats = with_stats.filter(|(_, row)| !row.is_object_fd());
        let audited: Vec<_> = with_stats.map(|(at, row)| (at, Arc::clone(row))).collect();
        let bulk = kernel.bulk(subject, plan, &files)?;
        // A guide takes the place of pread if no row has a stats fd.
        let guide = audited.is_empty().then(|| Guide::new(&kernel, subject, &files)).transpose()?;
        let mut source = KernelSource {
            audit: Audit::new(plan, bulk.shape(), audited.into()),
            bulk,
            plan: Arc::clone(plan),
            health: Arc::clone(self.health()),
            fault: self.health().add_source(plan, objects),
            rows: rows.into(),
            fallback: Fallback(fallback),
            gone_epoch: gone_epoch.clone(),
            opened_at,
            read_ns: Some(0..0),
        };
        let proof = source.prove().and_then(|()| match guide {
            Some(mut guide) => guide.compare(&mut source.bulk, plan),
            None => Ok(()),
        });
        if let Err(fault) = proof {
            source.health.give_up(&source.fault, fault);
            let why = source.health.why().unwrap_or_default();
            let text = format!("the BPF reader did not read what pread does: {why}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(source)
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
