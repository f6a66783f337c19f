//! The user's filter: QAPI's `StatsFilter`, compiled once per schema into a [`Mask`].
//!
//! Invariant: a part that is absent selects everything, and an empty list selects nothing. An
//! unknown name or path is no error; [`Filter::unmatched_vcpus`] and [`Names::unmatched`] return
//! those that match nothing.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::mask::Mask;
use crate::names::Names;
use crate::schema::{Object, Schema, Target};

/// The statistics that the user asks for: QAPI `StatsFilter`.
///
/// ```
/// use vmstrobe_core::{Desc, Filter, Schema, Target, VcpuRef};
/// let descs = vec![Desc::counter("exits", 0), Desc::counter("halt_exits", 8)];
/// let schema = Schema::new("kvm", Target::Vcpu, descs);
/// let mut filter: Filter = "vcpu: halt_*".parse()?;
/// filter.vcpus = Some([VcpuRef::Index(0)].into_iter().collect());
/// assert_eq!(filter.compile(&schema).iter().collect::<Vec<_>>(), [1]);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    /// The type of the objects.
    pub target: Target,
    /// The providers with the names that are wanted of each; `None` for all statistics of all
    /// providers.
    pub providers: Option<Vec<Request>>,
    /// The vCPUs; `None` for all. Ignored for other targets.
    pub vcpus: Option<VcpuSet>,
}

/// One provider's part of a filter: QAPI `StatsRequest`.
#[derive(Clone, Debug)]
pub struct Request {
    /// The provider's name; `None` for every provider that has these names.
    pub provider: Option<String>,
    /// The wanted statistics of the provider; `None` for all.
    pub names: Option<Names>,
}

/// One vCPU as a user names it: by its path as in QAPI, or by its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VcpuRef {
    /// The object's whole path.
    Path(String),
    /// The vCPU's number.
    Index(u32),
}

impl VcpuRef {
    /// Takes a number as an index, and any other text as a path.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Path(text.to_owned()), Self::Index)
    }
}

/// A set of vCPUs. Clones share the list. Looking up an object takes the logarithm of the length,
/// because a client may name as many vCPUs as there are objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuSet(Arc<[VcpuRef]>);

impl VcpuSet {
    /// Returns the vCPUs: first those named by path, then those named by number, each in ascending
    /// order.
    pub fn iter(&self) -> impl Iterator<Item = &VcpuRef> {
        self.0.iter()
    }

    /// Returns the number of vCPUs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the set has the path or the number of the object.
    pub fn contains(&self, object: &Object) -> bool {
        self.has_path(&object.path) || object.index.is_some_and(|index| self.has_index(index))
    }

    fn has_path(&self, path: &str) -> bool {
        let found = self.0.binary_search_by(|vcpu| match vcpu {
            VcpuRef::Path(known) => (**known).cmp(path),
            // All paths precede all numbers.
            VcpuRef::Index(_) => Ordering::Greater,
        });
        found.is_ok()
    }

    fn has_index(&self, index: u32) -> bool {
        let found = self.0.binary_search_by(|vcpu| match vcpu {
            VcpuRef::Path(_) => Ordering::Less,
            VcpuRef::Index(known) => known.cmp(&index),
        });
        found.is_ok()
    }
}

impl FromIterator<VcpuRef> for VcpuSet {
    fn from_iter<I: IntoIterator<Item = VcpuRef>>(vcpus: I) -> Self {
        let mut vcpus: Vec<VcpuRef> = vcpus.into_iter().collect();
        vcpus.sort_unstable();
        vcpus.dedup();
        Self(vcpus.into())
    }
}

impl Filter {
    /// Makes a filter that selects everything of one target.
    pub fn all(target: Target) -> Self {
        Self { target, providers: None, vcpus: None }
    }

    /// Returns the wanted statistics of a schema. The mask is empty if the schema has another
    /// target or belongs to a provider that was not asked for.
    pub fn compile(&self, schema: &Schema) -> Mask {
        let mut mask = Mask::none(schema.descs().len());
        if self.target != *schema.target() {
            return mask;
        }
        let Some(requests) = &self.providers else {
            return Mask::all(schema);
        };
        for request in requests.iter().filter(|request| request.is_for(schema)) {
            for (index, desc) in schema.descs().iter().enumerate() {
                if request.names.as_ref().is_none_or(|names| names.wants(&desc.name)) {
                    mask.set(index);
                }
            }
        }
        mask
    }

    /// Returns whether an object is wanted, by its target and, for a vCPU, by its path or number.
    pub fn wants(&self, object: &Object) -> bool {
        if self.target != *object.schema.target() {
            return false;
        }
        match &self.vcpus {
            Some(vcpus) if self.target == Target::Vcpu => vcpus.contains(object),
            _ => true,
        }
    }

    /// Returns the wanted vCPUs that are not among these objects, in the order of the set.
    pub fn unmatched_vcpus<'a>(&'a self, objects: &[Object]) -> Vec<&'a VcpuRef> {
        let paths: HashSet<&str> = objects.iter().map(|object| &*object.path).collect();
        let indexes: HashSet<u32> = objects.iter().filter_map(|object| object.index).collect();
        let is_known = |vcpu: &VcpuRef| match vcpu {
            VcpuRef::Path(path) => paths.contains(&**path),
            VcpuRef::Index(index) => indexes.contains(index),
        };
        self.vcpus.iter().flat_map(VcpuSet::iter).filter(|vcpu| !is_known(vcpu)).collect()
    }
}

impl Request {
    fn is_for(&self, schema: &Schema) -> bool {
        self.provider.as_deref().is_none_or(|provider| provider == schema.provider())
    }
}

impl FromStr for Filter {
    type Err = Error;

    /// Parses `TARGET` or `TARGET: NAMES`, where NAMES is a list for [`Names::parse`].
    fn from_str(text: &str) -> Result<Self> {
        let (target, names) = match text.split_once(':') {
            Some((target, names)) => (target, Some(Names::parse(names)?)),
            None => (text, None),
        };
        let target = target.trim();
        if target.is_empty() {
            let what = "a filter starts with its target: `vcpu` or `vcpu: exits,halt_*`";
            return Err(Error::new(ErrorKind::Filter, what));
        }
        let providers = names.map(|names| vec![Request { provider: None, names: Some(names) }]);
        Ok(Self { target: Target::from_name(target), providers, vcpus: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Desc;

    fn schema(provider: &str, names: &[&str]) -> Arc<Schema> {
        let descs = names.iter().zip(0..).map(|(name, i)| Desc::counter(name, 8 * i)).collect();
        Schema::new(provider, Target::Vcpu, descs)
    }

    fn compiled(filter: &Filter, schema: &Schema) -> Vec<usize> {
        filter.compile(schema).iter().collect()
    }

    fn request(provider: &str, names: Option<&[&str]>) -> Request {
        let names = names.map(|names| Names::exact(names.iter().copied()));
        Request { provider: Some(provider.into()), names }
    }

    #[test]
    fn absent_wants_everything_and_empty_nothing() {
        let kvm = schema("kvm", &["exits", "halt_exits"]);
        let mut filter = Filter::all(Target::Vcpu);
        assert_eq!(compiled(&filter, &kvm), [0, 1]);
        filter.providers = Some(vec![]);
        assert_eq!(compiled(&filter, &kvm), [0_usize; 0]);
        filter.providers = Some(vec![request("kvm", None)]);
        assert_eq!(compiled(&filter, &kvm), [0, 1]);
        filter.providers = Some(vec![request("kvm", Some(&[]))]);
        assert_eq!(compiled(&filter, &kvm), [0_usize; 0]);
    }

    #[test]
    fn requests_of_one_provider_add_up() {
        let kvm = schema("kvm", &["exits", "halt_exits", "blocking"]);
        let mut filter = Filter::all(Target::Vcpu);
        filter.providers = Some(vec![
            request("kvm", Some(&["blocking", "nope"])),
            request("other", Some(&["exits"])),
            request("kvm", Some(&["exits"])),
        ]);
        assert_eq!(compiled(&filter, &kvm), [0, 2]);
    }

    #[test]
    fn another_target_gets_nothing() {
        let kvm = schema("kvm", &["exits"]);
        assert_eq!(compiled(&Filter::all(Target::Vm), &kvm), [0_usize; 0]);
    }

    #[test]
    fn vcpus_go_by_path_or_number() {
        let kvm = schema("kvm", &["exits"]);
        let object = |path: &str, index| Object {
            path: path.into(),
            index: Some(index),
            schema: Arc::clone(&kvm),
            key: 0,
        };
        let objects = [object("/vm/a/vcpu[0]", 0), object("/vm/a/vcpu[1]", 1)];
        let mut filter = Filter::all(Target::Vcpu);
        let wanted = |filter: &Filter| objects.iter().filter(|o| filter.wants(o)).count();
        assert_eq!(wanted(&filter), 2);
        let set = |vcpus: &[&str]| Some(vcpus.iter().map(|vcpu| VcpuRef::parse(vcpu)).collect());
        filter.vcpus = set(&["/vm/a/vcpu[1]", "7"]);
        assert_eq!(wanted(&filter), 1);
        assert_eq!(filter.unmatched_vcpus(&objects), [&VcpuRef::Index(7)]);
        filter.vcpus = set(&["1", "/vm/a/vcpu[0]", "/vm/b"]);
        assert_eq!(wanted(&filter), 2);
        assert_eq!(filter.unmatched_vcpus(&objects), [&VcpuRef::Path("/vm/b".to_owned())]);
        filter.vcpus = set(&[]);
        assert_eq!(wanted(&filter), 0);
    }

    #[test]
    fn a_set_of_vcpus_has_each_once_and_finds_it_among_many() {
        let kvm = schema("kvm", &["exits"]);
        let object = |index: u32| Object {
            path: format!("/vm/a/vcpu[{index}]").into(),
            index: Some(index),
            schema: Arc::clone(&kvm),
            key: 0,
        };
        let even = |name: fn(u32) -> VcpuRef| (0..1000).rev().step_by(2).map(name);
        let paths = even(|at| VcpuRef::Path(format!("/vm/a/vcpu[{}]", at - 1)));
        let set: VcpuSet = paths.clone().chain(paths).collect();
        assert_eq!((set.len(), set.is_empty()), (500, false));
        assert!((0..1000).all(|at| set.contains(&object(at)) == (at % 2 == 0)));
        let set: VcpuSet = even(|at| VcpuRef::Index(at - 1)).collect();
        assert!((0..1000).all(|at| set.contains(&object(at)) == (at % 2 == 0)));
    }

    #[test]
    fn a_filter_can_be_typed() {
        let kvm = schema("kvm", &["exits", "halt_exits", "halt_wait_ns"]);
        let filter: Filter = "vcpu: halt_*, -*_ns".parse().expect("the filter is well formed");
        assert_eq!(compiled(&filter, &kvm), [1]);
        let filter: Filter = "vcpu".parse().expect("the filter is well formed");
        assert_eq!(compiled(&filter, &kvm), [0, 1, 2]);
        for bad in ["", ": exits", "vcpu:", "vcpu: /("] {
            assert!(Filter::from_str(bad).is_err(), "{bad}");
        }
    }
}
