//! Events of the sockets: what a log or a list of them needs, as data.
//!
//! Invariant: events that nobody takes are bounded.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use vmstrobe_core::{Object, Target};

use crate::attachment::Attachment;
use crate::error::Error;
use crate::notice::Notice;
use crate::survey::Hidden;
use crate::vm_tracker::Vmm;

use super::quota::LimitReached;

/// The most events that are kept for someone who never takes them.
const MAX_EVENTS: usize = 10_000;

/// Something that happened to the sockets or to the virtual machines behind them.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A socket was opened.
    Opened(Arc<ServedVm>),
    /// The virtual machine, or the program, has ended.
    Ended(Arc<ServedVm>),
    /// The process does not have its virtual machine any more.
    Gone(Arc<ServedVm>),
    /// A socket was closed.
    Closed(Arc<ServedVm>),
    /// There is no socket for virtual machines that were found, until one becomes free.
    NoSocket {
        /// The title of one of them.
        title: String,
        /// The number of the others.
        others: usize,
        /// The limit that is reached.
        limit: LimitReached,
        /// True if their users are not trusted.
        is_untrusted: bool,
    },
    /// A virtual machine that was found cannot be served. It is tried again, without an event.
    Refused {
        /// Its title.
        title: String,
        /// Why.
        error: Error,
        /// True if its user is not trusted.
        is_untrusted: bool,
    },
    /// There are processes that this process may not examine. The first search finds that.
    Hidden(Hidden),
    /// It is not clear which virtual machine a QEMU that was named belongs to. It may start later.
    QemuUnclear(Error),
    /// The search for virtual machines failed, for the first time after one that did not.
    SearchFailed(Error),
    /// A notice of the search or of a virtual machine.
    Notice(Notice),
}

/// A virtual machine, or a program, behind a socket, as it was when that was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServedVm {
    /// The path of the socket.
    pub path: PathBuf,
    /// The title for people, `VM web (pid 4711)`; `None` for providers of this process.
    pub title: Option<String>,
    /// The titles of members beside the virtual machine.
    pub other_titles: Vec<String>,
    /// The number of objects of each target. One that several providers have counts once.
    pub objects: Vec<(Target, usize)>,
    /// The VMM that a search has found; `None` for what was named.
    pub owner: Option<Owner>,
    /// The time at which the socket was opened.
    pub opened: Instant,
}

/// The VMM of a virtual machine that was found by a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub vmm: Vmm,
    /// True if its user is not trusted.
    pub is_untrusted: bool,
}

impl ServedVm {
    /// Describes the providers of a socket at this path.
    pub fn new(path: PathBuf, vm: &Attachment, owner: Option<Owner>) -> Self {
        let title = vm.main().map(|member| member.title.clone());
        let titles = vm.members().iter().map(|member| &member.title);
        let other_titles = titles.filter(|one| Some(*one) != title.as_ref()).cloned().collect();
        let objects = counts(&vm.objects().unwrap_or_default());
        Self { path, title, other_titles, objects, owner, opened: Instant::now() }
    }

    /// Returns true if it belongs to a user who is not trusted.
    pub fn is_untrusted(&self) -> bool {
        self.owner.is_some_and(|owner| owner.is_untrusted)
    }
}

/// Returns the number of objects of each target.
fn counts(objects: &[Object]) -> Vec<(Target, usize)> {
    let mut counts: Vec<(Target, usize)> = Vec::new();
    let mut seen = HashSet::new();
    // Several providers may have statistics of one object.
    for object in objects.iter().filter(|one| seen.insert((one.schema.target(), &one.path))) {
        let target = object.schema.target();
        match counts.iter_mut().find(|(known, _)| known == target) {
            Some((_, count)) => *count += 1,
            None => counts.push((target.clone(), 1)),
        }
    }
    counts
}

/// The events that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<Event>);

impl Events {
    /// Adds an event, unless there are too many that nobody has taken.
    pub(super) fn add(&mut self, event: Event) {
        if self.0.len() < MAX_EVENTS {
            self.0.push(event);
        }
    }

    /// Takes all that there are.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Registry, Schema};

    use super::*;

    #[test]
    fn an_object_counts_once() {
        let object = |path: &str, target: &str| {
            let schema = Schema::new("kvm", Target::from_name(target), Vec::new());
            Object { path: path.into(), index: None, schema, key: 0 }
        };
        let objects =
            [object("/a", "vcpu"), object("/b", "vcpu"), object("/a", "vcpu"), object("/a", "vm")];
        assert_eq!(counts(&objects), [(Target::Vcpu, 2), (Target::Vm, 1)]);
    }

    #[test]
    fn providers_of_this_process_have_no_title() {
        let vm = ServedVm::new("/a".into(), &Attachment::of(Registry::default()), None);
        assert_eq!((vm.title.as_deref(), vm.is_untrusted()), (None, false));
        assert!(vm.other_titles.is_empty() && vm.objects.is_empty());
    }

    #[test]
    fn events_that_nobody_takes_are_bounded() {
        let mut events = Events::default();
        for _ in 0..=MAX_EVENTS {
            events.add(Event::Notice(Notice::LeftOut(Vec::new())));
        }
        assert_eq!((events.take().len(), events.take().len()), (MAX_EVENTS, 0));
    }
}
