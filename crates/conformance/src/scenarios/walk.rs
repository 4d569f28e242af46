//! Aborts on the guest's own table walk: FSC 0x14 + level. If the tables are at an address without memory, or
//! on a page that the host knows to be bad, KVM walks them again to find the level (S1PTW). If the hardware
//! reported an SEA, the level is in the exit itself: see the group `sea`.

use seawall_arm::{Esr, Target};
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit};

use super::{data_abort, group, instruction_abort, with_iss};
use crate::backend::Setup;
use crate::guest::words::{BR_X3, LDR, LOOP, NOP, RET_X3};
use crate::guest::{
    DATA_EL0, DATA_EL1, EL0, EL1H, Guest, HOLE, Level, SPARE_EL0, SPARE_EL1, Table, Taken, USER_CODE,
    descriptor_of, other_level_1,
};
use crate::trial::{Outcome, Stop, Trial};

group! { "walk";
    a_load_through_tables_in_a_hole;
    a_fetch_through_tables_in_a_hole;
    a_load_at_el0_through_tables_in_a_hole;
    a_fetch_at_el0_through_tables_in_a_hole;
    a_fetch_from_a_hole_at_el1;
    a_fetch_from_a_hole_at_el0;
    a_fetch_from_a_hole_after_a_branch_keeps_btype needs Bti;
    the_level_is_found_anew_for_an_abort_that_user_space_injects_later;
    a_load_through_tables_on_a_page_known_to_be_bad needs HwPoison;
    a_fetch_through_tables_on_a_page_known_to_be_bad needs HwPoison;
    an_iss_comes_on_top_of_the_level needs HwPoison, Ras;
    nothing_is_delivered_if_the_walk_no_longer_meets_the_descriptor needs HwPoison;
    nothing_is_delivered_but_the_serror_of_the_same_call_is needs HwPoison, Ras;
}

/// A guest with the MMU on whose next step is to access X1 or to jump to X3.
fn guest(trial: &Trial, word: u32, pstate: u64, address: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[word, LOOP])?;
    guest.mmu_on()?;
    guest.set(Reg::Pstate, pstate)?;
    if pstate == EL0 {
        guest.set(Reg::Pc, USER_CODE)?;
    }
    guest.set(Reg::X(1), address)?;
    guest.set(Reg::X(3), address)?;
    Ok(guest)
}

/// Puts the table of `level` into the hole.
fn into_the_hole(guest: &mut Guest, table: Table, va: u64, level: usize) -> Outcome {
    const TABLE: u64 = 3;
    if level == 1 {
        return guest.set(Reg::Ttbr1El1, HOLE);
    }
    guest.write(descriptor_of(table, va, level - 1), HOLE | TABLE)
}

/// KVM injects the abort without user space: there is no exit before the handler's report.
fn by_the_host(
    trial: &mut Trial,
    word: u32,
    table: Table,
    address: u64,
    at_entry: &Taken,
    esrs: [u64; 3],
) -> Outcome {
    let pstate = if table == Table::El0 { EL0 } else { EL1H };
    for (level, esr) in (1..).zip(esrs) {
        trial.case(format!("level {level}"));
        let mut guest = guest(trial, word, pstate, address)?;
        into_the_hole(&mut guest, table, address, level)?;
        trial.handled(&mut guest, &Taken { esr, far: address, ..*at_entry })?;
    }
    Ok(())
}

/// From EL0 at [`USER_CODE`].
fn at_el0() -> Taken {
    Taken { pc: 0x4009_0400, elr: 0x2_0000_0000, spsr: 0x3c0, ..Taken::default() }
}

/// Golden vector 0x96000015, and the levels below.
fn a_load_through_tables_in_a_hole(trial: &mut Trial) -> Outcome {
    let esrs = [0x9600_0015, 0x9600_0016, 0x9600_0017];
    by_the_host(trial, LDR, Table::El1, DATA_EL1, &Taken::default(), esrs)
}

/// Golden vector 0x86000015. ELR is the address of the fetch.
fn a_fetch_through_tables_in_a_hole(trial: &mut Trial) -> Outcome {
    let at_entry = Taken { elr: 0xffff_ff80_0000_2000, ..Taken::default() };
    let esrs = [0x8600_0015, 0x8600_0016, 0x8600_0017];
    by_the_host(trial, RET_X3, Table::El1, SPARE_EL1, &at_entry, esrs)
}

/// 0x92000014 + level.
fn a_load_at_el0_through_tables_in_a_hole(trial: &mut Trial) -> Outcome {
    let esrs = [0x9200_0015, 0x9200_0016, 0x9200_0017];
    by_the_host(trial, LDR, Table::El0, DATA_EL0, &at_el0(), esrs)
}

/// 0x82000014 + level.
fn a_fetch_at_el0_through_tables_in_a_hole(trial: &mut Trial) -> Outcome {
    let at_entry = Taken { elr: 0xffff_ff82_0000_2000, ..at_el0() };
    let esrs = [0x8200_0015, 0x8200_0016, 0x8200_0017];
    by_the_host(trial, RET_X3, Table::El0, SPARE_EL0, &at_entry, esrs)
}

/// No walk, MMU off: 0x86000010, FAR = ELR = the target.
fn a_fetch_from_a_hole_at_el1(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[RET_X3])?;
    guest.set(Reg::X(3), HOLE)?;
    let expected = Taken { esr: 0x8600_0010, far: 0x0a00_1000, elr: 0x0a00_1000, ..Taken::default() };
    trial.handled(&mut guest, &expected)
}

/// 0x82000010.
fn a_fetch_from_a_hole_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[RET_X3])?;
    guest.set(Reg::X(3), HOLE)?;
    guest.set(Reg::Pstate, EL0)?;
    let expected = Taken {
        pc: 0x4009_0400,
        esr: 0x8200_0010,
        far: 0x0a00_1000,
        elr: 0x0a00_1000,
        spsr: 0x3c0,
        ..Taken::default()
    };
    trial.handled(&mut guest, &expected)
}

/// Golden vector: SPSR 0x7c5.
fn a_fetch_from_a_hole_after_a_branch_keeps_btype(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[BR_X3])?;
    guest.set(Reg::X(3), HOLE)?;
    let expected =
        Taken { esr: 0x8600_0010, far: 0x0a00_1000, elr: 0x0a00_1000, spsr: 0x7c5, ..Taken::default() };
    trial.handled(&mut guest, &expected)
}

/// The last abort was the host's own S1PTW one. The guest's handler waits in a loop, is interrupted, and gets
/// another abort at the same address. Its level is that of a new walk; if that walk does not reach the
/// descriptor any more, there is no abort.
fn the_level_is_found_anew_for_an_abort_that_user_space_injects_later(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, LDR, EL1H, DATA_EL1)?;
    into_the_hole(&mut guest, Table::El1, DATA_EL1, 2)?;
    guest.words(0x4009_0200, &[LOOP])?;
    let exit = guest.vm().run_for_a_while()?;
    trial.same("exit", &exit, &Exit::Intr);
    let first = Taken { esr: 0x9600_0016, far: 0xffff_ff80_0000_1000, ..Taken::default() };
    trial.taken(&guest, &first)?;
    trial.inject(&mut guest, &data_abort())?;
    let second = Taken { elr: 0x4009_0200, ..first };
    trial.taken(&guest, &second)?;
    guest.set(Reg::Ttbr1El1, other_level_1())?;
    guest.set(Reg::EsrEl1, 0x1234)?;
    let delivery = guest.inject(&data_abort())?;
    trial.same("delivery", &delivery, &Delivery::NotDelivered);
    trial.taken(&guest, &Taken { esr: 0x1234, ..second })
}

/// A guest that met a bad page of tables at this level: SIGBUS, and PC has not moved.
fn at_a_bad_table(
    trial: &mut Trial,
    word: u32,
    table: Table,
    address: u64,
    level: usize,
) -> Result<Guest, Stop> {
    let pstate = if table == Table::El0 { EL0 } else { EL1H };
    let mut guest = guest(trial, word, pstate, address)?;
    let page = descriptor_of(table, address, level) & !0xfff;
    let host = guest.vm().host_address(page)?;
    guest.vm().hwpoison(page)?;
    match guest.run()? {
        Exit::Sigbus(sigbus) => {
            trial.hex("si_addr", sigbus.address, host);
            trial.same("si_addr_lsb", &sigbus.lsb, &12);
        }
        exit => return Err(Stop::Error(format!("expected SIGBUS, got {exit:x?}"))),
    }
    Ok(guest)
}

/// Each level, of either half.
fn a_load_through_tables_on_a_page_known_to_be_bad(trial: &mut Trial) -> Outcome {
    for (level, el1, el0) in
        [(1, 0x9600_0015, 0x9200_0015), (2, 0x9600_0016, 0x9200_0016), (3, 0x9600_0017, 0x9200_0017)]
    {
        trial.case(format!("EL1, level {level}"));
        let mut guest = at_a_bad_table(trial, LDR, Table::El1, DATA_EL1, level)?;
        trial.inject(&mut guest, &data_abort())?;
        let far = 0xffff_ff80_0000_1000;
        trial.delivered(&mut guest, &Taken { esr: el1, far, ..Taken::default() })?;
        trial.case(format!("EL0, level {level}"));
        let mut guest = at_a_bad_table(trial, LDR, Table::El0, DATA_EL0, level)?;
        trial.inject(&mut guest, &data_abort())?;
        trial.delivered(&mut guest, &Taken { esr: el0, far: 0xffff_ff82_0000_1000, ..at_el0() })?;
    }
    Ok(())
}

/// The same as an instruction abort.
fn a_fetch_through_tables_on_a_page_known_to_be_bad(trial: &mut Trial) -> Outcome {
    for (level, esr) in [(1, 0x8600_0015), (2, 0x8600_0016), (3, 0x8600_0017)] {
        trial.case(format!("level {level}"));
        let mut guest = at_a_bad_table(trial, RET_X3, Table::El1, SPARE_EL1, level)?;
        trial.inject(&mut guest, &instruction_abort())?;
        let far = 0xffff_ff80_0000_2000;
        trial.delivered(&mut guest, &Taken { esr, far, elr: far, ..Taken::default() })?;
    }
    Ok(())
}

/// EA, SET: the FSC stays that of the walk.
fn an_iss_comes_on_top_of_the_level(trial: &mut Trial) -> Outcome {
    for (case, word, table, address, events, expected) in [
        (
            "data, EL1",
            LDR,
            Table::El1,
            DATA_EL1,
            data_abort(),
            Taken { esr: 0x9600_0a17, far: 0xffff_ff80_0000_1000, ..Taken::default() },
        ),
        (
            "fetch, EL0",
            RET_X3,
            Table::El0,
            SPARE_EL0,
            instruction_abort(),
            Taken { esr: 0x8200_0a17, far: 0xffff_ff82_0000_2000, elr: 0xffff_ff82_0000_2000, ..at_el0() },
        ),
    ] {
        trial.case(case);
        let mut guest = at_a_bad_table(trial, word, table, address, 3)?;
        trial.inject(&mut guest, &with_iss(0xa00, events))?;
        trial.delivered(&mut guest, &expected)?;
    }
    Ok(())
}

/// KVM takes the error for transient and changes nothing; the call succeeds. The backend must notice that the
/// abort was not delivered.
fn nothing_is_delivered_if_the_walk_no_longer_meets_the_descriptor(trial: &mut Trial) -> Outcome {
    for (case, events) in [("data", data_abort()), ("instruction", instruction_abort())] {
        trial.case(case);
        let mut guest = at_a_bad_table(trial, LDR, Table::El1, DATA_EL1, 2)?;
        guest.program(&[NOP, LOOP])?;
        guest.set(Reg::Ttbr1El1, other_level_1())?;
        for esr in [0x1234, 0x9600_0010, 0x8600_0010, 0] {
            guest.set(Reg::EsrEl1, esr)?;
            let before = guest.taken(Level::El1)?;
            let delivery = guest.inject(&events)?;
            trial.same("delivery", &delivery, &Delivery::NotDelivered);
            trial.taken(&guest, &before)?;
        }
        let exit = guest.vm().run_for_a_while()?;
        trial.same("exit", &exit, &Exit::Intr);
        trial.hex("PC, after a run", guest.get(Reg::Pc)?, 0x4008_0004);
    }
    Ok(())
}

/// An abort that never came does not mask it.
fn nothing_is_delivered_but_the_serror_of_the_same_call_is(trial: &mut Trial) -> Outcome {
    let mut guest = at_a_bad_table(trial, LDR, Table::El1, DATA_EL1, 2)?;
    guest.set(Reg::Ttbr1El1, other_level_1())?;
    guest.set(Reg::Pstate, 0x2c5)?;
    guest.set(Reg::FarEl1, 0x1234)?;
    let events = VcpuEvents {
        serror_pending: true,
        serror_has_esr: true,
        serror_esr: 0x10_0c11,
        ..with_iss(0x600, instruction_abort())
    };
    let delivery = guest.inject(&events)?;
    let (target, esr) = (Target::El1, Esr::from_bits(0xbe10_0c11));
    trial.same("delivery", &delivery, &Delivery::AtVector { target, pc: 0x4009_0380, esr, far: 0x1234 });
    let expected = Taken { pc: 0x4009_0380, esr: 0xbe10_0c11, far: 0x1234, spsr: 0x2c5, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}
