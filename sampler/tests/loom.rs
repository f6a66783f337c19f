//! The pool's rule of reuse under the model checker: the pool's own file, with loom's reference
//! count in the place of std's. `ci/loom.sh` runs it; an ordinary build does not contain it.

#![cfg(loom)]

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;

use crate::pool::Pool;
use crate::sync::Arc;

mod sync {
    //! Takes the place of `sampler/src/sync.rs`.
    pub(crate) use loom::sync::Arc;
}

#[allow(dead_code, reason = "the model does what a tick does, not what a change of roster does")]
#[path = "../src/pool.rs"]
mod pool;

/// Publishes twice while a reader holds a buffer: the two words of that buffer do not change. The
/// mutex is in the place of arc-swap.
#[test]
fn loom_pool_never_writes_what_a_reader_holds() {
    loom::model(|| {
        let buffer = |n: u64| Arc::new([AtomicU64::new(n), AtomicU64::new(n)]);
        let newest = Arc::new(Mutex::new(buffer(0)));
        let reader = {
            let newest = Arc::clone(&newest);
            thread::spawn(move || {
                let held = Arc::clone(&*newest.lock().expect("no thread panics with the lock"));
                let first = held[0].load(Relaxed);
                let second = held[1].load(Relaxed);
                assert_eq!(first, second, "the buffer was written while a reader held it");
            })
        };
        let mut pool = Pool::new(vec![buffer(100)]);
        for n in 1..=2 {
            let fill = |words: &mut [AtomicU64; 2]| words.iter().for_each(|w| w.store(n, Relaxed));
            let Some(fresh) = pool.take(fill) else { continue };
            let before = {
                let mut newest = newest.lock().expect("no thread panics with the lock");
                std::mem::replace(&mut *newest, fresh)
            };
            pool.put_back(before);
        }
        reader.join().expect("the reader does not panic");
    });
}
