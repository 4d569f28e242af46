//! The kernel half: what `KVM_SET_VCPU_EVENTS` and `KVM_GET_VCPU_EVENTS` do on arm64, as a core that
//! anyone can embed, and the trait that the rest of Seawall drives a vCPU by.
//!
//! - [`wire`]: `struct kvm_vcpu_events` in each layout, the union of `kvm_run`, capability and ioctl numbers
//! - [`VcpuEvents`]: the same events without a layout; [`Abi`] says which one a VM speaks
//! - [`set_events`], [`get_events`]: the ioctls over a vCPU that implements [`VcpuState`], with the
//!   kernel's order of checks, its errnos ([`Refusal`]) and its quirks
//! - [`prepare_run`]: a pending SError is taken when the guest unmasks it
//! - [`handle_guest_sea`]: from the hardware's abort to `KVM_EXIT_ARM_SEA` ([`SeaExit`])
//! - [`Vcpu`]: a vCPU as a VMM sees it, implemented by the software machine and by `/dev/kvm`; [`Delivery`]: where an
//!   injection left its guest
//!
//! It is fit to run inside a kernel: `no_std`, no allocation, no floating point, no recursion, and no
//! path to a panic; `cargo xtask kernel-fit` checks the built objects. `examples/own_vcpu` embeds it.
#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod delivery;
mod exit;
mod inject;
mod refusal;
mod run;
mod sea;
mod set;
mod state;
mod vcpu;
pub mod wire;

pub use abi::{Abi, Layout, VcpuEvents};
pub use delivery::Delivery;
pub use exit::{Exit, MmioExit, NisvExit, SeaExit, SigbusExit, SystemEvent};
pub use inject::{AbortDelivery, SErrorDelivery};
pub use refusal::{Errno, Refusal, Refused};
pub use run::{PendingSError, finish_run, inject_held, prepare_run};
pub use sea::{HostFallback, SeaPolicy, handle_guest_sea, inject_fetch_from_hole, inject_walk_abort, is_sea};
pub use seawall_arm::{Reg, Registers};
pub use set::{Applied, check_extended, get_events, get_events_bytes, set_events, set_events_bytes};
pub use state::{LastFault, VcpuConfig, VcpuState, VirtualSError};
pub use vcpu::Vcpu;
