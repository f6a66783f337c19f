//! The start of a library's threads: each first runs a function that the program gave.
//!
//! A program may want every thread to drop its capabilities, to stay on some CPUs or to run at a
//! real-time priority. A crate that starts threads takes a [`ThreadStart`] and starts them through
//! it. Nothing is global: two parts of a program can use two of them.
//!
//! Invariant: a thread's body runs only after the function has returned `Ok` on that thread, and
//! the caller of [`ThreadStart::spawn`] goes on only after that. If the function fails, no body
//! runs, the thread has ended, and the caller has the error.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, Builder, JoinHandle};

use crate::{Error, ErrorKind, Result};

/// A function that each new thread runs first; by default none. Clones share it.
///
/// ```
/// use vmstrobe_core::{Error, ErrorKind, ThreadStart};
///
/// // Such a function drops capabilities or chooses a CPU; this one does nothing.
/// let threads = ThreadStart::new(|| Ok(()));
/// let thread = threads.spawn("vmstrobe-sum", || 1 + 2)?;
/// assert_eq!(thread.join().expect("adding does not panic"), 3);
///
/// let threads = ThreadStart::new(|| Err(Error::new(ErrorKind::Denied, "not allowed")));
/// let error = threads.spawn("vmstrobe-sum", || 1 + 2).expect_err("the function fails");
/// assert_eq!(error.kind(), ErrorKind::Denied);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ThreadStart {
    on_start: Option<Arc<OnStart>>,
}

type OnStart = dyn Fn() -> Result<()> + Send + Sync;

/// A thread that was started by [`ThreadStart::spawn`]. Dropping it leaves the thread running.
#[derive(Debug)]
pub struct Thread<T> {
    /// The thread returns `None` if its body did not run; then nobody gets this handle.
    handle: JoinHandle<Option<T>>,
}

impl ThreadStart {
    /// Returns a value with which each thread runs `on_start` before its body.
    pub fn new(on_start: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self { on_start: Some(Arc::new(on_start)) }
    }

    /// Starts a thread of this name, of which Linux shows 15 bytes, and waits until it is set up.
    ///
    /// # Errors
    /// `Io` if the system has no thread, or the function panics; else the function's own error.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Thread<T>> {
        self.spawn_by(Builder::new(), name, body)
    }

    /// Starts a thread as [`ThreadStart::spawn`] does, by a builder that has other settings, such
    /// as the size of the stack.
    ///
    /// # Errors
    /// As [`ThreadStart::spawn`].
    pub fn spawn_by<T: Send + 'static>(
        &self,
        builder: Builder,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Thread<T>> {
        let (outcome, outcomes) = sync_channel(1);
        let on_start = self.on_start.clone();
        let run = move || {
            let set_up = on_start.map_or(Ok(()), |on_start| on_start());
            let is_set_up = set_up.is_ok();
            // The channel has room for it, and the other end waits: it cannot fail.
            let _ = outcome.send(set_up);
            is_set_up.then(body)
        };
        let handle = builder.name(name.to_owned()).spawn(run).map_err(|error| {
            Error::caused(ErrorKind::Io, format!("cannot start the thread {name}"), error)
        })?;
        let panicked = || {
            let text = format!("cannot start the thread {name}: the function run first panicked");
            Err(Error::new(ErrorKind::Io, text))
        };
        match outcomes.recv().unwrap_or_else(|_| panicked()) {
            Ok(()) => Ok(Thread { handle }),
            Err(error) => {
                // It runs nothing more; a panic of the function is in the error already.
                let _ = handle.join();
                Err(error)
            }
        }
    }
}

impl<T> Thread<T> {
    /// Waits for the thread's end and returns the result of its body.
    ///
    /// # Errors
    /// The panic of the body.
    pub fn join(self) -> thread::Result<T> {
        self.handle.join().map(|result| result.expect("the handle is of a thread that was set up"))
    }

    /// Returns true once the body has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Returns the standard library's handle, which has the thread's id.
    pub fn thread(&self) -> &thread::Thread {
        self.handle.thread()
    }
}

impl fmt::Debug for ThreadStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadStart").field("has_function", &self.on_start.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_function_runs_on_the_new_thread_before_the_starter_goes_on() {
        let ran_on = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&ran_on);
        let threads = ThreadStart::new(move || {
            *noted.lock().unwrap() = Some(thread::current().id());
            Ok(())
        });
        let body = || thread::current().name().map(str::to_owned);
        let thread = threads.clone().spawn("vmstrobe-test", body).unwrap();
        assert_eq!(*ran_on.lock().unwrap(), Some(thread.thread().id()));
        assert_eq!(thread.join().unwrap().as_deref(), Some("vmstrobe-test"));
    }

    #[test]
    fn a_body_does_not_run_if_the_function_fails_or_panics() {
        let fails = || Err(Error::new(ErrorKind::Denied, "the function failed"));
        let panics = || std::panic::resume_unwind(Box::new("on purpose"));
        for (threads, kind, text) in [
            (ThreadStart::new(fails), ErrorKind::Denied, "the function failed"),
            (ThreadStart::new(panics), ErrorKind::Io, "the function run first panicked"),
        ] {
            let ran = Arc::new(AtomicBool::new(false));
            let of_body = Arc::clone(&ran);
            let body = move || of_body.store(true, Ordering::SeqCst);
            let error = threads.spawn("vmstrobe-test", body).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(text), "{error}");
            assert!(!ran.load(Ordering::SeqCst), "the thread has ended, so this is final");
        }
    }

    #[test]
    fn a_panic_of_the_body_is_returned_by_join() {
        let body = || std::panic::resume_unwind(Box::new("on purpose"));
        let thread = ThreadStart::default().spawn::<()>("vmstrobe-test", body).unwrap();
        let panic = thread.join().unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    }
}
