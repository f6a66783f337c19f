//! The arguments of `query-stats`: QAPI's `StatsFilter` as our [`Filter`].
//!
//! Invariant: members are looked at in QEMU's order, so that of several errors the same one is
//! told. A list that is empty wants nothing, one that is absent everything; what nobody has by that
//! name or path is no error.

use vmstrobe_core::Order;
use vmstrobe_core::{Filter, Names, Request, Schema, Target, VcpuRef};
use vmstrobe_sampler::Census;

use super::members::{Members, bad_enum};
use super::refusal::Refusal;

/// QAPI `StatsTarget` of QEMU 10.0.
pub(super) const TARGETS: [&str; 3] = ["vm", "vcpu", "cryptodev"];
/// QAPI `StatsProvider` of QEMU 10.0.
pub(super) const PROVIDERS: [&str; 2] = ["kvm", "cryptodev"];
/// The provider that, in QEMU, does not look at names.
pub(super) const NAMELESS: &str = "cryptodev";
/// The most entries of `providers`: each has results of its own.
pub(super) const MAX_REQUESTS: usize = 64;

/// Takes the members of a `StatsFilter`; what else there is stays.
///
/// # Errors
/// The first that QEMU would have named.
pub(super) fn stats_filter(members: &mut Members<'_>, census: &Census) -> Result<Filter, Refusal> {
    let target = members.string("target")?;
    if !is_known(target, &TARGETS, census, |schema| schema.target().name()) {
        return Err(bad_enum(Some("target"), target));
    }
    let target = Target::from_name(target);
    let providers = match members.optional_list("providers")? {
        None => None,
        Some(entries) => {
            let mut requests = Vec::new();
            for (at, entry) in entries.iter().enumerate() {
                let path = format!("{}[{at}]", members.path("providers"));
                requests.extend(request(Members::of(entry, path)?, census)?);
            }
            Some(requests)
        }
    };
    let mut vcpus = None;
    if target == Target::Vcpu {
        let paths = members.optional_strings("vcpus")?;
        vcpus = paths.map(|paths| paths.iter().map(|p| VcpuRef::Path((*p).to_owned())).collect());
    }
    if providers.as_ref().is_some_and(|requests| requests.len() > MAX_REQUESTS) {
        let text = format!("Parameter 'providers' has more than {MAX_REQUESTS} entries");
        return Err(Refusal::generic(text));
    }
    Ok(Filter { target, providers, vcpus })
}

/// One entry of `providers`; nothing if it wants nothing.
fn request(mut members: Members<'_>, census: &Census) -> Result<Option<Request>, Refusal> {
    let provider = provider(members.string("provider")?, census)?;
    let names = members.optional_strings("names")?;
    members.finish()?;
    if names.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    Ok(Some(Request { provider: Some(provider.to_owned()), names: names.map(Names::exact) }))
}

/// A provider's name, if there is such a one.
///
/// # Errors
/// If there is none.
pub(super) fn provider<'v>(name: &'v str, census: &Census) -> Result<&'v str, Refusal> {
    if is_known(name, &PROVIDERS, census, Schema::provider) {
        return Ok(name);
    }
    Err(bad_enum(Some("provider"), name))
}

/// Is it one of QEMU's, or one that somebody's schema has?
pub(super) fn is_known(
    name: &str,
    qemus: &[&str],
    census: &Census,
    of: impl Fn(&Schema) -> &str,
) -> bool {
    qemus.contains(&name) || census.schemas().iter().any(|schema| of(schema) == name)
}

/// A filter for each entry of `providers`, because each has results of its own.
pub(super) fn parts(filter: Filter, order: Order) -> Vec<Filter> {
    let Filter { target, providers, vcpus } = filter;
    let Some(requests) = providers else {
        return vec![Filter { target, providers: None, vcpus }];
    };
    let part = |mut request: Request| {
        if order == Order::Qemu && request.provider.as_deref() == Some(NAMELESS) {
            request.names = None;
        }
        let (target, vcpus) = (target.clone(), vcpus.clone());
        Filter { target, providers: Some(vec![request]), vcpus }
    };
    requests.into_iter().map(part).collect()
}
