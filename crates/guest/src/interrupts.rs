//! A guest that exercises GICv3, the timers and a second CPU, and prints its observations: EL1, MMU off,
//! group 1 as IRQ, group 0 as FIQ. It must print the same on any machine with two CPUs that is like `virt`.
//!
//! Each part of the program is a function here, which first prints its purpose. An interrupt's handler prints
//! a line `irq N rpr P`: its INTID and the running priority, in hex.

use crate::Image;
use crate::asm::{Asm, ELR_EL1, SPSR_EL1, VBAR_EL1, a64, sysreg};
use crate::console;
use crate::kernel;
use crate::layout::{LOAD_ADDRESS, PAGE, UART};
use dynasmrt::{DynasmApi, DynasmLabelApi};

const CODE_PAGES: u64 = 8;
/// The page of the vectors, after the code.
const VECTORS_PAGE: u64 = 4;
/// Tops of the CPUs' stacks, after the image.
const STACKS: [u64; 2] = [LOAD_ADDRESS + 0x1_0000, LOAD_ADDRESS + 0x2_0000];
/// A word that the second CPU sets when it is done.
const DONE: u64 = LOAD_ADDRESS + 0x2_0000;

const GICD: u64 = 0x0800_0000;
/// RD_base of the first CPU; that of the second follows.
const GICR: u64 = 0x080a_0000;
const GICR_SIZE: u64 = 0x2_0000;
const SGI_BASE: u64 = 0x1_0000;

const ICC_PMR_EL1: u32 = sysreg(3, 0, 4, 6, 0);
const ICC_IAR0_EL1: u32 = sysreg(3, 0, 12, 8, 0);
const ICC_EOIR0_EL1: u32 = sysreg(3, 0, 12, 8, 1);
const ICC_BPR1_EL1: u32 = sysreg(3, 0, 12, 12, 3);
const ICC_DIR_EL1: u32 = sysreg(3, 0, 12, 11, 1);
const ICC_RPR_EL1: u32 = sysreg(3, 0, 12, 11, 3);
const ICC_SGI1R_EL1: u32 = sysreg(3, 0, 12, 11, 5);
const ICC_SGI0R_EL1: u32 = sysreg(3, 0, 12, 11, 7);
const ICC_IAR1_EL1: u32 = sysreg(3, 0, 12, 12, 0);
const ICC_EOIR1_EL1: u32 = sysreg(3, 0, 12, 12, 1);
const ICC_HPPIR1_EL1: u32 = sysreg(3, 0, 12, 12, 2);
const ICC_CTLR_EL1: u32 = sysreg(3, 0, 12, 12, 4);
const ICC_SRE_EL1: u32 = sysreg(3, 0, 12, 12, 5);
const ICC_IGRPEN0_EL1: u32 = sysreg(3, 0, 12, 12, 6);
const ICC_IGRPEN1_EL1: u32 = sysreg(3, 0, 12, 12, 7);
const ISR_EL1: u32 = sysreg(3, 0, 12, 1, 0);
const MPIDR_EL1: u32 = sysreg(3, 0, 0, 0, 5);
const CNTVCT_EL0: u32 = sysreg(3, 3, 14, 0, 2);
const CNTP_TVAL_EL0: u32 = sysreg(3, 3, 14, 2, 0);
const CNTP_CTL_EL0: u32 = sysreg(3, 3, 14, 2, 1);
const CNTV_CTL_EL0: u32 = sysreg(3, 3, 14, 3, 1);
const CNTV_CVAL_EL0: u32 = sysreg(3, 3, 14, 3, 2);

/// The priority of all SGIs, PPIs and SPIs except SGI 3, which has [`URGENT`].
const USUAL: u64 = 0xa0;
const URGENT: u64 = 0x40;
/// INTIDs of the timers and the UART.
const VIRTUAL_TIMER: u32 = 27;
const PHYSICAL_TIMER: u32 = 30;
const UART_SPI: u32 = 33;
/// PL011: interrupt mask register, and the transmit interrupt in it.
const UARTIMSC: u32 = 0x38;
const TXIM: u32 = 1 << 5;

/// The image; it needs two CPUs.
pub fn interrupts() -> Image<()> {
    let mut asm = Asm::new();
    start(&mut asm);
    software_interrupts(&mut asm);
    priorities(&mut asm);
    split_ends(&mut asm);
    timers(&mut asm);
    group_0(&mut asm);
    shared(&mut asm);
    uart(&mut asm);
    two_cpus(&mut asm);
    asm.say("done\n");
    a64!(asm ; b ->power_off);
    open(&mut asm);
    second_cpu(&mut asm);
    handlers(&mut asm);
    vectors(&mut asm);
    console::emit(&mut asm, UART);
    kernel::power_off(&mut asm);
    let bytes = asm.finish(CODE_PAGES * PAGE);
    Image { bytes, load_address: LOAD_ADDRESS, entry: LOAD_ADDRESS, layout: () }
}

/// Stack, vectors, distributor, and the first CPU's own part.
fn start(asm: &mut Asm) {
    asm.constant(1, STACKS[0]);
    asm.constant(2, LOAD_ADDRESS + VECTORS_PAGE * PAGE);
    asm.constant(3, GICD);
    asm.constant(19, GICR);
    a64!(asm ; mov sp, x1 ; msr VBAR_EL1, x2 ; mov w4, #3 ; str w4, [x3] ; bl ->open);
    // x27: the handler of SGI 2 allows preemption; x28: it ends in two steps.
    a64!(asm ; mov x27, #0 ; mov x28, #0);
    asm.constant(8, GICD);
    a64!(asm ; ldr w9, [x8]);
    asm.say_hex("gicd_ctlr ", 9, 2);
    a64!(asm ; mrs x9, ICC_SRE_EL1);
    asm.say_hex(" sre ", 9, 1);
    a64!(asm ; mrs x9, ICC_CTLR_EL1 ; ubfx x9, x9, #8, #3);
    asm.say_hex(" pribits ", 9, 1);
    a64!(asm ; mrs x9, ICC_PMR_EL1);
    asm.say_hex(" pmr ", 9, 2);
    asm.say("\n");
}

/// `->open`: wakes the redistributor at x19; all SGIs and PPIs in group 1, enabled, usual priority, SGI 3 urgent;
/// opens the CPU interface. Changes x0 to x6.
fn open(asm: &mut Asm) {
    a64!(asm ; ->open: ; str wzr, [x19, #0x14] ; awake: ; ldr w0, [x19, #0x14] ; tbnz w0, #2, <awake);
    asm.constant(1, SGI_BASE);
    asm.constant(2, USUAL * 0x0101_0101);
    asm.constant(4, URGENT);
    a64!(asm
        ; add x1, x1, x19
        ; movn w0, #0
        ; str w0, [x1, #0x80]
        ; str w0, [x1, #0x100]
        ; add x5, x1, #0x400
        ; mov w6, #8
        ; next: ; str w2, [x5] ; add x5, x5, #4 ; subs w6, w6, #1 ; b.ne <next
        ; strb w4, [x1, #0x403]
        ; mov x0, #7
        ; msr ICC_SRE_EL1, x0
        ; isb
        ; mov x0, #0xff
        ; msr ICC_PMR_EL1, x0
        ; mov x0, #1
        ; msr ICC_IGRPEN0_EL1, x0
        ; msr ICC_IGRPEN1_EL1, x0
        ; isb
        ; ret);
}

impl Asm {
    /// Sends SGI `intid` of group 1 to this CPU, the first. Changes x0.
    fn send(&mut self, intid: u64) {
        self.constant(0, intid << 24 | 1);
        a64!(self ; msr ICC_SGI1R_EL1, x0 ; isb);
    }

    /// Unmasks IRQs long enough for them to arrive. Changes x0.
    fn let_in(&mut self) {
        a64!(self ; msr daifclr, #3 ; isb ; mov x0, #1000 ; wait: ; subs x0, x0, #1 ; b.ne <wait ; msr daifset, #3);
    }

    /// Prints the highest pending interrupt and ISR_EL1.
    fn say_pending(&mut self) {
        a64!(self ; mrs x9, ICC_HPPIR1_EL1 ; mrs x10, ISR_EL1);
        self.say_hex("hppir ", 9, 3);
        self.say_hex(" isr ", 10, 3);
        self.say("\n");
    }
}

/// An SGI while IRQs are masked, by PSTATE and by priority; and one that WFI waits for.
fn software_interrupts(asm: &mut Asm) {
    asm.say("sgi\n");
    asm.send(1);
    asm.say_pending();
    asm.constant(0, USUAL);
    a64!(asm ; msr ICC_PMR_EL1, x0 ; isb);
    asm.say_pending();
    a64!(asm ; mrs x9, ICC_IAR1_EL1);
    asm.say_hex("masked: iar ", 9, 3);
    asm.say("\n");
    a64!(asm ; mov x0, #0xff ; msr ICC_PMR_EL1, x0 ; isb);
    asm.let_in();
    asm.send(1);
    a64!(asm ; wfi);
    asm.say("awake\n");
    asm.let_in();
    a64!(asm ; mrs x9, ICC_IAR1_EL1);
    asm.say_hex("none: iar ", 9, 3);
    asm.say("\n");
}

/// The urgent SGI comes first although it was sent later, and in the middle of another's handler.
fn priorities(asm: &mut Asm) {
    asm.say("priorities\n");
    for intid in [5, 4, 3] {
        asm.send(intid);
    }
    asm.let_in();
    asm.say("preemption\n");
    a64!(asm ; mov x27, #1);
    asm.send(2);
    asm.let_in();
    // All priorities are one group: the urgent one waits for the end.
    asm.say("binary point 7\n");
    a64!(asm ; mov x0, #7 ; msr ICC_BPR1_EL1, x0 ; isb);
    asm.send(2);
    asm.let_in();
    a64!(asm ; mov x27, #0 ; msr ICC_BPR1_EL1, xzr ; isb ; mrs x9, ICC_BPR1_EL1);
    asm.say_hex("bpr1 ", 9, 1);
    asm.say("\n");
}

/// EOI mode 1: the handler prints the active interrupt after EOIR and after DIR.
fn split_ends(asm: &mut Asm) {
    asm.say("eoi mode 1\n");
    a64!(asm ; mov x28, #1 ; mov x0, #2 ; msr ICC_CTLR_EL1, x0 ; isb);
    asm.send(6);
    asm.let_in();
    a64!(asm ; mov x28, #0 ; msr ICC_CTLR_EL1, xzr ; isb);
}

/// Both timers, one of them waited for by WFI; the counter is past the compare value then.
fn timers(asm: &mut Asm) {
    asm.say("virtual timer\n");
    a64!(asm ; mrs x26, CNTVCT_EL0 ; movz x0, #0x4000 ; add x26, x26, x0 ; msr CNTV_CVAL_EL0, x26
        ; mov x0, #1 ; msr CNTV_CTL_EL0, x0 ; isb);
    a64!(asm ; mrs x9, CNTV_CTL_EL0);
    asm.say_hex("ctl ", 9, 1);
    asm.say("\n");
    a64!(asm ; wfi ; isb ; mrs x9, CNTVCT_EL0 ; cmp x9, x26 ; cset x9, hs ; mrs x10, CNTV_CTL_EL0);
    asm.say_hex("past ", 9, 1);
    asm.say_hex(" ctl ", 10, 1);
    asm.say("\n");
    asm.let_in();
    asm.say("physical timer\n");
    a64!(asm ; movz x0, #0x1000 ; msr CNTP_TVAL_EL0, x0 ; mov x0, #3 ; msr CNTP_CTL_EL0, x0 ; isb
        ; fires: ; mrs x0, CNTP_CTL_EL0 ; tbz x0, #2, <fires);
    asm.say_pending();
    a64!(asm ; mov x0, #1 ; msr CNTP_CTL_EL0, x0 ; isb);
    asm.say_pending();
    asm.let_in();
}

/// SGI 7 in group 0 is an FIQ, and only SGI0R sends it.
fn group_0(asm: &mut Asm) {
    asm.say("group 0\n");
    asm.constant(1, GICR + SGI_BASE);
    a64!(asm ; movn w0, #0 ; eor w0, w0, #0x80 ; str w0, [x1, #0x80]);
    asm.send(7);
    asm.say_pending();
    asm.constant(0, 7 << 24 | 1);
    a64!(asm ; msr ICC_SGI0R_EL1, x0 ; isb);
    asm.say_pending();
    asm.let_in();
}

/// SPI 40, edge-triggered, made pending by the distributor; routed to another CPU it does not arrive.
fn shared(asm: &mut Asm) {
    asm.say("spi\n");
    asm.constant(8, GICD);
    a64!(asm
        ; mov w0, #0x100
        ; str w0, [x8, #0x84]
        ; mov w1, #USUAL as u32
        ; strb w1, [x8, #0x428]
        ; movz w1, #2, LSL #16
        ; str w1, [x8, #0xc08]
        ; str w0, [x8, #0x104]
        ; str w0, [x8, #0x204]
        ; ldr w9, [x8, #0x204]);
    asm.say_hex("ispendr ", 9, 8);
    asm.say("\n");
    asm.constant(1, GICD + 0x6000 + 8 * 40);
    a64!(asm ; mov x0, #0x55 ; str x0, [x1]);
    asm.say_pending();
    asm.constant(1, GICD + 0x6000 + 8 * 40);
    a64!(asm ; str xzr, [x1]);
    asm.say_pending();
    asm.let_in();
    asm.constant(8, GICD);
    a64!(asm ; ldr w9, [x8, #0x204]);
    asm.say_hex("ispendr ", 9, 8);
    asm.say("\n");
}

/// The UART's interrupt is level-sensitive: it stays pending until the handler masks it in the UART.
fn uart(asm: &mut Asm) {
    asm.say("uart\n");
    asm.constant(8, GICD);
    a64!(asm
        ; mov w0, #2
        ; ldr w1, [x8, #0x84]
        ; orr w1, w1, w0
        ; str w1, [x8, #0x84]
        ; mov w1, #USUAL as u32
        ; strb w1, [x8, #0x421]
        ; str w0, [x8, #0x104]);
    asm.constant(1, UART);
    a64!(asm ; mov w0, TXIM ; str w0, [x1, UARTIMSC]);
    asm.say_pending();
    // Software cannot clear the state of the line.
    asm.constant(8, GICD);
    a64!(asm ; mov w0, #2 ; str w0, [x8, #0x284]);
    asm.say_pending();
    asm.let_in();
    asm.say_pending();
}

/// PSCI turns the second CPU on. That CPU sends SGI 8 to this one, gets SGI 9 from it, and turns itself off.
fn two_cpus(asm: &mut Asm) {
    asm.say("second cpu\n");
    for (function, target) in [(0xc400_0003, 9), (0xc400_0003, 0)] {
        asm.constant(0, function);
        a64!(asm ; mov x1, #target ; adr x2, ->second ; mov x3, #77 ; hvc #0 ; sub x9, xzr, x0);
        asm.say_hex("cpu_on: minus ", 9, 2);
        asm.say("\n");
    }
    a64!(asm ; bl ->affinity_info ; mov x9, x0);
    asm.say_hex("affinity_info ", 9, 1);
    asm.say("\n");
    asm.constant(0, 0xc400_0003);
    a64!(asm ; mov x1, #1 ; adr x2, ->second ; mov x3, #77 ; hvc #0 ; mov x9, x0);
    asm.say_hex("cpu_on: ", 9, 1);
    asm.say("\n");
    // SGI 8 announces the second CPU; before its own console output it waits for SGI 9.
    a64!(asm ; wfi);
    asm.let_in();
    asm.constant(0, 9 << 24 | 2);
    asm.constant(8, DONE);
    a64!(asm ; msr ICC_SGI1R_EL1, x0 ; isb
        ; sevl ; wait: ; wfe ; ldxr w9, [x8] ; cbz w9, <wait
        ; off: ; bl ->affinity_info ; cbz x0, <off ; mov x9, x0);
    asm.say_hex("affinity_info ", 9, 1);
    asm.say("\n");
}

/// The second CPU, with its context in x0; and `->affinity_info`: X0 = its state.
fn second_cpu(asm: &mut Asm) {
    a64!(asm ; ->affinity_info:);
    asm.constant(0, 0xc400_0004);
    a64!(asm ; mov x1, #1 ; mov x2, #0 ; hvc #0 ; ret);

    a64!(asm ; ->second: ; mov x29, x0);
    asm.constant(1, STACKS[1]);
    asm.constant(2, LOAD_ADDRESS + VECTORS_PAGE * PAGE);
    asm.constant(19, GICR + GICR_SIZE);
    a64!(asm ; mov sp, x1 ; msr VBAR_EL1, x2 ; bl ->open ; mov x27, #0 ; mov x28, #0);
    // To the CPU whose Aff0 is 0.
    asm.send(8);
    a64!(asm ; wfi ; mrs x9, MPIDR_EL1);
    asm.say_hex("mpidr ", 9, 8);
    asm.say_hex(" context ", 29, 2);
    asm.say("\n");
    asm.let_in();
    asm.constant(8, DONE);
    a64!(asm ; mov w9, #1 ; str w9, [x8] ; dsb sy ; sev);
    asm.constant(0, 0x8400_0002);
    a64!(asm ; hvc #0 ; b ->unexpected);
}

/// IRQ and FIQ. They save all changed registers on the stack, so they nest.
fn handlers(asm: &mut Asm) {
    let save = |asm: &mut Asm| {
        a64!(asm
            ; sub sp, sp, #128
            ; stp x0, x1, [sp]
            ; stp x2, x3, [sp, #16]
            ; stp x4, x5, [sp, #32]
            ; stp x6, x7, [sp, #48]
            ; stp x8, x9, [sp, #64]
            ; stp x20, x30, [sp, #80]
            ; mrs x0, ELR_EL1
            ; mrs x1, SPSR_EL1
            ; stp x0, x1, [sp, #96]);
    };
    let restore = |asm: &mut Asm| {
        a64!(asm
            ; ldp x0, x1, [sp, #96]
            ; msr ELR_EL1, x0
            ; msr SPSR_EL1, x1
            ; ldp x20, x30, [sp, #80]
            ; ldp x8, x9, [sp, #64]
            ; ldp x6, x7, [sp, #48]
            ; ldp x4, x5, [sp, #32]
            ; ldp x2, x3, [sp, #16]
            ; ldp x0, x1, [sp]
            ; add sp, sp, #128
            ; eret);
    };
    a64!(asm ; ->irq:);
    save(asm);
    a64!(asm ; mrs x20, ICC_IAR1_EL1 ; mrs x9, ICC_RPR_EL1);
    asm.say_hex("irq ", 20, 3);
    asm.say_hex(" rpr ", 9, 2);
    asm.say("\n");
    a64!(asm
        ; cmp x20, VIRTUAL_TIMER
        ; b.ne >not_virtual
        ; msr CNTV_CTL_EL0, xzr
        ; not_virtual:
        ; cmp x20, PHYSICAL_TIMER
        ; b.ne >not_physical
        ; msr CNTP_CTL_EL0, xzr
        ; not_physical:
        ; cmp x20, UART_SPI
        ; b.ne >not_uart);
    asm.constant(1, UART);
    a64!(asm
        ; str wzr, [x1, UARTIMSC]
        ; not_uart:
        ; isb
        ; cmp x20, #2
        ; b.ne >end
        ; cbz x27, >end);
    asm.send(3);
    a64!(asm ; msr daifclr, #2 ; isb ; mov x0, #1000 ; wait: ; subs x0, x0, #1 ; b.ne <wait ; msr daifset, #2);
    asm.say("back\n");
    a64!(asm ; end: ; msr ICC_EOIR1_EL1, x20 ; isb ; cbz x28, >deactivated);
    for what in ["dropped", "deactivated"] {
        asm.constant(8, GICR + SGI_BASE);
        a64!(asm ; ldr w9, [x8, #0x300] ; mrs x8, ICC_RPR_EL1);
        asm.say(what);
        asm.say_hex(": rpr ", 8, 2);
        asm.say_hex(" isactiver ", 9, 8);
        asm.say("\n");
        a64!(asm ; msr ICC_DIR_EL1, x20 ; isb);
    }
    a64!(asm ; deactivated:);
    restore(asm);

    a64!(asm ; ->fiq:);
    save(asm);
    a64!(asm ; mrs x20, ICC_IAR0_EL1 ; mrs x9, ICC_RPR_EL1);
    asm.say_hex("fiq ", 20, 3);
    asm.say_hex(" rpr ", 9, 2);
    asm.say("\n");
    a64!(asm ; msr ICC_EOIR0_EL1, x20 ; isb);
    restore(asm);
}

/// The vectors: IRQ and FIQ from EL1; any other exception ends the guest.
fn vectors(asm: &mut Asm) {
    let table = VECTORS_PAGE * PAGE;
    asm.pad_to(table);
    for slot in 0..16u64 {
        asm.pad_to(table + slot * 0x80);
        match slot {
            5 => a64!(asm ; b ->irq),
            6 => a64!(asm ; b ->fiq),
            _ => a64!(asm ; b ->unexpected),
        }
    }
    asm.pad_to(table + 0x800);
    a64!(asm ; ->unexpected:);
    asm.say("unexpected exception\n");
    a64!(asm ; b ->power_off);
}
