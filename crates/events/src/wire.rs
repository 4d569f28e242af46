//! The system call interface: struct layouts, exit reasons, capability and ioctl numbers of KVM/arm64, and
//! the ONE_REG ids of the registers that aborts change. Little-endian.
//!
//! Source: Linux uapi `linux/kvm.h` and `asm/kvm.h`; api.rst, `KVM_GET_VCPU_EVENTS`, `KVM_EXIT_ARM_SEA`; the
//! proposal of 2025-07-31.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{MmioExit, NisvExit, Refusal, SeaExit, VcpuEvents};

/// Size of `struct kvm_vcpu_events`, in every layout.
pub const VCPU_EVENTS_SIZE: usize = 64;

/// Mainline's `struct kvm_vcpu_events` (Linux 7.2, 7.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MainlineEvents {
    /// `exception.serror_pending`.
    pub serror_pending: u8,
    /// `exception.serror_has_esr`.
    pub serror_has_esr: u8,
    /// `exception.ext_dabt_pending`.
    pub ext_dabt_pending: u8,
    /// `exception.pad`, zero.
    pub pad: [u8; 5],
    /// `exception.serror_esr`.
    pub serror_esr: U64,
    /// `reserved`, zero.
    pub reserved: [U32; 12],
}

/// The proposal's `struct kvm_vcpu_events`, as posted.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PostedEvents {
    /// `exception.serror_pending`.
    pub serror_pending: u8,
    /// `exception.serror_has_esr`.
    pub serror_has_esr: u8,
    /// `exception.ext_dabt_pending`.
    pub ext_dabt_pending: u8,
    /// `exception.ext_iabt_pending`.
    pub ext_iabt_pending: u8,
    /// `exception.ext_abt_has_esr`.
    pub ext_abt_has_esr: u8,
    /// `exception.pad`, zero.
    pub pad: [u8; 3],
    /// `exception.serror_esr`.
    pub serror_esr: U64,
    /// `exception.ext_abt_esr`.
    pub ext_abt_esr: U64,
    /// `reserved`, zero.
    pub reserved: [U32; 10],
}

/// The thread's other candidate: `reserved` stays in place, and `ext_abt_esr` comes last.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TrailingEvents {
    /// `exception.serror_pending`.
    pub serror_pending: u8,
    /// `exception.serror_has_esr`.
    pub serror_has_esr: u8,
    /// `exception.ext_dabt_pending`.
    pub ext_dabt_pending: u8,
    /// `exception.ext_iabt_pending`.
    pub ext_iabt_pending: u8,
    /// `exception.ext_abt_has_esr`.
    pub ext_abt_has_esr: u8,
    /// `exception.pad`, zero.
    pub pad: [u8; 3],
    /// `exception.serror_esr`.
    pub serror_esr: U64,
    /// `reserved`, zero.
    pub reserved: [U32; 10],
    /// `ext_abt_esr`.
    pub ext_abt_esr: U64,
}

const _: () = {
    assert!(size_of::<MainlineEvents>() == VCPU_EVENTS_SIZE);
    assert!(size_of::<PostedEvents>() == VCPU_EVENTS_SIZE);
    assert!(size_of::<TrailingEvents>() == VCPU_EVENTS_SIZE);
    assert!(offset_of!(MainlineEvents, pad) == 3);
    assert!(offset_of!(MainlineEvents, serror_esr) == 8);
    assert!(offset_of!(MainlineEvents, reserved) == 16);
    assert!(offset_of!(PostedEvents, ext_iabt_pending) == 3);
    assert!(offset_of!(PostedEvents, ext_abt_has_esr) == 4);
    assert!(offset_of!(PostedEvents, pad) == 5);
    assert!(offset_of!(PostedEvents, serror_esr) == 8);
    assert!(offset_of!(PostedEvents, ext_abt_esr) == 16);
    assert!(offset_of!(PostedEvents, reserved) == 24);
    assert!(offset_of!(TrailingEvents, reserved) == 16);
    assert!(offset_of!(TrailingEvents, ext_abt_esr) == 56);
};

/// Checks the reserved words first, then the pad bytes, as the kernel does. They are almost always zero, so all are checked
/// at once before the one that is not is looked for.
#[inline]
fn zero(reserved: &[U32], reserved_at: usize, pad: &[u8], pad_at: usize) -> Result<(), Refusal> {
    let any_word = reserved.iter().fold(0, |any, word| any | word.get());
    if any_word | u32::from(pad.iter().fold(0, |any, byte| any | byte)) == 0 {
        return Ok(());
    }
    if let Some(n) = reserved.iter().position(|word| word.get() != 0) {
        return Err(Refusal::ReservedNotZero { offset: reserved_at + 4 * n });
    }
    if let Some(n) = pad.iter().position(|byte| *byte != 0) {
        return Err(Refusal::PadNotZero { offset: pad_at + n });
    }
    Ok(())
}

impl MainlineEvents {
    /// # Errors
    /// [`Refusal::NotInMainline`] for an instruction abort or an ESR for an abort.
    #[inline]
    pub(crate) fn new(events: &VcpuEvents) -> Result<Self, Refusal> {
        if events.ext_iabt_pending || events.ext_abt_has_esr || events.ext_abt_esr != 0 {
            return Err(Refusal::NotInMainline);
        }
        Ok(Self {
            serror_pending: events.serror_pending.into(),
            serror_has_esr: events.serror_has_esr.into(),
            ext_dabt_pending: events.ext_dabt_pending.into(),
            pad: [0; 5],
            serror_esr: events.serror_esr.into(),
            reserved: [U32::ZERO; 12],
        })
    }

    #[inline]
    pub(crate) fn events(&self) -> Result<VcpuEvents, Refusal> {
        zero(&self.reserved, 16, &self.pad, 3)?;
        Ok(VcpuEvents {
            serror_pending: self.serror_pending != 0,
            serror_has_esr: self.serror_has_esr != 0,
            ext_dabt_pending: self.ext_dabt_pending != 0,
            ext_iabt_pending: false,
            ext_abt_has_esr: false,
            serror_esr: self.serror_esr.get(),
            ext_abt_esr: 0,
        })
    }
}

macro_rules! extended_events {
    ($wire:ident, reserved at $reserved_at:literal) => {
        impl $wire {
            #[inline]
            pub(crate) fn new(events: &VcpuEvents) -> Self {
                Self {
                    serror_pending: events.serror_pending.into(),
                    serror_has_esr: events.serror_has_esr.into(),
                    ext_dabt_pending: events.ext_dabt_pending.into(),
                    ext_iabt_pending: events.ext_iabt_pending.into(),
                    ext_abt_has_esr: events.ext_abt_has_esr.into(),
                    pad: [0; 3],
                    serror_esr: events.serror_esr.into(),
                    ext_abt_esr: events.ext_abt_esr.into(),
                    reserved: [U32::ZERO; 10],
                }
            }

            #[inline]
            pub(crate) fn events(&self) -> Result<VcpuEvents, Refusal> {
                zero(&self.reserved, $reserved_at, &self.pad, 5)?;
                Ok(VcpuEvents {
                    serror_pending: self.serror_pending != 0,
                    serror_has_esr: self.serror_has_esr != 0,
                    ext_dabt_pending: self.ext_dabt_pending != 0,
                    ext_iabt_pending: self.ext_iabt_pending != 0,
                    ext_abt_has_esr: self.ext_abt_has_esr != 0,
                    serror_esr: self.serror_esr.get(),
                    ext_abt_esr: self.ext_abt_esr.get(),
                })
            }
        }
    };
}

extended_events!(PostedEvents, reserved at 24);
extended_events!(TrailingEvents, reserved at 16);

/// Offset of `immediate_exit` (u8) in `struct kvm_run`.
pub const KVM_RUN_IMMEDIATE_EXIT: usize = 0x01;
/// Offset of `exit_reason` (u32) in `struct kvm_run`.
pub const KVM_RUN_EXIT_REASON: usize = 0x08;
/// Offset of the union of exits in `struct kvm_run`.
pub const KVM_RUN_UNION: usize = 0x20;

/// `KVM_EXIT_MMIO`.
pub const KVM_EXIT_MMIO: u32 = 6;
/// `KVM_EXIT_INTR`.
pub const KVM_EXIT_INTR: u32 = 10;
/// `KVM_EXIT_SYSTEM_EVENT`.
pub const KVM_EXIT_SYSTEM_EVENT: u32 = 24;
/// `KVM_EXIT_ARM_NISV`.
pub const KVM_EXIT_ARM_NISV: u32 = 28;
/// `KVM_EXIT_ARM_SEA`.
pub const KVM_EXIT_ARM_SEA: u32 = 41;
/// `KVM_EXIT_ARM_LDST64B`: same shape as NISV.
pub const KVM_EXIT_ARM_LDST64B: u32 = 42;

/// `KVM_EXIT_ARM_SEA_FLAG_GPA_VALID`, the only flag of a SEA exit.
pub const KVM_EXIT_ARM_SEA_FLAG_GPA_VALID: u64 = 1 << 0;

/// `KVM_CAP_VCPU_EVENTS`.
pub const KVM_CAP_VCPU_EVENTS: u32 = 41;
/// `KVM_CAP_ARM_INJECT_SERROR_ESR`: the host has RAS.
pub const KVM_CAP_ARM_INJECT_SERROR_ESR: u32 = 158;
/// `KVM_CAP_ARM_NISV_TO_USER`.
pub const KVM_CAP_ARM_NISV_TO_USER: u32 = 177;
/// `KVM_CAP_ARM_INJECT_EXT_DABT`.
pub const KVM_CAP_ARM_INJECT_EXT_DABT: u32 = 178;
/// `KVM_CAP_ARM_SEA_TO_USER`. The proposal's `KVM_CAP_ARM_INJECT_EXT_IABT` was posted with this number and
/// has none today, so capability 245 does not announce the extended ABI.
pub const KVM_CAP_ARM_SEA_TO_USER: u32 = 245;

/// `KVM_RUN`.
pub const KVM_RUN: u32 = 0xae80;
/// `KVM_GET_VCPU_EVENTS`.
pub const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
/// `KVM_SET_VCPU_EVENTS`.
pub const KVM_SET_VCPU_EVENTS: u32 = 0x4040_aea0;
/// `KVM_ENABLE_CAP`.
pub const KVM_ENABLE_CAP: u32 = 0x4068_aea3;
/// `KVM_GET_ONE_REG`.
pub const KVM_GET_ONE_REG: u32 = 0x4010_aeab;
/// `KVM_SET_ONE_REG`.
pub const KVM_SET_ONE_REG: u32 = 0x4010_aeac;
/// `KVM_ARM_VCPU_INIT`.
pub const KVM_ARM_VCPU_INIT: u32 = 0x4020_aeae;
/// `KVM_ARM_PREFERRED_TARGET`.
pub const KVM_ARM_PREFERRED_TARGET: u32 = 0x8020_aeaf;

/// The `arm_sea` member of the union of `struct kvm_run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArmSea {
    /// Bit 0: `gpa` is valid.
    pub flags: U64,
    /// The masked `ESR_EL2`.
    pub esr: U64,
    /// Guest virtual address, valid if FnV of `esr` is 0.
    pub gva: U64,
    /// Guest physical address, page aligned.
    pub gpa: U64,
}

/// The `mmio` member of the union of `struct kvm_run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Mmio {
    /// Guest physical address.
    pub phys_addr: U64,
    /// The data written, or the data to fill in for a read.
    pub data: [u8; 8],
    /// Length in bytes: 1, 2, 4 or 8.
    pub len: U32,
    /// Not zero for a write.
    pub is_write: u8,
}

/// The `arm_nisv` member of the union of `struct kvm_run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArmNisv {
    /// ISS of `ESR_EL2`.
    pub esr_iss: U64,
    /// The faulting guest physical address.
    pub fault_ipa: U64,
}

const _: () = {
    assert!(size_of::<ArmSea>() == 32);
    assert!(KVM_RUN_UNION + offset_of!(ArmSea, esr) == 0x28);
    assert!(KVM_RUN_UNION + offset_of!(ArmSea, gva) == 0x30);
    assert!(KVM_RUN_UNION + offset_of!(ArmSea, gpa) == 0x38);
    assert!(KVM_RUN_UNION + offset_of!(Mmio, data) == 0x28);
    assert!(KVM_RUN_UNION + offset_of!(Mmio, len) == 0x30);
    assert!(KVM_RUN_UNION + offset_of!(Mmio, is_write) == 0x34);
    assert!(KVM_RUN_UNION + offset_of!(ArmNisv, fault_ipa) == 0x28);
};

impl From<SeaExit> for ArmSea {
    fn from(exit: SeaExit) -> Self {
        Self {
            flags: exit.flags.into(),
            esr: exit.esr.bits().into(),
            gva: exit.gva.into(),
            gpa: exit.gpa.into(),
        }
    }
}

impl From<ArmSea> for SeaExit {
    fn from(wire: ArmSea) -> Self {
        Self {
            flags: wire.flags.get(),
            esr: seawall_arm::Esr::from_bits(wire.esr.get()),
            gva: wire.gva.get(),
            gpa: wire.gpa.get(),
        }
    }
}

impl From<Mmio> for MmioExit {
    fn from(wire: Mmio) -> Self {
        Self {
            phys_addr: wire.phys_addr.get(),
            data: wire.data,
            len: wire.len.get(),
            is_write: wire.is_write != 0,
        }
    }
}

impl From<ArmNisv> for NisvExit {
    fn from(wire: ArmNisv) -> Self {
        Self { esr_iss: wire.esr_iss.get(), fault_ipa: wire.fault_ipa.get() }
    }
}

/// ONE_REG ids: `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE`.
const CORE: u64 = 0x6030_0000_0010_0000;
/// ONE_REG ids: `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG`.
const SYSREG: u64 = 0x6030_0000_0013_0000;

/// The ONE_REG id of a system register, by its number ([`sysreg`](seawall_arm::sysreg)).
pub const fn system_reg_id(encoding: u16) -> u64 {
    SYSREG | encoding as u64
}

/// The ONE_REG id of a register; `None` for a register that KVM does not have there.
pub const fn one_reg_id(reg: crate::Reg) -> Option<u64> {
    use crate::Reg;
    match reg {
        Reg::X(n) if n <= 30 => Some(CORE + 2 * n as u64),
        // KVM treats these as core registers; for the CPU some of them are system registers.
        Reg::SpEl0 => Some(CORE + 0x3e),
        Reg::Pc => Some(CORE + 0x40),
        Reg::Pstate => Some(CORE + 0x42),
        Reg::SpEl1 => Some(CORE + 0x44),
        Reg::ElrEl1 => Some(CORE + 0x46),
        Reg::SpsrEl1 => Some(CORE + 0x48),
        Reg::SpsrAbt => Some(CORE + 0x4a),
        reg => match reg.encoding() {
            Some(encoding) => Some(system_reg_id(encoding)),
            None => None,
        },
    }
}
