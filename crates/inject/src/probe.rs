//! What a vCPU is, and what its kernel speaks.

use seawall_arm::Reg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, Layout, VcpuEvents};

use crate::vcpu::{GET_EVENTS, GET_ONE_REG, SET_ONE_REG, failed, get, set_events};
use crate::{Errno, InjectError, KvmVcpu};

/// What of a vCPU decides where an abort can go.
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
        // An AArch32 process, below an EL1 of either kind. Only an AArch32 EL1 has a supervisor mode: below
        // AArch64 the kernel refuses it and nothing happens, else it is taken back at once.
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

/// How the extended ABI is had of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The kernel speaks it.
    Native(Layout),
    /// The kernel's own data abort is turned into what was asked.
    Assisted,
}

impl Way {
    /// Asks the vCPU's kernel by events that ask for nothing: `ext_abt_esr` without `ext_abt_has_esr` is a reserved word
    /// that is not zero to a kernel that does not know it. Two or three calls.
    ///
    /// # Errors
    /// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
    pub fn of(vcpu: &impl KvmVcpu) -> Result<Self, InjectError> {
        // EINVAL shall be about the events: some of KVM's descriptors that are no vCPU give it as well.
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

/// True if the host has RAS, so that an ESR may be given. `serror_has_esr` of `KVM_GET_VCPU_EVENTS` says so.
///
/// # Errors
/// The ioctl's: `ENOEXEC` before `KVM_ARM_VCPU_INIT`.
pub fn has_ras(vcpu: &impl KvmVcpu) -> Result<bool, InjectError> {
    let [_, has_esr, ..] = vcpu.get_vcpu_events().map_err(failed(GET_EVENTS))?;
    Ok(has_esr != 0)
}
