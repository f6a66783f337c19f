//! QEMUs that are asked over their QMP sockets: alone, or beside the virtual machines of processes
//! that are read in a quicker way.
//!
//! Invariant: a QEMU gives its names to no other process's vCPUs. It belongs to the process behind
//! its socket, or there is one process alone that it can belong to, or there is an error.

use std::path::Path;
use std::sync::Arc;

use crate::parts::{Qmp, scan_by};
use vmstrobe_core::{PathPolicy, vm_path};
use vmstrobe_host::Host;

use crate::error::{Error, Result, SocketPeer};
use crate::found::process_name;
use crate::member::Member;

/// Returns the member for a QEMU that is asked, alone or beside its VM.
pub(crate) fn member(socket: &Path, qmp: &Arc<Qmp>, is_alone: bool) -> Member {
    let name = qmp.vm_name().to_owned();
    let title = format!("QEMU {name} ({})", socket.display());
    let providers = vec![Arc::clone(qmp) as _];
    let mut member = Member::remote(title, name, qmp.peer_pid(), providers);
    member.is_vm = is_alone;
    member
}

/// Returns the policy for paths of a QEMU: every QEMU has the same ones.
pub(crate) fn policy(qmp: &Qmp) -> PathPolicy {
    PathPolicy { label: Some(vm_path(qmp.vm_name())), ..PathPolicy::default() }
}

/// The processes among which there is that of a QEMU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vmms<'a> {
    pub(crate) host: &'a Host,
    /// The processes of which a virtual machine is read.
    pub(crate) pids: &'a [u32],
    /// True if they were found, false if they were named.
    pub(crate) all: bool,
    /// True if there are several sockets.
    pub(crate) several_sockets: bool,
}

impl Vmms<'_> {
    /// Returns the process whose vCPUs a QEMU has names for: the one behind the socket, or, if that
    /// has no VM (it is a launcher or a relay) or cannot be seen, the only VMM that there is. If
    /// that was not named but found, the name of its VM and that there is one socket must tell.
    ///
    /// # Errors
    /// If it is not clear which process that is, or QEMU calls its VM otherwise.
    pub(crate) fn behind(self, qmp: &Qmp, socket: &Path) -> Result<u32> {
        let peer = qmp.peer_pid();
        if let Some(pid) = peer.filter(|pid| self.pids.contains(pid)) {
            return Ok(pid);
        }
        let has_no_vm = peer.is_none_or(|pid| scan_by(self.host, pid).is_err());
        if let ([pid], true) = (self.pids, has_no_vm) {
            let named = scan_by(self.host, *pid).ok().and_then(|vms| vms.into_iter().next()?.name);
            match named {
                Some(vm) if vm != qmp.vm_name() => {
                    let socket_vm = qmp.vm_name().to_owned();
                    return Err(Error::OtherQemu {
                        socket: socket.to_owned(),
                        socket_vm,
                        pid: *pid,
                        vm,
                    });
                }
                Some(_) if !self.several_sockets => return Ok(*pid),
                _ if !self.all => return Ok(*pid),
                _ => {}
            }
        }
        let peer = match peer {
            Some(pid) if has_no_vm => {
                SocketPeer::WithoutVm { pid, comm: process_name(self.host, pid) }
            }
            Some(pid) => SocketPeer::NotRead { pid },
            None => SocketPeer::Unknown,
        };
        Err(Error::UnclearSocket { socket: socket.to_owned(), peer })
    }
}
