//! The sources of the demo: a guest of our own and a crypto device, as an attachment.
//!
//! Invariant: the guest runs for as long as it is read, and is dropped after its readers.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe::{Attachment, NewVcpu, Options, OwnKvm, PathPolicy, Provider, Registry, Sched};
use vmstrobe_guest::DemoGuest;

use super::crypto::CryptoLoad;
use crate::error::Result;

/// The name of the demo's guest.
pub(crate) const NAME: &str = "demo";
/// vCPUs of a demo guest if the user did not say how many.
pub(crate) const VCPUS: u32 = 4;

/// How long to wait for the threads of a demo's vCPUs to take their names, by which they are told.
const NAMING: Duration = Duration::from_secs(1);
/// How often to look for them.
const NAMING_LOOK: Duration = Duration::from_millis(5);

/// Starts a guest and a crypto device of our own, and attaches to them.
///
/// # Errors
/// If there is no usable `/dev/kvm`.
pub(crate) fn attachment(vcpus: u32, options: &Options) -> Result<Attachment> {
    // By the broker, because /dev/kvm may be another user's.
    let make = move || vmstrobe_guest::usable().and_then(|()| DemoGuest::new(vcpus));
    let mut guest = options.bpf.broker().run(make)?;
    let provider = OwnKvm::with_bulk(NAME, guest.vm().fd(), options.bpf.clone())?;
    // Before they run: later, the kernel would make this wait.
    for vcpu in guest.vcpus() {
        provider.add_vcpu(NewVcpu::new(vcpu.id(), vcpu.fd()))?;
    }
    guest.start()?;
    let registry = Registry::default();
    let provider = Arc::new(provider);
    if options.sched {
        let sched = provider.sched()?;
        wait_for_names(&sched, vcpus as usize)?;
        registry.add_pair([provider, Arc::new(sched)], PathPolicy::default());
    } else {
        registry.add(provider);
    }
    let crypto = CryptoLoad::start()?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).with_options(options).keeping((guest, crypto)))
}

/// Starts the crypto device alone, for a host where there can be no guest.
///
/// # Errors
/// If the system has no memory or threads for it.
pub(super) fn without_guest() -> Result<Attachment> {
    let registry = Registry::default();
    let crypto = CryptoLoad::start()?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).keeping(crypto))
}

/// Waits until all vCPUs can be told, if they ever can.
///
/// # Errors
/// If they must be read by the BPF reader, and it cannot be used.
fn wait_for_names(sched: &Sched, vcpus: usize) -> Result<()> {
    for _ in 0..NAMING.as_millis() / NAMING_LOOK.as_millis() {
        if sched.objects()?.len() >= vcpus {
            break;
        }
        thread::sleep(NAMING_LOOK);
    }
    Ok(())
}
