//! A collection of failures, so that one run of a test shows all of them.

use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// The failures of a test so far. The test fails in [`Findings::none`].
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Adds the error, if it is one, under these words.
    pub fn note<T>(&mut self, what: &str, outcome: Result<T, String>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(why) => {
                self.0.push(format!("{what}: {why}"));
                None
            }
        }
    }

    /// Adds these words if the condition does not hold.
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// Adds all findings of another collection, under these words.
    pub fn add(&mut self, what: &str, others: Findings) {
        self.0.extend(others.0.into_iter().map(|why| format!("{what}: {why}")));
    }

    /// Returns true if there is no finding so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if anything was wrong.
    ///
    /// # Panics
    ///
    /// If there are findings: it shows them all.
    #[track_caller]
    pub fn none(self) {
        assert!(self.0.is_empty(), "{} findings:\n  {}", self.0.len(), self.0.join("\n  "));
    }
}

/// Returns true if the condition holds within the limit.
pub fn is_so_within(limit: Duration, so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !so() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
