//! The kernel half as an object file: every entry point that a hypervisor calls, for the vCPU of `own_vcpu`,
//! without generics. `cargo xtask kernel-fit` inspects the object: no path to a panic, no allocator, no
//! floating point, a bounded stack.
#![no_std]
#![forbid(unsafe_code)]

#[path = "own_vcpu/vcpu.rs"]
mod vcpu;

use seawall_arm::{
    DataAbort, Dfsr, Esr, Field, FsrFormat, FsrStatus, Ifsr, InstructionAbort, SError, Syndrome,
};
use seawall_events::kernel::{
    AbortDelivery, Applied, HostFallback, LastFault, PendingSError, SeaPolicy, VcpuConfig, VirtualSError,
};
use seawall_events::wire::{ArmNisv, ArmSea, Mmio, one_reg_id};
use seawall_events::{Abi, MmioExit, NisvExit, Refusal, Refused, Reg, Registers, SeaExit, VcpuEvents};
use zerocopy::transmute;

/// A vCPU of this hypervisor.
pub struct Guest(vcpu::Vcpu);

impl Guest {
    /// All registers zero.
    #[inline(never)]
    pub fn new(config: VcpuConfig) -> Self {
        Self(vcpu::Vcpu {
            regs: [0; 52],
            config,
            last_fault: LastFault::default(),
            serror: VirtualSError::default(),
            mmio_waits: false,
            walk_level: None,
        })
    }

    /// Records the hardware's report at the exit to EL2.
    #[inline(never)]
    pub fn exited(&mut self, fault: LastFault, walk_level: Option<i8>, mmio_waits: bool) {
        self.0.last_fault = fault;
        self.0.walk_level = walk_level;
        self.0.mmio_waits = mmio_waits;
    }

    /// `KVM_GET_ONE_REG`, by [`Reg`].
    #[inline(never)]
    pub fn reg(&self, reg: Reg) -> u64 {
        self.0.reg(reg)
    }

    /// `KVM_SET_ONE_REG`, by [`Reg`].
    #[inline(never)]
    pub fn set_reg(&mut self, reg: Reg, value: u64) {
        self.0.set_reg(reg, value);
    }

    /// `KVM_SET_VCPU_EVENTS` from the bytes of the system call; `None` is a fault of the copy.
    ///
    /// # Errors
    /// As [`seawall_events::kernel::set_events_bytes`].
    #[inline(never)]
    pub fn set_events_bytes(&mut self, abi: Abi, bytes: Option<&[u8; 64]>) -> Result<Applied, Refused> {
        seawall_events::kernel::set_events_bytes(&mut self.0, abi, || bytes.copied())
    }

    /// `KVM_SET_VCPU_EVENTS` without a layout.
    ///
    /// # Errors
    /// As [`seawall_events::kernel::set_events`].
    #[inline(never)]
    pub fn set_events(&mut self, abi: Abi, events: &VcpuEvents) -> Result<Applied, Refused> {
        seawall_events::kernel::set_events(&mut self.0, abi, events)
    }

    /// `KVM_GET_VCPU_EVENTS` as the bytes of the system call.
    ///
    /// # Errors
    /// As [`seawall_events::kernel::get_events_bytes`].
    #[inline(never)]
    pub fn events_bytes(&self, abi: Abi) -> Result<[u8; 64], Refusal> {
        seawall_events::kernel::get_events_bytes(&self.0, abi)
    }

    /// `KVM_GET_VCPU_EVENTS` without a layout.
    ///
    /// # Errors
    /// As [`seawall_events::kernel::get_events`].
    #[inline(never)]
    pub fn events(&self) -> Result<VcpuEvents, Refusal> {
        seawall_events::kernel::get_events(&self.0)
    }

    /// Runs before each entry into the guest.
    #[inline(never)]
    pub fn prepare_run(&mut self) -> PendingSError {
        seawall_events::kernel::prepare_run(&mut self.0)
    }

    /// Handles an external abort of the guest that trapped to EL2.
    ///
    /// # Errors
    /// As [`seawall_events::kernel::handle_guest_sea`].
    #[inline(never)]
    pub fn handle_sea(&mut self, policy: SeaPolicy) -> Result<SeaExit, HostFallback> {
        seawall_events::kernel::handle_guest_sea(&mut self.0, policy)
    }

    /// Handles a guest's fetch from an address without memory.
    #[inline(never)]
    pub fn fetch_from_hole(&mut self) -> AbortDelivery {
        seawall_events::kernel::inject_fetch_from_hole(&mut self.0)
    }

    /// Handles a guest's table walk that reached an address without memory.
    #[inline(never)]
    pub fn walk_into_hole(&mut self) -> AbortDelivery {
        seawall_events::kernel::inject_walk_abort(&mut self.0)
    }
}

/// Returns true if a trap to EL2 is an external abort.
#[inline(never)]
pub fn is_sea(esr: u64) -> bool {
    seawall_events::kernel::is_sea(Esr::from_bits(esr))
}

/// The exit that KVM makes from the hardware's report.
#[inline(never)]
pub fn sea_exit(esr: u64, far: u64, ipa: Option<u64>, guest_has_ras: bool) -> SeaExit {
    SeaExit::from_hardware(Esr::from_bits(esr), far, ipa, guest_has_ras)
}

/// The content of an exit: gpa, gva, true for a fetch, the fault status code.
#[inline(never)]
pub fn sea_fields(exit: &SeaExit) -> (Option<u64>, Option<u64>, bool, u8) {
    (exit.gpa_valid(), exit.gva_valid(), exit.is_fetch(), exit.fault_status().bits())
}

/// The union of `struct kvm_run` for an exit.
#[inline(never)]
pub fn sea_to_kvm_run(exit: SeaExit) -> [u8; 32] {
    transmute!(ArmSea::from(exit))
}

/// A SEA exit from the union of `struct kvm_run`.
#[inline(never)]
pub fn sea_from_kvm_run(union: [u8; 32]) -> SeaExit {
    let wire: ArmSea = transmute!(union);
    wire.into()
}

/// The other exits from the union of `struct kvm_run`.
#[inline(never)]
pub fn accesses_from_kvm_run(mmio: Mmio, nisv: ArmNisv) -> (MmioExit, NisvExit) {
    (mmio.into(), nisv.into())
}

/// The ONE_REG id of a register.
#[inline(never)]
pub fn register_id(reg: Reg) -> Option<u64> {
    one_reg_id(reg)
}

/// Decodes and encodes an ESR.
#[inline(never)]
pub fn esr_round_trip(bits: u64) -> u64 {
    let esr = Esr::from_bits(bits);
    let iss = match esr.syndrome() {
        Syndrome::DataAbort(abort) => DataAbort::from_iss(abort.iss()).iss(),
        Syndrome::InstructionAbort(abort) => InstructionAbort::from_iss(abort.iss()).iss(),
        Syndrome::SError(serror) => SError::from_iss(serror.iss()).iss(),
        Syndrome::Other(iss) => iss,
    };
    Esr::new(esr.ec(), esr.il(), iss).with_iss2(esr.iss2()).bits()
}

/// The last non-zero field of an ESR.
#[inline(never)]
pub fn last_field(bits: u64) -> Option<Field> {
    Esr::from_bits(bits).fields().filter(|field| field.value != 0).last()
}

/// `DFSR` and `IFSR` for a fault in a format; `None` if the format has no code for it.
#[inline(never)]
pub fn fsr_bits(format: FsrFormat, status: FsrStatus) -> (Option<u32>, Option<u32>) {
    (Dfsr::new(format, status).map(Dfsr::bits), Ifsr::new(format, status).map(Ifsr::bits))
}

/// The faults that `DFSR` and `IFSR` name.
#[inline(never)]
pub fn fsr_statuses(dfsr: u32, ifsr: u32) -> (FsrStatus, FsrStatus) {
    (Dfsr::from_bits(dfsr).status(), Ifsr::from_bits(ifsr).status())
}
