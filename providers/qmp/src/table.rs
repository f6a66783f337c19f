//! The objects of one QEMU: its answers made into schemas, objects and blocks of values.
//!
//! Invariant: an object keeps its key as long as it is there, under one path, with one index and
//! one schema; anything else is another object, with a key never used before. One that is held no
//! more says so to whoever still reads it. What a QEMU can make us hold is bounded
//! ([`MAX_HELD_BYTES`](super::group::MAX_HELD_BYTES), [`MAX_OBJECTS`], [`MAX_SCHEMAS`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vmstrobe_core::{Object, Result, Schema, Target, vm_path};
use vmstrobe_host::{CpuName, Polled};

use super::ask::QmpShare;
use super::block::Block;
use super::group::{Budget, Group, Placed, too_large};
use super::message::{self, Cpu, StatsResult, StatsSchema};

/// The most objects of one QEMU: as many as one sampler takes.
pub(super) const MAX_OBJECTS: usize = 65_536;
/// The most schemas of one QEMU. 10.2 has three: each target costs one query a round.
pub(super) const MAX_SCHEMAS: usize = 32;
/// The most bytes of an object's path.
pub(super) const MAX_PATH_BYTES: usize = 1024;
/// The bytes that are counted for an object beside its path and its values.
const OBJECT_BYTES: usize = 256;

/// The schemas and objects of a QEMU, as far as its answers have told.
#[derive(Debug)]
pub(super) struct Table {
    share: QmpShare,
    /// The path of the VM's own object, which has no QOM path.
    vm_path: Box<str>,
    /// The groups, in the order in which users see their objects.
    groups: Vec<(Group, Vec<Held>)>,
    /// QEMU's numbers of its vCPUs, by path.
    cpus: HashMap<String, u32>,
    /// False as soon as an answer about vCPUs may know of more than `cpus`.
    cpus_are_new: bool,
    next_key: u64,
}

/// An object with its values. When it is dropped, it is gone.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) object: Object,
    pub(super) block: Arc<Block>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.block.retire();
    }
}

/// A query for the statistics of one target.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) target: Target,
    /// The arguments of `query-stats`.
    pub(super) arguments: String,
}

impl Table {
    /// Makes the table of a VM of that name, of which nothing is known yet.
    pub(super) fn new(share: QmpShare, vm_name: &str) -> Self {
        Self {
            share,
            vm_path: vm_path(vm_name).into(),
            groups: Vec::new(),
            cpus: HashMap::new(),
            cpus_are_new: false,
            next_key: 0,
        }
    }

    /// Takes QEMU's schemas; what is known of sizes and objects stays.
    ///
    /// # Errors
    /// `TooLarge` if one of the limits does not hold; then nothing changes.
    pub(super) fn set_schemas(&mut self, schemas: &[StatsSchema]) -> Result<()> {
        if schemas.len() > MAX_SCHEMAS {
            let count = schemas.len();
            return Err(too_large(format!("QEMU has {count} schemas; the limit is {MAX_SCHEMAS}")));
        }
        let mut groups: Vec<Group> = Vec::new();
        for schema in schemas.iter().rev().filter(|schema| self.wants(schema)) {
            let is_it = |group: &Group| is_of(group.schema(), &schema.provider, &schema.target);
            let known = self.groups.iter().map(|(group, _)| group).find(|group| is_it(group));
            if !groups.iter().any(is_it) {
                groups.push(Group::new(schema, known)?);
            }
        }
        // As the other providers have them: the VM, its vCPUs, its devices.
        groups.sort_by(|a, b| a.schema().target().cmp(b.schema().target()));
        let mut before = std::mem::take(&mut self.groups);
        self.groups.extend(groups.into_iter().map(|group| {
            let (provider, target) = (group.schema().provider(), group.schema().target().name());
            let is_it = |(known, _): &(Group, _)| is_of(known.schema(), provider, target);
            match before.iter().position(is_it).map(|at| before.swap_remove(at)) {
                Some(same) if same.0.schema() == group.schema() => same,
                // Its objects are others as soon as their values come.
                Some((_, held)) => (group, held),
                None => (group, Vec::new()),
            }
        }));
        Ok(())
    }

    fn wants(&self, schema: &StatsSchema) -> bool {
        let is_kvm_vcpu = schema.provider == "kvm" && schema.target == "vcpu";
        self.share == QmpShare::All || !is_kvm_vcpu
    }

    /// Takes the vCPUs' numbers and gives their names, by thread id.
    ///
    /// # Errors
    /// `TooLarge` if there are more than [`MAX_OBJECTS`], or a path is over [`MAX_PATH_BYTES`].
    pub(super) fn set_cpus(&mut self, cpus: &[Cpu]) -> Result<HashMap<u32, CpuName>> {
        if cpus.len() > MAX_OBJECTS {
            return Err(too_large(format!("QEMU has {} vCPUs", cpus.len())));
        }
        cpus.iter().try_for_each(|cpu| path_fits(&cpu.qom_path))?;
        self.cpus = cpus.iter().map(|cpu| (cpu.qom_path.clone(), cpu.cpu_index)).collect();
        self.cpus_are_new = true;
        let name = |cpu: &Cpu| {
            let path = cpu.qom_path.as_str().into();
            (cpu.thread_id, CpuName { index: cpu.cpu_index, path })
        };
        Ok(cpus.iter().map(name).collect())
    }

    /// Returns the queries of a round: one for each target.
    pub(super) fn queries(&self) -> Vec<Query> {
        let mut queries: Vec<Query> = Vec::new();
        for target in self.groups.iter().map(|(group, _)| group.schema().target()) {
            if queries.iter().any(|query| query.target == *target) {
                continue;
            }
            let of_target = self.groups.iter().map(|(group, _)| group.schema());
            let of_target = of_target.filter(|schema| schema.target() == target);
            // Else QEMU would read KVM's values of the vCPUs all the same.
            let is_beside = self.share == QmpShare::BesideKvm && *target == Target::Vcpu;
            let providers: Vec<&str> = of_target.map(|schema| schema.provider()).collect();
            let providers = is_beside.then_some(&providers[..]);
            let arguments = message::stats_arguments(target.name(), providers);
            queries.push(Query { target: target.clone(), arguments });
        }
        queries
    }

    /// Takes the answer to a query, asked at that time. True if a vCPU is left out because its
    /// number is not known: ask for the numbers before the next round.
    ///
    /// # Errors
    /// `TooLarge` if one of the limits does not hold.
    pub(super) fn apply(
        &mut self,
        target: &Target,
        results: &[StatsResult<'_>],
        asked_ns: u64,
    ) -> Result<bool> {
        let mut is_short = false;
        for at in 0..self.groups.len() {
            let schema = self.groups[at].0.schema();
            if schema.target() != target {
                continue;
            }
            let provider = schema.provider();
            let ours = |result: &&StatsResult<'_>| result.provider == provider;
            let ours: Vec<_> = results.iter().rev().filter(ours).collect();
            is_short |= self.apply_to(at, &ours, asked_ns)?;
        }
        self.cpus_are_new &= *target != Target::Vcpu;
        Ok(is_short)
    }

    /// The objects of one group, in the order in which they were made.
    fn apply_to(&mut self, at: usize, results: &[&StatsResult<'_>], asked_ns: u64) -> Result<bool> {
        let others = self.groups.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.flat_map(|(_, (_, held))| held);
        if others.clone().count() + results.len() > MAX_OBJECTS {
            let text = format!("QEMU has more objects with statistics than {MAX_OBJECTS}");
            return Err(too_large(text));
        }
        let spent = others.map(|held| held.bytes()).sum::<usize>();
        let parts = self.groups.iter().map(|(group, _)| group.spent()).sum::<usize>();
        let mut budget = Budget::new(spent + parts);
        let (group, held) = &mut self.groups[at];
        let placed: Vec<Placed<'_>> = results.iter().map(|result| group.place(result)).collect();
        group.learn(&placed)?;

        let is_vcpu = *group.schema().target() == Target::Vcpu;
        let (mut paths, mut is_short) = (HashSet::new(), false);
        let mut before: HashMap<Box<str>, Held> =
            held.drain(..).map(|held| (held.object.path.clone(), held)).collect();
        for (path, placed) in paths_of(results, group.schema(), &self.vm_path)?.iter().zip(&placed)
        {
            if !paths.insert(path) {
                continue;
            }
            let index = self.cpus.get(&**path).copied().filter(|_| is_vcpu);
            let schema = group.schema_of(placed, &mut budget)?;
            let mut known = before.remove(path);
            // It would be another as soon as its number is known.
            if is_vcpu && index.is_none() && known.is_none() && !self.cpus_are_new {
                is_short = true;
                continue;
            }
            known.take_if(|known| !known.is(index, &schema));
            budget.spend(schema.data_bytes() + path.len() + OBJECT_BYTES)?;
            let object = known.unwrap_or_else(|| {
                let key = self.next_key;
                self.next_key += 1;
                Held::new(Object { path: path.clone(), index, schema, key })
            });
            object.block.words().write(asked_ns, &group.words(placed));
            held.push(object);
        }
        if is_vcpu {
            held.sort_by_key(|held| held.object.index.unwrap_or(u32::MAX));
        }
        group.tidy();
        Ok(is_short)
    }

    /// All objects, in the order in which users see them.
    pub(super) fn held(&self) -> impl Iterator<Item = &Held> {
        self.groups.iter().flat_map(|(_, held)| held)
    }

    /// The schemas with all that an object can have.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &Arc<Schema>> {
        self.groups.iter().map(|(group, _)| group.schema())
    }

    /// All objects are gone. The schemas stay.
    pub(super) fn clear(&mut self) {
        self.groups.iter_mut().for_each(|(_, held)| held.clear());
    }
}

impl Held {
    fn new(object: Object) -> Self {
        let block = Block::new(object.schema.data_bytes() / vmstrobe_core::WORD_BYTES);
        Self { object, block }
    }

    fn is(&self, index: Option<u32>, schema: &Arc<Schema>) -> bool {
        // They were interned: equal ones are one.
        self.object.index == index && Arc::ptr_eq(&self.object.schema, schema)
    }

    fn bytes(&self) -> usize {
        self.object.schema.data_bytes() + self.object.path.len() + OBJECT_BYTES
    }
}

fn is_of(schema: &Schema, provider: &str, target: &str) -> bool {
    schema.provider() == provider && schema.target().name() == target
}

/// The paths of a group's objects. The first VM without one has the VM's own.
///
/// # Errors
/// `TooLarge` if one is over [`MAX_PATH_BYTES`].
fn paths_of(results: &[&StatsResult<'_>], schema: &Schema, vm_path: &str) -> Result<Vec<Box<str>>> {
    let (provider, target) = (component(schema.provider()), component(schema.target().name()));
    let mut unnamed = 0..;
    let path = |result: &&StatsResult<'_>| {
        if let Some(path) = &result.qom_path {
            return path_fits(path).map(|()| path.as_str().into());
        }
        Ok(match unnamed.next() {
            Some(0) if *schema.target() == Target::Vm => vm_path.into(),
            nth => format!("/{provider}/{target}[{}]", nth.unwrap_or(0)).into(),
        })
    };
    results.iter().map(path).collect()
}

/// A name as one component of a path.
fn component(name: &str) -> String {
    name.replace('/', "_")
}

fn path_fits(path: &str) -> Result<()> {
    if path.len() <= MAX_PATH_BYTES {
        return Ok(());
    }
    Err(too_large(format!(
        "QEMU gives a path of {} bytes; the limit is {MAX_PATH_BYTES}",
        path.len()
    )))
}

#[cfg(test)]
mod tests;
