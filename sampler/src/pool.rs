//! The pool of reused snapshots: a tick fills one that nobody else holds, so it never allocates.
//!
//! The rule of reuse: a buffer may be written when its reference count says that the pool alone
//! holds it (`Arc::get_mut`), and it cannot become shared again before it is published, because
//! only the pool could give it away. There is no memory ordering of our own here; it is `Arc`'s.
//!
//! Invariant: as many buffers as at the start, whoever holds them. If readers hold all of them the
//! tick starves, and says so; it never takes one from a reader.

use crate::sync::Arc;

/// Buffers that are published one by one and come back when the last reader lets go.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    buffers: Vec<Arc<T>>,
    /// The buffer that was published last, whose words are still in the CPU's cache.
    recent: usize,
    /// Where the search goes on: the buffer that has rested longest.
    next: usize,
}

impl<T> Pool<T> {
    /// A pool of these buffers.
    pub(crate) fn new(buffers: Vec<Arc<T>>) -> Self {
        Self { buffers, recent: 0, next: 0 }
    }

    /// The place of a buffer that nobody else holds, if there is one.
    pub(crate) fn free(&mut self) -> Option<usize> {
        if self.is_free(self.recent) {
            return Some(self.recent);
        }
        for _ in 0..self.buffers.len() {
            let at = self.next;
            self.next = (at + 1) % self.buffers.len();
            if self.is_free(at) {
                return Some(at);
            }
        }
        None
    }

    fn is_free(&mut self, at: usize) -> bool {
        self.buffers.get_mut(at).is_some_and(|buffer| Arc::get_mut(buffer).is_some())
    }

    /// The free buffer at `at`, to be filled.
    pub(crate) fn fill(&mut self, at: usize) -> &mut T {
        Arc::get_mut(&mut self.buffers[at]).expect("a free buffer stays free until it is published")
    }

    /// Another hold on the buffer at `at`, to be published.
    pub(crate) fn share(&self, at: usize) -> Arc<T> {
        Arc::clone(&self.buffers[at])
    }

    /// Puts the buffer that was published before in the place of the one that is published now,
    /// and gives the pool's hold on that one back, so that its readers' are the only ones.
    pub(crate) fn put_back(&mut self, at: usize, before: Arc<T>) -> Arc<T> {
        self.recent = at;
        std::mem::replace(&mut self.buffers[at], before)
    }

    /// Moves the buffers of another pool into this one. It allocates unless there is room.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        self.buffers.append(&mut other.buffers);
    }

    /// Gives up the pool's hold on the buffer at `at`, which has been published for good.
    pub(crate) fn forget(&mut self, at: usize) {
        self.buffers.swap_remove(at);
        self.next = 0;
    }

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
        let Some(at) = pool.free() else { return false };
        *pool.fill(at) = value;
        let before = std::mem::replace(newest, pool.share(at));
        drop(pool.put_back(at, before));
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
    fn what_a_reader_holds_is_not_written_and_comes_back() {
        let (mut pool, mut newest) = (pool(3), Arc::new(0));
        let mut held = Vec::new();
        for value in 1..=3 {
            assert!(publish(&mut pool, &mut newest, value));
            held.push(Arc::clone(&newest));
        }
        assert!(publish(&mut pool, &mut newest, 4));
        held.push(Arc::clone(&newest));
        assert!(!publish(&mut pool, &mut newest, 5), "all are held: it starves");
        assert_eq!(held.iter().map(|n| **n).collect::<Vec<_>>(), [1, 2, 3, 4]);
        held.remove(1);
        assert!(publish(&mut pool, &mut newest, 5));
        assert_eq!(held.iter().map(|n| **n).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(pool.len(), 3);
    }
}
