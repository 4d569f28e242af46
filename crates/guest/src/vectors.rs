//! The vector table, and the paths from EL0 into the kernel and back.
//!
//! While a task runs, SP_EL1 points to its control block, so that entry can save every register without
//! losing one. While the kernel runs, SP_EL1 is the kernel stack and SErrors are unmasked: an SError has
//! nothing to wait for.

use crate::asm::named::{KERNEL, REASON};
use crate::asm::{Asm, ELR_EL1, ESR_EL1, FAR_EL1, SP_EL0, SPSR_EL1, TTBR0_EL1, a64};
use crate::layout::{KERNEL_DATA, KERNEL_OFFSET, KERNEL_STACK, PAGE, VECTORS_PAGE, tcb};
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// PSTATE.A, as the operand of MSR DAIFSet and DAIFClr.
pub(crate) const DAIF_A: u32 = 0b0100;

/// Exception classes, `ESR_ELx[31:26]`.
mod class {
    pub(super) const SVC64: u32 = 0x15;
    pub(super) const INSTRUCTION_ABORT_LOWER: u32 = 0x20;
    pub(super) const DATA_ABORT_LOWER: u32 = 0x24;
    pub(super) const INSTRUCTION_ABORT_SAME: u32 = 0x21;
    pub(super) const DATA_ABORT_SAME: u32 = 0x25;
}

/// Emits the vector table at its page, and `->lower_sync`, `->run` after it.
pub(crate) fn emit(asm: &mut Asm) {
    asm.pad_to(VECTORS_PAGE * PAGE);
    let table = asm.here();
    for slot in 0..16u32 {
        asm.pad_to(table + u64::from(slot) * 0x80);
        match slot {
            4 => a64!(asm ; movz entry, #0x200 ; b ->kernel_sync),
            // The kernel must not change the task's x26 before it is saved.
            8 => a64!(asm ; b ->lower_sync),
            _ => a64!(asm ; movz entry, slot * 0x80 ; b ->unexpected),
        }
    }
    asm.pad_to(table + 0x800);
    lower_sync(asm);
    run(asm);
    kernel_sync(asm);
    unexpected(asm);
}

/// From EL0, synchronous: saves the task, then `task` = its control block, `kernel` = kernel data, and `esr`, `far`.
fn lower_sync(asm: &mut Asm) {
    a64!(asm ; ->lower_sync:);
    for n in (0..30u8).step_by(2) {
        a64!(asm ; stp X(n), X(n + 1), [sp, tcb::X as i32 + 8 * i32::from(n)]);
    }
    a64!(asm
        ; str x30, [sp, tcb::X + 8 * 30]
        ; mov task, sp
        ; mrs x0, SP_EL0
        ; mrs x1, ELR_EL1
        ; mrs x2, SPSR_EL1
        ; str x0, [task, tcb::SP]
        ; stp x1, x2, [task, tcb::PC as i32]
        ; mrs esr, ESR_EL1
        ; mrs far, FAR_EL1
        ; movz entry, 0x400);
    asm.constant(0, KERNEL_OFFSET + KERNEL_STACK + PAGE);
    asm.constant(KERNEL, KERNEL_OFFSET + KERNEL_DATA);
    a64!(asm
        ; mov sp, x0
        ; msr daifclr, DAIF_A
        ; ubfx x0, esr, #26, #6
        ; cmp x0, class::SVC64
        ; b.eq ->svc
        ; cmp x0, class::INSTRUCTION_ABORT_LOWER
        ; b.eq ->abort
        ; cmp x0, class::DATA_ABORT_LOWER
        ; b.eq ->abort
        ; b ->unexpected);
}

/// Goes on with `task` at EL0.
fn run(asm: &mut Asm) {
    a64!(asm ; ->run:
        ; msr daifset, #0b1111
        ; ldr x0, [task, tcb::TTBR0]
        ; msr TTBR0_EL1, x0
        ; isb
        ; ldr x0, [task, tcb::SP]
        ; ldp x1, x2, [task, tcb::PC as i32]
        ; msr SP_EL0, x0
        ; msr ELR_EL1, x1
        ; msr SPSR_EL1, x2
        ; mov sp, task);
    for n in (0..30u8).step_by(2) {
        a64!(asm ; ldp X(n), X(n + 1), [sp, tcb::X as i32 + 8 * i32::from(n)]);
    }
    a64!(asm ; ldr x30, [sp, tcb::X + 8 * 30] ; eret);
}

/// From EL1, synchronous: there is nothing to save, because the kernel itself is hit.
fn kernel_sync(asm: &mut Asm) {
    a64!(asm ; ->kernel_sync:
        ; mrs x0, ESR_EL1
        ; ubfx x1, x0, #26, #6
        ; cmp x1, class::DATA_ABORT_SAME
        ; b.eq >abort
        ; cmp x1, class::INSTRUCTION_ABORT_SAME
        ; b.ne ->unexpected
        ; abort:
        ; bl ->classify
        ; cbz x1, ->unexpected);
    asm.text(REASON, "external abort in the kernel");
    a64!(asm ; b ->panic);
}

/// An unexpected exception: names its type and panics. `entry` is the vector's offset.
fn unexpected(asm: &mut Asm) {
    a64!(asm ; ->unexpected: ; ubfx x4, entry, #7, #2);
    for (kind, reason) in
        ["unexpected synchronous exception", "unexpected IRQ", "unexpected FIQ"].iter().enumerate()
    {
        asm.text(REASON, reason);
        a64!(asm ; cmp x4, kind as u32 ; b.eq ->panic);
    }
    asm.text(REASON, "SError that nobody asked for");
    a64!(asm ; b ->panic);
}
