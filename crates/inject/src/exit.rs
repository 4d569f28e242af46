//! The reason why a vCPU returned to its VMM.

use seawall_events::{MmioExit, NisvExit, SeaExit};

/// The reason why [`Vcpu::run`](crate::Vcpu::run) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// `KVM_EXIT_ARM_SEA`: the guest consumed memory that the hardware could not correct.
    Sea(SeaExit),
    /// `KVM_EXIT_MMIO`: an access outside RAM with a syndrome that describes it.
    Mmio(MmioExit),
    /// `KVM_EXIT_ARM_NISV`: an access outside RAM that the syndrome does not describe.
    Nisv(NisvExit),
    /// `KVM_EXIT_SYSTEM_EVENT`: a request of the guest by PSCI.
    SystemEvent(SystemEvent),
    /// SIGBUS: the host kernel told the vCPU's thread of a page that it will not map for the guest.
    Sigbus(SigbusExit),
    /// The run was interrupted: by a signal, or because its instruction budget is used up.
    Intr,
    /// The guest waits for an interrupt, and nothing can raise one. KVM blocks in this case; the software
    /// machine knows all its interrupt sources and reports it.
    Idle,
    /// Any other exit: the value of `kvm_run.exit_reason`.
    Other(u32),
}

/// SIGBUS on a vCPU's thread during `KVM_RUN`: a stage 2 fault on a page that the host knows to be bad.
/// Nothing is pending and PC has not moved.
///
/// Source: sigaction(2), `BUS_MCEERR_AR`, `BUS_MCEERR_AO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SigbusExit {
    /// `si_addr`: the start of the bad page in the VMM's address space.
    pub address: u64,
    /// `si_addr_lsb`: log2 of the size of the bad range in bytes (12: a 4 KiB page).
    pub lsb: u8,
    /// True for `BUS_MCEERR_AR`: the guest was about to consume the page. False for `BUS_MCEERR_AO`, an early
    /// warning.
    pub action_required: bool,
}

/// A request by PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SystemEvent {
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`: `SYSTEM_OFF`.
    Shutdown,
    /// `KVM_SYSTEM_EVENT_RESET`: `SYSTEM_RESET`.
    Reset,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    Crash,
    /// Any other type, unchanged.
    Other(u32),
}
