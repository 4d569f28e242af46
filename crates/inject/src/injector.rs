//! The extended `KVM_SET_VCPU_EVENTS`, on kernels that have it and on kernels that have only mainline's.
//!
//! A stock kernel delivers the one abort that it knows, `ext_dabt_pending`: it drops the waiting MMIO access,
//! finds the Exception level, the vector (EASE), the fault status and the FAR. Then, before the next
//! `KVM_RUN`, the injector turns that abort into the requested one:
//!
//! | request | AArch64 EL1, virtual EL2 | AArch32 EL1 |
//! |---|---|---|
//! | an ESR | its ISS is ORed into `ESR_ELx` | ignored, as in the proposal |
//! | an instruction abort | EC 0x24/0x25 becomes 0x20/0x21 | `IFSR` and `IFAR` for `DFSR` and `DFAR`, `LR_abt` and the vector each 4 less |

use crate::Delivery;
use seawall_arm::{Esr, ExceptionClass, ExceptionLevel, Pstate, Reg, Target, hcr, hcrx};
use seawall_events::kernel::{AbortDelivery, check_extended};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};

use crate::vcpu::{GET_EVENTS, failed, get, set_events};
use crate::{Errno, GuestKind, InjectError, KvmVcpu, Way, aarch32, aarch64, has_ras};

/// An injector for the vCPUs of one VM. It keeps no state about them: [`Injector::probe`] finds all its
/// fields.
///
/// # Calls
///
/// The delivery is one call. Turning a stock kernel's abort into the requested one takes this many more:
///
/// | vCPU | [`Last::NoWalk`] | [`Last::Any`] |
/// |---|---|---|
/// | AArch64, data abort without an ESR | 0 | 2 |
/// | AArch64, otherwise | 2 | 3 |
/// | AArch64, and `ESR_EL1` already looks like the kernel's own abort | 2 | +1 |
/// | AArch64 and virtual EL2, data abort without an ESR | 1 | 3 to EL2, 4 to EL1 |
/// | AArch64 and virtual EL2, otherwise | 3 | 4 to EL2, 5 to EL1 |
/// | the same, for each of `ESR_EL1` and `ESR_EL2` that already looks like the kernel's own abort | 3 | +1 if it takes the abort, +2 if not |
/// | virtual EL2: [`Injector::check_nested`], before | 1 to 3 | 1 to 3 |
/// | AArch32, data abort | 2 | 2 |
/// | AArch32, instruction abort | 12 | 12 |
/// | an SError in the same call, if the abort needs any of these | +1 | +1 |
///
/// A kernel with the extended ABI needs as many as a data abort without an ESR. To find the guest's position
/// [`Injector::inject`] reads PC and FAR, and the ESR if it was not read before.
///
/// # Limits
///
/// If an ioctl fails after a stock kernel delivered, the guest keeps the kernel's own data abort, which is
/// sound: [`InjectError::Degraded`]. Two other values may stay changed: `IFSR`, which means nothing to a data
/// abort; and bit 16 of an `ESR_ELx` that held an old abort, which means nothing while ISV is 0. If the calls
/// that undo fail as well, a prefetch abort of AArch32 may stay half made.
///
/// An SError may be reported as pending although the guest took it. This happens if its vector is where the
/// vCPU already was, SErrors are masked except for `SCTLR2_ELx.NMEA`, and another SError is pending.
///
/// The injector knows a kernel only by what it writes: with [`Last::NoWalk`] for a vCPU whose last fault was
/// a stage 2 fault on a table walk, it may take an old abort's ESR for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injector {
    /// The kind of the VM's vCPUs.
    pub guest: GuestKind,
    /// True if the host has RAS: without it no ESR can be given.
    pub ras: bool,
    /// The way to the extended ABI on this kernel.
    pub way: Way,
}

/// The caller's knowledge of the vCPU's last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Last {
    /// It was not a stage 2 fault on the guest's own table walk, as after `KVM_EXIT_ARM_SEA` or
    /// `KVM_EXIT_MMIO`: the kernel delivers every request.
    NoWalk,
    /// It may have been such a fault, as after SIGBUS. The kernel then looks for the descriptor; if it does
    /// not find it, it delivers nothing and still returns success.
    #[default]
    Any,
}

impl Injector {
    /// Asks one of the VM's vCPUs for its kind, for RAS, and for the kernel's ABI. The vCPU is unchanged;
    /// this takes six calls, eight at most.
    ///
    /// # Errors
    /// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
    pub fn probe(vcpu: &impl KvmVcpu) -> Result<Self, InjectError> {
        Ok(Self { guest: GuestKind::of(vcpu)?, ras: has_ras(vcpu)?, way: Way::of(vcpu)? })
    }

    /// Injects these events by the extended ABI's rules, and returns the guest's position.
    ///
    /// KVM loses aborts for a vCPU whose EL1 is AArch32 and that never ran: [`Delivery::NotDelivered`]. A
    /// `KVM_RUN` with `immediate_exit` before the injection avoids this.
    ///
    /// # Errors
    /// [`InjectError`]. Unless it [has injected](InjectError::has_injected), the vCPU is unchanged.
    pub fn inject(
        self,
        vcpu: &impl KvmVcpu,
        last: Last,
        events: &VcpuEvents,
    ) -> Result<Delivery, InjectError> {
        self.check(vcpu, events)?;
        // An abort is recognised by its ESR; an SError is not.
        let before = if events.serror_pending { Some(Place::of(vcpu)?) } else { None };
        let entered = self.act(vcpu, last, events)?;
        self.read_back(vcpu, events, entered, before).map_err(InjectError::unseen)
    }

    /// Injects without reading the guest's position; returns the outcome of the external abort, if one was
    /// requested. It suits programs that stand in for the ioctl, which reports no position.
    ///
    /// # Errors
    /// As [`Injector::inject`].
    pub fn set_events(
        self,
        vcpu: &impl KvmVcpu,
        last: Last,
        events: &VcpuEvents,
    ) -> Result<Option<AbortDelivery>, InjectError> {
        self.check(vcpu, events)?;
        let entered = self.act(vcpu, last, events)?;
        let delivery =
            entered.map_or(AbortDelivery::NotDelivered, |entered| AbortDelivery::Delivered(entered.target));
        Ok(Asked::of(self.guest, events).map(|_| delivery))
    }

    /// Checks everything before the first ioctl that changes anything.
    fn check(self, vcpu: &impl KvmVcpu, events: &VcpuEvents) -> Result<(), InjectError> {
        check_extended(self.ras, events)?;
        self.check_nested(vcpu, events)
    }

    /// For a vCPU with a virtual EL2 on a stock kernel: refuses an abort or SError that its guest hypervisor
    /// would take from a guest of its own, by `HCR_EL2.TEA` or AMO, or by `HCRX_EL2.TMEA`. Linux, at least up
    /// to 7.2, does not switch between the two contexts soundly outside of `KVM_RUN`, and the host would pay
    /// for it; so this check comes before `KVM_SET_VCPU_EVENTS`. An exception that the current context takes
    /// (at EL2, at EL0 with TGE, or unrouted) is safe.
    ///
    /// This takes one to three calls. [`Injector::inject`] includes it; call it yourself only if you inject
    /// by the kernel's own ioctl.
    ///
    /// # Errors
    /// [`InjectError::TakenByHypervisor`]; [`InjectError::Kernel`].
    pub fn check_nested(self, vcpu: &impl KvmVcpu, events: &VcpuEvents) -> Result<(), InjectError> {
        let is_abort = events.ext_dabt_pending || events.ext_iabt_pending;
        let is_stock = self.guest == GuestKind::Nested && self.way == Way::Assisted;
        if !is_stock || !is_abort && !events.serror_pending {
            return Ok(());
        }
        let pstate = Pstate::from_bits(get(vcpu, Reg::Pstate)?);
        if !pstate.is_aarch32() && pstate.exception_level() == ExceptionLevel::El2 {
            return Ok(());
        }
        let hcr_el2 = get(vcpu, Reg::HcrEl2)?;
        if hcr_el2 & hcr::TGE != 0 {
            return Ok(());
        }
        let routed = is_abort && hcr_el2 & hcr::TEA != 0 || events.serror_pending && hcr_el2 & hcr::AMO != 0;
        let tmea = match get(vcpu, Reg::HcrxEl2) {
            Ok(hcrx_el2) => hcrx_el2 & hcrx::TMEA != 0,
            // A CPU without FEAT_HCX.
            Err(InjectError::Kernel { errno: Errno::ENOENT, .. }) => false,
            Err(error) => return Err(error),
        };
        if routed || tmea { Err(InjectError::TakenByHypervisor { hcr_el2 }) } else { Ok(()) }
    }

    /// Carries out the request. Returns the abort that the guest entered, if any.
    fn act(
        self,
        vcpu: &impl KvmVcpu,
        last: Last,
        events: &VcpuEvents,
    ) -> Result<Option<Entered>, InjectError> {
        let serror = VcpuEvents {
            serror_pending: events.serror_pending,
            serror_has_esr: events.serror_pending && events.serror_has_esr,
            serror_esr: events.serror_esr,
            ..VcpuEvents::default()
        };
        // An SError has the same bytes in every layout.
        let Some(asked) = Asked::of(self.guest, events) else {
            set_events(vcpu, &serror.to_bytes(Abi::Mainline)?)?;
            return Ok(None);
        };
        let (made, abi) = match self.way {
            Way::Native(layout) => (asked, Abi::Extended(layout)),
            Way::Assisted => (Asked::PLAIN, Abi::Mainline),
        };
        // If nothing has to be done between the two, one call does both.
        let is_joint = made == asked && self.guest == GuestKind::Aarch64 && last == Last::NoWalk;
        let first = made.events(if is_joint { serror } else { VcpuEvents::default() }).to_bytes(abi)?;
        let entered = match self.guest {
            GuestKind::Aarch32 if made == asked => aarch32::own_abort(vcpu, asked, &first)?,
            GuestKind::Aarch32 => aarch32::prefetch_abort(vcpu, &first)?,
            GuestKind::Aarch64 | GuestKind::Nested => {
                let mut entered = aarch64::abort(vcpu, self.guest, last, made, &first)?;
                if let Some(entered) = entered.as_mut().filter(|_| made != asked) {
                    aarch64::rewrite(vcpu, entered, asked)?;
                }
                entered
            }
        };
        if serror.serror_pending && !is_joint {
            set_events(vcpu, &serror.to_bytes(Abi::Mainline)?).map_err(|error| match (entered, error) {
                (Some(_), InjectError::Kernel { call, errno }) => InjectError::NoSError { call, errno },
                (_, error) => error,
            })?;
        }
        Ok(entered)
    }

    /// Reads the guest's position after the injection. `before`: its position before, if an SError was
    /// requested.
    fn read_back(
        self,
        vcpu: &impl KvmVcpu,
        events: &VcpuEvents,
        entered: Option<Entered>,
        before: Option<Place>,
    ) -> Result<Delivery, InjectError> {
        match (Asked::of(self.guest, events), entered, before) {
            (Some(asked), Some(entered), _) if self.guest == GuestKind::Aarch32 => {
                aarch32::at_vector(vcpu, asked, entered)
            }
            (Some(asked), Some(entered), None) => {
                let esr = entered.esr.map_or_else(|| get(vcpu, aarch64::esr(entered.target)), Ok)?;
                let is_there = asked.is_class_of(Esr::from_bits(esr));
                if !is_there {
                    return Ok(Delivery::NotDelivered);
                }
                aarch64::at_vector(vcpu, entered.target, get(vcpu, Reg::Pc)?, esr)
            }
            (asked, entered, Some(before)) => {
                let asked = asked.filter(|_| entered.is_some());
                self.after_serror(vcpu, asked, before)
            }
            (_, _, None) => Ok(Delivery::NotDelivered),
        }
    }

    /// Reads the position after an SError. `asked`: the abort requested before it, if the guest entered it.
    fn after_serror(
        self,
        vcpu: &impl KvmVcpu,
        asked: Option<Asked>,
        before: Place,
    ) -> Result<Delivery, InjectError> {
        let pc = get(vcpu, Reg::Pc)?;
        let target = if self.guest == GuestKind::Nested { aarch64::taker(vcpu)? } else { Target::El1 };
        let esr = || get(vcpu, aarch64::esr(target));
        // A vector that is itself bad leads back to itself: PC alone does not tell, but the entry masks
        // SErrors.
        let is_there = pc == before.pc && get(vcpu, Reg::Pstate)? == before.pstate;
        let is_abort = match asked {
            Some(asked) if is_there => asked.is_class_of(Esr::from_bits(esr()?)),
            _ => false,
        };
        if is_there && !is_abort {
            let [pending, ..] = vcpu.get_vcpu_events().map_err(failed(GET_EVENTS))?;
            if pending != 0 {
                return Ok(Delivery::SErrorPending);
            }
            // An SError that AArch32 does not take at once is lost.
            if self.guest == GuestKind::Aarch32 {
                return Ok(Delivery::NotDelivered);
            }
        }
        aarch64::at_vector(vcpu, target, pc, esr()?)
    }
}

/// A vCPU's position, as far as an exception entry changes it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    pc: u64,
    pstate: u64,
}

impl Place {
    fn of(vcpu: &impl KvmVcpu) -> Result<Self, InjectError> {
        Ok(Self { pc: get(vcpu, Reg::Pc)?, pstate: get(vcpu, Reg::Pstate)? })
    }
}

/// An abort: a requested one, or one that the kernel makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) is_instruction: bool,
    pub(crate) iss: u64,
}

impl Asked {
    /// The abort that every kernel makes from `ext_dabt_pending`.
    pub(crate) const PLAIN: Self = Self { is_instruction: false, iss: 0 };

    /// The abort in these events. AArch32 has no ESR.
    fn of(guest: GuestKind, events: &VcpuEvents) -> Option<Self> {
        let has_iss = events.ext_abt_has_esr && guest != GuestKind::Aarch32;
        let asked = events.ext_dabt_pending || events.ext_iabt_pending;
        let iss = if has_iss { events.ext_abt_esr } else { 0 };
        asked.then_some(Self { is_instruction: events.ext_iabt_pending, iss })
    }

    /// The events that request it, and this SError.
    fn events(self, serror: VcpuEvents) -> VcpuEvents {
        VcpuEvents {
            ext_dabt_pending: !self.is_instruction,
            ext_iabt_pending: self.is_instruction,
            ext_abt_has_esr: self.iss != 0,
            ext_abt_esr: self.iss,
            ..serror
        }
    }

    /// Returns true if the kernel may have made this ESR for this request: EC, FSC 0x10 or 0x13 to 0x17, the
    /// ISS ORed into them, and nothing else except IL, which some kernels take from the vCPU's last exit.
    pub(crate) fn may_be(self, esr: u64) -> bool {
        let (esr, iss) = (Esr::from_bits(esr), self.iss as u32);
        let mut statuses = core::iter::once(0x10).chain(0x13..=0x17);
        let is_iss = statuses.any(|status| esr.iss() == status | iss);
        self.is_class_of(esr) && is_iss && esr.iss2() == 0
    }

    /// Returns true if the ESR is an abort of this kind.
    fn is_class_of(self, esr: Esr) -> bool {
        let [lower, same] = if self.is_instruction {
            [ExceptionClass::INSTRUCTION_ABORT_LOWER, ExceptionClass::INSTRUCTION_ABORT_SAME]
        } else {
            [ExceptionClass::DATA_ABORT_LOWER, ExceptionClass::DATA_ABORT_SAME]
        };
        esr.ec() == lower || esr.ec() == same
    }

    /// The ESR for the request, made from the kernel's.
    pub(crate) fn esr(self, kernels: u64) -> u64 {
        let kernels = Esr::from_bits(kernels);
        let class = if self.is_instruction { kernels.as_instruction_abort() } else { Some(kernels) };
        class.unwrap_or(kernels).bits() | self.iss
    }
}

/// An abort that the guest entered, as far as it is known without another call.
#[derive(Clone, Copy)]
pub(crate) struct Entered {
    pub(crate) target: Target,
    /// `ESR_ELx`; in AArch32 state, `DFSR` or `IFSR`.
    pub(crate) esr: Option<u64>,
    pub(crate) pc: Option<u64>,
    /// Known in AArch32 state only.
    pub(crate) far: Option<u64>,
}

/// The bytes of a call.
pub(crate) type Bytes = [u8; VCPU_EVENTS_SIZE];

#[cfg(test)]
mod tests {
    use super::*;

    /// KVM's `inject_abt64`: some versions set IL, others take it from the vCPU's last exit.
    #[test]
    fn a_kernels_data_abort_is_known_with_il_and_without() {
        for (esr, is_known) in [
            (0x9200_0010, true),
            (0x9000_0010, true),
            (0x9600_0010, true),
            (0x9400_0015, true),
            (0x9000_0007, false),
            (0x8200_0010, false),
            (0x9200_0410, false),
        ] {
            assert_eq!(Asked::PLAIN.may_be(esr), is_known, "{esr:#x}");
        }
        let fetch = Asked { is_instruction: true, iss: 0x210 };
        assert_eq!(fetch.esr(0x9000_0010), 0x8000_0210, "IL is the kernel's");
    }
}
