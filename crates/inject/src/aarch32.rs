//! Aborts of AArch32 EL1. `FAR_EL1` is `IFAR` and `DFAR`, `ESR_EL1` is `DFSR`, `X20` is `LR_abt`.
//!
//! A vCPU that never ran gets no delivery: until its first run Linux's exception entry takes its EL1 for
//! AArch64, and drops the abort after it wrote FSR and FAR.

use crate::Delivery;
use seawall_arm::{Esr, Reg, Target};

use crate::injector::{Asked, Bytes, Entered};
use crate::vcpu::{get, set, set_events};
use crate::{InjectError, KvmVcpu};

const LOW: u64 = 0xffff_ffff;
/// `LR_abt` after a data abort is PC plus this.
const AFTER_DATA: u32 = 8;
/// `LR_abt` after a prefetch abort is PC plus this.
const AFTER_PREFETCH: u32 = 4;

/// Returns true if a vCPU, now at `pc`, entered an abort at `before`. A vCPU whose vector is itself bad does
/// not move.
fn is_delivered(
    before: u64,
    pc: u64,
    after: u32,
    lr: impl FnOnce() -> Result<u64, InjectError>,
) -> Result<bool, InjectError> {
    Ok(pc != before || lr()? as u32 == (before as u32).wrapping_add(after))
}

/// The abort that the kernel makes.
pub(crate) fn own_abort(
    vcpu: &impl KvmVcpu,
    asked: Asked,
    bytes: &Bytes,
) -> Result<Option<Entered>, InjectError> {
    let before = get(vcpu, Reg::Pc)?;
    set_events(vcpu, bytes)?;
    let pc = get(vcpu, Reg::Pc).map_err(InjectError::degraded)?;
    let after = if asked.is_instruction { AFTER_PREFETCH } else { AFTER_DATA };
    let is_delivered = is_delivered(before, pc, after, || get(vcpu, Reg::X(20)));
    let entered = Entered { target: Target::El1, esr: None, pc: Some(pc), far: None };
    Ok(is_delivered.map_err(InjectError::degraded)?.then_some(entered))
}

/// Turns the data abort of a stock kernel into a prefetch abort.
pub(crate) fn prefetch_abort(vcpu: &impl KvmVcpu, dabt: &Bytes) -> Result<Option<Entered>, InjectError> {
    const TURNED: [Reg; 4] = [Reg::X(20), Reg::Pc, Reg::FarEl1, Reg::EsrEl1];
    let (far, dfsr) = (get(vcpu, Reg::FarEl1)?, get(vcpu, Reg::EsrEl1)?);
    let before = get(vcpu, Reg::Pc)?;
    set_events(vcpu, dabt)?;
    let delivered = |reg| get(vcpu, reg).map_err(InjectError::degraded);
    let (lr, pc) = (delivered(Reg::X(20))?, delivered(Reg::Pc)?);
    if !is_delivered(before, pc, AFTER_DATA, || Ok(lr))? {
        set(vcpu, Reg::FarEl1, far).map_err(InjectError::degraded)?;
        set(vcpu, Reg::EsrEl1, dfsr).map_err(InjectError::degraded)?;
        return Ok(None);
    }
    let (ifar, fsr) = (delivered(Reg::FarEl1)?, delivered(Reg::EsrEl1)?);
    let less_4 = |address: u64| u64::from((address as u32).wrapping_sub(4));
    let wanted = [less_4(lr), less_4(pc), ifar << 32 | far & LOW, dfsr];
    set(vcpu, Reg::Ifsr32, fsr).map_err(InjectError::degraded)?;
    for (n, (reg, value)) in TURNED.into_iter().zip(wanted).enumerate() {
        if let Err(error) = set(vcpu, reg, value) {
            // Back to the kernel's data abort: a half-changed abort would be unsound.
            for (reg, value) in TURNED.into_iter().zip([lr, pc, ifar, fsr]).take(n) {
                set(vcpu, reg, value).map_err(InjectError::degraded)?;
            }
            return Err(error.degraded());
        }
    }
    let (esr, pc, far) = (Some(fsr), Some(less_4(pc)), Some(ifar & LOW));
    Ok(Some(Entered { target: Target::El1, esr, pc, far }))
}

/// The guest at the first instruction of its handler.
pub(crate) fn at_vector(
    vcpu: &impl KvmVcpu,
    asked: Asked,
    entered: Entered,
) -> Result<Delivery, InjectError> {
    let fsr = if asked.is_instruction { Reg::Ifsr32 } else { Reg::EsrEl1 };
    let far = || -> Result<u64, InjectError> {
        let far = get(vcpu, Reg::FarEl1)?;
        Ok(if asked.is_instruction { far >> 32 } else { far & LOW })
    };
    Ok(Delivery::AtVector {
        target: entered.target,
        pc: entered.pc.map_or_else(|| get(vcpu, Reg::Pc), Ok)?,
        esr: Esr::from_bits(entered.esr.map_or_else(|| get(vcpu, fsr), Ok)?),
        far: entered.far.map_or_else(far, Ok)?,
    })
}
