//! `KVM_SET_VCPU_EVENTS` and `KVM_GET_VCPU_EVENTS`.

use seawall_arm::Esr;

use super::inject::{self, Abort};
use super::{AbortDelivery, SErrorDelivery, VcpuState};
use crate::wire::VCPU_EVENTS_SIZE;
use crate::{Abi, Refusal, Refused, VcpuEvents};

/// The ISS of an SError that came without an ESR: IDS alone, "implementation defined".
const SERROR_ISS_IDS: u64 = 1 << 24;

/// The effects of a call on the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Applied {
    /// The external abort, if the call asked for one.
    pub abort: Option<AbortDelivery>,
    /// The SError, if the call asked for one.
    pub serror: Option<SErrorDelivery>,
}

/// `KVM_SET_VCPU_EVENTS`: validates, injects, commits.
///
/// [`Abi::Extended`] checks everything first: after an error the vCPU is unchanged. [`Abi::Mainline`]
/// delivers the abort first; it checks the SError's arguments after that, and only if one is pending. The
/// abort comes before the SError; its entry sets PSTATE.A, so the SError normally stays pending.
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
        // In bytes these would be pad and reserved words, which already gave EINVAL.
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

/// [`set_events`] from the bytes of the system call. Like the kernel, it calls `copy_in` for them only after
/// it found the vCPU initialised; `None` is a fault.
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

/// `KVM_GET_VCPU_EVENTS`: the events that are still pending. External aborts never are, because they were
/// delivered. [`set_events`] accepts the result.
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

/// The proposal's checks before any effect; `has_esr` counts even with nothing pending. `ras`: the host has
/// RAS (`KVM_CAP_ARM_INJECT_SERROR_ESR`).
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
