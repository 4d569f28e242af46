//! The host's KVM.

use seawall_events::Abi;
use seawall_events::wire::{
    KVM_CAP_ARM_INJECT_EXT_DABT, KVM_CAP_ARM_INJECT_SERROR_ESR, KVM_CAP_ARM_SEA_TO_USER, KVM_CAP_VCPU_EVENTS,
};
use seawall_inject::Way;
use vm_memory::GuestMemoryMmap;

use super::{Error, Vm, VmConfig};
use crate::Errno;

/// `/dev/kvm`.
#[derive(Debug)]
pub struct Kvm {
    pub(super) fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Missing`] if the kernel cannot inject data aborts (before Linux 5.5).
    pub fn open() -> Result<Self, Error> {
        let fd = kvm_ioctls::Kvm::new().map_err(|error| Error::Open(Errno(error.errno())))?;
        let kvm = Self { fd };
        for (capability, number) in [
            ("KVM_CAP_VCPU_EVENTS", KVM_CAP_VCPU_EVENTS),
            ("KVM_CAP_ARM_INJECT_EXT_DABT", KVM_CAP_ARM_INJECT_EXT_DABT),
        ] {
            if kvm.check_extension(number) <= 0 {
                let advice = "expected Linux 5.5 or newer on arm64";
                return Err(Error::Missing { capability, number, advice });
            }
        }
        Ok(kvm)
    }

    /// `KVM_CHECK_EXTENSION`: 0 if the kernel does not have it.
    pub fn check_extension(&self, capability: u32) -> i32 {
        self.fd.check_extension_raw(capability.into())
    }

    /// Returns true if the host has RAS: an ESR may be given for an SError, and by the proposal for an abort.
    pub fn has_ras(&self) -> bool {
        self.check_extension(KVM_CAP_ARM_INJECT_SERROR_ESR) > 0
    }

    /// Returns true if an access to bad memory can become [`Exit::Sea`](seawall_inject::Exit::Sea): Linux
    /// 6.19, and RAS. The kernel has the capability on any CPU, but without RAS nothing brings the abort to
    /// EL2.
    pub fn has_sea_to_user(&self) -> bool {
        self.check_extension(KVM_CAP_ARM_SEA_TO_USER) > 0 && self.has_ras()
    }

    /// `KVM_CREATE_VM` with this memory.
    ///
    /// # Errors
    /// [`Error::Missing`] for a feature that the configuration needs and the kernel lacks, [`Error::Ioctl`].
    pub fn create_vm(&self, memory: GuestMemoryMmap, config: VmConfig) -> Result<Vm, Error> {
        Vm::new(self, memory, config)
    }

    /// The way to the extended ABI on this host. It asks a vCPU of a throwaway VM, because the proposal's
    /// capability has no number.
    ///
    /// # Errors
    /// [`Error::Ioctl`] if no vCPU can be created.
    pub fn way(&self) -> Result<Way, Error> {
        let config =
            VmConfig { abi: Abi::Mainline, sea_to_user: false, nisv_to_user: false, ..VmConfig::default() };
        let vm = self.create_vm(GuestMemoryMmap::new(), config)?;
        Ok(vm.create_vcpu(0)?.injector()?.way)
    }
}
