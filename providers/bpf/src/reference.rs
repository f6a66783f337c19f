//! A guest of our own, which everything is tried on before it is believed: its vCPU has run, and
//! made exits whose number is known.
//!
//! Invariant: nothing of it changes after it was made, so both ways must read the same of it for as
//! long as it is there, which is no longer than the trial.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Result, Target};
use vmstrobe_guest::{Exits, KnownGuest, check_processor};
use vmstrobe_host::Reaper;
use vmstrobe_kvm::{KvmFd, Opener, kvm_get_stats_fd};

use super::slots::Subject;

/// The exits that our guest makes in its only run.
const EXITS: Exits = Exits { outs: 4, halts: 1 };

const WHY: &str = "the self-test of the BPF reader cannot start its small guest";

/// The guest at rest, with its stats fds.
#[derive(Debug)]
pub(super) struct Reference {
    vm: Arc<KvmFd>,
    vcpu: Arc<KvmFd>,
    // Behind its stats fds.
    guest: KnownGuest,
}

impl Reference {
    /// Checks that there can be such a guest on this processor, before anything else is asked for.
    ///
    /// # Errors
    /// `Unsupported` if there can be none.
    pub(super) fn check_processor() -> Result<()> {
        check_processor().map_err(|error| Error::caused(ErrorKind::Unsupported, WHY, error))
    }

    /// Makes the guest and lets it run, for some ms.
    ///
    /// # Errors
    /// `Unsupported` if there is no usable `/dev/kvm`, or the kernel has no stats fds.
    pub(super) fn new() -> Result<Self> {
        let refused = |error| Error::caused(ErrorKind::Unsupported, WHY, error);
        let guest = KnownGuest::new().map_err(refused)?;
        let opener = Opener::new(Reaper::new()?, None);
        let open = |fd: BorrowedFd<'_>, target| {
            let fd = kvm_get_stats_fd(fd)
                .map_err(|error| Error::caused(ErrorKind::Unsupported, WHY, error))?;
            opener.open(fd, target, None).map(Arc::new)
        };
        // Before it runs; later, the kernel might make this wait.
        let vm = open(guest.vm().fd(), Target::Vm)?;
        let vcpu = open(guest.vcpu().fd(), Target::Vcpu)?;
        run(&guest)?;
        Ok(Self { vm, vcpu, guest })
    }

    /// Another such guest, without stats fds, whose vCPU this thread has run.
    ///
    /// # Errors
    /// As [`Reference::new`].
    pub(super) fn run_here() -> Result<KnownGuest> {
        let refused = |error| Error::caused(ErrorKind::Unsupported, WHY, error);
        let guest = KnownGuest::new().map_err(refused)?;
        run(&guest)?;
        Ok(guest)
    }

    /// The stats fd of its VM or vCPU.
    pub(super) fn stats(&self, subject: Subject) -> &Arc<KvmFd> {
        match subject {
            Subject::Vm => &self.vm,
            Subject::Vcpu | Subject::Thread => &self.vcpu,
        }
    }

    /// Returns the stats fd of its VM or vCPU, and the object fd, which is the object's own.
    pub(super) fn files(&self, subject: Subject) -> [BorrowedFd<'_>; 2] {
        let object_fd = match subject {
            Subject::Vm => self.guest.vm().fd(),
            Subject::Vcpu | Subject::Thread => self.guest.vcpu().fd(),
        };
        [self.stats(subject).fd().as_fd(), object_fd]
    }
}

fn run(guest: &KnownGuest) -> Result<()> {
    let seen = guest.run(EXITS.outs as u32, EXITS.halts as u32);
    match seen.map_err(|error| Error::caused(ErrorKind::Unsupported, WHY, error))? {
        EXITS => Ok(()),
        seen => {
            let text = format!("{WHY}: it made {seen:?} instead of {EXITS:?}");
            Err(Error::new(ErrorKind::Unsupported, text))
        }
    }
}
