//! The check of what the user asks for against what there is.
//!
//! Invariant: a filter that leaves here selects at least one statistic of at least one object.
//! Whatever of it matches nothing is named: it is an error where nothing else would be left, or
//! where an object was meant; a mere warning where it was one name among others.

use std::sync::Arc;

use vmstrobe_core::{Filter, Names, Object, Provider, Request, Schema, Target, VcpuRef, VcpuSet};
use vmstrobe_providers::BpfStatus;
use vmstrobe_sampler::PROVIDER as OWN_PROVIDER;

use crate::args::{ProviderSet, SCHED, Vcpus, Wanted};
use crate::engine::{Engine, providers};
use crate::error::{Error, Result, with_causes};
use crate::out::say;

/// How many near names a text suggests.
const NEAR_MAX: usize = 3;
/// How like a name must be to be suggested: 1 is equal.
const NEAR_MIN: f64 = 0.5;

/// The statistics that the user asks for, by whichever command.
#[derive(Debug)]
pub(crate) struct Ask {
    /// `None` for the kind of object that there is.
    pub(crate) target: Option<Target>,
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

    fn filter(self, target: Target) -> Filter {
        let Self { provider, names, vcpus, .. } = self;
        let request = Request { provider, names };
        let vcpus: VcpuSet = vcpus.iter().map(|vcpu| VcpuRef::parse(vcpu)).collect();
        let vcpus = (!vcpus.is_empty()).then_some(vcpus);
        Filter { target, providers: Some(vec![request]), vcpus }
    }
}

impl Engine {
    /// The filter that the user means.
    ///
    /// # Errors
    /// If there is no such provider, object or statistic, or it is not clear which kind of object
    /// is meant.
    pub(crate) fn filter(&self, ask: Ask) -> Result<Filter> {
        self.check_provider(ask.provider.as_deref())?;
        let (all, schemas) = (self.objects()?, self.schemas()?);
        let provider = ask.provider.as_deref();
        let target = match &ask.target {
            Some(target) => target.clone(),
            None => default_target(&all, &schemas, provider)?,
        };
        if !ask.vcpus.is_empty() && target != Target::Vcpu {
            let text = format!("--vcpu selects vCPUs: leave it out for target {target}");
            return Err(Error::usage(text));
        }
        let is_meant = |object: &&Object| is_of(&object.schema, Some(&target), provider);
        let mut objects: Vec<Object> = all.iter().filter(is_meant).cloned().collect();
        if objects.is_empty() {
            let known = all.iter().map(|object| &object.schema);
            let none = nothing_of(&target, provider, known, &self.bpf.status());
            return Err(self.explained(none, provider));
        }
        let names = ask.names.clone();
        let filter = ask.filter(target);
        check_vcpus(&filter, &objects)?;
        objects.retain(|object| filter.wants(object));
        let schemas: Vec<_> = objects.into_iter().map(|object| object.schema).collect();
        check_names(names.as_ref(), &schemas)?;
        Ok(filter)
    }

    /// The schemas of the target and provider that the user named, or of all but our own.
    ///
    /// # Errors
    /// If there is none, or none has any of the names.
    pub(crate) fn wanted_schemas(&self, wanted: &Wanted) -> Result<Vec<Arc<Schema>>> {
        let provider = wanted.provider.as_deref();
        self.check_provider(provider)?;
        let (all, target) = (self.schemas()?, wanted.target());
        let is_meant = |schema: &&Arc<Schema>| {
            let is_ours = schema.provider() == OWN_PROVIDER;
            is_of(schema, target.as_ref(), provider)
                && (!is_ours || wanted.whose() == ProviderSet::Own)
        };
        let schemas: Vec<_> = all.iter().filter(is_meant).cloned().collect();
        if schemas.is_empty() {
            let target = target.unwrap_or(Target::Vcpu);
            return Err(nothing_of(&target, provider, &all, &self.bpf.status()));
        }
        check_names(wanted.names.as_ref(), &schemas)?;
        Ok(schemas)
    }

    fn check_provider(&self, provider: Option<&str>) -> Result<()> {
        let Some(provider) = provider else { return Ok(()) };
        let schemas = self.schemas()?;
        let mut known: Vec<&str> = schemas.iter().map(|schema| schema.provider()).collect();
        if known.contains(&provider) {
            return Ok(());
        }
        if self.providers.has_threads() {
            // It would be there if it had been named.
            known.push(SCHED);
        }
        let mut text = format!("there is no provider '{provider}' here, only {}", joined(known));
        if provider == SCHED {
            text += ": it is of virtual machines that run on this host, named by -p or --all";
        }
        Err(Error::failed(text))
    }

    /// The error with what that provider warns of, which may be why it has nothing.
    fn explained(&self, error: Error, provider: Option<&str>) -> Error {
        let is_meant = |one: &dyn Provider| Some(one.name()) == provider;
        let warnings = providers::warnings(&self.providers.registry, is_meant);
        let mut text = error.to_string();
        warnings.iter().for_each(|warning| text += &format!(": {}", with_causes(warning)));
        Error::failed(text)
    }
}

/// Returns the target if the user named none: vCPUs if there are any, else the only target that
/// there is, or else the only one that there could be.
fn default_target(
    objects: &[Object],
    schemas: &[Arc<Schema>],
    provider: Option<&str>,
) -> Result<Target> {
    let is_meant = |schema: &&Arc<Schema>| {
        let is_ours = schema.provider() == OWN_PROVIDER;
        is_of(schema, None, provider) && (!is_ours || provider.is_some())
    };
    let here: Vec<_> = objects.iter().map(|object| &object.schema).filter(is_meant).collect();
    let all = || schemas.iter().filter(is_meant).collect();
    let schemas = if here.is_empty() { all() } else { here };
    let mut targets: Vec<&Target> = schemas.iter().map(|schema| schema.target()).collect();
    targets.sort_unstable();
    targets.dedup();
    match targets[..] {
        // That there is nothing at all, who looks for it says.
        [] => Ok(Target::Vcpu),
        [target] => Ok(target.clone()),
        _ if targets.contains(&&Target::Vcpu) => Ok(Target::Vcpu),
        _ => {
            let targets = joined(targets.iter().map(|target| target.name()));
            let text = format!("there are no vCPUs here, but objects of target {targets}");
            Err(Error::usage(format!("{text}: select one with --target")))
        }
    }
}

/// There is none of these, only of those targets. `bpf` is why the BPF reader is no help.
fn nothing_of<'a>(
    target: &Target,
    provider: Option<&str>,
    known: impl IntoIterator<Item = &'a Arc<Schema>>,
    bpf: &BpfStatus,
) -> Error {
    let known: Vec<&Schema> = known.into_iter().map(|schema| &**schema).collect();
    let has_vcpus = known.iter().any(|schema| is_of(schema, Some(&Target::Vcpu), Some("kvm")));
    if *target == Target::Vm && has_vcpus && provider.is_none_or(|name| name == "kvm") {
        return Error::failed(format!(
            "there are no statistics of the virtual machine as a whole: its VMM keeps no stats fd \
             of it open (QEMU opens one only while it answers query-stats), and the BPF reader, \
             which needs none, cannot be used: {bpf}. Ask QEMU itself: --from-qmp SOCKET; \
             or read the vCPUs: --target vcpu",
        ));
    }
    if known.iter().all(|schema| schema.provider() == OWN_PROVIDER) {
        return Error::failed(
            "no source has objects with statistics at present; try again when it has some",
        );
    }
    let of_others = known.iter().filter(|schema| schema.provider() != OWN_PROVIDER);
    let has = |name: &str| known.iter().any(|schema| schema.provider() == name);
    Error::failed(match provider {
        Some(name) if !has(name) => {
            format!("provider '{name}' has no objects of target '{target}' here")
        }
        _ => {
            let of = provider.map(|name| format!(" of provider '{name}'")).unwrap_or_default();
            let known = joined(of_others.map(|schema| schema.target().name()));
            format!("there are no objects of target '{target}'{of} here, only of {known}")
        }
    })
}

/// `a`, `a and b`, `a, b and c`: each once, in the order of the alphabet.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
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
    let line = |object: &Object| {
        let index = object.index.map(|index| format!("{index:>4}  ")).unwrap_or_default();
        format!("  {index}{}", object.path)
    };
    let text = format!("there is no vCPU {first}, only");
    Err(Error::failed(text).above(objects.iter().map(line)))
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

    fn object(provider: &str, target: &str) -> Object {
        let schema = Schema::new(provider, Target::from_name(target), Vec::new());
        Object { path: "/a".into(), index: None, schema, key: 0 }
    }

    #[test]
    fn vcpus_are_meant_or_else_the_only_kind_there_is() {
        let own = (OWN_PROVIDER, vmstrobe_sampler::TARGET);
        for (objects, provider, want) in [
            (&[("kvm", "vm"), ("kvm", "vcpu"), ("xyz", "queue")][..], None, Ok("vcpu")),
            (&[("kvm", "vm"), ("kvm", "vcpu"), ("xyz", "queue")], Some("kvm"), Ok("vcpu")),
            (&[("kvm", "vcpu"), ("xyz", "queue"), ("xyz", "queue")], Some("xyz"), Ok("queue")),
            (&[("cryptodev", "cryptodev")], None, Ok("cryptodev")),
            (&[], None, Ok("vcpu")),
            (&[], Some(OWN_PROVIDER), Ok(own.1)),
            (
                &[("xyz", "queue"), ("cryptodev", "cryptodev"), ("xyz", "disk")],
                None,
                Err("no vCPUs here, but objects of target cryptodev, disk and queue: select one"),
            ),
            (
                &[("xyz", "queue"), ("xyz", "disk")],
                Some("xyz"),
                Err("disk and queue: select one with"),
            ),
        ] {
            let objects: Vec<Object> =
                objects.iter().chain([&own]).map(|(name, target)| object(name, target)).collect();
            match (default_target(&objects, &[], provider), want) {
                (Ok(target), Ok(want)) => assert_eq!(target.name(), want),
                (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
                (got, want) => panic!("{got:?} is not {want:?}"),
            }
        }
        // QEMU can tell of crypto devices before it has any.
        let could = [object("cryptodev", "cryptodev").schema];
        let target = default_target(&[], &could, Some("cryptodev")).map_err(|e| e.to_string());
        assert_eq!(target, Ok(Target::Cryptodev));
    }

    #[test]
    fn what_there_is_instead_is_said() {
        let vcpus = object("kvm", "vcpu").schema;
        let queues = object("xyz", "queue").schema;
        let text = |target: &str, provider, known: &[&Arc<Schema>]| {
            let (target, known) = (Target::from_name(target), known.iter().copied());
            nothing_of(&target, provider, known, &BpfStatus::Off).to_string()
        };
        let none = text("vm", None, &[&vcpus]);
        assert!(none.contains("switched off. Ask QEMU itself: --from-qmp SOCKET; or"), "{none}");
        for (target, provider, of) in [("vm", None, ""), ("vm", Some("xyz"), " of provider 'xyz'")]
        {
            let want = format!("there are no objects of target '{target}'{of} here, only of queue");
            assert_eq!(text(target, provider, &[&queues, &queues]), want);
        }
        assert!(text("disk", None, &[&vcpus, &queues]).ends_with("only of queue and vcpu"));
        let own = object(OWN_PROVIDER, vmstrobe_sampler::TARGET).schema;
        assert!(text("vcpu", None, &[&own]).starts_with("no source has objects"));
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
            let vcpus = Some([VcpuRef::parse(vcpu)].into_iter().collect());
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
