//! The kind of a vCPU, and the ABI of its kernel.

use seawall_arm::Reg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, Layout, VcpuEvents};

use crate::vcpu::{GET_EVENTS, GET_ONE_REG, SET_ONE_REG, failed, get, set_events};
use crate::{Errno, InjectError, KvmVcpu};

/// The kind of a vCPU, which decides where an abort can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum GuestKind {
    /// EL1 is AArch64, and there is no virtual EL2.
    #[default]
    Aarch64,
    /// EL1 is AArch32 (`KVM_ARM_VCPU_EL1_32BIT`).
    Aarch32,
    /// There is a virtual EL2 (`KVM_ARM_VCPU_HAS_EL2`).
    Nested,
}

impl GuestKind {
    /// Reads the kind of the vCPU from its registers, by one to four calls that change nothing.
    ///
    /// # Errors
    /// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
    pub fn of(vcpu: &impl KvmVcpu) -> Result<Self, InjectError> {
        const MODE: u64 = 0x1f;
        const MODE_IS_AARCH32: u64 = 1 << 4;
        const USR: u64 = 0x10;
        const SVC: u64 = 0x13;
        match get(vcpu, Reg::EsrEl2) {
            Ok(_) => return Ok(Self::Nested),
            Err(InjectError::Kernel { errno: Errno::ENOENT, .. }) => {}
            Err(error) => return Err(error),
        }
        let pstate = get(vcpu, Reg::Pstate)?;
        if pstate & MODE_IS_AARCH32 == 0 {
            return Ok(Self::Aarch64);
        }
        if pstate & MODE != USR {
            return Ok(Self::Aarch32);
        }
        // The PSTATE of an AArch32 process, below an EL1 of either kind. Only an AArch32 EL1 has a supervisor
        // mode: below AArch64 the kernel refuses it and nothing happens; otherwise it is reverted at once.
        let id = one_reg_id(Reg::Pstate).ok_or_else(|| failed(GET_ONE_REG)(Errno::ENOENT))?;
        match vcpu.set_one_reg(id, pstate & !MODE | SVC) {
            Err(Errno::EINVAL) => Ok(Self::Aarch64),
            Err(errno) => Err(failed(SET_ONE_REG)(errno)),
            Ok(()) => match vcpu.set_one_reg(id, pstate) {
                Ok(()) => Ok(Self::Aarch32),
                Err(errno) => Err(InjectError::Degraded { call: SET_ONE_REG, errno }),
            },
        }
    }
}

/// The way to the extended ABI on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The kernel has it.
    Native(Layout),
    /// The kernel's own data abort is turned into the requested one.
    Assisted,
}

impl Way {
    /// Asks the vCPU's kernel with events that request nothing: to a kernel that does not know it,
    /// `ext_abt_esr` without `ext_abt_has_esr` is a non-zero reserved word. This takes two or three calls.
    ///
    /// # Errors
    /// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
    pub fn of(vcpu: &impl KvmVcpu) -> Result<Self, InjectError> {
        // EINVAL must be about the events: some KVM descriptors other than vCPUs return it as well.
        set_events(vcpu, &[0; VCPU_EVENTS_SIZE])?;
        let nothing = VcpuEvents { ext_abt_esr: 1, ..VcpuEvents::default() };
        for layout in [Layout::Posted, Layout::Trailing] {
            match set_events(vcpu, &nothing.to_bytes(Abi::Extended(layout))?) {
                Ok(()) => return Ok(Self::Native(layout)),
                Err(InjectError::Kernel { errno: Errno::EINVAL, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::Assisted)
    }
}

/// Returns true if the host has RAS, so that an ESR may be given. `serror_has_esr` of `KVM_GET_VCPU_EVENTS`
/// tells it.
///
/// # Errors
/// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
pub fn has_ras(vcpu: &impl KvmVcpu) -> Result<bool, InjectError> {
    let [_, has_esr, ..] = vcpu.get_vcpu_events().map_err(failed(GET_EVENTS))?;
    Ok(has_esr != 0)
}
