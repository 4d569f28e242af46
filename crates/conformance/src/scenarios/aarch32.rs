//! Guests whose EL1 is in AArch32 state: FSR, FAR, `LR_abt`, vector and CPSR.
//!
//! `ESR_EL1` is DFSR, `IFSR32_EL2` is IFSR, `FAR_EL1` is IFAR in `[63:32]` and DFAR in `[31:0]`, `X20` is `LR_abt`.

use seawall_events::{Abi, Reg, VcpuEvents};
use seawall_inject::Exit;

use super::{data_abort, group, instruction_abort, serror, serror_with, with_iss};
use crate::backend::{El1, Setup};
use crate::guest::{DATA, Guest, HOLE, SPARE};
use crate::trial::{Outcome, Stop, Trial};

group! { "aarch32";
    a_data_abort needs Aarch32El1;
    a_prefetch_abort needs Aarch32El1;
    with_eae_the_fsr_is_in_lpae_form needs Aarch32El1;
    from_user_mode needs Aarch32El1;
    from_abort_mode_lr_and_spsr_are_overwritten needs Aarch32El1;
    from_t32_the_offsets_are_the_same needs Aarch32El1;
    cpsr_keeps_some_fields_and_takes_the_rest_from_sctlr needs Aarch32El1;
    sctlr_v_puts_the_vectors_high needs Aarch32El1;
    an_esr_is_ignored needs Aarch32El1, Ras;
    the_waiting_load_is_dropped needs Aarch32El1;
    a_masked_serror_is_taken_when_a_run_unmasks_it needs Aarch32El1, Ras;
    an_unmasked_serror_is_lost_after_dfsr_was_overwritten needs Aarch32El1, Ras;
    before_the_first_run_an_abort_is_delivered_as_well needs Aarch32El1;
    before_the_first_run_mainline_loses_an_abort_after_it_wrote_dfsr_and_dfar needs Aarch32El1;
    before_the_first_run_mainline_takes_an_unmasked_serror_to_aarch64 needs Aarch32El1, Ras;
    an_abort_and_a_masked_serror_in_one_call needs Aarch32El1, Ras;
    errnos_are_the_same needs Aarch32El1, Ras;
    a_load_from_bad_memory_exits_and_is_replayed needs Aarch32El1, Poison;
    a_fetch_from_bad_memory_exits_and_is_replayed needs Aarch32El1, Poison;
    a_load_from_a_page_known_to_be_bad needs Aarch32El1, HwPoison;
}

/// `ldr r2, [r1]`
const LDR: u32 = 0xe591_2000;
/// `bx r3`
const BX_R3: u32 = 0xe12f_ff13;
/// `cpsie a`
const UNMASK_A: u32 = 0xf108_0100;
/// `nop`
const NOP: u32 = 0xe320_f000;
/// `b .`
const LOOP: u32 = 0xeaff_fffe;
/// T32: `ldr r2, [r1]`, then `b .`
const T32_LDR: u32 = 0xe7fe_680a;

/// CPSR: Supervisor mode, A, I and F masked.
const SVC: u64 = 0x1d3;
/// SCTLR: RES1 bits, SPAN.
const SCTLR: u64 = 0x00c5_0078;
/// TTBCR.EAE
const EAE: u64 = 1 << 31;

fn setup() -> Setup {
    Setup { el1: El1::Aarch32, ..Setup::default() }
}

/// At the first instruction of a handler in Abort mode.
#[derive(Clone, Copy)]
struct Taken {
    pc: u64,
    cpsr: u64,
    dfsr: u64,
    ifsr: u64,
    dfar: u64,
    ifar: u64,
    lr: u64,
    spsr: u64,
}

/// DFSR, IFSR, DFAR and IFAR before: an abort keeps those that it does not write.
const BEFORE: [u64; 4] = [0x55, 0x66, 0x7777, 0x8888];

/// A data abort at [`LDR`] at CODE in Supervisor mode.
const DATA_ABORT: Taken = Taken {
    pc: 0x4009_0010,
    cpsr: 0x1d7,
    dfsr: 0x08,
    ifsr: 0x66,
    dfar: 0x0a00_1008,
    ifar: 0x8888,
    lr: 0x4008_0008,
    spsr: 0x1d3,
};

/// A prefetch abort of the same.
const PREFETCH_ABORT: Taken = Taken {
    pc: 0x4009_000c,
    cpsr: 0x1d7,
    dfsr: 0x55,
    ifsr: 0x08,
    dfar: 0x7777,
    ifar: 0x0a00_1008,
    lr: 0x4008_0004,
    spsr: 0x1d3,
};

/// A guest that stopped at its first instruction, a load from HOLE + 8.
fn stopped(trial: &Trial, setup: Setup, program: &[u32], cpsr: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(setup)?;
    guest.program(program)?;
    mark(&mut guest, cpsr)?;
    guest.set(Reg::X(1), HOLE + 8)?;
    match guest.run()? {
        Exit::Mmio(mmio) if mmio.phys_addr == HOLE + 8 => Ok(guest),
        exit => Err(Stop::Error(format!("expected the load, got {exit:x?}"))),
    }
}

fn mark(guest: &mut Guest, cpsr: u64) -> Outcome {
    let [dfsr, ifsr, dfar, ifar] = BEFORE;
    guest.set(Reg::EsrEl1, dfsr)?;
    guest.set(Reg::Ifsr32, ifsr)?;
    guest.set(Reg::FarEl1, ifar << 32 | dfar)?;
    guest.set(Reg::X(2), 0x1111)?;
    guest.set(Reg::Pstate, cpsr)
}

/// Checks the state by `KVM_GET_ONE_REG`.
fn taken(trial: &mut Trial, guest: &Guest, expected: &Taken) -> Outcome {
    for (field, reg, value) in [
        ("PC", Reg::Pc, expected.pc),
        ("CPSR", Reg::Pstate, expected.cpsr),
        ("DFSR", Reg::EsrEl1, expected.dfsr),
        ("IFSR", Reg::Ifsr32, expected.ifsr),
        ("IFAR and DFAR", Reg::FarEl1, expected.ifar << 32 | expected.dfar),
        ("LR_abt", Reg::X(20), expected.lr),
        ("SPSR_abt", Reg::SpsrAbt, expected.spsr),
    ] {
        trial.hex(field, guest.get(reg)?, value);
    }
    Ok(())
}

/// Checks the report of the guest's own handler. SPSR is left out: QEMU's software CPU (10.0) does not load
/// it from `SPSR_abt` when it enters Abort mode by an ERET from EL2, so in the lab the handler reads an old
/// value.
fn handled(trial: &mut Trial, guest: &mut Guest, expected: &Taken) -> Outcome {
    let report = guest.handler_report32()?;
    for (field, got, value) in [
        ("vector, by the guest's handler", report.vector, expected.pc),
        ("CPSR, by the guest's handler", report.cpsr, expected.cpsr),
        ("DFSR, by the guest's handler", report.dfsr, expected.dfsr),
        ("IFSR, by the guest's handler", report.ifsr, expected.ifsr),
        ("DFAR, by the guest's handler", report.dfar, expected.dfar),
        ("IFAR, by the guest's handler", report.ifar, expected.ifar),
        ("LR, by the guest's handler", report.lr, expected.lr),
    ] {
        trial.hex(field, got, value);
    }
    Ok(())
}

fn delivered(trial: &mut Trial, guest: &mut Guest, expected: &Taken) -> Outcome {
    taken(trial, guest, expected)?;
    handled(trial, guest, expected)
}

/// DFSR 0x08, DFAR, LR_abt = PC + 8, vector 16.
fn a_data_abort(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
    trial.inject(&mut guest, &data_abort())?;
    delivered(trial, &mut guest, &DATA_ABORT)
}

/// IFSR 0x08, IFAR, LR_abt = PC + 4, vector 12.
fn a_prefetch_abort(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
    trial.inject(&mut guest, &instruction_abort())?;
    delivered(trial, &mut guest, &PREFETCH_ABORT)
}

/// Bit 9 and STATUS 0x10.
fn with_eae_the_fsr_is_in_lpae_form(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in [
        ("data", data_abort(), Taken { dfsr: 0x210, ..DATA_ABORT }),
        ("prefetch", instruction_abort(), Taken { ifsr: 0x210, ..PREFETCH_ABORT }),
    ] {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        guest.set(Reg::TcrEl1, EAE)?;
        trial.inject(&mut guest, &events)?;
        delivered(trial, &mut guest, &expected)?;
    }
    Ok(())
}

/// SPSR shows the source; nothing else differs.
fn from_user_mode(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in
        [("data", data_abort(), DATA_ABORT), ("prefetch", instruction_abort(), PREFETCH_ABORT)]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], 0x110)?;
        trial.inject(&mut guest, &events)?;
        delivered(trial, &mut guest, &Taken { cpsr: 0x197, spsr: 0x110, ..expected })?;
    }
    Ok(())
}

/// Two aborts, one during the other.
fn from_abort_mode_lr_and_spsr_are_overwritten(trial: &mut Trial) -> Outcome {
    let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
    trial.inject(&mut guest, &data_abort())?;
    trial.inject(&mut guest, &instruction_abort())?;
    let expected = Taken { dfsr: 0x08, dfar: 0x0a00_1008, lr: 0x4009_0014, spsr: 0x1d7, ..PREFETCH_ABORT };
    delivered(trial, &mut guest, &expected)
}

/// 8 and 4, though the instruction has 2 bytes.
fn from_t32_the_offsets_are_the_same(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in
        [("data", data_abort(), DATA_ABORT), ("prefetch", instruction_abort(), PREFETCH_ABORT)]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[T32_LDR], 0x1f3)?;
        trial.inject(&mut guest, &events)?;
        delivered(trial, &mut guest, &Taken { spsr: 0x1f3, ..expected })?;
    }
    Ok(())
}

/// NZCV, Q, GE, DIT, PAN and F kept; IT, IL, SS and the old E and T gone; A and I set; E, T, SSBS, PAN by SCTLR's
/// EE (25), TE (30), DSSBS (31), SPAN (23). SPSR_abt has DIT at 21.
fn cpsr_keeps_some_fields_and_takes_the_rest_from_sctlr(trial: &mut Trial) -> Outcome {
    for (case, before, sctlr, after, spsr) in [
        ("NZCV", 0xf000_0013, SCTLR, 0xf000_0197, 0xf000_0013),
        ("Q, GE", 0x080f_0013, SCTLR, 0x080f_0197, 0x080f_0013),
        ("DIT", 0x0100_0013, SCTLR, 0x0100_0197, 0x0020_0013),
        ("PAN", 0x0040_0013, SCTLR, 0x0040_0197, 0x0040_0013),
        ("F", 0x0000_0053, SCTLR, 0x0000_01d7, 0x0000_0053),
        ("IT, E, T", 0x0600_fe33, SCTLR, 0x0000_0197, 0x0600_fe33),
        ("EE", 0x0000_0013, SCTLR | 1 << 25, 0x0000_0397, 0x0000_0013),
        ("TE", 0x0000_0013, SCTLR | 1 << 30, 0x0000_01b7, 0x0000_0013),
        ("DSSBS", 0x0000_0013, SCTLR | 1 << 31, 0x0080_0197, 0x0000_0013),
        ("SPAN clear", 0x0000_0013, SCTLR & !(1 << 23), 0x0040_0197, 0x0000_0013),
    ] {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        guest.set(Reg::SctlrEl1, sctlr)?;
        guest.set(Reg::Pstate, before)?;
        trial.inject(&mut guest, &instruction_abort())?;
        taken(trial, &guest, &Taken { cpsr: after, spsr, ..PREFETCH_ABORT })?;
    }
    Ok(())
}

/// 0xffff000c and 0xffff0010.
fn sctlr_v_puts_the_vectors_high(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in [
        ("data", data_abort(), Taken { pc: 0xffff_0010, ..DATA_ABORT }),
        ("prefetch", instruction_abort(), Taken { pc: 0xffff_000c, ..PREFETCH_ABORT }),
    ] {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        guest.set(Reg::SctlrEl1, SCTLR | 1 << 13)?;
        trial.inject(&mut guest, &events)?;
        taken(trial, &guest, &expected)?;
    }
    Ok(())
}

/// As the proposal says.
fn an_esr_is_ignored(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in
        [("data", data_abort(), DATA_ABORT), ("prefetch", instruction_abort(), PREFETCH_ABORT)]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        trial.inject(&mut guest, &with_iss(0x1ff_ffff, events))?;
        delivered(trial, &mut guest, &expected)?;
    }
    Ok(())
}

/// R2 keeps its value, PC is not stepped.
fn the_waiting_load_is_dropped(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in
        [("data", data_abort(), DATA_ABORT), ("prefetch", instruction_abort(), PREFETCH_ABORT)]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        trial.inject(&mut guest, &events)?;
        guest.vm().answer_mmio([0x55; 8]);
        guest.vm().run_at_once()?;
        taken(trial, &guest, &expected)?;
        trial.hex("R2", guest.get(Reg::X(2))?, 0x1111);
    }
    Ok(())
}

/// By the CPU: an asynchronous abort, FS 0b10110, or STATUS 0b010001 in LPAE form; AET and ExT of the ESR. DFAR is
/// not written. DDI 0487, `AArch32.TakeVirtualSErrorException`.
fn a_masked_serror_is_taken_when_a_run_unmasks_it(trial: &mut Trial) -> Outcome {
    for (case, ttbcr, dfsr) in [("short", 0, 0xd406), ("LPAE", EAE, 0xd211)] {
        trial.case(case);
        let mut guest = trial.guest(setup())?;
        guest.program(&[NOP, UNMASK_A, LOOP])?;
        mark(&mut guest, SVC)?;
        guest.set(Reg::TcrEl1, ttbcr)?;
        trial.inject(&mut guest, &serror_with(0xd000))?;
        trial.same("pending", &guest.events()?.serror_pending, &true);
        let expected = Taken { dfsr, dfar: 0x7777, lr: 0x4008_0010, spsr: 0xd3, ..DATA_ABORT };
        handled(trial, &mut guest, &expected)?;
        trial.same("pending, after it was taken", &guest.events()?.serror_pending, &false);
    }
    Ok(())
}

/// A quirk of Linux: it has no AArch32 entry for an SError.
fn an_unmasked_serror_is_lost_after_dfsr_was_overwritten(trial: &mut Trial) -> Outcome {
    for abi in [Abi::Mainline, setup().abi] {
        trial.case(format!("{abi:?}"));
        let mut guest = stopped(trial, Setup { abi, ..setup() }, &[LDR, LOOP], 0xd3)?;
        trial.inject(&mut guest, &serror_with(0x11))?;
        trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
        trial.hex("CPSR", guest.get(Reg::Pstate)?, 0xd3);
        trial.hex("DFSR", guest.get(Reg::EsrEl1)?, 0xbe00_0011);
        trial.same("pending", &guest.events()?.serror_pending, &false);
        // The waiting load was still dropped: it is made again.
        trial.hex("phys_addr of the next exit", guest.run_to_mmio()?.phys_addr, 0x0a00_1008);
    }
    Ok(())
}

/// A guest before its first run: the address is 0.
fn fresh(trial: &Trial, setup: Setup, cpsr: u64) -> Result<Guest, Stop> {
    let mut guest = trial.guest(setup)?;
    guest.program(&[LOOP])?;
    mark(&mut guest, cpsr)?;
    Ok(guest)
}

/// The extended ABI does not depend on a first run.
fn before_the_first_run_an_abort_is_delivered_as_well(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in [
        ("data", data_abort(), Taken { dfar: 0, ..DATA_ABORT }),
        ("prefetch", instruction_abort(), Taken { ifar: 0, ..PREFETCH_ABORT }),
    ] {
        trial.case(case);
        let mut guest = fresh(trial, setup(), SVC)?;
        trial.inject(&mut guest, &events)?;
        delivered(trial, &mut guest, &expected)?;
    }
    Ok(())
}

/// A quirk of Linux, measured: before the first run its exception entry takes EL1 for AArch64, and has none
/// for this.
fn before_the_first_run_mainline_loses_an_abort_after_it_wrote_dfsr_and_dfar(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, Setup { abi: Abi::Mainline, ..setup() }, SVC)?;
    let set = guest.vm().inject(&data_abort());
    trial.errno("SET", set, 0)?;
    trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
    trial.hex("CPSR", guest.get(Reg::Pstate)?, 0x1d3);
    trial.hex("DFSR", guest.get(Reg::EsrEl1)?, 0x08);
    trial.hex("IFAR and DFAR", guest.get(Reg::FarEl1)?, 0x8888_0000_0000);
    Ok(())
}

/// The same for SErrors: the guest gets into a state that it does not have.
fn before_the_first_run_mainline_takes_an_unmasked_serror_to_aarch64(trial: &mut Trial) -> Outcome {
    let mut guest = fresh(trial, Setup { abi: Abi::Mainline, ..setup() }, 0xd3)?;
    trial.inject(&mut guest, &serror_with(0x11))?;
    trial.hex("PC", guest.get(Reg::Pc)?, 0x4009_0780);
    trial.hex("PSTATE", guest.get(Reg::Pstate)?, 0x3c5);
    trial.hex("ESR_EL1", guest.get(Reg::EsrEl1)?, 0xbe00_0011);
    Ok(())
}

/// The abort is taken, the SError stays.
fn an_abort_and_a_masked_serror_in_one_call(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in
        [("data", data_abort(), DATA_ABORT), ("prefetch", instruction_abort(), PREFETCH_ABORT)]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        trial.inject(&mut guest, &VcpuEvents { serror_pending: true, ..events })?;
        trial.same("pending", &guest.events()?.serror_pending, &true);
        delivered(trial, &mut guest, &expected)?;
    }
    Ok(())
}

/// Both aborts; an ESR outside the ISS, which would be ignored.
fn errnos_are_the_same(trial: &mut Trial) -> Outcome {
    let both = VcpuEvents { ext_iabt_pending: true, ..data_abort() };
    for (case, events) in
        [("both", both), ("an ESR", with_iss(1 << 25, data_abort())), ("an SError", serror_with(1 << 25))]
    {
        trial.case(case);
        let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
        let set = guest.vm().inject(&events);
        trial.errno("SET", set, 22)?;
        trial.hex("PC", guest.get(Reg::Pc)?, 0x4008_0000);
        trial.same("GET", &guest.events()?, &VcpuEvents { serror_pending: false, ..serror_with(0) });
    }
    trial.case("an SError without an ESR, masked");
    let mut guest = stopped(trial, setup(), &[LDR], SVC)?;
    trial.inject(&mut guest, &serror())?;
    trial.same("GET", &guest.events()?, &serror_with(0x100_0000));
    Ok(())
}

/// The exit's syndrome is that of AArch64, because it is taken to EL2.
fn sea(trial: &mut Trial, guest: &mut Guest, esr: u64, gva: u64) -> Outcome {
    let Exit::Sea(sea) = guest.run()? else {
        return Err(Stop::Error("expected a SEA exit".into()));
    };
    trial.hex("flags", sea.flags, 1);
    trial.hex("esr", sea.esr.bits(), esr);
    trial.hex("gva", sea.gva, gva);
    trial.hex("gpa", sea.gpa, gva & !0xfff);
    Ok(())
}

/// DFAR is exact.
fn a_load_from_bad_memory_exits_and_is_replayed(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(setup())?;
    guest.program(&[LDR])?;
    mark(&mut guest, SVC)?;
    guest.set(Reg::X(1), DATA + 0x48)?;
    guest.vm().poison(DATA + 0x40)?;
    sea(trial, &mut guest, 0x9200_0210, 0x4020_0048)?;
    trial.inject(&mut guest, &with_iss(0x210, data_abort()))?;
    delivered(trial, &mut guest, &Taken { dfar: 0x4020_0048, ..DATA_ABORT })
}

/// IFAR is exact. LR_abt is 4 beyond it.
fn a_fetch_from_bad_memory_exits_and_is_replayed(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(setup())?;
    guest.program(&[BX_R3])?;
    mark(&mut guest, SVC)?;
    guest.set(Reg::X(3), SPARE + 0x40)?;
    guest.vm().poison(SPARE + 0x40)?;
    sea(trial, &mut guest, 0x8200_0210, 0x4030_0040)?;
    trial.inject(&mut guest, &with_iss(0x210, instruction_abort()))?;
    let expected = Taken { ifar: 0x4030_0040, lr: 0x4030_0044, ..PREFETCH_ABORT };
    delivered(trial, &mut guest, &expected)
}

/// SIGBUS, then DFAR.
fn a_load_from_a_page_known_to_be_bad(trial: &mut Trial) -> Outcome {
    for (case, events, expected) in [
        ("data", data_abort(), Taken { dfar: 0x4020_0048, ..DATA_ABORT }),
        ("prefetch", instruction_abort(), Taken { ifar: 0x4020_0048, ..PREFETCH_ABORT }),
    ] {
        trial.case(case);
        let mut guest = trial.guest(setup())?;
        guest.program(&[LDR])?;
        guest.write(DATA + 0x48, 0x5555)?;
        mark(&mut guest, SVC)?;
        guest.set(Reg::X(1), DATA + 0x48)?;
        guest.vm().hwpoison(DATA)?;
        match guest.run()? {
            Exit::Sigbus(sigbus) => trial.same("BUS_MCEERR_AR", &sigbus.action_required, &true),
            exit => return Err(Stop::Error(format!("expected SIGBUS, got {exit:x?}"))),
        }
        trial.inject(&mut guest, &events)?;
        delivered(trial, &mut guest, &expected)?;
    }
    Ok(())
}
