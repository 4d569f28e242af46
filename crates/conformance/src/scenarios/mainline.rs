//! Linux's own behaviour, which a VMM on it must live with.

use seawall_events::{Abi, Reg, VcpuEvents};
use seawall_inject::{Delivery, Exit};

use super::{data_abort, group, serror_with, stopped_at};
use crate::backend::Setup;
use crate::guest::words::{LDR, LOOP, NOP, RET_X3};
use crate::guest::{EL1H, EL1H_A_CLEAR, SPARE, SPARE_EL1, Taken};
use crate::trial::{Outcome, Trial};

group! { "mainline";
    a_data_abort_is_delivered_before_the_serror_is_refused needs Ras;
    the_refused_serror_is_not_pending needs Ras;
    an_serror_at_the_aborts_own_vector_is_told_from_one_that_waits needs Sctlr2, Ras;
    after_a_fetch_from_bad_memory_the_abort_is_a_data_abort needs Poison;
    the_address_is_0_on_a_fresh_vcpu;
    the_address_is_stale_once_the_access_is_completed;
    the_address_is_stale_after_an_exit_that_was_no_abort;
}

fn mainline() -> Setup {
    Setup { abi: Abi::Mainline, ..Setup::default() }
}

/// EINVAL, and the guest is in its handler.
fn a_data_abort_is_delivered_before_the_serror_is_refused(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, mainline(), LDR, EL1H)?;
    let events = VcpuEvents { ext_dabt_pending: true, ..serror_with(1 << 25) };
    let set = guest.vm().inject(&events);
    trial.errno("SET", set, 22)?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() })
}

/// Nor is it taken when the handler returns.
fn the_refused_serror_is_not_pending(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, mainline(), LDR, EL1H_A_CLEAR)?;
    let events = VcpuEvents { ext_dabt_pending: true, ..serror_with(1 << 25) };
    let set = guest.vm().inject(&events);
    trial.errno("SET", set, 22)?;
    trial.same("pending", &guest.events()?.serror_pending, &false);
    guest.handler_report()?;
    trial.hex("phys_addr of the next exit", guest.run_to_mmio()?.phys_addr, 0x0a00_1008);
    Ok(())
}

/// With EASE and NMEA both are taken at one vector, and a third, which waits, is still pending afterwards.
fn an_serror_at_the_aborts_own_vector_is_told_from_one_that_waits(trial: &mut Trial) -> Outcome {
    const EASE_AND_NMEA: u64 = 0x24;
    let mut guest = trial.guest(mainline())?;
    guest.program(&[LOOP])?;
    guest.set(Reg::Pstate, EL1H)?;
    trial.inject(&mut guest, &serror_with(0x11))?;
    trial.same("pending", &guest.events()?.serror_pending, &true);
    guest.set(Reg::Sctlr2El1, EASE_AND_NMEA)?;
    let delivery = guest.inject(&VcpuEvents { ext_dabt_pending: true, ..serror_with(0x12) })?;
    let Delivery::AtVector { pc, esr, .. } = delivery else {
        trial.same("delivery", &format!("{delivery:x?}"), &"at a vector".to_owned());
        return Ok(());
    };
    trial.hex("PC", pc, 0x4009_0380);
    trial.hex("ESR", esr.bits(), 0xbe00_0012);
    trial.hex("ESR_EL1", guest.get(Reg::EsrEl1)?, 0xbe00_0012);
    Ok(())
}

/// Mainline has no other: the guest, which could have read the page from disk again, is told of a load.
fn after_a_fetch_from_bad_memory_the_abort_is_a_data_abort(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(mainline())?;
    guest.program(&[RET_X3])?;
    guest.words(SPARE, &[NOP])?;
    guest.mmu_on()?;
    guest.set(Reg::X(3), SPARE_EL1)?;
    guest.vm().poison(SPARE)?;
    match guest.run()? {
        Exit::Sea(sea) => trial.hex("esr", sea.esr.bits(), 0x8200_0210),
        exit => trial.same("exit", &format!("{exit:x?}"), &"a SEA exit".to_owned()),
    }
    trial.inject(&mut guest, &data_abort())?;
    let far = 0xffff_ff80_0000_2000;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far, elr: far, ..Taken::default() })
}

/// There was no access.
fn the_address_is_0_on_a_fresh_vcpu(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(mainline())?;
    guest.program(&[NOP])?;
    guest.set(Reg::FarEl1, 0x1234)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far: 0, ..Taken::default() })
}

/// FAR is that of a completed access, ELR the next instruction.
fn the_address_is_stale_once_the_access_is_completed(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, mainline(), LDR, EL1H)?;
    guest.words(0x4008_0004, &[NOP])?;
    guest.vm().run_at_once()?;
    trial.inject(&mut guest, &data_abort())?;
    let expected = Taken { esr: 0x9600_0010, far: 0x0a00_1008, elr: 0x4008_0004, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// The guest ran on, and was interrupted.
fn the_address_is_stale_after_an_exit_that_was_no_abort(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, mainline(), LDR, EL1H)?;
    guest.words(0x4008_0004, &[NOP, LOOP])?;
    let exit = guest.vm().run_for_a_while()?;
    trial.same("exit", &exit, &Exit::Intr);
    trial.inject(&mut guest, &data_abort())?;
    let expected = Taken { esr: 0x9600_0010, far: 0x0a00_1008, elr: 0x4008_0008, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}
