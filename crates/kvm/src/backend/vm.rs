//! A virtual machine: its configuration and its memory.

use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::{
    KVM_ARM_VCPU_EL1_32BIT, KVM_ARM_VCPU_HAS_EL2, KVM_ARM_VCPU_HAS_EL2_E2H0, KVM_ARM_VCPU_POWER_OFF,
    KVM_ARM_VCPU_PSCI_0_2, kvm_enable_cap, kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::VmFd;
use seawall_events::wire::{KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_SEA_TO_USER};
use seawall_events::{Abi, Layout};
use seawall_host::{Backing, HostKnows, sigbus};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use super::{Error, Kvm, Vcpu, failed};

/// The kind of the vCPUs' EL1, with or without an EL2 above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum El1 {
    /// AArch64, no EL2.
    #[default]
    Aarch64,
    /// AArch32 (`KVM_ARM_VCPU_EL1_32BIT`).
    Aarch32,
    /// AArch64 below a virtual EL2 (`KVM_ARM_VCPU_HAS_EL2`): a guest hypervisor. It needs a GIC
    /// ([`Vm::create_gic`]); without one KVM_RUN fails with EAGAIN. Its `HCR_EL2.E2H` is 1.
    BelowEl2,
    /// The same with `HCR_EL2.E2H` 0 (`KVM_ARM_VCPU_HAS_EL2_E2H0`).
    BelowEl2E2h0,
}

/// The configuration of a [`Vm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// The `struct kvm_vcpu_events` of its vCPUs. The extended one comes from the kernel if it has it,
    /// otherwise from [`seawall_inject`].
    pub abi: Abi,
    /// `KVM_CAP_ARM_SEA_TO_USER`. If false, KVM turns SEAs into SErrors.
    pub sea_to_user: bool,
    /// `KVM_CAP_ARM_NISV_TO_USER`. If false, such an access fails the run with ENOSYS.
    pub nisv_to_user: bool,
    /// True if SIGBUS during a run becomes [`Exit::Sigbus`](seawall_inject::Exit::Sigbus), by
    /// [`sigbus::install`]. If false, the program's own handler calls [`sigbus::handle`].
    pub catch_sigbus: bool,
    /// The kind of the vCPUs.
    pub el1: El1,
}

impl Default for VmConfig {
    /// The extended ABI as posted, both exits enabled, SIGBUS caught, AArch64.
    fn default() -> Self {
        Self {
            abi: Abi::Extended(Layout::Posted),
            sea_to_user: true,
            nisv_to_user: true,
            catch_sigbus: true,
            el1: El1::Aarch64,
        }
    }
}

/// A virtual machine.
#[derive(Debug)]
pub struct Vm {
    pub(super) fd: Arc<VmFd>,
    pub(super) memory: GuestMemoryMmap,
    pub(super) config: VmConfig,
    pub(super) ras: bool,
}

/// `KVM_VM_TYPE_ARM_IPA_SIZE`: 40 bits of guest physical addresses, KVM's own default, or more if the memory
/// needs more. It is not the host's limit, which `kvm-ioctls` would use: when the VM ends, KVM walks the
/// whole range GiB by GiB, and 48 bits of it take half a second in the lab, 52 bits several.
fn vm_type(host_limit: i32, last_address: GuestAddress) -> u64 {
    const DEFAULT: u32 = 40;
    // 0: an older kernel, which has only the default.
    let Some(limit) = u32::try_from(host_limit).ok().filter(|limit| *limit > 0) else { return 0 };
    let needed = 64 - last_address.0.leading_zeros();
    needed.max(DEFAULT).min(limit).into()
}

impl Vm {
    pub(super) fn new(kvm: &Kvm, memory: GuestMemoryMmap, config: VmConfig) -> Result<Self, Error> {
        let wanted = [
            (
                config.sea_to_user,
                "KVM_CAP_ARM_SEA_TO_USER",
                KVM_CAP_ARM_SEA_TO_USER,
                "expected Linux 6.19 or newer on a CPU with RAS; without it an SEA panics the guest",
            ),
            (
                config.nisv_to_user,
                "KVM_CAP_ARM_NISV_TO_USER",
                KVM_CAP_ARM_NISV_TO_USER,
                "expected Linux 5.5 or newer",
            ),
        ];
        for (_, capability, number, advice) in wanted.iter().filter(|(wanted, ..)| *wanted) {
            // Without RAS the kernel accepts this capability but no exit ever comes.
            let there = *number != KVM_CAP_ARM_SEA_TO_USER || kvm.has_sea_to_user();
            if !there || kvm.check_extension(*number) <= 0 {
                return Err(Error::Missing { capability, number: *number, advice });
            }
        }
        let vm_type = vm_type(kvm.fd.get_host_ipa_limit(), memory.last_addr());
        let fd = kvm.fd.create_vm_with_type(vm_type).map_err(failed("KVM_CREATE_VM"))?;
        for (_, _, number, _) in wanted.iter().filter(|(wanted, ..)| *wanted) {
            let cap = kvm_enable_cap { cap: *number, ..Default::default() };
            fd.enable_cap(&cap).map_err(failed("KVM_ENABLE_CAP"))?;
        }
        if config.catch_sigbus {
            sigbus::install()?;
        } else {
            sigbus::leave_to_program();
        }
        let vm = Self { fd: Arc::new(fd), memory, config, ras: kvm.has_ras() };
        for (slot, region) in vm.memory.iter().enumerate() {
            let address = region.get_host_address(MemoryRegionAddress(0));
            let (gpa, size) = (region.start_addr().0, region.len());
            let address = address.map_err(|_| Error::NotInMemory { gpa, size })?;
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                guest_phys_addr: gpa,
                memory_size: size,
                userspace_addr: address as u64,
                flags: 0,
            };
            // SAFETY: the mapping lives as long as `memory`, which the VM and each of its vCPUs hold; KVM
            // uses it no longer than while one of their file descriptors is open.
            unsafe { vm.fd.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(vm)
    }

    /// The VM's configuration.
    pub fn config(&self) -> &VmConfig {
        &self.config
    }

    /// Returns true if the host has RAS.
    pub fn has_ras(&self) -> bool {
        self.ras
    }

    /// The guest's memory, for the host to read and write.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Creates and initialises a vCPU in its reset state, with PSCI by HVC.
    ///
    /// # Errors
    /// [`Error::Ioctl`]: EINVAL from `KVM_ARM_VCPU_INIT` if the host's CPU lacks the [`El1`].
    pub fn create_vcpu(&self, index: u64) -> Result<Vcpu, Error> {
        let mut vcpu = self.create_uninitialised_vcpu(index)?;
        vcpu.init(&self.vcpu_init()?)?;
        Ok(vcpu)
    }

    /// Creates and initialises a vCPU that is off until the guest turns it on by PSCI `CPU_ON`. Its run waits
    /// for that.
    ///
    /// # Errors
    /// As [`Vm::create_vcpu`].
    pub fn create_vcpu_off(&self, index: u64) -> Result<Vcpu, Error> {
        let mut vcpu = self.create_uninitialised_vcpu(index)?;
        let mut init = self.vcpu_init()?;
        if let Some(features) = init.features.first_mut() {
            *features |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        vcpu.init(&init)?;
        Ok(vcpu)
    }

    /// Creates a vCPU without `KVM_ARM_VCPU_INIT`: almost every call on it fails with ENOEXEC.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn create_uninitialised_vcpu(&self, index: u64) -> Result<Vcpu, Error> {
        let fd = self.fd.create_vcpu(index).map_err(failed("KVM_CREATE_VCPU"))?;
        Ok(Vcpu::new(fd, self))
    }

    pub(super) fn vcpu_init(&self) -> Result<kvm_vcpu_init, Error> {
        let mut init = kvm_vcpu_init::default();
        self.fd.get_preferred_target(&mut init).map_err(failed("KVM_ARM_PREFERRED_TARGET"))?;
        if let Some(features) = init.features.first_mut() {
            *features |= 1 << KVM_ARM_VCPU_PSCI_0_2;
            *features |= match self.config.el1 {
                El1::Aarch64 => 0,
                El1::Aarch32 => 1 << KVM_ARM_VCPU_EL1_32BIT,
                El1::BelowEl2 => 1 << KVM_ARM_VCPU_HAS_EL2,
                El1::BelowEl2E2h0 => 1 << KVM_ARM_VCPU_HAS_EL2 | 1 << KVM_ARM_VCPU_HAS_EL2_E2H0,
            };
        }
        Ok(init)
    }

    /// Reads guest memory that may be bad: see [`seawall_host::read`].
    ///
    /// # Errors
    /// [`Error::NotInMemory`]; [`Error::BadMemory`].
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let from = self.host_address(gpa, bytes.len() as u64)?;
        // SAFETY: the range is a part of a mapping of ours that stays.
        unsafe { seawall_host::read(from, bytes)? };
        Ok(())
    }

    /// From now on the host takes these pages for bad: see [`seawall_host::hwpoison`].
    ///
    /// # Errors
    /// [`Error::NotInMemory`], [`Error::Host`].
    pub fn hwpoison(&self, gpa: u64, size: u64) -> Result<(), Error> {
        seawall_host::hwpoison(self.host_range(gpa, size)?)?;
        Ok(())
    }

    /// Replaces these pages by fresh zeroed ones: bad memory is healed, and its content is lost. Returns how
    /// the host was told of the old pages before. The VM's memory must be private and anonymous, as
    /// [`GuestMemoryMmap::from_ranges`] makes it, and the guest must not run meanwhile. See
    /// [`seawall_host::heal`].
    ///
    /// # Errors
    /// [`Error::NotInMemory`], [`Error::Host`].
    pub fn heal(&self, gpa: u64, size: u64) -> Result<HostKnows, Error> {
        let range = self.host_range(gpa, size)?;
        // SAFETY: the range is a part of a mapping of ours that stays; guest memory is only ever accessed as
        // volatile bytes, so new zeroed pages are as good as old ones.
        Ok(unsafe { seawall_host::heal(range, Backing::ANONYMOUS)? })
    }

    /// Makes holes of these ranges of guest memory (guest physical): their content is lost, and an access
    /// ends in [`Exit::Sigbus`](seawall_inject::Exit::Sigbus) until [`Vm::heal`]. The guest must not run
    /// meanwhile. See [`seawall_host::make_holes`].
    ///
    /// # Errors
    /// [`Error::NotInMemory`], [`Error::Host`].
    pub fn make_holes(&self, ranges: &[Range<u64>]) -> Result<(), Error> {
        let in_host =
            |range: &Range<u64>| self.host_range(range.start, range.end.saturating_sub(range.start));
        let ranges = ranges.iter().map(in_host).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the ranges are parts of a mapping of ours that stays, and that is only ever accessed as
        // volatile bytes: an access now gets zeroes, or a SIGBUS.
        unsafe { seawall_host::make_holes(&ranges)? };
        Ok(())
    }

    /// The address of guest memory in this process.
    fn host_range(&self, gpa: u64, size: u64) -> Result<Range<u64>, Error> {
        let start = self.host_address(gpa, size)? as u64;
        Ok(start..start + size)
    }

    /// The address of guest memory in this process.
    ///
    /// # Errors
    /// [`Error::NotInMemory`].
    pub fn host_address(&self, gpa: u64, size: u64) -> Result<*mut u8, Error> {
        let slice = self.memory.get_slice(GuestAddress(gpa), size as usize);
        slice.map(|slice| slice.ptr_guard_mut().as_ptr()).map_err(|_| Error::NotInMemory { gpa, size })
    }

    /// The guest physical address of a byte of this process, such as
    /// [`SigbusExit::address`](seawall_inject::SigbusExit::address).
    pub fn guest_address(&self, host: u64) -> Option<u64> {
        self.memory.iter().find_map(|region| {
            let start = region.get_host_address(MemoryRegionAddress(0)).ok()? as u64;
            let offset = host.checked_sub(start)?;
            (offset < region.len()).then(|| region.start_addr().0 + offset)
        })
    }
}
