//! The providers of one virtual machine, for a server that passes its statistics on; and its end.
//!
//! Invariant: our own health is not among them, so that clients see only what the VM has. The VM
//! has ended when the kernel says so of its process; without a process, when nothing of it has been
//! there for a while.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Object, Registry, Target};
use vmstrobe_providers::{Qmp, QmpShare, Reaper};

use super::attached::{Absence, Attached};
use super::providers::{DEMO_NAME, Demo, Providers, Setup};
use super::sources::{self, Sources};
use super::{DEMO_VCPUS, providers};
use crate::args::Source;
use crate::error::{Error, Result};
use crate::text::counted;

/// The providers of one virtual machine, or of one program with tables.
pub(crate) struct VmRegistry {
    registry: Registry,
    /// Of these one at most is a virtual machine.
    attached: Vec<Attached>,
    absence: Absence,
    /// The sources, to which a QEMU can be added, if this is one process and nothing else.
    sources: Option<Sources>,
    qemus: Vec<Arc<Qmp>>,
    _demo: Option<Demo>,
}

impl VmRegistry {
    /// Opens all that the user named, or else the only source there is.
    ///
    /// # Errors
    /// If it cannot be read, it is not clear what is meant, or it is several virtual machines.
    pub(crate) fn named(source: &Source, setup: &Setup) -> Result<Self> {
        if source.demo {
            return Ok(Self::of(Providers::demo(DEMO_VCPUS, setup)?));
        }
        let providers = Providers::named(source, setup)?;
        let vms: Vec<&str> =
            providers.attached.iter().filter(|who| who.is_vm).map(|who| &*who.title).collect();
        if vms.len() > 1 {
            return Err(several(&vms));
        }
        Ok(Self::of(providers))
    }

    fn of(providers: Providers) -> Self {
        let Providers { registry, attached, demo } = providers;
        let absence = Absence::default();
        Self { registry, attached, absence, sources: None, qemus: Vec::new(), _demo: demo }
    }

    /// One process and nothing else.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub(super) fn of_process(pid: u32, reaper: Reaper, setup: Setup) -> Result<Self> {
        let registry = Registry::default();
        let mut sources = Sources::new(registry.clone(), reaper, setup)?;
        let attached = vec![sources.process(pid)?];
        let vm = Self::of(Providers { registry, attached, demo: None });
        Ok(Self { sources: Some(sources), ..vm })
    }

    /// One QEMU and nothing else.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub(super) fn of_qemu(socket: &Path, setup: &Setup) -> Result<Self> {
        let qmp = Qmp::connect_by(socket, QmpShare::All, &setup.attach.host)?;
        let attached = vec![sources::qemu(socket, &qmp, true)];
        let registry = Registry::default();
        registry.add(Arc::new(qmp));
        Ok(Self::of(Providers { registry, attached, demo: None }))
    }

    /// Adds what only its QEMU knows, once.
    pub(super) fn add_qemu(&mut self, qmp: &Arc<Qmp>) {
        let (Some(sources), Some(pid)) = (&self.sources, self.pid()) else { return };
        if !self.qemus.iter().any(|known| Arc::ptr_eq(known, qmp)) {
            self.qemus.push(Arc::clone(qmp));
            sources.add_qemu(pid, Arc::clone(qmp));
        }
    }

    /// Its providers. Clones are this one, which may grow.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The virtual machine, or else the first source; none in the demo.
    fn main(&self) -> Option<&Attached> {
        self.attached.iter().find(|who| who.is_vm).or(self.attached.first())
    }

    /// Returns the name of the virtual machine, or else of the first source.
    pub(crate) fn name(&self) -> &str {
        self.main().map_or(DEMO_NAME, |who| &who.name)
    }

    /// Its process, where that is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.main().map_or(Some(std::process::id()), |who| who.pid)
    }

    /// Returns the title for people: `VM web (pid 4711)`.
    pub(crate) fn title(&self) -> &str {
        self.main().map_or("the demo guest", |who| &who.title)
    }

    /// Returns the title with the number of its objects: `VM web (pid 4711, 4 vCPUs)`.
    pub(crate) fn title_with_counts(&self) -> String {
        with_counts(self.title(), &self.objects())
    }

    /// Returns the titles of the sources beside the virtual machine.
    pub(crate) fn companions(&self) -> Vec<&str> {
        let main = self.main().map(|who| &*who.title);
        self.attached.iter().map(|who| &*who.title).filter(|title| Some(*title) != main).collect()
    }

    /// Are there vCPUs, and nothing of the virtual machine as a whole?
    pub(crate) fn lacks_vm_statistics(&self) -> bool {
        let objects = self.objects();
        let has = |target: Target| objects.iter().any(|object| *object.schema.target() == target);
        has(Target::Vcpu) && !has(Target::Vm)
    }

    /// Returns the objects that there are now; none at all if one provider cannot say.
    fn objects(&self) -> Vec<Object> {
        providers::objects(&self.registry).unwrap_or_default()
    }

    /// Looks whether anything is there, if nothing else tells the end. To be called about once a
    /// second.
    pub(crate) fn look(&self) {
        if !self.attached.iter().all(Attached::is_process) {
            self.absence.note_whether(!self.objects().is_empty());
        }
    }

    /// Has the virtual machine ended; or, if there is none, everyone who stands here?
    pub(crate) fn has_ended(&self) -> bool {
        let ended = |who: &Attached| who.has_ended(self.absence.lasts());
        match self.main() {
            Some(vm) if vm.is_vm => ended(vm),
            Some(_) => self.attached.iter().all(ended),
            // The demo's guest runs for as long as we do.
            None => false,
        }
    }
}

/// One socket is one virtual machine's.
fn several(vms: &[&str]) -> Error {
    let vms = vms.join(", ");
    Error::usage(format!(
        "one socket answers for one virtual machine, and these are several: {vms}. Name one by \
         -p, or give each a socket of its own: --qmp-dir DIR"
    ))
}

/// `VM web (pid 4711)` with 4 vCPUs is `VM web (pid 4711, 4 vCPUs)`.
fn with_counts(title: &str, objects: &[Object]) -> String {
    let mut counts: Vec<(&Target, usize)> = Vec::new();
    let mut seen = HashSet::new();
    // Of one object two providers may tell.
    for object in objects.iter().filter(|one| seen.insert((one.schema.target(), &one.path))) {
        let target = object.schema.target();
        match counts.iter_mut().find(|(known, _)| *known == target) {
            Some((_, count)) => *count += 1,
            None => counts.push((target, 1)),
        }
    }
    // There is one virtual machine, as the title says.
    counts.retain(|(target, _)| **target != Target::Vm);
    let count = |(target, count): &(&Target, usize)| match target {
        Target::Vcpu => counted(*count, "vCPU"),
        target => counted(*count, &format!("{target} object")),
    };
    let counts = counts.iter().map(count).collect::<Vec<_>>().join(", ");
    match title.strip_suffix(')') {
        _ if counts.is_empty() => title.to_owned(),
        Some(open) => format!("{open}, {counts})"),
        None => format!("{title} ({counts})"),
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::Schema;
    use vmstrobe_providers::Bpf;

    use super::*;

    fn object(target: &str) -> Object {
        let schema = Schema::new("kvm", Target::from_name(target), Vec::new());
        Object { path: "/a".into(), index: None, schema, key: 0 }
    }

    #[test]
    fn an_object_counts_once() {
        let at = |path: &str| Object { path: path.into(), ..object("vcpu") };
        let objects = [at("/a"), at("/b"), at("/a")];
        assert_eq!(with_counts("VM web (pid 1)", &objects), "VM web (pid 1, 2 vCPUs)");
    }

    #[test]
    fn a_title_says_how_much_there_is() {
        for (title, targets, want) in [
            ("VM web (pid 1)", &["vm", "vcpu", "vcpu"][..], "VM web (pid 1, 2 vCPUs)"),
            (
                "VM web (pid 1)",
                &["vcpu", "cryptodev"],
                "VM web (pid 1, 1 vCPU, 1 cryptodev object)",
            ),
            ("VM web (pid 1)", &["vm"], "VM web (pid 1)"),
            ("the demo guest", &["vcpu"], "the demo guest (1 vCPU)"),
            ("the table /a", &["queue", "queue"], "the table /a (2 queue objects)"),
        ] {
            let each = targets.iter().enumerate();
            let at = |at: usize| format!("/{at}").into_boxed_str();
            let objects: Vec<Object> =
                each.map(|(i, target)| Object { path: at(i), ..object(target) }).collect();
            assert_eq!(with_counts(title, &objects), want);
        }
    }

    fn attached(name: &str, is_vm: bool) -> Attached {
        let mut attached = Attached::remote(format!("it {name}"), name.to_owned(), None);
        attached.is_vm = is_vm;
        attached
    }

    fn registry_of(attached: Vec<Attached>) -> VmRegistry {
        VmRegistry::of(Providers { attached, ..Providers::none() })
    }

    #[test]
    fn a_vm_gives_the_name_whoever_stands_before_it() {
        let vm = registry_of(vec![attached("table", false), attached("web", true)]);
        assert_eq!((vm.name(), vm.title(), vm.pid()), ("web", "it web", None));
        assert_eq!(vm.companions(), ["it table"]);
        let none = registry_of(vec![attached("a", false), attached("b", false)]);
        assert_eq!((none.name(), none.companions()), ("a", vec!["it b"]));
        let demo = registry_of(Vec::new());
        assert_eq!((demo.name(), demo.pid()), ("demo", Some(std::process::id())));
        assert!(demo.companions().is_empty() && !demo.has_ended());
    }

    #[test]
    fn who_is_there_no_more_has_ended() {
        let gone = registry_of(vec![attached("web", true)]);
        assert!(!gone.has_ended());
        gone.look();
        // Absent, but not yet for long.
        assert!(gone.absence.lasts().is_some() && !gone.has_ended());
    }

    #[test]
    fn our_own_health_is_not_among_them() {
        let table = vmstrobe_providers::TableWriter::new("vm").expect("there is memory");
        let source = Source { pids: vec![std::process::id()], ..Source::default() };
        let setup = Setup::new(&source, Bpf::off(), true);
        let vm = VmRegistry::named(&source, &setup).expect("it has a table");
        let providers = vm.registry().providers();
        let names: Vec<&str> = providers.iter().map(|provider| provider.name()).collect();
        assert_eq!(names, ["kvm", "table"]);
        drop(table);
    }

    #[test]
    fn several_are_told_where_to_go() {
        let text = several(&["VM a (pid 1)", "VM b (pid 2)"]).to_string();
        assert!(text.contains("VM a (pid 1), VM b (pid 2)") && text.ends_with("--qmp-dir DIR"));
    }
}
