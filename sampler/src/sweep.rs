//! What one tick reads: the opened sources and the layout that says where their rows go.
//!
//! Invariant: the sources' rows, one after the other, are the layout's rows.

use std::fmt;
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
}

/// Everything that a tick reads. Made by a [`crate::Roster`], off the tick.
pub struct Sweep {
    pub(crate) layout: Arc<Layout>,
    pub(crate) slots: Vec<Slot>,
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layout, sources) = (&self.layout, self.slots.len());
        f.debug_struct("Sweep").field("layout", layout).field("sources", &sources).finish()
    }
}

impl Sweep {
    /// Whose words are where.
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
                slots.extend(sources.into_iter().map(|source| {
                    let rows = source.rows();
                    Slot { source, rows, row_words }
                }));
                parts.push((plan, objects));
            }
        }
        Ok(Self { layout: Layout::new(generation, parts), slots })
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
