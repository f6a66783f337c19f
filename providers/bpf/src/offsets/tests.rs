//! The running kernel's own description, and falsified copies of it. No privilege is needed.

use super::*;
use crate::tests::types::{BtfDir, Types};

fn real() -> Offsets {
    Offsets::read(Path::new(BTF_DIR)).unwrap()
}

/// Returns the error with which such a description is refused.
#[track_caller]
fn refused(dir: &BtfDir) -> (ErrorKind, String) {
    let error = Offsets::read(dir.path()).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn this_kernels_are_found() {
    let Some(types) = Types::read() else { return };
    let offsets = real();
    assert_eq!(offsets, Offsets::read(types.dir().path()).unwrap());
    let Offsets { files, vm, vcpu, .. } = &offsets;
    assert!(!vm.stat_is_pointer && !vcpu.stat_is_pointer);
    // A file is found by what is another member each.
    assert_ne!(files.fdt_fd, files.fdt_max_fds);
    assert_ne!(files.file_f_op, files.file_private_data);
    for holder in [vm, vcpu] {
        assert!(holder.stat_bytes > 0 && holder.stat_bytes.is_multiple_of(8));
        // Inside or behind, the name would be something else.
        assert!(
            holder.stats_id >= holder.stat + holder.stat_bytes || holder.stats_id < holder.stat
        );
    }
    assert_ne!(vm.stat_bytes, vcpu.stat_bytes);
    assert!(offsets.task.is_some());
}

#[test]
fn a_kernel_that_describes_nothing_is_named() {
    let dir = BtfDir::empty();
    let file = dir.path().join("vmlinux");
    let text = format!(
        "this kernel has no BTF, which describes its types (CONFIG_DEBUG_INFO_BTF): {}",
        file.display()
    );
    assert_eq!(refused(&dir), (ErrorKind::Unsupported, text));
    fs::create_dir(&file).unwrap();
    let text =
        format!("cannot read the kernel's BTF, which describes its types: {}", file.display());
    assert_eq!(refused(&dir), (ErrorKind::Unsupported, text));
}

#[test]
fn a_description_that_is_none_is_refused() {
    let dir = BtfDir::empty();
    for bytes in [&b""[..], b"\x7fELF", &[0; 4096]] {
        dir.write("vmlinux", bytes);
        assert_eq!(refused(&dir).0, ErrorKind::Malformed);
    }
}

/// As most distributions have it.
#[test]
fn a_module_describes_its_types_on_top_of_the_kernels() {
    let Some(mut types) = Types::read() else { return };
    let module = types.split("kvm_vcpu");
    let dir = types.dir();
    let (kind, text) = refused(&dir);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.ends_with(&*dir.path().join("kvm").to_string_lossy()), "{text}");
    dir.write("kvm", &module);
    assert_eq!(Offsets::read(dir.path()).unwrap(), real());
    dir.write("kvm", &module[..module.len() - 1]);
    assert_eq!(refused(&dir).0, ErrorKind::Malformed);
}

#[test]
fn what_is_not_there_is_named() {
    for (name, what) in [
        ("private_data", "file.private_data"),
        ("max_fds", "fdtable.max_fds"),
        ("stats_id", "kvm.stats_id"),
        ("mm_users", "mm_struct.mm_users"),
        ("mm_struct", "struct mm_struct"),
    ] {
        let Some(mut types) = Types::read() else { return };
        let text = format!("this kernel's types have no {what}");
        assert_eq!(refused(&types.rename(name).dir()), (ErrorKind::Unsupported, text));
    }
    let Some(mut types) = Types::read() else { return };
    let (_, text) = refused(&types.rename("kvm_vm_stat").dir());
    assert!(text.ends_with("there is no struct kvm_vm_stat"), "{text}");
}

#[test]
fn what_has_become_another_kind_of_thing_is_refused() {
    for (of, name) in [
        ("task_struct", "files"),
        ("files_struct", "fdt"),
        ("fdtable", "fd"),
        ("file", "f_op"),
        ("file", "private_data"),
        ("kvm_vcpu", "kvm"),
        ("kvm", "mm"),
    ] {
        let Some(mut types) = Types::read() else { return };
        let (_, text) = refused(&types.retype(of, name, ("fdtable", "max_fds")).dir());
        assert!(text.ends_with(&format!("{of}.{name} is no pointer")), "{text}");
    }
}

#[test]
fn statistics_may_be_behind_a_pointer() {
    let Some(mut types) = Types::read() else { return };
    let dir = types.retype("kvm_vcpu", "stat", ("kvm_vcpu", "kvm")).dir();
    let offsets = Offsets::read(dir.path()).unwrap();
    assert!(offsets.vcpu.stat_is_pointer && !offsets.vm.stat_is_pointer);
    // How long they are, their own type says.
    let real = real();
    assert_eq!(Holder { stat_is_pointer: false, ..offsets.vcpu }, real.vcpu);
}

#[test]
fn an_older_kernel_has_no_cast() {
    let Some(mut types) = Types::read() else { return };
    assert_eq!(real().cast.is_some(), types.has_function("bpf_rdonly_cast"));
    if real().cast.is_none() {
        return;
    }
    let dir = types.rename("bpf_rdonly_cast").dir();
    let offsets = Offsets::read(dir.path()).unwrap();
    assert_eq!(offsets, Offsets { cast: None, ..real() });
    // Nor one whose type for it is not as long as is loaded.
    let Some(mut types) = Types::read() else { return };
    let dir = types.resize("bpf_perf_event_value", 8).dir();
    assert_eq!(Offsets::read(dir.path()).unwrap().cast, None);
}

#[test]
fn a_kernel_without_the_schedulers_figures_is_read_all_the_same() {
    for name in ["sched_info", "run_delay", "pid_links"] {
        let Some(mut types) = Types::read() else { return };
        let offsets = Offsets::read(types.rename(name).dir().path()).unwrap();
        assert_eq!(offsets, Offsets { task: None, ..real() }, "{name}");
    }
}
