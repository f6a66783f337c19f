//! What is wanted, checked against what there is.
//!
//! Invariant: a filter that leaves here selects at least one statistic of at least one object.
//! Whatever of it matches nothing is named: it is an error where nothing else would be left, or
//! where an object was meant; a mere warning where it was one name among others.

use std::sync::Arc;

use vmstrobe_core::{Filter, Names, Object, Request, Schema, Target, VcpuRef};

use crate::args::{Vcpus, Wanted};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::out::say;

/// How many near names a text suggests.
const NEAR_MAX: usize = 3;
/// How like a name must be to be suggested: 1 is equal.
const NEAR_MIN: f64 = 0.5;

/// What the user asks for, in the words of whichever command.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) target: Target,
    pub(crate) provider: Option<String>,
    pub(crate) names: Option<Names>,
    pub(crate) vcpus: Vec<String>,
}

impl Ask {
    pub(crate) fn new(wanted: &Wanted, vcpus: &Vcpus) -> Self {
        Self {
            target: wanted.target(),
            provider: wanted.provider.clone(),
            names: wanted.names.clone(),
            vcpus: vcpus.vcpus.clone(),
        }
    }

    fn filter(self) -> Filter {
        let Self { target, provider, names, vcpus } = self;
        let request = Request { provider, names };
        let vcpus: Vec<VcpuRef> = vcpus.iter().map(|vcpu| VcpuRef::parse(vcpu)).collect();
        let vcpus = (!vcpus.is_empty()).then_some(vcpus);
        Filter { target, providers: Some(vec![request]), vcpus }
    }
}

impl Engine {
    /// The filter that the user means.
    ///
    /// # Errors
    /// If there is no such provider, object or statistic.
    pub(crate) fn filter(&self, ask: Ask) -> Result<Filter> {
        self.check_provider(ask.provider.as_deref())?;
        if !ask.vcpus.is_empty() && ask.target != Target::Vcpu {
            let text =
                format!("--vcpu chooses among vCPUs: leave it out for target {}", ask.target);
            return Err(Error::usage(text));
        }
        let mut objects = self.objects()?;
        objects.retain(|object| is_of(&object.schema, Some(&ask.target), ask.provider.as_deref()));
        if objects.is_empty() {
            return Err(self.nothing_of(&ask.target, ask.provider.as_deref()));
        }
        let names = ask.names.clone();
        let filter = ask.filter();
        check_vcpus(&filter, &objects)?;
        objects.retain(|object| filter.wants(object));
        let schemas: Vec<_> = objects.into_iter().map(|object| object.schema).collect();
        check_names(names.as_ref(), &schemas)?;
        Ok(filter)
    }

    /// The schemas of the target and provider that the user named, or of all.
    ///
    /// # Errors
    /// If there is none, or none has any of the names.
    pub(crate) fn wanted_schemas(&self, wanted: &Wanted) -> Result<Vec<Arc<Schema>>> {
        let provider = wanted.provider.as_deref();
        self.check_provider(provider)?;
        let target = wanted.target.as_deref().map(Target::from_name);
        let mut schemas = self.schemas()?;
        schemas.retain(|schema| is_of(schema, target.as_ref(), provider));
        if schemas.is_empty() {
            return Err(self.nothing_of(&target.unwrap_or(Target::Vcpu), provider));
        }
        check_names(wanted.names.as_ref(), &schemas)?;
        Ok(schemas)
    }

    fn check_provider(&self, provider: Option<&str>) -> Result<()> {
        let known = self.provider_names();
        match provider {
            Some(provider) if !known.iter().any(|name| name == provider) => {
                let known = known.join(" and ");
                Err(Error::failed(format!("there is no provider '{provider}' here, only {known}")))
            }
            _ => Ok(()),
        }
    }

    fn nothing_of(&self, target: &Target, provider: Option<&str>) -> Error {
        if *target == Target::Vm && provider.is_none_or(|name| name == "kvm") {
            return Error::failed(
                "there are no statistics of the virtual machine as a whole: its VMM keeps no stats \
                 fd of it open (QEMU opens one only while it answers query-stats). Its vCPUs can \
                 be read: --target vcpu",
            );
        }
        let schemas = self.schemas().unwrap_or_default();
        let mut known: Vec<&str> = schemas.iter().map(|schema| schema.target().name()).collect();
        known.sort_unstable();
        known.dedup();
        let of = provider.map(|name| format!(" of provider '{name}'")).unwrap_or_default();
        let known = known.join(" and ");
        Error::failed(format!(
            "there is nothing of target '{target}'{of} to read here, only of {known}"
        ))
    }
}

/// Is it of that target and provider, if any is named?
fn is_of(schema: &Schema, target: Option<&Target>, provider: Option<&str>) -> bool {
    target.is_none_or(|target| target == schema.target())
        && provider.is_none_or(|provider| provider == schema.provider())
}

/// Says which names no statistic of these schemas has.
///
/// # Errors
/// If the names select none at all.
fn check_names(names: Option<&Names>, schemas: &[Arc<Schema>]) -> Result<()> {
    let descs = || schemas.iter().flat_map(|schema| schema.descs());
    let known: Vec<&str> = descs().map(|desc| &*desc.name).collect();
    let complaints: Vec<String> = names
        .map(|names| names.unmatched(&known))
        .into_iter()
        .flatten()
        .map(|name| format!("no statistic {}", suggestion(name, &known)))
        .collect();
    if !descs().any(|desc| names.is_none_or(|names| names.wants(&desc.name))) {
        let nothing = "no statistic is selected: `vmstrobe schema` shows what there is".to_owned();
        let text = if complaints.is_empty() { nothing } else { complaints.join("; ") };
        return Err(Error::failed(text));
    }
    complaints.iter().for_each(say);
    Ok(())
}

/// `named 'exit': did you mean 'exits'?`
fn suggestion(typed: &str, known: &[&str]) -> String {
    if typed.contains(['*', '?', '/']) {
        return format!("matches '{typed}'");
    }
    let likeness = |name: &str| {
        let like = strsim::normalized_damerau_levenshtein(typed, name);
        // A part of a name is a good hint, whatever else is in it.
        if typed.len() > 2 && name.contains(typed) { like.max(NEAR_MIN) } else { like }
    };
    let mut near: Vec<(f64, &str)> = known.iter().map(|name| (likeness(name), *name)).collect();
    near.retain(|(like, _)| *like >= NEAR_MIN);
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.dedup();
    let near: Vec<String> =
        near.iter().take(NEAR_MAX).map(|(_, name)| format!("'{name}'")).collect();
    match near.join(", ") {
        near if near.is_empty() => format!("named '{typed}'"),
        near => format!("named '{typed}': did you mean {near}?"),
    }
}

fn check_vcpus(filter: &Filter, objects: &[Object]) -> Result<()> {
    let unmatched = filter.unmatched_vcpus(objects);
    let Some(first) = unmatched.first() else { return Ok(()) };
    let first = match first {
        VcpuRef::Path(path) => format!("'{path}'"),
        VcpuRef::Index(index) => index.to_string(),
    };
    let mut text = format!("there is no vCPU {first}, only");
    for object in objects {
        let index = object.index.map(|index| format!("{index:>4}  ")).unwrap_or_default();
        text += &format!("\n  {index}{}", object.path);
    }
    Err(Error::failed(text))
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Desc;

    use super::*;

    const KNOWN: [&str; 5] = ["exits", "irq_exits", "halt_exits", "halt_wait_ns", "blocking"];

    #[test]
    fn near_names_are_suggested() {
        for (typed, want) in [
            ("exit", "named 'exit': did you mean 'exits', 'irq_exits', 'halt_exits'?"),
            ("halt_wait", "named 'halt_wait': did you mean 'halt_wait_ns', 'halt_exits'?"),
            ("blokcing", "named 'blokcing': did you mean 'blocking'?"),
            ("zzz", "named 'zzz'"),
            ("zzz*", "matches 'zzz*'"),
        ] {
            assert_eq!(suggestion(typed, &KNOWN), want);
        }
    }

    #[test]
    fn a_filter_selects_something_or_is_refused() {
        let descs = KNOWN.iter().zip(0..).map(|(name, i)| Desc::counter(name, 8 * i)).collect();
        let schema = Schema::new("kvm", Target::Vcpu, descs);
        let check = |names: &str| {
            let names = Names::parse(names).expect(names);
            check_names(Some(&names), &[Arc::clone(&schema)]).map_err(|error| error.to_string())
        };
        assert_eq!(check("exits,nope"), Ok(()));
        let none = "no statistic named 'nope'; no statistic matches 'zzz*'";
        assert_eq!(check("nope,zzz*"), Err(none.to_owned()));
        assert!(check("exits,-exits").is_err_and(|text| text.contains("vmstrobe schema")));
    }

    #[test]
    fn an_unknown_vcpu_is_told_from_those_there_are() {
        let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
        let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 0 };
        let check = |vcpu: &str| {
            let vcpus = Some(vec![VcpuRef::parse(vcpu)]);
            check_vcpus(
                &Filter { vcpus, ..Filter::all(Target::Vcpu) },
                std::slice::from_ref(&object),
            )
        };
        assert!(check("0").is_ok() && check("/vm/a/vcpu[0]").is_ok());
        let text = check("7").expect_err("there is none").to_string();
        assert_eq!(text, "there is no vCPU 7, only\n     0  /vm/a/vcpu[0]");
        assert!(check("/vm/b").is_err());
    }
}
