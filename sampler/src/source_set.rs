//! The opened sources that one tick reads, and the layout that says where their rows go.
//!
//! Invariant: the sources' rows, one after the other, are the layout's rows. The times at which
//! sources say that they were read can only narrow a tick's window.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Filter, Layout, Object, Provider, ReadPlan, Result, Source};

/// The most objects of one sampler.
pub const MAX_OBJECTS: usize = 65_536;

/// Objects, each with the provider that has it.
pub(crate) type Holdings = Vec<(Arc<dyn Provider>, Vec<Object>)>;

/// One source and the shape of its rows.
pub(crate) struct Slot {
    pub(crate) source: Box<dyn Source>,
    pub(crate) rows: usize,
    pub(crate) row_words: usize,
    /// It reads its rows in one call, and knows when: [`Source::read_ns`].
    pub(crate) knows_when: bool,
}

/// Everything that a tick reads. Made by a [`crate::Roster`], off the tick.
pub struct SourceSet {
    pub(crate) layout: Arc<Layout>,
    pub(crate) slots: Vec<Slot>,
    /// Some source does: each is asked after every tick.
    pub(crate) knows_when: bool,
}

/// The answers of all sources about one tick, taken together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The time in which the words of all rows were loaded; `None` unless each row's source knows.
    pub(crate) window_ns: Option<Range<u64>>,
    /// Rows that were read all in one call of their source's.
    pub(crate) bulk_rows: usize,
    /// A source that can do so did not.
    pub(crate) fell_back: bool,
}

impl Slot {
    fn new(source: Box<dyn Source>, row_words: usize) -> Self {
        let rows = source.rows();
        let knows_when = source.read_ns().is_some();
        Self { source, rows, row_words, knows_when }
    }
}

impl fmt::Debug for SourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layout, sources) = (&self.layout, self.slots.len());
        f.debug_struct("SourceSet").field("layout", layout).field("sources", &sources).finish()
    }
}

impl SourceSet {
    /// Returns the layout, which says where the words of each object are.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Opens what the filters want of these objects, each with its provider.
    pub(crate) fn open(generation: u64, filters: &[Filter], objects: Holdings) -> Result<Self> {
        let count: usize = objects.iter().map(|(_, objects)| objects.len()).sum();
        if count > MAX_OBJECTS {
            let context = format!("{count} objects to sample; the limit is {MAX_OBJECTS}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let (mut parts, mut slots) = (Vec::new(), Vec::new());
        for (provider, objects) in objects {
            for (plan, objects) in plans(filters, objects) {
                let sources = provider.open(&objects, &plan)?;
                let rows: usize = sources.iter().map(|source| source.rows()).sum();
                if rows != objects.len() {
                    let (name, want) = (provider.name(), objects.len());
                    let context = format!("provider {name} opened {rows} rows for {want} objects");
                    return Err(Error::new(ErrorKind::Malformed, context));
                }
                let row_words = plan.row_words();
                slots.extend(sources.into_iter().map(|source| Slot::new(source, row_words)));
                parts.push((plan, objects));
            }
        }
        let knows_when = slots.iter().any(|slot| slot.knows_when);
        Ok(Self { layout: Layout::new(generation, parts), slots, knows_when })
    }

    /// Asks the sources about the tick that has just read them between these instants. What one
    /// says of another time (an earlier reading, say) it has not said; what has no rows is not
    /// asked.
    pub(crate) fn ask(&self, tick_ns: Range<u64>) -> Told {
        let mut told = Told::default();
        let (mut all_know, mut begin_ns, mut end_ns) = (true, u64::MAX, 0);
        for slot in self.slots.iter().filter(|slot| slot.rows > 0) {
            let read_ns = if slot.knows_when { slot.source.read_ns() } else { None };
            let within = read_ns.map(|of| of.start.max(tick_ns.start)..of.end.min(tick_ns.end));
            match within.filter(|within| within.start <= within.end) {
                Some(within) => {
                    told.bulk_rows += slot.rows;
                    (begin_ns, end_ns) = (begin_ns.min(within.start), end_ns.max(within.end));
                }
                None => {
                    told.fell_back |= slot.knows_when;
                    all_know = false;
                }
            }
        }
        told.window_ns = (all_know && told.bulk_rows > 0).then_some(begin_ns..end_ns);
        told
    }
}

/// Compiles the filters for each schema, and groups the objects by it. An object of which nothing
/// is wanted is left out.
fn plans(filters: &[Filter], objects: Vec<Object>) -> Vec<(Arc<ReadPlan>, Vec<Object>)> {
    let mut groups: Vec<(Arc<ReadPlan>, Vec<Object>)> = Vec::new();
    for object in objects {
        // The first filter that wants an object decides: a target is asked for once.
        let Some(filter) = filters.iter().find(|filter| filter.wants(&object)) else { continue };
        let known = groups.iter().position(|(plan, _)| Arc::ptr_eq(plan.schema(), &object.schema));
        let at = known.unwrap_or_else(|| {
            let mask = filter.compile(&object.schema);
            groups.push((ReadPlan::new(&object.schema, &mask), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(object);
    }
    groups.retain(|(plan, _)| !plan.columns().is_empty());
    groups
}

#[cfg(test)]
mod tests;
