//! A vCPU, as the ioctls of its VMM.

use std::ffi::c_void;
use std::sync::OnceLock;

use seawall::ContainError;
use seawall_inject::{Errno, Exited, ExitedError, Injector, KvmVcpu, Last};

use crate::status::{Failure, Status};

/// `kvm_run.exit_reason` of an access to memory that the hardware could not correct: `KVM_EXIT_ARM_SEA`, Linux 6.19.
pub const SEAWALL_KVM_EXIT_ARM_SEA: u32 = 41;
/// The capability that enables this exit, by `KVM_ENABLE_CAP` on the VM: `KVM_CAP_ARM_SEA_TO_USER`.
pub const SEAWALL_KVM_CAP_ARM_SEA_TO_USER: u32 = 245;
/// Size of `struct kvm_vcpu_events` in bytes.
pub const SEAWALL_VCPU_EVENTS_SIZE: usize = 64;

/// A vCPU outside of `KVM_RUN`. Each function is an ioctl on its file descriptor, returns 0 or the errno
/// (positive or negative), and is called on the thread that called the library, before that call returns.
/// None may be NULL.
///
/// The registers must be the kernel's: a VMM that keeps a copy (QEMU: `cpu_synchronize_state`) writes it back
/// before the call, and treats it as stale afterwards.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Vcpu {
    /// Passed to each function unchanged.
    pub opaque: *mut c_void,
    /// `KVM_SET_VCPU_EVENTS` with `SEAWALL_VCPU_EVENTS_SIZE` bytes, mainline's layout.
    pub set_vcpu_events: Option<unsafe extern "C" fn(opaque: *mut c_void, events: *const u8) -> i32>,
    /// `KVM_GET_VCPU_EVENTS` into `SEAWALL_VCPU_EVENTS_SIZE` bytes.
    pub get_vcpu_events: Option<unsafe extern "C" fn(opaque: *mut c_void, events: *mut u8) -> i32>,
    /// `KVM_GET_ONE_REG` of a 64-bit register.
    pub get_one_reg: Option<unsafe extern "C" fn(opaque: *mut c_void, id: u64, value: *mut u64) -> i32>,
    /// `KVM_SET_ONE_REG` of a 64-bit register.
    pub set_one_reg: Option<unsafe extern "C" fn(opaque: *mut c_void, id: u64, value: u64) -> i32>,
}

/// The `arm_sea` member of the union in `struct kvm_run`, at byte 0x20 of it. The fields are the same, so
/// `memcpy` can copy it if the kernel's headers are too old to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SeaExit {
    /// Bit 0: `gpa` is valid.
    pub flags: u64,
    /// The masked `ESR_EL2`.
    pub esr: u64,
    /// Guest virtual address, valid if FnV (bit 10) of `esr` is 0.
    pub gva: u64,
    /// Guest physical address, page aligned.
    pub gpa: u64,
}

impl From<SeaExit> for seawall_events::SeaExit {
    fn from(exit: SeaExit) -> Self {
        let SeaExit { flags, esr, gva, gpa } = exit;
        Self { flags, esr: seawall_arm::Esr::from_bits(esr), gva, gpa }
    }
}

/// The four ioctls, none of them NULL.
pub(crate) struct Calls {
    opaque: *mut c_void,
    set_vcpu_events: unsafe extern "C" fn(*mut c_void, *const u8) -> i32,
    get_vcpu_events: unsafe extern "C" fn(*mut c_void, *mut u8) -> i32,
    get_one_reg: unsafe extern "C" fn(*mut c_void, u64, *mut u64) -> i32,
    set_one_reg: unsafe extern "C" fn(*mut c_void, u64, u64) -> i32,
}

fn result(returned: i32) -> Result<(), Errno> {
    // The kernel's own convention, and QEMU's, is -errno.
    if returned == 0 { Ok(()) } else { Err(Errno(returned.saturating_abs())) }
}

impl KvmVcpu for Calls {
    fn set_vcpu_events(&self, bytes: &[u8; SEAWALL_VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        // SAFETY: the VMM's own function with its own pointer; it reads `SEAWALL_VCPU_EVENTS_SIZE` bytes,
        // which are valid.
        result(unsafe { (self.set_vcpu_events)(self.opaque, bytes.as_ptr()) })
    }

    fn get_vcpu_events(&self) -> Result<[u8; SEAWALL_VCPU_EVENTS_SIZE], Errno> {
        let mut bytes = [0; SEAWALL_VCPU_EVENTS_SIZE];
        // SAFETY: the VMM's own function with its own pointer; it writes `SEAWALL_VCPU_EVENTS_SIZE` bytes,
        // for which there is room.
        result(unsafe { (self.get_vcpu_events)(self.opaque, bytes.as_mut_ptr()) })?;
        Ok(bytes)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let mut value = 0;
        // SAFETY: the VMM's own function with its own pointer; it writes one value, for which there is room.
        result(unsafe { (self.get_one_reg)(self.opaque, id, &raw mut value) })?;
        Ok(value)
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        // SAFETY: the VMM's own function with its own pointer, without memory of ours.
        result(unsafe { (self.set_one_reg)(self.opaque, id, value) })
    }
}

impl Vcpu {
    /// The vCPU as containment drives it, after such an exit. `injector`: that of its VM, found through the
    /// VM's first vCPU.
    pub(crate) fn exited(&self, last: Last, injector: &OnceLock<Injector>) -> Result<Exited<Calls>, Failure> {
        let missing = |name| {
            Failure::new(Status::NullPointer, format_args!("expected the vCPU's function `{name}`, got NULL"))
        };
        let calls = Calls {
            opaque: self.opaque,
            set_vcpu_events: self.set_vcpu_events.ok_or_else(|| missing("set_vcpu_events"))?,
            get_vcpu_events: self.get_vcpu_events.ok_or_else(|| missing("get_vcpu_events"))?,
            get_one_reg: self.get_one_reg.ok_or_else(|| missing("get_one_reg"))?,
            set_one_reg: self.set_one_reg.ok_or_else(|| missing("set_one_reg"))?,
        };
        let injector = if let Some(injector) = injector.get() {
            *injector
        } else {
            let found = Injector::probe(&calls).map_err(|error| ContainError::Vcpu(error.into()))?;
            *injector.get_or_init(|| found)
        };
        Ok(Exited::new(calls, injector, last))
    }
}

impl From<ContainError<ExitedError>> for Failure {
    fn from(error: ContainError<ExitedError>) -> Self {
        let (status, errno) = match &error {
            ContainError::Vcpu(error @ ExitedError::Events(events)) => {
                (if events.has_injected() { Status::Degraded } else { Status::Vcpu }, Some(error.errno()))
            }
            ContainError::Vcpu(error) => (Status::Vcpu, Some(error.errno())),
            ContainError::NotInAbi { .. } => (Status::Refused, None),
            ContainError::OtherVcpu { .. } => (Status::InvalidArgument, None),
        };
        Self::new(status, error).with_errno(errno.map(|errno| errno.0))
    }
}
