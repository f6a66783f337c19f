//! The pool of reused snapshots: a tick fills one that no reader holds, so it never allocates.
//!
//! The rule of reuse: a buffer may be written when its reference count says that the pool alone
//! holds it (`Arc::get_mut`), and it cannot become shared again before it is published, because
//! only the pool could give it away. There is no memory ordering of our own here; it is `Arc`'s.
//!
//! Invariant: the number of buffers stays that of the start, whichever readers hold them. If
//! readers hold all of them, the tick starves and counts it; it never takes one from a reader.

use crate::sync::Arc;

/// Buffers that are published one by one, and are free again when the last reader drops them.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// The buffers; the words of the last one, which came back last, are still in the CPU's cache.
    buffers: Vec<Arc<T>>,
    /// The index at which the next search begins.
    next: usize,
}

impl<T> Pool<T> {
    /// Returns a pool of these buffers.
    pub(crate) fn new(buffers: Vec<Arc<T>>) -> Self {
        Self { buffers, next: 0 }
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

    /// Takes out the next buffer that no reader holds. Each search begins behind the last one, so
    /// that buffers which readers keep for long are not tested again and again.
    fn search(&mut self) -> Option<Arc<T>> {
        for _ in 0..self.buffers.len() {
            let at = self.next % self.buffers.len();
            self.next = at + 1;
            if Arc::get_mut(&mut self.buffers[at]).is_some() {
                return Some(self.buffers.swap_remove(at));
            }
        }
        None
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
