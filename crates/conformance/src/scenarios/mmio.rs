//! Accesses that wait for the VMM when the abort comes: they are dropped, not retired.

use seawall_events::{MmioExit, Reg};
use seawall_inject::Exit;

use super::{data_abort, group, instruction_abort, serror, stopped_at};
use crate::backend::Setup;
use crate::guest::words::{LDP, LDR, LDR_POST, LOOP, NOP, REPORT_X2, STP, STR, STR_POST};
use crate::guest::{EL1H, EL1H_A_CLEAR, HOLE, Taken};
use crate::trial::{Outcome, Trial};

group! { "mmio";
    a_load_is_completed_with_the_answer;
    a_store_carries_its_data;
    an_abort_drops_the_waiting_load;
    an_abort_drops_the_waiting_store;
    an_instruction_abort_drops_it_too;
    after_the_handler_the_access_is_made_again;
    a_run_that_exits_at_once_completes_the_waiting_access_first;
    a_dropped_access_is_not_completed_by_a_run_that_exits_at_once;
    an_unmasked_serror_drops_the_waiting_access;
    a_masked_serror_leaves_it_to_complete;
    an_access_without_a_syndrome_is_a_nisv_exit;
    an_abort_after_a_nisv_exit_leaves_the_instruction_undone;
    without_the_nisv_exit_the_run_fails_with_enosys;
}

/// The exit of [`LDR`].
const LOAD: Exit = Exit::Mmio(MmioExit { phys_addr: HOLE + 8, data: [0; 8], len: 8, is_write: false });

/// X2 is the answer, PC the next instruction.
fn a_load_is_completed_with_the_answer(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LDR, REPORT_X2])?;
    guest.set(Reg::X(1), HOLE + 8)?;
    trial.exit(&mut guest, &LOAD)?;
    trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
    guest.vm().answer_mmio(0x1122_3344_5566_7788_u64.to_le_bytes());
    trial.hex("X2, by the guest", guest.reported()?, 0x1122_3344_5566_7788);
    Ok(())
}

/// Little-endian, from byte 0.
fn a_store_carries_its_data(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[STR])?;
    guest.set(Reg::X(1), HOLE + 8)?;
    guest.set(Reg::X(2), 0x1122_3344_5566_7788)?;
    let data = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    trial.exit(&mut guest, &Exit::Mmio(MmioExit { phys_addr: HOLE + 8, data, len: 8, is_write: true }))
}

/// A data abort of the access at which the guest stopped.
fn abort() -> Taken {
    Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() }
}

/// The answer comes too late: X2 keeps its value.
fn an_abort_drops_the_waiting_load(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &data_abort())?;
    guest.vm().answer_mmio([0x55; 8]);
    trial.delivered(&mut guest, &abort())?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// ELR is the store, not the instruction after it.
fn an_abort_drops_the_waiting_store(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), STR, EL1H)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &abort())
}

/// The kind of abort does not matter.
fn an_instruction_abort_drops_it_too(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &instruction_abort())?;
    guest.vm().answer_mmio([0x55; 8]);
    trial.delivered(&mut guest, &Taken { esr: 0x8600_0010, ..abort() })?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// The same exit, and this time the access completes.
fn after_the_handler_the_access_is_made_again(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    guest.words(0x4008_0004, &[REPORT_X2])?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &abort())?;
    trial.exit(&mut guest, &LOAD)?;
    guest.vm().answer_mmio(9_u64.to_le_bytes());
    trial.hex("X2, by the guest", guest.reported()?, 9);
    Ok(())
}

/// `immediate_exit`.
fn a_run_that_exits_at_once_completes_the_waiting_access_first(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    guest.vm().answer_mmio(9_u64.to_le_bytes());
    trial.hex("PC, before", guest.get(Reg::Pc)?, 0x4008_0000);
    let exit = guest.vm().run_at_once()?;
    trial.same("exit", &exit, &Exit::Intr);
    trial.hex("PC, after", guest.get(Reg::Pc)?, 0x4008_0004);
    trial.hex("X2, after", guest.get(Reg::X(2))?, 9);
    Ok(())
}

/// There is nothing left to complete.
fn a_dropped_access_is_not_completed_by_a_run_that_exits_at_once(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &data_abort())?;
    guest.vm().answer_mmio([0x55; 8]);
    let exit = guest.vm().run_at_once()?;
    trial.same("exit", &exit, &Exit::Intr);
    trial.taken(&guest, &abort())?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// Any committed exception drops it.
fn an_unmasked_serror_drops_the_waiting_access(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H_A_CLEAR)?;
    guest.set(Reg::FarEl1, 0x1234)?;
    trial.inject(&mut guest, &serror())?;
    guest.vm().answer_mmio([0x55; 8]);
    let expected = Taken { pc: 0x4009_0380, esr: 0xbf00_0000, far: 0x1234, spsr: 0x2c5, ..Taken::default() };
    trial.delivered(&mut guest, &expected)?;
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// Nothing is committed: the load retires.
fn a_masked_serror_leaves_it_to_complete(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    guest.words(0x4008_0004, &[NOP, REPORT_X2, LOOP])?;
    trial.inject(&mut guest, &serror())?;
    guest.vm().answer_mmio(9_u64.to_le_bytes());
    trial.hex("X2, by the guest", guest.reported()?, 9);
    trial.same("pending", &guest.events()?.serror_pending, &true);
    Ok(())
}

/// ISV 0: the address, WnR, and a translation fault (its level concerns only the host).
fn an_access_without_a_syndrome_is_a_nisv_exit(trial: &mut Trial) -> Outcome {
    for (word, name, iss) in [
        (LDR_POST, "ldr x2, [x1], #8", 0x04),
        (STR_POST, "str x2, [x1], #8", 0x44),
        (LDP, "ldp x2, x3, [x1]", 0x04),
        (STP, "stp x2, x3, [x1]", 0x44),
    ] {
        trial.case(name);
        let mut guest = trial.guest(Setup::default())?;
        guest.program(&[word])?;
        guest.set(Reg::X(1), HOLE + 8)?;
        let nisv = guest.run_to_nisv()?;
        trial.hex("fault_ipa", nisv.fault_ipa, 0x0a00_1008);
        trial.hex("esr_iss, without the level", nisv.esr_iss & !3, iss);
        trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
    }
    Ok(())
}

/// Then the handler returns, and the instruction is executed again.
fn an_abort_after_a_nisv_exit_leaves_the_instruction_undone(trial: &mut Trial) -> Outcome {
    for (word, name) in [(LDR_POST, "ldr x2, [x1], #8"), (STP, "stp x2, x3, [x1]")] {
        trial.case(name);
        let mut guest = stopped_at(trial, Setup::default(), word, EL1H)?;
        trial.inject(&mut guest, &data_abort())?;
        trial.delivered(&mut guest, &abort())?;
        trial.hex("X1", guest.get(Reg::X(1))?, 0x0a00_1008);
        trial.hex("fault_ipa, again", guest.run_to_nisv()?.fault_ipa, 0x0a00_1008);
    }
    Ok(())
}

/// PC does not move; an abort can still be injected.
fn without_the_nisv_exit_the_run_fails_with_enosys(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup { nisv_to_user: false, ..Setup::default() })?;
    guest.program(&[LDP])?;
    guest.set(Reg::X(1), HOLE + 8)?;
    let ran = guest.vm().run();
    trial.errno("KVM_RUN", ran, 38)?;
    trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &abort())
}
