//! The opened sources that one tick reads, and the layout that says where their rows go.
//!
//! Invariant: the sources' rows, one after the other, are the layout's rows. The times that sources
//! report can only narrow a tick's window.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Filter, Layout, Object, Provider, ReadPlan, Result, Source};

/// The most objects of one sampler.
pub const MAX_OBJECTS: usize = 65_536;

/// The objects of each provider.
pub(crate) type ProviderObjects = Vec<(Arc<dyn Provider>, Vec<Object>)>;

/// One source and the shape of its rows.
pub(crate) struct Slot {
    pub(crate) source: Box<dyn Source>,
    pub(crate) rows: usize,
    pub(crate) row_words: usize,
    /// Whether it reads its rows in one call and reports the time: [`Source::read_ns`].
    pub(crate) reports_times: bool,
}

/// The sources that a tick reads. A [`crate::Roster`] makes it, off the tick.
pub struct SourceSet {
    pub(crate) layout: Arc<Layout>,
    pub(crate) slots: Vec<Slot>,
    /// Whether one of the sources does: then each is asked after every tick.
    pub(crate) reports_times: bool,
}

/// The times that all sources report of one tick, taken together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadTimes {
    /// The time in which the words of all rows were loaded; `None` unless each source reports one.
    pub(crate) window_ns: Option<Range<u64>>,
    /// The number of rows whose source read all of its rows in one call.
    pub(crate) bulk_rows: usize,
    /// Whether a source that can do so did not.
    pub(crate) fell_back: bool,
}

impl Slot {
    fn new(source: Box<dyn Source>, row_words: usize) -> Self {
        let rows = source.rows();
        let reports_times = source.read_ns().is_some();
        Self { source, rows, row_words, reports_times }
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

    /// Opens the statistics that the filters select of these objects, each by its provider.
    pub(crate) fn open(
        generation: u64,
        filters: &[Filter],
        objects: ProviderObjects,
    ) -> Result<Self> {
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
                    let context = format!(
                        "provider {name} opened {rows} rows for {want} objects, which is a fault \
                         of the provider"
                    );
                    return Err(Error::new(ErrorKind::Malformed, context));
                }
                let row_words = plan.row_words();
                slots.extend(sources.into_iter().map(|source| Slot::new(source, row_words)));
                parts.push((plan, objects));
            }
        }
        let reports_times = slots.iter().any(|slot| slot.reports_times);
        Ok(Self { layout: Layout::new(generation, parts), slots, reports_times })
    }

    /// Returns the times that the sources report of the tick that has just read them, during
    /// `tick_ns`. A report of another time (of an earlier reading, say) does not count, and a
    /// source without rows is not asked.
    pub(crate) fn read_times(&self, tick_ns: Range<u64>) -> ReadTimes {
        let mut times = ReadTimes::default();
        let (mut all_report, mut begin_ns, mut end_ns) = (true, u64::MAX, 0);
        for slot in self.slots.iter().filter(|slot| slot.rows > 0) {
            let read_ns = if slot.reports_times { slot.source.read_ns() } else { None };
            let within = read_ns.map(|of| of.start.max(tick_ns.start)..of.end.min(tick_ns.end));
            match within.filter(|within| within.start <= within.end) {
                Some(within) => {
                    times.bulk_rows += slot.rows;
                    (begin_ns, end_ns) = (begin_ns.min(within.start), end_ns.max(within.end));
                }
                None => {
                    times.fell_back |= slot.reports_times;
                    all_report = false;
                }
            }
        }
        times.window_ns = (all_report && times.bulk_rows > 0).then_some(begin_ns..end_ns);
        times
    }
}

/// Compiles the filters for each schema, and groups the objects by schema. An object of which no
/// statistic is selected is left out.
fn plans(filters: &[Filter], objects: Vec<Object>) -> Vec<(Arc<ReadPlan>, Vec<Object>)> {
    let mut groups: Vec<(Arc<ReadPlan>, Vec<Object>)> = Vec::new();
    for object in objects {
        // The first filter that selects an object decides.
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
