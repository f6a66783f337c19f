//! The catalog of all objects that can be queried, which a thread keeps up to date.
//!
//! Invariant: a thread that has read a generation gets a catalog at least as new afterwards. No
//! request waits until objects have been looked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, Order, Registry, Result, Thread, ThreadStart};
use vmstrobe_sampler::{Catalog, ErrorDedup, look_pause};

/// The shortest time between two looks for new and ended objects.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The current catalog of a registry's providers. Dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Inventory {
    registry: Registry,
    current: Arc<Current>,
    stop: Option<Sender<()>>,
    thread: Option<Thread<()>>,
}

#[derive(Debug)]
struct Current {
    catalog: Mutex<Arc<Catalog>>,
    generation: AtomicU64,
}

impl Inventory {
    /// Looks for objects now and periodically. `complain` gets each error that the previous look
    /// did not have.
    ///
    /// # Errors
    /// `Io` if no thread can be started.
    pub(super) fn new(
        registry: &Registry,
        order: Order,
        threads: &ThreadStart,
        mut complain: impl FnMut(&Error) + Send + 'static,
    ) -> Result<Self> {
        let mut inventory = Self::fixed(registry, order);
        let (stop, stopped) = channel::<()>();
        let (current, registry) = (Arc::clone(&inventory.current), registry.clone());
        let looker = move || {
            let (mut dedup, mut pause) = (ErrorDedup::default(), LOOK_PERIOD);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let begin = Instant::now();
                let (catalog, errors) = look(&registry, order);
                pause = look_pause(LOOK_PERIOD, begin.elapsed());
                current.replace(catalog);
                dedup.fresh(&errors).into_iter().for_each(&mut complain);
            }
        };
        let thread = threads.spawn("vmstrobe-lookup", looker)?;
        (inventory.stop, inventory.thread) = (Some(stop), Some(thread));
        Ok(inventory)
    }

    /// Looks for objects once.
    pub(super) fn fixed(registry: &Registry, order: Order) -> Self {
        let catalog = Mutex::new(Arc::new(look(registry, order).0));
        let current = Arc::new(Current { catalog, generation: AtomicU64::new(0) });
        Self { registry: registry.clone(), current, stop: None, thread: None }
    }

    /// Returns the catalog of the last look.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.lock())
    }

    /// Returns a number that grows with every change of the catalog.
    pub(super) fn generation(&self) -> u64 {
        // Acquire pairs with the Release in `replace`. The catalog itself is behind its lock.
        self.current.generation.load(Ordering::Acquire)
    }

    /// Returns the registry of the providers that are looked at.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Looks for objects. For QEMU's order the objects are in order of creation, which is the reverse
/// of QEMU's, else in order of their numbers.
fn look(registry: &Registry, order: Order) -> (Catalog, Vec<Error>) {
    let (catalog, errors) = Catalog::look(registry);
    match order {
        Order::Schema => (catalog, errors),
        Order::Qemu => (catalog.in_order_of_creation(), errors),
    }
}

impl Current {
    fn lock(&self) -> MutexGuard<'_, Arc<Catalog>> {
        // The catalog is replaced in one step, so a panic cannot leave it half changed.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the catalog, if it has changed.
    fn replace(&self, catalog: Catalog) {
        if self.lock().is_same(&catalog) {
            return;
        }
        *self.lock() = Arc::new(catalog);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Inventory {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The join fails only after a panic of the thread, which has printed its own message.
            let _ = thread.join();
        }
    }
}
