//! Assisted injection: the extended `KVM_SET_VCPU_EVENTS` on a kernel that has only mainline's.
//!
//! The kernel delivers the one abort that it knows, `ext_dabt_pending`: it drops the waiting MMIO access,
//! finds the Exception level, the vector (EASE), the fault status and the FAR. Then, before the next
//! `KVM_RUN`, what it delivered becomes what was asked:
//!
//! | asked | AArch64 EL1, virtual EL2 | AArch32 EL1 |
//! |---|---|---|
//! | an ESR | its ISS is ORed into `ESR_ELx` | ignored, as the proposal does |
//! | an instruction abort | EC 0x24/0x25 becomes 0x20/0x21 | `IFSR` and `IFAR` for `DFSR` and `DFAR`, `LR_abt` and the vector each 4 less |
//!
//! Everything is checked before the first ioctl. Calls more than the kernel's own data abort takes:
//!
//! | vCPU | [`Last::NoWalk`] | [`Last::Any`] |
//! |---|---|---|
//! | AArch64, data abort without an ESR | 0 | 2 |
//! | AArch64, otherwise | 2 | 3 |
//! | AArch64, and `ESR_EL1` looks like the kernel's own abort already | 2 | +1 |
//! | AArch64 and virtual EL2, data abort without an ESR | 1 | 3 to EL2, 4 to EL1 |
//! | AArch64 and virtual EL2, otherwise | 3 | 4 to EL2, 5 to EL1 |
//! | the same, for each of `ESR_EL1` and `ESR_EL2` that looks like the kernel's own abort already | 3 | +1 if it takes the abort, +2 if not |
//! | AArch32, data abort | 0 | 0 |
//! | AArch32, instruction abort | 12 | 12 |
//! | an SError in the same call, if the abort needs any of these | +1 | +1 |
//!
//! # Limits
//!
//! An ioctl that fails after the kernel delivered leaves its own data abort in the guest, which is sound:
//! [`AssistError::Degraded`]. What may be left beside it: `IFSR`, which means nothing to a data abort; and
//! bit 16 of an `ESR_ELx` that held an old abort, which means nothing while ISV is 0. If the calls that undo
//! fail as well, a prefetch abort of AArch32 may be left half made.
//!
//! A stock kernel is only found out by what it writes: with [`Last::NoWalk`] for a vCPU whose last fault was
//! a stage 2 fault on a table walk, an old abort's ESR may be taken for a new one.

use seawall_arm::{Esr, ExceptionClass, ExceptionLevel, Pstate, Reg, Target, hcr, hcrx};
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, AbortDelivery, Refusal, VcpuEvents, check_extended};

use crate::Errno;

/// One vCPU of a stock kernel: the three ioctls that assisted injection is made of.
pub trait Kernel {
    /// `KVM_SET_VCPU_EVENTS`, mainline's layout.
    ///
    /// # Errors
    /// The ioctl's.
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno>;

    /// `KVM_GET_ONE_REG` of a 64-bit register.
    ///
    /// # Errors
    /// The ioctl's.
    fn get_one_reg(&self, id: u64) -> Result<u64, Errno>;

    /// `KVM_SET_ONE_REG` of a 64-bit register.
    ///
    /// # Errors
    /// The ioctl's.
    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno>;
}

/// What of a vCPU decides where an abort can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Guest {
    /// EL1 is AArch64, and there is no virtual EL2.
    #[default]
    Aarch64,
    /// EL1 is AArch32 (`KVM_ARM_VCPU_EL1_32BIT`).
    Aarch32,
    /// There is a virtual EL2 (`KVM_ARM_VCPU_HAS_EL2`).
    Nested,
}

/// What is known of the vCPU's last exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Last {
    /// It was no stage 2 fault on the guest's own table walk, as after `KVM_EXIT_ARM_SEA` or
    /// `KVM_EXIT_MMIO`: the kernel delivers whatever it is asked for.
    NoWalk,
    /// It may have been one, as after SIGBUS. The kernel then looks for the descriptor, and if it does
    /// not find it delivers nothing, and says nothing.
    #[default]
    Any,
}

/// Why an injection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssistError {
    /// EINVAL, before anything was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An ioctl failed, before anything was done to the guest.
    #[error("{call} failed: {errno}; nothing was injected")]
    Kernel {
        /// Which.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The guest takes the kernel's own data abort (if the kernel delivered it: see [`Last::Any`]), which is
    /// sound, but it could not be turned into what was asked. An SError of the same call was not injected.
    #[error("degraded: the guest takes a plain data abort, as {call} failed: {errno}")]
    Degraded {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The guest takes the abort that was asked for, but not the SError of the same call.
    #[error("degraded: the guest takes the abort without the SError, as {call} failed: {errno}")]
    NoSError {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The vCPU's guest hypervisor takes such an exception from its own guest: see [`check_nested`].
    #[error(
        "nothing was injected: the guest hypervisor takes this from its own guest (HCR_EL2 {hcr_el2:#x}), and stock \
         kernels cannot be asked for that safely; run the vCPU until it is at EL2"
    )]
    TakenByHypervisor {
        /// `HCR_EL2` of the guest hypervisor.
        hcr_el2: u64,
    },
    /// The kernel delivered, but no abort that we know is in the guest's ESR. It was left as it is, and an
    /// SError of the same call was not injected.
    #[error("degraded: expected the kernel's own external data abort in {register:?}, found {found:#x}")]
    Unexpected {
        /// The register.
        register: Reg,
        /// What it holds.
        found: u64,
    },
}

impl AssistError {
    /// The errno for a program that asked by ioctl. A degraded injection is `EIO`: the guest was changed.
    /// [`AssistError::TakenByHypervisor`] is `EOPNOTSUPP`.
    pub const fn errno(&self) -> Errno {
        const EIO: Errno = Errno(5);
        const EOPNOTSUPP: Errno = Errno(95);
        match self {
            Self::Refused(refusal) => Errno(refusal.errno().number()),
            Self::Kernel { errno, .. } => *errno,
            Self::TakenByHypervisor { .. } => EOPNOTSUPP,
            Self::Degraded { .. } | Self::NoSError { .. } | Self::Unexpected { .. } => EIO,
        }
    }
}

/// The extended `KVM_SET_VCPU_EVENTS` over a stock kernel. `ras`: the host has RAS
/// (`KVM_CAP_ARM_INJECT_SERROR_ESR`, or `serror_has_esr` of `KVM_GET_VCPU_EVENTS`).
///
/// Gives what became of the external abort, if one was asked for.
///
/// # Errors
/// [`AssistError`]. But for the degraded ones the vCPU is as it was.
pub fn set_events(
    kernel: &impl Kernel,
    guest: Guest,
    last: Last,
    ras: bool,
    events: &VcpuEvents,
) -> Result<Option<AbortDelivery>, AssistError> {
    check_extended(ras, events)?;
    let serror = VcpuEvents {
        serror_pending: events.serror_pending,
        serror_has_esr: events.serror_pending && events.serror_has_esr,
        serror_esr: events.serror_esr,
        ..VcpuEvents::default()
    };
    if !events.ext_dabt_pending && !events.ext_iabt_pending {
        deliver(kernel, &serror)?;
        return Ok(None);
    }
    let asked = Asked {
        is_instruction: events.ext_iabt_pending,
        iss: if events.ext_abt_has_esr { events.ext_abt_esr } else { 0 },
    };
    let dabt = VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() };
    let delivery = match guest {
        Guest::Aarch64 | Guest::Aarch32
            if asked.is_plain(guest) && (last == Last::NoWalk || guest == Guest::Aarch32) =>
        {
            deliver(kernel, &VcpuEvents { ext_dabt_pending: true, ..serror })?;
            return Ok(Some(AbortDelivery::Delivered(Target::El1)));
        }
        Guest::Aarch32 => aarch32_prefetch_abort(kernel, &dabt)?,
        Guest::Aarch64 | Guest::Nested => aarch64(kernel, guest, last, asked, &dabt)?,
    };
    if serror.serror_pending {
        deliver(kernel, &serror).map_err(|error| match (delivery, error) {
            (AbortDelivery::Delivered(_), AssistError::Kernel { call, errno }) => {
                AssistError::NoSError { call, errno }
            }
            (_, error) => error,
        })?;
    }
    Ok(Some(delivery))
}

/// Of a vCPU with a virtual EL2 ([`Guest::Nested`]): refuses what its guest hypervisor would take from a guest
/// of its own, by `HCR_EL2.TEA` or AMO, or by `HCRX_EL2.TMEA`. Linux up to 7.2 at least does not switch
/// between the two contexts soundly outside of `KVM_RUN`, and the host pays for it; so this comes before
/// `KVM_SET_VCPU_EVENTS`. What is taken where the guest runs (at EL2, at EL0 with TGE, or unrouted) is safe.
///
/// Takes one to three calls.
///
/// # Errors
/// [`AssistError::TakenByHypervisor`]; [`AssistError::Kernel`].
pub fn check_nested(kernel: &impl Kernel, events: &VcpuEvents) -> Result<(), AssistError> {
    let is_abort = events.ext_dabt_pending || events.ext_iabt_pending;
    if !is_abort && !events.serror_pending {
        return Ok(());
    }
    let pstate = Pstate::from_bits(get(kernel, Reg::Pstate)?);
    if !pstate.is_aarch32() && pstate.exception_level() == ExceptionLevel::El2 {
        return Ok(());
    }
    let hcr_el2 = get(kernel, Reg::HcrEl2)?;
    if hcr_el2 & hcr::TGE != 0 {
        return Ok(());
    }
    let routed = is_abort && hcr_el2 & hcr::TEA != 0 || events.serror_pending && hcr_el2 & hcr::AMO != 0;
    let tmea = match get(kernel, Reg::HcrxEl2) {
        Ok(hcrx_el2) => hcrx_el2 & hcrx::TMEA != 0,
        // A CPU without FEAT_HCX.
        Err(AssistError::Kernel { errno: Errno::ENOENT, .. }) => false,
        Err(error) => return Err(error),
    };
    if routed || tmea { Err(AssistError::TakenByHypervisor { hcr_el2 }) } else { Ok(()) }
}

/// The abort that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    is_instruction: bool,
    iss: u64,
}

impl Asked {
    /// The kernel's own data abort is just that.
    fn is_plain(self, guest: Guest) -> bool {
        !self.is_instruction && (self.iss == 0 || guest == Guest::Aarch32)
    }

    /// The ESR that was asked for, from the one that the kernel made.
    fn esr(self, kernels: u64) -> u64 {
        // EC 0x24 and 0x25 differ from 0x20 and 0x21 by bit 2 of EC, which is bit 28 of ESR.
        const DATA: u64 = 1 << 28;
        let kernels = if self.is_instruction { kernels & !DATA } else { kernels };
        kernels | self.iss
    }
}

/// Whether an ESR is one that the kernel makes of `ext_dabt_pending`: IL, FSC 0x10 or 0x13 to 0x17, and
/// nothing else but the EC.
fn is_kernels_own(esr: u64) -> bool {
    let esr = Esr::from_bits(esr);
    let is_abort = matches!(esr.ec(), ExceptionClass::DATA_ABORT_LOWER | ExceptionClass::DATA_ABORT_SAME);
    is_abort && esr.il() && matches!(esr.iss(), 0x10 | 0x13..=0x17) && esr.iss2() == 0
}

/// An Exception level that may take an abort, and its ESR.
type Taker = (Target, Reg);

const EL1: Taker = (Target::El1, Reg::EsrEl1);
const EL2: Taker = (Target::El2, Reg::EsrEl2);

fn aarch64(
    kernel: &impl Kernel,
    guest: Guest,
    last: Last,
    asked: Asked,
    dabt: &VcpuEvents,
) -> Result<AbortDelivery, AssistError> {
    let (target, register, esr) = match last {
        Last::NoWalk => {
            deliver(kernel, dabt)?;
            let (target, register) = if guest == Guest::Nested { taker(kernel)? } else { EL1 };
            if asked.is_plain(guest) {
                return Ok(AbortDelivery::Delivered(target));
            }
            (target, register, get(kernel, register).map_err(degraded)?)
        }
        Last::Any => {
            let takers: &[Taker] = if guest == Guest::Nested { &[EL2, EL1] } else { &[EL1] };
            match deliver_if_any(kernel, takers, dabt)? {
                Some(taken) => taken,
                None => return Ok(AbortDelivery::NotDelivered),
            }
        }
    };
    rewrite(kernel, register, esr, asked)?;
    Ok(AbortDelivery::Delivered(target))
}

/// Of a vCPU with EL2: who took the abort that the kernel delivered.
fn taker(kernel: &impl Kernel) -> Result<Taker, AssistError> {
    let pstate = Pstate::from_bits(get(kernel, Reg::Pstate).map_err(degraded)?);
    Ok(if pstate.exception_level() == ExceptionLevel::El2 { EL2 } else { EL1 })
}

/// Delivers, and finds who took the abort by whose ESR the kernel wrote, and what it wrote.
fn deliver_if_any(
    kernel: &impl Kernel,
    takers: &[Taker],
    dabt: &VcpuEvents,
) -> Result<Option<(Target, Reg, u64)>, AssistError> {
    // At most one mark a taker: two.
    let mut marks = [None; 2];
    let put_and_deliver = |marks: &mut [Option<Mark>; 2]| {
        for (mark, (_, register)) in marks.iter_mut().zip(takers) {
            *mark = Some(Mark::put(kernel, *register)?);
        }
        deliver(kernel, dabt)
    };
    if let Err(error) = put_and_deliver(&mut marks) {
        marks.iter().flatten().try_for_each(|mark| mark.remove(kernel))?;
        return Err(error);
    }
    let mut taken = None;
    for (mark, (target, register)) in marks.iter_mut().zip(takers) {
        let esr = get(kernel, *register).map_err(degraded)?;
        if mark.is_some_and(|mark| !mark.is_there(esr)) {
            (*mark, taken) = (None, Some((*target, *register, esr)));
            break;
        }
    }
    let removed = marks.iter().flatten().try_for_each(|mark| mark.remove(kernel));
    removed.map_err(|error| if taken.is_some() { degraded(error) } else { error })?;
    Ok(taken)
}

/// Tells whether the kernel wrote an ESR: a value there that could be the kernel's own gets a bit that the
/// kernel never sets, and that means nothing to the guest should it stay.
#[derive(Clone, Copy)]
struct Mark {
    register: Reg,
    before: u64,
}

impl Mark {
    /// Bit 0 of SRT, which means nothing while ISV is 0. Source: DDI 0487, `ISS encoding for an exception
    /// from a Data Abort`.
    const BIT: u64 = 1 << 16;

    fn put(kernel: &impl Kernel, register: Reg) -> Result<Self, AssistError> {
        let mark = Self { register, before: get(kernel, register)? };
        if mark.is_needed() {
            set(kernel, register, mark.marked())?;
        }
        Ok(mark)
    }

    fn is_needed(self) -> bool {
        is_kernels_own(self.before)
    }

    fn marked(self) -> u64 {
        if self.is_needed() { self.before | Self::BIT } else { self.before }
    }

    fn is_there(self, esr: u64) -> bool {
        esr == self.marked()
    }

    fn remove(self, kernel: &impl Kernel) -> Result<(), AssistError> {
        if self.is_needed() { set(kernel, self.register, self.before) } else { Ok(()) }
    }
}

/// Makes the kernel's ESR in `register` the one that was asked for.
fn rewrite(kernel: &impl Kernel, register: Reg, kernels: u64, asked: Asked) -> Result<(), AssistError> {
    if asked.is_plain(Guest::Aarch64) {
        return Ok(());
    }
    if !is_kernels_own(kernels) {
        return Err(AssistError::Unexpected { register, found: kernels });
    }
    set(kernel, register, asked.esr(kernels)).map_err(degraded)
}

/// `FAR_EL1` is `IFAR` and `DFAR`, `ESR_EL1` is `DFSR`, `X20` is `LR_abt`.
///
/// A vCPU that never ran is not delivered to: until then Linux takes its EL1 for AArch64 where it enters
/// exceptions, and drops the abort after it wrote `DFSR` and `DFAR`.
fn aarch32_prefetch_abort(kernel: &impl Kernel, dabt: &VcpuEvents) -> Result<AbortDelivery, AssistError> {
    const DFAR: u64 = 0xffff_ffff;
    const TURNED: [Reg; 4] = [Reg::X(20), Reg::Pc, Reg::FarEl1, Reg::EsrEl1];
    let (far, dfsr) = (get(kernel, Reg::FarEl1)?, get(kernel, Reg::EsrEl1)?);
    let before = get(kernel, Reg::Pc)?;
    deliver(kernel, dabt)?;
    let delivered = |reg| get(kernel, reg).map_err(degraded);
    let (lr, pc) = (delivered(Reg::X(20))?, delivered(Reg::Pc)?);
    if pc == before && lr as u32 != (before as u32).wrapping_add(8) {
        set(kernel, Reg::FarEl1, far).map_err(degraded)?;
        set(kernel, Reg::EsrEl1, dfsr).map_err(degraded)?;
        return Ok(AbortDelivery::NotDelivered);
    }
    let (ifar, fsr) = (delivered(Reg::FarEl1)?, delivered(Reg::EsrEl1)?);
    let less_4 = |address: u64| u64::from((address as u32).wrapping_sub(4));
    let wanted = [less_4(lr), less_4(pc), ifar << 32 | far & DFAR, dfsr];
    set(kernel, Reg::Ifsr32, fsr).map_err(degraded)?;
    for (n, (reg, value)) in TURNED.into_iter().zip(wanted).enumerate() {
        if let Err(error) = set(kernel, reg, value) {
            // Back to the data abort that the kernel made: half of each would be unsound.
            for (reg, value) in TURNED.into_iter().zip([lr, pc, ifar, fsr]).take(n) {
                set(kernel, reg, value).map_err(degraded)?;
            }
            return Err(degraded(error));
        }
    }
    Ok(AbortDelivery::Delivered(Target::El1))
}

fn deliver(kernel: &impl Kernel, events: &VcpuEvents) -> Result<(), AssistError> {
    let bytes = events.to_bytes(Abi::Mainline)?;
    kernel.set_vcpu_events(&bytes).map_err(|errno| AssistError::Kernel { call: "KVM_SET_VCPU_EVENTS", errno })
}

fn get(kernel: &impl Kernel, reg: Reg) -> Result<u64, AssistError> {
    let failed = |errno| AssistError::Kernel { call: "KVM_GET_ONE_REG", errno };
    kernel.get_one_reg(one_reg_id(reg).ok_or(failed(Errno::ENOENT))?).map_err(failed)
}

fn set(kernel: &impl Kernel, reg: Reg, value: u64) -> Result<(), AssistError> {
    let failed = |errno| AssistError::Kernel { call: "KVM_SET_ONE_REG", errno };
    kernel.set_one_reg(one_reg_id(reg).ok_or(failed(Errno::ENOENT))?, value).map_err(failed)
}

/// The same failure, after the kernel delivered.
fn degraded(error: AssistError) -> AssistError {
    match error {
        AssistError::Kernel { call, errno } => AssistError::Degraded { call, errno },
        other => other,
    }
}
