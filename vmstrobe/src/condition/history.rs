//! The values of one statistic over a stretch of time, of all objects that have it.
//!
//! Invariant: memory is bounded, whatever the stretch and the rate: of a stretch, at most
//! [`MAX_ENTRIES`] samples are kept. A value that has been reset since is not among them.

use std::collections::VecDeque;

/// The most samples that are kept of one stretch.
pub(super) const MAX_ENTRIES: u64 = 64;

/// The words of all objects at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) at_ns: u64,
    /// The words of the objects, one after the other.
    words: Vec<u64>,
    /// True for an object that has values here.
    has: Vec<bool>,
}

impl Entry {
    /// Returns the words of an object, if it has values.
    pub(super) fn get(&self, object: usize, width: usize) -> Option<&[u64]> {
        let has = self.has.get(object).copied().unwrap_or(false);
        has.then(|| &self.words[object * width..(object + 1) * width])
    }

    /// Sets or clears the words of the next object.
    fn push(&mut self, words: Option<&[u64]>, width: usize) {
        self.has.push(words.is_some());
        match words {
            Some(words) => self.words.extend_from_slice(words),
            None => self.words.resize(self.words.len() + width, 0),
        }
    }
}

/// The samples of the last stretch.
#[derive(Clone, Debug)]
pub(super) struct History {
    stretch_ns: u64,
    /// The number of words of an object.
    width: usize,
    entries: VecDeque<Entry>,
    newest: Entry,
    /// An entry whose memory is used again.
    spare: Entry,
}

impl History {
    pub(super) fn new(stretch_ns: u64, width: usize) -> Self {
        let (entries, newest, spare) = Default::default();
        Self { stretch_ns, width, entries, newest, spare }
    }

    /// Adds a sample, with the words of every object or `None` where it has no values.
    pub(super) fn push<'a>(
        &mut self,
        at_ns: u64,
        objects: impl Iterator<Item = Option<&'a [u64]>>,
    ) {
        let mut entry = std::mem::take(&mut self.spare);
        entry.at_ns = at_ns;
        entry.words.clear();
        entry.has.clear();
        for words in objects {
            entry.push(words.filter(|words| words.len() == self.width), self.width);
        }
        for object in 0..entry.has.len() {
            let before = self.newest.get(object, self.width).unwrap_or_default();
            let now = entry.get(object, self.width).unwrap_or_default();
            if now.iter().zip(before).any(|(now, before)| now < before) {
                self.forget(object);
            }
        }
        self.spare = std::mem::replace(&mut self.newest, entry);
        let is_due = |last: &Entry| at_ns >= last.at_ns + self.stretch_ns / MAX_ENTRIES;
        if self.entries.back().is_none_or(is_due) {
            self.entries.push_back(self.newest.clone());
        }
        while self.entries.get(1).is_some_and(|second| self.is_old(second)) {
            self.entries.pop_front();
        }
    }

    /// Returns whether an entry is at least the stretch older than the newest.
    fn is_old(&self, entry: &Entry) -> bool {
        entry.at_ns.saturating_add(self.stretch_ns) <= self.newest.at_ns
    }

    /// Returns the newest sample, and the newest that is at least the stretch older.
    pub(super) fn ends(&self) -> (Option<&Entry>, &Entry) {
        let is_old = |entry: &&Entry| self.is_old(entry);
        (self.entries.front().filter(is_old), &self.newest)
    }

    /// Gives the objects new places: `former` has the former place of each.
    pub(super) fn rearrange(&mut self, former: &[Option<usize>]) {
        for entry in self.entries.iter_mut().chain([&mut self.newest]) {
            let mut moved = Entry { at_ns: entry.at_ns, ..Entry::default() };
            for former in former {
                let words = former.and_then(|object| entry.get(object, self.width));
                moved.push(words, self.width);
            }
            *entry = moved;
        }
    }

    fn forget(&mut self, object: usize) {
        for entry in &mut self.entries {
            if let Some(has) = entry.has.get_mut(object) {
                *has = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(history: &mut History, at_ns: u64, words: &[Option<u64>]) {
        history.push(at_ns, words.iter().map(|word| word.as_ref().map(std::slice::from_ref)));
    }

    /// The age of the older end, and how much object 0 has grown since.
    fn growth(history: &History) -> Option<(u64, u64)> {
        let (old, new) = history.ends();
        let old = old?;
        Some((new.at_ns - old.at_ns, new.get(0, 1)?[0] - old.get(0, 1)?[0]))
    }

    #[test]
    fn the_older_end_is_at_least_the_stretch_older() {
        let mut history = History::new(1000, 1);
        push(&mut history, 0, &[Some(0)]);
        assert_eq!(growth(&history), None);
        push(&mut history, 900, &[Some(9)]);
        assert_eq!(growth(&history), None);
        // A late tick, and the one behind it that comes early.
        push(&mut history, 1950, &[Some(19)]);
        assert_eq!(growth(&history), Some((1050, 10)));
        push(&mut history, 2000, &[Some(20)]);
        assert_eq!(growth(&history), Some((1100, 11)));
        // A gap is a long stretch, not a rate of something else.
        push(&mut history, 9000, &[Some(21)]);
        assert_eq!(growth(&history), Some((7000, 1)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::new(1000, 1);
        for at_ns in 0..10_000 {
            push(&mut history, at_ns, &[Some(at_ns)]);
            assert!(history.entries.len() as u64 <= MAX_ENTRIES + 4, "{}", history.entries.len());
        }
        let (age, grown) = growth(&history).expect("the stretch is covered");
        assert!((1000..1000 + 2 * 1000 / MAX_ENTRIES).contains(&age) && grown == age, "{age}");
    }

    #[test]
    fn a_reset_hides_what_was_before_it() {
        let mut history = History::new(100, 1);
        push(&mut history, 0, &[Some(50), Some(1)]);
        push(&mut history, 50, &[Some(10), Some(1)]);
        // Larger than before the reset, but that says nothing.
        push(&mut history, 100, &[Some(70), Some(1)]);
        assert_eq!(growth(&history), None);
        assert!(history.ends().0.is_some_and(|old| old.get(1, 1).is_some()));
        push(&mut history, 150, &[Some(80), Some(1)]);
        assert_eq!(growth(&history), Some((100, 70)));
    }

    #[test]
    fn objects_keep_their_values_when_they_move() {
        let mut history = History::new(100, 1);
        push(&mut history, 0, &[Some(1), Some(20)]);
        history.rearrange(&[Some(1), None, Some(0)]);
        push(&mut history, 100, &[Some(25), Some(7), None]);
        assert_eq!(growth(&history), Some((100, 5)));
        let (old, new) = history.ends();
        assert_eq!(old.and_then(|old| old.get(1, 1)), None);
        assert_eq!((new.get(1, 1), new.get(2, 1), new.get(3, 1)), (Some(&[7][..]), None, None));
    }
}
