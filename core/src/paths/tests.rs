//! Paths of made-up programs, whose objects come and go.

use super::*;
use crate::Registry;
use crate::error::ErrorKind;
use crate::schema::Desc;

/// A program whose objects come and go.
#[derive(Debug)]
struct Program(Mutex<Vec<Object>>);

impl Program {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Adds an object of that target; its key is new.
    fn add(&self, path: &str, target: &str) {
        let descs = vec![Desc::counter("requests", 0)];
        let schema = Schema::new("xyz", Target::from_name(target), descs);
        let mut objects = self.0.lock().unwrap();
        let key = objects.last().map_or(0, |last| last.key + 1);
        objects.push(Object { path: path.into(), index: None, schema, key });
    }

    fn remove(&self, path: &str) {
        self.0.lock().unwrap().retain(|object| &*object.path != path);
    }
}

impl Provider for Program {
    fn name(&self) -> &str {
        "program"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(self.objects()?.into_iter().map(|object| object.schema).collect())
    }

    fn objects(&self) -> Result<Vec<Object>> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn open(&self, objects: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        // What is opened is told by its key.
        Err(Error::new(ErrorKind::NotFound, format!("key {}", objects[0].key)))
    }

    fn refresh(&self, target: &Target) -> Result<()> {
        Err(Error::new(ErrorKind::Busy, target.name()))
    }

    fn ended(&self) -> Vec<u32> {
        vec![4711]
    }
}

fn labelled(label: &str) -> PathPolicy {
    PathPolicy { label: Some(label.to_owned()), ..PathPolicy::default() }
}

/// Adds a program, and returns it and the provider that the registry has for it.
fn add(registry: &Registry, policy: PathPolicy) -> (Arc<Program>, Arc<dyn Provider>) {
    let program = Program::new();
    registry.add_with(Arc::clone(&program) as _, policy);
    (program, registry.providers().pop().expect("it was added"))
}

fn paths(provider: &Arc<dyn Provider>) -> Vec<String> {
    provider.objects().unwrap().into_iter().map(|object| object.path.into_string()).collect()
}

#[test]
fn the_later_of_two_with_one_path_gets_its_label() {
    let registry = Registry::default();
    let [(a, in_a), (b, in_b), (c, in_c)] =
        ["/vm/a", "/vm/b", "/vm/b"].map(|label| add(&registry, labelled(label)));
    a.add("/q", "queue");
    ["/q", "/r"].into_iter().for_each(|path| b.add(path, "queue"));
    ["/q", "/vm/b/q"].into_iter().for_each(|path| c.add(path, "queue"));
    for _ in 0..2 {
        assert_eq!(paths(&in_a), ["/q"]);
        assert_eq!(paths(&in_b), ["/vm/b/q", "/r"]);
        assert_eq!(paths(&in_c), ["/vm/b/q.2", "/vm/b/q.3"]);
    }
    // An object keeps its path, and the next one takes the path that was given back.
    a.remove("/q");
    assert!(paths(&in_a).is_empty());
    assert_eq!(paths(&in_b), ["/vm/b/q", "/r"]);
    let (d, in_d) = add(&registry, labelled("/vm/d"));
    d.add("/q", "queue");
    assert_eq!(paths(&in_d), ["/q"]);
    assert_eq!(paths(&in_c), ["/vm/b/q.2", "/vm/b/q.3"]);
    assert_eq!(in_a.name(), "program");
}

#[test]
fn without_a_policy_the_provider_gives_the_label() {
    let registry = Registry::default();
    let [a, b] = [(); 2].map(|()| Program::new());
    for program in [&a, &b] {
        program.add("/q", "queue");
        registry.add(Arc::clone(program) as _);
    }
    let objects = registry.objects().unwrap();
    let paths: Vec<&str> = objects.iter().map(|object| &*object.path).collect();
    assert_eq!(paths, ["/q", "/program/q"]);
}

#[test]
fn with_always_each_path_has_its_label() {
    let registry = Registry::default();
    let [(a, in_a), (b, in_b)] =
        ["/vm/a", "/vm/b"].map(|at| add(&registry, PathPolicy { always: true, ..labelled(at) }));
    ["/q", "/vm/a", "/vm/ab"].into_iter().for_each(|path| a.add(path, "queue"));
    b.add("/q", "queue");
    assert_eq!(paths(&in_a), ["/vm/a/q", "/vm/a", "/vm/a/vm/ab"]);
    assert_eq!(paths(&in_b), ["/vm/b/q"]);
}

#[test]
fn a_pair_gives_an_object_one_path() {
    let registry = Registry::default();
    let (other, in_other) = add(&registry, labelled("/vm/a"));
    other.add("/q", "queue");
    assert_eq!(paths(&in_other), ["/q"]);
    let [all, some] = [(); 2].map(|()| Program::new());
    [("/q", "queue"), ("/d", "disk")].into_iter().for_each(|(path, target)| all.add(path, target));
    // The second has statistics of the queue alone.
    some.add("/q", "queue");
    registry.add_pair([Arc::clone(&all) as _, Arc::clone(&some) as _], labelled("/vm/b"));
    let providers = registry.providers();
    let [_, in_all, in_some] = &providers[..] else { panic!("there are three") };
    // Whichever of them is asked first.
    assert_eq!(paths(in_some), ["/vm/b/q"]);
    assert_eq!(paths(in_all), ["/vm/b/q", "/d"]);
    assert_eq!(paths(in_some), ["/vm/b/q"]);
    // It takes no path from the first.
    other.add("/d", "disk");
    assert_eq!(paths(&in_other), ["/q", "/vm/a/d"]);
    assert_eq!(paths(in_all), ["/vm/b/q", "/d"]);
}

#[test]
fn hidden_objects_are_left_out() {
    let shown = |hidden| {
        let registry = Registry::default();
        let policy = PathPolicy { hidden, ..PathPolicy::default() };
        let (program, provider) = add(&registry, policy);
        [("/q", "queue"), ("/d", "disk")]
            .into_iter()
            .for_each(|(path, target)| program.add(path, target));
        assert_eq!(provider.schemas().unwrap().len(), provider.objects().unwrap().len());
        paths(&provider)
    };
    assert_eq!(shown(Some(("xyz", Target::from_name("queue")))), ["/d"]);
    assert_eq!(shown(Some(("kvm", Target::from_name("queue")))), ["/q", "/d"]);
    assert_eq!(shown(None), ["/q", "/d"]);
}

#[test]
fn all_else_is_the_providers_own() {
    let registry = Registry::default();
    let [(a, in_a), (b, in_b)] = ["/a", "/b"].map(|label| add(&registry, labelled(label)));
    let error = in_a.refresh(&Target::Vcpu).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Busy, "vcpu".to_owned()));
    assert_eq!(in_a.ended(), [4711]);
    a.add("/q", "queue");
    ["/p", "/q"].into_iter().for_each(|path| b.add(path, "queue"));
    assert_eq!((paths(&in_a), paths(&in_b)), (vec!["/q".into()], vec!["/p".into(), "/b/q".into()]));
    // An object that has another path in the registry is opened by its key.
    let objects = in_b.objects().unwrap();
    let plan = ReadPlan::new(&objects[1].schema, &crate::Mask::all(&objects[1].schema));
    let error = in_b.open(&objects[1..], &plan).err().expect("nothing is opened here");
    assert_eq!(error.to_string(), "key 1");
}
