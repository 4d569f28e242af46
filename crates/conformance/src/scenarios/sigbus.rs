//! Pages that the host knows to be bad: SIGBUS on the vCPU's thread, and the abort that the VMM injects for
//! it.

use seawall_events::{Reg, VcpuEvents};
use seawall_inject::Exit;

use super::{data_abort, group, instruction_abort, with_iss};
use crate::backend::Setup;
use crate::guest::words::{LDR, LDR_POST, MOV_X2_GOOD, REPORT_X2, RET_X3, STR};
use crate::guest::{
    DATA, DATA_EL0, DATA_EL1, EL0, EL1H, Guest, SPARE, SPARE_EL0, SPARE_EL1, Taken, USER_CODE,
};
use crate::trial::{Outcome, Stop, Trial};

group! { "sigbus";
    a_load needs HwPoison;
    a_load_at_el0 needs HwPoison;
    a_load_with_write_back needs HwPoison;
    a_load_with_the_mmu_off needs HwPoison;
    a_store needs HwPoison;
    a_store_with_wnr_replayed needs HwPoison, Ras;
    a_fetch needs HwPoison;
    a_fetch_at_el0 needs HwPoison, Ras;
    it_comes_again_and_again_until_the_page_is_another needs HwPoison;
    other_pages_are_as_good_as_ever needs HwPoison;
}

/// A guest with MMU on, PC at the program.
fn guest(trial: &Trial, program: &[u32], pstate: u64, address: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(program)?;
    guest.write(DATA + 0x48, 0x5555)?;
    guest.words(SPARE + 0x40, &[MOV_X2_GOOD, REPORT_X2])?;
    guest.mmu_on()?;
    guest.set(Reg::Pstate, pstate)?;
    if pstate == EL0 {
        guest.set(Reg::Pc, USER_CODE)?;
    }
    guest.set(Reg::X(1), address)?;
    guest.set(Reg::X(2), 0x1111)?;
    guest.set(Reg::X(3), address)?;
    Ok(guest)
}

/// Checks `BUS_MCEERR_AR`, the base of the page in this process, 12, and an unchanged PC.
fn sigbus(trial: &mut Trial, guest: &mut Guest, page: u64, pc: u64) -> Outcome {
    let host = guest.vm().host_address(page)?;
    match guest.run()? {
        Exit::Sigbus(sigbus) => {
            trial.hex("si_addr", sigbus.address, host);
            trial.same("si_addr_lsb", &sigbus.lsb, &12);
            trial.same("BUS_MCEERR_AR", &sigbus.action_required, &true);
        }
        exit => return Err(Stop::Error(format!("expected SIGBUS, got {exit:x?}"))),
    }
    trial.hex("PC", guest.get(Reg::Pc)?, pc);
    trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
    Ok(())
}

/// Bad page, SIGBUS twice, the abort; then a fresh page with the lost content, and the guest goes on.
fn lived_through(
    trial: &mut Trial,
    guest: &mut Guest,
    (page, restored): (u64, &[u32]),
    events: &VcpuEvents,
    handler: &Taken,
) -> Result<u64, Stop> {
    guest.vm().hwpoison(page)?;
    sigbus(trial, guest, page, handler.elr)?;
    sigbus(trial, guest, page, handler.elr)?;
    trial.inject(guest, events)?;
    trial.delivered(guest, handler)?;
    guest.vm().remap(page)?;
    guest.words(page + 0x40, restored)?;
    guest.reported()
}

/// Replaces DATA + 0x40: 0x600d at + 0x48.
const DATA_AGAIN: (u64, &[u32]) = (DATA, &[0, 0, 0x600d]);
/// Replaces SPARE + 0x40.
const CODE_AGAIN: (u64, &[u32]) = (SPARE, &[MOV_X2_GOOD, REPORT_X2]);

fn at_el0() -> Taken {
    Taken { pc: 0x4009_0400, elr: 0x2_0000_0000, spsr: 0x3c0, ..Taken::default() }
}

/// FAR is the exact address, although `si_addr` is the page.
fn a_load(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LDR, REPORT_X2], EL1H, DATA_EL1 + 0x48)?;
    let handler = Taken { esr: 0x9600_0010, far: 0xffff_ff80_0000_1048, ..Taken::default() };
    let x2 = lived_through(trial, &mut guest, DATA_AGAIN, &data_abort(), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    Ok(())
}

/// ESR 0x92000010.
fn a_load_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LDR, REPORT_X2], EL0, DATA_EL0 + 0x48)?;
    let handler = Taken { esr: 0x9200_0010, far: 0xffff_ff82_0000_1048, ..at_el0() };
    let x2 = lived_through(trial, &mut guest, DATA_AGAIN, &data_abort(), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    Ok(())
}

/// The base is written back when the load finally completes, not before.
fn a_load_with_write_back(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LDR_POST, REPORT_X2], EL1H, DATA_EL1 + 0x48)?;
    let handler = Taken { esr: 0x9600_0010, far: 0xffff_ff80_0000_1048, ..Taken::default() };
    let x2 = lived_through(trial, &mut guest, DATA_AGAIN, &data_abort(), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    trial.hex("X1", guest.get(Reg::X(1))?, 0xffff_ff80_0000_1050);
    Ok(())
}

/// Golden vector.
fn a_load_with_the_mmu_off(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LDR, REPORT_X2])?;
    guest.write(DATA + 0x48, 0x5555)?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.set(Reg::X(2), 0x1111)?;
    let handler = Taken { esr: 0x9600_0010, far: 0x4020_0048, ..Taken::default() };
    let x2 = lived_through(trial, &mut guest, DATA_AGAIN, &data_abort(), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    Ok(())
}

/// A store faults like a load; the ESR does not tell them apart.
fn a_store(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[STR, REPORT_X2], EL1H, DATA_EL1 + 0x48)?;
    let handler = Taken { esr: 0x9600_0010, far: 0xffff_ff80_0000_1048, ..Taken::default() };
    lived_through(trial, &mut guest, DATA_AGAIN, &data_abort(), &handler)?;
    trial.hex("what was stored", guest.read(DATA + 0x48)?, 0x1111);
    Ok(())
}

/// With WnR in the ISS the guest's handler can tell them apart.
fn a_store_with_wnr_replayed(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[STR, REPORT_X2], EL0, DATA_EL0 + 0x48)?;
    let handler = Taken { esr: 0x9200_0050, far: 0xffff_ff82_0000_1048, ..at_el0() };
    lived_through(trial, &mut guest, DATA_AGAIN, &with_iss(0x40, data_abort()), &handler)?;
    trial.hex("what was stored", guest.read(DATA + 0x48)?, 0x1111);
    Ok(())
}

/// It becomes an instruction abort. The code comes back, and runs.
fn a_fetch(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[RET_X3], EL1H, SPARE_EL1 + 0x40)?;
    let far = 0xffff_ff80_0000_2040;
    let handler = Taken { esr: 0x8600_0010, far, elr: far, ..Taken::default() };
    let x2 = lived_through(trial, &mut guest, CODE_AGAIN, &instruction_abort(), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    Ok(())
}

/// With an ISS: EA.
fn a_fetch_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[RET_X3], EL0, SPARE_EL0 + 0x40)?;
    let far = 0xffff_ff82_0000_2040;
    let handler = Taken { esr: 0x8200_0210, far, elr: far, ..at_el0() };
    let x2 = lived_through(trial, &mut guest, CODE_AGAIN, &with_iss(0x200, instruction_abort()), &handler)?;
    trial.hex("X2, by the guest", x2, 0x600d);
    Ok(())
}

/// Nothing is pending.
fn it_comes_again_and_again_until_the_page_is_another(trial: &mut Trial) -> Outcome {
    let mut guest = guest(trial, &[LDR, REPORT_X2], EL1H, DATA_EL1 + 0x48)?;
    guest.vm().hwpoison(DATA)?;
    for _ in 0..5 {
        sigbus(trial, &mut guest, DATA, 0x4008_0000)?;
    }
    guest.vm().remap(DATA)?;
    trial.hex("X2, by the guest", guest.reported()?, 0);
    Ok(())
}

/// The next page.
fn other_pages_are_as_good_as_ever(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LDR, REPORT_X2])?;
    guest.write(DATA, 0x5555)?;
    guest.write(DATA + 0x1000, 0x600d)?;
    guest.set(Reg::X(1), DATA + 0x1000)?;
    guest.vm().hwpoison(DATA)?;
    trial.hex("X2, by the guest", guest.reported()?, 0x600d);
    Ok(())
}
