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
//! | AArch64 and virtual EL2, data abort without an ESR | 1 | 6 |
//! | AArch64 and virtual EL2, otherwise | 3 | 7 |
//! | AArch32, data abort | 0 | 0 |
//! | AArch32, instruction abort | 11 | 11 |
//! | an SError in the same call, if the abort needs any of these | +1 | +1 |

use seawall_arm::{Esr, ExceptionClass, ExceptionLevel, Pstate, Reg, Target};
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
    /// The guest takes the kernel's own data abort, which is sound, but it could not be turned into what
    /// was asked; or an SError of the same call was not injected.
    #[error("degraded: the guest takes a plain data abort, as {call} failed: {errno}")]
    Degraded {
        /// Which ioctl failed.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
    /// The kernel delivered, but no abort that we know is in the guest's ESR. It was left as it is.
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
    pub const fn errno(&self) -> Errno {
        const EIO: Errno = Errno(5);
        match self {
            Self::Refused(refusal) => Errno(refusal.errno().number()),
            Self::Kernel { errno, .. } => *errno,
            Self::Degraded { .. } | Self::Unexpected { .. } => EIO,
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
        Guest::Aarch64 => aarch64(kernel, last, asked, &dabt)?,
        Guest::Aarch32 => aarch32_prefetch_abort(kernel, &dabt)?,
        Guest::Nested => nested(kernel, last, asked, &dabt)?,
    };
    if serror.serror_pending {
        deliver(kernel, &serror).map_err(degraded)?;
    }
    Ok(Some(delivery))
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

fn aarch64(
    kernel: &impl Kernel,
    last: Last,
    asked: Asked,
    dabt: &VcpuEvents,
) -> Result<AbortDelivery, AssistError> {
    let mark = match last {
        Last::NoWalk => None,
        Last::Any => Some(Mark::put(kernel)?),
    };
    if let Err(error) = deliver(kernel, dabt) {
        mark.map_or(Ok(()), |mark| mark.remove(kernel))?;
        return Err(error);
    }
    let esr = get(kernel, Reg::EsrEl1).map_err(degraded)?;
    if let Some(mark) = mark.filter(|mark| mark.is_there(esr)) {
        mark.remove(kernel)?;
        return Ok(AbortDelivery::NotDelivered);
    }
    rewrite(kernel, Reg::EsrEl1, esr, asked)?;
    Ok(AbortDelivery::Delivered(Target::El1))
}

/// Tells whether the kernel wrote `ESR_EL1`: that register is never 0 after an abort, so a value that could
/// be the kernel's own makes place for 0 meanwhile.
#[derive(Clone, Copy)]
struct Mark {
    before: u64,
}

impl Mark {
    fn put(kernel: &impl Kernel) -> Result<Self, AssistError> {
        let before = get(kernel, Reg::EsrEl1)?;
        if is_kernels_own(before) {
            set(kernel, Reg::EsrEl1, 0)?;
        }
        Ok(Self { before })
    }

    fn is_there(self, esr: u64) -> bool {
        esr == if is_kernels_own(self.before) { 0 } else { self.before }
    }

    fn remove(self, kernel: &impl Kernel) -> Result<(), AssistError> {
        if is_kernels_own(self.before) { set(kernel, Reg::EsrEl1, self.before) } else { Ok(()) }
    }
}

fn nested(
    kernel: &impl Kernel,
    last: Last,
    asked: Asked,
    dabt: &VcpuEvents,
) -> Result<AbortDelivery, AssistError> {
    let before = match last {
        Last::NoWalk => None,
        Last::Any => Some([get(kernel, Reg::Pc)?, get(kernel, Reg::EsrEl1)?, get(kernel, Reg::EsrEl2)?]),
    };
    deliver(kernel, dabt)?;
    let pstate = Pstate::from_bits(get(kernel, Reg::Pstate).map_err(degraded)?);
    let (target, register) = match pstate.exception_level() {
        ExceptionLevel::El2 => (Target::El2, Reg::EsrEl2),
        _ => (Target::El1, Reg::EsrEl1),
    };
    if before.is_none() && asked.is_plain(Guest::Nested) {
        return Ok(AbortDelivery::Delivered(target));
    }
    let after = get(kernel, register).map_err(degraded)?;
    if let Some([pc, esr_el1, esr_el2]) = before {
        let esr = if target == Target::El2 { esr_el2 } else { esr_el1 };
        // A vector that is itself bad leaves PC where it was, and only then is it delivered.
        let same = get(kernel, Reg::Pc).map_err(degraded)? == pc && after == esr;
        let elr = if target == Target::El2 { Reg::ElrEl2 } else { Reg::ElrEl1 };
        if same && !(is_kernels_own(after) && get(kernel, elr).map_err(degraded)? == pc) {
            return Ok(AbortDelivery::NotDelivered);
        }
    }
    rewrite(kernel, register, after, asked)?;
    Ok(AbortDelivery::Delivered(target))
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
fn aarch32_prefetch_abort(kernel: &impl Kernel, dabt: &VcpuEvents) -> Result<AbortDelivery, AssistError> {
    const DFAR: u64 = 0xffff_ffff;
    const TURNED: [Reg; 4] = [Reg::X(20), Reg::Pc, Reg::FarEl1, Reg::EsrEl1];
    let (far, dfsr) = (get(kernel, Reg::FarEl1)?, get(kernel, Reg::EsrEl1)?);
    deliver(kernel, dabt)?;
    let delivered = |reg| get(kernel, reg).map_err(degraded);
    let (lr, pc) = (delivered(Reg::X(20))?, delivered(Reg::Pc)?);
    let (ifar, fsr) = (delivered(Reg::FarEl1)?, delivered(Reg::EsrEl1)?);
    let wanted = [u64::from((lr as u32).wrapping_sub(4)), pc.wrapping_sub(4), ifar << 32 | far & DFAR, dfsr];
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
