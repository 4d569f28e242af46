//! The kernel: boot, the one system call, the scheduler, and the end.

use crate::asm::named::KERNEL;
use crate::asm::{Asm, MAIR_EL1, SCTLR_EL1, TCR_EL1, TPIDR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, a64};
use crate::layout::{
    BOOT_L1, KERNEL_DATA, KERNEL_L1, KERNEL_OFFSET, KERNEL_STACK, LOAD_ADDRESS, PAGE, TASKS, VECTORS_PAGE,
    state, tcb,
};
use crate::tables::{MAIR, SCTLR, TCR};
use crate::vectors::DAIF_A;
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// SVC immediate of the only system call: "a round is done, its checksum is in x0; let another task run".
pub(crate) const ROUND_DONE: u32 = 1;
/// PSCI SYSTEM_OFF (Arm DEN 0022, 5.10), called with HVC.
const SYSTEM_OFF: u64 = 0x8400_0008;

/// Emits the entry point: EL1, MMU off, x0 = FDT (unused).
pub(crate) fn boot(asm: &mut Asm, banner: &str) {
    a64!(asm ; msr daifset, #0b1111);
    for (register, value) in [
        (MAIR_EL1, MAIR),
        (TCR_EL1, TCR),
        (TTBR0_EL1, BOOT_L1),
        (TTBR1_EL1, KERNEL_L1),
        (VBAR_EL1, KERNEL_OFFSET + LOAD_ADDRESS + VECTORS_PAGE * PAGE),
        (TPIDR_EL1, 0),
    ] {
        asm.constant(0, value);
        a64!(asm ; msr register, x0);
    }
    asm.constant(0, SCTLR);
    asm.constant(1, KERNEL_OFFSET);
    a64!(asm
        ; adr x2, >high
        ; add x2, x2, x1
        ; dsb sy
        ; tlbi vmalle1
        ; ic iallu
        ; dsb nsh
        ; isb
        ; msr SCTLR_EL1, x0
        ; isb
        ; br x2
        ; high:);
    asm.constant(0, KERNEL_OFFSET + KERNEL_STACK + PAGE);
    asm.constant(KERNEL, KERNEL_OFFSET + KERNEL_DATA);
    a64!(asm ; mov sp, x0 ; msr daifclr, DAIF_A);
    asm.say(banner);
    a64!(asm ; add task, kernel, state::TASKS + (TASKS as u32 - 1) * tcb::SIZE ; b ->schedule);
}

/// Emits `->svc`, `->schedule`, `->kill` and `->power_off`.
pub(crate) fn emit(asm: &mut Asm) {
    round_done(asm);
    schedule(asm);
    kill(asm);
    power_off(asm);
}

/// `->svc`: counts the round, checks it, says "ready" once every task has run one (or died), and schedules.
fn round_done(asm: &mut Asm) {
    a64!(asm ; ->svc:
        ; and x0, esr, #0xffff
        ; cmp x0, ROUND_DONE
        ; b.ne ->unexpected
        ; ldr x0, [kernel, state::ROUNDS_TOTAL]
        ; add x0, x0, #1
        ; str x0, [kernel, state::ROUNDS_TOTAL]
        ; ldr x0, [task, tcb::ROUNDS]
        ; add x0, x0, #1
        ; str x0, [task, tcb::ROUNDS]
        ; ldr x0, [task, tcb::X]
        ; ldr x1, [task, tcb::EXPECTED]
        ; cmp x0, x1
        ; b.eq >good
        ; ldr x0, [task, tcb::BAD]
        ; add x0, x0, #1
        ; str x0, [task, tcb::BAD]);
    say_task(asm);
    a64!(asm ; ldr x8, [task, tcb::X]);
    asm.say_hex(": wrong checksum 0x", 8, 16);
    asm.say("\n");
    a64!(asm ; good:
        ; ldr x0, [kernel, state::READY]
        ; cbnz x0, ->schedule);
    for n in 0..TASKS as u32 {
        let block = state::TASKS + n * tcb::SIZE;
        a64!(asm
            ; ldr x0, [kernel, block + tcb::ROUNDS]
            ; ldr x1, [kernel, block + tcb::STATE]
            ; orr x0, x0, x1
            ; cbz x0, ->schedule);
    }
    a64!(asm ; mov x0, #1 ; str x0, [kernel, state::READY]);
    asm.say("[ready] every task has run a round\n");
    // Falls through to ->schedule.
}

/// `->schedule`: runs the next task in turn that is alive and has rounds left; if there is none, reports and
/// ends.
fn schedule(asm: &mut Asm) {
    a64!(asm ; ->schedule: ; movz x0, TASKS as u32 ; add x1, kernel, state::TASKS + TASKS as u32 * tcb::SIZE ; next:
        ; add task, task, tcb::SIZE
        ; cmp task, x1
        ; b.lo >inside
        ; add task, kernel, state::TASKS
        ; inside:
        ; ldr x2, [task, tcb::STATE]
        ; ldr x3, [task, tcb::ROUNDS]
        ; ldr x4, [task, tcb::TARGET]
        ; cmp x2, tcb::ALIVE as u32
        ; ccmp x3, x4, #0b0010, eq
        ; b.lo ->run
        ; sub x0, x0, #1
        ; cbnz x0, <next
        ; mov spare, #0
        ; b ->report);
}

/// `->kill`: `task` will not run again.
fn kill(asm: &mut Asm) {
    a64!(asm ; ->kill:
        ; mov x0, tcb::KILLED
        ; str x0, [task, tcb::STATE]
        ; ldr x0, [kernel, state::KILLED]
        ; add x0, x0, #1
        ; str x0, [kernel, state::KILLED]);
    say_task(asm);
    asm.say(" killed\n");
    a64!(asm ; b ->schedule);
}

/// `->power_off`: never returns.
pub(crate) fn power_off(asm: &mut Asm) {
    a64!(asm ; ->power_off:);
    asm.constant(0, SYSTEM_OFF);
    a64!(asm ; hvc #0 ; still: ; wfi ; b <still);
}

/// Writes `[task N] NAME`.
fn say_task(asm: &mut Asm) {
    a64!(asm ; ldr x8, [task, tcb::NUMBER]);
    asm.say_dec("[task ", 8);
    asm.say("] ");
    a64!(asm ; add x0, task, tcb::NAME ; bl ->puts);
}
