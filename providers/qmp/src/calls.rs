//! Calls for values that are newer than the call ([`Calls`]): from callers to the poller, and back.
//!
//! A call is numbered when it is made. The poller notes the last number before it asks QEMU, and
//! with the answer it answers all calls up to that one: so many callers share one query, and a call
//! made while QEMU is being asked waits for the next. A call rings a bell, which ends the poller's
//! rest.
//!
//! Invariant: a call is answered only by what was asked after it was made. It ends by itself at its
//! limit, and leaves nothing behind. The poller takes the bell's ring before it looks for calls, so
//! that none is overlooked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};
use vmstrobe_core::{Error, ErrorKind, Result, Target};

use super::ask::{Asked, Fault};
use super::message::Refusal;

/// The calls of one QEMU's provider.
#[derive(Debug)]
pub(super) struct Calls {
    bell: OwnedFd,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// False while there is nobody to be asked.
    is_open: bool,
    /// The number of calls that were made.
    made: u64,
    /// The calls that wait, or have not seen their answer yet, in the order in which they were
    /// made: one for each waiting thread.
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    number: u64,
    target: Target,
    /// `None` while it waits.
    answer: Option<Answer>,
}

/// The answer to a call: the values are there, or QEMU will not say.
pub(super) type Answer = std::result::Result<(), Refusal>;

impl Calls {
    /// Open to nobody yet.
    ///
    /// # Errors
    /// `Io` if the system has no fd for the bell.
    pub(super) fn new() -> Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::caused(ErrorKind::Io, "cannot make an eventfd", errno))?;
        Ok(Self { bell, state: Mutex::default(), answered: Condvar::new() })
    }

    /// Waits until values of that target are there that were asked for after this call; does
    /// nothing while nobody can be asked.
    ///
    /// # Errors
    /// `Late` after that time, `Refused` if QEMU will not say.
    pub(super) fn call(&self, target: &Target, limit: Duration) -> Asked<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        if !state.is_open {
            return Ok(());
        }
        state.made += 1;
        let number = state.made;
        state.calls.push(Call { number, target: target.clone(), answer: None });
        self.ring();
        loop {
            let at = state.calls.iter().position(|call| call.number == number);
            let at = at.expect("only its caller takes a call out");
            let left = deadline.saturating_duration_since(Instant::now());
            if state.calls[at].answer.is_some() || left.is_zero() {
                let answer = state.calls.remove(at).answer;
                return answer.map_or(Err(Fault::Late), |answer| answer.map_err(Fault::Refused));
            }
            let waited = self.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the descriptor that is readable when there are new calls. For the poller.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Takes the bell's ring: whether it was rung since the last time. For the poller.
    pub(super) fn is_rung(&self) -> bool {
        // An eventfd's count, which reading sets back.
        read(&self.bell, &mut [0; 8]).is_ok()
    }

    /// Whether anything is wanted. For the poller.
    pub(super) fn is_any_waiting(&self) -> bool {
        self.state().calls.iter().any(|call| call.answer.is_none())
    }

    /// Returns the targets that are waited for, each once, the longest waiting first. For the
    /// poller.
    pub(super) fn wanted(&self) -> Vec<Target> {
        let mut wanted = Vec::new();
        for call in self.state().calls.iter().filter(|call| call.answer.is_none()) {
            if !wanted.contains(&call.target) {
                wanted.push(call.target.clone());
            }
        }
        wanted
    }

    /// Returns the number of the last call, up to which a query from now on answers. For the
    /// poller.
    pub(super) fn last(&self) -> u64 {
        self.state().made
    }

    /// Whether a call up to that number is to be answered. For the poller.
    pub(super) fn is_waited_for(&self, target: &Target, last: u64) -> bool {
        self.state().calls.iter().any(|call| call.waits_for(target, last))
    }

    /// Answers the calls up to that number. For the poller.
    pub(super) fn answer(&self, target: &Target, last: u64, answer: &Answer) {
        let mut state = self.state();
        for call in state.calls.iter_mut().filter(|call| call.waits_for(target, last)) {
            call.answer = Some(answer.clone());
        }
        drop(state);
        self.answered.notify_all();
    }

    /// Sets whether anybody can be asked; if not, all waits end. For the poller.
    pub(super) fn set_open(&self, is_open: bool) {
        let mut state = self.state();
        state.is_open = is_open;
        if !is_open {
            state.calls.iter_mut().for_each(|call| call.answer = Some(Ok(())));
            drop(state);
            self.answered.notify_all();
        }
    }

    fn ring(&self) {
        // Fails only when the count is full, and then it is readable as it is.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step: no panic leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    fn waits_for(&self, target: &Target, last: u64) -> bool {
        self.answer.is_none() && self.number <= last && self.target == *target
    }
}

#[cfg(test)]
mod tests;
