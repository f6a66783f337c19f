//! The objects of samples as a table has them: virtual machines, and vCPUs joined over providers.
//!
//! Objects of one path and key are one, whatever providers have statistics of it. They belong to an
//! owner: the VM that the path names, or else the provider.
//!
//! Invariant: an object keeps its id as long as it is in a sample that is held. A VM that comes
//! again after it has ended is another one. What has left all samples is forgotten, so that memory
//! is bounded however many come and go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Layout, Object, Target};

/// The most layouts whose objects are kept at a time.
const MAX_MAPS: usize = 16;
/// The objects from which on it is looked for some to forget, beside those of the newest layout.
const MAX_FORMER: usize = 4096;
/// The most VMs that are shown after their end; the earliest are forgotten.
const MAX_ENDED: usize = 64;

/// The number of an object in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ObjectId(u64);

/// The number of an owner of objects in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OwnerId(u64);

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) owner: OwnerId,
    /// The number of a vCPU, or the last part of the path.
    pub(super) name: Box<str>,
    pub(super) path: Box<str>,
    pub(super) target: Target,
    index: Option<u32>,
}

/// A virtual machine, or another owner of objects.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) label: Box<str>,
    pub(super) is_vm: bool,
    /// The time of a sample that has it, as late as any that was looked at.
    pub(super) seen_ns: u64,
    pub(super) ended: Option<Ended>,
}

/// The end of a VM.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// The time of the first sample without it.
    pub(super) at_ns: u64,
    pub(super) wall_ns: u64,
    /// The time of the last sample with it.
    pub(super) alive_ns: u64,
    pub(super) vcpus: usize,
    pub(super) is_dismissed: bool,
}

/// The place of an object's row in a layout, for one provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) group: usize,
    pub(super) object: usize,
    pub(super) row: usize,
}

/// An object in a layout.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) id: ObjectId,
    pub(super) parts: Vec<Part>,
}

/// An owner in a layout.
#[derive(Clone, Debug)]
pub(super) struct PlacedOwner {
    pub(super) id: OwnerId,
    /// The VM's own object, if it has one.
    pub(super) own: Option<usize>,
    /// Its vCPUs, or other objects, in their order.
    pub(super) objects: Range<usize>,
}

/// The objects of a layout.
#[derive(Debug)]
pub(super) struct LayoutMap {
    pub(super) layout: Arc<Layout>,
    pub(super) placed: Vec<Placed>,
    /// In the order of their ids.
    pub(super) owners: Vec<PlacedOwner>,
    by_id: HashMap<ObjectId, usize>,
}

/// All objects of a view.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The name of the VM of vCPUs whose paths name none.
    vm: Option<String>,
    ids: HashMap<(Box<str>, u64), ObjectId>,
    known: HashMap<ObjectId, Known>,
    owners: BTreeMap<OwnerId, Owner>,
    by_label: HashMap<Box<str>, OwnerId>,
    maps: Vec<Arc<LayoutMap>>,
    next: u64,
}

impl LayoutMap {
    /// Returns the place of an object.
    pub(super) fn find(&self, id: ObjectId) -> Option<&Placed> {
        self.by_id.get(&id).map(|&at| &self.placed[at])
    }

    /// Returns the place of an owner.
    pub(super) fn owner(&self, id: OwnerId) -> Option<&PlacedOwner> {
        let at = self.owners.binary_search_by_key(&id, |owner| owner.id).ok()?;
        Some(&self.owners[at])
    }
}

impl Objects {
    pub(super) fn new(vm: Option<String>) -> Self {
        Self { vm, ..Self::default() }
    }

    pub(super) fn get(&self, id: ObjectId) -> Option<&Known> {
        self.known.get(&id)
    }

    pub(super) fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.owners.get(&id)
    }

    /// Returns the VMs that have ended and are still shown.
    pub(super) fn ended(&self) -> impl Iterator<Item = (OwnerId, &Owner, &Ended)> {
        self.owners.iter().filter_map(|(&id, owner)| {
            let ended = owner.ended.as_ref().filter(|ended| !ended.is_dismissed)?;
            Some((id, owner, ended))
        })
    }

    /// Returns the objects of an owner.
    pub(super) fn of_owner(&self, id: OwnerId) -> impl Iterator<Item = ObjectId> {
        self.known.iter().filter(move |(_, known)| known.owner == id).map(|(&id, _)| id)
    }

    /// Returns the objects of a layout.
    pub(super) fn map(&mut self, layout: &Arc<Layout>) -> Arc<LayoutMap> {
        if let Some(map) = self.maps.iter().find(|map| Arc::ptr_eq(&map.layout, layout)) {
            return Arc::clone(map);
        }
        let map = Arc::new(self.place(layout));
        if self.maps.len() >= MAX_MAPS {
            self.maps.remove(0);
        }
        self.maps.push(Arc::clone(&map));
        map
    }

    fn place(&mut self, layout: &Arc<Layout>) -> LayoutMap {
        let mut parts: BTreeMap<ObjectId, Vec<Part>> = BTreeMap::new();
        for (group_number, group) in layout.groups().iter().enumerate() {
            for (number, object) in group.objects.iter().enumerate() {
                let id = self.intern(object);
                let row = group.first_row + number;
                let part = Part { group: group_number, object: number, row };
                parts.entry(id).or_default().push(part);
            }
        }
        let mut placed: Vec<Placed> =
            parts.into_iter().map(|(id, parts)| Placed { id, parts }).collect();
        let order = |placed: &Placed| {
            let known = &self.known[&placed.id];
            (known.owner, known.target != Target::Vm, known.index, known.path.clone())
        };
        placed.sort_by_cached_key(order);
        let mut owners: Vec<PlacedOwner> = Vec::new();
        for (at, Placed { id, .. }) in placed.iter().enumerate() {
            let known = &self.known[id];
            if owners.last().is_none_or(|owner| owner.id != known.owner) {
                owners.push(PlacedOwner { id: known.owner, own: None, objects: at..at });
            }
            let owner = owners.last_mut().expect("one was pushed if there was none");
            if known.target == Target::Vm && owner.own.is_none() {
                owner.own = Some(at);
                owner.objects = at + 1..at + 1;
            } else {
                owner.objects.end = at + 1;
            }
        }
        let by_id = placed.iter().enumerate().map(|(at, placed)| (placed.id, at)).collect();
        LayoutMap { layout: Arc::clone(layout), placed, owners, by_id }
    }

    fn intern(&mut self, object: &Object) -> ObjectId {
        let key = (object.path.clone(), object.key);
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        self.next += 1;
        let id = ObjectId(self.next);
        self.ids.insert(key, id);
        let (label, rest) = self.label(object);
        let name = match object.index {
            Some(index) => index.to_string().into(),
            None => rest.rsplit('/').next().unwrap_or(rest).into(),
        };
        let is_vm = matches!(object.schema.target(), Target::Vm | Target::Vcpu);
        let owner = self.owner_of(label, is_vm);
        let (path, target) = (object.path.clone(), object.schema.target().clone());
        self.known.insert(id, Known { owner, name, path, target, index: object.index });
        id
    }

    /// Returns the label of an object's owner, and the rest of its path.
    fn label<'a>(&self, object: &'a Object) -> (Box<str>, &'a str) {
        let of_vm = object.path.strip_prefix("/vm/").filter(|rest| !rest.is_empty());
        if let Some(rest) = of_vm {
            let (name, rest) = rest.split_once('/').unwrap_or((rest, rest));
            return (name.into(), rest);
        }
        let label = match object.schema.target() {
            Target::Vm | Target::Vcpu => self.vm.as_deref().unwrap_or("vm"),
            _ => object.schema.provider(),
        };
        (label.into(), &object.path)
    }

    fn owner_of(&mut self, label: Box<str>, is_vm: bool) -> OwnerId {
        let known = self.by_label.get(&label).copied();
        let lives = |id: &OwnerId| self.owners.get(id).is_some_and(|owner| owner.ended.is_none());
        if let Some(id) = known.filter(lives) {
            return id;
        }
        self.next += 1;
        let id = OwnerId(self.next);
        self.by_label.insert(label.clone(), id);
        self.owners.insert(id, Owner { label, is_vm, seen_ns: 0, ended: None });
        id
    }

    /// Notes the owners that are in a sample of that time. An owner that had ended is back.
    pub(super) fn note_alive(&mut self, alive: impl Iterator<Item = OwnerId>, at_ns: u64) {
        for id in alive {
            let Some(owner) = self.owners.get_mut(&id) else { continue };
            owner.seen_ns = owner.seen_ns.max(at_ns);
            if owner.ended.as_ref().is_some_and(|ended| at_ns >= ended.at_ns) {
                owner.ended = None;
            }
        }
    }

    /// Returns the owners that have not ended, and were in no sample as late as that time.
    pub(super) fn missing(&self, at_ns: u64) -> Vec<(OwnerId, u64)> {
        let missing = |owner: &Owner| owner.ended.is_none() && owner.seen_ns < at_ns;
        let owners = self.owners.iter().filter(|(_, owner)| missing(owner));
        owners.map(|(&id, owner)| (id, owner.seen_ns)).collect()
    }

    /// Notes the end of an owner. Of those that are no VM nothing is shown then.
    pub(super) fn note_end(&mut self, id: OwnerId, ended: Ended) {
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.ended = Some(Ended { is_dismissed: !owner.is_vm, ..ended });
        }
    }

    /// Takes an ended VM out of the table.
    pub(super) fn dismiss(&mut self, id: OwnerId) {
        if let Some(ended) = self.owners.get_mut(&id).and_then(|owner| owner.ended.as_mut()) {
            ended.is_dismissed = true;
        }
    }

    /// Forgets VMs that ended long ago, and objects that no layout has that was asked for lately.
    pub(super) fn forget(&mut self, newest: &LayoutMap) {
        let excess = self.ended().count().saturating_sub(MAX_ENDED);
        let earliest: Vec<OwnerId> = self.ended().take(excess).map(|(id, ..)| id).collect();
        earliest.into_iter().for_each(|id| self.dismiss(id));
        if self.known.len() < newest.placed.len() + MAX_FORMER {
            return;
        }
        let is_placed = |id: &ObjectId| self.maps.iter().any(|map| map.by_id.contains_key(id));
        let kept: Vec<ObjectId> = self.known.keys().copied().filter(is_placed).collect();
        let kept: HashMap<ObjectId, Known> =
            kept.into_iter().filter_map(|id| Some((id, self.known.remove(&id)?))).collect();
        self.known = kept;
        self.ids.retain(|_, id| self.known.contains_key(id));
        let used: HashSet<OwnerId> = self.known.values().map(|known| known.owner).collect();
        self.owners.retain(|id, owner| {
            let is_shown = owner.ended.as_ref().is_none_or(|ended| !ended.is_dismissed);
            is_shown || used.contains(id)
        });
        let owners = &self.owners;
        self.by_label.retain(|_, id| owners.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Desc, Mask, ReadPlan, Schema};

    use super::*;

    fn layout(objects: &[(&str, &str, Target, u64)]) -> Arc<Layout> {
        let part = |&(provider, path, ref target, key): &(&str, &str, Target, u64)| {
            let schema = Schema::new(provider, target.clone(), vec![Desc::counter("n", 0)]);
            let index = (*target == Target::Vcpu).then_some(key as u32);
            let plan = ReadPlan::new(&schema, &Mask::all(&schema));
            (plan, vec![Object { path: path.into(), index, schema, key }])
        };
        Layout::new(1, objects.iter().map(part).collect())
    }

    fn names(objects: &Objects, map: &LayoutMap) -> Vec<String> {
        let owners = map.owners.iter().map(|owner| {
            let label = &objects.owner(owner.id).expect("it is known").label;
            let names = map.placed[owner.objects.clone()].iter().map(|placed| {
                let known = objects.get(placed.id).expect("it is known");
                format!(" {}/{}", known.name, placed.parts.len())
            });
            format!("{label}:{}", names.collect::<String>())
        });
        owners.collect()
    }

    #[test]
    fn objects_are_joined_over_providers_and_belong_to_owners() {
        let layout = layout(&[
            ("kvm", "/vm/web/vcpu[10]", Target::Vcpu, 10),
            ("kvm", "/vm/web/vcpu[9]", Target::Vcpu, 9),
            ("kvm", "/vm/web", Target::Vm, 1),
            ("sched", "/vm/web/vcpu[9]", Target::Vcpu, 9),
            ("kvm", "/machine/unattached/device[0]", Target::Vcpu, 3),
            ("cryptodev", "/objects/crypto0", Target::Cryptodev, 4),
            ("xyz", "/xyz/queues/q[1]", Target::from_name("queue"), 5),
        ]);
        let mut objects = Objects::new(Some("mail".to_owned()));
        let map = objects.map(&layout);
        let want = ["web: 9/2 10/1", "mail: 3/1", "cryptodev: crypto0/1", "xyz: q[1]/1"];
        assert_eq!(names(&objects, &map), want);
        assert!(map.owners[0].own.is_some() && map.owners[2].own.is_none());
        assert!(Arc::ptr_eq(&map, &objects.map(&layout)));
    }

    #[test]
    fn however_many_come_and_go_few_are_kept() {
        let mut objects = Objects::default();
        for number in 0..20_000 {
            let path = format!("/vm/vm{number}/vcpu[0]");
            let map = objects.map(&layout(&[("kvm", &path, Target::Vcpu, number)]));
            objects.note_alive(map.owners.iter().map(|owner| owner.id), number + 1);
            for (id, alive_ns) in objects.missing(number + 1) {
                assert_eq!(alive_ns, number);
                let (at_ns, wall_ns, vcpus) = (number, 0, 1);
                let ended = Ended { at_ns, wall_ns, alive_ns, vcpus, is_dismissed: false };
                objects.note_end(id, ended);
            }
            objects.forget(&map);
        }
        assert_eq!(objects.ended().count(), MAX_ENDED);
        assert!(objects.known.len() <= MAX_FORMER + MAX_MAPS && objects.maps.len() == MAX_MAPS);
        assert_eq!(objects.ids.len(), objects.known.len());
        assert!(objects.owners.len() <= MAX_FORMER + MAX_MAPS + MAX_ENDED);
        assert!(objects.by_label.len() <= objects.owners.len());
        let last = objects.ended().last().map(|(_, owner, _)| owner.label.to_string());
        assert_eq!(last.as_deref(), Some("vm19998"));
    }
}
