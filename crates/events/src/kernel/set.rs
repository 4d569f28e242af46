//! `KVM_SET_VCPU_EVENTS` and `KVM_GET_VCPU_EVENTS`.

use seawall_arm::Esr;

use super::inject::{self, Abort};
use super::{AbortDelivery, SErrorDelivery, VcpuState};
use crate::wire::VCPU_EVENTS_SIZE;
use crate::{Abi, Refusal, Refused, VcpuEvents};

/// The ISS of an SError that came without an ESR: IDS alone, "implementation defined".
const SERROR_ISS_IDS: u64 = 1 << 24;

/// What a call did to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Applied {
    /// The external abort, if one was asked for.
    pub abort: Option<AbortDelivery>,
    /// The SError, if one was asked for.
    pub serror: Option<SErrorDelivery>,
}

/// `KVM_SET_VCPU_EVENTS`: validates, injects, commits.
///
/// [`Abi::Extended`] checks everything first: after an error the vCPU is as it was. [`Abi::Mainline`]
/// delivers the abort first and looks at the SError's arguments only then, and only if one is pending.
/// The abort comes before the SError; its entry sets PSTATE.A, so the SError normally stays pending.
///
/// Source: api.rst, `KVM_SET_VCPU_EVENTS`; the proposal of 2025-07-31.
///
/// # Errors
/// [`Refused`], with the errno in [`Refusal::errno`].
pub fn set_events(vcpu: &mut impl VcpuState, abi: Abi, events: &VcpuEvents) -> Result<Applied, Refused> {
    if !vcpu.is_initialised() {
        return Err(Refusal::NotInitialised.into());
    }
    match abi {
        // From bytes these would be pad and reserved, and come here as EINVAL already.
        Abi::Mainline if events.ext_iabt_pending || events.ext_abt_has_esr || events.ext_abt_esr != 0 => {
            return Err(Refusal::NotInMainline.into());
        }
        Abi::Mainline => {}
        Abi::Extended(_) => check_extended(vcpu.config().ras, events)?,
    }
    let mut applied = Applied::default();
    if events.ext_dabt_pending || events.ext_iabt_pending {
        let iss = if events.ext_abt_has_esr { events.ext_abt_esr } else { 0 };
        let abort = Abort { is_instruction: events.ext_iabt_pending, iss };
        applied.abort = Some(inject::external_abort(vcpu, abort));
    }
    if !events.serror_pending {
        return Ok(applied);
    }
    if let Err(refusal) = check_serror(vcpu, events) {
        let abort_delivered = matches!(applied.abort, Some(AbortDelivery::Delivered(_)));
        return Err(Refused { refusal, abort_delivered });
    }
    let iss = if events.serror_has_esr { events.serror_esr } else { SERROR_ISS_IDS };
    applied.serror = Some(inject::serror(vcpu, iss));
    Ok(applied)
}

/// [`set_events`] from the bytes of the system call. `copy_in` is asked for them after the vCPU was
/// found initialised, as the kernel does; `None` is a fault.
///
/// # Errors
/// As [`set_events`]; also EFAULT, and EINVAL for reserved words and pad bytes.
pub fn set_events_bytes(
    vcpu: &mut impl VcpuState,
    abi: Abi,
    copy_in: impl FnOnce() -> Option<[u8; VCPU_EVENTS_SIZE]>,
) -> Result<Applied, Refused> {
    if !vcpu.is_initialised() {
        return Err(Refusal::NotInitialised.into());
    }
    let bytes = copy_in().ok_or(Refusal::Unreadable)?;
    set_events(vcpu, abi, &VcpuEvents::from_bytes(abi, &bytes)?)
}

/// `KVM_GET_VCPU_EVENTS`: what of the events is still pending. External aborts never are: they were
/// delivered. What it returns may be given to [`set_events`].
///
/// # Errors
/// ENOEXEC before `KVM_ARM_VCPU_INIT`.
pub fn get_events(vcpu: &impl VcpuState) -> Result<VcpuEvents, Refusal> {
    if !vcpu.is_initialised() {
        return Err(Refusal::NotInitialised);
    }
    let serror = vcpu.serror();
    let has_esr = vcpu.config().ras;
    let pending = serror.pending || serror.held_for_el2;
    Ok(VcpuEvents {
        serror_pending: pending,
        serror_has_esr: has_esr,
        serror_esr: if pending && has_esr { serror.vsesr } else { 0 },
        ..VcpuEvents::default()
    })
}

/// [`get_events`] as the bytes of the system call.
///
/// # Errors
/// As [`get_events`].
pub fn get_events_bytes(vcpu: &impl VcpuState, abi: Abi) -> Result<[u8; VCPU_EVENTS_SIZE], Refusal> {
    get_events(vcpu)?.to_bytes(abi)
}

/// What the proposal checks before any effect: `has_esr` counts even with nothing pending. `ras`: the host
/// has RAS (`KVM_CAP_ARM_INJECT_SERROR_ESR`).
///
/// # Errors
/// The first that applies of: an ESR without RAS, an ESR with a bit outside the ISS, both aborts at once.
pub const fn check_extended(ras: bool, events: &VcpuEvents) -> Result<(), Refusal> {
    if !ras && events.serror_has_esr {
        return Err(Refusal::SErrorEsrWithoutRas);
    }
    if !ras && events.ext_abt_has_esr {
        return Err(Refusal::AbortEsrWithoutRas);
    }
    if events.serror_has_esr && outside_iss(events.serror_esr) {
        return Err(Refusal::SErrorEsrOutsideIss(events.serror_esr));
    }
    if events.ext_abt_has_esr && outside_iss(events.ext_abt_esr) {
        return Err(Refusal::AbortEsrOutsideIss(events.ext_abt_esr));
    }
    if events.ext_dabt_pending && events.ext_iabt_pending {
        return Err(Refusal::BothAborts);
    }
    Ok(())
}

/// Mainline's checks of a pending SError.
fn check_serror(vcpu: &impl VcpuState, events: &VcpuEvents) -> Result<(), Refusal> {
    if !events.serror_has_esr {
        return Ok(());
    }
    if !vcpu.config().ras {
        return Err(Refusal::SErrorEsrWithoutRas);
    }
    if outside_iss(events.serror_esr) {
        return Err(Refusal::SErrorEsrOutsideIss(events.serror_esr));
    }
    Ok(())
}

const fn outside_iss(esr: u64) -> bool {
    esr & !Esr::ISS_MASK != 0
}
