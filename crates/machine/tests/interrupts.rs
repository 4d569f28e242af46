//! Interrupts as a CPU takes them, and what WFI and WFE wait for. MMU off, EL1h.

mod support;

use seawall_arm::Reg;
use seawall_events::{MmioExit, VcpuEvents};
use seawall_inject::{Exit, Inject as _};
use seawall_machine::Error;
use support::gic::{self, execute, msr};
use support::{CODE, EL0T, Guest, LOOP, VECTORS};

const IRQ: u64 = 0x80;
const FIQ: u64 = 0x100;
/// From EL1h; from EL0.
const CURRENT: u64 = VECTORS + 0x200;
const LOWER: u64 = VECTORS + 0x400;

/// PSTATE: EL1h with D and A set; with I too.
const OPEN: u64 = 0x305;
const MASKED: u64 = 0x385;

const WFI: u32 = 0xd503_207f;
const WFE: u32 = 0xd503_205f;
const SEVL: u32 = 0xd503_20bf;
const NOP: u32 = 0xd503_201f;

/// A guest with its GIC open, PC at [`CODE`].
fn guest(code: &[u32], pstate: u64) -> Guest {
    let mut guest = Guest::new(code);
    gic::open(&mut guest, 0);
    guest.set(Reg::Pstate, pstate);
    guest
}

/// Let the virtual timer fire at so many ticks.
fn virtual_timer(guest: &mut Guest, tick: u64) {
    execute(guest, 0, msr::CNTV_CVAL_EL0, tick, 0);
    execute(guest, 0, msr::CNTV_CTL_EL0, 1, 0);
}

#[test]
fn a_timer_interrupt_is_taken_at_the_very_step() {
    let mut guest = guest(&[LOOP], OPEN);
    virtual_timer(&mut guest, 100);
    let start = guest.vm.time();
    guest.steps(1600 - start);
    assert_eq!((guest.vm.time(), guest.get(Reg::Pc)), (1600, CODE));
    guest.steps(1);
    let [pc, .., elr, spsr] = guest.taken();
    assert_eq!((guest.vm.time(), pc, elr, spsr), (1601, CURRENT + IRQ, CODE, OPEN));
    assert_eq!(guest.get(Reg::Pstate), 0x3c5);
}

#[test]
fn an_interrupt_leaves_esr_and_far_alone() {
    let mut guest = guest(&[LOOP], OPEN);
    guest.set(Reg::EsrEl1, 0x1234);
    guest.set(Reg::FarEl1, 0x5678);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    guest.steps(1);
    let [pc, esr, far, ..] = guest.taken();
    assert_eq!((pc, esr, far), (CURRENT + IRQ, 0x1234, 0x5678));
}

#[test]
fn a_masked_interrupt_is_taken_before_the_instruction_after_the_unmasking() {
    // mrs x2, isr_el1; msr daifclr, #2; nop
    let mut guest = guest(&[0xd538_c102, 0xd503_42ff, NOP], MASKED);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    guest.steps(2);
    assert_eq!((guest.get(Reg::Pc), guest.x(2)), (CODE + 8, 0x80));
    guest.steps(1);
    let [pc, .., elr, _] = guest.taken();
    assert_eq!((pc, elr), (CURRENT + IRQ, CODE + 8));
}

#[test]
fn an_interrupt_whose_line_fell_is_not_taken() {
    let mut guest = guest(&[NOP, NOP], OPEN);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    guest.vm.set_irq_line(40, false).expect("an SPI");
    guest.steps(2);
    assert_eq!(guest.get(Reg::Pc), CODE + 8);
}

#[test]
fn from_el0_it_goes_to_the_vectors_of_the_lower_level() {
    let mut guest = guest(&[LOOP], EL0T & !0xc0);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), LOWER + IRQ);
}

#[test]
fn group_0_is_an_fiq_with_a_mask_of_its_own() {
    let mut guest = guest(&[LOOP], MASKED);
    // SPI 40 in group 0.
    gic::store(&mut guest, 0x0800_0084, 0);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    guest.set(Reg::Pstate, 0x345);
    guest.steps(3);
    assert_eq!(guest.get(Reg::Pc), CODE, "F is set");
    guest.set(Reg::Pstate, MASKED);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CURRENT + FIQ);
}

#[test]
fn an_serror_is_taken_before_an_interrupt() {
    let mut guest = guest(&[LOOP], OPEN & !0x100);
    guest.set(Reg::Pstate, OPEN);
    guest.vm.set_irq_line(40, true).expect("an SPI");
    let mut vcpu = guest.vm.vcpu(0).expect("CPU 0");
    vcpu.set_reg(Reg::Pstate, 0x3c5).expect("a mode");
    vcpu.inject(&VcpuEvents { serror_pending: true, ..VcpuEvents::default() }).expect("accepted");
    vcpu.set_reg(Reg::Pstate, 0x205).expect("a mode");
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), CURRENT + 0x180);
}

#[test]
fn wfi_skips_to_the_timer_interrupt() {
    let mut guest = guest(&[WFI, NOP], OPEN);
    virtual_timer(&mut guest, 1_000_000);
    let start = guest.vm.instructions();
    guest.steps(2);
    let [pc, .., elr, _] = guest.taken();
    assert_eq!((pc, elr), (CURRENT + IRQ, CODE + 4));
    assert_eq!(guest.vm.instructions() - start, 2);
    assert_eq!(guest.vm.time(), 16_000_001);
}

#[test]
fn wfi_ends_by_an_interrupt_that_is_masked_and_not_by_one_whose_timer_masks_it() {
    let mut guest = guest(&[WFI, NOP, WFI], MASKED);
    virtual_timer(&mut guest, 1000);
    guest.steps(2);
    assert_eq!((guest.get(Reg::Pc), guest.vm.time()), (CODE + 8, 16_001));
    execute(&mut guest, 0, msr::CNTV_CTL_EL0, 3, 0);
    assert_eq!(guest.run(10), Exit::Idle);
}

#[test]
fn both_timers_count_and_the_earlier_one_ends_the_wait() {
    let mut guest = guest(&[WFI, WFI], OPEN);
    virtual_timer(&mut guest, 3000);
    execute(&mut guest, 0, msr::CNTP_CVAL_EL0, 2000, 0);
    execute(&mut guest, 0, msr::CNTP_CTL_EL0, 1, 0);
    guest.steps(2);
    assert_eq!((guest.get(Reg::Pc), guest.vm.time()), (CURRENT + IRQ, 32_001));
    // mrs x0, ICC_IAR1_EL1
    assert_eq!(execute(&mut guest, 0, 0xd538_cc00, 0, 0), 30);
}

#[test]
fn a_timer_set_centuries_ahead_does_not_end_a_wait() {
    let mut guest = guest(&[WFI, WFI], MASKED);
    virtual_timer(&mut guest, u64::MAX);
    let start = guest.vm.time();
    assert_eq!(guest.run(10), Exit::Idle);
    assert_eq!(guest.vm.time(), start + 1);
    // mrs x0, CNTV_CTL_EL0
    assert_eq!(execute(&mut guest, 0, 0xd53b_e320, 0, 0), 1);
}

#[test]
fn wfe_takes_an_event_and_without_a_source_of_events_does_not_wait() {
    let mut guest = guest(&[SEVL, WFE, WFE, WFE, NOP], OPEN);
    let start = guest.vm.time();
    guest.steps(5);
    assert_eq!((guest.get(Reg::Pc), guest.vm.time()), (CODE + 20, start + 5));
}

#[test]
fn wfe_waits_for_the_event_stream_or_a_timer_interrupt() {
    let mut guest = guest(&[WFE, NOP, WFE], OPEN);
    // CNTKCTL_EL1: EVNTEN, bit 12: each 8192 ticks, from 4096.
    execute(&mut guest, 0, msr::CNTKCTL_EL1, 0xc4, 0);
    guest.steps(2);
    assert_eq!(guest.vm.time(), 4096 * 16 + 1);
    virtual_timer(&mut guest, 5000);
    guest.steps(2);
    assert_eq!((guest.get(Reg::Pc), guest.vm.time()), (CURRENT + IRQ, 80_001));
}

#[test]
fn at_el0_wfe_is_trapped_if_sctlr_says_so_and_there_is_no_event() {
    let mut guest = guest(&[SEVL, WFE, WFE], EL0T);
    guest.set(Reg::SctlrEl1, 0x30d5_0998 & !(1 << 18));
    guest.steps(3);
    let [pc, esr, _, elr, _] = guest.taken();
    // EC 0x01, CV, COND 14, TI = WFE.
    assert_eq!((pc, esr, elr), (LOWER, 0x07e0_0001, CODE + 8));
}

#[test]
fn the_controllers_registers_do_not_exit_but_what_lies_beside_them_does() {
    let mut guest = guest(&[0xf940_0020, 0xf840_8420], OPEN);
    // ldr x0, [x1]: GICR_TYPER.
    guest.set(Reg::X(1), 0x080a_0008);
    guest.steps(1);
    assert_eq!(guest.x(0), 0x10);
    // Post-indexed.
    guest.steps(1);
    assert_eq!((guest.x(0), guest.x(1)), (0x10, 0x080a_0010));
    // The redistributor of a second CPU.
    guest.set(Reg::Pc, CODE);
    guest.set(Reg::X(1), 0x080c_0008);
    let expected = MmioExit { phys_addr: 0x080c_0008, data: [0; 8], len: 8, is_write: false };
    assert_eq!(guest.run(1), Exit::Mmio(expected));
}

#[test]
fn only_spis_have_lines_for_the_host() {
    let mut guest = guest(&[LOOP], OPEN);
    for intid in [0, 31, 288, u32::MAX] {
        let error = guest.vm.set_irq_line(intid, true).expect_err("no SPI");
        assert_eq!(error, Error::NoInterrupt(intid));
        assert_eq!(error.to_string(), format!("expected the INTID of an SPI, 32 to 287, got {intid}"));
    }
    guest.vm.set_irq_line(287, true).expect("the last SPI");
}

#[test]
fn at_el0_the_interface_is_undefined() {
    // mrs x0, ICC_IAR1_EL1
    let mut guest = guest(&[0xd538_cc00], EL0T);
    guest.steps(1);
    let [pc, esr, ..] = guest.taken();
    assert_eq!((pc, esr), (LOWER, 0x0200_0000));
}
