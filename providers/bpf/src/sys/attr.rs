//! The attributes of the commands of `bpf(2)`, laid out as in the kernel's `uapi/linux/bpf.h`.
//!
//! Invariant: an attribute is what the kernel of Linux 5.14 or later knows of the command, from its
//! first byte on, without padding: so no byte of it is uninitialised. What is cut off its end is 0
//! to the kernel.

use std::ffi::c_long;

/// The kernel's `BPF_OBJ_NAME_LEN`.
pub(super) const NAME_BYTES: usize = 16;

// Commands, and numbers in their attributes.
pub(super) const MAP_CREATE: c_long = 0;
#[cfg(test)]
pub(super) const MAP_UPDATE_ELEM: c_long = 2;
pub(super) const PROG_LOAD: c_long = 5;
pub(super) const PROG_TEST_RUN: c_long = 10;
pub(super) const MAP_FREEZE: c_long = 22;

pub(super) const MAP_TYPE_ARRAY: u32 = 2;
pub(super) const F_RDONLY: u32 = 1 << 3;
pub(super) const F_MMAPABLE: u32 = 1 << 10;
pub(super) const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
pub(super) const PROG_TYPE_SYSCALL: u32 = 31;
pub(super) const F_SLEEPABLE: u32 = 1 << 4;

#[repr(C)]
#[derive(Default)]
pub(super) struct CreateAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; NAME_BYTES],
}

#[cfg(test)]
#[repr(C)]
pub(super) struct ElementAttr {
    pub(super) map_fd: u32,
    pub(super) _hole: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

#[repr(C)]
pub(super) struct FreezeAttr {
    pub(super) map_fd: u32,
}

#[repr(C)]
pub(super) struct LoadAttr {
    pub(super) prog_type: u32,
    pub(super) insn_cnt: u32,
    pub(super) insns: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log_buf: u64,
    pub(super) kern_version: u32,
    pub(super) prog_flags: u32,
    pub(super) prog_name: [u8; NAME_BYTES],
}

#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct RunAttr {
    pub(super) prog_fd: u32,
    /// The kernel's answer.
    pub(super) retval: u32,
    pub(super) data_size_in: u32,
    pub(super) data_size_out: u32,
    pub(super) data_in: u64,
    pub(super) data_out: u64,
    pub(super) repeat: u32,
    pub(super) duration: u32,
    pub(super) ctx_size_in: u32,
    pub(super) ctx_size_out: u32,
    pub(super) ctx_in: u64,
    pub(super) ctx_out: u64,
}
