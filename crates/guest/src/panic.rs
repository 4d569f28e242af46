//! The end of the guest: the panic and the report.
//!
//! A panic may itself meet the memory that caused it. TPIDR_EL1 counts panics: a second one reports that and
//! ends at once, and a third one only ends. Each report line loads its values before it prints anything.

use crate::asm::named::{ELR, ENTRY, ESR, FAR, KERNEL, SPSR};
use crate::asm::{Asm, ELR_EL1, ESR_EL1, FAR_EL1, SPSR_EL1, TPIDR_EL1, a64};
use crate::layout::{KERNEL_DATA, KERNEL_OFFSET, PAGE, PANIC_STACK, TASKS, state, tcb};
use crate::vectors::DAIF_A;
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// Emits `->panic` and `->report`.
pub(crate) fn emit(asm: &mut Asm) {
    panic(asm);
    report(asm);
}

/// `->panic`: x28 = the reason, `entry` = offset of the vector that was taken. Reads the syndrome registers
/// itself.
fn panic(asm: &mut Asm) {
    a64!(asm ; ->panic:
        ; mrs x8, TPIDR_EL1
        ; add x0, x8, #1
        ; msr TPIDR_EL1, x0
        ; mrs esr, ESR_EL1
        ; mrs far, FAR_EL1
        ; mrs elr, ELR_EL1
        ; mrs spsr, SPSR_EL1);
    asm.constant(0, KERNEL_OFFSET + PANIC_STACK + PAGE);
    asm.constant(KERNEL, KERNEL_OFFSET + KERNEL_DATA);
    a64!(asm
        ; mov sp, x0
        ; cmp x8, #1
        ; b.hi ->power_off
        ; b.eq >again
        ; msr daifclr, DAIF_A);
    asm.say("[panic] ");
    a64!(asm ; mov x0, reason ; bl ->puts);
    asm.say_hex(": vector=0x", ENTRY, 3);
    say_syndrome(asm);
    a64!(asm
        ; mov spare, #1
        ; and x0, entry, #0x180
        ; cmp x0, #0x180
        ; b.ne ->report
        ; ldr x0, [kernel, state::SERRORS]
        ; add x0, x0, #1
        ; str x0, [kernel, state::SERRORS]
        ; b ->report
        ; again:);
    asm.say_hex("\n[panic] again while panicking: vector=0x", ENTRY, 3);
    say_syndrome(asm);
    asm.say("report: kernel=panic\n");
    a64!(asm ; b ->power_off);
}

/// Writes ` esr=0x… elr=0x… far=0x… spsr=0x…` and a newline.
fn say_syndrome(asm: &mut Asm) {
    asm.say_esr(" esr=0x", ESR);
    asm.say_hex(" elr=0x", ELR, 16);
    asm.say_hex(" far=0x", FAR, 16);
    asm.say_hex(" spsr=0x", SPSR, 8);
    asm.say("\n");
}

/// `->report`: `spare` = 1 after a panic, otherwise 0. Writes the report, then powers off.
fn report(asm: &mut Asm) {
    a64!(asm ; ->report: ; add task, kernel, state::TASKS ; movz frame, TASKS as u32 ; next:
        ; ldp x21, x22, [task, tcb::NUMBER as i32]
        ; ldp x23, x24, [task, tcb::ROUNDS as i32]);
    asm.say_dec("report: task=", 21);
    asm.say(" name=");
    a64!(asm ; add x0, task, tcb::NAME ; bl ->puts);
    asm.say(" state=");
    asm.text(0, "killed");
    asm.text(1, "alive");
    asm.text(2, "lost");
    a64!(asm
        ; cmp spare, #0
        ; csel x1, x1, x2, eq
        ; cmp x22, tcb::ALIVE as u32
        ; csel x0, x1, x0, eq
        ; bl ->puts);
    asm.say_dec(" rounds=", 23);
    asm.say(" checksum=");
    asm.text(0, "none");
    asm.text(1, "ok");
    asm.text(2, "bad");
    a64!(asm
        ; cmp x24, #0
        ; csel x1, x1, x2, eq
        ; cmp x23, #0
        ; csel x0, x0, x1, eq
        ; bl ->puts);
    asm.say("\n");
    a64!(asm
        ; add task, task, tcb::SIZE
        ; sub frame, frame, #1
        ; cbnz frame, <next
        ; ldp x21, x22, [kernel, state::SEAS as i32]
        ; ldp x23, x24, [kernel, state::KILLED as i32]
        ; ldr x25, [kernel, state::RETIRED]);
    asm.say("report: kernel=");
    asm.text(0, "ok");
    asm.text(1, "panic");
    a64!(asm ; cmp spare, #0 ; csel x0, x0, x1, eq ; bl ->puts);
    for (name, register) in
        [("retired", 25), ("recovered", 24), ("killed", 23), ("seas", 21), ("serrors", 22)]
    {
        asm.say_dec(&format!(" {name}="), register);
    }
    asm.say("\n");
    a64!(asm ; b ->power_off);
}
