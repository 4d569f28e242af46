//! What the kernel half needs to know of a vCPU.

use seawall_arm::{Esr, Registers};

/// What a VM was created with, as far as events depend on it.
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

/// What the hardware reported at the last exit that was an abort; zero before any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LastFault {
    /// `ESR_EL2` of the last exit, be it an abort or not.
    pub esr: Esr,
    /// `FAR_EL2` of the last abort. It is stale when later exits were something else.
    pub far: u64,
    /// The page of `HPFAR_EL2`; `None` if it was not valid.
    pub ipa: Option<u64>,
}

/// A virtual SError that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct VirtualSError {
    /// `HCR_EL2.VSE` as the host runs the guest with it: the CPU takes the SError once it is unmasked.
    pub pending: bool,
    /// `VSESR_EL2`, `[24:0]`.
    pub vsesr: u64,
    /// Held back by the host because virtual EL2 cannot take it yet; tried again at each run.
    pub held_for_el2: bool,
}

/// A vCPU that the kernel half can work on: registers, and what the kernel keeps beside them.
///
/// [`Reg::HcrEl2`](crate::Reg::HcrEl2) is a guest hypervisor's own `HCR_EL2`, not the one that the host
/// runs the guest with; of that, only [`VirtualSError`] matters here.
pub trait VcpuState: Registers {
    /// What the VM was created with.
    fn config(&self) -> VcpuConfig;

    /// What the last abort was.
    fn last_fault(&self) -> LastFault;

    /// Walks the guest's stage 1 tables for `va` and gives the level, -1 to 3, at which the descriptor
    /// at `descriptor_ipa` is read; `None` if the walk does not read it. With stage 1 off, which KVM does not
    /// expect, its answer is 0 if `va` is a physical address.
    fn walk_level(&self, va: u64, descriptor_ipa: u64) -> Option<i8>;

    /// Forgets an MMIO access that waits for its completion: the instruction does not retire.
    fn drop_mmio(&mut self);

    /// The virtual SError.
    fn serror(&self) -> VirtualSError;

    /// Sets the virtual SError.
    fn set_serror(&mut self, serror: VirtualSError);

    /// Whether `KVM_ARM_VCPU_INIT` was done.
    fn is_initialised(&self) -> bool {
        true
    }

    /// Whether `KVM_RUN` was called, be it to exit at once. Before, KVM's exception entry takes an AArch32
    /// EL1 for AArch64.
    fn has_run(&self) -> bool {
        true
    }
}
