//! The vCPU as the kernel half sees it.

use seawall_arm::{Esr, Registers};

/// The configuration of a VM at its creation, as far as events depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct VcpuConfig {
    /// The host has `FEAT_RAS`: an ESR may be given.
    pub ras: bool,
    /// The guest has MTE: exception entry sets PSTATE.TCO.
    pub mte: bool,
    /// The guest has `SCTLR2_ELx` (`ID_AA64MMFR3_EL1.SCTLRX`).
    pub sctlr2: bool,
    /// The guest has EL2 (nested virtualisation).
    pub el2: bool,
    /// EL1 is AArch32 (`KVM_ARM_VCPU_EL1_32BIT`).
    pub el1_aarch32: bool,
}

/// The hardware's report at the last exit that was an abort; zero before any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LastFault {
    /// `ESR_EL2` of the last exit, abort or not.
    pub esr: Esr,
    /// `FAR_EL2` of the last abort. It is stale after later exits of other kinds.
    pub far: u64,
    /// The page of `HPFAR_EL2`; `None` if it was not valid.
    pub ipa: Option<u64>,
}

/// A virtual SError of the guest that it has not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct VirtualSError {
    /// `HCR_EL2.VSE` with which the host runs the guest: the CPU takes the SError once it is unmasked.
    pub pending: bool,
    /// `VSESR_EL2`, `[24:0]`.
    pub vsesr: u64,
    /// True if the host holds it back because virtual EL2 cannot take it yet; the host tries again at each
    /// run.
    pub held_for_el2: bool,
}

/// A vCPU that the kernel half works on: registers, and the kernel's state beside them.
///
/// [`Reg::HcrEl2`](crate::Reg::HcrEl2) is a guest hypervisor's own `HCR_EL2`, not the host's value while the
/// guest runs; of the latter only [`VirtualSError`] matters here.
pub trait VcpuState: Registers {
    /// The VM's configuration at its creation.
    fn config(&self) -> VcpuConfig;

    /// The last abort.
    fn last_fault(&self) -> LastFault;

    /// Walks the guest's stage 1 tables for `va` and returns the level, -1 to 3, that reads the descriptor at
    /// `descriptor_ipa`; `None` if the walk does not read it. With stage 1 off, which KVM does not expect,
    /// the answer is 0 if `va` is a physical address.
    fn walk_level(&self, va: u64, descriptor_ipa: u64) -> Option<i8>;

    /// Drops an MMIO access that waits for its completion: the instruction does not retire.
    fn drop_mmio(&mut self);

    /// The virtual SError.
    fn serror(&self) -> VirtualSError;

    /// Sets the virtual SError.
    fn set_serror(&mut self, serror: VirtualSError);

    /// Returns true after `KVM_ARM_VCPU_INIT`.
    fn is_initialised(&self) -> bool {
        true
    }

    /// Returns true once `KVM_RUN` was called, even with an immediate exit. Before that, KVM's exception
    /// entry takes an AArch32 EL1 for AArch64.
    fn has_run(&self) -> bool {
        true
    }
}
