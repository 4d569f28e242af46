//! What C and Rust share: the layouts of `kernel/linux/seawall.h`, and the functions that Rust calls.

use core::marker::{PhantomData, PhantomPinned};

use seawall_events::wire::ArmSea;

/// `struct kvm_vcpu`, which only C looks into.
#[repr(C)]
#[derive(Debug)]
pub struct KvmVcpu {
    _opaque: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

#[cfg(test)]
impl KvmVcpu {
    /// Of the tests, which have no other.
    pub(crate) const NONE: Self = Self { _opaque: [], _marker: PhantomData };
}

/// `struct seawall_base`: what every call needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// What the vCPU is: the bits of `config`.
    pub config: u32,
    /// What waits: the bits of `serror`.
    pub serror: u32,
    /// `VSESR_EL2` of the host's making.
    pub vsesr: u64,
}

/// Bits of [`Base::config`].
pub(crate) mod config {
    /// The host has FEAT_RAS.
    pub(crate) const RAS: u32 = 1 << 0;
    /// The guest has MTE.
    pub(crate) const MTE: u32 = 1 << 1;
    /// The guest has `SCTLR2_ELx`.
    pub(crate) const SCTLR2: u32 = 1 << 2;
    /// The guest has EL2.
    pub(crate) const EL2: u32 = 1 << 3;
    /// EL1 is AArch32.
    pub(crate) const EL1_32: u32 = 1 << 4;
    /// `KVM_RUN` was called.
    pub(crate) const HAS_RUN: u32 = 1 << 5;
}

/// Bits of [`Base::serror`].
pub(crate) mod serror {
    /// `HCR_EL2.VSE` of the host's making.
    pub(crate) const PENDING: u32 = 1 << 0;
    /// Held back from a virtual EL2.
    pub(crate) const HELD: u32 = 1 << 1;
}

/// `struct seawall_fault`: the last exit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`.
    pub far: u64,
    /// The page of `HPFAR_EL2`; all ones if it was not valid.
    pub ipa: u64,
}

/// `seawall_sea`: `arm_sea` of `struct kvm_run`, as it lies in memory.
pub type Sea = [u64; size_of::<ArmSea>() / 8];

/// KVM's `INVALID_GPA`.
pub(crate) const NO_IPA: u64 = u64::MAX;

/// How many registers are copied: `SEAWALL_REGS`.
pub(crate) const COUNT: usize = 22;

/// `struct seawall_regs`: a copy of the registers that an injection reads and writes. Those that the vCPU does not have are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The last exit.
    pub fault: Fault,
    /// Bit n: register n was written; bit 32: the SError was; bit 33: a waiting MMIO access was dropped.
    pub written: u64,
    /// By the numbers of `enum seawall_reg`.
    pub reg: [u64; COUNT],
}

/// Bits of [`Registers::written`] that are no register.
pub(crate) mod written {
    /// [`Base::serror`](super::Base::serror) and [`Base::vsesr`](super::Base::vsesr) were written.
    pub(crate) const SERROR: u64 = 1 << 32;
    /// A waiting MMIO access was dropped.
    pub(crate) const NO_MMIO: u64 = 1 << 33;
}

#[allow(unsafe_code)]
// SAFETY: the signatures are those of seawall.h. Both sides are given references of one call, with `vcpu->mutex` held, to
// memory of that call; C keeps none of them.
unsafe extern "C" {
    /// Reads the registers that this vCPU has; the others stay as they are.
    pub(crate) safe fn seawall_load(vcpu: &KvmVcpu, registers: &mut Registers);
    /// Writes what [`Registers::written`] names.
    pub(crate) safe fn seawall_store(vcpu: &KvmVcpu, base: &Base, registers: &Registers);
    /// The level at which a walk of stage 1 reads the descriptor; false if it does not.
    pub(crate) safe fn seawall_walk_level(vcpu: &KvmVcpu, va: u64, ipa: u64, level: &mut i32) -> bool;
}
