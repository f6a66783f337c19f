//! The providers of what the user named, and the sources that they belong to.
//!
//! Invariant: our own health is not among them: the engine adds it. What is lent by a guest
//! of our own is given back before the guest goes, which is what the order of the fields is for.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{Object, Provider, Registry};
use vmstrobe_guest::DemoGuest;
use vmstrobe_providers::{AttachOptions, Bpf, Broker, FdBudget, Host, NewVcpu, OwnKvm, Sched};

use super::attached::Attached;
use super::sources;
use crate::args::Source;
use crate::demo::CryptoLoad;
use crate::error::Result;

/// The name of the demo's guest.
pub(super) const DEMO_NAME: &str = "demo";

/// How long to wait for the threads of a demo's vCPUs to take their names, by which they are told.
const NAMING: Duration = Duration::from_secs(1);
/// How often to look for them.
const NAMING_LOOK: Duration = Duration::from_millis(5);

/// The options for reading what the user named.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) attach: AttachOptions,
    pub(crate) bpf: Bpf,
    /// With what the scheduler says of the threads of vCPUs.
    pub(crate) sched: bool,
}

impl Setup {
    /// The setup for these arguments. From a process that the user named, as many descriptors are
    /// borrowed as there is room for; from each process of `--all`, no more than its share.
    pub(crate) fn new(source: &Source, bpf: Bpf, sched: bool) -> Self {
        let budget = if source.all { FdBudget::shared() } else { FdBudget::of_this_process() };
        let on_any_kernel = source.on_any_kernel;
        let host = Host::with_broker(bpf.broker().clone());
        let attach = AttachOptions { bulk: bpf.clone().into(), host, budget, on_any_kernel };
        Self { attach, bpf, sched }
    }

    pub(crate) fn bpf(&self) -> &Bpf {
        &self.bpf
    }

    /// Returns the broker, which has the rights that opening takes.
    pub(crate) fn broker(&self) -> Broker {
        self.bpf.broker().clone()
    }
}

/// Providers, and the sources that they belong to.
pub(super) struct Providers {
    pub(super) registry: Registry,
    pub(super) attached: Vec<Attached>,
    pub(super) demo: Option<Demo>,
}

/// The guest, if there can be one, and the crypto device of a demo, running.
pub(super) struct Demo {
    guest: Option<DemoGuest>,
    _crypto: CryptoLoad,
}

impl Providers {
    /// None at all.
    pub(super) fn none() -> Self {
        Self { registry: Registry::default(), attached: Vec::new(), demo: None }
    }

    /// Opens the providers of what the user named, or else of the only source there is.
    ///
    /// # Errors
    /// If what the user named cannot be read, or it is not clear what is meant.
    pub(super) fn named(source: &Source, setup: &Setup) -> Result<Self> {
        let registry = Registry::default();
        let attached = sources::open(source, &registry, setup)?;
        Ok(Self { registry, attached, demo: None })
    }

    /// Starts a guest and a crypto device of our own, and opens their providers.
    ///
    /// # Errors
    /// If there is no usable `/dev/kvm`.
    pub(super) fn demo(vcpus: u32, setup: &Setup) -> Result<Self> {
        // By the broker, because /dev/kvm may be another user's.
        let make = move || vmstrobe_guest::usable().and_then(|()| DemoGuest::new(vcpus));
        let mut guest = setup.broker().run(make)?;
        let provider = OwnKvm::with_bulk(DEMO_NAME, guest.vm().fd(), setup.bpf().clone())?;
        // Before they run: later, the kernel would make this wait.
        for vcpu in guest.vcpus() {
            provider.add_vcpu(NewVcpu::new(vcpu.id(), vcpu.fd()))?;
        }
        guest.start()?;
        let registry = Registry::default();
        let provider = Arc::new(provider);
        registry.add(Arc::clone(&provider) as _);
        if setup.sched {
            let sched = provider.sched()?;
            wait_for_names(&sched, vcpus as usize)?;
            registry.add(Arc::new(sched));
        }
        Self::with_crypto(registry, Some(guest))
    }

    /// Starts the crypto device alone, for a host where there can be no guest.
    ///
    /// # Errors
    /// If the system has no memory or threads for it.
    pub(super) fn demo_without_guest() -> Result<Self> {
        Self::with_crypto(Registry::default(), None)
    }

    fn with_crypto(registry: Registry, guest: Option<DemoGuest>) -> Result<Self> {
        let crypto = CryptoLoad::start()?;
        registry.add(crypto.provider());
        let demo = Some(Demo { guest, _crypto: crypto });
        Ok(Self { registry, attached: Vec::new(), demo })
    }

    /// Is a virtual machine read whose threads are on this host, and not only asked for?
    pub(super) fn has_threads(&self) -> bool {
        let has_guest = self.demo.as_ref().is_some_and(|demo| demo.guest.is_some());
        has_guest || self.attached.iter().any(|who| who.is_vm && who.is_process())
    }
}

/// Waits until all vCPUs can be told, if they ever can.
///
/// # Errors
/// If they must be read in a way that cannot be used.
fn wait_for_names(sched: &Sched, vcpus: usize) -> Result<()> {
    for _ in 0..NAMING.as_millis() / NAMING_LOOK.as_millis() {
        if sched.objects()?.len() >= vcpus {
            break;
        }
        thread::sleep(NAMING_LOOK);
    }
    Ok(())
}

/// Returns the warnings of those of these providers that are meant.
pub(super) fn warnings(
    registry: &Registry,
    is_meant: impl Fn(&dyn Provider) -> bool,
) -> Vec<vmstrobe_core::Error> {
    let providers = registry.providers();
    providers.iter().filter(|one| is_meant(&***one)).flat_map(|one| one.warnings()).collect()
}

/// Everything that has statistics now, of all providers.
///
/// # Errors
/// The first provider's that cannot say what there is.
pub(super) fn objects(registry: &Registry) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for provider in registry.providers() {
        objects.extend(provider.objects()?);
    }
    Ok(objects)
}
