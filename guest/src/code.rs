//! The real-mode programs, in machine code with their assembly beside them, and their addresses.
//!
//! Invariant: the image does not depend on the guest. A program takes its parameters from registers
//! or from ports that the VMM answers, so all VMs and vCPUs use one image; only the stacks are per
//! vCPU.
//!
//! ```text
//! 0x0000  interrupt vectors; entry 0x20 leads to TICK
//! 0x1000  KNOWN   ecx times `out`, then `hlt` for ever
//! 0x2000  DEMO    a loop: read a time and sleep, read a number and write `out` as often
//! 0x3000  TICK    acknowledges the timer
//! 0x4000  stacks, STACK_BYTES for each vCPU
//! ```

/// The size of the guest memory: eight pages from address 0.
pub(crate) const MEMORY_BYTES: usize = 0x8000;

/// The entry point for a vCPU to make exactly `ecx` writes to [`PORT_WORK`] and then halt for ever.
pub(crate) const KNOWN_ENTRY: u16 = 0x1000;
/// The entry point of the demo's timer loop, for a vCPU with an x2APIC.
pub(crate) const DEMO_ENTRY: u16 = 0x2000;

/// The port that a guest writes, one byte at a time, to cause an exit. The value has no meaning.
///
/// None of the three ports belongs to an in-kernel device: 0x20, for one, is the PIC's.
pub(crate) const PORT_WORK: u16 = 0xe0;
/// The port from which the demo reads 32 bits: the ns until its timer fires. 0 would mean never.
pub(crate) const PORT_PERIOD_NS: u16 = 0xe4;
/// The port from which the demo reads 16 bits: the number of writes to [`PORT_WORK`] to make now.
pub(crate) const PORT_OUTS: u16 = 0xe8;

/// The number of vCPUs that have a stack.
pub(crate) const STACKS: u32 = ((MEMORY_BYTES - STACKS_START) / STACK_BYTES) as u32;

const TICK_VECTOR: u8 = 0x20;
const TICK_ENTRY: u16 = 0x3000;
const STACKS_START: usize = 0x4000;
// An interrupt frame has six bytes. The rest keeps vCPUs off each other's cache lines.
const STACK_BYTES: usize = 0x100;

#[rustfmt::skip] // one instruction to a line
const KNOWN: &[u8] = &[
    0x67, 0xe3, 0x05,                                //          jecxz halt
    0xe6, PORT_WORK as u8,                           // again:   out PORT_WORK, al
    0x67, 0xe2, 0xfb,                                //          loopd again
    0xf4,                                            // halt:    hlt
    0xeb, 0xfd,                                      //          jmp halt
];

// The local APIC is programmed through MSRs (x2APIC) because its registers in memory, at
// 0xfee00000, are beyond what real mode can address. KVM's timer counts nanoseconds when the
// divider is 1.
#[rustfmt::skip] // one instruction to a line
const DEMO: &[u8] = &[
    0x66, 0x31, 0xd2,                                //          xor edx, edx
    0x66, 0xb9, 0x0f, 0x08, 0x00, 0x00,              //          mov ecx, 0x80f ; spurious vector
    0x66, 0xb8, 0xff, 0x01, 0x00, 0x00,              //          mov eax, 0x1ff ; APIC on, 0xff
    0x0f, 0x30,                                      //          wrmsr
    0x66, 0xb9, 0x3e, 0x08, 0x00, 0x00,              //          mov ecx, 0x83e ; timer divider
    0x66, 0xb8, 0x0b, 0x00, 0x00, 0x00,              //          mov eax, 0xb   ; by 1
    0x0f, 0x30,                                      //          wrmsr
    0x66, 0xb9, 0x32, 0x08, 0x00, 0x00,              //          mov ecx, 0x832 ; timer vector
    0x66, 0xb8, TICK_VECTOR, 0x00, 0x00, 0x00,       //          mov eax, TICK_VECTOR ; one-shot
    0x0f, 0x30,                                      //          wrmsr
    0x66, 0xe5, PORT_PERIOD_NS as u8,                // sleep:   in eax, PORT_PERIOD_NS
    0x66, 0xb9, 0x38, 0x08, 0x00, 0x00,              //          mov ecx, 0x838 ; initial count
    0x0f, 0x30,                                      //          wrmsr          ; arms the timer
    // Interrupts stay off for one instruction after sti, so the timer cannot fire before the hlt.
    0xfb,                                            //          sti
    0xf4,                                            //          hlt
    0xfa,                                            //          cli
    0xe5, PORT_OUTS as u8,                           //          in ax, PORT_OUTS
    0x89, 0xc1,                                      //          mov cx, ax
    0xe3, 0xec,                                      //          jcxz sleep
    0xe6, PORT_WORK as u8,                           // work:    out PORT_WORK, al
    0xe2, 0xfc,                                      //          loop work
    0xeb, 0xe6,                                      //          jmp sleep
];

// It may clobber registers: DEMO keeps nothing in them across its hlt except edx = 0, which
// wrmsr takes as the upper half and TICK leaves alone.
#[rustfmt::skip] // one instruction to a line
const TICK: &[u8] = &[
    0x66, 0xb9, 0x0b, 0x08, 0x00, 0x00,              //          mov ecx, 0x80b ; end of interrupt
    0x66, 0x31, 0xc0,                                //          xor eax, eax
    0x0f, 0x30,                                      //          wrmsr
    0xcf,                                            //          iret
];

/// Writes vectors and programs into fresh guest memory of [`MEMORY_BYTES`].
pub(crate) fn lay_out(memory: &mut [u8]) {
    let vector = usize::from(TICK_VECTOR) * 4;
    memory[vector..vector + 2].copy_from_slice(&TICK_ENTRY.to_le_bytes());
    for (entry, program) in [(KNOWN_ENTRY, KNOWN), (DEMO_ENTRY, DEMO), (TICK_ENTRY, TICK)] {
        let start = usize::from(entry);
        memory[start..start + program.len()].copy_from_slice(program);
    }
}

/// Returns the first stack pointer of vCPU `vcpu`, which must be below [`STACKS`].
pub(crate) fn stack_top(vcpu: u32) -> u16 {
    assert!(vcpu < STACKS, "vCPU {vcpu} has no stack");
    // Stacks grow downwards: each begins where the next vCPU's ends.
    (STACKS_START + (vcpu as usize + 1) * STACK_BYTES) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_each_program_whole() {
        let mut memory = vec![0; MEMORY_BYTES];
        lay_out(&mut memory);
        assert_eq!(memory[0x80..0x84], [0x00, 0x30, 0x00, 0x00]);
        for (entry, program) in [(KNOWN_ENTRY, KNOWN), (DEMO_ENTRY, DEMO), (TICK_ENTRY, TICK)] {
            assert!(memory[usize::from(entry)..].starts_with(program));
        }
    }

    #[test]
    fn stacks_are_apart_and_inside_the_memory() {
        assert_eq!(STACKS, 64);
        assert_eq!(usize::from(stack_top(0)), STACKS_START + STACK_BYTES);
        assert_eq!(usize::from(stack_top(STACKS - 1)), MEMORY_BYTES);
    }

    #[test]
    #[should_panic(expected = "vCPU 64 has no stack")]
    fn a_vcpu_beyond_the_last_has_no_stack() {
        stack_top(STACKS);
    }
}
