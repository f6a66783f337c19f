//! The members of an attachment, and whether they have ended.
//!
//! Invariant: a process has ended when a provider that reads it says so. A member that is reached
//! in another way (a socket, a file) has ended when nothing that is sampled is there any more, and
//! not because a launcher has ended that had opened the socket for it. A recording has ended when
//! its end was reached.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmstrobe_core::{Provider, RowState, Snapshot};

/// The time without any object that is taken for the end: a QEMU that is connected to again, or an
/// object that is made anew, is there by then.
const GONE_FOR_GOOD: Duration = Duration::from_millis(2500);

/// A member of an attachment: a process, or what is behind a socket or in a file.
#[derive(Debug)]
#[non_exhaustive]
pub struct Member {
    /// The title for people: `VM guest1 (pid 4711)`.
    pub title: String,
    /// The VM's name, if it is a VM; else the name of the process or of the file.
    pub name: String,
    /// The process itself, or the one that is known to be behind the socket.
    pub pid: Option<u32>,
    /// True for a virtual machine, false for a program beside one.
    pub is_vm: bool,
    /// The providers that read it, which know whether its process has ended.
    providers: Vec<Arc<dyn Provider>>,
    /// True if it was reached by process id: the end of the process is its end.
    is_process: bool,
    /// For a recording, whether its end was reached; no other end is one.
    is_over: Option<Arc<AtomicBool>>,
}

impl Member {
    /// Returns a process that these providers read.
    pub(crate) fn process(pid: u32, providers: Vec<Arc<dyn Provider>>) -> Self {
        let (title, name, pid) = (format!("pid {pid}"), pid.to_string(), Some(pid));
        Self { title, name, pid, is_vm: false, providers, is_process: true, is_over: None }
    }

    /// Returns a member behind a socket or in a file. `peer` is the process that is known to be
    /// behind the socket: the member itself, or a launcher that opened the socket for it.
    /// `providers` know whether it has ended.
    pub(crate) fn remote(
        title: String,
        name: String,
        peer: Option<u32>,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Self {
        let (is_vm, is_process, is_over) = (false, false, None);
        Self { title, name, pid: peer, is_vm, providers, is_process, is_over }
    }

    /// Returns a recording, which ends when `is_over` becomes true.
    #[cfg(feature = "export")]
    pub(crate) fn recording(title: String, name: String, is_over: Arc<AtomicBool>) -> Self {
        Self { is_over: Some(is_over), ..Self::remote(title, name, None, Vec::new()) }
    }

    /// Adds a provider that reads it too.
    pub(crate) fn add_provider(&mut self, provider: Arc<dyn Provider>) {
        self.providers.push(provider);
    }

    /// Returns true if the kernel tells its end, false if only its objects do.
    pub(crate) fn is_process(&self) -> bool {
        self.is_process
    }

    /// Returns true if it was recorded.
    pub(crate) fn is_recording(&self) -> bool {
        self.is_over.is_some()
    }

    /// Returns true if it has ended. `gone_for` is how long nothing that is sampled has been there.
    fn has_ended<'a>(&'a self, gone_for: Option<Duration>, asked: &mut Asked<'a>) -> bool {
        if let Some(is_over) = &self.is_over {
            // Relaxed: it orders nothing.
            return is_over.load(Ordering::Relaxed);
        }
        match gone_for {
            _ if self.is_process => self.process_has_ended(asked),
            Some(time) => time >= GONE_FOR_GOOD || self.process_has_ended(asked),
            None => false,
        }
    }

    fn process_has_ended<'a>(&'a self, asked: &mut Asked<'a>) -> bool {
        let Some(pid) = self.pid else { return false };
        self.providers.iter().any(|provider| asked.has_ended(provider, pid))
    }
}

/// Returns, in their order, whether the members have ended. `gone_for` is how long nothing that is
/// sampled has been there.
pub(crate) fn ended(
    members: &[Member],
    gone_for: Option<Duration>,
) -> impl Iterator<Item = bool> + '_ {
    let mut asked = Asked::default();
    members.iter().map(move |member| member.has_ended(gone_for, &mut asked))
}

/// The answers of providers. Each is asked once, however many of its processes are members.
#[derive(Default)]
struct Asked<'a> {
    answers: Vec<(&'a Arc<dyn Provider>, Vec<u32>)>,
}

impl<'a> Asked<'a> {
    /// Returns true if the process of that number has ended, as its provider says.
    fn has_ended(&mut self, provider: &'a Arc<dyn Provider>, pid: u32) -> bool {
        let known = self.answers.iter().position(|(known, _)| Arc::ptr_eq(known, provider));
        let at = known.unwrap_or_else(|| {
            self.answers.push((provider, provider.ended()));
            self.answers.len() - 1
        });
        self.answers[at].1.contains(&pid)
    }
}

/// Since when nothing that is sampled has been there.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Cell<Option<Instant>>,
}

impl Absence {
    /// Notes a sample. A row that could not be read is no absence.
    pub(crate) fn note(&self, sample: &Snapshot) {
        self.note_whether(sample.objects().any(|view| view.state() != RowState::Gone));
    }

    /// Notes whether anything is there now.
    pub(crate) fn note_whether(&self, is_there: bool) {
        let since = self.since.get().unwrap_or_else(Instant::now);
        self.since.set((!is_there).then_some(since));
    }

    /// Returns how long it has lasted.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.since.get().map(|since| since.elapsed())
    }

    /// Returns true if it has lasted so long that it is taken for the end.
    pub(crate) fn is_for_good(&self) -> bool {
        self.lasts().is_some_and(|time| time >= GONE_FOR_GOOD)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::AtomicUsize;

    use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, Result, Schema, Source, Target};

    use super::*;

    /// A provider of which these processes have ended, and how often it was asked for them.
    #[derive(Debug, Default)]
    pub(crate) struct Ended(Vec<u32>, AtomicUsize);

    impl Provider for Ended {
        fn name(&self) -> &str {
            "ended"
        }

        fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
            Ok(Vec::new())
        }

        fn objects(&self) -> Result<Vec<Object>> {
            Ok(Vec::new())
        }

        fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
            Ok(Vec::new())
        }

        fn ended(&self) -> Vec<u32> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.clone()
        }
    }

    pub(crate) fn provider(ended: &[u32]) -> Arc<Ended> {
        Arc::new(Ended(ended.to_vec(), AtomicUsize::new(0)))
    }

    fn has_ended(member: &Member, gone_for: Option<Duration>) -> bool {
        ended(std::slice::from_ref(member), gone_for).all(|ended| ended)
    }

    #[test]
    fn a_process_has_ended_if_one_of_its_providers_says_so() {
        let member = |providers| Member::process(7, providers);
        let lives = member(vec![provider(&[]), provider(&[8])]);
        assert_eq!(lives.title, "pid 7");
        assert!(lives.pid == Some(7) && lives.is_process());
        // That it has nothing to show for a while is no end.
        assert!(!has_ended(&lives, Some(GONE_FOR_GOOD)));
        let mut gone = lives;
        gone.add_provider(provider(&[7]));
        assert!(has_ended(&gone, None));
        assert!(!has_ended(&member(Vec::new()), None));
    }

    #[test]
    fn a_provider_of_many_members_is_asked_once() {
        let (kvm, table) = (provider(&[2]), provider(&[3]));
        let of = |pid| Member::process(pid, vec![Arc::clone(&kvm) as _, Arc::clone(&table) as _]);
        let members = [1, 2, 3, 4].map(of);
        let ended: Vec<bool> = ended(&members, None).collect();
        assert_eq!(ended, [false, true, true, false]);
        assert_eq!([&kvm, &table].map(|one| one.1.load(Ordering::Relaxed)), [1, 1]);
    }

    #[test]
    fn behind_a_socket_rows_tell() {
        let member = |providers| Member::remote("it".into(), "it".into(), Some(7), providers);
        let (moment, long) = (Some(Duration::ZERO), Some(GONE_FOR_GOOD));
        let lives = member(vec![provider(&[])]);
        assert!(!has_ended(&lives, None) && !has_ended(&lives, moment));
        assert!(has_ended(&lives, long));
        let gone = member(vec![provider(&[7])]);
        // It may have been a launcher.
        assert!(!has_ended(&gone, None));
        assert!(has_ended(&gone, moment));
        let unknown = Member { pid: None, ..gone };
        assert!(!has_ended(&unknown, moment) && has_ended(&unknown, long));
    }

    #[test]
    fn absence_lasts_until_something_is_there() {
        let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = |key| Object { path: "/a".into(), index: None, schema: schema.clone(), key };
        let sample = |states: &[RowState]| {
            let objects = (0..).zip(states).map(|(key, _)| object(key)).collect();
            let mut sample = Snapshot::new(&Layout::new(0, vec![(Arc::clone(&plan), objects)]));
            sample.begin(1).1.copy_from_slice(states);
            sample
        };
        let absence = Absence::default();
        for (states, is_absence) in [
            (&[RowState::Good, RowState::Gone][..], false),
            (&[RowState::Gone, RowState::Gone], true),
            (&[], true),
            (&[RowState::Gone, RowState::Stale], false),
            (&[RowState::Io(5)], false),
        ] {
            absence.note(&sample(states));
            assert_eq!(absence.lasts().is_some(), is_absence, "{states:?}");
            assert!(!absence.is_for_good());
        }
        absence.since.set(Instant::now().checked_sub(GONE_FOR_GOOD));
        absence.note(&sample(&[]));
        assert!(absence.is_for_good());
    }
}
