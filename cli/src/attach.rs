//! From the arguments to an attachment: the sources that the user named, or a guest and a crypto
//! device of our own; and the BPF reader that the attachment may use.
//!
//! Invariant: the library's notices about an attachment are printed before any of its data. The
//! demo's guest runs for as long as it is read, and is dropped after its readers.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe::{
    Attachment, Bpf, BpfMode, Broker, Options, OwnKvm, PathPolicy, Provider, Registry, Sched,
};
use vmstrobe_guest::DemoGuest;

use crate::args::{BpfWhen, ProviderSet, SourceArgs};
use crate::demo::crypto::CryptoLoad;
use crate::error::{Error, Result, with_causes};
use crate::messages::say_notices;
use crate::privileges;

/// The name of the demo's guest.
pub(crate) const DEMO_NAME: &str = "demo";
/// vCPUs of a demo guest if the user did not say how many.
const DEMO_VCPUS: u32 = 4;

/// How long to wait for the threads of a demo's vCPUs to take their names, by which they are told.
const NAMING: Duration = Duration::from_secs(1);
/// How often to look for them.
const NAMING_LOOK: Duration = Duration::from_millis(5);

/// Opens what the user named; if they named nothing and a source is needed, the only virtual
/// machine on this host, or else the only program with tables. The sampler's own statistics are
/// always there.
///
/// # Errors
/// If what the user named cannot be read, or it is not clear what is meant.
pub(crate) fn open(source: &SourceArgs, providers: ProviderSet, bpf: Bpf) -> Result<Attachment> {
    let options = options(source, bpf, providers == ProviderSet::WithSched);
    let attachment = match providers {
        _ if source.demo => open_demo(DEMO_VCPUS, &options)?,
        ProviderSet::OwnOnly if !source.is_named() => Attachment::of(vmstrobe::Registry::default()),
        _ => Attachment::open(&source.sources(), &options)?,
    };
    say_notices(attachment.notices());
    Ok(attachment.with_own_statistics())
}

/// Opens what the user named as one virtual machine, without the sampler's own statistics, for a
/// server that passes them on.
///
/// # Errors
/// As [`open`], or if it is several virtual machines.
pub(crate) fn open_one(source: &SourceArgs, options: &Options) -> Result<Attachment> {
    if source.demo {
        return open_demo(DEMO_VCPUS, options);
    }
    let attachment = Attachment::open(&source.sources(), options)?;
    attachment.check_one_vm()?;
    say_notices(attachment.notices());
    Ok(attachment)
}

/// Returns the options with which the library opens these sources.
pub(crate) fn options(source: &SourceArgs, bpf: Bpf, sched: bool) -> Options {
    let (on_any_kernel, threads) = (source.on_any_kernel, privileges::unprivileged_threads());
    Options { bpf, sched, on_any_kernel, threads }
}

/// Starts a guest and a crypto device of our own, and attaches to them.
///
/// # Errors
/// If there is no usable `/dev/kvm`.
pub(crate) fn open_demo(vcpus: u32, options: &Options) -> Result<Attachment> {
    // By the broker, because /dev/kvm may be another user's.
    let make = move || vmstrobe_guest::usable().and_then(|()| DemoGuest::new(vcpus));
    let mut guest = options.bpf.broker().run(make)?;
    let provider = OwnKvm::with_bpf(DEMO_NAME, guest.vm().fd(), options.bpf.clone())?;
    // Before they run: later, the kernel would make this wait.
    for vcpu in guest.vcpus() {
        provider.add_vcpu(vcpu.id(), vcpu.fd())?;
    }
    guest.start()?;
    let registry = Registry::default();
    let provider = Arc::new(provider);
    if options.sched {
        let sched = provider.sched()?;
        wait_for_thread_names(&sched, vcpus as usize)?;
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
pub(crate) fn open_crypto_device() -> Result<Attachment> {
    let registry = Registry::default();
    let crypto = CryptoLoad::start()?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).keeping(crypto))
}

/// Waits until all vCPUs can be told, if they ever can.
///
/// # Errors
/// If they must be read by the BPF reader, and it cannot be used.
fn wait_for_thread_names(sched: &Sched, vcpus: usize) -> Result<()> {
    for _ in 0..NAMING.as_millis() / NAMING_LOOK.as_millis() {
        if sched.objects()?.len() >= vcpus {
            break;
        }
        thread::sleep(NAMING_LOOK);
    }
    Ok(())
}

/// Returns the BPF reader for a command that samples. It is tried at once if it is required,
/// and else when there is something to read.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_sampling(when: BpfWhen, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Auto, broker)
}

/// Returns the BPF reader for a command that reads once. Unless it is required, it is used
/// only for what nothing else can read: otherwise loading a program is not worth it.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_reading(when: BpfWhen, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Needed, broker)
}

fn bpf(when: BpfWhen, auto: BpfMode, broker: Broker) -> Result<Bpf> {
    let mode = match when {
        BpfWhen::Auto => auto,
        BpfWhen::Off => BpfMode::Off,
        BpfWhen::Require => BpfMode::Require,
    };
    let bpf = Bpf::with_broker(mode, broker);
    if when == BpfWhen::Require {
        let explain = |error| Error::failed(format!("--bpf require: {}", with_causes(&error)));
        bpf.check().map_err(explain)?;
    }
    Ok(bpf)
}

#[cfg(test)]
mod tests {
    use vmstrobe::BpfStatus;

    use super::*;

    #[test]
    fn what_is_asked_for_is_what_providers_get() {
        let mode = |when| bpf_for_sampling(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Auto));
        assert_eq!(mode(BpfWhen::Off), Some(BpfMode::Off));
        let mode = |when| bpf_for_reading(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Needed));
        // Here it can be used, or there is a word why not.
        match bpf_for_sampling(BpfWhen::Require, Broker::default()) {
            Ok(bpf) => assert!(matches!(bpf.status(), BpfStatus::Open(_)), "{bpf:?}"),
            Err(error) => assert!(error.to_string().starts_with("--bpf require: "), "{error}"),
        }
    }
}
