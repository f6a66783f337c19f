//! Selections: the statistics that a user asks for, resolved against those that there are.
//!
//! Invariant: a filter that leaves here selects at least one statistic of at least one object.
//! Whatever of the request matches nothing is data: an error where nothing else would be left, or
//! where an object was meant; a notice where it was one name among others.

use std::sync::Arc;

use crate::parts::{BpfStatus, KVM, SCHED};
use vmstrobe_core::{Filter, Names, Object, Request, Schema, Target, VcpuRef, VcpuSet};
use vmstrobe_sampler::PROVIDER as OWN_PROVIDER;

use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::member::Member;
use crate::notice::Notice;
use crate::unknown_name::UnknownName;

mod each;

/// The statistics that a user asks for. A part that is left out selects everything.
///
/// ```
/// use vmstrobe::{Names, Selection};
/// let names = Some(Names::parse("exits, halt_*")?);
/// let selection = Selection { names, ..Selection::default() };
/// assert!(selection.target.is_none());
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The target; `None` for vCPUs, or else the only target that there is.
    pub target: Option<Target>,
    /// The provider; `None` for all.
    pub provider: Option<String>,
    /// The names of statistics; `None` for all.
    pub names: Option<Names>,
    /// The vCPUs; empty for all.
    pub vcpus: Vec<VcpuRef>,
}

impl Selection {
    /// Returns the filter of one target. The vCPUs are ignored for any but theirs.
    fn filter(&self, target: Target) -> Filter {
        let request = Request { provider: self.provider.clone(), names: self.names.clone() };
        let vcpus: VcpuSet = self.vcpus.iter().cloned().collect();
        let vcpus = (!vcpus.is_empty() && target == Target::Vcpu).then_some(vcpus);
        Filter { target, providers: Some(vec![request]), vcpus }
    }
}

impl Attachment {
    /// Returns the filter that the user means. Names that match nothing, beside others that do,
    /// have a [`Notice::UnknownName`].
    ///
    /// # Errors
    /// If there is no such provider, object or statistic, or it is not clear which target is meant.
    pub fn select(&self, selection: &Selection) -> Result<Filter> {
        let provider = selection.provider.as_deref();
        self.check_provider(provider)?;
        let (all, schemas) = (self.objects()?, self.schemas()?);
        let target = match &selection.target {
            Some(target) => target.clone(),
            None => default_target(&all, &schemas, provider)?,
        };
        if !selection.vcpus.is_empty() && target != Target::Vcpu {
            return Err(Error::VcpusOfTarget { target });
        }
        let filter = selection.filter(target);
        self.check_objects(&filter, &all, provider)?;
        Ok(filter)
    }

    /// Checks that a filter selects something.
    ///
    /// # Errors
    /// If there is no such provider, object or statistic.
    pub(crate) fn check(&self, filter: &Filter) -> Result<()> {
        let provider = match filter.providers.as_deref() {
            Some([request]) => request.provider.as_deref(),
            _ => None,
        };
        self.check_provider(provider)?;
        self.check_objects(filter, &self.objects()?, provider)
    }

    fn check_objects(&self, filter: &Filter, all: &[Object], provider: Option<&str>) -> Result<()> {
        let schemas = self.schemas_meant(filter, all, provider)?;
        let names = filter.providers.iter().flatten().find_map(|request| request.names.as_ref());
        for unknown in check_names(names, &schemas)? {
            self.notices.add(Notice::UnknownName(unknown));
        }
        Ok(())
    }

    /// Returns the schemas of the objects that a filter means, whatever its names.
    ///
    /// # Errors
    /// If there is no such object.
    fn schemas_meant(
        &self,
        filter: &Filter,
        all: &[Object],
        provider: Option<&str>,
    ) -> Result<Vec<Arc<Schema>>> {
        let target = &filter.target;
        let is_meant = |object: &&Object| is_of(&object.schema, Some(target), provider);
        let mut objects: Vec<Object> = all.iter().filter(is_meant).cloned().collect();
        if objects.is_empty() {
            let known = all.iter().map(|object| &object.schema);
            let warnings = provider.map(|name| self.warnings(name)).unwrap_or_default();
            return Err(nothing_of(target, provider, known, self.bpf_status(), warnings));
        }
        check_vcpus(filter, &objects)?;
        objects.retain(|object| filter.wants(object));
        Ok(objects.into_iter().map(|object| object.schema).collect())
    }

    /// Returns the schemas of the target and provider that are selected; if none is, all but the
    /// sampler's own.
    ///
    /// # Errors
    /// If there is none, or none has any of the names.
    pub fn select_schemas(&self, selection: &Selection) -> Result<Vec<Arc<Schema>>> {
        let (provider, target) = (selection.provider.as_deref(), selection.target.as_ref());
        self.check_provider(provider)?;
        let wants_own = provider == Some(OWN_PROVIDER)
            || target.is_some_and(|target| target.name() == vmstrobe_sampler::TARGET);
        let is_meant = |schema: &&Arc<Schema>| {
            is_of(schema, target, provider) && (wants_own || schema.provider() != OWN_PROVIDER)
        };
        let all = self.schemas()?;
        let schemas: Vec<_> = all.iter().filter(is_meant).cloned().collect();
        if schemas.is_empty() {
            let target = target.cloned().unwrap_or(Target::Vcpu);
            return Err(nothing_of(&target, provider, &all, self.bpf_status(), Vec::new()));
        }
        for unknown in check_names(selection.names.as_ref(), &schemas)? {
            self.notices.add(Notice::UnknownName(unknown));
        }
        Ok(schemas)
    }

    /// Returns the state of the BPF reader; `None` if a recording is read.
    fn bpf_status(&self) -> Option<BpfStatus> {
        let is_recording = self.members.iter().any(Member::is_recording);
        (!is_recording).then(|| self.bpf.status())
    }

    fn check_provider(&self, provider: Option<&str>) -> Result<()> {
        let Some(name) = provider else { return Ok(()) };
        let schemas = self.schemas()?;
        let mut known: Vec<String> = schemas.iter().map(|one| one.provider().to_owned()).collect();
        if known.iter().any(|known| known == name) {
            return Ok(());
        }
        if self.has_threads() {
            // It would be there if it had been asked for.
            known.push(SCHED.to_owned());
        }
        known.sort_unstable();
        known.dedup();
        Err(Error::UnknownProvider { name: name.to_owned(), known })
    }
}

/// Returns the target if the user named none: vCPUs if there are any, else the only target that
/// there is, or else the only one that there could be.
fn default_target(
    objects: &[Object],
    schemas: &[Arc<Schema>],
    provider: Option<&str>,
) -> Result<Target> {
    let here = targets_of(foreign(objects.iter().map(|object| &object.schema), provider));
    let all = || targets_of(foreign(schemas, provider));
    let targets = if here.is_empty() { all() } else { here };
    match &targets[..] {
        // That there is nothing at all is found when it is looked for.
        [] => Ok(Target::Vcpu),
        [target] => Ok(target.clone()),
        _ if targets.contains(&Target::Vcpu) => Ok(Target::Vcpu),
        _ => Err(Error::UnclearTarget { targets }),
    }
}

/// Returns the schemas of a provider, if the user named one, or else all but the sampler's own.
fn foreign<'a>(
    schemas: impl IntoIterator<Item = &'a Arc<Schema>>,
    provider: Option<&str>,
) -> impl Iterator<Item = &'a Arc<Schema>> {
    schemas.into_iter().filter(move |schema| {
        let is_own = schema.provider() == OWN_PROVIDER;
        is_of(schema, None, provider) && (!is_own || provider.is_some())
    })
}

/// Returns the targets of schemas, each once.
fn targets_of<'a>(schemas: impl IntoIterator<Item = &'a Arc<Schema>>) -> Vec<Target> {
    let mut targets: Vec<Target> =
        schemas.into_iter().map(|schema| schema.target().clone()).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Returns the error that there is no object of that target and provider, only the known ones.
/// `bpf` is why the BPF reader is no help; `None` for a recording, which it could not help with.
fn nothing_of<'a>(
    target: &Target,
    provider: Option<&str>,
    known: impl IntoIterator<Item = &'a Arc<Schema>>,
    bpf: Option<BpfStatus>,
    warnings: Vec<vmstrobe_core::Error>,
) -> Error {
    let known: Vec<&Arc<Schema>> = known.into_iter().collect();
    let has_vcpus = known.iter().any(|schema| is_of(schema, Some(&Target::Vcpu), Some(KVM)));
    if *target == Target::Vm
        && has_vcpus
        && provider.is_none_or(|name| name == KVM)
        && let Some(bpf) = bpf
    {
        return Error::NoVmStatistics { bpf };
    }
    if known.iter().all(|schema| schema.provider() == OWN_PROVIDER) {
        return Error::NoObjectsNow;
    }
    let is_known = provider.is_none_or(|name| known.iter().any(|schema| schema.provider() == name));
    let others = known.iter().filter(|schema| is_known && schema.provider() != OWN_PROVIDER);
    let others = targets_of(others.copied());
    let (target, provider) = (target.clone(), provider.map(str::to_owned));
    Error::NoObjects { target, provider, known: others, warnings }
}

/// Returns true if the schema is of that target and provider, where one is named.
fn is_of(schema: &Schema, target: Option<&Target>, provider: Option<&str>) -> bool {
    target.is_none_or(|target| target == schema.target())
        && provider.is_none_or(|provider| provider == schema.provider())
}

/// Returns the names that no statistic of these schemas has.
///
/// # Errors
/// If the names select none at all.
fn check_names(names: Option<&Names>, schemas: &[Arc<Schema>]) -> Result<Vec<UnknownName>> {
    let descs = || schemas.iter().flat_map(|schema| schema.descs());
    let known: Vec<&str> = descs().map(|desc| &*desc.name).collect();
    let unmatched = names.map(|names| names.unmatched(&known)).into_iter().flatten();
    let unknown: Vec<_> = unmatched.map(|name| UnknownName::new(name, &known)).collect();
    match descs().any(|desc| names.is_none_or(|names| names.wants(&desc.name))) {
        true => Ok(unknown),
        false => Err(Error::NoSuchStatistic { unknown }),
    }
}

fn check_vcpus(filter: &Filter, objects: &[Object]) -> Result<()> {
    match filter.unmatched_vcpus(objects).first() {
        None => Ok(()),
        Some(vcpu) => Err(Error::NoSuchVcpu { vcpu: (*vcpu).clone(), known: objects.to_vec() }),
    }
}

#[cfg(test)]
mod tests;
