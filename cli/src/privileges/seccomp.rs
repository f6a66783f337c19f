//! A seccomp filter for servers, which refuses system calls that no thread of a server makes.
//!
//! A list of permitted calls would depend on the C library, the kernel and every crate. Therefore
//! this is a list of refused ones: the calls by which a thread under an attacker's control could
//! run another program, enter another process or change the host, and those that bypass a filter.
//! They fail with `EPERM`.
//!
//! Invariant: no call that a server makes is refused. The filter is a second defence after the
//! dropped capabilities; where it cannot be installed, the server runs without it.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Calls that run another program.
const EXECUTE: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];
/// Calls that read, write or control another process. (The helper needs `pidfd_getfd` and `kcmp`;
/// they take a capability that only the helper and the broker have.)
const ENTER_PROCESS: [i64; 5] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_setns,
];
/// Calls that change the host or this process's place in it: the kernel, mounts, clock, keys,
/// users.
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
/// Calls that could do any of this without the calls above, or that can stop the kernel in the
/// middle of a call.
const BYPASS: [i64; 5] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
];

/// The bit that marks a call of the x32 ABI, which some kernels have beside the x86-64 ABI. A
/// filter cannot distinguish the two by the architecture.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// The call numbers that only x32 has: those of `execve`, `ptrace`, `kexec_load`,
/// `process_vm_readv`, `process_vm_writev` and `execveat` (`syscall_64.tbl` in the kernel).
#[cfg(target_arch = "x86_64")]
const X32_ONLY: [i64; 6] = [520, 521, 528, 539, 540, 545];

/// Installs the filter for this thread and for those that it starts from now on. It also sets
/// `no_new_privs`. Does nothing if the kernel or the machine does not support such filters.
pub(crate) fn install_filter() {
    if let Ok(filter) = filter() {
        // If installing is refused, a policy or a filter of the system is in force.
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
    fn the_filter_refuses_to_run_programs() {
        let run = || Command::new("true").status().map(|status| status.success());
        assert_eq!(run().ok(), Some(true));
        // On a separate thread, because a filter cannot be removed.
        let refused = thread::spawn(move || {
            install_filter();
            (run(), thread::spawn(run).join().expect("the thread does not panic"))
        });
        let (here, started) = refused.join().expect("the thread does not panic");
        for outcome in [here, started] {
            assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
        }
        assert_eq!(run().ok(), Some(true), "other threads have no filter");
    }

    #[test]
    fn each_call_is_listed_once() {
        let all = [&EXECUTE[..], &ENTER_PROCESS, &CHANGE_HOST, &BYPASS].concat();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        assert!(filter().is_ok_and(|filter| filter.len() > all.len()));
    }
}
