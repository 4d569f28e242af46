//! The performance monitor: the cycle counter counts steps. Rules of DDI 0487, D13 and D24.5. MMU off.

mod support;

use seawall_arm::Reg;
use seawall_inject::Exit;
use support::gic::{self, execute};
use support::sysreg::{
    Name, PMCCFILTR, PMCCNTR, PMCEID0, PMCEID1, PMCNTENCLR, PMCNTENSET, PMCR, PMINTENCLR, PMINTENSET,
    PMOVSCLR, PMOVSSET, PMSELR, PMSWINC, PMUSERENR, PMXEVCNTR, PMXEVTYPER, mrs, msr,
};
use support::{CODE, EL0T, EL1H, Guest, LOOP, VECTORS};

const NOP: u32 = 0xd503_201f;
const WFI: u32 = 0xd503_207f;
const SVC: u32 = 0xd400_0001;
const ERET: u32 = 0xd69f_03e0;

/// The cycle counter's bit.
const CYCLE: u64 = 1 << 31;
/// PMCR_EL0.E.
const ENABLE: u64 = 1;

fn write(guest: &mut Guest, name: Name, value: u64) {
    execute(guest, 0, msr(name, 3), value, 0);
}

fn read(guest: &mut Guest, name: Name) -> u64 {
    execute(guest, 0, mrs(name, 0), 0, 0)
}

/// Enables the counter in both places; it counts from the second MSR on.
fn enable(guest: &mut Guest) {
    write(guest, PMCNTENSET, CYCLE);
    write(guest, PMCR, ENABLE);
}

#[test]
fn there_is_a_cycle_counter_of_64_bits_and_no_event_counter() {
    let mut guest = Guest::new(&[]);
    // N = 0, LC = 1.
    assert_eq!(read(&mut guest, PMCR), 0x40);
    // CPU_CYCLES, 0x11.
    assert_eq!((read(&mut guest, PMCEID0), read(&mut guest, PMCEID1)), (0x2_0000, 0));
    // ID_AA64DFR0_EL1.PMUVer = 1.
    assert_eq!(read(&mut guest, (3, 0, 0, 5, 0)) >> 8 & 15, 1);
}

#[test]
fn registers_hold_the_bits_that_there_are() {
    for (register, held) in [
        (PMCR, 0x41),
        (PMCNTENSET, CYCLE),
        (PMINTENSET, CYCLE),
        (PMOVSSET, CYCLE),
        (PMSELR, 31),
        (PMCCNTR, u64::MAX),
        (PMCCFILTR, 0xc000_0000),
        (PMUSERENR, 15),
        (PMSWINC, 0),
        (PMXEVCNTR, 0),
        (PMXEVTYPER, 0),
    ] {
        let mut guest = Guest::new(&[]);
        write(&mut guest, register, u64::MAX);
        if register != PMSWINC {
            assert_eq!(read(&mut guest, register), held, "{register:?}");
        }
    }
}

#[test]
fn set_and_clear_registers_are_two_views_of_one_bit() {
    for (set, clear) in [(PMCNTENSET, PMCNTENCLR), (PMINTENSET, PMINTENCLR), (PMOVSSET, PMOVSCLR)] {
        let mut guest = Guest::new(&[]);
        write(&mut guest, set, CYCLE);
        write(&mut guest, clear, 0);
        assert_eq!((read(&mut guest, set), read(&mut guest, clear)), (CYCLE, CYCLE));
        write(&mut guest, set, 0);
        write(&mut guest, clear, u64::MAX);
        assert_eq!((read(&mut guest, set), read(&mut guest, clear)), (0, 0));
    }
}

#[test]
fn the_selected_events_type_is_the_cycle_counters_filter_if_31_is_selected() {
    let mut guest = Guest::new(&[]);
    write(&mut guest, PMSELR, 31);
    write(&mut guest, PMXEVTYPER, 0x4000_0000);
    assert_eq!(read(&mut guest, PMCCFILTR), 0x4000_0000);
    assert_eq!(read(&mut guest, PMXEVTYPER), 0x4000_0000);
    write(&mut guest, PMSELR, 0);
    assert_eq!(read(&mut guest, PMXEVTYPER), 0);
}

#[test]
fn event_counters_that_are_not_there_are_undefined() {
    // PMEVCNTR0_EL0, PMEVTYPER0_EL0; PMMIR_EL1, which is FEAT_PMUv3p4's.
    for name in [(3, 3, 14, 8, 0), (3, 3, 14, 12, 0), (3, 0, 9, 14, 6)] {
        let mut guest = Guest::new(&[mrs(name, 0)]);
        guest.steps(1);
        let [pc, esr, ..] = guest.taken();
        assert_eq!((pc, esr), (VECTORS + 0x200, 0x0200_0000), "{name:?}");
    }
}

#[test]
fn it_counts_each_instruction_while_it_is_enabled() {
    let code = [
        msr(PMCNTENSET, 1),
        mrs(PMCCNTR, 4),
        msr(PMCR, 3),
        NOP,
        NOP,
        mrs(PMCCNTR, 5),
        msr(PMCR, 31),
        NOP,
        mrs(PMCCNTR, 6),
    ];
    let mut guest = Guest::new(&code);
    guest.set(Reg::X(1), CYCLE);
    guest.set(Reg::X(3), ENABLE);
    guest.steps(9);
    // From the MSR that enables it, up to the one that does not.
    assert_eq!([4, 5, 6].map(|n| guest.x(n)), [0, 3, 4]);
}

#[test]
fn pmcr_c_resets_the_counter() {
    let mut guest = Guest::new(&[]);
    write(&mut guest, PMCCNTR, 1000);
    write(&mut guest, PMCR, 4);
    assert_eq!((read(&mut guest, PMCCNTR), read(&mut guest, PMCR)), (0, 0x40));
}

/// The counter's value after a loop of SVC at EL0 and ERET at EL1 did ten steps: five of each, an SVC being
/// the exception's one step at EL1.
fn filtered(filter: u64) -> u64 {
    let mut guest = Guest::new(&[SVC, 0x17ff_ffff]);
    guest.code_at(VECTORS + 0x400, &[ERET]);
    write(&mut guest, PMCCFILTR, filter);
    enable(&mut guest);
    guest.set(Reg::Pstate, EL0T);
    write(&mut guest, PMCCNTR, 0);
    guest.steps(12);
    read(&mut guest, PMCCNTR)
}

#[test]
fn the_filter_leaves_out_el1_or_el0() {
    // SVC, ERET, B, four times: the SVC and the B of EL0; the exception's step is EL1's. PMCCNTR's MSR and the MRS
    // that reads it are EL1's too: one more.
    assert_eq!(filtered(0), 13);
    assert_eq!(filtered(0x4000_0000), 9);
    assert_eq!(filtered(0x8000_0000), 4);
    assert_eq!(filtered(0xc000_0000), 0);
}

#[test]
fn the_interrupt_comes_at_the_very_step_at_which_the_counter_overflows() {
    let mut guest = Guest::new(&[LOOP]);
    gic::open(&mut guest, 0);
    write(&mut guest, PMINTENSET, CYCLE);
    enable(&mut guest);
    guest.set(Reg::Pstate, 0x305);
    write(&mut guest, PMCCNTR, 100_u64.wrapping_neg());
    // The MSR was the first of them.
    guest.steps(99);
    assert_eq!(guest.get(Reg::Pc), CODE);
    guest.steps(1);
    assert_eq!(guest.get(Reg::Pc), VECTORS + 0x280);
    assert_eq!(read(&mut guest, PMOVSSET), CYCLE);
    // mrs x0, ICC_IAR1_EL1
    assert_eq!(execute(&mut guest, 0, 0xd538_cc00, 0, 0), 23);
}

#[test]
fn the_interrupt_is_level_and_goes_with_its_overflow_flag() {
    let mut guest = Guest::new(&[LOOP, LOOP]);
    gic::open(&mut guest, 0);
    write(&mut guest, PMCR, ENABLE);
    write(&mut guest, PMOVSSET, CYCLE);
    // mrs x0, isr_el1
    assert_eq!(execute(&mut guest, 0, 0xd538_c100, 0, 0), 0, "not enabled");
    write(&mut guest, PMINTENSET, CYCLE);
    assert_eq!(execute(&mut guest, 0, 0xd538_c100, 0, 0), 0x80);
    write(&mut guest, PMCR, 0);
    assert_eq!(execute(&mut guest, 0, 0xd538_c100, 0, 0), 0, "PMCR_EL0.E");
    write(&mut guest, PMCR, ENABLE);
    assert_eq!(execute(&mut guest, 0, 0xd538_c100, 0, 0), 0x80);
    write(&mut guest, PMOVSCLR, CYCLE);
    assert_eq!(execute(&mut guest, 0, 0xd538_c100, 0, 0), 0);
}

#[test]
fn a_waiting_cpu_counts_no_cycles() {
    let mut guest = Guest::new(&[WFI, NOP]);
    gic::open(&mut guest, 0);
    execute(&mut guest, 0, gic::msr::CNTV_CVAL_EL0, 1_000_000, 0);
    execute(&mut guest, 0, gic::msr::CNTV_CTL_EL0, 1, 0);
    enable(&mut guest);
    guest.set(Reg::Pstate, 0x385);
    write(&mut guest, PMCCNTR, 0);
    guest.steps(2);
    assert_eq!(guest.vm.time(), 16_000_001);
    // MSR, WFI, NOP.
    assert_eq!(read(&mut guest, PMCCNTR), 3);
}

/// What an instruction with X0 does at EL0: its ESR, or 0.
fn at_el0(user: u64, word: u32) -> u64 {
    let mut guest = Guest::new(&[word]);
    write(&mut guest, PMUSERENR, user);
    guest.set(Reg::Pstate, EL0T);
    assert_eq!(guest.run(1), Exit::Intr);
    guest.get(Reg::EsrEl1)
}

#[test]
fn el0_may_what_pmuserenr_says_and_is_trapped_else() {
    const UNDEFINED: u64 = 0x0200_0000;
    // EC 0x18, Op0 3, Op2, Op1 3, CRn, CRm, Rt 0, direction.
    assert_eq!(at_el0(0, mrs(PMCCNTR, 0)), 0x6230_e41b);
    assert_eq!(at_el0(0, msr(PMCR, 0)), 0x6230_e418);
    for (user, word, expected) in [
        (1, mrs(PMCCNTR, 0), 0),
        (1, msr(PMCCNTR, 0), 0),
        // CR: reads of the cycle counter.
        (4, mrs(PMCCNTR, 0), 0),
        (4, msr(PMCCNTR, 0), 0x6230_e41a),
        // ER: PMSELR_EL0 and reads of event counters.
        (8, msr(PMSELR, 0), 0),
        (8, mrs(PMXEVCNTR, 0), 0),
        (8, mrs(PMXEVTYPER, 0), 0x6232_e41b),
        // SW.
        (2, msr(PMSWINC, 0), 0),
        (8, msr(PMSWINC, 0), 0x6238_e418),
        // PMUSERENR_EL0 may always be read, never written.
        (0, mrs(PMUSERENR, 0), 0),
        (15, msr(PMUSERENR, 0), UNDEFINED),
        (15, mrs(PMINTENSET, 0), UNDEFINED),
        (15, mrs(PMSWINC, 0), UNDEFINED),
        (15, msr(PMCEID0, 0), UNDEFINED),
        (15, mrs(PMCCFILTR, 0), 0),
    ] {
        assert_eq!(at_el0(user, word), expected, "{user} {word:#x}");
    }
}

#[test]
fn a_reset_of_the_cpu_stops_the_counter() {
    let mut guest = Guest::new(&[]);
    enable(&mut guest);
    guest.vm.vcpu(0).expect("CPU 0").reset().expect("CPU 0");
    guest.set(Reg::Pstate, EL1H);
    assert_eq!((read(&mut guest, PMCR), read(&mut guest, PMCCNTR)), (0x40, 0));
}
