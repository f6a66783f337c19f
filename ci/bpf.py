#!/usr/bin/env python3
# Whether this machine lets us load a BPF program that reads kernel memory: exit status 0 if so, else 1 and why.
# It knows nothing of ours: what it finds, the tests must use.
import ctypes
import os
import platform
import struct
import sys

CALLS = {"x86_64": 321, "aarch64": 280}
PROG_LOAD, SYSCALL_PROGRAM, SLEEPABLE = 5, 31, 1 << 4
PROBE_READ_KERNEL = 113


def insn(opcode, registers=0, offset=0, immediate=0):
    return struct.pack("=BBhi", opcode, registers, offset, immediate)


# probe_read_kernel(stack, 8, 0): registers are the target's number, and 16 times the source's.
PROGRAM = b"".join([
    insn(0xBF, 0xA1), insn(0x07, 0x01, 0, -8),
    insn(0xB7, 0x02, 0, 8),
    insn(0xB7, 0x03, 0, 0),
    insn(0x85, 0, 0, PROBE_READ_KERNEL),
    insn(0xB7, 0x00, 0, 0), insn(0x95),
])


def main():
    call = CALLS.get(platform.machine())
    if call is None or not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "no BPF, or no types of this kernel"
    program, licence = ctypes.create_string_buffer(PROGRAM), ctypes.create_string_buffer(b"Dual MIT/GPL")
    count = len(PROGRAM) // 8
    attributes = struct.pack(
        "=IIQQIIQII16s", SYSCALL_PROGRAM, count, ctypes.addressof(program), ctypes.addressof(licence), 0, 0, 0, 0,
        SLEEPABLE, b"probe")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(call, PROG_LOAD, ctypes.create_string_buffer(attributes, 128), 128)
    return os.strerror(ctypes.get_errno()) if fd < 0 else None


sys.exit(main())
