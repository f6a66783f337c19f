//! Helpers of the tests: the descriptors of a process, listed and taken, and a method of reading
//! many objects in one call that reads none.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Result, Schema, Source, Target};
use vmstrobe_host::{Care, Host, KvmLink, Process};

use crate::{BulkOpener, KvmRows, MakeFallback, NoThreads, ThreadRows, ThreadSources};

/// KVM's descriptors of a process, ascending.
pub fn kvm_links(pid: u32) -> Vec<(RawFd, KvmLink)> {
    let seen = Host::default().look(pid, Care { makers: false, ..Care::FULL }).unwrap();
    seen.kvm.iter().map(|seen| (seen.fd, seen.link)).collect()
}

/// A duplicate of a descriptor of KVM's.
pub fn borrow(process: &Process, fd: RawFd, link: KvmLink) -> OwnedFd {
    Host::default().borrow(process, &[(fd, Some(link))]).unwrap().remove(0).unwrap()
}

/// Reads nothing, and gives this refusal.
#[derive(Debug)]
pub(crate) struct Never(pub(crate) Option<&'static str>);

impl BulkOpener for Never {
    fn refusal(&self) -> Option<String> {
        self.0.map(str::to_owned)
    }

    fn object_schema(&self, _: &Target) -> Result<Arc<Schema>> {
        Err(Error::new(ErrorKind::Unsupported, "never"))
    }

    fn open(&self, _: &KvmRows) -> Result<Option<Vec<Box<dyn Source>>>> {
        Ok(None)
    }

    fn check_threads(&self, _: bool) -> std::result::Result<(), NoThreads> {
        Err(NoThreads::Unwanted)
    }

    fn open_threads(&self, _: &ThreadRows, _: MakeFallback<'_>) -> ThreadSources {
        Err(NoThreads::Unwanted)
    }

    fn status(&self) -> String {
        "never".to_owned()
    }

    fn warnings(&self) -> Vec<Error> {
        Vec::new()
    }
}
