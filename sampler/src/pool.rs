//! The pool of reused snapshots: a tick fills one that no reader holds, so it never allocates.
//!
//! The rule of reuse: a buffer may be written when its reference count says that the pool alone
//! holds it (`Arc::get_mut`), and it cannot become shared again before it is published, because
//! only the pool could give it away. There is no memory ordering of our own here; it is `Arc`'s.
//!
//! Invariant: the number of buffers stays that of the start, whichever readers hold them. If
//! readers hold all of them, the tick starves and counts it; it never takes one from a reader. No
//! more buffers are ever written than readers held at one time, and a few: the memory of the others
//! is never touched.

use crate::sync::Arc;

/// Buffers that are published one by one, and are free again when the last reader drops them.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// The buffers; the words of the last one, which came back last, are still in the CPU's cache.
    buffers: Vec<Arc<T>>,
    /// The number of buffers, from the first on, that were used or found held before.
    used: usize,
    /// The index at which the next search among these begins.
    next: usize,
}

/// The used buffers that are looked at before one that never was is taken.
const NEXT_FEW: usize = 8;

impl<T> Pool<T> {
    /// Returns a pool of these buffers.
    pub(crate) fn new(buffers: Vec<Arc<T>>) -> Self {
        Self { buffers, used: 0, next: 0 }
    }

    /// Calls `fill` with a buffer that no reader holds, and takes that buffer out; `None` if there
    /// is none.
    #[inline]
    pub(crate) fn take(&mut self, fill: impl FnOnce(&mut T)) -> Option<Arc<T>> {
        let mut buffer = self.buffers.pop()?;
        if let Some(free) = Arc::get_mut(&mut buffer) {
            fill(free);
            return Some(buffer);
        }
        self.buffers.push(buffer);
        let mut buffer = self.search()?;
        fill(Arc::get_mut(&mut buffer).expect("a free buffer stays free until it is published"));
        Some(buffer)
    }

    /// Takes out a buffer that no reader holds. One that was used before is in a cache and in
    /// memory; one that never was may be neither. Readers mostly drop buffers in the order in which
    /// they got them, so the next few tell whether a used one is free.
    fn search(&mut self) -> Option<Arc<T>> {
        if let Some(buffer) = self.search_used(NEXT_FEW) {
            return Some(buffer);
        }
        while self.used < self.buffers.len() {
            self.used += 1;
            if let Some(buffer) = self.take_out(self.used - 1) {
                return Some(buffer);
            }
        }
        self.search_used(self.used)
    }

    /// Looks at so many used buffers at most. Each search begins behind the last one, so that
    /// buffers which readers keep for long are not tested again and again.
    fn search_used(&mut self, most: usize) -> Option<Arc<T>> {
        let used = self.used.min(self.buffers.len());
        for _ in 0..most.min(used) {
            let at = self.next % used;
            self.next = at + 1;
            if let Some(buffer) = self.take_out(at) {
                return Some(buffer);
            }
        }
        None
    }

    /// Takes out the buffer at this place, if no reader holds it.
    fn take_out(&mut self, at: usize) -> Option<Arc<T>> {
        Arc::get_mut(&mut self.buffers[at])?;
        Some(self.buffers.swap_remove(at))
    }

    /// Puts a buffer in the place of one that was taken.
    #[inline]
    pub(crate) fn put_back(&mut self, buffer: Arc<T>) {
        self.buffers.push(buffer);
    }

    /// Moves the buffers of another pool into this one. It allocates if there is no room.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        self.buffers.append(&mut other.buffers);
    }

    /// Returns the number of buffers in the pool, held by readers or not.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(len: u64) -> Pool<u64> {
        Pool::new((0..len).map(Arc::new).collect())
    }

    fn publish(pool: &mut Pool<u64>, newest: &mut Arc<u64>, value: u64) -> bool {
        let Some(fresh) = pool.take(|buffer| *buffer = value) else { return false };
        pool.put_back(std::mem::replace(newest, fresh));
        true
    }

    #[test]
    fn without_readers_two_buffers_alternate() {
        let (mut pool, mut newest) = (pool(5), Arc::new(0));
        let mut seen = std::collections::HashSet::new();
        for value in 1..=100 {
            assert!(publish(&mut pool, &mut newest, value));
            assert_eq!(*newest, value);
            seen.insert(Arc::as_ptr(&newest));
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn buffers_that_no_reader_needs_are_never_written() {
        let (mut pool, mut newest) = (pool(100), Arc::new(0));
        let mut held = std::collections::VecDeque::new();
        let mut seen = std::collections::HashSet::new();
        for value in 1..=1000 {
            assert!(publish(&mut pool, &mut newest, value));
            seen.insert(Arc::as_ptr(&newest));
            held.push_back(Arc::clone(&newest));
            // It drains its queue now and then.
            if value % 7 == 0 {
                held.drain(..held.len() - 3);
            }
        }
        assert!((10..=13).contains(&seen.len()), "{}", seen.len());
        for value in 1..=90 {
            assert!(publish(&mut pool, &mut newest, value), "all others are there in need");
            held.push_back(Arc::clone(&newest));
        }
        assert_eq!(pool.len(), 100);
    }

    #[test]
    fn a_held_buffer_is_not_written_and_comes_back() {
        let (mut pool, mut newest) = (pool(3), Arc::new(0));
        let mut held = Vec::new();
        for value in 1..=3 {
            assert!(publish(&mut pool, &mut newest, value));
            held.push(Arc::clone(&newest));
        }
        assert!(publish(&mut pool, &mut newest, 4));
        held.push(Arc::clone(&newest));
        assert!(!publish(&mut pool, &mut newest, 5), "the tick starves while all buffers are held");
        assert_eq!(held.iter().map(|n| **n).collect::<Vec<_>>(), [1, 2, 3, 4]);
        held.remove(1);
        assert!(publish(&mut pool, &mut newest, 5));
        assert_eq!(held.iter().map(|n| **n).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(pool.len(), 3);
    }
}
