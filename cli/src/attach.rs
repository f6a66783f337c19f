//! From the arguments to an attachment: the sources that the user named, or a guest and a crypto
//! device of our own; and the BPF reader that the attachment may use.
//!
//! Invariant: the library's notices about an attachment are printed before any of its data. The
//! demo's guest runs for as long as it is read, and is dropped after its readers.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe::{
    Attachment, Bpf, BpfMode, Broker, NewVcpu, Options, OwnKvm, PathPolicy, Provider, Registry,
    Sched,
};
use vmstrobe_guest::DemoGuest;

use crate::args::{BpfWhen, ProviderSet, SourceArgs};
use crate::demo::crypto::CryptoLoad;
use crate::error::{Error, Result, with_causes};
use crate::messages::of_notices;
use crate::out::say_each;
use crate::privileges;

/// The name of the demo's guest.
pub(crate) const DEMO_NAME: &str = "demo";
/// The number of vCPUs of a demo guest, unless the user chooses another.
const DEMO_VCPUS: u32 = 4;

/// The longest wait for the threads of the demo's vCPUs to set their names, by which the provider
/// `sched` finds them.
const NAMING_LIMIT: Duration = Duration::from_secs(1);
/// The time between two looks for these threads.
const NAMING_POLL_PERIOD: Duration = Duration::from_millis(5);

/// Opens the sources that the user named. Without any, opens the only virtual machine on this host,
/// or else the only program with tables, if a source is needed. Adds the sampler's own statistics.
///
/// # Errors
/// If a source cannot be read, or none was named and there are several.
pub(crate) fn open(source: &SourceArgs, providers: ProviderSet, bpf: Bpf) -> Result<Attachment> {
    let options = options(source, bpf, providers == ProviderSet::WithSched);
    let attachment = match providers {
        _ if source.demo => open_demo(DEMO_VCPUS, &options)?,
        ProviderSet::OwnOnly if !source.is_named() => Attachment::of(vmstrobe::Registry::default()),
        _ => Attachment::open(&source.sources(), &options)?,
    };
    say_each(of_notices(attachment.notices()));
    Ok(attachment.with_own_statistics())
}

/// Opens the sources that the user named as one virtual machine, for a server. Leaves out the
/// sampler's own statistics.
///
/// # Errors
/// As [`open`], or if the sources are several virtual machines.
pub(crate) fn open_one(source: &SourceArgs, options: &Options) -> Result<Attachment> {
    if source.demo {
        return open_demo(DEMO_VCPUS, options);
    }
    let attachment = Attachment::open(&source.sources(), options)?;
    attachment.check_one_vm()?;
    say_each(of_notices(attachment.notices()));
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
    // The broker opens it, because /dev/kvm may belong to another user.
    let make = move || vmstrobe_guest::usable().and_then(|()| DemoGuest::new(vcpus));
    let mut guest = options.bpf.broker().run(make)?;
    let (bpf, threads) = (options.bpf.clone(), options.threads.clone());
    let provider = OwnKvm::with_threads(DEMO_NAME, guest.vm().fd(), bpf, threads)?;
    // Before the vCPUs run: later, the kernel would make this call wait.
    for vcpu in guest.vcpus() {
        provider.add_vcpu(NewVcpu::new(vcpu.id(), vcpu.fd()))?;
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
    let crypto = CryptoLoad::start(privileges::unprivileged_threads())?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).with_options(options).keeping((guest, crypto)))
}

/// Starts the crypto device alone, for a host that cannot run a guest.
///
/// # Errors
/// If the system has no memory or threads for it.
pub(crate) fn open_crypto_device() -> Result<Attachment> {
    let registry = Registry::default();
    let crypto = CryptoLoad::start(privileges::unprivileged_threads())?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).keeping(crypto))
}

/// Waits, up to [`NAMING_LIMIT`], until the threads of all vCPUs have their names.
///
/// # Errors
/// If the BPF reader is required and cannot be used.
fn wait_for_thread_names(sched: &Sched, vcpus: usize) -> Result<()> {
    for _ in 0..NAMING_LIMIT.as_millis() / NAMING_POLL_PERIOD.as_millis() {
        if sched.objects()?.len() >= vcpus {
            break;
        }
        thread::sleep(NAMING_POLL_PERIOD);
    }
    Ok(())
}

/// Returns the BPF reader for a command that samples. A reader that is required is tried at once,
/// any other when there is something to read.
///
/// # Errors
/// If it is required and cannot be used.
pub(crate) fn bpf_for_sampling(when: BpfWhen, broker: Broker) -> Result<Bpf> {
    bpf(when, BpfMode::Auto, broker)
}

/// Returns the BPF reader for a command that reads once. Unless it is required, it reads only
/// objects that no other method can read: for others, loading a program is not worth it.
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
    fn the_option_decides_the_mode_of_the_bpf_reader() {
        let mode = |when| bpf_for_sampling(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Auto));
        assert_eq!(mode(BpfWhen::Off), Some(BpfMode::Off));
        let mode = |when| bpf_for_reading(when, Broker::default()).map(|bpf| bpf.mode()).ok();
        assert_eq!(mode(BpfWhen::Auto), Some(BpfMode::Needed));
        // On this machine the reader can be used, or the error says why not.
        match bpf_for_sampling(BpfWhen::Require, Broker::default()) {
            Ok(bpf) => assert!(matches!(bpf.status(), BpfStatus::Open(_)), "{bpf:?}"),
            Err(error) => assert!(error.to_string().starts_with("--bpf require: "), "{error}"),
        }
    }
}
