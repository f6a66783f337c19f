//! All VMs and tables on this host, in one look at every process.
//!
//! Invariant: a look ends after [`LOOK_LIMIT`], whatever processes there are; a process that was
//! not looked at is named, and comes first in the next look. A VM or a table is found once.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::parts::{FoundTable, tables_of, vms_of};
use rustix::io::Errno;
use vmstrobe_core::text::thousands;
use vmstrobe_core::{ErrorKind, Result};
use vmstrobe_host::{
    Care, Host, Seen, VmInfo,
    refusal::{self, Step},
};

/// The longest that one look at all processes takes.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// So many descriptors of each process are looked at before any is looked at further: a VMM has
/// one of KVM's among these.
const FIRST_FDS: u32 = 256;

/// The VMs and tables that were found on this host, and the processes that were not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The VMs, by process id.
    pub vms: Vec<VmInfo>,
    /// The tables, by process id.
    pub tables: Vec<FoundTable>,
    /// The number of processes that we may not look into, kernel threads apart.
    pub hidden: usize,
    /// Why there are processes that we may not look into, and what to do, in words: of the first
    /// of them (`pid 4711 (qemu-kvm): it belongs to ...`), or of all that `/proc` does not show.
    pub why_hidden: Option<String>,
    /// The processes that were not looked at for another reason, by process id.
    pub left_out: Vec<LeftOut>,
    /// The time for which processes that did not let themselves be looked at kept the helper
    /// waiting meanwhile, whichever caller asked about them.
    pub waited: Duration,
}

/// The processes that this process may not examine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hidden {
    /// The number of those that it sees; 0 if it does not even see them.
    pub processes: usize,
    /// Why, if the same holds for all.
    pub why: Option<String>,
}

impl Hidden {
    /// Returns the processes that a scan could not examine, if there are any.
    pub fn of(scan: &Scan) -> Option<Self> {
        let hidden = Self { processes: scan.hidden, why: scan.why_hidden.clone() };
        (hidden.processes > 0 || hidden.why.is_some()).then_some(hidden)
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.why.as_deref();
        match self.processes {
            0 => return f.write_str(why.unwrap_or_default()),
            1 => f.write_str("1 process")?,
            count => write!(f, "{} processes", thousands(count as u64))?,
        }
        f.write_str(" could not be examined")?;
        why.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// A process that was not looked at, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its number.
    pub pid: u32,
    /// The name that it has given itself, as it was written.
    pub comm: String,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why a process was not looked at; in words by `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyLeftOut {
    /// It keeps everyone waiting who looks at it.
    Silent,
    /// It has more open files than are examined.
    Crowded,
    /// There was no time left for it.
    NoTime,
}

impl fmt::Display for WhyLeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Silent => {
                "could not be examined in time (it is in execve, or one of its files hangs)"
            }
            Self::Crowded => "has more open files than are examined",
            Self::NoTime => "there was no time left to examine it",
        })
    }
}

/// The processes that earlier looks left out, so that each is named once.
#[derive(Debug, Default)]
pub(crate) struct KnownLeftOut(HashSet<u32>);

impl KnownLeftOut {
    /// Returns those that the look before did not leave out, without those for which there was no
    /// time: the next look examines them.
    pub(crate) fn news(&mut self, left_out: Vec<LeftOut>) -> Vec<LeftOut> {
        let silent = left_out.into_iter().filter(|one| one.why != WhyLeftOut::NoTime);
        let (known, new): (Vec<_>, Vec<_>) = silent.partition(|one| self.0.contains(&one.pid));
        // Other processes are forgotten, so that the set does not grow.
        self.0 = known.iter().chain(&new).map(|one| one.pid).collect();
        new
    }
}

/// Finds all VMs and tables on this host that we may see.
///
/// # Errors
/// `Io` if /proc cannot be read, or there can be no process to look at the others.
pub fn scan_all() -> Result<Scan> {
    scan_all_by(&Host::default())
}

/// As [`scan_all`], by the helper process of that host.
///
/// # Errors
/// As [`scan_all`].
pub fn scan_all_by(host: &Host) -> Result<Scan> {
    let (begin, blocked) = (Instant::now(), host.blocked());
    let pids = host.pids()?;
    host.keep(&pids);
    let mut survey = Survey::new(host, begin);
    let mut further = Vec::new();
    let first = host.first_of(&pids);
    let (before, after) = pids.split_at(first);
    for &pid in after.iter().chain(before) {
        further.extend(survey.look(pid, FIRST_FDS)?);
    }
    for pid in further.into_iter().filter(|&pid| !host.has_searched(pid)) {
        survey.look(pid, u32::MAX)?;
    }
    let mut scan = survey.finish();
    scan.waited = host.blocked().saturating_sub(blocked);
    let late = scan.left_out.iter().find(|one| one.why == WhyLeftOut::NoTime);
    host.begin_with(late.map(|one| one.pid));
    Ok(scan)
}

/// A look that goes on.
struct Survey<'a> {
    host: &'a Host,
    begin: Instant,
    scan: Scan,
    seen: Vec<(u32, Seen)>,
    /// The first process that we may not look into, and how that was refused.
    first_hidden: Option<(u32, Errno)>,
}

impl<'a> Survey<'a> {
    fn new(host: &'a Host, begin: Instant) -> Self {
        Self { host, begin, scan: Scan::default(), seen: Vec::new(), first_hidden: None }
    }

    /// Looks at a process. Gives it back if it has more descriptors than were to be looked at.
    ///
    /// # Errors
    /// If no process can be looked at any more.
    fn look(&mut self, pid: u32, fds: u32) -> Result<Option<u32>> {
        if self.begin.elapsed() > LOOK_LIMIT {
            self.leave_out(pid, WhyLeftOut::NoTime);
            return Ok(None);
        }
        match self.host.try_look(pid, Care { makers: true, fds }) {
            Ok(Ok(seen)) if seen.is_crowded && fds == FIRST_FDS && seen.kvm.is_empty() => {
                return Ok(Some(pid));
            }
            Ok(Ok(seen)) => {
                if seen.is_crowded {
                    self.leave_out(pid, WhyLeftOut::Crowded);
                }
                if !seen.kvm.is_empty() || !seen.tables.is_empty() {
                    self.seen.push((pid, seen));
                } else if fds > FIRST_FDS {
                    self.host.note_searched(pid);
                }
            }
            Ok(Err(errno)) => self.refused(pid, errno)?,
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.leave_out(pid, WhyLeftOut::Silent);
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn refused(&mut self, pid: u32, errno: Errno) -> Result<()> {
        match errno {
            // The kernel's own threads have no command line, and no VM.
            Errno::ACCESS | Errno::PERM if !self.host.cmdline(pid).is_empty() => {
                self.scan.hidden += 1;
                self.first_hidden.get_or_insert((pid, errno));
            }
            // Ended meanwhile.
            Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::SRCH => {}
            _ => return Err(self.host.refused(pid, Step::Look, errno)),
        }
        Ok(())
    }

    fn leave_out(&mut self, pid: u32, why: WhyLeftOut) {
        self.scan.left_out.push(LeftOut { pid, comm: self.host.comm(pid), why });
    }

    fn finish(mut self) -> Scan {
        self.seen.sort_unstable_by_key(|(pid, _)| *pid);
        self.scan.vms = vms_of(self.host, &self.seen);
        self.scan.tables = tables_of(self.host, &self.seen);
        let (first, ours) = (self.first_hidden, self.host.rights());
        self.scan.why_hidden = self.host.broker().run(move || refusal::of_some(first, ours));
        self.scan.left_out.sort_unstable_by_key(|one| one.pid);
        self.scan
    }
}

#[cfg(test)]
mod tests;
