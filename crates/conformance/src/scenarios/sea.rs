//! Bad memory that the hardware meets: the exit, and the abort replayed into the guest with its whole ISS.

use seawall_arm::Esr;
use seawall_events::{Reg, SeaExit, VcpuEvents};
use seawall_inject::Exit;

use super::{group, with_iss};
use crate::backend::{HOST_HOLE, Setup};
use crate::guest::words::{
    BR_X3, LDP, LDR, LDR_POST, LDRB, LDRSW, LDXR, LOOP, MOV_X2_GOOD, NOP, REPORT_X2, RET_X3, STP, STR,
};
use crate::guest::{
    DATA, DATA_EL0, DATA_EL1, EL0, EL1H, Guest, SPARE, SPARE_EL0, SPARE_EL1, Table, Taken, USER_CODE,
    descriptor_of,
};
use crate::trial::{Outcome, Stop, Trial};

group! { "sea";
    each_kind_of_load_exits_and_is_replayed needs Poison;
    a_load_at_el0 needs Poison;
    a_load_with_the_mmu_off needs Poison;
    a_load_that_reaches_into_the_bad_line needs Poison;
    a_load_from_a_good_line_of_the_page_does_not_exit needs Poison;
    a_fetch_at_el1 needs Poison;
    a_fetch_at_el0 needs Poison;
    a_fetch_after_a_branch_keeps_btype needs Poison, Bti;
    a_fetch_in_the_middle_of_a_page needs Poison;
    a_load_through_a_bad_table needs Poison;
    a_fetch_through_a_bad_table needs Poison;
    a_load_at_el0_through_a_bad_table needs Poison;
    a_fetch_at_el0_through_a_bad_table needs Poison;
    a_store_to_a_bad_line_does_not_exit needs Poison;
    a_store_is_there_once_the_line_is_healed needs PoisonKeepsStores;
    a_store_that_aborts_is_told_by_wnr needs PoisonAbortsStores;
    a_load_and_a_store_where_the_host_has_nothing needs HostHole;
    a_fetch_where_the_host_has_nothing needs HostHole;
    it_exits_again_and_again_until_the_line_is_healed needs Poison;
    once_healed_the_handler_returns_to_the_load needs Poison;
    once_healed_the_handler_returns_to_the_fetch needs Poison;
    an_abort_is_replayed_into_an_unmasked_guest_as_well needs Poison;
    a_vm_that_did_not_ask_for_exits_gets_an_serror needs Poison;
    a_masked_guest_without_exits_is_stuck_at_the_load needs Poison;
}

/// A guest with MMU on, this program at CODE, and code at [`SPARE`] + 0x40 that reports.
fn guest(trial: &Trial, setup: Setup, program: &[u32], pstate: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(setup)?;
    guest.program(program)?;
    guest.words(SPARE + 0x40, &[MOV_X2_GOOD, REPORT_X2])?;
    for n in 0..8 {
        guest.write(DATA + 0x40 + 8 * n, 0x5555_0000 + n)?;
    }
    guest.mmu_on()?;
    guest.set(Reg::Pstate, pstate)?;
    if pstate == EL0 {
        guest.set(Reg::Pc, USER_CODE)?;
    }
    guest.set(Reg::X(2), 0x1111)?;
    Ok(guest)
}

/// Checks the exit, then the same exit again, and that the guest does not move in between.
fn exits(trial: &mut Trial, guest: &mut Guest, expected: SeaExit) -> Outcome {
    let pc = guest.get(Reg::Pc)?;
    let sea = exit_is(trial, guest, expected)?;
    // A fetch after a jump: PC is at its target then.
    let pc = if sea.is_fetch() { sea.gva } else { pc };
    trial.hex("PC", guest.get(Reg::Pc)?, pc);
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    exit_is(trial, guest, expected)?;
    trial.hex("PC, again", guest.get(Reg::Pc)?, pc);
    Ok(())
}

fn exit_is(trial: &mut Trial, guest: &mut Guest, expected: SeaExit) -> Result<SeaExit, Stop> {
    let Exit::Sea(sea) = guest.run()? else {
        return Err(Stop::Error("expected a SEA exit".into()));
    };
    trial.hex("flags", sea.flags, expected.flags);
    trial.hex("esr", sea.esr.bits(), expected.esr.bits());
    trial.hex("gva", sea.gva, expected.gva);
    trial.hex("gpa", sea.gpa, expected.gpa);
    Ok(sea)
}

/// An exit with a valid gpa.
fn sea(esr: u64, gva: u64, gpa: u64) -> SeaExit {
    SeaExit { flags: 1, esr: Esr::from_bits(esr), gva, gpa }
}

/// An exit without one: the walk's own abort.
fn walk(esr: u64, gva: u64) -> SeaExit {
    SeaExit { flags: 0, esr: Esr::from_bits(esr), gva, gpa: 0 }
}

/// The injection of a simple VMM: the same class, and the unchanged ISS.
fn replay(exit: SeaExit) -> VcpuEvents {
    let events = VcpuEvents {
        ext_iabt_pending: exit.is_fetch(),
        ext_dabt_pending: !exit.is_fetch(),
        ..VcpuEvents::default()
    };
    with_iss(exit.esr.bits() & 0x1ff_ffff, events)
}

/// Checks the exit, and that the guest's handler sees the replay.
fn exits_and_is_replayed(trial: &mut Trial, guest: &mut Guest, exit: SeaExit, handler: &Taken) -> Outcome {
    exits(trial, guest, exit)?;
    trial.inject(guest, &replay(exit))?;
    trial.delivered(guest, handler)
}

/// At EL1, from `DATA_EL1` + 0x48.
const LOAD: u64 = 0xffff_ff80_0000_1048;
/// At EL0.
const LOAD_EL0: u64 = 0xffff_ff82_0000_1048;

fn at_el0() -> Taken {
    Taken { pc: 0x4009_0400, elr: 0x2_0000_0000, spsr: 0x3c0, ..Taken::default() }
}

/// Measured: ESR 0x92000210, flags 1, gva exact, gpa the page. The guest's ESR is 0x96000210.
fn each_kind_of_load_exits_and_is_replayed(trial: &mut Trial) -> Outcome {
    for (word, name) in [
        (LDR, "ldr x2, [x1]"),
        (LDRB, "ldrb w2, [x1]"),
        (LDRSW, "ldrsw x2, [x1]"),
        (LDR_POST, "ldr x2, [x1], #8"),
        (LDP, "ldp x2, x3, [x1]"),
        (LDXR, "ldxr x2, [x1]"),
    ] {
        trial.case(name);
        let mut guest = guest(trial, Setup::default(), &[word], EL1H)?;
        guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
        guest.vm().poison(DATA + 0x40)?;
        let handler = Taken { esr: 0x9600_0210, far: LOAD, ..Taken::default() };
        exits_and_is_replayed(trial, &mut guest, sea(0x9200_0210, LOAD, 0x4020_0000), &handler)?;
        trial.hex("X1", guest.get(Reg::X(1))?, LOAD);
    }
    Ok(())
}

/// The class is the same; the guest's ESR is 0x92000210.
fn a_load_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[LDR], EL0)?;
    guest.set(Reg::X(1), DATA_EL0 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    let handler = Taken { esr: 0x9200_0210, far: LOAD_EL0, ..at_el0() };
    exits_and_is_replayed(trial, &mut guest, sea(0x9200_0210, LOAD_EL0, 0x4020_0000), &handler)
}

/// gva and gpa are the same page.
fn a_load_with_the_mmu_off(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LDR])?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.set(Reg::X(2), 0x1111)?;
    guest.vm().poison(DATA + 0x40)?;
    let handler = Taken { esr: 0x9600_0210, far: 0x4020_0048, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x9200_0210, 0x4020_0048, 0x4020_0000), &handler)
}

/// Its last byte is the bad line's first. FAR may be any of its addresses: DDI 0487, "FAR_ELx".
fn a_load_that_reaches_into_the_bad_line(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[LDR], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x39)?;
    guest.vm().poison(DATA + 0x40)?;
    let Exit::Sea(sea) = guest.run()? else {
        return Err(Stop::Error("expected a SEA exit".into()));
    };
    trial.hex("flags", sea.flags, 1);
    trial.hex("esr", sea.esr.bits(), 0x9200_0210);
    trial.hex("gpa", sea.gpa, 0x4020_0000);
    let accessed = 0xffff_ff80_0000_1039..=0xffff_ff80_0000_1040;
    trial.same("gva is one of the access", &accessed.contains(&sea.gva), &true);
    Ok(())
}

/// The lines before and after it.
fn a_load_from_a_good_line_of_the_page_does_not_exit(trial: &mut Trial) -> Outcome {
    for (case, offset) in [("before", 0x38), ("behind", 0x80)] {
        trial.case(case);
        let mut guest = guest(trial, Setup::default(), &[LDR, REPORT_X2], EL1H)?;
        guest.write(DATA + offset, 0x600d)?;
        guest.set(Reg::X(1), DATA_EL1 + offset)?;
        guest.vm().poison(DATA + 0x40)?;
        trial.hex("X2, by the guest", guest.reported()?, 0x600d);
    }
    Ok(())
}

/// Measured: 0x82000210. An instruction abort for the guest, ESR 0x86000210.
fn a_fetch_at_el1(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[RET_X3], EL1H)?;
    guest.set(Reg::X(3), SPARE_EL1 + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    let gva = 0xffff_ff80_0000_2040;
    let handler = Taken { esr: 0x8600_0210, far: gva, elr: gva, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x8200_0210, gva, 0x4030_0000), &handler)
}

/// The guest's ESR is 0x82000210.
fn a_fetch_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[RET_X3], EL0)?;
    guest.set(Reg::X(3), SPARE_EL0 + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    let gva = 0xffff_ff82_0000_2040;
    let handler = Taken { esr: 0x8200_0210, far: gva, elr: gva, ..at_el0() };
    exits_and_is_replayed(trial, &mut guest, sea(0x8200_0210, gva, 0x4030_0000), &handler)
}

/// BTYPE 01 of the BR is in SPSR: 0x7c5.
fn a_fetch_after_a_branch_keeps_btype(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[BR_X3], EL1H)?;
    guest.set(Reg::X(3), SPARE_EL1 + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    let gva = 0xffff_ff80_0000_2040;
    let handler = Taken { esr: 0x8600_0210, far: gva, elr: gva, spsr: 0x7c5, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x8200_0210, gva, 0x4030_0000), &handler)
}

/// The instructions before the bad line are executed.
fn a_fetch_in_the_middle_of_a_page(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[NOP; 16], EL1H)?;
    guest.words(0x4008_0040, &[LOOP])?;
    guest.vm().poison(0x4008_0040)?;
    exits(trial, &mut guest, sea(0x8200_0210, 0x4008_0040, 0x4008_0000))
}

/// A bad line of each table: the exit has no gpa, and the guest's handler gets the level.
fn through_a_bad_table(
    trial: &mut Trial,
    (word, pstate, table, va): (u32, u64, Table, u64),
    at_entry: &Taken,
    esrs: [(u64, u64); 3],
) -> Outcome {
    for (level, (exit, esr)) in (1..).zip(esrs) {
        trial.case(format!("level {level}"));
        let mut guest = guest(trial, Setup::default(), &[word], pstate)?;
        guest.set(Reg::X(1), va)?;
        guest.set(Reg::X(3), va)?;
        guest.vm().poison(descriptor_of(table, va, level))?;
        exits_and_is_replayed(trial, &mut guest, walk(exit, va), &Taken { esr, far: va, ..*at_entry })?;
    }
    Ok(())
}

/// 0x92000214 + level, 0x96000214 + level.
fn a_load_through_a_bad_table(trial: &mut Trial) -> Outcome {
    let esrs = [(0x9200_0215, 0x9600_0215), (0x9200_0216, 0x9600_0216), (0x9200_0217, 0x9600_0217)];
    through_a_bad_table(trial, (LDR, EL1H, Table::El1, DATA_EL1), &Taken::default(), esrs)
}

/// Measured: 0x82000215, flags 0, gpa 0.
fn a_fetch_through_a_bad_table(trial: &mut Trial) -> Outcome {
    let esrs = [(0x8200_0215, 0x8600_0215), (0x8200_0216, 0x8600_0216), (0x8200_0217, 0x8600_0217)];
    let at_entry = Taken { elr: 0xffff_ff80_0000_2000, ..Taken::default() };
    through_a_bad_table(trial, (RET_X3, EL1H, Table::El1, SPARE_EL1), &at_entry, esrs)
}

/// The exit's class is the same, and so is the guest's.
fn a_load_at_el0_through_a_bad_table(trial: &mut Trial) -> Outcome {
    let esrs = [(0x9200_0215, 0x9200_0215), (0x9200_0216, 0x9200_0216), (0x9200_0217, 0x9200_0217)];
    through_a_bad_table(trial, (LDR, EL0, Table::El0, DATA_EL0), &at_el0(), esrs)
}

/// As an instruction abort.
fn a_fetch_at_el0_through_a_bad_table(trial: &mut Trial) -> Outcome {
    let esrs = [(0x8200_0215, 0x8200_0215), (0x8200_0216, 0x8200_0216), (0x8200_0217, 0x8200_0217)];
    let at_entry = Taken { elr: 0xffff_ff82_0000_2000, ..at_el0() };
    through_a_bad_table(trial, (RET_X3, EL0, Table::El0, SPARE_EL0), &at_entry, esrs)
}

/// As with a deferred error, it consumes nothing and repairs nothing.
fn a_store_to_a_bad_line_does_not_exit(trial: &mut Trial) -> Outcome {
    for (word, name) in [(STR, "str x2, [x1]"), (STP, "stp x2, x3, [x1]")] {
        trial.case(name);
        let mut guest = guest(trial, Setup::default(), &[word, REPORT_X2, LDR], EL1H)?;
        guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
        guest.vm().poison(DATA + 0x40)?;
        trial.hex("X2, by the guest", guest.reported()?, 0x1111);
        exit_is(trial, &mut guest, sea(0x9200_0210, LOAD, 0x4020_0000))?;
    }
    Ok(())
}

/// It was not lost.
fn a_store_is_there_once_the_line_is_healed(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[STR, REPORT_X2], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    guest.reported()?;
    guest.vm().heal(DATA + 0x40)?;
    trial.hex("what was stored", guest.read(DATA + 0x48)?, 0x1111);
    trial.hex("what was beside it", guest.read(DATA + 0x50)?, 0x5555_0002);
    Ok(())
}

/// Bit 6.
fn a_store_that_aborts_is_told_by_wnr(trial: &mut Trial) -> Outcome {
    let setup = Setup { stores_abort: true, ..Setup::default() };
    let mut guest = guest(trial, setup, &[STR], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    let handler = Taken { esr: 0x9600_0250, far: LOAD, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x9200_0250, LOAD, 0x4020_0000), &handler)
}

/// Measured: 0x92000010, and 0x92000050 for the store. EA is 0, because the bus refused, not the memory.
fn a_load_and_a_store_where_the_host_has_nothing(trial: &mut Trial) -> Outcome {
    for (word, exit, esr) in [(LDR, 0x9200_0010, 0x9600_0010), (STR, 0x9200_0050, 0x9600_0050)] {
        trial.case(if word == LDR { "load" } else { "store" });
        let mut guest = trial.guest(Setup { host_hole: true, ..Setup::default() })?;
        guest.program(&[word])?;
        guest.set(Reg::X(1), HOST_HOLE + 0x48)?;
        guest.set(Reg::X(2), 0x1111)?;
        let handler = Taken { esr, far: 0x5000_0048, ..Taken::default() };
        exits_and_is_replayed(trial, &mut guest, sea(exit, 0x5000_0048, 0x5000_0000), &handler)?;
    }
    Ok(())
}

/// Measured: no exit. KVM maps no device memory for execution, and injects without user space.
fn a_fetch_where_the_host_has_nothing(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup { host_hole: true, ..Setup::default() })?;
    guest.program(&[RET_X3])?;
    guest.set(Reg::X(3), HOST_HOLE)?;
    let expected = Taken { esr: 0x8600_0010, far: 0x5000_0000, elr: 0x5000_0000, ..Taken::default() };
    trial.handled(&mut guest, &expected)
}

/// Nothing is pending: another run repeats the access.
fn it_exits_again_and_again_until_the_line_is_healed(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[LDR, REPORT_X2], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    for _ in 0..5 {
        exits(trial, &mut guest, sea(0x9200_0210, LOAD, 0x4020_0000))?;
    }
    guest.vm().heal(DATA + 0x40)?;
    trial.hex("X2, by the guest", guest.reported()?, 0x5555_0001);
    Ok(())
}

/// The result of the guest's own recovery.
fn once_healed_the_handler_returns_to_the_load(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[LDR, REPORT_X2], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    let handler = Taken { esr: 0x9600_0210, far: LOAD, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x9200_0210, LOAD, 0x4020_0000), &handler)?;
    guest.vm().heal(DATA + 0x40)?;
    trial.hex("X2, by the guest", guest.reported()?, 0x5555_0001);
    Ok(())
}

/// The same for code, from EL0: the page is read from disk again.
fn once_healed_the_handler_returns_to_the_fetch(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[RET_X3], EL0)?;
    guest.set(Reg::X(3), SPARE_EL0 + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    let gva = 0xffff_ff82_0000_2040;
    let handler = Taken { esr: 0x8200_0210, far: gva, elr: gva, ..at_el0() };
    exits_and_is_replayed(trial, &mut guest, sea(0x8200_0210, gva, 0x4030_0000), &handler)?;
    guest.vm().heal(SPARE + 0x40)?;
    trial.hex("X2, by the guest", guest.reported()?, 0x600d);
    Ok(())
}

/// PSTATE.A = 0.
fn an_abort_is_replayed_into_an_unmasked_guest_as_well(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, Setup::default(), &[LDR], 0x2c5)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    let handler = Taken { esr: 0x9600_0210, far: LOAD, spsr: 0x2c5, ..Taken::default() };
    exits_and_is_replayed(trial, &mut guest, sea(0x9200_0210, LOAD, 0x4020_0000), &handler)
}

/// IDS alone, FAR untouched: it makes Linux panic.
fn a_vm_that_did_not_ask_for_exits_gets_an_serror(trial: &mut Trial) -> Outcome {
    for (case, word) in [("load", LDR), ("fetch", RET_X3)] {
        trial.case(case);
        let setup = Setup { sea_to_user: false, ..Setup::default() };
        let mut guest = guest(trial, setup, &[word], 0x2c5)?;
        guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
        guest.set(Reg::X(3), SPARE_EL1 + 0x40)?;
        guest.set(Reg::FarEl1, 0x1234)?;
        guest.vm().poison(DATA + 0x40)?;
        guest.vm().poison(SPARE + 0x40)?;
        let elr = if word == LDR { 0x4008_0000 } else { 0xffff_ff80_0000_2040 };
        let expected =
            Taken { pc: 0x4009_0380, esr: 0xbf00_0000, far: 0x1234, elr, spsr: 0x2c5, ..Taken::default() };
        trial.handled(&mut guest, &expected)?;
    }
    Ok(())
}

/// The SError waits, and the load repeats forever: only a signal ends the run.
fn a_masked_guest_without_exits_is_stuck_at_the_load(trial: &mut Trial) -> Outcome {
    let setup = Setup { sea_to_user: false, ..Setup::default() };
    let mut guest = guest(trial, setup, &[LDR, REPORT_X2], EL1H)?;
    guest.set(Reg::X(1), DATA_EL1 + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    let exit = guest.vm().run_for_a_while()?;
    trial.same("exit", &exit, &Exit::Intr);
    trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
    trial.same("pending", &guest.events()?.serror_pending, &true);
    trial.hex("serror_esr", guest.events()?.serror_esr, 0x100_0000);
    guest.vm().heal(DATA + 0x40)?;
    trial.hex("X2, by the guest, once healed", guest.reported()?, 0x5555_0001);
    Ok(())
}
