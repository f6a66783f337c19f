//! A vCPU whose thread is asked for in /proc, with what was read last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmstrobe_host::{Polled, PolledWords};

use super::schedstat::WORDS;
use crate::fd::KvmFd;

/// A vCPU of which the poller reads in /proc.
#[derive(Debug)]
pub(super) struct Watched {
    key: u64,
    /// Says whether the vCPU is gone.
    fd: Arc<KvmFd>,
    /// A source reads it. Until then it is not read in /proc.
    is_wanted: AtomicBool,
    words: PolledWords,
}

impl Watched {
    /// Returns a vCPU of which nothing has been read yet.
    pub(super) fn new(key: u64, fd: &Arc<KvmFd>) -> Arc<Self> {
        let (is_wanted, words) = (AtomicBool::new(false), PolledWords::new(WORDS));
        Arc::new(Self { key, fd: Arc::clone(fd), is_wanted, words })
    }

    /// Returns the key of its object.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// Whether a source reads it.
    pub(super) fn is_wanted(&self) -> bool {
        // Relaxed, as where it is set: nothing is read because of it.
        self.is_wanted.load(Ordering::Relaxed)
    }
}

impl Polled for Watched {
    fn words(&self) -> &PolledWords {
        &self.words
    }

    fn is_gone(&self) -> bool {
        self.fd.is_gone()
    }

    #[inline]
    fn want(&self) {
        // Mostly it is, and a load leaves the cache line where it is.
        if !self.is_wanted() {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }
}
