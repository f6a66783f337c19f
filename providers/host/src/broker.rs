//! A thread that does what takes capabilities, for threads that have none.
//!
//! Linux has capabilities per thread, and a thread that is started gets those of the one that
//! starts it. A program that samples, serves and parses what others wrote should do so without any.
//! But it loads BPF programs, starts helper processes and connects to sockets for as long as it
//! runs: whenever a virtual machine comes, or a client asks for something new. A broker does that.
//!
//! Invariant: work runs one piece after the other, on the broker's thread. So it must be short,
//! must wait for no other program, and takes no lock under which another thread calls
//! [`Broker::run`]. Work on a path that another user may have a hand in, which can keep anyone
//! waiting for ever, runs on a thread of its own ([`Broker::run_apart`]). Neither thread is started
//! by a `ThreadStart`: the function of the program would drop what they are there to keep.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, Builder, ThreadId};

use vmstrobe_core::{Error, ErrorKind, Result};

/// A thread with capabilities that its owner gives up, or, by default, no thread at all: then all
/// work is done by the thread that calls. Clones share it; it ends with the last one.
///
/// The program that owns it gives capabilities up; a broker only keeps those that it was started
/// with.
///
/// ```
/// use vmstrobe_host::{Broker, Host};
///
/// let broker = Broker::start()?;
/// // From here on, this thread needs no capabilities: see capset(2).
/// let host = Host::with_broker(broker);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Broker {
    worker: Option<Arc<Worker>>,
}

struct Worker {
    jobs: Sender<Job>,
    thread: ThreadId,
}

type Job = Box<dyn FnOnce() + Send>;

impl Broker {
    /// Starts the thread, `vmstrobe-broker`, with the capabilities of this one.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    pub fn start() -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        // With nothing that runs first: it keeps all that this thread has.
        let thread = Builder::new()
            .name("vmstrobe-broker".to_owned())
            .spawn(move || queue.iter().for_each(|job| job()))
            .map_err(|error| Error::caused(ErrorKind::Io, "cannot start the broker", error))?;
        Ok(Self { worker: Some(Arc::new(Worker { jobs, thread: thread.thread().id() })) })
    }

    /// Does the work on the broker's thread, and returns its result.
    ///
    /// # Panics
    ///
    /// If the work does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // Work that has other work done is on the right thread already.
        let others = self.worker.as_ref().filter(|worker| worker.thread != thread::current().id());
        let Some(worker) = others else { return work() };
        let (answer, answers) = sync_channel::<std::result::Result<T, Box<dyn Any + Send>>>(1);
        let job = move || {
            // The broker outlives work that panics; its caller does not.
            let outcome = catch_unwind(AssertUnwindSafe(work));
            let _ = answer.send(outcome);
        };
        worker.jobs.send(Box::new(job)).expect("the thread ends when the last sender is dropped");
        let outcome = answers.recv().expect("a job sends its outcome, whatever it is");
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Broker {
    /// As [`Broker::run`], but on a thread of its own, `vmstrobe-path`, that has the broker's
    /// rights: only the caller waits for it. For what may wait for another program: a path can lead
    /// into a file system whose server does not answer.
    ///
    /// # Errors
    /// `Io` if the system has no thread for it.
    ///
    /// # Panics
    ///
    /// If the work does.
    pub fn run_apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        if self.worker.is_none() {
            return Ok(work());
        }
        // On the broker, whose capabilities it gets, and keeps.
        let start = || Builder::new().name("vmstrobe-path".to_owned()).spawn(work);
        let thread = self.run(start).map_err(|error| {
            Error::caused(ErrorKind::Io, "cannot start a thread that opens a path", error)
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("has_thread", &self.worker.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn work_is_done_by_one_thread_for_all() {
        let broker = Broker::start().unwrap();
        let here = thread::current().id();
        let there = broker.run(|| thread::current().id());
        assert_ne!(there, here);
        let clone = broker.clone();
        let elsewhere = thread::spawn(move || clone.run(|| thread::current().id()));
        assert_eq!(elsewhere.join().unwrap(), there);
        assert_eq!(Broker::default().run(|| thread::current().id()), here);
        // Its kernel name is by what users recognise it.
        let comm = broker.run(|| fs::read_to_string("/proc/thread-self/comm").unwrap());
        assert_eq!(comm, "vmstrobe-broker\n");
    }

    #[test]
    fn work_may_have_more_work_done() {
        let broker = Broker::start().unwrap();
        let inner = broker.clone();
        assert_eq!(broker.run(move || inner.run(|| 7)), 7);
    }

    #[test]
    fn work_that_waits_keeps_nobody_else() {
        let broker = Broker::start().unwrap();
        let (go, gone) = channel::<()>();
        let theirs = broker.clone();
        let waits = thread::spawn(move || theirs.run_apart(move || gone.recv().is_ok()).unwrap());
        assert_eq!(broker.run(|| 7), 7);
        go.send(()).unwrap();
        assert!(waits.join().unwrap());
        let name = broker.run_apart(|| fs::read_to_string("/proc/thread-self/comm").unwrap());
        assert_eq!(name.unwrap(), "vmstrobe-path\n");
    }

    #[test]
    fn a_panic_is_its_callers() {
        let broker = Broker::start().unwrap();
        let panicking = AssertUnwindSafe(|| broker.run(|| panic!("on purpose")));
        let panic = catch_unwind(panicking).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
        assert_eq!(broker.run(|| 7), 7, "it goes on");
    }

    #[test]
    fn the_thread_ends_with_its_last_clone() {
        let broker = Broker::start().unwrap();
        let task = broker.run(|| fs::read_link("/proc/thread-self").unwrap());
        let task = std::path::Path::new("/proc").join(task);
        drop(broker.clone());
        assert!(task.exists());
        drop(broker);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while task.exists() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            thread::yield_now();
        }
    }
}
