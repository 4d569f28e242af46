//! What becomes of one `KVM_SET_VCPU_EVENTS` of the program.

use std::sync::atomic::{AtomicU8, Ordering};

use seawall_arm::Reg;
use seawall_events::wire::{VCPU_EVENTS_SIZE, one_reg_id};
use seawall_events::{Abi, Layout, VcpuEvents, check_extended};
use seawall_kvm::Errno;
use seawall_kvm::assist::{self, AssistError, Guest, Kernel, Last};

/// The call: a file descriptor, which may be no vCPU, and a pointer, which may be bad.
pub(crate) trait Call: Kernel {
    /// The call as the program made it.
    fn pass(&self) -> Result<i32, Errno>;

    /// The bytes behind the pointer; `None` if the kernel cannot read them, or this is no vCPU to ask.
    fn bytes(&self) -> Option<[u8; VCPU_EVENTS_SIZE]>;

    /// `KVM_GET_VCPU_EVENTS`.
    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno>;
}

/// What is known of the host's kernel. It is the same for all vCPUs, so that it is asked once.
pub(crate) struct Host {
    native: AtomicU8,
    ras: AtomicU8,
}

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;
const POSTED: u8 = 3;
const TRAILING: u8 = 4;

impl Host {
    pub(crate) const fn new() -> Self {
        Self { native: AtomicU8::new(UNKNOWN), ras: AtomicU8::new(UNKNOWN) }
    }

    /// The layout that the kernel itself speaks, if it is known to speak one.
    fn known_native(&self) -> Option<Layout> {
        match self.native.load(Ordering::Relaxed) {
            POSTED => Some(Layout::Posted),
            TRAILING => Some(Layout::Trailing),
            _ => None,
        }
    }

    /// The same; the first time it is asked by events that ask for nothing: `ext_abt_esr` without
    /// `ext_abt_has_esr` is a reserved word that is not zero to a kernel that does not know it.
    fn native(&self, call: &impl Call) -> Result<Option<Layout>, AssistError> {
        if self.native.load(Ordering::Relaxed) != UNKNOWN {
            return Ok(self.known_native());
        }
        // EINVAL shall be about the events: some of KVM's descriptors that are no vCPU give it as well.
        set(call, &[0; VCPU_EVENTS_SIZE])?;
        let nothing = VcpuEvents { ext_abt_esr: 1, ..VcpuEvents::default() };
        for (layout, known) in [(Layout::Posted, POSTED), (Layout::Trailing, TRAILING)] {
            match set(call, &nothing.to_bytes(Abi::Extended(layout))?) {
                Ok(()) => {
                    self.native.store(known, Ordering::Relaxed);
                    return Ok(Some(layout));
                }
                Err(AssistError::Kernel { errno: Errno::EINVAL, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.native.store(NO, Ordering::Relaxed);
        Ok(None)
    }

    /// `serror_has_esr` of `KVM_GET_VCPU_EVENTS` says that the host has RAS.
    fn has_ras(&self, call: &impl Call) -> Result<bool, AssistError> {
        let known = self.ras.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Ok(known == YES);
        }
        let [_, has_esr, ..] = call.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?;
        self.ras.store(if has_esr == 0 { NO } else { YES }, Ordering::Relaxed);
        Ok(has_esr != 0)
    }
}

/// The extended `KVM_SET_VCPU_EVENTS`: what `ioctl` returns, or its errno.
pub(crate) fn set_events(call: &impl Call, layout: Layout, host: &Host) -> Result<i32, Errno> {
    if host.known_native() == Some(layout) {
        return call.pass();
    }
    let Some(bytes) = call.bytes() else {
        return call.pass();
    };
    match inject(call, layout, host, &bytes) {
        Ok(Done::Here) => Ok(0),
        Ok(Done::Not) => call.pass(),
        Err(error) => {
            if is_before_any_effect(&error) {
                // The kernel looks at the vCPU before it looks at the events: what it says to none comes first.
                call.set_vcpu_events(&[0; VCPU_EVENTS_SIZE])?;
            }
            Err(error.errno())
        }
    }
}

/// Whose part the call is.
enum Done {
    Here,
    /// The kernel can do it.
    Not,
}

fn inject(
    call: &impl Call,
    layout: Layout,
    host: &Host,
    bytes: &[u8; VCPU_EVENTS_SIZE],
) -> Result<Done, AssistError> {
    let native = host.native(call)?;
    if native == Some(layout) {
        return Ok(Done::Not);
    }
    let events = VcpuEvents::from_bytes(Abi::Extended(layout), bytes)?;
    let ras = if events.serror_has_esr || events.ext_abt_has_esr { host.has_ras(call)? } else { false };
    check_extended(ras, &events)?;
    if let Some(other) = native {
        set(call, &events.to_bytes(Abi::Extended(other))?)?;
    } else if needs_assistance(&events) {
        let guest = guest(call)?;
        if guest == Guest::Nested {
            assist::check_nested(call, &events)?;
        }
        assist::set_events(call, guest, Last::Any, ras, &events)?;
    } else {
        let events = VcpuEvents { ext_abt_has_esr: false, ext_abt_esr: 0, ..events };
        set(call, &events.to_bytes(Abi::Mainline)?)?;
    }
    Ok(Done::Here)
}

fn is_before_any_effect(error: &AssistError) -> bool {
    use AssistError::{Kernel, Refused, TakenByHypervisor};
    matches!(error, Refused(_) | Kernel { .. } | TakenByHypervisor { .. })
}

/// Mainline's kernel does not do it by itself.
fn needs_assistance(events: &VcpuEvents) -> bool {
    let has_iss = events.ext_abt_has_esr && events.ext_abt_esr != 0;
    events.ext_iabt_pending || (events.ext_dabt_pending && has_iss)
}

/// What the vCPU is, as its registers tell.
fn guest(kernel: &impl Kernel) -> Result<Guest, AssistError> {
    const MODE: u64 = 0x1f;
    const MODE_IS_AARCH32: u64 = 1 << 4;
    const USR: u64 = 0x10;
    const SVC: u64 = 0x13;
    match kernel.get_one_reg(id(Reg::EsrEl2)?) {
        Ok(_) => return Ok(Guest::Nested),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(failed("KVM_GET_ONE_REG")(errno)),
    }
    let pstate_id = id(Reg::Pstate)?;
    let pstate = kernel.get_one_reg(pstate_id).map_err(failed("KVM_GET_ONE_REG"))?;
    if pstate & MODE_IS_AARCH32 == 0 {
        return Ok(Guest::Aarch64);
    }
    if pstate & MODE != USR {
        return Ok(Guest::Aarch32);
    }
    // An AArch32 process, below an EL1 of either kind. Only an AArch32 EL1 has a supervisor mode: below
    // AArch64 the kernel refuses it and nothing happens, else it is taken back at once.
    let call = "KVM_SET_ONE_REG";
    match kernel.set_one_reg(pstate_id, pstate & !MODE | SVC) {
        Err(Errno::EINVAL) => Ok(Guest::Aarch64),
        Err(errno) => Err(failed(call)(errno)),
        Ok(()) => match kernel.set_one_reg(pstate_id, pstate) {
            Ok(()) => Ok(Guest::Aarch32),
            Err(errno) => Err(AssistError::Degraded { call, errno }),
        },
    }
}

fn id(reg: Reg) -> Result<u64, AssistError> {
    one_reg_id(reg).ok_or(AssistError::Kernel { call: "KVM_GET_ONE_REG", errno: Errno::ENOENT })
}

fn set(call: &impl Call, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), AssistError> {
    call.set_vcpu_events(bytes).map_err(failed("KVM_SET_VCPU_EVENTS"))
}

/// Nothing was done so far.
fn failed(call: &'static str) -> impl Fn(Errno) -> AssistError {
    move |errno| AssistError::Kernel { call, errno }
}

#[cfg(test)]
mod tests;
