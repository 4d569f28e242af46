//! Self-hosted debug. Rules of DDI 0487, D2: breakpoints (D2.8), watchpoints (D2.9), software step (D2.12).
//! MMU off, but for watchpoints.

mod support;

use seawall_arm::Reg;
use seawall_inject::{Exit, Vcpu as _};
use support::gic::execute;
use support::sysreg::{
    CONTEXTIDR, DBGCLAIMCLR, DBGCLAIMSET, MDCCINT, MDCCSR, MDSCR, Name, OSDLR, OSLAR, OSLSR, dbgbcr, dbgbvr,
    dbgwcr, dbgwvr, mrs, msr,
};
use support::{CODE, DATA, EL0T, Guest, LOOP, VECTORS};

const NOP: u32 = 0xd503_201f;
const SVC: u32 = 0xd400_0001;
const ERET: u32 = 0xd69f_03e0;
const LDR: u32 = 0xf940_0020; // ldr x0, [x1]
const STR: u32 = 0xf900_0020; // str x0, [x1]

/// MDSCR_EL1.
const SS: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
/// PSTATE.SS, and EL1h with D clear.
const PSTATE_SS: u64 = 1 << 21;
const EL1_OPEN: u64 = 0x1c5;

/// ESRs with IL: software step from EL0 and within EL1, breakpoint, watchpoint.
const STEP_LOWER: u64 = 0xca00_0022;
const STEP_SAME: u64 = 0xce00_0022;
const BREAK_LOWER: u64 = 0xc200_0022;
const BREAK_SAME: u64 = 0xc600_0022;
const WATCH_LOWER: u64 = 0xd200_0022;
const WATCH_SAME: u64 = 0xd600_0022;
/// ISS: ISV and EX of a step; WnR of a watchpoint.
const ISV: u64 = 1 << 24;
const EX: u64 = 1 << 6;
const WNR: u64 = 1 << 6;

fn write(guest: &mut Guest, name: Name, value: u64) {
    execute(guest, 0, msr(name, 3), value, 0);
}

fn read(guest: &mut Guest, name: Name) -> u64 {
    execute(guest, 0, mrs(name, 0), 0, 0)
}

/// The OS lock is open, MDSCR_EL1 as given.
fn guest(code: &[u32], mdscr: u64) -> Guest {
    let mut guest = Guest::new(code);
    write(&mut guest, OSLAR, 0);
    // Last: it may step this very helper's instructions.
    write(&mut guest, MDSCR, mdscr);
    guest
}

// Registers.

#[test]
fn mdscr_holds_its_status_bits_only_while_the_os_lock_is_locked() {
    let mut guest = Guest::new(&[]);
    assert_eq!(read(&mut guest, OSLSR), 0xa, "locked out of reset");
    write(&mut guest, MDSCR, !(KDE | SS));
    assert_eq!(read(&mut guest, MDSCR), 0x6ce8_d040);
    write(&mut guest, OSLAR, 0);
    assert_eq!(read(&mut guest, OSLSR), 8);
    write(&mut guest, MDSCR, 0);
    assert_eq!(read(&mut guest, MDSCR), 0x6ce8_4040);
}

#[test]
fn breakpoint_and_watchpoint_registers_hold_the_fields_that_there_are() {
    let mut guest = Guest::new(&[]);
    for (register, held) in [
        (dbgbvr(0), u64::MAX),
        (dbgbcr(0), 0x00ff_e1e7),
        (dbgbvr(1), u64::MAX),
        (dbgbcr(1), 0x00ff_e1e7),
        (dbgwvr(0), !3),
        (dbgwcr(0), 0x1f1f_ffff),
        (dbgwvr(1), !3),
        (dbgwcr(1), 0x1f1f_ffff),
        (OSDLR, 1),
        (MDCCINT, 0x6000_0000),
    ] {
        write(&mut guest, register, u64::MAX);
        assert_eq!(read(&mut guest, register), held, "{register:?}");
    }
    // BAS is RES1 where there is no AArch32.
    write(&mut guest, dbgbcr(0), 0);
    assert_eq!(read(&mut guest, dbgbcr(0)), 0x1e0);
}

#[test]
fn claim_tags_are_set_by_one_register_and_cleared_by_the_other() {
    let mut guest = Guest::new(&[]);
    write(&mut guest, DBGCLAIMSET, 0x1a5);
    assert_eq!((read(&mut guest, DBGCLAIMSET), read(&mut guest, DBGCLAIMCLR)), (0xff, 0xa5));
    write(&mut guest, DBGCLAIMCLR, 0x21);
    assert_eq!(read(&mut guest, DBGCLAIMCLR), 0x84);
}

#[test]
fn a_third_breakpoint_or_watchpoint_is_undefined() {
    assert_eq!(read(&mut Guest::new(&[]), (3, 0, 0, 5, 0)) & 0xf0f0_f00f, 0x1010_1006);
    for register in [dbgbvr(2), dbgbcr(2), dbgwvr(2), dbgwcr(15)] {
        for word in [mrs(register, 0), msr(register, 0)] {
            let mut guest = Guest::new(&[word]);
            guest.steps(1);
            assert_eq!(guest.get(Reg::EsrEl1), 0x0200_0000, "{register:?}");
        }
    }
}

#[test]
fn el0_may_read_the_channels_status_unless_mdscr_tdcc_traps_it() {
    for (mdscr, esr) in [(0, 0), (1 << 12, 0x6220_c003)] {
        let mut guest = guest(&[mrs(MDCCSR, 0)], mdscr);
        guest.set(Reg::Pstate, EL0T);
        guest.steps(1);
        assert_eq!(guest.get(Reg::EsrEl1), esr);
    }
}

// Software step.

/// A guest whose next instruction is an ERET to `code` with this SPSR.
fn returning(code: &[u32], mdscr: u64, spsr: u64) -> Guest {
    let mut guest = guest(code, mdscr);
    guest.code_at(VECTORS, &[ERET]);
    guest.set(Reg::ElrEl1, CODE);
    guest.set(Reg::SpsrEl1, spsr);
    guest.set(Reg::Pc, VECTORS);
    guest
}

/// ESR, ELR, SPSR after so many steps of the CPU.
fn after(guest: &mut Guest, steps: u64) -> (u64, u64, u64) {
    guest.set(Reg::EsrEl1, 0);
    guest.steps(steps);
    let [_, esr, _, elr, spsr] = guest.taken();
    (esr, elr, spsr)
}

#[test]
fn a_return_with_ss_executes_one_instruction() {
    let mut guest = returning(&[NOP, NOP], SS, EL0T | PSTATE_SS);
    // ERET, NOP, the exception.
    assert_eq!(after(&mut guest, 3), (STEP_LOWER | ISV, CODE + 4, EL0T));
    assert_eq!(guest.get(Reg::Pc), VECTORS + 0x400);
    assert_eq!(guest.get(Reg::Pstate), 0x3c5);
}

#[test]
fn a_return_without_ss_executes_none() {
    let mut guest = returning(&[NOP], SS, EL0T);
    assert_eq!(after(&mut guest, 2), (STEP_LOWER, CODE, EL0T));
}

#[test]
fn without_mdscr_ss_or_with_the_os_lock_nothing_is_stepped_and_spsr_ss_goes_nowhere() {
    for (mdscr, lock, double_lock) in [(0, 0, 0), (SS, 1, 0), (SS, 0, 1)] {
        let mut guest = returning(&[NOP, LOOP], mdscr, EL0T | PSTATE_SS);
        write(&mut guest, OSLAR, lock);
        write(&mut guest, OSDLR, double_lock);
        guest.set(Reg::Pc, VECTORS);
        assert_eq!(after(&mut guest, 5).0, 0);
        assert_eq!((guest.get(Reg::Pc), guest.get(Reg::Pstate)), (CODE + 4, EL0T));
    }
}

#[test]
fn a_stepped_load_exclusive_is_told() {
    // ldxr x0, [x1]
    let mut guest = returning(&[0xc85f_7c20, NOP], SS, EL0T | PSTATE_SS);
    guest.set(Reg::X(1), DATA);
    assert_eq!(after(&mut guest, 3), (STEP_LOWER | ISV | EX, CODE + 4, EL0T));
}

#[test]
fn a_stepped_branch_is_stepped_to_where_it_goes() {
    // b . + 12
    let mut guest = returning(&[0x1400_0003], SS, EL0T | PSTATE_SS);
    assert_eq!(after(&mut guest, 3), (STEP_LOWER | ISV, CODE + 12, EL0T));
}

#[test]
fn a_stepped_svc_is_done_and_the_step_comes_after_the_return_from_it() {
    let mut guest = returning(&[SVC, NOP], SS, EL0T | PSTATE_SS);
    assert_eq!(after(&mut guest, 2), (0x5600_0000, CODE + 4, EL0T));
    guest.set(Reg::Pc, VECTORS);
    assert_eq!(after(&mut guest, 2), (STEP_LOWER, CODE + 4, EL0T));
}

#[test]
fn a_stepped_instruction_that_faults_is_not_done() {
    let mut guest = returning(&[LDR], SS, EL0T | PSTATE_SS);
    guest.set(Reg::X(1), 1 << 50);
    // Address size fault, level 0.
    assert_eq!(after(&mut guest, 2), (0x9200_0000, CODE, EL0T | PSTATE_SS));
}

#[test]
fn an_mmio_access_that_the_host_completes_is_a_step() {
    let mut guest = returning(&[LDR], SS, EL0T | PSTATE_SS);
    guest.set(Reg::X(1), support::HOLE);
    guest.set(Reg::EsrEl1, 0);
    assert!(matches!(guest.run(5), Exit::Mmio(_)));
    guest.vm.vcpu(0).expect("CPU 0").answer_mmio(7_u64.to_le_bytes());
    assert_eq!(after(&mut guest, 2), (STEP_LOWER | ISV, CODE + 4, EL0T));
    assert_eq!(guest.x(0), 7);
}

#[test]
fn el1_is_stepped_with_kde_and_pstate_d_clear() {
    let mut guest = returning(&[NOP, NOP], SS | KDE, EL1_OPEN | PSTATE_SS);
    assert_eq!(after(&mut guest, 3), (STEP_SAME | ISV, CODE + 4, EL1_OPEN));
    for (mdscr, spsr) in [(SS, EL1_OPEN | PSTATE_SS), (SS | KDE, 0x3c5 | PSTATE_SS)] {
        let mut guest = returning(&[LOOP], mdscr, spsr);
        assert_eq!(after(&mut guest, 5).0, 0);
    }
}

#[test]
fn unmasking_pstate_d_without_ss_stops_at_the_next_instruction() {
    // msr daifclr, #8
    let mut guest = guest(&[0xd503_48ff, NOP], SS | KDE);
    assert_eq!(after(&mut guest, 2), (STEP_SAME, CODE + 4, EL1_OPEN));
}

// Breakpoints.

/// DBGBCR: enabled, for EL1 and for EL0; linked address match; context match; linked context match.
const AT_EL1: u64 = 1 | 1 << 1;
const AT_EL0: u64 = 1 | 2 << 1;
const LINKED: u64 = 1 << 20;
const CONTEXT: u64 = 2 << 20;
const CONTEXT_LINKED: u64 = 3 << 20;

/// Breakpoint 0 as given, the guest at `pstate`: (ESR, ELR) after three NOPs or the exception.
fn broken(control: u64, value: u64, pstate: u64) -> (u64, u64) {
    let mut guest = guest(&[NOP, NOP, NOP, LOOP], MDE | KDE);
    write(&mut guest, dbgbvr(0), value);
    write(&mut guest, dbgbcr(0), control);
    guest.set(Reg::FarEl1, 0x1234);
    guest.set(Reg::Pstate, pstate);
    let (esr, elr, _) = after(&mut guest, 4);
    assert_eq!(guest.get(Reg::FarEl1), 0x1234, "FAR is left alone");
    (esr, elr)
}

#[test]
fn a_breakpoint_stops_before_its_instruction() {
    assert_eq!(broken(AT_EL1, CODE + 8, EL1_OPEN), (BREAK_SAME, CODE + 8));
    assert_eq!(broken(AT_EL0, CODE, EL0T), (BREAK_LOWER, CODE));
}

#[test]
fn a_breakpoint_is_for_the_levels_and_states_that_it_names() {
    for (control, value, pstate) in [
        (AT_EL1, CODE + 8, EL0T),
        (AT_EL0, CODE + 8, EL1_OPEN),
        (AT_EL1 & !1, CODE + 8, EL1_OPEN),
        // PSTATE.D; Secure state only.
        (AT_EL1, CODE + 8, 0x3c5),
        (AT_EL1 | 2 << 14, CODE + 8, EL1_OPEN),
        (AT_EL1 | 3 << 14, CODE + 8, EL1_OPEN),
        (AT_EL1, CODE + 0x100, EL1_OPEN),
        (AT_EL1, CODE + 8 + 0x1000, EL1_OPEN),
    ] {
        assert_eq!(broken(control, value, pstate), (0, 0), "{control:#x} {value:#x} {pstate:#x}");
    }
    // SSC = 01: Non-secure.
    assert_eq!(broken(AT_EL1 | 1 << 14, CODE + 8, EL1_OPEN), (BREAK_SAME, CODE + 8));
}

#[test]
fn the_bits_above_48_and_below_2_are_not_compared() {
    assert_eq!(broken(AT_EL1, (CODE + 8 + 3) | 0xfffe << 48, EL1_OPEN), (BREAK_SAME, CODE + 8));
}

#[test]
fn without_mde_no_breakpoint_matches() {
    let mut guest = guest(&[NOP, LOOP], KDE);
    write(&mut guest, dbgbvr(0), CODE);
    write(&mut guest, dbgbcr(0), AT_EL1);
    guest.set(Reg::Pstate, EL1_OPEN);
    assert_eq!(after(&mut guest, 2).0, 0);
}

#[test]
fn a_context_breakpoint_matches_each_instruction_of_its_context() {
    for (contextidr, esr) in [(42, BREAK_SAME), (43, 0)] {
        let mut guest = guest(&[NOP, LOOP], MDE | KDE);
        write(&mut guest, CONTEXTIDR, contextidr);
        write(&mut guest, dbgbvr(1), 42);
        write(&mut guest, dbgbcr(1), AT_EL1 | CONTEXT);
        guest.set(Reg::Pstate, EL1_OPEN);
        assert_eq!(after(&mut guest, 2).0, esr);
    }
}

#[test]
fn a_linked_breakpoint_matches_its_address_in_the_context_of_the_other() {
    for (contextidr, linked, esr) in [(42, 1, BREAK_SAME), (43, 1, 0), (42, 0, 0), (42, 5, 0)] {
        let mut guest = guest(&[NOP, NOP, LOOP], MDE | KDE);
        write(&mut guest, CONTEXTIDR, contextidr);
        write(&mut guest, dbgbvr(0), CODE + 4);
        write(&mut guest, dbgbcr(0), AT_EL1 | LINKED | linked << 16);
        write(&mut guest, dbgbvr(1), 42);
        write(&mut guest, dbgbcr(1), 1 | CONTEXT_LINKED);
        guest.set(Reg::Pstate, EL1_OPEN);
        assert_eq!(after(&mut guest, 3).0, esr, "{contextidr} {linked}");
    }
}

#[test]
fn a_step_comes_before_a_breakpoint_and_a_breakpoint_before_its_step() {
    let mut guest = returning(&[NOP, NOP], SS | MDE, EL0T | PSTATE_SS);
    write(&mut guest, dbgbvr(0), CODE + 4);
    write(&mut guest, dbgbcr(0), AT_EL0);
    guest.set(Reg::Pc, VECTORS);
    assert_eq!(after(&mut guest, 3), (STEP_LOWER | ISV, CODE + 4, EL0T));
    // Stepping on from there meets the breakpoint, with the step still to be done.
    guest.set(Reg::SpsrEl1, EL0T | PSTATE_SS);
    guest.set(Reg::Pc, VECTORS);
    assert_eq!(after(&mut guest, 2), (BREAK_LOWER, CODE + 4, EL0T | PSTATE_SS));
}

// Watchpoints.

/// DBGWCR: enabled for EL1; loads, stores; all bytes of a doubleword, of the low word.
const LOADS: u64 = 1 << 3;
const STORES: u64 = 2 << 3;
const DOUBLEWORD: u64 = 0xff << 5;
const WORD: u64 = 0x0f << 5;

/// Watchpoint 0 at DATA + `offset` as given; one instruction at EL1 with X1 = DATA + `at`: its ESR and FAR less DATA.
/// Done once more with the page in the TLB before the watchpoint is set.
fn watched(control: u64, offset: u64, word: u32, at: u64) -> (u64, u64) {
    let run = |touch_first: bool| {
        let mut guest = guest(&[word], MDE | KDE).map();
        guest.change_page(DATA, support::EL0, 0);
        if touch_first {
            guest.code_at(CODE + 0x100, &[LDR, STR]);
            guest.set(Reg::Pc, CODE + 0x100);
            guest.set(Reg::X(1), DATA + 0x20);
            guest.steps(2);
            guest.set(Reg::Pc, CODE);
        }
        write(&mut guest, dbgwvr(0), DATA + offset);
        write(&mut guest, dbgwcr(0), control);
        guest.set(Reg::X(1), DATA + at);
        guest.set(Reg::FarEl1, DATA);
        guest.set(Reg::Pstate, EL1_OPEN);
        let (esr, elr, _) = after(&mut guest, 1);
        assert!(esr == 0 || elr == CODE);
        (esr, guest.get(Reg::FarEl1) - DATA)
    };
    let result = run(false);
    assert_eq!(run(true), result);
    result
}

#[test]
fn a_watchpoint_stops_the_access_to_its_bytes() {
    let both = AT_EL1 | LOADS | STORES;
    for (control, offset, word, at, expected) in [
        (both | DOUBLEWORD, 8, LDR, 8, (WATCH_SAME, 8)),
        (both | DOUBLEWORD, 8, STR, 8, (WATCH_SAME | WNR, 8)),
        (both | DOUBLEWORD, 8, LDR, 16, (0, 0)),
        (both | DOUBLEWORD, 8, LDR, 0, (0, 0)),
        // An unaligned access reaches into it; FAR is the first address that is watched.
        (both | DOUBLEWORD, 8, LDR, 3, (WATCH_SAME, 8)),
        // One of kind.
        (AT_EL1 | LOADS | DOUBLEWORD, 8, STR, 8, (0, 0)),
        (AT_EL1 | STORES | DOUBLEWORD, 8, LDR, 8, (0, 0)),
        // Bytes 2 and 3; ldrb w0, [x1].
        (both | 0x0c << 5, 8, 0x3940_0020, 9, (0, 0)),
        (both | 0x0c << 5, 8, 0x3940_0020, 10, (WATCH_SAME, 10)),
        (both | 0x0c << 5, 8, LDR, 8, (WATCH_SAME, 10)),
        // A word that is not doubleword-aligned.
        (both | WORD, 12, 0x3940_0020, 11, (0, 0)),
        (both | WORD, 12, 0x3940_0020, 12, (WATCH_SAME, 12)),
        // 256 bytes by MASK.
        (both | DOUBLEWORD | 8 << 24, 0x100, LDR, 0x1f8, (WATCH_SAME, 0x1f8)),
        (both | DOUBLEWORD | 8 << 24, 0x100, LDR, 0x200, (0, 0)),
        (both | DOUBLEWORD | 8 << 24, 0x100, LDR, 0xf8, (0, 0)),
        // For EL0 only; not enabled; Secure.
        (both & !3 | 1 | 2 << 1 | DOUBLEWORD, 8, LDR, 8, (0, 0)),
        (both & !1 | DOUBLEWORD, 8, LDR, 8, (0, 0)),
        (both | DOUBLEWORD | 2 << 14, 8, LDR, 8, (0, 0)),
        // ldp x2, x3, [x1]; stp q0, q1, [x1]; ldadd x2, x3, [x1]; dc zva, x1.
        (both | DOUBLEWORD, 24, 0xa940_0c22, 16, (WATCH_SAME, 24)),
        (AT_EL1 | STORES | DOUBLEWORD, 8, 0xf822_0023, 8, (WATCH_SAME | WNR, 8)),
        (both | DOUBLEWORD, 8, 0xf822_0023, 8, (WATCH_SAME, 8)),
        (both | DOUBLEWORD, 0x48, 0xd50b_7421, 0x50, (WATCH_SAME | WNR, 0x48)),
    ] {
        assert_eq!(watched(control, offset, word, at), expected, "{control:#x} {offset} {word:#x} {at}");
    }
}

#[test]
fn an_unprivileged_access_is_one_of_el0() {
    let el0 = 1 | 2 << 1 | LOADS | DOUBLEWORD;
    // ldtr x0, [x1]
    assert_eq!(watched(el0, 8, 0xf840_0820, 8), (WATCH_SAME, 8));
    assert_eq!(watched(AT_EL1 | LOADS | DOUBLEWORD, 8, 0xf840_0820, 8), (0, 0));
}

#[test]
fn from_el0_it_goes_to_the_vectors_of_the_lower_level_with_the_access_not_done() {
    let mut guest = guest(&[STR], MDE);
    write(&mut guest, dbgwvr(1), DATA);
    write(&mut guest, dbgwcr(1), AT_EL0 | STORES | DOUBLEWORD);
    guest.set(Reg::X(0), 7);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::Pstate, EL0T);
    assert_eq!(after(&mut guest, 1), (WATCH_LOWER | WNR, CODE, EL0T));
    assert_eq!((guest.get(Reg::Pc), guest.read(DATA)), (VECTORS + 0x400, 0));
}

#[test]
fn a_linked_watchpoint_watches_in_the_context_of_a_breakpoint() {
    for (contextidr, esr) in [(42, WATCH_LOWER), (43, 0)] {
        let mut guest = guest(&[LDR], MDE);
        write(&mut guest, CONTEXTIDR, contextidr);
        write(&mut guest, dbgwvr(0), DATA);
        write(&mut guest, dbgwcr(0), AT_EL0 | LOADS | DOUBLEWORD | 1 << 20 | 1 << 16);
        write(&mut guest, dbgbvr(1), 42);
        write(&mut guest, dbgbcr(1), 1 | CONTEXT_LINKED);
        guest.set(Reg::X(1), DATA);
        guest.set(Reg::Pstate, EL0T);
        assert_eq!(after(&mut guest, 1).0, esr);
    }
}

#[test]
fn a_watchpoint_comes_after_an_alignment_fault_and_before_poison() {
    let control = AT_EL1 | LOADS | DOUBLEWORD;
    let mut guest = guest(&[LDR], MDE | KDE);
    guest.poison(DATA);
    write(&mut guest, dbgwvr(0), DATA);
    write(&mut guest, dbgwcr(0), control);
    guest.set(Reg::X(1), DATA);
    guest.set(Reg::Pstate, EL1_OPEN);
    assert_eq!(after(&mut guest, 1).0, WATCH_SAME);
    // SCTLR_EL1.A.
    guest.set(Reg::SctlrEl1, 0x30d5_099a);
    guest.set(Reg::Pc, CODE);
    guest.set(Reg::Pstate, EL1_OPEN);
    guest.set(Reg::X(1), DATA + 1);
    assert_eq!(after(&mut guest, 1).0, 0x9600_0021);
}
