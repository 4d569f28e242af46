//! SErrors: the guest takes an unmasked one at once; a masked one becomes pending.

use seawall_events::{Abi, Reg, VcpuEvents};

use super::{group, serror, serror_with};
use crate::backend::{Capability, Setup};
use crate::guest::words::{ESB, LOOP, MRS_X2_DISR, NOP, REPORT_X2, UNMASK_A};
use crate::guest::{EL0_A_CLEAR, EL1H, EL1H_A_CLEAR, Guest, Taken};
use crate::trial::{Outcome, Stop, Trial};

group! { "serror";
    unmasked_at_el1_it_is_taken_at_once_and_leaves_far needs Ras;
    without_an_esr_it_has_ids_alone;
    on_sp_el0_and_from_el0_it_has_their_vectors needs Ras;
    each_iss_bit needs Ras;
    an_esr_without_has_esr_does_not_count;
    masked_it_stays_pending_and_changes_nothing needs Ras;
    masked_at_el0_it_stays_pending needs Ras;
    masked_it_is_taken_when_a_run_unmasks_it needs Ras;
    masked_without_an_esr_it_is_taken_with_ids_alone;
    masked_at_el0_it_is_taken_when_the_host_unmasks_it needs Ras;
    the_last_of_two_that_are_masked_counts needs Ras;
    asking_for_none_does_not_cancel_it needs Ras;
    an_esb_puts_it_off_into_disr needs Ras;
}

/// A guest before its first run, with FAR_EL1 = 0x1234.
fn idle(trial: &Trial, setup: Setup, pstate: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(setup)?;
    guest.program(&[LOOP])?;
    guest.set(Reg::Pstate, pstate)?;
    guest.set(Reg::FarEl1, 0x1234)?;
    Ok(guest)
}

/// At `VBAR` + 0x380, from EL1h at CODE with A clear.
fn at_el1() -> Taken {
    Taken { pc: 0x4009_0380, far: 0x1234, spsr: 0x2c5, ..Taken::default() }
}

/// Golden vectors, measured on both QEMU and KVM: 0x100c11 gives ESR 0xbe100c11, 0x1000c11 gives 0xbf000c11.
fn unmasked_at_el1_it_is_taken_at_once_and_leaves_far(trial: &mut Trial) -> Outcome {
    for abi in Abi::ALL {
        for (iss, esr) in [(0x10_0c11, 0xbe10_0c11), (0x100_0c11, 0xbf00_0c11)] {
            trial.case(format!("{abi:?}, ISS {iss:#x}"));
            let mut guest = idle(trial, Setup { abi, ..Setup::default() }, EL1H_A_CLEAR)?;
            trial.inject(&mut guest, &serror_with(iss))?;
            trial.same("pending", &guest.events()?.serror_pending, &false);
            trial.delivered(&mut guest, &Taken { esr, ..at_el1() })?;
        }
    }
    Ok(())
}

/// ISS bit 24: implementation defined.
fn without_an_esr_it_has_ids_alone(trial: &mut Trial) -> Outcome {
    let mut guest = idle(trial, Setup::default(), EL1H_A_CLEAR)?;
    trial.inject(&mut guest, &serror())?;
    trial.delivered(&mut guest, &Taken { esr: 0xbf00_0000, ..at_el1() })
}

/// 0x180 and 0x580.
fn on_sp_el0_and_from_el0_it_has_their_vectors(trial: &mut Trial) -> Outcome {
    for (case, pstate, pc) in [("EL1t", 0x2c4, 0x4009_0180), ("EL0", EL0_A_CLEAR, 0x4009_0580)] {
        trial.case(case);
        let mut guest = idle(trial, Setup::default(), pstate)?;
        trial.inject(&mut guest, &serror_with(0x10_0c11))?;
        trial.delivered(&mut guest, &Taken { pc, esr: 0xbe10_0c11, spsr: pstate, ..at_el1() })?;
    }
    Ok(())
}

/// Bits 0 to 24, one at a time.
fn each_iss_bit(trial: &mut Trial) -> Outcome {
    #[rustfmt::skip]
    let cases = [
        (0x1, 0xbe00_0001), (0x2, 0xbe00_0002), (0x4, 0xbe00_0004), (0x8, 0xbe00_0008),
        (0x10, 0xbe00_0010), (0x20, 0xbe00_0020), (0x40, 0xbe00_0040), (0x80, 0xbe00_0080),
        (0x100, 0xbe00_0100), (0x200, 0xbe00_0200), (0x400, 0xbe00_0400), (0x800, 0xbe00_0800),
        (0x1000, 0xbe00_1000), (0x2000, 0xbe00_2000), (0x4000, 0xbe00_4000), (0x8000, 0xbe00_8000),
        (0x1_0000, 0xbe01_0000), (0x2_0000, 0xbe02_0000), (0x4_0000, 0xbe04_0000), (0x8_0000, 0xbe08_0000),
        (0x10_0000, 0xbe10_0000), (0x20_0000, 0xbe20_0000), (0x40_0000, 0xbe40_0000), (0x80_0000, 0xbe80_0000),
        (0x100_0000, 0xbf00_0000), (0, 0xbe00_0000), (0x1ff_ffff, 0xbfff_ffff),
    ];
    let mut guest = idle(trial, Setup::default(), EL1H_A_CLEAR)?;
    for (n, (iss, esr)) in cases.into_iter().enumerate() {
        trial.case(format!("ISS {iss:#x}"));
        if n > 0 {
            guest.restart(EL1H_A_CLEAR)?;
        }
        trial.inject(&mut guest, &serror_with(iss))?;
        trial.delivered(&mut guest, &Taken { esr, ..at_el1() })?;
    }
    Ok(())
}

/// The ESR is not even checked.
fn an_esr_without_has_esr_does_not_count(trial: &mut Trial) -> Outcome {
    for esr in [0x10_0c11, u64::MAX] {
        trial.case(format!("serror_esr {esr:#x}"));
        let mut guest = idle(trial, Setup::default(), EL1H_A_CLEAR)?;
        trial.inject(&mut guest, &VcpuEvents { serror_esr: esr, ..serror() })?;
        trial.delivered(&mut guest, &Taken { esr: 0xbf00_0000, ..at_el1() })?;
    }
    Ok(())
}

/// The state that must not change.
fn state(guest: &Guest) -> Result<[u64; 6], Stop> {
    let regs = [Reg::Pc, Reg::Pstate, Reg::EsrEl1, Reg::FarEl1, Reg::ElrEl1, Reg::SpsrEl1];
    let mut values = [0; 6];
    for (value, reg) in values.iter_mut().zip(regs) {
        *value = guest.get(reg)?;
    }
    Ok(values)
}

fn stays_pending(trial: &mut Trial, pstate: u64) -> Outcome {
    let mut guest = idle(trial, Setup::default(), pstate)?;
    let before = state(&guest)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR", &state(&guest)?, &before);
    trial.same("GET", &guest.events()?, &serror_with(0x10_0c11));
    Ok(())
}

/// PSTATE.A = 1 at EL1.
fn masked_it_stays_pending_and_changes_nothing(trial: &mut Trial) -> Outcome {
    stays_pending(trial, EL1H)
}

/// PSTATE.A = 1 at EL0.
fn masked_at_el0_it_stays_pending(trial: &mut Trial) -> Outcome {
    stays_pending(trial, 0x3c0)
}

/// Injects into a guest with SErrors masked, which then unmasks them and waits in a loop.
fn unmasking(trial: &mut Trial, events: &[VcpuEvents]) -> Result<Guest, Stop> {
    let mut guest = idle(trial, Setup::default(), EL1H)?;
    guest.program(&[NOP, UNMASK_A, LOOP])?;
    for events in events {
        trial.inject(&mut guest, events)?;
    }
    Ok(guest)
}

/// The state at the first instruction after the unmasking, by the guest's handler.
fn after_the_unmasking() -> Taken {
    Taken { elr: 0x4008_0008, ..at_el1() }
}

/// The CPU takes it, with VSESR's ISS.
fn masked_it_is_taken_when_a_run_unmasks_it(trial: &mut Trial) -> Outcome {
    let mut guest = unmasking(trial, &[serror_with(0x10_0c11)])?;
    trial.handled(&mut guest, &Taken { esr: 0xbe10_0c11, ..after_the_unmasking() })?;
    trial.same("pending", &guest.events()?.serror_pending, &false);
    Ok(())
}

/// VSESR is bit 24 alone. A host without RAS has no VSESR: the CPU chooses the ESR.
fn masked_without_an_esr_it_is_taken_with_ids_alone(trial: &mut Trial) -> Outcome {
    let mut guest = unmasking(trial, &[serror()])?;
    if trial.offers(Capability::Ras) {
        return trial.handled(&mut guest, &Taken { esr: 0xbf00_0000, ..after_the_unmasking() });
    }
    let report = guest.handler_report()?;
    trial.hex("vector, by the guest's handler", report.vector, 0x4009_0380);
    trial.hex("EC of ESR, by the guest's handler", report.esr >> 26, 0x2f);
    trial.hex("ELR, by the guest's handler", report.elr, 0x4008_0008);
    Ok(())
}

/// By SET_ONE_REG of PSTATE: before the first instruction.
fn masked_at_el0_it_is_taken_when_the_host_unmasks_it(trial: &mut Trial) -> Outcome {
    let mut guest = idle(trial, Setup::default(), 0x3c0)?;
    trial.inject(&mut guest, &serror_with(0x10_0c11))?;
    guest.set(Reg::Pstate, EL0_A_CLEAR)?;
    trial.handled(&mut guest, &Taken { pc: 0x4009_0580, esr: 0xbe10_0c11, spsr: 0x2c0, ..at_el1() })
}

/// There is room for only one.
fn the_last_of_two_that_are_masked_counts(trial: &mut Trial) -> Outcome {
    let mut guest = unmasking(trial, &[serror_with(0x10_0c11), serror_with(0x100_0000)])?;
    trial.hex("serror_esr, GET", guest.events()?.serror_esr, 0x100_0000);
    trial.handled(&mut guest, &Taken { esr: 0xbf00_0000, ..after_the_unmasking() })
}

/// SET with `serror_pending` 0.
fn asking_for_none_does_not_cancel_it(trial: &mut Trial) -> Outcome {
    let mut guest = unmasking(trial, &[serror_with(0x10_0c11), VcpuEvents::default()])?;
    trial.same("GET", &guest.events()?, &serror_with(0x10_0c11));
    trial.handled(&mut guest, &Taken { esr: 0xbe10_0c11, ..after_the_unmasking() })
}

/// DISR_EL1: A `[31]`, IDS and ISS. Then nothing is pending. DDI 0487, `AArch64.vESBOperation`.
fn an_esb_puts_it_off_into_disr(trial: &mut Trial) -> Outcome {
    let mut guest = unmasking(trial, &[serror_with(0xc11)])?;
    guest.program(&[ESB, MRS_X2_DISR, REPORT_X2, UNMASK_A, REPORT_X2])?;
    trial.hex("DISR_EL1", guest.reported()?, 0x8000_0c11);
    trial.same("pending", &guest.events()?.serror_pending, &false);
    trial.hex("X2, after the unmasking", guest.reported()?, 0x8000_0c11);
    Ok(())
}
