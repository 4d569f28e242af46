//! Exits that KVM describes to user space in `struct kvm_run`.

use seawall_arm::{Esr, FaultStatus, Syndrome};

use crate::wire::KVM_EXIT_ARM_SEA_FLAG_GPA_VALID;

/// `KVM_EXIT_ARM_SEA`: nothing is pending and PC has not moved, so another run repeats the access.
///
/// Source: api.rst, `KVM_EXIT_ARM_SEA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeaExit {
    /// Bit 0: `gpa` is valid. No other bit is defined.
    pub flags: u64,
    /// EC, IL, FnV, EA, CM, WnR and FSC of `ESR_EL2`, and SET if the VM has RAS.
    pub esr: Esr,
    /// Guest virtual address; valid if and only if FnV is 0.
    pub gva: u64,
    /// Guest physical address, page aligned; valid if [`SeaExit::gpa_valid`].
    pub gpa: u64,
}

impl SeaExit {
    /// EC `[31:26]`, IL `[25]`, FnV `[10]`, EA `[9]`, CM `[8]`, WnR `[6]`, FSC `[5:0]`.
    pub const ESR_MASK: u64 = 0xfe00_0000 | 1 << 10 | 1 << 9 | 1 << 8 | 1 << 6 | 0x3f;
    /// SET `[12:11]`, given only if the VM has RAS.
    pub const ESR_SET_MASK: u64 = 3 << 11;

    /// The exit that KVM makes from the hardware's report at EL2.
    ///
    /// `far` is `FAR_EL2`. `ipa` is the page of `HPFAR_EL2`, or of a translation of the FAR, if there is one;
    /// it is not valid for an abort on a table walk, nor for fault status 0x10 with FnV. For 0x18 KVM passes
    /// on its value, FnV or not, so a VMM should not trust the `gpa` of any exit with FnV.
    #[inline]
    pub const fn from_hardware(esr: Esr, far: u64, ipa: Option<u64>, guest_has_ras: bool) -> Self {
        let mask = if guest_has_ras { Self::ESR_MASK | Self::ESR_SET_MASK } else { Self::ESR_MASK };
        let fnv = esr.bits() >> 10 & 1 != 0;
        let may_have_gpa = match FaultStatus::from_bits(esr.bits() as u8 & 0x3f) {
            FaultStatus::External => !fnv,
            FaultStatus::Ecc => true,
            _ => false,
        };
        let (flags, gpa) = match ipa {
            Some(ipa) if may_have_gpa => (KVM_EXIT_ARM_SEA_FLAG_GPA_VALID, ipa & !0xfff),
            _ => (0, 0),
        };
        Self { flags, esr: Esr::from_bits(esr.bits() & mask), gva: if fnv { 0 } else { far }, gpa }
    }

    /// The guest physical address, if the exit has one.
    pub const fn gpa_valid(&self) -> Option<u64> {
        if self.flags & KVM_EXIT_ARM_SEA_FLAG_GPA_VALID != 0 { Some(self.gpa) } else { None }
    }

    /// The guest virtual address, if FnV is 0.
    pub const fn gva_valid(&self) -> Option<u64> {
        if self.esr.bits() >> 10 & 1 == 0 { Some(self.gva) } else { None }
    }

    /// Returns true if the guest was fetching an instruction.
    pub const fn is_fetch(&self) -> bool {
        matches!(self.esr.syndrome(), Syndrome::InstructionAbort(_))
    }

    /// DFSC or IFSC.
    pub const fn fault_status(&self) -> FaultStatus {
        FaultStatus::from_bits(self.esr.bits() as u8 & 0x3f)
    }
}

/// `KVM_EXIT_MMIO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmioExit {
    /// Guest physical address.
    pub phys_addr: u64,
    /// The data written, little-endian; zero for a read.
    pub data: [u8; 8],
    /// Length in bytes: 1, 2, 4 or 8.
    pub len: u32,
    /// A write, not a read.
    pub is_write: bool,
}

/// `KVM_EXIT_ARM_NISV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NisvExit {
    /// ISS of `ESR_EL2`, ISV 0.
    pub esr_iss: u64,
    /// The faulting guest physical address.
    pub fault_ipa: u64,
}
