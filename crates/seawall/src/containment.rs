//! One call from a SEA exit to a guest that goes on.

use std::fmt;
use std::time::Duration;

use seawall_arm::{Esr, ExceptionClass, ExceptionLevel, Mode, Pstate, Target};
use seawall_events::{Refusal, Reg, SeaExit, Vcpu};
use thiserror::Error;

use crate::{Injection, MemoryError, Policy, StopReason, StormGuard};

/// Turns memory errors into what a policy decides, and says what became of the guest.
#[derive(Clone, Debug)]
pub struct Containment<P> {
    policy: P,
    storm: StormGuard,
}

/// What was done about one memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The error.
    pub error: MemoryError,
    /// What was done.
    pub action: Action,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// This was injected, and this is where the guest is now.
    Injected {
        /// What was asked of the kernel.
        injection: Injection,
        /// What became of it.
        guest: GuestState,
    },
    /// Nothing was injected; the guest must not be run again.
    Stop(StopReason),
}

/// Where an injection left the guest, read back from its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// At the first instruction of its handler.
    AtVector {
        /// EL1, or the virtual EL2 of a guest hypervisor.
        target: Target,
        /// PC.
        pc: u64,
        /// `ESR_ELx` as the handler will read it; in AArch32 state, `DFSR` or `IFSR`.
        esr: Esr,
        /// `FAR_ELx` as the handler will read it (after an SError, of another exception); in AArch32 state, `DFAR` or `IFAR`.
        far: u64,
    },
    /// The SError waits for the guest to unmask it.
    SErrorPending,
    /// The kernel took the error for transient and did nothing: the guest repeats the access.
    NotDelivered,
}

/// What can go wrong between a SEA exit and its injection. The vCPU is as it was, but for
/// [`ContainError::Vcpu`], where the backend failed.
#[derive(Debug, Error)]
pub enum ContainError<E: std::error::Error + 'static> {
    /// The backend failed.
    #[error(transparent)]
    Vcpu(#[from] E),
    /// The VM's ABI cannot express the policy's decision.
    #[error(
        "policy `{policy}` decided on an {injection}, but {refusal}: create the VM with the extended ABI, \
         or choose the policy `mainline`"
    )]
    NotInAbi {
        /// The policy's name.
        policy: &'static str,
        /// Its decision.
        injection: Injection,
        /// Why it cannot be.
        refusal: Refusal,
    },
}

impl<P: Policy> Containment<P> {
    /// A containment by this policy, with the default storm guard.
    pub fn new(policy: P) -> Self {
        Self { policy, storm: StormGuard::default() }
    }

    /// The same with another storm guard.
    #[must_use]
    pub fn with_storm_guard(self, storm: StormGuard) -> Self {
        Self { storm, ..self }
    }

    /// The storm guard, for instance to put its memory into a snapshot.
    pub fn storm_guard(&mut self) -> &mut StormGuard {
        &mut self.storm
    }

    /// Handles one SEA exit: decides, injects, and reads back what the guest will see.
    ///
    /// `now` is for the storm guard: how long the guest has been running, by any clock that does not go back.
    ///
    /// # Errors
    /// [`ContainError`]; nothing was injected then, unless the backend failed after it.
    pub fn handle<V: Vcpu>(
        &mut self,
        vcpu: &mut V,
        exit: &SeaExit,
        now: Duration,
    ) -> Result<Outcome, ContainError<V::Error>> {
        let pc = vcpu.reg(Reg::Pc)?;
        let pstate = Pstate::from_bits(vcpu.reg(Reg::Pstate)?);
        let error = MemoryError::from_sea(exit, pc, pstate);
        if let Err(reason) = self.storm.note(&error, now) {
            return Ok(Outcome { error, action: Action::Stop(reason) });
        }
        let injection = self.policy.decide(&error);
        injection.check(vcpu.abi()).map_err(|refusal| ContainError::NotInAbi {
            policy: self.policy.name(),
            injection,
            refusal,
        })?;
        vcpu.set_events(&injection.events())?;
        let guest = guest_state(vcpu, pc, error.access == crate::Access::Fetch)?;
        Ok(Outcome { error, action: Action::Injected { injection, guest } })
    }
}

/// Where the guest is after an injection at `pc`.
fn guest_state<V: Vcpu>(vcpu: &V, pc: u64, was_fetch: bool) -> Result<GuestState, V::Error> {
    let now = vcpu.reg(Reg::Pc)?;
    let pstate = Pstate::from_bits(vcpu.reg(Reg::Pstate)?);
    if pstate.mode() == Mode::Abort && is_abort32_return(vcpu.reg(Reg::X(20))?, pc) {
        // Vector 0x0c is the prefetch abort's: IFSR, and IFAR in FAR_EL1[63:32]. The data abort's are DFSR,
        // which is ESR_EL1, and DFAR in [31:0].
        let is_prefetch = was_fetch && now & 0x1f == 0x0c;
        let esr = Esr::from_bits(vcpu.reg(if is_prefetch { Reg::Ifsr32 } else { Reg::EsrEl1 })?);
        let far = vcpu.reg(Reg::FarEl1)?;
        let far = if is_prefetch { far >> 32 } else { far & 0xffff_ffff };
        return Ok(GuestState::AtVector { target: Target::El1, pc: now, esr, far });
    }
    let (target, elr, vbar, esr, far) = match pstate.exception_level() {
        ExceptionLevel::El2 => (Target::El2, Reg::ElrEl2, Reg::VbarEl2, Reg::EsrEl2, Reg::FarEl2),
        _ => (Target::El1, Reg::ElrEl1, Reg::VbarEl1, Reg::EsrEl1, Reg::FarEl1),
    };
    // PC alone does not tell: a vector that is itself bad is left for itself.
    let in_vectors = now & !0x7ff == vcpu.reg(vbar)? & !0x7ff;
    if in_vectors && vcpu.reg(elr)? == pc {
        let esr = Esr::from_bits(vcpu.reg(esr)?);
        return Ok(GuestState::AtVector { target, pc: now, esr, far: vcpu.reg(far)? });
    }
    if vcpu.events()?.serror_pending {
        return Ok(GuestState::SErrorPending);
    }
    Ok(GuestState::NotDelivered)
}

/// `LR_abt` is PC + 4 after a prefetch abort, PC + 8 after a data abort.
fn is_abort32_return(lr: u64, pc: u64) -> bool {
    let offset = (lr as u32).wrapping_sub(pc as u32);
    offset == 4 || offset == 8
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.error)?;
        match &self.action {
            Action::Injected { injection, guest } => write!(f, "{injection}; {guest}"),
            Action::Stop(reason) => write!(f, "stopped: {reason}"),
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtVector { pc, esr, far, .. } => {
                write!(f, "guest at vector {pc:#x}, ESR {:#x}", esr.bits())?;
                // An SError leaves the FAR of another exception there.
                if esr.ec() == ExceptionClass::SERROR { Ok(()) } else { write!(f, ", FAR {far:#x}") }
            }
            Self::SErrorPending => f.write_str("pending until the guest unmasks it"),
            Self::NotDelivered => f.write_str("not delivered: the kernel took the error for transient"),
        }
    }
}
