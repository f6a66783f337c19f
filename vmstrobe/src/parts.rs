//! The optional providers, or stand-ins for those that are not compiled in.
//!
//! Invariant: a stand-in provides nothing. What only the provider could do is refused, with the
//! feature that it takes.

#[cfg(feature = "bpf")]
pub use vmstrobe_bpf::{Bpf, BpfMode, BpfStatus};
#[cfg(feature = "fd-server")]
pub(crate) use vmstrobe_fd_server::FdClient;
#[cfg(feature = "kvm")]
pub(crate) use vmstrobe_kvm::{
    AttachOptions, AttachedKvm, PROVIDER as KVM, SCHED, scan_by, vms_of,
};
#[cfg(feature = "qmp")]
pub(crate) use vmstrobe_qmp::{PROVIDER as QMP, Qmp, QmpShare};
#[cfg(feature = "table")]
pub use vmstrobe_table::FoundTable;
#[cfg(feature = "table")]
pub(crate) use vmstrobe_table::{Tables, tables_of};

#[cfg(not(feature = "bpf"))]
pub use without_bpf::{Bpf, BpfMode, BpfStatus};
#[cfg(not(feature = "fd-server"))]
pub(crate) use without_fd_server::FdClient;
#[cfg(not(feature = "kvm"))]
pub(crate) use without_kvm::{AttachOptions, AttachedKvm, Bulk, KVM, SCHED, scan_by, vms_of};
#[cfg(not(feature = "qmp"))]
pub(crate) use without_qmp::{QMP, Qmp, QmpShare};
#[cfg(not(feature = "table"))]
pub use without_table::FoundTable;
#[cfg(not(feature = "table"))]
pub(crate) use without_table::{Tables, tables_of};

#[cfg(not(feature = "bpf"))]
mod without_bpf;
#[cfg(not(feature = "fd-server"))]
mod without_fd_server;
#[cfg(not(feature = "kvm"))]
mod without_kvm;
#[cfg(not(feature = "qmp"))]
mod without_qmp;
#[cfg(not(feature = "table"))]
mod without_table;

/// The method that reads many vCPUs in one call, if there is one.
#[cfg(all(feature = "kvm", not(feature = "bpf")))]
type Bulk = Option<std::sync::Arc<dyn vmstrobe_kvm::BulkOpener>>;

/// Returns the error for what takes a feature that this program is built without.
// These three bring the others with them.
#[cfg(not(all(feature = "bpf", feature = "fd-server", feature = "qmp")))]
fn without(what: &str, feature: &str) -> vmstrobe_core::Error {
    let text = format!("{what}: this program is built without vmstrobe's feature '{feature}'");
    vmstrobe_core::Error::new(vmstrobe_core::ErrorKind::Unsupported, text)
}
