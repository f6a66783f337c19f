//! One object's values, from QEMU's answer to the tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmstrobe_host::{Polled, PolledWords};

/// The values of one object in QEMU's last answer.
#[derive(Debug)]
pub(super) struct Block {
    words: PolledWords,
    is_gone: AtomicBool,
}

impl Block {
    /// Makes a block of so many words, of which nothing is known yet.
    pub(super) fn new(words: usize) -> Arc<Self> {
        Arc::new(Self { words: PolledWords::new(words), is_gone: AtomicBool::new(false) })
    }

    /// Marks the object as gone: QEMU has it no more, or nobody can say. For the poller.
    pub(super) fn retire(&self) {
        // Relaxed: a flag that is seen one tick late costs one tick.
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

impl Polled for Block {
    fn words(&self) -> &PolledWords {
        &self.words
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}
