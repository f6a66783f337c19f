//! The arguments of `query-stats`: QAPI's `StatsFilter` as a [`Filter`].
//!
//! Invariant: members are taken in QEMU's order, so that of several errors the same one is
//! reported. An empty list selects nothing, and an absent one everything. A name or path that no
//! object has is no error.

use vmstrobe_core::{Filter, Names, Request, Schema, Target, VcpuRef, VcpuSet};
use vmstrobe_sampler::Catalog;

use super::members::{Members, bad_enum};
use super::refusal::Refusal;
use super::value::Value;

/// QAPI `StatsTarget` of QEMU 10.0.
pub(super) const TARGETS: [&str; 3] = ["vm", "vcpu", "cryptodev"];
/// QAPI `StatsProvider` of QEMU 10.0.
pub(super) const PROVIDERS: [&str; 2] = ["kvm", "cryptodev"];
/// The provider that ignores names in QEMU.
pub(super) const NAMELESS: &str = "cryptodev";
/// The most entries of `providers`. Each has its own results.
pub(super) const MAX_REQUESTS: usize = 64;
/// The most names in all entries of `providers`. Each is compared with each statistic.
pub(super) const MAX_NAMES: usize = 4096;
/// The most bytes of those names. Each is stored more than once while a query is prepared.
pub(super) const MAX_NAMES_BYTES: usize = 256 << 10;
/// The most vCPUs that a filter names, as many as two VMs of the largest size have. A client that
/// wants more names none and gets all.
pub(super) const MAX_VCPUS: usize = 1 << 13;

/// Takes the members of a `StatsFilter`, and leaves other members.
///
/// # Errors
/// GenericError, the one that QEMU reports first.
pub(super) fn stats_filter(
    members: &mut Members<'_>,
    catalog: &Catalog,
) -> Result<Filter, Refusal> {
    let target = members.string("target")?;
    if !is_known(target, &TARGETS, catalog, |schema| schema.target().name()) {
        return Err(bad_enum(Some("target"), target));
    }
    let target = Target::from_name(target);
    let providers = match members.optional_list("providers")? {
        None => None,
        Some(entries) => Some(requests(entries, members, catalog)?),
    };
    let mut vcpus = None;
    if target == Target::Vcpu {
        vcpus = members.optional_strings("vcpus")?;
    }
    // Our own limits are checked last, so that an error that QEMU finds is reported as QEMU does.
    let Requests { requests, entries, names, bytes } = providers.unwrap_or_default();
    if entries > MAX_REQUESTS {
        let text = format!("Parameter 'providers' has more than {MAX_REQUESTS} entries");
        return Err(Refusal::generic(text));
    }
    if names > MAX_NAMES {
        let text = format!("Parameter 'providers' has more than {MAX_NAMES} names");
        return Err(Refusal::generic(text));
    }
    if bytes > MAX_NAMES_BYTES {
        let text = format!("Parameter 'providers' has names of more than {MAX_NAMES_BYTES} bytes");
        return Err(Refusal::generic(text));
    }
    let vcpus = vcpus.map(vcpu_set).transpose()?;
    Ok(Filter { target, providers: requests, vcpus })
}

/// The entries of `providers` that are within the limits.
#[derive(Default)]
struct Requests {
    /// `None` if the list is absent.
    requests: Option<Vec<Request>>,
    /// The number of entries that want something.
    entries: usize,
    /// The number of their names, and the bytes of these.
    names: usize,
    bytes: usize,
}

fn requests(
    list: &[Value<'_>],
    members: &Members<'_>,
    catalog: &Catalog,
) -> Result<Requests, Refusal> {
    let (mut requests, mut entries, mut count, mut bytes) = (Vec::new(), 0, 0, 0);
    for (at, entry) in list.iter().enumerate() {
        let path = format!("{}[{at}]", members.path("providers"));
        let mut members = Members::of(entry, path)?;
        let provider = provider(members.string("provider")?, catalog)?;
        let names = members.optional_strings("names")?;
        members.finish()?;
        if names.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        entries += 1;
        count += names.as_ref().map_or(0, Vec::len);
        bytes += names.iter().flatten().map(|name| name.len()).sum::<usize>();
        // Entries of a request that will be refused are not kept.
        if entries <= MAX_REQUESTS && count <= MAX_NAMES && bytes <= MAX_NAMES_BYTES {
            let names = names.map(Names::exact);
            requests.push(Request { provider: Some(provider.to_owned()), names });
        }
    }
    Ok(Requests { requests: Some(requests), entries, names: count, bytes })
}

/// Makes the set of these paths.
///
/// # Errors
/// GenericError if there are more than [`MAX_VCPUS`].
fn vcpu_set(mut paths: Vec<&str>) -> Result<VcpuSet, Refusal> {
    paths.sort_unstable();
    paths.dedup();
    if paths.len() > MAX_VCPUS {
        let text = format!("Parameter 'vcpus' has more than {MAX_VCPUS} paths");
        return Err(Refusal::generic(text));
    }
    Ok(paths.into_iter().map(|path| VcpuRef::Path(path.to_owned())).collect())
}

/// Returns the name if there is such a provider.
///
/// # Errors
/// GenericError if there is none.
pub(super) fn provider<'v>(name: &'v str, catalog: &Catalog) -> Result<&'v str, Refusal> {
    if is_known(name, &PROVIDERS, catalog, Schema::provider) {
        return Ok(name);
    }
    Err(bad_enum(Some("provider"), name))
}

/// Returns whether QEMU or a schema of the catalog has this name.
pub(super) fn is_known(
    name: &str,
    qemus: &[&str],
    catalog: &Catalog,
    of: impl Fn(&Schema) -> &str,
) -> bool {
    qemus.contains(&name) || catalog.schemas().iter().any(|schema| of(schema) == name)
}

/// Returns a filter for each entry of `providers`, because each has its own results.
pub(super) fn parts(filter: &Filter) -> Vec<Filter> {
    let part = |requests| Filter {
        target: filter.target.clone(),
        providers: requests,
        vcpus: filter.vcpus.clone(),
    };
    match &filter.providers {
        None => vec![part(None)],
        Some(requests) => requests.iter().map(|r| part(Some(vec![r.clone()]))).collect(),
    }
}

/// Drops the names for the provider that ignores them in QEMU.
pub(super) fn as_in_qemu(filter: &mut Filter) {
    for request in filter.providers.iter_mut().flatten() {
        if request.provider.as_deref() == Some(NAMELESS) {
            request.names = None;
        }
    }
}
