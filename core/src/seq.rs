//! The sequence lock: one writer changes a group of words, and a reader gets either all words of
//! one change or an error.
//!
//! ```text
//! writer                              reader
//!   seq := odd      (relaxed)           before := seq   (relaxed)   odd: try again
//!   fence Release   ── W1               fence Acquire   ── R1
//!   words           (relaxed)           words           (relaxed)
//!   seq := even     (release) ── W2     fence Acquire   ── R2
//!                                       after := seq    (relaxed)   differs: try again
//! ```
//!
//! W2 pairs with R1: a reader that sees the even number sees all words written before it. W1 pairs
//! with R2: a reader that saw any word of a later change also sees that change's odd number. All
//! words are atomics, so a torn group is discarded and is never undefined behaviour. The reader
//! only loads, so the words may lie in memory that it cannot write.
//!
//! Invariant: there is one writer at a time. A reader never waits, because the number of its
//! attempts is bounded.

pub use crate::sync::AtomicU64;
use crate::sync::{Ordering, fence};

/// The error of a reading: the group kept changing, or a writer stopped in the middle of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// Changes a group of words; `change` stores them, relaxed. Only one writer may do so at a time.
#[inline]
pub fn write(seq: &AtomicU64, change: impl FnOnce()) {
    // Only the writer stores `seq`, so its own relaxed load is the newest value. An odd value is
    // left by a writer that died half-way: the group is rewritten from there.
    let odd = seq.load(Ordering::Relaxed) | 1;
    seq.store(odd, Ordering::Relaxed);
    fence(Ordering::Release); // W1, pairs with R2
    change();
    seq.store(odd.wrapping_add(1), Ordering::Release); // W2, pairs with R1
}

/// Copies a group of words of one change, in at most `tries` attempts. `copy` loads them, relaxed.
///
/// On success, all words that the last `copy` loaded belong to one change. On [`Torn`] they mean
/// nothing.
///
/// # Errors
/// [`Torn`] if every attempt met a writer.
#[inline]
pub fn read(seq: &AtomicU64, tries: u32, mut copy: impl FnMut()) -> Result<(), Torn> {
    for _ in 0..tries {
        let before = seq.load(Ordering::Relaxed);
        if before & 1 == 1 {
            std::hint::spin_loop();
            continue;
        }
        fence(Ordering::Acquire); // R1, pairs with W2
        copy();
        if is_still(seq, before) {
            return Ok(());
        }
    }
    Err(Torn)
}

/// Returns whether a word still has the value that it had before other words were loaded. If so,
/// none of those words belongs to a change that began by changing this word before W1.
#[inline]
pub fn is_still(word: &AtomicU64, before: u64) -> bool {
    fence(Ordering::Acquire); // R2, pairs with W1
    word.load(Ordering::Relaxed) == before
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn copy(words: &[AtomicU64], out: &mut [u64]) {
        out.iter_mut().zip(words).for_each(|(out, word)| *out = word.load(Ordering::Relaxed));
    }

    #[test]
    fn a_reader_gives_up_when_a_writer_died() {
        let seq = AtomicU64::new(7);
        let words = [AtomicU64::new(1)];
        assert_eq!(read(&seq, 100, || ()), Err(Torn));
        write(&seq, || words[0].store(2, Ordering::Relaxed));
        let mut out = [0];
        assert_eq!(read(&seq, 1, || copy(&words, &mut out)), Ok(()));
        assert_eq!(out, [2]);
        assert_eq!(seq.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn the_number_wraps_around() {
        let seq = AtomicU64::new(u64::MAX - 1);
        write(&seq, || ());
        assert_eq!(seq.load(Ordering::Relaxed), 0);
    }

    /// Four words always hold the same number, while a writer makes two million changes.
    #[test]
    fn a_group_is_never_seen_torn() {
        let seq = AtomicU64::new(0);
        let words = [const { AtomicU64::new(0) }; 4];
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=2_000_000 {
                    write(&seq, || words.iter().for_each(|w| w.store(n, Ordering::Relaxed)));
                }
                done.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let mut out = [0; 4];
                if read(&seq, 16, || copy(&words, &mut out)).is_ok() {
                    assert!(out.iter().all(|&n| n == out[0]), "torn: {out:?}");
                    assert!(out[0] >= last, "went back from {last} to {}", out[0]);
                    last = out[0];
                }
            }
        });
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn copy(words: &[AtomicU64; 2], out: &mut [u64; 2]) {
        out.iter_mut().zip(words).for_each(|(out, word)| *out = word.load(Ordering::Relaxed));
    }

    /// Two words with one sequence number. Loom does not let a thread that spawned another fall
    /// behind its own first load, so both sides get threads of their own.
    fn model(changes: u64, reader: fn(&AtomicU64, &[AtomicU64; 2])) {
        loom::model(move || {
            let group = Arc::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]));
            let theirs = Arc::clone(&group);
            let writer = thread::spawn(move || {
                let (seq, words) = &*theirs;
                for n in 1..=changes {
                    write(seq, || words.iter().for_each(|word| word.store(n, Ordering::Relaxed)));
                }
            });
            let reader = thread::spawn(move || reader(&group.0, &group.1));
            writer.join().expect("the writer makes no assertion");
            reader.join().expect("every assertion of the reader holds");
        });
    }

    /// Checks every interleaving and every allowed reordering of a change and a reading.
    #[test]
    fn loom_seq_is_whole_or_torn() {
        model(2, |seq, words| {
            let mut out = [0; 2];
            if read(seq, 1, || copy(words, &mut out)).is_ok() {
                assert_eq!(out[0], out[1], "torn");
            }
        });
    }

    /// Memory gets a new owner: the number of the old owner is cleared first, then the words of the
    /// new owner are written in a change. A reader that still finds the number of the old owner
    /// after loading the words has loaded only words of the old owner.
    #[test]
    fn loom_seq_memory_changes_hands() {
        loom::model(|| {
            let word = || AtomicU64::new(1);
            let shared = Arc::new((AtomicU64::new(0), word(), [word(), word()]));
            let theirs = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                let (seq, owner, words) = &*theirs;
                owner.store(0, Ordering::Relaxed);
                write(seq, || {
                    owner.store(2, Ordering::Relaxed);
                    words.iter().for_each(|word| word.store(2, Ordering::Relaxed));
                });
            });
            let reader = thread::spawn(move || {
                let (_, owner, words) = &*shared;
                let mut out = [0; 2];
                copy(words, &mut out);
                if is_still(owner, 1) {
                    assert_eq!(out, [1, 1], "another owner's");
                }
            });
            writer.join().expect("the writer makes no assertion");
            reader.join().expect("every assertion of the reader holds");
        });
    }

    /// A reader that sees the even number after a change sees the change: W2 and R1 ensure that.
    #[test]
    fn loom_seq_number_brings_its_words() {
        model(1, |seq, words| {
            let seen = seq.load(Ordering::Relaxed);
            let mut out = [0; 2];
            if read(seq, 1, || copy(words, &mut out)).is_ok() && seen == 2 {
                assert_eq!(out, [1, 1], "the number came without its words");
            }
        });
    }
}
