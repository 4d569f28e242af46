//! The handler of synchronous external aborts from EL0, which decides by ESR and FAR alone.
//!
//! | the abort | the loss | the action |
//! |---|---|---|
//! | fetch, FAR in the task's text | a clean page | frame retired, clean copy put in a spare frame, task goes on |
//! | load or store, FAR valid | the task's data | frame retired, task killed |
//! | FnV | an unknown part of the task's memory | task killed, no frame retired |
//! | on a table walk | the task's tables | task killed |
//! | IL = 0, SET = uncontainable, or not external | not known to be containable | panic |
//!
//! Fields: DDI 0487 D24.2, ESR_EL1, "ISS encoding for an exception from an Instruction Abort" and "… a Data
//! Abort".

use crate::asm::named::{ESR, FAR, FRAME, REASON, SPARE};
use crate::asm::{Asm, CTR_EL0, a64};
use crate::layout::{
    KERNEL_L3, KERNEL_OFFSET, PAGE, REGION_PAGES, SPARE_FRAMES, SPARES, TEXT_VA, state, tcb,
};
use crate::tables::USER_TEXT;
use dynasmrt::{DynasmApi, DynasmLabelApi};

/// ESR_EL1 bits.
mod bit {
    /// 0: the abort is an instruction abort (EC 0x20), 1: a data abort (EC 0x24).
    pub(super) const DATA: u32 = 28;
    pub(super) const IL: u32 = 25;
    pub(super) const FNV: u32 = 10;
    pub(super) const WNR: u32 = 6;
}
/// SET, `ESR_EL1[12:11]`: uncontainable.
const UNCONTAINABLE: u64 = 0b10;
/// xFSC: synchronous external abort, not on a table walk. The only status with FnV and SET.
const EXTERNAL: u32 = 0x10;
/// xFSC: synchronous parity or ECC error, not on a table walk.
const PARITY: u32 = 0x18;
/// xFSC of level −1 of a walk: external abort, parity error. Levels 0 to 3 follow.
const EXTERNAL_ON_WALK: u32 = 0x13;
const PARITY_ON_WALK: u32 = 0x1b;

/// Classes of abort as `->classify` returns them in x1.
const NOT_EXTERNAL: u64 = 0;
const ON_ACCESS: u64 = 1;
const ON_WALK: u64 = 2;

/// Bits `[47:12]` of a descriptor: the output address.
const OUTPUT_ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Size of the 2 MiB region that one level 3 table maps.
const REGION: u32 = 21;

/// Emits `->classify` and `->abort`.
pub(crate) fn emit(asm: &mut Asm) {
    classify(asm);
    abort(asm);
    fetch(asm);
    data(asm);
    find_frame(asm);
    retire(asm);
}

/// `->classify` (BL): x0 = ESR; returns x1 = class of abort, x2 = xFSC. Changes x3.
fn classify(asm: &mut Asm) {
    a64!(asm ; ->classify:
        ; and x2, x0, #0x3f
        ; mov x1, ON_ACCESS
        ; cmp x2, EXTERNAL
        ; b.eq >known
        ; cmp x2, PARITY
        ; b.eq >known
        ; mov x1, ON_WALK
        ; sub x3, x2, EXTERNAL_ON_WALK
        ; cmp x3, #4
        ; b.ls >known
        ; sub x3, x2, PARITY_ON_WALK
        ; cmp x3, #4
        ; b.ls >known
        ; mov x1, NOT_EXTERNAL
        ; known: ; ret);
}

/// `->abort`: an instruction or data abort from EL0. Prints it, then goes to the action.
fn abort(asm: &mut Asm) {
    a64!(asm ; ->abort: ; mov x0, esr ; bl ->classify);
    asm.text(REASON, "abort that is not external");
    a64!(asm ; cbz x1, ->panic);
    asm.text(REASON, "syndrome without IL");
    a64!(asm ; tbz esr, bit::IL, ->panic);
    asm.text(REASON, "uncontainable error");
    a64!(asm
        ; mov x8, x1
        ; ubfx x0, esr, #11, #2
        ; mov x1, UNCONTAINABLE
        ; cmp x2, EXTERNAL
        ; ccmp x0, x1, #0, eq
        ; b.eq ->panic
        ; ldr x0, [kernel, state::SEAS]
        ; add x0, x0, #1
        ; str x0, [kernel, state::SEAS]
        // x9 != 0: there is no address. Only xFSC 0x10 has an FnV.
        ; and x0, esr, 1 << bit::FNV
        ; cmp x2, EXTERNAL
        ; csel x9, x0, xzr, eq
        ; ldr x10, [task, tcb::NUMBER]);
    asm.say_dec("[sea] task=", 10);
    asm.say_esr(" esr=0x", ESR);
    a64!(asm ; cbz x9, >known);
    asm.say(" far=unknown");
    a64!(asm ; b >access ; known:);
    asm.say_hex(" far=0x", FAR, 16);
    a64!(asm ; access:);
    asm.text(0, " fetch: ");
    asm.text(1, " load: ");
    asm.text(2, " store: ");
    a64!(asm
        ; tst esr, 1 << bit::WNR
        ; csel x1, x1, x2, eq
        ; tst esr, 1 << bit::DATA
        ; csel x0, x0, x1, eq
        ; bl ->puts
        ; cmp x8, ON_WALK as u32
        ; b.eq >walk
        ; cbnz x9, >nowhere
        ; tbz esr, bit::DATA, ->fetch
        ; b ->data
        ; walk:);
    asm.say("translation table lost, no frame retired, task killed\n");
    a64!(asm ; b ->kill ; nowhere:);
    asm.say("no address, no frame retired, task killed\n");
    a64!(asm ; b ->kill);
}

/// `->fetch`: FAR was the address of code. Retires the frame and puts the clean copy in its place.
fn fetch(asm: &mut Asm) {
    a64!(asm ; ->fetch: ; bl ->find_frame ; cbz frame, >elsewhere);
    asm.constant(0, TEXT_VA);
    a64!(asm
        ; sub x8, far, x0
        ; lsr x8, x8, #12 // x8 = page of the text
        ; cmp x8, REGION_PAGES as u32
        ; b.hs >elsewhere
        ; ldr spare, [kernel, state::NEXT_SPARE]);
    asm.constant(0, SPARES + SPARE_FRAMES * PAGE);
    a64!(asm
        ; cmp spare, x0
        ; b.hs >none
        ; add x0, spare, #1, LSL #12
        ; str x0, [kernel, state::NEXT_SPARE]
        // Break before make (DDI 0487 D8.17.1). TLBI operand: ASID in [63:48], VA[55:12] in [43:0].
        ; str xzr, [entry]
        ; ldr x0, [task, tcb::NUMBER]
        ; lsl x0, x0, #48
        ; bfxil x0, far, #12, #44
        ; dsb ishst
        ; tlbi vale1is, x0
        ; dsb ish
        ; isb
        ; bl ->retire);
    copy_clean_page(asm);
    asm.constant(0, USER_TEXT);
    a64!(asm
        ; orr x0, x0, spare
        ; str x0, [entry]
        ; dsb ishst
        ; isb
        ; ldr x0, [kernel, state::RECOVERED]
        ; add x0, x0, #1
        ; str x0, [kernel, state::RECOVERED]);
    asm.say_hex("frame=0x", FRAME, 8);
    asm.say_hex(" retired, clean=0x", SPARE, 8);
    asm.say(", nothing lost\n");
    a64!(asm ; b ->run ; elsewhere:);
    asm.say("no text there, no frame retired, task killed\n");
    a64!(asm ; b ->kill ; none: ; bl ->retire);
    asm.say_hex("frame=0x", FRAME, 8);
    asm.say(" retired, no spare frame, task killed\n");
    a64!(asm ; b ->kill);
}

/// Copies page x8 of the task's clean text to the frame `spare`, and makes it visible to instruction fetch
/// (DDI 0487 B2.7.4.2: clean to the point of unification, then invalidate the instruction caches).
fn copy_clean_page(asm: &mut Asm) {
    asm.constant(1, KERNEL_OFFSET);
    a64!(asm
        ; ldr x0, [task, tcb::CLEAN]
        ; add x0, x0, x8, LSL #12
        ; add x0, x0, x1
        ; add x1, spare, x1
        ; add x2, x1, #1, LSL #12
        ; copy:
        ; ldp x3, x4, [x0], #16
        ; stp x3, x4, [x1], #16
        ; cmp x1, x2
        ; b.lo <copy
        // CTR_EL0.DminLine: log2 of the words in the smallest data cache line.
        ; mrs x3, CTR_EL0
        ; ubfx x3, x3, #16, #4
        ; mov x4, #4
        ; lsl x3, x4, x3
        ; sub x1, x2, #1, LSL #12
        ; clean:
        ; dc cvau, x1
        ; add x1, x1, x3
        ; cmp x1, x2
        ; b.lo <clean
        ; dsb ish
        ; ic ialluis
        ; dsb ish
        ; isb);
}

/// `->data`: FAR was the address of the task's own data, of which there is no copy.
fn data(asm: &mut Asm) {
    a64!(asm ; ->data: ; bl ->find_frame ; cbz frame, >elsewhere ; bl ->retire);
    asm.say_hex("frame=0x", FRAME, 8);
    asm.say(" retired, task killed\n");
    a64!(asm ; b ->kill ; elsewhere:);
    asm.say("not the task's, no frame retired, task killed\n");
    a64!(asm ; b ->kill);
}

/// `->find_frame` (BL): `entry` = virtual address of the level 3 descriptor for `far`, `frame` = its frame, or 0.
fn find_frame(asm: &mut Asm) {
    a64!(asm ; ->find_frame: ; mov frame, #0);
    a64!(asm ; lsr x0, far, REGION);
    asm.constant(1, TEXT_VA >> REGION);
    a64!(asm ; cmp x0, x1 ; b.ne >no);
    asm.constant(1, KERNEL_OFFSET);
    a64!(asm
        ; ubfx x0, far, #12, #9
        ; ldr entry, [task, tcb::L3]
        ; add entry, entry, x1
        ; add entry, entry, x0, LSL #3
        ; ldr x0, [entry]
        ; tbz x0, #0, >no
        ; and frame, x0, OUTPUT_ADDRESS
        ; no: ; ret);
}

/// `->retire` (BL): takes `frame` out of use: puts it on the list and removes it from the kernel's own map.
fn retire(asm: &mut Asm) {
    a64!(asm ; ->retire:
        ; ldr x0, [kernel, state::RETIRED]
        ; add x1, x0, #1
        ; str x1, [kernel, state::RETIRED]
        ; cmp x0, state::RETIRED_MAX
        ; b.hs >unlisted
        ; add x1, kernel, state::RETIRED_LIST
        ; str frame, [x1, x0, LSL #3]
        ; unlisted:
        ; lsr x0, frame, REGION);
    asm.constant(1, KERNEL_L3 >> REGION);
    a64!(asm ; cmp x0, x1 ; b.ne >unmapped);
    asm.constant(1, KERNEL_OFFSET);
    asm.constant(0, KERNEL_OFFSET + KERNEL_L3);
    a64!(asm
        ; ubfx x2, frame, #12, #9
        ; str xzr, [x0, x2, LSL #3]
        ; add x0, frame, x1
        ; ubfx x0, x0, #12, #44
        ; dsb ishst
        ; tlbi vaale1is, x0
        ; dsb ish
        ; isb
        ; unmapped: ; ret);
}
