//! An abort and an SError in one call: the abort comes first, and its entry masks the SError.

use seawall_events::VcpuEvents;

use super::{data_abort, group, instruction_abort, serror_with, stopped_at, with_iss};
use crate::backend::Setup;
use crate::guest::words::LDR;
use crate::guest::{EL0_A_CLEAR, EL1H, EL1H_A_CLEAR, Taken};
use crate::trial::{Outcome, Trial};

group! { "both";
    the_abort_is_taken_and_the_serror_stays_pending needs Ras;
    an_unmasked_serror_is_held_back_by_the_aborts_entry needs Ras;
    from_el0_the_serror_follows_when_the_handler_returns needs Ras;
    an_instruction_abort_with_an_esr_and_an_serror_with_one needs Ras;
}

/// An abort together with an SError of ISS 0x100c11.
fn and_serror(abort: VcpuEvents) -> VcpuEvents {
    let VcpuEvents { serror_pending, serror_has_esr, serror_esr, .. } = serror_with(0x10_0c11);
    VcpuEvents { serror_pending, serror_has_esr, serror_esr, ..abort }
}

/// The result of GET while that SError is pending.
const PENDING: VcpuEvents = VcpuEvents {
    serror_pending: true,
    serror_has_esr: true,
    serror_esr: 0x10_0c11,
    ext_dabt_pending: false,
    ext_iabt_pending: false,
    ext_abt_has_esr: false,
    ext_abt_esr: 0,
};

/// Golden vector.
fn the_abort_is_taken_and_the_serror_stays_pending(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &and_serror(data_abort()))?;
    trial.same("GET", &guest.events()?, &PENDING);
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() })?;
    trial.same("GET, after the handler ran", &guest.events()?, &PENDING);
    Ok(())
}

/// It is taken as soon as the handler returns, before the access is made again; FAR is the abort's.
fn an_unmasked_serror_is_held_back_by_the_aborts_entry(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H_A_CLEAR)?;
    trial.inject(&mut guest, &and_serror(data_abort()))?;
    trial.same("GET", &guest.events()?, &PENDING);
    let abort = Taken { esr: 0x9600_0010, far: 0x0a00_1008, spsr: 0x2c5, ..Taken::default() };
    trial.delivered(&mut guest, &abort)?;
    trial.handled(&mut guest, &Taken { pc: 0x4009_0380, esr: 0xbe10_0c11, ..abort })?;
    trial.same("GET, after it was taken", &guest.events()?.serror_pending, &false);
    Ok(())
}

/// The same from EL0: vectors 0x400 and 0x580.
fn from_el0_the_serror_follows_when_the_handler_returns(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL0_A_CLEAR)?;
    trial.inject(&mut guest, &and_serror(data_abort()))?;
    let abort =
        Taken { pc: 0x4009_0400, esr: 0x9200_0010, far: 0x0a00_1008, spsr: 0x2c0, ..Taken::default() };
    trial.delivered(&mut guest, &abort)?;
    trial.handled(&mut guest, &Taken { pc: 0x4009_0580, esr: 0xbe10_0c11, ..abort })
}

/// Each ESR goes to its own exception.
fn an_instruction_abort_with_an_esr_and_an_serror_with_one(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H_A_CLEAR)?;
    trial.inject(&mut guest, &and_serror(with_iss(0x600, instruction_abort())))?;
    trial.same("GET", &guest.events()?, &PENDING);
    let abort = Taken { esr: 0x8600_0610, far: 0x0a00_1008, spsr: 0x2c5, ..Taken::default() };
    trial.delivered(&mut guest, &abort)?;
    trial.handled(&mut guest, &Taken { pc: 0x4009_0380, esr: 0xbe10_0c11, ..abort })
}
