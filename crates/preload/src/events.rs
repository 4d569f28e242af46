//! What becomes of one `KVM_SET_VCPU_EVENTS` of the program.

use std::sync::atomic::{AtomicU8, Ordering};

use seawall_events::kernel::check_extended;
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, Layout, VcpuEvents};
use seawall_inject::{Errno, GuestKind, InjectError, Injector, KvmVcpu, Last, Way, has_ras};

/// The call: a file descriptor, which may be no vCPU, and a pointer, which may be bad.
pub(crate) trait Call: KvmVcpu {
    /// The call as the program made it.
    fn pass(&self) -> Result<i32, Errno>;

    /// The bytes behind the pointer; `None` if the kernel cannot read them, or this is no vCPU to ask.
    fn bytes(&self) -> Option<[u8; VCPU_EVENTS_SIZE]>;
}

/// What is known of the host's kernel. It is the same for all vCPUs, so that it is asked once.
pub(crate) struct Host {
    way: AtomicU8,
    ras: AtomicU8,
}

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;
const POSTED: u8 = 3;
const TRAILING: u8 = 4;

impl Host {
    pub(crate) const fn new() -> Self {
        Self { way: AtomicU8::new(UNKNOWN), ras: AtomicU8::new(UNKNOWN) }
    }

    fn known_way(&self) -> Option<Way> {
        match self.way.load(Ordering::Relaxed) {
            POSTED => Some(Way::Native(Layout::Posted)),
            TRAILING => Some(Way::Native(Layout::Trailing)),
            NO => Some(Way::Assisted),
            _ => None,
        }
    }

    fn way(&self, call: &impl Call) -> Result<Way, InjectError> {
        if let Some(known) = self.known_way() {
            return Ok(known);
        }
        let way = Way::of(call)?;
        let known = match way {
            Way::Native(Layout::Posted) => POSTED,
            Way::Native(Layout::Trailing) => TRAILING,
            Way::Assisted => NO,
        };
        self.way.store(known, Ordering::Relaxed);
        Ok(way)
    }

    fn has_ras(&self, call: &impl Call) -> Result<bool, InjectError> {
        let known = self.ras.load(Ordering::Relaxed);
        if known != UNKNOWN {
            return Ok(known == YES);
        }
        let ras = has_ras(call)?;
        self.ras.store(if ras { YES } else { NO }, Ordering::Relaxed);
        Ok(ras)
    }
}

/// The extended `KVM_SET_VCPU_EVENTS`: what `ioctl` returns, or its errno.
pub(crate) fn set_events(call: &impl Call, layout: Layout, host: &Host) -> Result<i32, Errno> {
    if host.known_way() == Some(Way::Native(layout)) {
        return call.pass();
    }
    let Some(bytes) = call.bytes() else {
        return call.pass();
    };
    match inject(call, layout, host, &bytes) {
        Ok(Done::Here) => Ok(0),
        Ok(Done::Not) => call.pass(),
        Err(error) => {
            if !error.has_injected() {
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
) -> Result<Done, InjectError> {
    let way = host.way(call)?;
    if way == Way::Native(layout) {
        return Ok(Done::Not);
    }
    let events = VcpuEvents::from_bytes(Abi::Extended(layout), bytes)?;
    let ras = if events.serror_has_esr || events.ext_abt_has_esr { host.has_ras(call)? } else { false };
    check_extended(ras, &events)?;
    if needs_injection(&events) {
        let injector = Injector { guest: GuestKind::of(call)?, ras, way };
        injector.set_events(call, Last::Any, &events)?;
    } else {
        // The same bytes in every layout.
        let events = VcpuEvents { ext_abt_has_esr: false, ext_abt_esr: 0, ..events };
        let bytes = events.to_bytes(Abi::Mainline)?;
        call.set_vcpu_events(&bytes)
            .map_err(|errno| InjectError::Kernel { call: "KVM_SET_VCPU_EVENTS", errno })?;
    }
    Ok(Done::Here)
}

/// Mainline's kernel does not do it by itself.
fn needs_injection(events: &VcpuEvents) -> bool {
    let has_iss = events.ext_abt_has_esr && events.ext_abt_esr != 0;
    events.ext_iabt_pending || (events.ext_dabt_pending && has_iss)
}

#[cfg(test)]
mod tests;
