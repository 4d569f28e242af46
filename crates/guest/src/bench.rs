//! Loops of known length for measuring a CPU, each in its own image: EL1, MMU on with its own tables, one
//! line on the UART at the end, PSCI SYSTEM_OFF.
//!
//! Addresses are mapped one to one: the image's 2 MiB by pages of 4 KiB, the first GiB (with the UART) as a
//! device, and the GiB from 2 to 511 by blocks, so that [`sea_loop`]'s load can go to memory or into a hole.
//!
//! The line is `bench: NAME iterations=N result=0xX`. The result depends on every instruction of the loop, so
//! two machines can be compared. For [`sea_loop`] the line is `bench: sea_loop iterations=N seas=N esr=0xX`.

use crate::Image;
use crate::asm::{Asm, ELR_EL1, ESR_EL1, MAIR_EL1, SCTLR_EL1, TCR_EL1, TTBR0_EL1, VBAR_EL1, a64};
use crate::console;
use crate::kernel;
use crate::layout::{LOAD_ADDRESS, PAGE, UART, VECTORS_PAGE, frame};
use crate::tables::{BOOT_BLOCK, BOOT_PAGE, DEVICE_BLOCK, MAIR, Memory, NEXT_TABLE, SCTLR, TCR};
use dynasmrt::{DynasmApi, DynasmLabelApi};

const CODE_PAGES: u64 = 4;
const STACK: u64 = frame(4);
const BUFFER: u64 = frame(5);
const BUFFER_BYTES: u64 = 4 * PAGE;
const L1: u64 = frame(9);
const L2: u64 = frame(10);
const L3: u64 = frame(11);
const PAGES: u64 = 13;
/// TCR_EL1.EPD1: no walks by TTBR1.
const EPD1: u64 = 1 << 23;
const GIB: u64 = 1 << 30;

/// Physical address of a page that no bench image uses, for a host to poison and [`sea_loop`] to load from.
pub const SEA_TARGET: u64 = frame(12);

/// The parameters of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchLoop {
    /// The name on the UART's line.
    pub name: &'static str,
    /// The number of iterations.
    pub iterations: u64,
    /// Instructions executed in one iteration; for [`sea_loop`] including the handler's.
    pub instructions: u32,
    /// The number of loads and stores among these.
    pub accesses: u32,
}

/// Arithmetic and logic in registers, and one branch: 10 instructions.
pub fn alu_loop(iterations: u64) -> Image<BenchLoop> {
    let layout = BenchLoop { name: "alu_loop", iterations, instructions: 10, accesses: 0 };
    image(layout, |asm| {
        a64!(asm ; next:
            ; add x11, x11, x12
            ; eor x13, x13, x11
            ; lsl x14, x13, #3
            ; sub x15, x15, x14
            ; orr x16, x15, x11
            ; and x17, x16, x13
            ; ror x11, x17, #7
            ; add x12, x12, #0x55
            ; subs x10, x10, #1
            ; b.ne <next
            ; eor x11, x11, x15);
    })
}

/// Loads, stores and a load pair through 16 KiB of memory: 12 instructions, 5 of them accesses.
pub fn load_store_loop(iterations: u64) -> Image<BenchLoop> {
    let layout = BenchLoop { name: "load_store_loop", iterations, instructions: 12, accesses: 5 };
    image(layout, |asm| {
        asm.constant(13, BUFFER);
        a64!(asm ; movz x14, #0 ; next:
            ; add x15, x13, x14
            ; ldr x16, [x15]
            ; add x16, x16, x10
            ; str x16, [x15]
            ; ldr x17, [x15, #8]
            ; eor x17, x17, x16
            ; str x17, [x15, #8]
            ; ldp x11, x12, [x15]
            ; add x14, x14, #32
            ; and x14, x14, BUFFER_BYTES - 1
            ; subs x10, x10, #1
            ; b.ne <next
            // The result depends on the whole buffer.
            ; add x12, x13, #(BUFFER_BYTES >> 12) as u32, LSL #12
            ; movz x11, #0
            ; sum:
            ; ldr x16, [x13], #8
            ; ror x11, x11, #7
            ; add x11, x11, x16
            ; cmp x13, x12
            ; b.lo <sum);
    })
}

/// Loads from `target`, each of which aborts; the handler skips the load (ELR + 4) and returns: 8 instructions.
///
/// `target` is a physical address below 512 GiB: [`SEA_TARGET`] on a machine that can poison it, otherwise a
/// hole.
pub fn sea_loop(iterations: u64, target: u64) -> Image<BenchLoop> {
    let layout = BenchLoop { name: "sea_loop", iterations, instructions: 8, accesses: 1 };
    image(layout, |asm| {
        asm.constant(13, target);
        a64!(asm ; next: ; ldr x14, [x13] ; subs x10, x10, #1 ; b.ne <next ; mrs x12, ESR_EL1);
    })
}

/// An image around a loop: boot, `body` (x10 = iterations, its result in x11; x9 counts aborts), the line,
/// the end.
///
/// Zero iterations count as one.
fn image(layout: BenchLoop, body: impl FnOnce(&mut Asm)) -> Image<BenchLoop> {
    let mut memory = Memory::new(LOAD_ADDRESS, PAGES);
    memory.write(LOAD_ADDRESS, &code(layout, body));
    memory.descriptor(L1, 1, 0, DEVICE_BLOCK);
    memory.descriptor(L1, 1, LOAD_ADDRESS, L2 | NEXT_TABLE);
    for n in 2..512 {
        memory.descriptor(L1, 1, n * GIB, (n * GIB) | BOOT_BLOCK);
    }
    memory.descriptor(L2, 2, LOAD_ADDRESS, L3 | NEXT_TABLE);
    memory.map_pages(L3, LOAD_ADDRESS, LOAD_ADDRESS, PAGES, BOOT_PAGE);
    Image { bytes: memory.into_bytes(), load_address: LOAD_ADDRESS, entry: LOAD_ADDRESS, layout }
}

fn code(layout: BenchLoop, body: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut asm = Asm::new();
    boot(&mut asm);
    asm.constant(10, layout.iterations.max(1));
    a64!(asm ; movz x9, #0 ; movz x11, #0 ; movz x12, #1 ; movz x13, #0 ; movz x15, #0);
    body(&mut asm);
    asm.constant(10, layout.iterations.max(1));
    asm.say("bench: ");
    asm.say(layout.name);
    asm.say_dec(" iterations=", 10);
    if layout.name == "sea_loop" {
        asm.say_dec(" seas=", 9);
        asm.say_esr(" esr=0x", 12);
    } else {
        asm.say_hex(" result=0x", 11, 16);
    }
    asm.say("\n");
    a64!(asm ; b ->power_off);
    vectors(&mut asm);
    console::emit(&mut asm, UART);
    kernel::power_off(&mut asm);
    asm.finish(CODE_PAGES * PAGE)
}

fn boot(asm: &mut Asm) {
    for (register, value) in [
        (MAIR_EL1, MAIR),
        (TCR_EL1, TCR | EPD1),
        (TTBR0_EL1, L1),
        (VBAR_EL1, LOAD_ADDRESS + VECTORS_PAGE * PAGE),
    ] {
        asm.constant(0, value);
        a64!(asm ; msr register, x0);
    }
    asm.constant(0, SCTLR);
    asm.constant(1, STACK + PAGE);
    a64!(asm
        ; mov sp, x1
        ; dsb sy
        ; tlbi vmalle1
        ; ic iallu
        ; dsb nsh
        ; isb
        ; msr SCTLR_EL1, x0
        ; isb);
}

/// The vectors: a synchronous exception from EL1 counts in x9 and skips the instruction; any other one ends the guest.
fn vectors(asm: &mut Asm) {
    let table = VECTORS_PAGE * PAGE;
    asm.pad_to(table);
    for slot in 0..16u64 {
        asm.pad_to(table + slot * 0x80);
        if slot == 4 {
            a64!(asm ; mrs x15, ELR_EL1 ; add x15, x15, #4 ; msr ELR_EL1, x15 ; add x9, x9, #1 ; eret);
        } else {
            a64!(asm ; b ->unexpected);
        }
    }
    asm.pad_to(table + 0x800);
    a64!(asm ; ->unexpected: ; mrs x12, ESR_EL1);
    asm.say_esr("bench: unexpected exception esr=0x", 12);
    asm.say("\n");
    a64!(asm ; b ->power_off);
}
