//! A virtual machine and a crypto device of this process, whose statistics are known to move: to
//! try vmstrobe where nothing else runs.
//!
//! Invariant: the guest and the device run for as long as they are read, and are dropped after
//! their readers.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmstrobe_core::{PathPolicy, Provider, Registry};
use vmstrobe_guest::DemoGuest;
use vmstrobe_kvm::{NewVcpu, OwnKvm, Sched};

use crate::attachment::Attachment;
use crate::error::Result;
use crate::sources::Options;
use crypto::CryptoLoad;

mod crypto;

pub use crypto::DESCRIPTION as CRYPTO_DEVICE;

/// The name of the virtual machine.
pub const NAME: &str = "demo";
/// A number of vCPUs that shows each load once.
pub const VCPUS: u32 = 4;

/// The longest wait for the threads of the vCPUs to set their names, by which the provider `sched`
/// finds them.
const NAMING_LIMIT: Duration = Duration::from_secs(1);
/// The time between two looks for these threads.
const NAMING_POLL_PERIOD: Duration = Duration::from_millis(5);

/// Starts a virtual machine with so many vCPUs, 1 to 64, and a crypto device, and attaches to them.
/// They end with what reads them.
///
/// ```no_run
/// use vmstrobe::{Options, demo};
/// let mut session = demo::start(2, &Options::default())?.sample("vcpu: exits", 1000.0)?;
/// for sample in session.samples().take(1000) {
///     for (vcpu, exits) in sample.stat("exits") {
///         println!("{} {:?}", vcpu.object().path, exits.number());
///     }
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
///
/// # Errors
/// [`Error::Guest`](crate::Error::Guest) if there is no usable `/dev/kvm`, or for 0 or too many
/// vCPUs; else as [`start_crypto_device`].
pub fn start(vcpus: u32, options: &Options) -> Result<Attachment> {
    // The broker opens it, because /dev/kvm may belong to another user.
    let make = move || vmstrobe_guest::usable().and_then(|()| DemoGuest::new(vcpus));
    let mut guest = options.bpf.broker().run(make)?;
    let (bpf, threads) = (options.bpf.clone(), options.threads.clone());
    let provider = OwnKvm::with_threads(NAME, guest.vm().fd(), bpf, threads)?;
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
    let crypto = CryptoLoad::start(&options.threads)?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).with_options(options).of_own_vm().keeping((guest, crypto)))
}

/// Starts the crypto device alone, for a host that cannot run a guest, and attaches to it.
///
/// # Errors
/// If the system has no memory or threads for it.
pub fn start_crypto_device(options: &Options) -> Result<Attachment> {
    let registry = Registry::default();
    let crypto = CryptoLoad::start(&options.threads)?;
    registry.add(crypto.provider());
    Ok(Attachment::of(registry).with_options(options).keeping(crypto))
}

/// Describes the load of a vCPU in one line: `steady: ...`.
pub fn describe_vcpu(vcpu: u32) -> &'static str {
    DemoGuest::describe(vcpu)
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

#[cfg(test)]
mod tests {
    use vmstrobe_testing::{has_kvm, soon};

    use super::*;
    use crate::error::Error;
    use crate::parts::Bpf;
    use crate::select::Selection;

    fn options(sched: bool) -> Options {
        Options { bpf: Bpf::off(), sched, ..Options::default() }
    }

    /// Returns the providers that the error about an unknown one lists.
    fn known_providers(attachment: &Attachment) -> Vec<String> {
        let selection = Selection { provider: Some("none".to_owned()), ..Selection::default() };
        match attachment.select(&selection) {
            Err(Error::UnknownProvider { known, .. }) => known,
            other => panic!("there is no such provider: {other:?}"),
        }
    }

    #[test]
    fn sched_is_offered_only_beside_a_guest() {
        let device = start_crypto_device(&options(true)).expect("there are threads");
        assert_eq!(known_providers(&device), ["cryptodev"]);
        if !has_kvm() {
            return;
        }
        let guest = start(1, &options(false)).expect("there is KVM");
        assert_eq!(known_providers(&guest), ["cryptodev", "kvm", "sched"]);
    }

    #[test]
    fn the_guest_and_the_device_are_read_until_the_attachment_is_dropped() {
        if !has_kvm() {
            return;
        }
        let mut demo = start(2, &options(true)).expect("there is KVM");
        let paths = |provider: &str| {
            let objects = demo.objects().expect("its providers list their objects");
            let its = objects.into_iter().filter(|object| object.schema.provider() == provider);
            its.map(|object| object.path.to_string()).collect::<Vec<_>>()
        };
        let vcpus = ["/vm/demo/vcpu[0]", "/vm/demo/vcpu[1]"];
        assert_eq!(paths("kvm"), [&["/vm/demo"][..], &vcpus].concat());
        assert_eq!(paths("cryptodev"), ["/objects/crypto0"]);
        // A thread is found by its name, which those of another test's guest have too.
        assert!(soon(Duration::from_secs(10), || paths("sched") == vcpus));
        let snapshot = demo.read(&"vcpu: exits".parse().expect("it is a filter"));
        assert_eq!(snapshot.expect("they can be read").stat("exits").count(), 2);
        assert!(!demo.has_ended() && demo.main().is_none());
    }

    #[test]
    fn too_many_vcpus_are_refused() {
        if has_kvm() {
            let error = start(65, &options(false)).map(drop).expect_err("the limit is 64");
            assert!(error.to_string().contains("cannot have 65 vCPUs: use 1 to 64"), "{error}");
        }
    }
}
