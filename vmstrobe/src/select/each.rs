//! Selections of several targets, as recordings keep them.
//!
//! Invariant: of the names, each must be that of a statistic of any of the targets; a target that
//! was named has at least one of them, and another that has none is left out.

use std::sync::Arc;

use vmstrobe_core::{Filter, Names, Schema, Target};

use super::{Selection, check_names, foreign, is_of, nothing_of, targets_of};
use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::notice::Notice;
use crate::unknown_name::UnknownName;

impl Selection {
    /// Returns the filters that this selection stands for in a recording with these schemas, one
    /// for each target, and the names that match nothing beside others that do. `targets` are meant
    /// beside the selection's own; if there is none at all, all targets are, or vCPUs alone if some
    /// of them were chosen.
    ///
    /// # Errors
    /// If there is no such target or provider, or none of the names.
    pub fn filters(
        &self,
        targets: &[Target],
        schemas: &[Arc<Schema>],
    ) -> Result<(Vec<Filter>, Vec<UnknownName>)> {
        let provider = self.provider.as_deref();
        let named = self.named(targets);
        let targets = match &named[..] {
            [] if !self.vcpus.is_empty() => vec![Target::Vcpu],
            [] => targets_of(schemas.iter().filter(|schema| is_of(schema, None, provider))),
            named => named.to_vec(),
        };
        if targets.is_empty() {
            return Err(nothing_of(&Target::Vcpu, provider, schemas, None, Vec::new()));
        }
        let mut meant = Vec::new();
        for target in targets {
            let of_target = schemas.iter().filter(|one| is_of(one, Some(&target), provider));
            let of_target: Vec<Arc<Schema>> = of_target.cloned().collect();
            if of_target.is_empty() {
                return Err(nothing_of(&target, provider, schemas, None, Vec::new()));
            }
            meant.push((self.filter(target), of_target));
        }
        with_statistics(meant, self.names.as_ref(), !named.is_empty())
    }

    /// Returns the targets that the user named, each once: the selection's own, and these.
    fn named(&self, targets: &[Target]) -> Vec<Target> {
        let mut named: Vec<Target> = self.target.iter().chain(targets).cloned().collect();
        named.sort_unstable();
        named.dedup();
        named
    }
}

impl Attachment {
    /// Returns the filters that the user means, one for each target: `targets` beside the
    /// selection's own; if there is none at all, all that there are objects of, or vCPUs alone if
    /// some of them were chosen. The sampler's own statistics are meant only by name. Notices as of
    /// [`Attachment::select`].
    ///
    /// # Errors
    /// If there is no such provider, object or statistic, or a target that was named has none of
    /// the names.
    pub fn select_each(&self, targets: &[Target], selection: &Selection) -> Result<Vec<Filter>> {
        let provider = selection.provider.as_deref();
        self.check_provider(provider)?;
        let all = self.objects()?;
        let named = selection.named(targets);
        let targets = match &named[..] {
            [] if !selection.vcpus.is_empty() => vec![Target::Vcpu],
            [] => targets_of(foreign(all.iter().map(|object| &object.schema), provider)),
            named => named.to_vec(),
        };
        if !selection.vcpus.is_empty() && !targets.contains(&Target::Vcpu) {
            let target = targets.into_iter().next().unwrap_or(Target::Vm);
            return Err(Error::VcpusOfTarget { target });
        }
        if targets.is_empty() {
            // This finds out why there is nothing.
            return Ok(vec![self.select(selection)?]);
        }
        let mut meant = Vec::new();
        for target in targets {
            let filter = selection.filter(target);
            let schemas = self.schemas_meant(&filter, &all, provider)?;
            meant.push((filter, schemas));
        }
        let names = selection.names.as_ref();
        let (filters, unknown) = with_statistics(meant, names, !named.is_empty())?;
        unknown.into_iter().for_each(|name| self.notices.add(Notice::UnknownName(name)));
        Ok(filters)
    }

    /// Returns the schemas with those statistics alone that the filters select.
    ///
    /// # Errors
    /// If a provider cannot give its schemas.
    pub fn selected_schemas(&self, filters: &[Filter]) -> Result<Vec<Arc<Schema>>> {
        let all = self.schemas()?;
        let selected = all.iter().filter_map(|schema| {
            let filter = filters.iter().find(|filter| filter.target == *schema.target())?;
            let mask = filter.compile(schema);
            let descs: Vec<_> = mask.iter().map(|at| schema.descs()[at].clone()).collect();
            let narrowed =
                || Schema::new(schema.provider(), schema.target().clone(), descs.clone());
            (!descs.is_empty()).then(narrowed)
        });
        Ok(selected.collect())
    }
}

/// Returns the filters that select any statistic of their schemas, and the names that no schema
/// has.
///
/// # Errors
/// If no filter selects any; if `all` must, and one of them does not.
fn with_statistics(
    meant: Vec<(Filter, Vec<Arc<Schema>>)>,
    names: Option<&Names>,
    all: bool,
) -> Result<(Vec<Filter>, Vec<UnknownName>)> {
    let schemas: Vec<_> = meant.iter().flat_map(|(_, schemas)| schemas).cloned().collect();
    let unknown = check_names(names, &schemas)?;
    let mut filters = Vec::new();
    for (filter, schemas) in meant {
        match check_names(names, &schemas) {
            Ok(_) => filters.push(filter),
            Err(error) if all => return Err(error),
            Err(_) => {}
        }
    }
    Ok((filters, unknown))
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Desc, Mask};

    use super::*;

    fn schema(provider: &str, target: &str, names: &[&str]) -> Arc<Schema> {
        let descs = names.iter().zip(0..).map(|(name, at)| Desc::counter(name, 8 * at)).collect();
        Schema::new(provider, Target::from_name(target), descs)
    }

    #[test]
    fn each_target_has_a_filter_unless_it_has_none_of_the_names() {
        let schemas = [
            schema("kvm", "vm", &["pages_4k", "fd"]),
            schema("kvm", "vcpu", &["exits", "fd"]),
            schema("xyz", "queue", &["length"]),
        ];
        let check = |targets: &[&str], provider: Option<&str>, names: Option<&str>| {
            let targets: Vec<Target> = targets.iter().map(|name| Target::from_name(name)).collect();
            let selection = Selection {
                provider: provider.map(str::to_owned),
                names: names.map(|names| Names::parse(names).expect(names)),
                ..Selection::default()
            };
            let (filters, unknown) =
                selection.filters(&targets, &schemas).map_err(|error| error.to_string())?;
            let masks = filters.iter().map(|filter| {
                let masks = schemas.iter().map(|schema| filter.compile(schema));
                masks.map(|mask: Mask| mask.iter().count()).sum::<usize>()
            });
            let targets: Vec<String> = filters.iter().map(|f| f.target.name().to_owned()).collect();
            Ok::<_, String>((targets.join(" "), masks.sum::<usize>(), unknown.len()))
        };
        let ok = |targets: &str, statistics, unknown| Ok((targets.to_owned(), statistics, unknown));
        assert_eq!(check(&[], None, None), ok("vm vcpu queue", 5, 0));
        assert_eq!(check(&[], Some("kvm"), None), ok("vm vcpu", 4, 0));
        assert_eq!(check(&["queue", "vm", "vm"], None, None), ok("vm queue", 3, 0));
        assert_eq!(check(&[], None, Some("exits,length,nope")), ok("vcpu queue", 2, 1));
        assert_eq!(check(&["vm", "vcpu"], None, Some("exits,pages_*")), ok("vm vcpu", 2, 0));
        for (targets, names, want) in [
            (&["vm", "vcpu"][..], Some("exits"), "no statistic named 'exits'"),
            (&[], Some("nope"), "no statistic named 'nope'"),
            (&["disk", "vcpu"], None, "there are no objects of target 'disk' here"),
        ] {
            let error = check(targets, None, names).expect_err(want);
            assert!(error.contains(want), "{error}");
        }
    }
}
