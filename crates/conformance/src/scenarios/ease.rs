//! FEAT_DoubleFault2: `SCTLR2_EL1.EASE` moves SEAs to the SError vector, NMEA unmasks SErrors. KVM does both
//! when it injects; the CPU needs only the register.

use seawall_events::{Reg, VcpuEvents};
use seawall_inject::Exit;

use super::{data_abort, group, instruction_abort, serror, serror_with, with_iss};
use crate::backend::Setup;
use crate::guest::words::LOOP;
use crate::guest::{DATA, EL0, EL1H, Guest, Taken};
use crate::trial::{Outcome, Stop, Trial};

group! { "ease";
    an_abort_is_taken_at_the_serror_vector needs Sctlr2, Ras;
    without_ease_it_is_not needs Sctlr2;
    bad_memory_is_replayed_at_the_serror_vector needs Sctlr2, Poison;
    nmea_unmasks_serrors needs Sctlr2;
    with_nmea_the_serror_of_the_same_call_comes_on_top needs Sctlr2, Ras;
}

const NMEA: u64 = 1 << 2;
const EASE: u64 = 1 << 5;

/// A guest before its first run: the address of an abort is 0 then.
fn fresh(trial: &Trial, pstate: u64, sctlr2: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LOOP])?;
    guest.set(Reg::Pstate, pstate)?;
    guest.set(Reg::FarEl1, 0x1234)?;
    guest.set(Reg::Sctlr2El1, sctlr2)?;
    Ok(guest)
}

/// The class stays that of an abort. DDI 0487, `AArch64.TakeException` and SCTLR2_EL1.EASE.
fn an_abort_is_taken_at_the_serror_vector(trial: &mut Trial) -> Outcome {
    for (case, pstate, events, pc, esr) in [
        ("data, EL1", EL1H, data_abort(), 0x4009_0380, 0x9600_0010),
        ("fetch, EL1", EL1H, instruction_abort(), 0x4009_0380, 0x8600_0010),
        ("data, EL1 on SP_EL0", 0x3c4, data_abort(), 0x4009_0180, 0x9600_0010),
        ("data, EL0", EL0, data_abort(), 0x4009_0580, 0x9200_0010),
        ("data with an ISS, EL0", EL0, with_iss(0x200, data_abort()), 0x4009_0580, 0x9200_0210),
    ] {
        trial.case(case);
        let mut guest = fresh(trial, pstate, EASE)?;
        trial.inject(&mut guest, &events)?;
        trial.delivered(&mut guest, &Taken { pc, esr, spsr: pstate, ..Taken::default() })?;
    }
    Ok(())
}

/// The other bits of the register make no difference.
fn without_ease_it_is_not(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, EL1H, NMEA)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, ..Taken::default() })
}

/// With its ISS and its address.
fn bad_memory_is_replayed_at_the_serror_vector(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, EL1H, EASE)?;
    guest.program(&[crate::guest::words::LDR])?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    match guest.run()? {
        Exit::Sea(sea) => trial.hex("esr", sea.esr.bits(), 0x9200_0210),
        exit => return Err(Stop::Error(format!("expected a SEA exit, got {exit:x?}"))),
    }
    trial.inject(&mut guest, &with_iss(0x210, data_abort()))?;
    let expected = Taken { pc: 0x4009_0380, esr: 0x9600_0210, far: 0x4020_0048, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// PSTATE.A does not mask. FAR does not change.
fn nmea_unmasks_serrors(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, EL1H, NMEA)?;
    trial.inject(&mut guest, &serror())?;
    trial.same("pending", &guest.events()?.serror_pending, &false);
    trial.delivered(&mut guest, &Taken { pc: 0x4009_0380, esr: 0xbf00_0000, far: 0x1234, ..Taken::default() })
}

/// Its ELR is the vector of the abort, whose own ESR is overwritten.
fn with_nmea_the_serror_of_the_same_call_comes_on_top(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, EL1H, NMEA)?;
    trial.inject(&mut guest, &VcpuEvents { ext_dabt_pending: true, ..serror_with(0x10_0c11) })?;
    let expected = Taken { pc: 0x4009_0380, esr: 0xbe10_0c11, elr: 0x4009_0200, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}
