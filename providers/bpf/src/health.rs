//! The health of the BPF reader: whether it is still used, and if not, why. All its sources share
//! it.
//!
//! Invariant: a fault is never taken back. The tick only stores some words; what they mean is
//! put into a sentence elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use vmstrobe_core::{Object, ReadPlan};

use super::bulk::Unread;

/// Whether the BPF reader is given up, and why. All sources of one `Bpf` share it.
#[derive(Debug, Default)]
pub(super) struct BpfHealth {
    given_up: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The faults of the sources, if they have any.
    faults: Vec<Arc<SourceFault>>,
    /// Why it was given up.
    why: Option<String>,
}

/// The fault of one source, if it has one. It is noted on the tick, without a lock: first its
/// details, then [`SourceFault::what`].
#[derive(Debug)]
pub(super) struct SourceFault {
    plan: Arc<ReadPlan>,
    paths: Box<[Box<str>]>,
    what: AtomicU64,
    row: AtomicU64,
    values: [AtomicU64; 3],
    column: AtomicU64,
}

/// Words of [`SourceFault::what`].
const NOTHING: u64 = 0;
const REFUSED: u64 = 1;
const INCOMPLETE: u64 = 2;
const OUTSIDE: u64 = 3;

/// A value that is not between those which pread found before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    /// One beyond the objects is our own guest.
    pub(super) row: usize,
    /// The index of the statistic among the columns of the plan.
    pub(super) column: usize,
    /// The values before, by the BPF reader, and after.
    pub(super) values: [u64; 3],
}

/// Why a reading is not to be used, nor any further one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Unread(Unread),
    Outside(Outside),
}

impl BpfHealth {
    #[inline]
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Gives the reader up: all sources read by pread from now on. For the tick.
    #[cold]
    pub(super) fn give_up(&self, source: &SourceFault, fault: Fault) {
        source.note(fault);
        // Release, pairs with the acquire of who looks what it was.
        self.given_up.store(true, Ordering::Release);
    }

    /// Gives up for a reason in words. The first reason counts.
    pub(super) fn give_up_because(&self, why: &str) {
        // A source's fault that nobody has asked for yet comes first.
        self.why();
        self.state().why.get_or_insert_with(|| why.to_owned());
        self.given_up.store(true, Ordering::Release);
    }

    /// Adds a source of these objects, and returns where it notes its fault.
    pub(super) fn add_source(&self, plan: &Arc<ReadPlan>, objects: &[Object]) -> Arc<SourceFault> {
        let fault = Arc::new(SourceFault {
            plan: Arc::clone(plan),
            paths: objects.iter().map(|object| object.path.clone()).collect(),
            what: AtomicU64::new(NOTHING),
            row: AtomicU64::new(0),
            values: Default::default(),
            column: AtomicU64::new(0),
        });
        let mut state = self.state();
        // Drops the records of sources that are gone and had no fault.
        state.faults.retain(|known| Arc::strong_count(known) > 1 || known.text().is_some());
        state.faults.push(Arc::clone(&fault));
        fault
    }

    /// Why it was given up, if it was.
    pub(super) fn why(&self) -> Option<String> {
        if !self.given_up.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        if state.why.is_none() {
            state.why = state.faults.iter().find_map(|fault| fault.text());
        }
        state.why.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Texts and a list: no panic leaves them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceFault {
    fn note(&self, fault: Fault) {
        let (what, details) = match fault {
            Fault::Unread(Unread::Refused(errno)) => {
                (REFUSED, [errno.raw_os_error().cast_unsigned().into(), 0, 0])
            }
            Fault::Unread(Unread::Incomplete) => (INCOMPLETE, [0; 3]),
            Fault::Outside(Outside { row, column, values }) => {
                self.row.store(row as u64, Ordering::Relaxed);
                self.column.store(column as u64, Ordering::Relaxed);
                (OUTSIDE, values)
            }
        };
        for (word, value) in self.values.iter().zip(details) {
            word.store(value, Ordering::Relaxed);
        }
        // Release, pairs with the acquire of who looks: another source may have given up before.
        self.what.store(what, Ordering::Release);
    }

    fn text(&self) -> Option<String> {
        let what = self.what.load(Ordering::Acquire);
        let [before, seen, after] =
            self.values.each_ref().map(|value| value.load(Ordering::Relaxed));
        match what {
            REFUSED => {
                let errno = Errno::from_raw_os_error(before as i32);
                Some(format!("the kernel did not run its program: {errno}"))
            }
            INCOMPLETE => Some("its program did not finish".to_owned()),
            OUTSIDE => {
                let row = self.row.load(Ordering::Relaxed) as usize;
                let path = self.paths.get(row).map_or("the guest of the self-test", |path| path);
                let column = self.plan.columns().get(self.column.load(Ordering::Relaxed) as usize);
                let descs = self.plan.schema().descs();
                let name = column.map_or("?", |column| &descs[column.desc].name);
                Some(format!(
                    "it read {name} of {path} as {seen}, while pread read {before} before and \
                     {after} after it"
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
