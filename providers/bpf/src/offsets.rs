//! The offsets of the kernel's members that the programs read, from its own description of its
//! types.
//!
//! None of this is an ABI. So the offsets are looked up in the running kernel, and used only once
//! the program and pread have read the same of a guest of our own.
//!
//! Invariant: an offset is where this kernel says that the member of that name is; a member that
//! must be a pointer and is none is an error.

use std::fs;
use std::io;
use std::path::Path;

use vmstrobe_core::{Error, ErrorKind, Result};

use super::btf::{Btf, Member, Shape};

/// The directory in which the kernel describes its types, and those of its modules.
pub(super) const BTF_DIR: &str = "/sys/kernel/btf";

/// Offsets in bytes, each from the start of the struct that its name begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) files: Files,
    pub(super) vm: Holder,
    pub(super) vcpu: Holder,
    /// `kvm_vcpu.kvm`, its VM.
    pub(super) vcpu_kvm: u32,
    /// `kvm.mm`, which a VM keeps from being freed.
    pub(super) kvm_mm: u32,
    /// `mm_struct.mm_users`: 0 once the VMM's threads are gone. Of 32 bits.
    pub(super) mm_users: u32,
    /// `None` where the scheduler keeps no such figures.
    pub(super) task: Option<Task>,
    /// A kfunc that lets a program load from any address, and a type for what is loaded: 24 bytes
    /// that begin with a `u64`. `None` before Linux 6.2.
    pub(super) cast: Option<Cast>,
}

/// The offsets from a task to one of its open files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) task_files: u32,
    pub(super) files_fdt: u32,
    pub(super) fdt_fd: u32,
    pub(super) fdt_max_fds: u32,
    pub(super) file_f_op: u32,
    pub(super) file_private_data: u32,
}

/// A `struct kvm` or `struct kvm_vcpu`: what holds statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The offset of the block of statistics, or of a pointer to it.
    pub(super) stat: u32,
    pub(super) stat_is_pointer: bool,
    /// The length of the block in bytes.
    pub(super) stat_bytes: u32,
    /// The beginning of its name (`kvm-<tid>...`), which it keeps for as long as it lives. Right
    /// behind the block, so that who has just looked there has it at hand.
    pub(super) stats_id: u32,
}

/// The offsets from a vCPU to the thread that last ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) vcpu_pid: u32,
    pub(super) pid_first_task: u32,
    pub(super) task_pid_link: u32,
    pub(super) task_pid: u32,
    pub(super) run_delay: u32,
    pub(super) timeslices: u32,
    pub(super) run_time: u32,
}

/// Ids of vmlinux's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    pub(super) kfunc: u32,
    pub(super) struct_id: u32,
}

impl Offsets {
    /// Reads the offsets of the running kernel.
    ///
    /// # Errors
    /// `Unsupported` if it does not describe its types, or they are not as they have to be; as
    /// [`Btf::parse`].
    pub(super) fn read(btf_dir: &Path) -> Result<Self> {
        let vmlinux = read(&btf_dir.join("vmlinux"))?;
        let alone = Btf::parse(&vmlinux)?;
        if alone.struct_named("kvm_vcpu").is_some() {
            return Self::find(&alone);
        }
        // KVM is a module, which describes its types on top of the kernel's.
        let module = read(&btf_dir.join("kvm"))?;
        Self::find(&Btf::with_module(&vmlinux, &module)?)
    }

    fn find(btf: &Btf<'_>) -> Result<Self> {
        let at = |of: &str, path: &[&str]| btf.path(of, path).map(|member| member.offset_bytes);
        let pointer = |of: &str, name: &str| match btf.path(of, &[name])? {
            Member { shape: Shape::Pointer, offset_bytes, .. } => Ok(offset_bytes),
            _ => Err(unsupported(format!("{of}.{name} is no pointer"))),
        };
        Ok(Self {
            files: Files {
                task_files: pointer("task_struct", "files")?,
                files_fdt: pointer("files_struct", "fdt")?,
                fdt_fd: pointer("fdtable", "fd")?,
                fdt_max_fds: at("fdtable", &["max_fds"])?,
                file_f_op: pointer("file", "f_op")?,
                file_private_data: pointer("file", "private_data")?,
            },
            vm: holder(btf, "kvm", "kvm_vm_stat")?,
            vcpu: holder(btf, "kvm_vcpu", "kvm_vcpu_stat")?,
            vcpu_kvm: pointer("kvm_vcpu", "kvm")?,
            kvm_mm: pointer("kvm", "mm")?,
            mm_users: at("mm_struct", &["mm_users"])?,
            task: task(btf).ok(),
            cast: cast(btf),
        })
    }
}

fn holder(btf: &Btf<'_>, of: &str, stat: &str) -> Result<Holder> {
    let member = btf.path(of, &["stat"])?;
    let stat_bytes = btf.struct_named(stat).and_then(|id| btf.size_bytes(id));
    Ok(Holder {
        stat: member.offset_bytes,
        stat_is_pointer: member.shape == Shape::Pointer,
        stat_bytes: stat_bytes.ok_or_else(|| unsupported(format!("there is no struct {stat}")))?,
        stats_id: btf.path(of, &["stats_id"])?.offset_bytes,
    })
}

fn task(btf: &Btf<'_>) -> Result<Task> {
    let at = |of: &str, path: &[&str]| btf.path(of, path).map(|member| member.offset_bytes);
    Ok(Task {
        vcpu_pid: at("kvm_vcpu", &["pid"])?,
        // The first of each array is that of threads: `PIDTYPE_PID`.
        pid_first_task: at("pid", &["tasks"])? + at("hlist_head", &["first"])?,
        task_pid_link: at("task_struct", &["pid_links"])?,
        task_pid: at("task_struct", &["pid"])?,
        run_delay: at("task_struct", &["sched_info", "run_delay"])?,
        timeslices: at("task_struct", &["sched_info", "pcount"])?,
        run_time: at("task_struct", &["se", "sum_exec_runtime"])?,
    })
}

fn cast(btf: &Btf<'_>) -> Option<Cast> {
    let own = |id: &_| btf.is_vmlinux(*id);
    let kfunc = btf.function("bpf_rdonly_cast").filter(own)?;
    // UAPI, so that it stays: three `u64`.
    let struct_id = btf.struct_named("bpf_perf_event_value").filter(own)?;
    (btf.size_bytes(struct_id) == Some(24))
        .then_some(Cast { kfunc: kfunc.get(), struct_id: struct_id.get() })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => {
                "this kernel has no BTF, which describes its types (CONFIG_DEBUG_INFO_BTF)"
            }
            _ => "cannot read the kernel's BTF, which describes its types",
        };
        Error::caused(ErrorKind::Unsupported, format!("{why}: {}", path.display()), error)
    })
}

fn unsupported(what: String) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the BPF reader does not know how this kernel keeps its statistics: {what}"),
    )
}

#[cfg(test)]
mod tests;
