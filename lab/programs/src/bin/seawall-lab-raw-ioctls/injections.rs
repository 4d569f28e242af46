//! The effect of a call on an AArch64 guest, for each ABI.

use crate::bytes::{Abi, DABT, Events, IABT, NOTHING, SERROR};
use crate::raw::Answer;
use crate::report::{Not, Outcome, Report, expect, expect_call};
use crate::vcpu::{PC, VBAR, Vm, at_el1, reg};

const EL0: u64 = 0x000;
const EL1_SP_EL0: u64 = 0x3c4;
const EL1: u64 = 0x3c5;
/// PSTATE.A is clear.
const EL1_UNMASKED: u64 = 0x2c5;
/// An AArch32 process.
const USR: u64 = 0x010;

const EINVAL: Answer = Err(22);

/// The guest is at its handler: `ESR_EL1`, and the distance from `VBAR_EL1`.
type Taken = Option<(u64, u64)>;

struct Case {
    name: &'static str,
    pstate: u64,
    events: Events,
    mainline: (Answer, Taken),
    extended: (Answer, Taken),
}

pub(crate) fn cases(abi: Abi, report: &mut Report) {
    for case in table(abi) {
        report.case(case.name, run(abi, &case));
    }
    report.case("an SError in one call with an abort stays pending, with its ESR", both_kinds(abi));
    report.case("an SError alone is the kernel's", serror_alone());
}

fn table(abi: Abi) -> Vec<Case> {
    let case = |name, pstate, events, mainline, extended| Case { name, pstate, events, mainline, extended };
    let refused = (EINVAL, None);
    let taken = |esr, offset| (Ok(0), Some((esr, offset)));
    let nothing = (Ok(0), None);
    let both = |name, pstate, events, result| case(name, pstate, events, result, result);
    let extended = |name, pstate, events, result| case(name, pstate, events, refused, result);
    let bad_serror = DABT.byte(0, 1).serror_esr(1 << 25);
    vec![
        both("a call that asks for nothing", EL1, NOTHING, nothing),
        both("a data abort at EL1", EL1, DABT, taken(0x9600_0010, 0x200)),
        both("a data abort at EL1 with SP_EL0", EL1_SP_EL0, DABT, taken(0x9600_0010, 0x000)),
        both("a data abort at EL0", EL0, DABT, taken(0x9200_0010, 0x400)),
        both("a data abort in an AArch32 process", USR, DABT, taken(0x9200_0010, 0x600)),
        both("a flag is any byte that is not zero", EL1, NOTHING.byte(2, 0x80), taken(0x9600_0010, 0x200)),
        extended("an instruction abort at EL1", EL1, IABT, taken(0x8600_0010, 0x200)),
        extended("an instruction abort at EL1 with SP_EL0", EL1_SP_EL0, IABT, taken(0x8600_0010, 0x000)),
        extended("an instruction abort at EL0", EL0, IABT, taken(0x8200_0010, 0x400)),
        extended("an instruction abort in an AArch32 process", USR, IABT, taken(0x8200_0010, 0x600)),
        extended(
            "an instruction abort with an ISS",
            EL1,
            IABT.abort_esr(abi, 0x100_0600),
            taken(0x8700_0610, 0x200),
        ),
        extended("a data abort with an ISS", EL1, DABT.abort_esr(abi, 0x1c0_c700), taken(0x97c0_c710, 0x200)),
        extended(
            "a data abort at EL0 with an ISS",
            EL0,
            DABT.abort_esr(abi, 0x200),
            taken(0x9200_0210, 0x400),
        ),
        extended(
            "an instruction abort with every bit of the ISS",
            EL1,
            IABT.abort_esr(abi, 0x1ff_ffff),
            taken(0x87ff_ffff, 0x200),
        ),
        extended("an ISS of 0", EL1, DABT.abort_esr(abi, 0), taken(0x9600_0010, 0x200)),
        extended(
            "flags of the proposal are any byte that is not zero",
            EL1,
            NOTHING.byte(3, 0xff).abort_esr(abi, 0x200).byte(4, 0xff),
            taken(0x8600_0210, 0x200),
        ),
        extended(
            "ext_abt_esr does not count without ext_abt_has_esr",
            EL1,
            IABT.stray_abort_esr(abi, u64::MAX),
            taken(0x8600_0010, 0x200),
        ),
        extended(
            "neither does it for a data abort",
            EL1,
            DABT.stray_abort_esr(abi, 0x200),
            taken(0x9600_0010, 0x200),
        ),
        extended("an ESR with nothing pending", EL1, NOTHING.abort_esr(abi, 0x200), nothing),
        both("both aborts at once", EL1, DABT.byte(3, 1), refused),
        both("ext_abt_esr with bit 25", EL1, IABT.abort_esr(abi, 1 << 25), refused),
        both("ext_abt_esr with bit 63", EL1, DABT.abort_esr(abi, 1 << 63), refused),
        both("ext_abt_esr with bit 32, nothing pending", EL1, NOTHING.abort_esr(abi, 1 << 32), refused),
        case(
            "serror_esr outside the ISS: mainline has delivered the data abort by then",
            EL1,
            bad_serror,
            (EINVAL, Some((0x9600_0010, 0x200))),
            refused,
        ),
        case(
            "serror_esr outside the ISS, nothing pending: mainline does not look",
            EL1,
            NOTHING.serror_esr(1 << 25),
            nothing,
            refused,
        ),
    ]
}

fn run(abi: Abi, case: &Case) -> Outcome {
    let vm = Vm::new()?;
    let vcpu = vm.vcpu(0, 0)?;
    match vcpu.put(case.pstate) {
        Err(_) if case.pstate == USR => return Err(Not::Run("this CPU has no AArch32 at EL0".into())),
        put => put?,
    }
    let (answer, taken) = if abi.is_extended() { case.extended } else { case.mainline };
    expect_call("the call", vcpu.set_events(case.events), answer)?;
    match taken {
        None => {
            vcpu.expect(&[("PC", reg::PC, PC), ("PSTATE", reg::PSTATE, case.pstate), ("ESR", reg::ESR, 0)])
        }
        Some((esr, offset)) => vcpu.expect(&[
            ("ESR", reg::ESR, esr),
            ("PC", reg::PC, VBAR + offset),
            ("ELR", reg::ELR, PC),
            ("PSTATE", reg::PSTATE, EL1),
            ("FAR", reg::FAR, 0),
        ]),
    }
}

fn both_kinds(abi: Abi) -> Outcome {
    let (abort, esr) =
        if abi.is_extended() { (IABT.abort_esr(abi, 0x200), 0x8600_0210) } else { (DABT, 0x9600_0010) };
    let (_vm, vcpu) = at_el1()?;
    let events = abort.byte(0, 1).serror_esr(0x10_0c11);
    expect_call("the call", vcpu.set_events(events), Ok(0))?;
    vcpu.expect(&[("ESR", reg::ESR, esr), ("PC", reg::PC, VBAR + 0x200)])?;
    let (pending, has_esr, serror_esr) = vcpu.get_events()?.serror();
    expect("serror_pending", pending.into(), 1)?;
    expect("serror_has_esr", has_esr.into(), 1)?;
    expect("serror_esr", serror_esr, 0x10_0c11)
}

fn serror_alone() -> Outcome {
    let (_vm, vcpu) = at_el1()?;
    expect_call("a masked one", vcpu.set_events(SERROR.serror_esr(0x10_0c11)), Ok(0))?;
    vcpu.expect(&[("PC", reg::PC, PC)])?;
    expect("serror_pending", vcpu.get_events()?.serror().0.into(), 1)?;
    let vm = Vm::new()?;
    let vcpu = vm.vcpu(0, 0)?;
    vcpu.put(EL1_UNMASKED)?;
    expect_call("an unmasked one", vcpu.set_events(SERROR.serror_esr(0x10_0c11)), Ok(0))?;
    vcpu.expect(&[("ESR", reg::ESR, 0xbe10_0c11), ("PC", reg::PC, VBAR + 0x380)])
}
