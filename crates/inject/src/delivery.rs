//! The guest's position after an injection.

use core::fmt;

use seawall_arm::{Esr, ExceptionClass, Reg, Target};

use seawall_events::VcpuEvents;
use seawall_events::kernel::{AbortDelivery, Applied, SErrorDelivery, VcpuState};

/// The guest's position after an injection, found in its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// At the first instruction of its handler.
    AtVector {
        /// EL1, or the virtual EL2 of a guest hypervisor.
        target: Target,
        /// PC.
        pc: u64,
        /// `ESR_ELx` as the handler will read it; in AArch32 state, `DFSR` or `IFSR`.
        esr: Esr,
        /// `FAR_ELx` as the handler will read it (after an SError, the FAR of another exception); in AArch32
        /// state, `DFAR` or `IFAR`.
        far: u64,
    },
    /// An SError was requested, and one waits until the guest unmasks it, or until virtual EL2 can take it.
    SErrorPending,
    /// The guest has not moved. Nothing was requested, or it had no effect: see
    /// [`AbortDelivery::NotDelivered`] and [`SErrorDelivery::Lost`].
    NotDelivered,
}

impl Delivery {
    /// The position of `vcpu` after [`set_events`](seawall_events::kernel::set_events) applied `events` to
    /// it.
    pub fn of(vcpu: &impl VcpuState, events: &VcpuEvents, applied: &Applied) -> Self {
        match (applied.serror, applied.abort) {
            (Some(SErrorDelivery::Delivered(target)), _) => Self::at_vector(vcpu, target),
            (_, Some(AbortDelivery::Delivered(_))) if vcpu.config().el1_aarch32 => {
                Self::at_vector32(vcpu, events.ext_iabt_pending)
            }
            (_, Some(AbortDelivery::Delivered(target))) => Self::at_vector(vcpu, target),
            (Some(SErrorDelivery::Pending | SErrorDelivery::HeldForEl2), _) => Self::SErrorPending,
            // An earlier SError may still wait.
            (Some(SErrorDelivery::Lost), _) if vcpu.serror().pending => Self::SErrorPending,
            (Some(SErrorDelivery::Lost) | None, Some(AbortDelivery::NotDelivered) | None) => {
                Self::NotDelivered
            }
        }
    }

    fn at_vector(vcpu: &impl VcpuState, target: Target) -> Self {
        let (esr, far) = match target {
            Target::El1 => (Reg::EsrEl1, Reg::FarEl1),
            Target::El2 => (Reg::EsrEl2, Reg::FarEl2),
        };
        let (esr, far) = (Esr::from_bits(vcpu.reg(esr)), vcpu.reg(far));
        Self::AtVector { target, pc: vcpu.reg(Reg::Pc), esr, far }
    }

    /// `FAR_EL1` is `IFAR` and `DFAR`, `ESR_EL1` is `DFSR`.
    fn at_vector32(vcpu: &impl VcpuState, is_prefetch: bool) -> Self {
        let far = vcpu.reg(Reg::FarEl1);
        let (esr, far) =
            if is_prefetch { (Reg::Ifsr32, far >> 32) } else { (Reg::EsrEl1, far & 0xffff_ffff) };
        Self::AtVector { target: Target::El1, pc: vcpu.reg(Reg::Pc), esr: Esr::from_bits(vcpu.reg(esr)), far }
    }
}

/// `guest at vector 0xffff800010000c00, ESR 0x82000210, FAR 0x401074`.
impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtVector { pc, esr, far, .. } => {
                write!(f, "guest at vector {pc:#x}, ESR {:#x}", esr.bits())?;
                // After an SError the FAR belongs to another exception.
                if esr.ec() == ExceptionClass::SERROR { Ok(()) } else { write!(f, ", FAR {far:#x}") }
            }
            Self::SErrorPending => f.write_str("pending until the guest unmasks it"),
            Self::NotDelivered => f.write_str("not delivered: the kernel took the error for transient"),
        }
    }
}
