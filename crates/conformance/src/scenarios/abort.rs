//! External aborts as the kernel builds them: class, address, vector, and the state at entry.

use seawall_events::{Abi, Reg};

use super::{data_abort, group, instruction_abort, stop_again, stopped_at};
use crate::backend::Setup;
use crate::guest::words::{LDP, LDR, LDR_POST, LDR_PRE, LDRB, LDRSW, STP, STR, STR_POST, STRB};
use crate::guest::{EL0, EL1H, EL1H_A_CLEAR, EL1T, SCTLR, Taken};
use crate::trial::{Outcome, Trial};

group! { "abort";
    a_data_abort_at_el1;
    a_data_abort_at_el1_on_sp_el0;
    a_data_abort_at_el0;
    a_data_abort_at_el0_in_aarch32_state needs Aarch32El0;
    an_instruction_abort_at_el1;
    an_instruction_abort_at_el1_on_sp_el0;
    an_instruction_abort_at_el0;
    an_instruction_abort_at_el0_in_aarch32_state needs Aarch32El0;
    an_abort_asks_no_mask;
    each_kind_of_access_is_left_undone;
    pstate_at_entry_keeps_some_fields_and_sets_the_rest;
    an_abort_in_the_handler_comes_on_top;
}

/// Golden vector, measured on Linux 7.2.13: ESR 0x96000010, FAR the VA, `VBAR` + 0x200, PSTATE 0x3c5.
fn a_data_abort_at_el1(trial: &mut Trial) -> Outcome {
    for abi in Abi::ALL {
        trial.case(format!("{abi:?}"));
        let mut guest = stopped_at(trial, Setup { abi, ..Setup::default() }, LDR, EL1H)?;
        trial.inject(&mut guest, &data_abort())?;
        trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() })?;
    }
    Ok(())
}

/// Vector offset 0x000: current EL with SP_EL0. DDI 0487, "Exception vectors".
fn a_data_abort_at_el1_on_sp_el0(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1T)?;
    trial.inject(&mut guest, &data_abort())?;
    let expected =
        Taken { pc: 0x4009_0000, esr: 0x9600_0010, far: 0x0a00_1008, spsr: 0x3c4, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// Golden vector: ESR 0x92000010, `VBAR` + 0x400, SPSR 0x3c0.
fn a_data_abort_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL0)?;
    trial.inject(&mut guest, &data_abort())?;
    let expected =
        Taken { pc: 0x4009_0400, esr: 0x9200_0010, far: 0x0a00_1008, spsr: 0x3c0, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// `ldr r2, [r1]`, A32.
const A32_LDR: u32 = 0xe591_2000;
/// PSTATE: AArch32 User mode, A, I and F masked.
const USR: u64 = 0x1d0;

/// Vector offset 0x600: lower EL in AArch32 state.
fn a_data_abort_at_el0_in_aarch32_state(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), A32_LDR, USR)?;
    trial.inject(&mut guest, &data_abort())?;
    let expected =
        Taken { pc: 0x4009_0600, esr: 0x9200_0010, far: 0x0a00_1008, spsr: 0x1d0, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// EC 0x21, from the fields of the golden vector 0x86000010.
fn an_instruction_abort_at_el1(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &instruction_abort())?;
    trial.delivered(&mut guest, &Taken { esr: 0x8600_0010, far: 0x0a00_1008, ..Taken::default() })
}

/// Vector offset 0x000.
fn an_instruction_abort_at_el1_on_sp_el0(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1T)?;
    trial.inject(&mut guest, &instruction_abort())?;
    let expected =
        Taken { pc: 0x4009_0000, esr: 0x8600_0010, far: 0x0a00_1008, spsr: 0x3c4, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// EC 0x20: golden vector 0x82000010.
fn an_instruction_abort_at_el0(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL0)?;
    trial.inject(&mut guest, &instruction_abort())?;
    let expected =
        Taken { pc: 0x4009_0400, esr: 0x8200_0010, far: 0x0a00_1008, spsr: 0x3c0, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// Vector offset 0x600.
fn an_instruction_abort_at_el0_in_aarch32_state(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), A32_LDR, USR)?;
    trial.inject(&mut guest, &instruction_abort())?;
    let expected =
        Taken { pc: 0x4009_0600, esr: 0x8200_0010, far: 0x0a00_1008, spsr: 0x1d0, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}

/// PSTATE.A neither delays an SEA, nor must it be set for a delivery.
fn an_abort_asks_no_mask(trial: &mut Trial) -> Outcome {
    for (pstate, case) in [(EL1H, "A set"), (EL1H_A_CLEAR, "A clear")] {
        trial.case(case);
        let mut guest = stopped_at(trial, Setup::default(), LDR, pstate)?;
        trial.inject(&mut guest, &data_abort())?;
        let expected = Taken { esr: 0x9600_0010, far: 0x0a00_1008, spsr: pstate, ..Taken::default() };
        trial.delivered(&mut guest, &expected)?;
    }
    Ok(())
}

/// ELR is the access, of any kind; no register is loaded, no base is written back.
fn each_kind_of_access_is_left_undone(trial: &mut Trial) -> Outcome {
    for (word, name, far) in [
        (LDR, "ldr x2, [x1]", 0x0a00_1008),
        (LDRB, "ldrb w2, [x1]", 0x0a00_1008),
        (LDRSW, "ldrsw x2, [x1]", 0x0a00_1008),
        (STR, "str x2, [x1]", 0x0a00_1008),
        (STRB, "strb w2, [x1]", 0x0a00_1008),
        (LDR_POST, "ldr x2, [x1], #8", 0x0a00_1008),
        (STR_POST, "str x2, [x1], #8", 0x0a00_1008),
        (LDP, "ldp x2, x3, [x1]", 0x0a00_1008),
        (STP, "stp x2, x3, [x1]", 0x0a00_1008),
    ] {
        trial.case(name);
        let mut guest = stopped_at(trial, Setup::default(), word, EL1H)?;
        trial.inject(&mut guest, &data_abort())?;
        trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far, ..Taken::default() })?;
        trial.hex("X1", guest.get(Reg::X(1))?, 0x0a00_1008);
        trial.hex("X2", guest.get(Reg::X(2))?, 0x1111);
        trial.hex("X3", guest.get(Reg::X(3))?, 0x2222);
    }
    trial.case("ldr x2, [x1, #8]!");
    let mut guest = trial.guest(Setup::default())?;
    guest.program(&[LDR_PRE])?;
    guest.set(Reg::X(1), 0x0a00_1000)?;
    guest.run_to_nisv()?;
    trial.inject(&mut guest, &data_abort())?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, far: 0x0a00_1008, ..Taken::default() })?;
    trial.hex("X1", guest.get(Reg::X(1))?, 0x0a00_1000);
    Ok(())
}

/// SPAN and DSSBS of `SCTLR_EL1`.
const SPAN: u64 = 1 << 23;
const DSSBS: u64 = 1 << 44;

/// NZCV and DIT kept; PAN kept, or set if SPAN is 0; UAO, SS, IL, BTYPE 0; SSBS from DSSBS; D, A, I, F set.
/// SPSR is PSTATE as it was. DDI 0487, `AArch64.TakeException`.
fn pstate_at_entry_keeps_some_fields_and_sets_the_rest(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    for (case, before, sctlr, after) in [
        ("NZCV", 0xf000_03c5, SCTLR, 0xf000_03c5),
        ("DIT", 0x0100_03c5, SCTLR, 0x0100_03c5),
        ("PAN, SPAN set", 0x0040_03c5, SCTLR, 0x0040_03c5),
        ("no PAN, SPAN set", 0x0000_03c5, SCTLR, 0x0000_03c5),
        ("no PAN, SPAN clear", 0x0000_03c5, SCTLR & !SPAN, 0x0040_03c5),
        ("UAO", 0x0080_03c5, SCTLR, 0x0000_03c5),
        ("SS", 0x0020_03c5, SCTLR, 0x0000_03c5),
        ("IL", 0x0010_03c5, SCTLR, 0x0000_03c5),
        ("BTYPE", 0x0000_0fc5, SCTLR, 0x0000_03c5),
        ("SSBS, DSSBS clear", 0x0000_13c5, SCTLR, 0x0000_03c5),
        ("no SSBS, DSSBS set", 0x0000_03c5, SCTLR | DSSBS, 0x0000_13c5),
        ("DAIF clear", 0x0000_0005, SCTLR, 0x0000_03c5),
        ("EL0, all of these", 0xf1f0_1c00, SCTLR, 0xf140_03c5),
    ] {
        trial.case(case);
        guest.restart(EL1H)?;
        guest.set(Reg::SctlrEl1, SCTLR)?;
        stop_again(&mut guest)?;
        guest.set(Reg::SctlrEl1, sctlr)?;
        guest.set(Reg::Pstate, before)?;
        trial.inject(&mut guest, &data_abort())?;
        trial.hex("PSTATE", guest.get(Reg::Pstate)?, after);
        trial.hex("SPSR", guest.get(Reg::SpsrEl1)?, before);
    }
    Ok(())
}

/// ELR and SPSR are then the handler's; the address is still that of the last exit.
fn an_abort_in_the_handler_comes_on_top(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL0)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.inject(&mut guest, &instruction_abort())?;
    let expected =
        Taken { esr: 0x8600_0010, far: 0x0a00_1008, elr: 0x4009_0400, spsr: 0x3c5, ..Taken::default() };
    trial.delivered(&mut guest, &expected)
}
