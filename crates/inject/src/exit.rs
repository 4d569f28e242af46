//! Why a vCPU came back to its VMM.

use seawall_events::{MmioExit, NisvExit, SeaExit};

/// Why [`Vcpu::run`](crate::Vcpu::run) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// `KVM_EXIT_ARM_SEA`: the guest consumed memory that the hardware could not correct.
    Sea(SeaExit),
    /// `KVM_EXIT_MMIO`: an access outside RAM with a syndrome that describes it.
    Mmio(MmioExit),
    /// `KVM_EXIT_ARM_NISV`: an access outside RAM that the syndrome does not describe.
    Nisv(NisvExit),
    /// `KVM_EXIT_SYSTEM_EVENT`: the guest asked by PSCI.
    SystemEvent(SystemEvent),
    /// The host kernel told the vCPU's thread by SIGBUS of a page that it will not map for the guest.
    Sigbus(SigbusExit),
    /// The run was interrupted: by a signal, or because its budget of instructions is spent.
    Intr,
    /// The guest waits for an interrupt, and nothing can raise one. KVM blocks here; the software
    /// machine, which knows all its sources, says so.
    Idle,
    /// An exit that is none of these: `kvm_run.exit_reason`, as it came.
    Other(u32),
}

/// SIGBUS on a vCPU's thread during `KVM_RUN`: a stage 2 fault on a page that the host knows to be bad.
/// Nothing is pended and PC has not moved.
///
/// Source: sigaction(2), `BUS_MCEERR_AR`, `BUS_MCEERR_AO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SigbusExit {
    /// `si_addr`: where the bad page begins in the VMM's address space.
    pub address: u64,
    /// `si_addr_lsb`: log2 of the size of what is bad, bytes (12: a 4 KiB page).
    pub lsb: u8,
    /// `BUS_MCEERR_AR`: the guest was about to consume it. If not (`BUS_MCEERR_AO`), an early warning.
    pub action_required: bool,
}

/// What PSCI was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SystemEvent {
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`: `SYSTEM_OFF`.
    Shutdown,
    /// `KVM_SYSTEM_EVENT_RESET`: `SYSTEM_RESET`.
    Reset,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    Crash,
    /// Any other type, as it came.
    Other(u32),
}
