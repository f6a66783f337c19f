//! The options for attaching to other processes, and the error if nothing can be borrowed.

use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind};
use vmstrobe_host::{FdBudget, Host};

use crate::bulk::BulkOpener;

/// The options with which [`AttachedKvm`](crate::AttachedKvm) attaches.
///
/// ```
/// use vmstrobe_host::{FdBudget, Host, Reaper};
/// use vmstrobe_kvm::{AttachOptions, AttachedKvm};
/// // Several providers that look at the same host, and none of which may take all descriptors.
/// let (host, budget) = (Host::default(), FdBudget::shared());
/// let options = || {
///     let (host, budget) = (host.clone(), budget.clone());
///     AttachOptions { host, budget, ..AttachOptions::default() }
/// };
/// let reaper = Reaper::new()?;
/// let both = [(); 2].map(|()| AttachedKvm::with_options(reaper.clone(), options()));
/// # both.into_iter().collect::<Result<Vec<_>, _>>()?;
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The method that reads many objects in one call, and objects that have no stats fd: the BPF
    /// reader. None by default.
    pub bulk: Option<Arc<dyn BulkOpener>>,
    /// The helper through which other processes are looked at, and the start of threads; by default
    /// a helper of its own, and threads that do nothing first.
    pub host: Host,
    /// The number of descriptors that may be borrowed; by default all that this process may have,
    /// less a reserve.
    pub budget: FdBudget,
    /// Hold statistics descriptors also on kernels that read freed memory through those whose VM
    /// has ended: before 6.5, 6.4.8, 6.1.43 and 5.15.124. Only for a kernel that is known to have
    /// the fix under another number.
    pub on_any_kernel: bool,
}

impl Default for AttachOptions {
    fn default() -> Self {
        let (host, budget) = (Host::default(), FdBudget::default());
        Self { bulk: None, host, budget, on_any_kernel: false }
    }
}

/// Returns the error for a process of which nothing could be borrowed, although nothing was
/// refused.
pub(super) fn unreadable(pid: u32, bulk: Option<&dyn BulkOpener>) -> Error {
    let how = match bulk.map(BulkOpener::refusal) {
        // Then any VM can be read that is there.
        Some(None) => {
            let text =
                format!("pid {pid} closed its virtual machine while it was being attached to");
            return Error::new(ErrorKind::NotFound, text);
        }
        None => "is switched off (--bpf)".to_owned(),
        Some(Some(why)) => format!("cannot be used: {why}"),
    };
    let text = format!(
        "the VMM of pid {pid} keeps no stats fds open (QEMU 8.1 and later do, and any VMM that \
         embeds vmstrobe), and the BPF reader, which needs none, {how}"
    );
    Error::new(ErrorKind::Unsupported, text)
}
