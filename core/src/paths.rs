//! The paths of a [`Registry`](crate::Registry)'s objects, made unique: every QEMU calls its first
//! vCPU `/machine/unattached/device[0]`, every program may call a queue what it likes, and two
//! providers may have statistics of one object.
//!
//! Invariant: no two objects behind one [`Paths`] have one path at a time, unless they are one
//! object of which two providers have statistics; and an object keeps its path as long as it is
//! there, whatever else comes or goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::plan::ReadPlan;
use crate::provider::{Provider, Source};
use crate::schema::{Object, Schema, Target};

/// Returns the path of a virtual machine with that name, in which the name is one component:
/// `/vm/web`. A `/` in the name becomes a `_`.
///
/// ```
/// assert_eq!(vmstrobe_core::vm_path("web/1"), "/vm/web_1");
/// ```
pub fn vm_path(name: &str) -> String {
    format!("/vm/{}", name.replace('/', "_"))
}

/// The rule by which the paths of a provider's objects are made unique in a
/// [`Registry`](crate::Registry), and the objects that are left out.
///
/// ```
/// use vmstrobe_core::{PathPolicy, vm_path};
/// let policy = PathPolicy { label: Some(vm_path("web")), ..PathPolicy::default() };
/// assert!(!policy.always);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PathPolicy {
    /// The prefix for a path that is taken and does not begin with it yet, such as the path of the
    /// object's VM. Default: `/` and the provider's name.
    pub label: Option<String>,
    /// True if every path gets the label, false if only a path that is taken does.
    pub always: bool,
    /// The provider name and target, in the objects' schemas, whose objects are left out because
    /// another provider reads them better.
    pub hidden: Option<(&'static str, Target)>,
}

/// The paths of several providers. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    table: Arc<Mutex<PathTable>>,
}

/// The paths that objects have.
#[derive(Debug, Default)]
struct PathTable {
    providers: usize,
    /// By provider and the object's key.
    paths: HashMap<(usize, u64), Box<str>>,
    taken: HashSet<Box<str>>,
}

/// A provider whose paths are made unique.
#[derive(Debug)]
struct Renamed {
    inner: Arc<dyn Provider>,
    number: usize,
    label: String,
    policy: PathPolicy,
    paths: Paths,
    /// True if it has all objects of that number, and so gives back the paths of those that are
    /// gone.
    has_all: bool,
}

impl Paths {
    /// Wraps a provider, so that its paths differ from those of the others.
    pub(crate) fn unique(&self, inner: Arc<dyn Provider>, policy: PathPolicy) -> Arc<dyn Provider> {
        self.wrap(inner, self.number(), policy, true)
    }

    /// Wraps two providers, so that their paths differ from those of the others. The second has
    /// statistics of the first's objects, under the same keys, and gets their paths.
    pub(crate) fn unique_pair(
        &self,
        [first, second]: [Arc<dyn Provider>; 2],
        policy: PathPolicy,
    ) -> [Arc<dyn Provider>; 2] {
        let number = self.number();
        let label = policy.label.clone().unwrap_or_else(|| default_label(&*first));
        let policy = PathPolicy { label: Some(label), ..policy };
        [(first, true), (second, false)]
            .map(|(inner, has_all)| self.wrap(inner, number, policy.clone(), has_all))
    }

    fn wrap(
        &self,
        inner: Arc<dyn Provider>,
        number: usize,
        policy: PathPolicy,
        has_all: bool,
    ) -> Arc<dyn Provider> {
        let label = policy.label.clone().unwrap_or_else(|| default_label(&*inner));
        Arc::new(Renamed { inner, number, label, policy, paths: self.clone(), has_all })
    }

    fn number(&self) -> usize {
        self.with(|table| {
            table.providers += 1;
            table.providers
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut PathTable) -> T) -> T {
        // At worst a panic has left a path taken that no object has.
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn default_label(provider: &dyn Provider) -> String {
    format!("/{}", provider.name())
}

impl PathTable {
    /// Gives back the paths of this provider's objects that are gone.
    fn keep(&mut self, provider: usize, objects: &[Object]) {
        let here: HashSet<u64> = objects.iter().map(|object| object.key).collect();
        let gone = |(of, key): &(usize, u64)| *of == provider && !here.contains(key);
        for (_, path) in self.paths.extract_if(|id, _| gone(id)) {
            self.taken.remove(&path);
        }
    }

    /// Returns the path of an object: the one that it has, or else the first candidate that is
    /// free.
    fn path(&mut self, id: (usize, u64), candidates: impl Iterator<Item = String>) -> Box<str> {
        if let Some(path) = self.paths.get(&id) {
            return path.clone();
        }
        let mut candidates = candidates.map(String::into_boxed_str);
        let free = candidates.find(|path| !self.taken.contains(path));
        let path = free.expect("candidates have no end, and paths were given to finitely many");
        self.taken.insert(path.clone());
        self.paths.insert(id, path.clone());
        path
    }
}

impl Renamed {
    /// Returns the paths that an object may be given, the best first; they have no end.
    fn candidates(&self, path: &str) -> impl Iterator<Item = String> {
        let label = &*self.label;
        let is_labelled =
            path.strip_prefix(label).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let labelled = if is_labelled { path.to_owned() } else { format!("{label}{path}") };
        let plain = (!self.policy.always).then(|| path.to_owned());
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
        self.paths.with(|table| {
            if self.has_all {
                table.keep(self.number, &objects);
            }
            for object in &mut objects {
                let candidates = self.candidates(&object.path);
                object.path = table.path((self.number, object.key), candidates);
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

    fn ended(&self) -> Vec<u32> {
        self.inner.ended()
    }

    fn warnings(&self) -> Vec<Error> {
        self.inner.warnings()
    }
}

#[cfg(test)]
mod tests;
