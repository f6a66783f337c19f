//! The census of all objects that can be queried, which a thread keeps up to date.
//!
//! Invariant: a thread that has read a generation then gets a census at least as new. No request
//! waits for a look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, ErrorKind, Order, Registry, Result};
use vmstrobe_sampler::{Census, Complaints, look_pause};

/// How often to look for objects that came or went, at most.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The current census of a registry's providers. Dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Inventory {
    registry: Registry,
    current: Arc<Current>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Current {
    census: Mutex<Arc<Census>>,
    generation: AtomicU64,
}

impl Inventory {
    /// Looks, and goes on looking. Errors go to `complain`, each when it was not there a look ago.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn new(
        registry: &Registry,
        order: Order,
        mut complain: impl FnMut(&Error) + Send + 'static,
    ) -> Result<Self> {
        let mut inventory = Self::fixed(registry, order);
        let (stop, stopped) = channel::<()>();
        let (current, registry) = (Arc::clone(&inventory.current), registry.clone());
        let looker = move || {
            let (mut complaints, mut pause) = (Complaints::default(), LOOK_PERIOD);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let begin = Instant::now();
                let (census, errors) = look(&registry, order);
                pause = look_pause(LOOK_PERIOD, begin.elapsed());
                current.replace(census);
                complaints.news(&errors).into_iter().for_each(&mut complain);
            }
        };
        let thread = thread::Builder::new().name("vmstrobe-census".into()).spawn(looker);
        let thread = thread.map_err(|error| {
            Error::caused(ErrorKind::Io, "cannot start the thread that looks for objects", error)
        })?;
        (inventory.stop, inventory.thread) = (Some(stop), Some(thread));
        Ok(inventory)
    }

    /// Looks once.
    pub(super) fn fixed(registry: &Registry, order: Order) -> Self {
        let census = Mutex::new(Arc::new(look(registry, order).0));
        let current = Arc::new(Current { census, generation: AtomicU64::new(0) });
        Self { registry: registry.clone(), current, stop: None, thread: None }
    }

    /// Returns the census of the last look.
    pub(super) fn census(&self) -> Arc<Census> {
        Arc::clone(&self.current.lock())
    }

    /// Moves with every change of the census.
    pub(super) fn generation(&self) -> u64 {
        // Acquire pairs with the Release in `replace`; the census itself comes under its lock.
        self.current.generation.load(Ordering::Acquire)
    }

    /// Returns the registry of the providers that are looked at.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// In the order of which QEMU's is the reverse, or by number.
fn look(registry: &Registry, order: Order) -> (Census, Vec<Error>) {
    let (census, errors) = Census::look(registry);
    match order {
        Order::Schema => (census, errors),
        Order::Qemu => (census.in_order_of_creation(), errors),
    }
}

impl Current {
    fn lock(&self) -> MutexGuard<'_, Arc<Census>> {
        // Replaced in one step: no panic leaves it half changed.
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a census in place of the last, if it is another.
    fn replace(&self, census: Census) {
        if self.lock().is_same(&census) {
            return;
        }
        *self.lock() = Arc::new(census);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Inventory {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only fails if the looker panicked, which it has then said itself.
            let _ = thread.join();
        }
    }
}
