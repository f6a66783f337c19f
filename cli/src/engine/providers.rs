//! The providers of what the user named, and whose statistics they give.
//!
//! Invariant: our own health is not among them: whoever wants it adds it. What is lent by a guest
//! of our own is given back before the guest goes, which is what the order of the fields is for.

use std::sync::Arc;

use vmstrobe_core::{Object, Registry};
use vmstrobe_guest::DemoGuest;
use vmstrobe_providers::{Accel, OwnKvm};

use super::attached::Attached;
use super::sources;
use crate::args::Source;
use crate::demo::CryptoLoad;
use crate::error::Result;
use crate::privileges::without;

/// What the demo's guest is called.
pub(super) const DEMO_NAME: &str = "demo";

/// Providers, and whose statistics they give.
pub(super) struct Providers {
    pub(super) registry: Registry,
    pub(super) attached: Vec<Attached>,
    pub(super) demo: Option<Demo>,
}

/// What runs for a demo.
pub(super) struct Demo {
    _guest: Option<DemoGuest>,
    _crypto: CryptoLoad,
}

impl Providers {
    /// None at all.
    pub(super) fn none() -> Self {
        Self { registry: Registry::default(), attached: Vec::new(), demo: None }
    }

    /// Those of what the user named, or else of the only one there is.
    ///
    /// # Errors
    /// If what he named cannot be read, or it is not clear what is meant.
    pub(super) fn named(source: &Source, accel: &Accel) -> Result<Self> {
        let registry = Registry::default();
        let attached = sources::open(source, &registry, accel)?;
        Ok(Self { registry, attached, demo: None })
    }

    /// Those of a guest and a crypto device of our own, which run from now on.
    ///
    /// # Errors
    /// If there is no usable `/dev/kvm`.
    pub(super) fn demo(vcpus: u32, accel: &Accel) -> Result<Self> {
        vmstrobe_guest::usable()?;
        let mut guest = DemoGuest::new(vcpus)?;
        let (vm, accel) = (guest.vm().fd(), accel.clone());
        let provider = without(|| OwnKvm::with_accel(DEMO_NAME, vm, accel))??;
        // Before they run: later, the kernel would make this wait.
        for vcpu in guest.vcpus() {
            provider.add_vcpu(vcpu.id(), vcpu.fd())?;
        }
        without(|| guest.start())??;
        let registry = Registry::default();
        registry.add(Arc::new(provider));
        Self::with_crypto(registry, Some(guest))
    }

    /// The same where there can be no guest.
    ///
    /// # Errors
    /// If the system has no memory or threads for it.
    pub(super) fn demo_without_guest() -> Result<Self> {
        Self::with_crypto(Registry::default(), None)
    }

    fn with_crypto(registry: Registry, guest: Option<DemoGuest>) -> Result<Self> {
        let crypto = without(CryptoLoad::start)??;
        registry.add(crypto.provider());
        let demo = Some(Demo { _guest: guest, _crypto: crypto });
        Ok(Self { registry, attached: Vec::new(), demo })
    }
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
