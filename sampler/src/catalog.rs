//! Reading on demand, without a loop: a [`Catalog`] lists the objects of a registry's providers,
//! and an [`OnDemandReader`] has those open that a filter selects, and reads them when it is asked.
//!
//! Invariant: a reader returns only values that were read after it was asked. A provider with
//! cached values refreshes them first; if it cannot, that is an error, and no old value is
//! returned.

use std::sync::Arc;

use vmstrobe_core::{
    Error, Filter, Layout, Mask, Object, Provider, Registry, Result, Schema, Snapshot, Target,
};

use crate::fanout::read_inline;
use crate::source_set::{ProviderObjects, SourceSet};

/// The schemas and objects that a registry's providers had at one time.
///
/// ```
/// use std::sync::Arc;
/// use vmstrobe_core::{Filter, Registry};
/// use vmstrobe_sampler::{Catalog, Health};
///
/// let (health, _health_writer) = Health::new();
/// let registry = Registry::default();
/// registry.add(Arc::new(health));
/// let (catalog, errors) = Catalog::look(&registry);
/// assert!(errors.is_empty());
/// let mut reader = catalog.reader(&"sampler: ticks".parse()?)?;
/// let snapshot = reader.read()?;
/// let (_, ticks) = snapshot.stat("ticks").next().expect("the object has just been read");
/// assert_eq!(ticks.number(), Some(0));
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Catalog {
    schemas: Vec<Arc<Schema>>,
    holdings: ProviderObjects,
}

impl Catalog {
    /// Lists the schemas and objects that exist now, and returns them with the errors and warnings
    /// of the providers. Those that a provider cannot list are missing.
    pub fn look(registry: &Registry) -> (Self, Vec<Error>) {
        let (mut schemas, mut holdings, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for provider in registry.providers() {
            match provider.schemas() {
                Ok(some) => schemas.extend(some),
                Err(error) => errors.push(error),
            }
            match provider.objects() {
                Ok(objects) => holdings.push((Arc::clone(&provider), objects)),
                Err(error) => errors.push(error),
            }
            errors.extend(provider.warnings());
        }
        (Self { schemas, holdings }, errors)
    }

    /// Sorts the objects of each provider by their keys, which is the order in which they were
    /// created as far as the provider knows: vCPUs that were plugged in come last.
    // Hidden: only a server that answers in QEMU's order needs it.
    #[doc(hidden)]
    pub fn in_order_of_creation(mut self) -> Self {
        for (_, objects) in &mut self.holdings {
            objects.sort_by_key(|object| object.key);
        }
        self
    }

    /// Returns the schemas, in the order of providers.
    pub fn schemas(&self) -> &[Arc<Schema>] {
        &self.schemas
    }

    /// Returns the objects, in the order of providers.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.holdings.iter().flat_map(|(_, objects)| objects)
    }

    /// Returns true if both catalogs have the same schemas, and the same objects of the same
    /// providers.
    // Hidden: only a server that keeps a catalog compares it with a later one.
    #[doc(hidden)]
    pub fn is_same(&self, other: &Self) -> bool {
        let keys = |catalog: &Self| -> Vec<(*const (), u64)> {
            let of = |(provider, objects): &(Arc<dyn Provider>, Vec<Object>)| {
                let provider = Arc::as_ptr(provider).cast();
                objects.iter().map(move |object| (provider, object.key)).collect::<Vec<_>>()
            };
            catalog.holdings.iter().flat_map(of).collect()
        };
        let paths = |catalog: &Self| catalog.objects().map(|o| o.path.clone()).collect::<Vec<_>>();
        self.schemas == other.schemas && keys(self) == keys(other) && paths(self) == paths(other)
    }

    /// Returns the objects of which the filter selects statistics, in groups by provider and schema
    /// as [`Catalog::reader`] opens them. It opens nothing.
    // Hidden: only a server that limits the cost of a request needs it.
    #[doc(hidden)]
    pub fn wanted(&self, filter: &Filter) -> Vec<Wanted<'_>> {
        let mut all = Vec::new();
        for (_, objects) in &self.holdings {
            let mut groups: Vec<Wanted<'_>> = Vec::new();
            for object in objects.iter().filter(|object| filter.wants(object)) {
                let known = groups.iter().position(|g| Arc::ptr_eq(g.schema, &object.schema));
                let at = known.unwrap_or_else(|| {
                    let mask = filter.compile(&object.schema);
                    groups.push(Wanted { schema: &object.schema, mask, objects: Vec::new() });
                    groups.len() - 1
                });
                groups[at].objects.push(object);
            }
            all.extend(groups.into_iter().filter(|group| !group.mask.is_empty()));
        }
        all
    }

    /// Opens the statistics that the filter selects; there may be none.
    ///
    /// # Errors
    /// `TooLarge` if it selects more than [`MAX_OBJECTS`](crate::MAX_OBJECTS) objects; else the
    /// error of a provider that cannot open its objects.
    pub fn reader(&self, filter: &Filter) -> Result<OnDemandReader> {
        let mut wanted = self.holdings.clone();
        wanted.iter_mut().for_each(|(_, objects)| objects.retain(|object| filter.wants(object)));
        wanted.retain(|(_, objects)| !objects.is_empty());
        let providers = wanted.iter().map(|(provider, _)| Arc::clone(provider)).collect();
        let sources = SourceSet::open(0, std::slice::from_ref(filter), wanted)?;
        Ok(OnDemandReader {
            target: filter.target.clone(),
            providers,
            snapshot: Snapshot::new(&sources.layout),
            sources,
            reads: 0,
        })
    }
}

/// The objects of one provider and schema of which a filter selects statistics.
// Hidden, as [`Catalog::wanted`] is.
#[doc(hidden)]
#[derive(Debug)]
#[non_exhaustive]
pub struct Wanted<'a> {
    /// The schema that they have in common.
    pub schema: &'a Arc<Schema>,
    /// The statistics that are selected of it.
    pub mask: Mask,
    /// The objects, in the order in which they are read.
    pub objects: Vec<&'a Object>,
}

/// Objects that are open, and are read when it is asked. It belongs to one thread at a time.
#[derive(Debug)]
pub struct OnDemandReader {
    target: Target,
    /// The providers whose objects are read.
    providers: Vec<Arc<dyn Provider>>,
    sources: SourceSet,
    snapshot: Snapshot,
    reads: u64,
}

impl OnDemandReader {
    /// Reads all objects now, on this thread. A row that cannot be read is marked; the snapshot's
    /// tick counts the readings from 1. It may wait if a provider has to ask another process.
    ///
    /// The snapshot has no window: it was read during this call, and a caller that needs the time
    /// can read the clock. To read it twice would cost 45 ns, a fifth of the cost of a vCPU.
    ///
    /// # Errors
    /// The error of a provider that cannot refresh its values, mostly `Busy`: see
    /// [`Provider::refresh`].
    pub fn read(&mut self) -> Result<&Snapshot> {
        if !self.sources.slots.is_empty() {
            self.providers.iter().try_for_each(|provider| provider.refresh(&self.target))?;
        }
        self.reads += 1;
        let (words, states) = self.snapshot.begin(self.reads);
        read_inline(&mut self.sources.slots, words, states);
        Ok(&self.snapshot)
    }

    /// Returns the layout of the objects that it reads.
    pub fn layout(&self) -> &Layout {
        &self.sources.layout
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

    use vmstrobe_core::{Desc, ErrorKind, ReadPlan, RowState, Rows, Source};

    use super::*;

    /// A provider that caches a number, which grows by one with each refresh.
    #[derive(Debug)]
    struct Cached {
        schema: Arc<Schema>,
        objects: AtomicU64,
        asked: Arc<AtomicU64>,
        is_busy: AtomicBool,
        has_warning: AtomicBool,
    }

    struct CachedSource(Arc<AtomicU64>, usize);

    impl Source for CachedSource {
        fn rows(&self) -> usize {
            self.1
        }

        fn read(&mut self, rows: Rows<'_>) {
            rows.fill(|_, row| {
                row.fill(self.0.load(SeqCst));
                RowState::Good
            });
        }
    }

    impl Provider for Cached {
        fn name(&self) -> &str {
            "cached"
        }

        fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
            Ok(vec![Arc::clone(&self.schema)])
        }

        fn objects(&self) -> Result<Vec<Object>> {
            let object = |key| {
                let path = format!("/{key}").into();
                Object { path, index: None, schema: Arc::clone(&self.schema), key }
            };
            Ok((0..self.objects.load(SeqCst)).map(object).collect())
        }

        fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
            Ok(vec![Box::new(CachedSource(Arc::clone(&self.asked), objects.len()))])
        }

        fn refresh(&self, target: &Target) -> Result<()> {
            assert_eq!(target, self.schema.target());
            if self.is_busy.load(SeqCst) {
                return Err(Error::new(ErrorKind::Busy, "told to be busy"));
            }
            self.asked.fetch_add(1, SeqCst);
            Ok(())
        }

        fn warnings(&self) -> Vec<Error> {
            let warning = || Error::new(ErrorKind::Unsupported, "told to warn");
            self.has_warning.swap(false, SeqCst).then(warning).into_iter().collect()
        }
    }

    fn cached(objects: u64) -> (Registry, Arc<Cached>) {
        let schema = Schema::new("kept", Target::Vm, vec![Desc::counter("asked", 0)]);
        let asked = Arc::default();
        let objects = AtomicU64::new(objects);
        let [is_busy, has_warning] = [const { AtomicBool::new(false) }; 2];
        let provider = Arc::new(Cached { schema, objects, asked, is_busy, has_warning });
        let registry = Registry::default();
        registry.add(Arc::clone(&provider) as Arc<dyn Provider>);
        (registry, provider)
    }

    fn first(snapshot: &Snapshot) -> Option<u64> {
        snapshot.stat("asked").next().and_then(|(_, value)| value.number())
    }

    #[test]
    fn every_reading_is_younger_than_the_question() {
        let (registry, provider) = cached(2);
        let mut reader = Catalog::look(&registry).0.reader(&Filter::all(Target::Vm)).unwrap();
        assert_eq!(reader.layout().rows(), 2);
        for nth in 1..=3 {
            let snapshot = reader.read().unwrap();
            assert_eq!((first(snapshot), snapshot.tick()), (Some(nth), nth));
        }
        provider.is_busy.store(true, SeqCst);
        assert_eq!(reader.read().unwrap_err().kind(), ErrorKind::Busy);
        provider.is_busy.store(false, SeqCst);
        assert_eq!(first(reader.read().unwrap()), Some(4));
    }

    #[test]
    fn a_provider_of_no_selected_object_is_not_asked() {
        let (registry, provider) = cached(2);
        provider.is_busy.store(true, SeqCst);
        let (catalog, _) = Catalog::look(&registry);
        for filter in [Filter::all(Target::Vcpu), "vm: nope".parse().unwrap()] {
            let mut reader = catalog.reader(&filter).unwrap();
            assert_eq!(reader.read().unwrap().objects().count(), 0);
        }
    }

    #[test]
    fn the_groups_are_known_before_they_are_opened() {
        let (registry, provider) = cached(3);
        let (catalog, _) = Catalog::look(&registry);
        for (filter, want) in [("vm", 3), ("vm: asked", 3), ("vm: nope", 0), ("vcpu", 0)] {
            let filter: Filter = filter.parse().unwrap();
            let wanted = catalog.wanted(&filter);
            let reader = catalog.reader(&filter).unwrap();
            let groups = reader.layout().groups().iter().map(|group| group.objects.len());
            assert!(groups.eq(wanted.iter().map(|group| group.objects.len())), "{filter:?}");
            assert_eq!(wanted.iter().map(|group| group.objects.len()).sum::<usize>(), want);
            let is_kept = |group: &Wanted<'_>| Arc::ptr_eq(group.schema, &provider.schema);
            assert!(wanted.iter().all(|group| is_kept(group) && group.mask.count() == 1));
        }
    }

    #[test]
    fn objects_can_be_sorted_by_their_keys() {
        let (registry, _) = cached(3);
        let (mut catalog, _) = Catalog::look(&registry);
        catalog.holdings[0].1.reverse();
        let keys =
            |catalog: &Catalog| catalog.objects().map(|object| object.key).collect::<Vec<_>>();
        assert_eq!(keys(&catalog), [2, 1, 0]);
        assert_eq!(keys(&catalog.in_order_of_creation()), [0, 1, 2]);
    }

    #[test]
    fn a_warning_is_among_the_errors_once_and_removes_nothing() {
        let (registry, provider) = cached(2);
        let (before, _) = Catalog::look(&registry);
        provider.has_warning.store(true, SeqCst);
        let (catalog, errors) = Catalog::look(&registry);
        assert_eq!(errors.iter().map(Error::kind).collect::<Vec<_>>(), [ErrorKind::Unsupported]);
        assert!(catalog.is_same(&before));
        assert!(Catalog::look(&registry).1.is_empty());
    }

    #[test]
    fn a_change_is_seen() {
        let (registry, provider) = cached(2);
        let (before, _) = Catalog::look(&registry);
        assert!(before.is_same(&Catalog::look(&registry).0));
        provider.objects.store(3, SeqCst);
        let (after, _) = Catalog::look(&registry);
        assert!(!before.is_same(&after));
        assert_eq!((before.objects().count(), after.objects().count()), (2, 3));
        assert_eq!(after.schemas().len(), 1);
    }
}
