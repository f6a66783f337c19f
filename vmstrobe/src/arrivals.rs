//! Virtual machines and tables that come later, where all of this host are sampled.
//!
//! Invariant: they are searched for on a thread of their own, so that a process that keeps the
//! search waiting delays neither the tick nor the roster, which opens what was attached to. A
//! process is attached to once. One that is refused is named once, and tried less and less often.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use vmstrobe_core::ThreadStart;
use vmstrobe_host::Host;
use vmstrobe_sampler::look_pause;

use crate::error::Result;
use crate::member::Member;
use crate::notice::{Notice, Notices};
use crate::processes::Processes;
use crate::survey::{KnownLeftOut, Scan, scan_all_by};
use crate::vm_tracker::{VmTracker, Vmm};

/// The shortest time between two searches.
const SEARCH_PERIOD: Duration = Duration::from_secs(1);

/// The search for virtual machines and tables that come later.
#[derive(Debug)]
pub(crate) struct Arrivals {
    processes: Processes,
    host: Host,
    notices: Notices,
    /// The processes of the start, until the first search has told them from later ones.
    at_start: Option<HashSet<u32>>,
    attached: Vec<Vmm>,
    tracker: VmTracker,
    left_out: KnownLeftOut,
    has_failed: bool,
}

impl Arrivals {
    /// Prepares to search for others than those that are attached to already.
    pub(crate) fn new(
        processes: Processes,
        host: Host,
        notices: Notices,
        members: &[Member],
    ) -> Self {
        let at_start = members.iter().filter_map(|member| member.pid).collect();
        Self {
            processes,
            host,
            notices,
            at_start: Some(at_start),
            attached: Vec::new(),
            tracker: VmTracker::default(),
            left_out: KnownLeftOut::default(),
            has_failed: false,
        }
    }

    /// Starts to search, until the returned value is dropped.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn watch(mut self, threads: &ThreadStart) -> Result<Newcomers> {
        let ((stop, stopped), (came, members)) = (channel::<()>(), channel());
        threads.spawn("vmstrobe-search", move || {
            let mut pause = SEARCH_PERIOD;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let begin = Instant::now();
                let (new, waited) = self.search();
                // It fails only if the session has ended, which the next wait finds.
                new.into_iter().for_each(|member| drop(came.send(member)));
                // Waiting uses no CPU, so it does not lengthen the pause.
                pause = look_pause(SEARCH_PERIOD, begin.elapsed().saturating_sub(waited));
            }
        })?;
        Ok(Newcomers { members, _stop: stop })
    }

    /// Searches once, and attaches to what is new. Returns it, and the time that was spent waiting
    /// for processes.
    fn search(&mut self) -> (Vec<Member>, Duration) {
        let scan = match scan_all_by(&self.host) {
            Ok(scan) => scan,
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    self.notices.add(Notice::Provider(error));
                }
                return (Vec::new(), Duration::ZERO);
            }
        };
        self.has_failed = false;
        let (found, waited) = (self.found(&scan), scan.waited);
        let left_out = self.left_out.news(scan.left_out);
        if !left_out.is_empty() {
            self.notices.add(Notice::LeftOut(left_out));
        }
        // One that this search had no time for has not ended.
        let host = &self.host;
        let runs = |vmm: &Vmm| host.start_time_ticks(vmm.pid) == Some(vmm.start_time_ticks);
        self.attached.retain(|vmm| found.contains(vmm) || runs(vmm));
        let came = self.tracker.compare(&found, &self.attached, Instant::now()).came;
        let Some(at_start) = self.at_start.take() else { return (self.attach(came), waited) };
        for vmm in came {
            if at_start.contains(&vmm.pid) {
                self.accept(vmm);
            } else {
                // Why it is not read was said when it was refused.
                self.tracker.refuse(vmm);
            }
        }
        (Vec::new(), waited)
    }

    /// Returns each process that was found, once. Its user may change and does not count.
    fn found(&self, scan: &Scan) -> Vec<Vmm> {
        let vms = scan.vms.iter().map(|vm| (vm.pid, Some(vm.start_time_ticks)));
        let tables =
            scan.tables.iter().map(|table| (table.pid, self.host.start_time_ticks(table.pid)));
        let with_time = vms.chain(tables).filter_map(|(pid, start_time_ticks)| {
            // One without a time has ended meanwhile.
            Some(Vmm { pid, start_time_ticks: start_time_ticks?, uid: 0 })
        });
        let mut seen = HashSet::new();
        with_time.filter(|vmm| seen.insert(*vmm)).collect()
    }

    fn attach(&mut self, came: Vec<Vmm>) -> Vec<Member> {
        // Together: one after the other each would be waited for.
        self.processes.prepare(came.iter().map(|vmm| vmm.pid));
        let mut members = Vec::new();
        for vmm in came {
            match self.processes.attach_one(vmm.pid) {
                Ok(member) => {
                    self.accept(vmm);
                    self.notices.add(Notice::Came { title: member.title.clone() });
                    members.push(member);
                }
                Err(error) => {
                    if self.tracker.refuse(vmm) {
                        self.notices.add(Notice::NotRead(error));
                    }
                    self.tracker.put_off(vmm, Instant::now());
                }
            }
        }
        members
    }

    fn accept(&mut self, vmm: Vmm) {
        self.tracker.accept(vmm);
        self.attached.push(vmm);
    }
}

/// The members that a search attaches to. Dropping it ends the search, after a look that is under
/// way.
#[derive(Debug)]
pub(crate) struct Newcomers {
    members: Receiver<Member>,
    _stop: Sender<()>,
}

impl Newcomers {
    /// Takes those that have come since the last call.
    pub(crate) fn take(&self) -> Vec<Member> {
        self.members.try_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Provider;
    use vmstrobe_host::Reaper;
    use vmstrobe_table::{TableSchema, TableWriter};

    use super::*;
    use crate::sources::Options;

    /// A search that has found all that is here.
    fn arrivals(members: &[Member]) -> Arrivals {
        let options = Options::default();
        let reaper = Reaper::new().expect("there are threads");
        let notices = Notices::default();
        let processes = Processes::new(&reaper, &options.attach(true), notices.clone());
        let processes = processes.expect("there are threads");
        Arrivals::new(processes, options.host(), notices, members)
    }

    #[test]
    fn a_table_that_comes_later_is_attached_to_once() {
        let schema = TableSchema::new(vmstrobe_core::Target::from_name("queue"));
        let own = std::process::id();
        let mut arrivals = arrivals(&[]);
        assert!(arrivals.search().0.is_empty(), "those of the start were tried already");
        let table = TableWriter::new("arrivals").expect("there is memory");
        let _queue = table.add("/arrivals/queue[0]", &schema).expect("there is room");
        // This process has tables of other tests, too, and may have been found before.
        arrivals.tracker = VmTracker::default();
        let came = |arrivals: &mut Arrivals| {
            let (members, _) = arrivals.search();
            members.iter().filter(|member| member.pid == Some(own)).count()
        };
        assert_eq!(came(&mut arrivals), 1);
        let objects = arrivals.processes.tables.objects().expect("it lives");
        assert!(objects.iter().any(|object| &*object.path == "/arrivals/queue[0]"));
        let notices: Vec<String> = arrivals.notices.take().iter().map(Notice::to_string).collect();
        let title = format!("(pid {own}) has come and is read, too");
        assert!(notices.iter().any(|text| text.ends_with(&title)), "{notices:?}");
        assert_eq!(came(&mut arrivals), 0);
    }

    #[test]
    fn those_of_the_start_do_not_come() {
        let table = TableWriter::new("arrivals-start").expect("there is memory");
        let schema = TableSchema::new(vmstrobe_core::Target::from_name("queue"));
        let _queue = table.add("/start/queue[0]", &schema).expect("there is room");
        let own = std::process::id();
        let mut arrivals = arrivals(&[Member::process(own, Vec::new())]);
        for _ in 0..2 {
            let (members, _) = arrivals.search();
            assert!(members.iter().all(|member| member.pid != Some(own)), "{members:?}");
        }
        assert!(arrivals.attached.iter().any(|vmm| vmm.pid == own));
    }
}
