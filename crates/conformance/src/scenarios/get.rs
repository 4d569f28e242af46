//! `KVM_GET_VCPU_EVENTS`: the events that are still pending; SET accepts the result.

use seawall_events::{Reg, VcpuEvents};

use super::{data_abort, group, instruction_abort, serror, serror_with, stopped_at, with_iss};
use crate::backend::Setup;
use crate::guest::words::LDR;
use crate::guest::{EL1H, EL1H_A_CLEAR, Guest, Taken};
use crate::trial::{Outcome, Stop, Trial};

group! { "get";
    nothing_is_pending_on_a_fresh_vcpu_and_has_esr_says_ras needs Ras;
    without_ras_has_esr_is_0 needs NoRas;
    an_abort_is_never_pending_as_it_was_delivered needs Ras;
    a_masked_serror_is_with_its_esr needs Ras;
    a_masked_serror_without_an_esr_has_one_all_the_same needs Ras;
    an_unmasked_serror_is_not needs Ras;
    what_get_gave_set_takes needs Ras;
}

/// `serror_pending`, `serror_has_esr`, `ext_dabt_pending`, `serror_esr`; every other byte must be 0.
fn check(trial: &mut Trial, guest: &mut Guest, flags: [u8; 3], esr: u64) -> Outcome {
    let bytes = guest.vm().events_bytes()?;
    let mut expected = [0; 64];
    expected[..3].copy_from_slice(&flags);
    expected[8..16].copy_from_slice(&esr.to_le_bytes());
    trial.same("kvm_vcpu_events", &bytes, &expected);
    Ok(())
}

/// `serror_has_esr` is 1 with nothing pending.
fn nothing_is_pending_on_a_fresh_vcpu_and_has_esr_says_ras(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    check(trial, &mut guest, [0, 1, 0], 0)
}

/// Nor is there an ESR while an SError is pending.
fn without_ras_has_esr_is_0(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup { ras: false, ..Setup::default() })?;
    check(trial, &mut guest, [0, 0, 0], 0)?;
    guest.inject(&serror())?;
    check(trial, &mut guest, [1, 0, 0], 0)
}

/// For each kind.
fn an_abort_is_never_pending_as_it_was_delivered(trial: &mut Trial) -> Outcome {
    for (case, events) in [
        ("data", data_abort()),
        ("instruction", instruction_abort()),
        ("instruction with an ISS", with_iss(0x600, instruction_abort())),
    ] {
        trial.case(case);
        let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
        trial.inject(&mut guest, &events)?;
        check(trial, &mut guest, [0, 1, 0], 0)?;
    }
    Ok(())
}

/// VSESR as given.
fn a_masked_serror_is_with_its_esr(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.inject(&serror_with(0x10_0c11))?;
    check(trial, &mut guest, [1, 1, 0], 0x10_0c11)
}

/// Bit 24, and `serror_has_esr` 1.
fn a_masked_serror_without_an_esr_has_one_all_the_same(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.inject(&serror())?;
    check(trial, &mut guest, [1, 1, 0], 0x100_0000)
}

/// It was taken.
fn an_unmasked_serror_is_not(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.set(Reg::Pstate, EL1H_A_CLEAR)?;
    guest.inject(&serror_with(0x10_0c11))?;
    check(trial, &mut guest, [0, 1, 0], 0)
}

/// On the same vCPU it changes nothing; on a fresh one it makes the SError pending there, as in a migration.
fn what_get_gave_set_takes(trial: &mut Trial) -> Outcome {
    for (case, events) in [
        ("nothing", VcpuEvents::default()),
        ("an SError", serror_with(0x10_0c11)),
        ("an SError without an ESR", serror()),
        ("an abort", data_abort()),
    ] {
        trial.case(case);
        let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
        guest.inject(&events)?;
        let bytes = guest.vm().events_bytes()?;
        let before = registers(&guest)?;
        guest.vm().set_events_bytes(&bytes)?;
        trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR", &registers(&guest)?, &before);
        trial.same("GET, again", &guest.vm().events_bytes()?, &bytes);
        let mut other = trial.guest(Setup::default())?;
        other.vm().set_events_bytes(&bytes)?;
        trial.same("GET, on another vCPU", &other.vm().events_bytes()?, &bytes);
    }
    Ok(())
}

fn registers(guest: &Guest) -> Result<Taken, Stop> {
    guest.taken(crate::guest::Level::El1)
}
