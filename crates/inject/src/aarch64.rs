//! Aborts of AArch64 EL1 and of virtual EL2.

use crate::Delivery;
use seawall_arm::{Esr, ExceptionLevel, Pstate, Reg, Target};

use crate::injector::{Asked, Bytes, Entered};
use crate::vcpu::{get, set, set_events};
use crate::{GuestKind, InjectError, KvmVcpu, Last};

/// `ESR_ELx`.
pub(crate) const fn esr(target: Target) -> Reg {
    match target {
        Target::El1 => Reg::EsrEl1,
        Target::El2 => Reg::EsrEl2,
    }
}

/// The guest at the first instruction of its handler, with `pc` at `target`, whose handler reads this ESR.
pub(crate) fn at_vector(
    vcpu: &impl KvmVcpu,
    target: Target,
    pc: u64,
    esr: u64,
) -> Result<Delivery, InjectError> {
    let far = match target {
        Target::El1 => Reg::FarEl1,
        Target::El2 => Reg::FarEl2,
    };
    Ok(Delivery::AtVector { target, pc, esr: Esr::from_bits(esr), far: get(vcpu, far)? })
}

/// For a vCPU with EL2: the level that took the kernel's exception.
pub(crate) fn taker(vcpu: &impl KvmVcpu) -> Result<Target, InjectError> {
    let pstate = Pstate::from_bits(get(vcpu, Reg::Pstate)?);
    let is_el2 = pstate.exception_level() == ExceptionLevel::El2;
    Ok(if is_el2 { Target::El2 } else { Target::El1 })
}

/// Lets the kernel deliver the abort of these bytes.
pub(crate) fn abort(
    vcpu: &impl KvmVcpu,
    guest: GuestKind,
    last: Last,
    made: Asked,
    bytes: &Bytes,
) -> Result<Option<Entered>, InjectError> {
    let is_nested = guest == GuestKind::Nested;
    match last {
        Last::NoWalk => {
            set_events(vcpu, bytes)?;
            let target = if is_nested { taker(vcpu).map_err(InjectError::degraded)? } else { Target::El1 };
            Ok(Some(Entered { target, esr: None, pc: None, far: None }))
        }
        Last::Any => {
            let takers: &[Target] = if is_nested { &[Target::El2, Target::El1] } else { &[Target::El1] };
            let taken = deliver_if_any(vcpu, takers, made, bytes)?;
            Ok(taken.map(|(target, esr)| Entered { target, esr: Some(esr), pc: None, far: None }))
        }
    }
}

/// Turns the kernel's own data abort into the requested one.
pub(crate) fn rewrite(vcpu: &impl KvmVcpu, entered: &mut Entered, asked: Asked) -> Result<(), InjectError> {
    let register = esr(entered.target);
    let kernels = entered.esr.map_or_else(|| get(vcpu, register), Ok).map_err(InjectError::degraded)?;
    if !Asked::PLAIN.may_be(kernels) {
        return Err(InjectError::Unexpected { register, found: kernels });
    }
    let wanted = asked.esr(kernels);
    set(vcpu, register, wanted).map_err(InjectError::degraded)?;
    entered.esr = Some(wanted);
    Ok(())
}

/// Delivers, and finds the level that took the abort, and its ESR, by the ESR that the kernel wrote.
fn deliver_if_any(
    vcpu: &impl KvmVcpu,
    takers: &[Target],
    made: Asked,
    bytes: &Bytes,
) -> Result<Option<(Target, u64)>, InjectError> {
    // At most one mark for each level: two.
    let mut marks = [None; 2];
    let put_and_deliver = |marks: &mut [Option<Mark>; 2]| {
        for (mark, target) in marks.iter_mut().zip(takers) {
            *mark = Some(Mark::put(vcpu, esr(*target), made)?);
        }
        set_events(vcpu, bytes)
    };
    if let Err(error) = put_and_deliver(&mut marks) {
        marks.iter().flatten().try_for_each(|mark| mark.remove(vcpu))?;
        return Err(error);
    }
    let mut taken = None;
    for (mark, target) in marks.iter_mut().zip(takers) {
        let esr = get(vcpu, esr(*target)).map_err(InjectError::degraded)?;
        if mark.is_some_and(|mark| mark.marked() != esr) {
            (*mark, taken) = (None, Some((*target, esr)));
            break;
        }
    }
    let removed = marks.iter().flatten().try_for_each(|mark| mark.remove(vcpu));
    removed.map_err(|error| if taken.is_some() { error.degraded() } else { error })?;
    Ok(taken)
}

/// A mark that shows if the kernel wrote an ESR: a value that the kernel could also write now gets a bit that
/// the kernel would not set. If the mark stays, it means nothing to the guest in an ESR of a stock kernel.
#[derive(Clone, Copy)]
struct Mark {
    register: Reg,
    before: u64,
    is_needed: bool,
}

impl Mark {
    /// Bit 0 of SRT, which has no meaning while ISV is 0. Source: DDI 0487, `ISS encoding for an exception
    /// from a Data Abort`.
    const BIT: u64 = 1 << 16;

    fn put(vcpu: &impl KvmVcpu, register: Reg, made: Asked) -> Result<Self, InjectError> {
        let before = get(vcpu, register)?;
        let mark = Self { register, before, is_needed: made.may_be(before) };
        if mark.is_needed {
            set(vcpu, register, mark.marked())?;
        }
        Ok(mark)
    }

    fn marked(self) -> u64 {
        if self.is_needed { self.before ^ Self::BIT } else { self.before }
    }

    fn remove(self, vcpu: &impl KvmVcpu) -> Result<(), InjectError> {
        if self.is_needed { set(vcpu, self.register, self.before) } else { Ok(()) }
    }
}
