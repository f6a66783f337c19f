//! Distinct paths for providers in one registry: every QEMU calls its first vCPU
//! `/machine/unattached/device[0]`, every program may call a queue what it likes, and two providers
//! may have statistics of one object.
//!
//! Invariant: no two objects behind one [`Paths`] have one path at a time, unless they are one
//! object of which two providers have statistics; and an object keeps its path as long as it is
//! there, whatever else comes or goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use vmstrobe_core::{Error, Object, Provider, ReadPlan, Result, Schema, Source, Target};

/// The paths of several providers.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    given: Arc<Mutex<PathTable>>,
}

/// The paths that objects have been given.
#[derive(Debug, Default)]
struct PathTable {
    providers: usize,
    /// By provider and the object's key.
    paths: HashMap<(usize, u64), Box<str>>,
    taken: HashSet<Box<str>>,
}

/// A provider whose paths are made distinct.
#[derive(Debug)]
struct Renamed {
    inner: Arc<dyn Provider>,
    number: usize,
    policy: PathPolicy,
    paths: Paths,
    /// It has all objects of that number, and so gives back the paths of those that are gone.
    has_all: bool,
}

/// How a provider's paths are made distinct, and which of its objects are left out.
#[derive(Clone, Debug, Default)]
pub(super) struct PathPolicy {
    /// The prefix for a path that does not begin with it yet: the path of its VM, say.
    pub(super) label: String,
    /// True if every path gets the label, false if only a path that is taken does.
    pub(super) always: bool,
    /// The provider name and target whose objects are left out: another provider reads them better.
    pub(super) hidden: Option<(&'static str, Target)>,
}

impl Paths {
    /// Wraps a provider, so that its paths differ from those of the others.
    pub(super) fn distinct(
        &self,
        inner: Arc<dyn Provider>,
        policy: PathPolicy,
    ) -> Arc<dyn Provider> {
        let number = self.number();
        Arc::new(Renamed { inner, number, policy, paths: self.clone(), has_all: true })
    }

    /// Wraps two providers, so that their paths differ from those of the others. The second has
    /// statistics of the first's objects, under the same keys, and gets their paths.
    pub(super) fn distinct_pair(
        &self,
        [first, second]: [Arc<dyn Provider>; 2],
        policy: PathPolicy,
    ) -> [Arc<dyn Provider>; 2] {
        let number = self.number();
        [(first, true), (second, false)].map(|(inner, has_all)| {
            let (policy, paths) = (policy.clone(), self.clone());
            Arc::new(Renamed { inner, number, policy, paths, has_all }) as _
        })
    }

    fn number(&self) -> usize {
        self.with(|given| {
            given.providers += 1;
            given.providers
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut PathTable) -> T) -> T {
        // At worst a panic has left a path taken that nobody has.
        act(&mut self.given.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PathTable {
    /// Gives back what this provider has no more.
    fn keep(&mut self, provider: usize, objects: &[Object]) {
        let here: HashSet<u64> = objects.iter().map(|object| object.key).collect();
        let gone = |(of, key): &(usize, u64)| *of == provider && !here.contains(key);
        for (_, path) in self.paths.extract_if(|who, _| gone(who)) {
            self.taken.remove(&path);
        }
    }

    /// The path of an object, the first of these that is free unless it has one.
    fn path(&mut self, who: (usize, u64), candidates: impl Iterator<Item = String>) -> Box<str> {
        if let Some(path) = self.paths.get(&who) {
            return path.clone();
        }
        let mut candidates = candidates.map(String::into_boxed_str);
        let free = candidates.find(|path| !self.taken.contains(path));
        let path = free.expect("candidates have no end, and paths were given to finitely many");
        self.taken.insert(path.clone());
        self.paths.insert(who, path.clone());
        path
    }
}

impl Renamed {
    /// Returns the paths that an object may be given, the best first; they have no end.
    fn candidates(&self, path: &str) -> impl Iterator<Item = String> {
        let PathPolicy { label, always, .. } = &self.policy;
        let is_labelled = path
            .strip_prefix(&**label)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let labelled = if is_labelled { path.to_owned() } else { label.clone() + path };
        let plain = (!always).then(|| path.to_owned());
        let numbered = labelled.clone();
        let numbered = (2_u64..).map(move |number| format!("{numbered}.{number}"));
        plain.into_iter().chain([labelled]).chain(numbered)
    }

    fn shows(&self, schema: &Schema) -> bool {
        let is_hidden = |(provider, target): &(&str, Target)| {
            schema.provider() == *provider && schema.target() == target
        };
        !self.policy.hidden.as_ref().is_some_and(is_hidden)
    }
}

impl Provider for Renamed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        let mut schemas = self.inner.schemas()?;
        schemas.retain(|schema| self.shows(schema));
        Ok(schemas)
    }

    fn objects(&self) -> Result<Vec<Object>> {
        let mut objects = self.inner.objects()?;
        objects.retain(|object| self.shows(&object.schema));
        self.paths.with(|given| {
            if self.has_all {
                given.keep(self.number, &objects);
            }
            for object in &mut objects {
                let candidates = self.candidates(&object.path);
                object.path = given.path((self.number, object.key), candidates);
            }
        });
        Ok(objects)
    }

    /// Providers know their objects by key, so that other paths do not disturb them.
    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        self.inner.open(objects, plan)
    }

    fn refresh(&self, target: &Target) -> Result<()> {
        self.inner.refresh(target)
    }

    fn warnings(&self) -> Vec<Error> {
        self.inner.warnings()
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Error, ErrorKind};
    use vmstrobe_providers::{TableObject, TableSchema, TableWriter, Tables};

    use super::*;

    /// Someone's table, read through the same paths as everyone's.
    struct Program {
        table: TableWriter,
        provider: Arc<dyn Provider>,
    }

    impl Program {
        fn new(paths: &Paths, label: &str, always: bool) -> Self {
            let (table, tables) = (TableWriter::new("xyz").unwrap(), Tables::new().unwrap());
            tables.add_own(&table).unwrap();
            let policy = PathPolicy { label: label.to_owned(), always, hidden: None };
            let provider = paths.distinct(Arc::new(tables), policy);
            Self { table, provider }
        }

        fn add(&self, path: &str) -> TableObject {
            self.table.add(path, &TableSchema::new(Target::from_name("queue"))).unwrap()
        }

        fn paths(&self) -> Vec<String> {
            let objects = self.provider.objects().unwrap();
            objects.iter().map(|object| object.path.to_string()).collect()
        }
    }

    #[test]
    fn the_later_of_two_with_one_path_gets_its_label() {
        let paths = Paths::default();
        let [a, b, c] = ["/vm/a", "/vm/b", "/vm/b"].map(|label| Program::new(&paths, label, false));
        let first = a.add("/q");
        let _others = [b.add("/q"), b.add("/r"), c.add("/q"), c.add("/vm/b/q")];
        for _ in 0..2 {
            assert_eq!(a.paths(), ["/q"]);
            assert_eq!(b.paths(), ["/vm/b/q", "/r"]);
            assert_eq!(c.paths(), ["/vm/b/q.2", "/vm/b/q.3"]);
        }
        // Whoever has a path keeps it, and the next one takes what was given back.
        drop(first);
        assert!(a.paths().is_empty());
        assert_eq!(b.paths(), ["/vm/b/q", "/r"]);
        let _later = b.add("/s");
        let d = Program::new(&paths, "/vm/d", false);
        let _last = d.add("/q");
        assert_eq!(d.paths(), ["/q"]);
        assert_eq!(c.paths(), ["/vm/b/q.2", "/vm/b/q.3"]);
        assert_eq!((a.provider.name(), a.provider.schemas().unwrap().len()), ("table", 0));
    }

    #[test]
    fn of_several_alike_each_has_its_label() {
        let paths = Paths::default();
        let [a, b] = ["/vm/a", "/vm/b"].map(|label| Program::new(&paths, label, true));
        let _objects = [a.add("/q"), a.add("/vm/a"), a.add("/vm/ab"), b.add("/q")];
        assert_eq!(a.paths(), ["/vm/a/q", "/vm/a", "/vm/a/vm/ab"]);
        assert_eq!(b.paths(), ["/vm/b/q"]);
    }

    /// One who has nothing, and takes long to say so.
    #[derive(Debug)]
    struct Late;

    impl Provider for Late {
        fn name(&self) -> &str {
            "late"
        }

        fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
            Ok(Vec::new())
        }

        fn objects(&self) -> Result<Vec<Object>> {
            Ok(Vec::new())
        }

        fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
            Ok(Vec::new())
        }

        fn refresh(&self, target: &Target) -> Result<()> {
            Err(Error::new(ErrorKind::Busy, target.name()))
        }
    }

    #[test]
    fn of_one_object_two_can_tell() {
        let paths = Paths::default();
        let other = Program::new(&paths, "/vm/a", false);
        let _other = other.add("/q");
        assert_eq!(other.paths(), ["/q"]);
        let (table, tables) = (TableWriter::new("xyz").unwrap(), Tables::new().unwrap());
        tables.add_own(&table).unwrap();
        let queues = TableSchema::new(Target::from_name("queue"));
        let disks = TableSchema::new(Target::from_name("disk"));
        let _objects = [table.add("/q", &queues).unwrap(), table.add("/d", &disks).unwrap()];
        let tables: Arc<dyn Provider> = Arc::new(tables);
        // The second tells of the queue alone.
        let some = PathPolicy {
            hidden: Some(("xyz", Target::from_name("disk"))),
            ..PathPolicy::default()
        };
        let some = Paths::default().distinct(Arc::clone(&tables), some);
        let policy = PathPolicy { label: "/vm/b".to_owned(), ..PathPolicy::default() };
        let [all, some] = paths.distinct_pair([tables, some], policy);
        let shown = |provider: &Arc<dyn Provider>| {
            let objects = provider.objects().unwrap();
            objects.into_iter().map(|object| String::from(object.path)).collect::<Vec<_>>()
        };
        // Whoever is asked first.
        assert_eq!(shown(&some), ["/vm/b/q"]);
        assert_eq!(shown(&all), ["/vm/b/q", "/d"]);
        assert_eq!(shown(&some), ["/vm/b/q"]);
        // And takes no path from the first.
        let _later = other.add("/d");
        assert_eq!(other.paths(), ["/q", "/vm/a/d"]);
        assert_eq!(shown(&all), ["/vm/b/q", "/d"]);
    }

    #[test]
    fn what_another_gives_is_hidden() {
        let (table, tables) = (TableWriter::new("xyz").unwrap(), Tables::new().unwrap());
        tables.add_own(&table).unwrap();
        let add =
            |path, target| table.add(path, &TableSchema::new(Target::from_name(target))).unwrap();
        let _objects = [add("/q", "queue"), add("/d", "disk")];
        let tables = Arc::new(tables);
        let shown = |hidden| {
            let policy = PathPolicy { hidden, ..PathPolicy::default() };
            let provider = Paths::default().distinct(Arc::clone(&tables) as _, policy);
            let objects = provider.objects().unwrap();
            assert_eq!(provider.schemas().unwrap().len(), objects.len());
            objects.into_iter().map(|object| String::from(object.path)).collect::<Vec<_>>()
        };
        assert_eq!(shown(Some(("xyz", Target::from_name("queue")))), ["/d"]);
        assert_eq!(shown(Some(("kvm", Target::from_name("queue")))).len(), 2);
        assert_eq!(shown(None).len(), 2);
    }

    #[test]
    fn a_refresh_is_the_providers_own() {
        let provider = Paths::default().distinct(Arc::new(Late), PathPolicy::default());
        let error = provider.refresh(&Target::Vcpu).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Busy, "vcpu".to_owned()));
    }

    #[test]
    fn what_was_renamed_can_be_read() {
        let paths = Paths::default();
        let [a, b] = ["/vm/a", "/vm/b"].map(|label| Program::new(&paths, label, false));
        let mut schema = TableSchema::new(Target::from_name("queue"));
        let requests = schema.counter("requests");
        let queues = [&a, &b].map(|program| program.table.add("/q", &schema).unwrap());
        queues.iter().zip([3, 5]).for_each(|(queue, count)| queue.get(requests).add(count));
        let registry = vmstrobe_core::Registry::default();
        [a, b].into_iter().for_each(|program| registry.add(program.provider));
        let filters = vec!["queue".parse().unwrap()];
        let sources = vmstrobe_sampler::Roster::new(registry, filters).open().unwrap();
        let health_writer = vmstrobe_sampler::HealthWriter::default();
        let inline = vmstrobe_sampler::Fanout::Inline;
        let (mut sampler, control) =
            vmstrobe_sampler::Sampler::new(sources, health_writer, inline).unwrap();
        sampler.tick();
        let snapshot = control.latest().load_full();
        let value = |path| snapshot.object(path).unwrap().get("requests").unwrap().number();
        assert_eq!([value("/q"), value("/vm/b/q")], [Some(3), Some(5)]);
    }
}
