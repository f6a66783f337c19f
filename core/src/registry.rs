//! The registry: the providers of one program.
//!
//! Invariant: of all objects behind one registry, no two have one path at a time, unless they are
//! one object of which two providers have statistics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::paths::{PathPolicy, Paths};
use crate::provider::Provider;
use crate::schema::{Object, Schema};

/// The providers of one program, in the order in which users see them. A value, nothing global;
/// clones are one registry. A sampler that runs samples a provider that is added from the next
/// refresh of its roster on.
///
/// Paths are unique: an object whose path another one has gets the label of its [`PathPolicy`] in
/// front of it, and if need be a number behind it, and keeps this path as long as it is there.
///
/// ```
/// use vmstrobe_core::Registry;
/// let registry = Registry::default();
/// assert!(registry.providers().is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Registry {
    providers: Arc<Mutex<Vec<Arc<dyn Provider>>>>,
    paths: Paths,
}

impl Registry {
    /// Adds a provider behind the others. Two may have one name: their objects are shown together.
    pub fn add(&self, provider: Arc<dyn Provider>) {
        self.add_with(provider, PathPolicy::default());
    }

    /// Adds a provider behind the others, with its own policy for paths.
    pub fn add_with(&self, provider: Arc<dyn Provider>, policy: PathPolicy) {
        let provider = self.paths.unique(provider, policy);
        self.lock().push(provider);
    }

    /// Adds two providers, of which the second has other statistics of the first's objects, under
    /// the same keys: each object has one path in both.
    pub fn add_pair(&self, pair: [Arc<dyn Provider>; 2], policy: PathPolicy) {
        let pair = self.paths.unique_pair(pair, policy);
        self.lock().extend(pair);
    }

    /// Returns the providers that there are now.
    pub fn providers(&self) -> Vec<Arc<dyn Provider>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn Provider>>> {
        // A list that only grows: no panic leaves it half changed.
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the objects that have statistics now, in the order of the providers.
    ///
    /// # Errors
    /// The error of the first provider that cannot list its objects.
    pub fn objects(&self) -> Result<Vec<Object>> {
        let mut all = Vec::new();
        for provider in self.providers() {
            all.extend(provider.objects()?);
        }
        Ok(all)
    }

    /// Returns the warnings of all providers, in their order.
    pub fn warnings(&self) -> Vec<Error> {
        self.providers().iter().flat_map(|provider| provider.warnings()).collect()
    }

    /// Returns the schemas of all providers, each once.
    ///
    /// # Errors
    /// The error of the first provider that cannot give its schemas.
    pub fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        let mut all: Vec<Arc<Schema>> = Vec::new();
        for provider in self.providers() {
            for schema in provider.schemas()? {
                if !all.contains(&schema) {
                    all.push(schema);
                }
            }
        }
        Ok(all)
    }
}
