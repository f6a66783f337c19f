//! The system calls that no thread of a server makes, refused from then on.
//!
//! A filter of what is allowed would depend on the C library, the kernel and every crate. So this
//! is one of what is not: the calls by which a thread that was taken over would run another
//! program, get into another process, or change the host; and those that get around a filter. They
//! fail with `EPERM`.
//!
//! Invariant: nothing that a server does is refused, and what the filter cannot be made for stays
//! as it was: it is a second line, behind the rights that are given up.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// To run another program.
const EXECUTE: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];
/// To read, write or steer another process. (`pidfd_getfd` and `kcmp` are what the helper is for,
/// and it takes a capability that only the helper and the broker have.)
const ENTER_PROCESS: [i64; 5] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_setns,
];
/// To change the host: its kernel, mounts, clock, keys and users.
const CHANGE_HOST: [i64; 37] = [
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
];
/// To do any of this without a call of its own, or to make the kernel wait in the middle of one.
const BYPASS: [i64; 5] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
];

/// The bit of a call of the x32 ABI, which some kernels have beside x86-64's, and which a filter
/// cannot tell by the machine.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// The numbers that only x32 has: of `execve`, `ptrace`, `kexec_load`, `process_vm_readv`,
/// `process_vm_writev` and `execveat` (`syscall_64.tbl` in the kernel).
#[cfg(target_arch = "x86_64")]
const X32_ONLY: [i64; 6] = [520, 521, 528, 539, 540, 545];

/// Refuses them to this thread and to those that it starts from now on, which then cannot gain
/// rights by executing a program either (`no_new_privs`). Where the kernel or the machine has no
/// such filters, nothing happens.
pub(crate) fn install_filter() {
    if let Ok(filter) = filter() {
        // Where it is refused, a policy or a filter of the system's own is in its place.
        let _ = apply_filter(&filter);
    }
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = EXECUTE.into_iter().chain(ENTER_PROCESS).chain(CHANGE_HOST).chain(BYPASS);
    #[cfg(target_arch = "x86_64")]
    let refused =
        refused.flat_map(|call| [call, call | X32]).chain(X32_ONLY.map(|call| call | X32));
    let rules: BTreeMap<i64, Vec<_>> = refused.map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn no_program_is_run_from_then_on() {
        let run = || Command::new("true").status().map(|status| status.success());
        assert_eq!(run().ok(), Some(true));
        // On a thread of its own: a filter is for good.
        let refused = thread::spawn(move || {
            install_filter();
            (run(), thread::spawn(run).join().expect("it does not panic"))
        });
        let (here, started) = refused.join().expect("it does not panic");
        for outcome in [here, started] {
            assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
        }
        assert_eq!(run().ok(), Some(true), "other threads go on as before");
    }

    #[test]
    fn each_is_refused_once() {
        let all = [&EXECUTE[..], &ENTER_PROCESS, &CHANGE_HOST, &BYPASS].concat();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        assert!(filter().is_ok_and(|filter| filter.len() > all.len()));
    }
}
