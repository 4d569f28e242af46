//! Every errno of `KVM_SET_VCPU_EVENTS`, in the order of its checks; a refusal leaves no trace. The group
//! `mainline` has the effects that mainline leaves.

use seawall_events::{Abi, Layout};

use super::{group, stopped_at};
use crate::backend::Setup;
use crate::guest::words::LDR;
use crate::guest::{EL1H, Guest, Level, Taken};
use crate::trial::{Outcome, Stop, Trial};

group! { "errno";
    enoexec_comes_before_anything_else needs UninitialisedVcpu;
    efault_for_bytes_that_cannot_be_read needs UnreadableEvents;
    enoexec_comes_before_efault needs UninitialisedVcpu, UnreadableEvents;
    mainline_einval_for_each_reserved_word;
    mainline_einval_for_each_pad_byte;
    extended_einval_for_each_reserved_word;
    extended_einval_for_each_pad_byte;
    extended_einval_for_both_aborts_at_once;
    extended_einval_for_an_abort_esr_outside_the_iss needs Ras;
    extended_einval_for_an_serror_esr_outside_the_iss_even_if_none_is_pending needs Ras;
    mainline_einval_for_an_serror_esr_outside_the_iss needs Ras;
    mainline_does_not_look_at_the_esr_of_an_serror_that_is_not_pending needs Ras;
    extended_einval_for_either_esr_without_ras_even_with_nothing_pending needs NoRas;
    mainline_einval_for_an_serror_esr_without_ras_only_if_one_is_pending needs NoRas;
    an_esr_with_nothing_pending_does_nothing needs Ras;
    any_byte_but_0_is_true needs Ras;
    nothing_asked_is_nothing_done;
}

const EINVAL: i32 = 22;
const ENOEXEC: i32 = 8;
const EFAULT: i32 = 14;

const POSTED: Abi = Abi::Extended(Layout::Posted);
const TRAILING: Abi = Abi::Extended(Layout::Trailing);

// Offsets of flags.
const SERROR_PENDING: usize = 0;
const SERROR_HAS_ESR: usize = 1;
const DABT_PENDING: usize = 2;
const IABT_PENDING: usize = 3;
const ABT_HAS_ESR: usize = 4;
/// Offset of `serror_esr`, 64 bits.
const SERROR_ESR: usize = 8;

/// 64 zero bytes except for these.
fn bytes(set: &[(usize, u8)]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (offset, value) in set {
        bytes[*offset] = *value;
    }
    bytes
}

fn with_u64(mut bytes: [u8; 64], offset: usize, value: u64) -> [u8; 64] {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Offset of `ext_abt_esr`.
fn abort_esr_at(abi: Abi) -> usize {
    if abi == TRAILING { 56 } else { 16 }
}

fn setup(abi: Abi) -> Setup {
    Setup { abi, ..Setup::default() }
}

fn state(guest: &mut Guest) -> Result<(Taken, [u8; 64]), Stop> {
    Ok((guest.taken(Level::El1)?, guest.vm().events_bytes()?))
}

/// A guest that waits for an MMIO load refuses each of these, and is unchanged.
fn refused(trial: &mut Trial, setup: Setup, cases: impl IntoIterator<Item = (String, [u8; 64])>) -> Outcome {
    let mut guest = stopped_at(trial, setup, LDR, EL1H)?;
    let before = state(&mut guest)?;
    for (case, bytes) in cases {
        trial.case(format!("{:?}, {case}", setup.abi));
        let set = guest.vm().set_events_bytes(&bytes);
        trial.errno("SET", set, EINVAL)?;
        trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR; GET", &state(&mut guest)?, &before);
    }
    Ok(())
}

/// On an initialised vCPU each of these would give EINVAL.
fn enoexec_comes_before_anything_else(trial: &mut Trial) -> Outcome {
    for abi in Abi::ALL {
        let mut guest = trial.guest(Setup { initialised: false, ..setup(abi) })?;
        for (case, bytes) in [
            ("nothing", bytes(&[])),
            ("a reserved word", bytes(&[(40, 1)])),
            ("a pad byte", bytes(&[(7, 1)])),
            ("both aborts", bytes(&[(DABT_PENDING, 1), (IABT_PENDING, 1)])),
            (
                "an ESR outside the ISS",
                with_u64(bytes(&[(SERROR_PENDING, 1), (SERROR_HAS_ESR, 1)]), SERROR_ESR, 1 << 25),
            ),
        ] {
            trial.case(format!("{abi:?}, {case}"));
            let set = guest.vm().set_events_bytes(&bytes);
            trial.errno("SET", set, ENOEXEC)?;
        }
        trial.case(format!("{abi:?}"));
        let get = guest.vm().events_bytes();
        trial.errno("GET", get, ENOEXEC)?;
    }
    Ok(())
}

/// A page that is not mapped.
fn efault_for_bytes_that_cannot_be_read(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, setup(Abi::Mainline), LDR, EL1H)?;
    let before = state(&mut guest)?;
    let set = guest.vm().set_events_unreadable();
    trial.errno("SET", set, EFAULT)?;
    trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR; GET", &state(&mut guest)?, &before);
    Ok(())
}

/// The bytes are not even read.
fn enoexec_comes_before_efault(trial: &mut Trial) -> Outcome {
    let mut guest = trial.guest(Setup { initialised: false, ..setup(Abi::Mainline) })?;
    let set = guest.vm().set_events_unreadable();
    trial.errno("SET", set, ENOEXEC)
}

/// Each with a data abort, which is not delivered. The bytes include the proposal's `ext_abt_esr`.
fn each_word(offsets: impl Iterator<Item = usize>) -> impl Iterator<Item = (String, [u8; 64])> {
    offsets.step_by(4).map(|at| (format!("word at {at}"), bytes(&[(DABT_PENDING, 1), (at + 3, 0x80)])))
}

fn each_byte(offsets: impl Iterator<Item = usize>) -> impl Iterator<Item = (String, [u8; 64])> {
    offsets.map(|at| (format!("byte at {at}"), bytes(&[(DABT_PENDING, 1), (at, 1)])))
}

/// 16 to 63.
fn mainline_einval_for_each_reserved_word(trial: &mut Trial) -> Outcome {
    refused(trial, setup(Abi::Mainline), each_word(16..64))
}

/// 3 to 7, which include the proposal's `ext_iabt_pending` and `ext_abt_has_esr`.
fn mainline_einval_for_each_pad_byte(trial: &mut Trial) -> Outcome {
    refused(trial, setup(Abi::Mainline), each_byte(3..8))
}

/// 24 to 63; 16 to 55 in the other layout.
fn extended_einval_for_each_reserved_word(trial: &mut Trial) -> Outcome {
    refused(trial, setup(POSTED), each_word(24..64))?;
    refused(trial, setup(TRAILING), each_word(16..56))
}

/// 5 to 7.
fn extended_einval_for_each_pad_byte(trial: &mut Trial) -> Outcome {
    refused(trial, setup(POSTED), each_byte(5..8))?;
    refused(trial, setup(TRAILING), each_byte(5..8))
}

/// Any other request does not matter.
fn extended_einval_for_both_aborts_at_once(trial: &mut Trial) -> Outcome {
    let both = [(DABT_PENDING, 1), (IABT_PENDING, 1)];
    for abi in [POSTED, TRAILING] {
        let cases = [
            ("both".to_owned(), bytes(&both)),
            ("and an SError".to_owned(), bytes(&[both[0], both[1], (SERROR_PENDING, 1)])),
        ];
        refused(trial, setup(abi), cases)?;
    }
    Ok(())
}

/// Each bit from 25 on, for either abort and with none.
fn extended_einval_for_an_abort_esr_outside_the_iss(trial: &mut Trial) -> Outcome {
    for abi in [POSTED, TRAILING] {
        let asked = [bytes(&[(DABT_PENDING, 1)]), bytes(&[(IABT_PENDING, 1)]), bytes(&[(SERROR_PENDING, 1)])];
        let cases = asked.into_iter().chain([bytes(&[])]).flat_map(|mut bytes| {
            bytes[ABT_HAS_ESR] = 1;
            let at = abort_esr_at(abi);
            (25..64).map(move |bit| (format!("bit {bit}"), with_u64(bytes, at, 1 << bit)))
        });
        refused(trial, setup(abi), cases)?;
    }
    Ok(())
}

/// Before the abort of the same call is delivered.
fn extended_einval_for_an_serror_esr_outside_the_iss_even_if_none_is_pending(trial: &mut Trial) -> Outcome {
    for abi in [POSTED, TRAILING] {
        let asked =
            [bytes(&[]), bytes(&[(SERROR_PENDING, 1)]), bytes(&[(SERROR_PENDING, 1), (DABT_PENDING, 1)])];
        let cases = asked.into_iter().flat_map(|mut bytes| {
            bytes[SERROR_HAS_ESR] = 1;
            (25..64).map(move |bit| (format!("bit {bit}"), with_u64(bytes, SERROR_ESR, 1 << bit)))
        });
        refused(trial, setup(abi), cases)?;
    }
    Ok(())
}

/// Golden vector, for each bit from 25 on.
fn mainline_einval_for_an_serror_esr_outside_the_iss(trial: &mut Trial) -> Outcome {
    let asked = bytes(&[(SERROR_PENDING, 1), (SERROR_HAS_ESR, 1)]);
    let cases = (25..64).map(|bit| (format!("bit {bit}"), with_u64(asked, SERROR_ESR, 1 << bit)));
    refused(trial, setup(Abi::Mainline), cases)
}

/// Step e of the kernel's order: it returns before the check.
fn mainline_does_not_look_at_the_esr_of_an_serror_that_is_not_pending(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, setup(Abi::Mainline), LDR, EL1H)?;
    let before = state(&mut guest)?;
    let set = guest.vm().set_events_bytes(&with_u64(bytes(&[(SERROR_HAS_ESR, 1)]), SERROR_ESR, u64::MAX));
    trial.errno("SET", set, 0)?;
    trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR; GET", &state(&mut guest)?, &before);
    Ok(())
}

/// The first of the proposal's checks.
fn extended_einval_for_either_esr_without_ras_even_with_nothing_pending(trial: &mut Trial) -> Outcome {
    for abi in [POSTED, TRAILING] {
        let cases = [
            ("serror_has_esr".to_owned(), bytes(&[(SERROR_HAS_ESR, 1)])),
            ("ext_abt_has_esr".to_owned(), bytes(&[(ABT_HAS_ESR, 1)])),
            ("with a data abort".to_owned(), bytes(&[(ABT_HAS_ESR, 1), (DABT_PENDING, 1)])),
            ("with an SError".to_owned(), bytes(&[(SERROR_HAS_ESR, 1), (SERROR_PENDING, 1)])),
        ];
        refused(trial, Setup { ras: false, ..setup(abi) }, cases)?;
    }
    Ok(())
}

/// Steps e and f.
fn mainline_einval_for_an_serror_esr_without_ras_only_if_one_is_pending(trial: &mut Trial) -> Outcome {
    let setup = Setup { ras: false, ..setup(Abi::Mainline) };
    let pending = bytes(&[(SERROR_HAS_ESR, 1), (SERROR_PENDING, 1)]);
    refused(trial, setup, [("pending".to_owned(), pending)])?;
    trial.case("not pending");
    let mut guest = stopped_at(trial, setup, LDR, EL1H)?;
    let set = guest.vm().set_events_bytes(&bytes(&[(SERROR_HAS_ESR, 1)]));
    trial.errno("SET", set, 0)
}

/// `ext_abt_has_esr` alone is accepted.
fn an_esr_with_nothing_pending_does_nothing(trial: &mut Trial) -> Outcome {
    for abi in [POSTED, TRAILING] {
        trial.case(format!("{abi:?}"));
        let mut guest = stopped_at(trial, setup(abi), LDR, EL1H)?;
        let before = state(&mut guest)?;
        let asked = with_u64(bytes(&[(ABT_HAS_ESR, 1), (SERROR_HAS_ESR, 1)]), abort_esr_at(abi), 0x600);
        let set = guest.vm().set_events_bytes(&asked);
        trial.errno("SET", set, 0)?;
        trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR; GET", &state(&mut guest)?, &before);
    }
    Ok(())
}

/// A C bool made from a u8.
fn any_byte_but_0_is_true(trial: &mut Trial) -> Outcome {
    let esr = |abi| if abi == Abi::Mainline { 0x9600_0010 } else { 0x9600_0210 };
    for abi in Abi::ALL {
        for value in [0x02, 0x80, 0xff] {
            trial.case(format!("{abi:?}, {value:#x}"));
            let mut guest = stopped_at(trial, setup(abi), LDR, EL1H)?;
            let mut asked = with_u64(
                bytes(&[(SERROR_PENDING, value), (SERROR_HAS_ESR, value), (DABT_PENDING, value)]),
                SERROR_ESR,
                0x10_0c11,
            );
            if abi != Abi::Mainline {
                asked[ABT_HAS_ESR] = value;
                asked = with_u64(asked, abort_esr_at(abi), 0x200);
            }
            let set = guest.vm().set_events_bytes(&asked);
            trial.errno("SET", set, 0)?;
            trial.taken(&guest, &Taken { esr: esr(abi), far: 0x0a00_1008, ..Taken::default() })?;
            let expected =
                with_u64(bytes(&[(SERROR_PENDING, 1), (SERROR_HAS_ESR, 1)]), SERROR_ESR, 0x10_0c11);
            trial.same("GET", &guest.vm().events_bytes()?, &expected);
        }
    }
    Ok(())
}

/// The waiting access goes on.
fn nothing_asked_is_nothing_done(trial: &mut Trial) -> Outcome {
    for abi in Abi::ALL {
        trial.case(format!("{abi:?}"));
        let mut guest = stopped_at(trial, setup(abi), LDR, EL1H)?;
        let before = state(&mut guest)?;
        let set = guest.vm().set_events_bytes(&[0; 64]);
        trial.errno("SET", set, 0)?;
        trial.same("PC, PSTATE, ESR, FAR, ELR, SPSR; GET", &state(&mut guest)?, &before);
        guest.vm().run_at_once()?;
        trial.hex("PC, after the access", guest.get(seawall_events::Reg::Pc)?, 0x4008_0004);
    }
    Ok(())
}
