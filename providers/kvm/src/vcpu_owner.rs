//! The seam between the providers that have vCPUs and the statistics of their threads.
//!
//! Invariant: what is asked here costs no more than a look that the provider makes anyway.

use vmstrobe_core::{Provider, ThreadStart};
use vmstrobe_host::Broker;

use crate::opener::Opener;
use crate::vcpu::Vcpu;

/// A provider that has vCPUs.
pub(crate) trait VcpuOwner: Provider {
    /// Looks for vCPUs that have come or gone.
    fn look(&self);

    /// Returns the vCPUs that there were at the last look, in the order of its objects.
    fn vcpus(&self) -> Vec<Vcpu>;

    /// Returns the opener of its vCPUs' fds.
    fn opener(&self) -> &Opener;

    /// Returns the broker that reads /proc, which may hide other users' processes from others.
    fn broker(&self) -> Broker;

    /// Returns the start of its threads.
    fn threads(&self) -> &ThreadStart;
}
