//! The samples of a replay, shown to sources that copy from the newest: each object of the
//! recording has a place that never changes, whatever objects come and go.
//!
//! Invariant: an object that the newest sample lacks is marked gone, never shown with old values.
//! Memory is bounded, whatever a recording claims. A reader that lets go of a sample frees nothing:
//! the samples that readers may hold are dropped here.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{
    Error as CoreError, ErrorKind, Layout, Object, ReadPlan, RowState, Schema, Snapshot,
};
use vmstrobe_sampler::{Latest, MAX_OBJECTS, Publisher};

use crate::error::Result;

/// The most words of all places: 64 MiB a sample.
const MAX_WORDS: usize = 8 << 20;

/// The newest sample, and what is known of the recording so far. Shared by the thread that reads
/// the recording and those that ask.
#[derive(Debug)]
pub(super) struct Shown {
    publisher: Publisher,
    places: Mutex<Places>,
    /// True once the recording has ended.
    pub(super) is_over: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Places {
    /// The object at each place. Objects of one path have one key.
    objects: Vec<Object>,
    by_key: HashMap<u64, Vec<usize>>,
    /// The places of the objects in the newest sample, in its order.
    present: Vec<usize>,
    /// Samples that readers may still hold.
    retired: Vec<Arc<Snapshot>>,
}

/// Shows samples, one after the other.
#[derive(Debug)]
pub(super) struct Stage {
    path: PathBuf,
    shown: Arc<Shown>,
    /// The plan and the object at each place.
    parts: Vec<(Arc<ReadPlan>, Object)>,
    known: HashMap<(Box<str>, u64), Vec<usize>>,
    keys: HashMap<Box<str>, u64>,
    /// A group for each place, so that further ones do not move the others.
    layout: Arc<Layout>,
    /// The recorded layout, and the place of each of its rows.
    recorded: Option<(u64, Vec<usize>)>,
}

impl Shown {
    fn new() -> Self {
        let nothing = Snapshot::new(&Layout::new(0, Vec::new()));
        Self {
            publisher: Publisher::new(Arc::new(nothing)),
            places: Mutex::default(),
            is_over: Arc::default(),
        }
    }

    /// Returns a handle to the newest sample, in which the objects are at their places.
    pub(super) fn latest(&self) -> Latest {
        self.publisher.latest()
    }

    /// Returns the objects of the newest sample.
    pub(super) fn objects(&self) -> Vec<Object> {
        let places = self.lock();
        places.present.iter().map(|&place| places.objects[place].clone()).collect()
    }

    /// Returns the place of the object with that key that has statistics of a schema.
    pub(super) fn place(&self, key: u64, schema: &Schema) -> Option<usize> {
        let places = self.lock();
        let mut own = places.by_key.get(&key)?.iter().copied();
        own.find(|&place| *places.objects[place].schema == *schema)
    }

    /// Notes that no more samples come.
    pub(super) fn end(&self) {
        // Relaxed: it orders nothing, because notices are behind a lock.
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Lists that are replaced as a whole: no panic leaves them half changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            shown: Arc::new(Shown::new()),
            parts: Vec::new(),
            known: HashMap::new(),
            keys: HashMap::new(),
            layout: Layout::new(0, Vec::new()),
            recorded: None,
        }
    }

    pub(super) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// Shows a sample as the newest.
    ///
    /// # Errors
    /// `TooLarge` if the recording has more objects than are kept apart.
    pub(super) fn show(&mut self, sample: &Snapshot) -> Result<()> {
        let generation = sample.layout().generation();
        if self.recorded.as_ref().is_none_or(|(known, _)| *known != generation) {
            let places = self.enrol(sample.layout())?;
            self.recorded = Some((generation, places));
        }
        let (_, of_rows) = self.recorded.as_ref().expect("the layout was enrolled");
        let mut frame = Snapshot::new(&self.layout);
        let (words, states) = frame.begin(sample.tick());
        states.fill(RowState::Gone);
        for (view, &place) in sample.objects().zip(of_rows) {
            let first = self.layout.groups()[place].first_word;
            words[first..][..view.words().len()].copy_from_slice(view.words());
            states[place] = view.state();
        }
        frame.stamp(sample.window());
        let before = self.shown.publisher.swap(Arc::new(frame));
        let mut places = self.shown.lock();
        places.retired.push(before);
        // The newest is not among them: nobody gets a handle to one that has one left.
        places.retired.retain(|sample| Arc::strong_count(sample) > 1);
        if places.present != *of_rows {
            let known = places.objects.len();
            for (place, (_, object)) in self.parts.iter().enumerate().skip(known) {
                places.by_key.entry(object.key).or_default().push(place);
                places.objects.push(object.clone());
            }
            places.present.clone_from(of_rows);
        }
        Ok(())
    }

    /// Finds the places of a recorded layout's rows, and makes those that are missing.
    fn enrol(&mut self, recorded: &Layout) -> Result<Vec<usize>> {
        let before = self.parts.len();
        let mut places = Vec::new();
        for group in recorded.groups() {
            for object in &group.objects {
                places.push(self.place(&group.plan, object));
            }
        }
        if self.parts.len() > before {
            let words: usize = self.parts.iter().map(|(plan, _)| plan.row_words()).sum();
            if self.parts.len() > MAX_OBJECTS || words > MAX_WORDS {
                let path = self.path.display();
                let context = format!(
                    "{path} has more objects, one after the other, than the {MAX_OBJECTS} that \
                     are kept apart: replay a recording with fewer"
                );
                return Err(CoreError::new(ErrorKind::TooLarge, context).into());
            }
            let part =
                |(plan, object): &(Arc<ReadPlan>, Object)| (Arc::clone(plan), vec![object.clone()]);
            let generation = self.layout.generation() + 1;
            self.layout = Layout::new(generation, self.parts.iter().map(part).collect());
        }
        Ok(places)
    }

    /// Returns the place of an object, which is made if it has none.
    fn place(&mut self, plan: &Arc<ReadPlan>, object: &Object) -> usize {
        let own = self.known.entry((object.path.clone(), object.key)).or_default();
        let known = own.iter().find(|&&place| self.parts[place].0 == *plan);
        if let Some(&place) = known {
            return place;
        }
        // Keys of several providers may be equal in a recording; paths are those of one object.
        let fresh = self.keys.len() as u64;
        let key = *self.keys.entry(object.path.clone()).or_insert(fresh);
        let place = self.parts.len();
        own.push(place);
        self.parts.push((Arc::clone(plan), Object { key, ..object.clone() }));
        place
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_testing::snapshots::{laid_out, vcpu};

    use super::super::testing::{sample, words_of};
    use super::*;

    fn stage() -> Stage {
        Stage::new("run.arrows".into())
    }

    fn paths(stage: &Stage) -> Vec<Box<str>> {
        stage.shown().objects().into_iter().map(|object| object.path).collect()
    }

    #[test]
    fn an_object_keeps_its_place() {
        let mut stage = stage();
        let mut latest = stage.shown().latest();
        stage.show(&sample(1, &[(0, Some([1; 6])), (1, Some([2; 6]))])).expect("they are few");
        assert_eq!(paths(&stage), ["/vm/web/vcpu[0]".into(), "/vm/web/vcpu[1]".into()]);
        let object = stage.shown().objects().remove(1);
        let place = stage.shown().place(object.key, &object.schema);
        assert_eq!(place, Some(1));
        // vCPU 0 goes, and vCPU 2 comes before the other in the sample.
        stage.show(&sample(2, &[(2, Some([3; 6])), (1, Some([4; 6]))])).expect("they are few");
        assert_eq!(paths(&stage), ["/vm/web/vcpu[2]".into(), "/vm/web/vcpu[1]".into()]);
        let frame = latest.load();
        let states: Vec<RowState> = frame.objects().map(|view| view.state()).collect();
        assert_eq!(states, [RowState::Gone, RowState::Good, RowState::Good]);
        assert_eq!(words_of(frame), [[4; 6], [3; 6]].concat());
        // It comes back to its place, and a row without values is marked as it was recorded.
        stage.show(&sample(3, &[(0, Some([5; 6])), (1, None)])).expect("they are few");
        let states: Vec<RowState> = latest.load().objects().map(|view| view.state()).collect();
        assert_eq!(states, [RowState::Good, RowState::Gone, RowState::Gone]);
        assert_eq!(paths(&stage), ["/vm/web/vcpu[0]".into(), "/vm/web/vcpu[1]".into()]);
    }

    #[test]
    fn a_sample_that_a_reader_holds_is_dropped_here() {
        let mut stage = stage();
        let mut latest = stage.shown().latest();
        stage.show(&sample(1, &[(0, Some([1; 6]))])).expect("it is one");
        let held = Arc::downgrade(&latest.load_full());
        for tick in 2..10 {
            stage.show(&sample(tick, &[(0, Some([tick; 6]))])).expect("it is one");
        }
        assert_eq!(stage.shown().lock().retired.len(), 1);
        // The reader lets go of it, and it is still there.
        assert_eq!(latest.load().tick(), 9);
        assert_eq!(held.strong_count(), 1);
        stage.show(&sample(10, &[(0, Some([0; 6]))])).expect("it is one");
        assert_eq!(held.strong_count(), 0);
    }

    #[test]
    fn objects_without_end_are_refused() {
        let mut stage = stage();
        let mut shown = 0;
        let refused = (0..1 << 20_u32).step_by(10_000).find_map(|first| {
            let rows: Vec<_> = (first..first + 10_000).map(|n| (vcpu(n), None)).collect();
            shown += 1;
            let number = 1 + u64::from(first);
            stage.show(&laid_out(number, number, number, &rows)).err()
        });
        let text = refused.expect("there are too many").to_string();
        assert!(text.starts_with("run.arrows has more objects"), "{text}");
        assert_eq!(shown, MAX_OBJECTS / 10_000 + 1);
    }
}
