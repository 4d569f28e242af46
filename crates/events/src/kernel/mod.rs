//! The kernel half: the effects of `KVM_SET_VCPU_EVENTS` and `KVM_GET_VCPU_EVENTS` on a vCPU, and KVM's
//! handling of a guest's external abort. A kernel, or a software CPU, implements [`VcpuState`].

mod inject;
mod run;
mod sea;
mod set;
mod state;

pub use inject::{AbortDelivery, SErrorDelivery};
pub use run::{PendingSError, finish_run, inject_held, prepare_run};
pub use sea::{HostFallback, SeaPolicy, handle_guest_sea, inject_fetch_from_hole, inject_walk_abort, is_sea};
pub use set::{Applied, check_extended, get_events, get_events_bytes, set_events, set_events_bytes};
pub use state::{LastFault, VcpuConfig, VcpuState, VirtualSError};
