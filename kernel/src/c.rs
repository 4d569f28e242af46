//! What C and Rust share: the layouts of `kernel/linux/seawall.h`, and the functions that Rust calls.

use core::marker::{PhantomData, PhantomPinned};

/// `struct kvm_vcpu`, which only C looks into.
#[repr(C)]
#[derive(Debug)]
pub struct KvmVcpu {
    _opaque: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// `struct seawall_base`: what every call needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// [`config`].
    pub config: u32,
    /// [`serror`].
    pub serror: u32,
    /// `VSESR_EL2` of the host's making.
    pub vsesr: u64,
}

/// Bits of [`Base::config`].
pub mod config {
    /// The host has FEAT_RAS.
    pub const RAS: u32 = 1 << 0;
    /// The guest has MTE.
    pub const MTE: u32 = 1 << 1;
    /// The guest has `SCTLR2_ELx`.
    pub const SCTLR2: u32 = 1 << 2;
    /// The guest has EL2.
    pub const EL2: u32 = 1 << 3;
    /// EL1 is AArch32.
    pub const EL1_32: u32 = 1 << 4;
    /// `KVM_RUN` was called.
    pub const HAS_RUN: u32 = 1 << 5;
}

/// Bits of [`Base::serror`].
pub mod serror {
    /// `HCR_EL2.VSE` of the host's making.
    pub const PENDING: u32 = 1 << 0;
    /// Held back from a virtual EL2.
    pub const HELD: u32 = 1 << 1;
}

/// `struct seawall_fault`: the last exit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`.
    pub far: u64,
    /// The page of `HPFAR_EL2`; [`NO_IPA`] if it was not valid.
    pub ipa: u64,
}

/// KVM's `INVALID_GPA`.
pub const NO_IPA: u64 = u64::MAX;

/// How many registers are copied: `SEAWALL_REGS`.
pub const COUNT: usize = 22;

/// `struct seawall_regs`: a copy of the registers that an injection reads and writes. Those that the vCPU does not have are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The last exit.
    pub fault: Fault,
    /// Bit n: register n was written; [`written`] has more.
    pub written: u64,
    /// By the numbers of `enum seawall_reg`.
    pub reg: [u64; COUNT],
}

/// Bits of [`Registers::written`] that are no register.
pub mod written {
    /// [`Base::serror`](super::Base::serror) and [`Base::vsesr`](super::Base::vsesr) were written.
    pub const SERROR: u64 = 1 << 32;
    /// A waiting MMIO access was dropped.
    pub const NO_MMIO: u64 = 1 << 33;
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
