//! Guest hypervisors: a virtual EL2 (E2H is 1, as on KVM's VHE hosts), and its guest at EL1 and EL0 below.

use seawall_arm::Esr;
use seawall_events::{Reg, SeaExit};
use seawall_inject::Exit;

use super::{data_abort, group, instruction_abort, serror_with, with_iss};
use crate::backend::{Capability, El1, Setup};
use crate::guest::words::{LDR, LOOP, NOP, REPORT_X2, RET_X3, UNMASK_A};
use crate::guest::{DATA, EL0, EL1H, EL2H, Guest, HOLE, Level, SCTLR, SPARE, Taken};
use crate::trial::{Outcome, Stop, Trial};

group! { "nested";
    an_abort_at_el2_stays_there needs El2;
    an_abort_with_an_iss_at_el2 needs El2, Ras;
    without_routing_an_abort_of_el1_stays_there needs El2;
    without_routing_an_abort_of_el0_goes_to_el1 needs El2;
    tea_sends_an_abort_of_el1_to_el2 needs El2, RouteToEl2;
    tea_sends_an_abort_of_el0_to_el2 needs El2, RouteToEl2;
    tge_sends_an_abort_of_el0_to_el2 needs El2;
    tge_sends_the_iss_along needs El2, Ras;
    tea_sends_the_iss_along needs El2, RouteToEl2, Ras;
    a_host_that_cannot_send_it_to_el2_refuses_and_changes_nothing needs El2, Ras;
    the_waiting_load_of_el2_is_dropped needs El2;
    the_waiting_load_of_el1_is_dropped needs El2, RouteToEl2;
    an_unmasked_serror_at_el2_stays_there needs El2, Ras;
    a_masked_serror_at_el2_is_taken_when_a_run_unmasks_it needs El2, Ras;
    amo_sends_an_serror_of_el1_to_el2 needs El2, RouteToEl2, Ras;
    without_amo_an_serror_of_el1_stays_there needs El2, Ras;
    bad_memory_at_el2_exits_and_is_replayed needs El2, Poison;
    bad_memory_at_el1_with_tea_exits_and_is_replayed_to_el2 needs El2, RouteToEl2, Poison;
    a_page_known_to_be_bad_at_el1_with_tea needs El2, RouteToEl2, HwPoison;
}

// HCR_EL2.
const AMO: u64 = 1 << 5;
const TGE: u64 = 1 << 27;
const RW: u64 = 1 << 31;
const E2H: u64 = 1 << 34;
const TEA: u64 = 1 << 37;

/// A guest with this program, in this PSTATE, below a hypervisor with this `HCR_EL2` (and RW, E2H).
fn guest(trial: &Trial, program: &[u32], pstate: u64, hcr: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(Setup { el1: El1::BelowEl2, ..Setup::default() })?;
    guest.program(program)?;
    guest.set(Reg::SctlrEl2, SCTLR)?;
    guest.set(Reg::HcrEl2, hcr | RW | E2H)?;
    guest.set(Reg::Pstate, pstate)?;
    guest.set(Reg::X(2), 0x1111)?;
    for reg in [Reg::FarEl1, Reg::FarEl2] {
        guest.set(reg, 0x1234)?;
    }
    Ok(guest)
}

/// The same, stopped at a load from HOLE + 8.
fn stopped(trial: &Trial, pstate: u64, hcr: u64) -> Result<Guest, Stop> {
    let mut guest = guest(trial, &[LDR, REPORT_X2], pstate, hcr)?;
    guest.set(Reg::X(1), HOLE + 8)?;
    match guest.run()? {
        Exit::Mmio(mmio) if mmio.phys_addr == HOLE + 8 => Ok(guest),
        exit => Err(Stop::Error(format!("expected the load, got {exit:x?}"))),
    }
}

/// The state at EL2's synchronous vector, from EL2h at CODE.
const AT_EL2: Taken = Taken {
    level: Level::El2,
    pc: 0x400a_0200,
    pstate: 0x3c9,
    esr: 0x9600_0010,
    far: 0x0a00_1008,
    elr: 0x4008_0000,
    spsr: 0x3c9,
};

/// The same from EL1h: the vector of a lower level.
const FROM_EL1: Taken = Taken { pc: 0x400a_0400, esr: 0x9200_0010, spsr: 0x3c5, ..AT_EL2 };

/// The state at EL1's vector, from EL1h.
fn at_el1() -> Taken {
    Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() }
}

/// ESR_EL2 0x96000010, FAR_EL2, VBAR_EL2 + 0x200.
fn an_abort_at_el2_stays_there(trial: &mut Trial) -> Outcome {
    for (case, events, esr) in
        [("data", data_abort(), 0x9600_0010), ("instruction", instruction_abort(), 0x8600_0010)]
    {
        trial.case(case);
        let mut guest = stopped(trial, EL2H, 0)?;
        trial.inject(&mut guest, &events)?;
        trial.delivered(&mut guest, &Taken { esr, ..AT_EL2 })?;
        trial.hex("FAR_EL1", guest.get(Reg::FarEl1)?, 0x1234);
    }
    Ok(())
}

/// ORed into ESR_EL2.
fn an_abort_with_an_iss_at_el2(trial: &mut Trial) -> Outcome {
    for (case, events, esr) in
        [("data", data_abort(), 0x9600_0250), ("instruction", instruction_abort(), 0x8600_0250)]
    {
        trial.case(case);
        let mut guest = stopped(trial, EL2H, 0)?;
        trial.inject(&mut guest, &with_iss(0x240, events))?;
        trial.delivered(&mut guest, &Taken { esr, ..AT_EL2 })?;
    }
    Ok(())
}

/// As for a guest without EL2.
fn without_routing_an_abort_of_el1_stays_there(trial: &mut Trial) -> Outcome {
    for (case, events, esr) in [
        ("data", data_abort(), 0x9600_0010),
        ("instruction", instruction_abort(), 0x8600_0010),
        ("instruction, with an ISS", with_iss(0x600, instruction_abort()), 0x8600_0610),
    ] {
        trial.case(case);
        let mut guest = stopped(trial, EL1H, 0)?;
        trial.inject(&mut guest, &events)?;
        trial.delivered(&mut guest, &Taken { esr, ..at_el1() })?;
        trial.hex("FAR_EL2", guest.get(Reg::FarEl2)?, 0x1234);
    }
    Ok(())
}

/// VBAR_EL1 + 0x400.
fn without_routing_an_abort_of_el0_goes_to_el1(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, EL0, 0)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { pc: 0x4009_0400, esr: 0x9200_0010, spsr: 0x3c0, ..at_el1() })
}

/// EC 0x24 and 0x20: from a lower level; VBAR_EL2 + 0x400.
fn tea_sends_an_abort_of_el1_to_el2(trial: &mut Trial) -> Outcome {
    for (case, events, esr) in
        [("data", data_abort(), 0x9200_0010), ("instruction", instruction_abort(), 0x8200_0010)]
    {
        trial.case(case);
        let mut guest = stopped(trial, EL1H, TEA)?;
        trial.inject(&mut guest, &events)?;
        trial.delivered(&mut guest, &Taken { esr, ..FROM_EL1 })?;
    }
    Ok(())
}

/// The same from EL0.
fn tea_sends_an_abort_of_el0_to_el2(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, EL0, TEA)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { spsr: 0x3c0, ..FROM_EL1 })
}

/// EL0 is the hypervisor's own user space.
fn tge_sends_an_abort_of_el0_to_el2(trial: &mut Trial) -> Outcome {
    for (case, events, esr) in
        [("data", data_abort(), 0x9200_0010), ("instruction", instruction_abort(), 0x8200_0010)]
    {
        trial.case(case);
        let mut guest = stopped(trial, EL0, TGE)?;
        trial.inject(&mut guest, &events)?;
        trial.delivered(&mut guest, &Taken { esr, spsr: 0x3c0, ..FROM_EL1 })?;
    }
    Ok(())
}

/// EL0 of the hypervisor's own user space, both kinds.
fn tge_sends_the_iss_along(trial: &mut Trial) -> Outcome {
    with_the_iss(trial, EL0, TGE)
}

/// EL1 below the hypervisor, both kinds.
fn tea_sends_the_iss_along(trial: &mut Trial) -> Outcome {
    with_the_iss(trial, EL1H, TEA)
}

fn with_the_iss(trial: &mut Trial, pstate: u64, hcr: u64) -> Outcome {
    for (case, events, esr) in
        [("data", data_abort(), 0x9200_0250), ("instruction", instruction_abort(), 0x8200_0250)]
    {
        trial.case(case);
        let mut guest = stopped(trial, pstate, hcr)?;
        trial.inject(&mut guest, &with_iss(0x240, events))?;
        trial.delivered(&mut guest, &Taken { esr, spsr: pstate, ..FROM_EL1 })?;
    }
    Ok(())
}

/// EOPNOTSUPP, with each layout: a VMM must do without it, or wait until the hypervisor runs. EINVAL comes
/// before it.
fn a_host_that_cannot_send_it_to_el2_refuses_and_changes_nothing(trial: &mut Trial) -> Outcome {
    if trial.offers(Capability::RouteToEl2) {
        return Ok(());
    }
    for (case, hcr, pstate, events, errno) in [
        ("data, TEA, EL1", TEA, EL1H, data_abort(), 95),
        ("data, TEA, EL0", TEA, EL0, data_abort(), 95),
        ("instruction, TEA", TEA, EL1H, with_iss(0x210, instruction_abort()), 95),
        ("SError, AMO", AMO, 0x2c5, serror_with(0x10_0c11), 95),
        ("SError, AMO, masked", AMO, EL1H, serror_with(0x10_0c11), 95),
        ("an ESR that is none, TEA", TEA, EL1H, with_iss(1 << 25, data_abort()), 22),
    ] {
        trial.case(case);
        let mut guest = stopped(trial, pstate, hcr)?;
        let before = (guest.taken(Level::El1)?, guest.taken(Level::El2)?);
        let set = guest.vm().inject(&events);
        trial.errno("SET", set, errno)?;
        let after = (guest.taken(Level::El1)?, guest.taken(Level::El2)?);
        trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR of EL1 and EL2", &after, &before);
        trial.same("pending", &guest.events()?.serror_pending, &false);
        guest.vm().answer_mmio(9_u64.to_le_bytes());
        trial.hex("X2, by the guest", guest.reported()?, 9);
    }
    Ok(())
}

/// There is no change of context: as without EL2.
fn the_waiting_load_of_el2_is_dropped(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, EL2H, 0)?;
    trial.inject(&mut guest, &data_abort())?;
    guest.vm().answer_mmio([0x55; 8]);
    guest.vm().run_at_once()?;
    trial.taken(&guest, &AT_EL2)?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// The change of context is from EL1 to EL2.
fn the_waiting_load_of_el1_is_dropped(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, EL1H, TEA)?;
    trial.inject(&mut guest, &data_abort())?;
    guest.vm().answer_mmio([0x55; 8]);
    guest.vm().run_at_once()?;
    trial.taken(&guest, &FROM_EL1)?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    trial.handled(&mut guest, &FROM_EL1)
}

/// With E2H and not TGE, AMO counts as 1 at EL2.
fn an_unmasked_serror_at_el2_stays_there(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LOOP], 0x2c9, 0)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    let expected = Taken { pc: 0x400a_0380, esr: 0xbe10_0c11, far: 0x1234, spsr: 0x2c9, ..AT_EL2 };
    trial.delivered(&mut guest, &expected)
}

/// It was pending until then.
fn a_masked_serror_at_el2_is_taken_when_a_run_unmasks_it(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[NOP, UNMASK_A, LOOP], EL2H, 0)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    trial.same("GET", &guest.events()?, &serror_with(0x10_0c11));
    let expected =
        Taken { pc: 0x400a_0380, esr: 0xbe10_0c11, far: 0x1234, elr: 0x4008_0008, spsr: 0x2c9, ..AT_EL2 };
    trial.handled(&mut guest, &expected)?;
    trial.same("pending", &guest.events()?.serror_pending, &false);
    Ok(())
}

/// Masked at EL1 or not.
fn amo_sends_an_serror_of_el1_to_el2(trial: &mut Trial) -> Outcome {
    for (case, pstate) in [("masked", EL1H), ("unmasked", 0x2c5)] {
        trial.case(case);
        let mut guest = guest(trial, &[LOOP], pstate, AMO)?;
        trial.inject(&mut guest, &serror_with(0x10_0c11))?;
        let expected = Taken { pc: 0x400a_0580, esr: 0xbe10_0c11, far: 0x1234, spsr: pstate, ..AT_EL2 };
        trial.delivered(&mut guest, &expected)?;
    }
    Ok(())
}

/// Taken at EL1 if unmasked, pending if not.
fn without_amo_an_serror_of_el1_stays_there(trial: &mut Trial) -> Outcome {
    trial.case("unmasked");
    let mut guest = guest(trial, &[LOOP], 0x2c5, 0)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    let expected = Taken { pc: 0x4009_0380, esr: 0xbe10_0c11, far: 0x1234, spsr: 0x2c5, ..Taken::default() };
    trial.delivered(&mut guest, &expected)?;
    trial.case("masked");
    let mut guest = self::guest(trial, &[NOP, UNMASK_A, LOOP], EL1H, 0)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    trial.same("GET", &guest.events()?, &serror_with(0x10_0c11));
    trial.handled(&mut guest, &Taken { elr: 0x4008_0008, ..expected })
}

/// The exit's class is that of an abort from below EL2, whatever the guest's own level.
fn exits(trial: &mut Trial, guest: &mut Guest, expected: SeaExit) -> Outcome {
    let exit = Exit::Sea(expected);
    trial.exit(guest, &exit)
}

fn sea(esr: u64, gva: u64) -> SeaExit {
    SeaExit { flags: 1, esr: Esr::from_bits(esr), gva, gpa: gva & !0xfff }
}

/// Load and fetch.
fn bad_memory_at_el2_exits_and_is_replayed(trial: &mut Trial) -> Outcome {
    trial.case("load");
    let mut guest = guest(trial, &[LDR], EL2H, 0)?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    exits(trial, &mut guest, sea(0x9200_0210, 0x4020_0048))?;
    trial.inject(&mut guest, &with_iss(0x210, data_abort()))?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0210, far: 0x4020_0048, ..AT_EL2 })?;
    trial.case("fetch");
    let mut guest = self::guest(trial, &[RET_X3], EL2H, 0)?;
    guest.set(Reg::X(3), SPARE + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    exits(trial, &mut guest, sea(0x8200_0210, 0x4030_0040))?;
    trial.inject(&mut guest, &with_iss(0x210, instruction_abort()))?;
    let expected = Taken { esr: 0x8600_0210, far: 0x4030_0040, elr: 0x4030_0040, ..AT_EL2 };
    trial.delivered(&mut guest, &expected)
}

/// The guest hypervisor is told, not its guest.
fn bad_memory_at_el1_with_tea_exits_and_is_replayed_to_el2(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[RET_X3], EL1H, TEA)?;
    guest.set(Reg::X(3), SPARE + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    exits(trial, &mut guest, sea(0x8200_0210, 0x4030_0040))?;
    trial.inject(&mut guest, &with_iss(0x210, instruction_abort()))?;
    let expected = Taken { esr: 0x8200_0210, far: 0x4030_0040, elr: 0x4030_0040, ..FROM_EL1 };
    trial.delivered(&mut guest, &expected)
}

/// SIGBUS, and FAR_EL2.
fn a_page_known_to_be_bad_at_el1_with_tea(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LDR], EL1H, TEA)?;
    guest.write(DATA + 0x48, 0x5555)?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.vm().hwpoison(DATA)?;
    match guest.run()? {
        Exit::Sigbus(sigbus) => trial.same("BUS_MCEERR_AR", &sigbus.action_required, &true),
        exit => return Err(Stop::Error(format!("expected SIGBUS, got {exit:x?}"))),
    }
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { far: 0x4020_0048, ..FROM_EL1 })
}
