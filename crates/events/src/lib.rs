//! vCPU events of KVM/arm64: external aborts and SErrors, with the instruction aborts and the ESRs that stock kernels do not
//! know.
//!
//! - [`kernel`]: what `KVM_SET_VCPU_EVENTS`, `KVM_GET_VCPU_EVENTS` and the handler of a guest's external abort do, as a core that
//!   anyone can embed, with the kernel's order of checks, its errnos and its quirks: over a vCPU that implements
//!   [`VcpuState`](kernel::VcpuState)
//! - [`wire`]: `struct kvm_vcpu_events` in each layout, the union of `kvm_run`, capability and ioctl numbers
//! - [`VcpuEvents`]: the events without a layout; [`Abi`] says which one a VM speaks
//! - [`SeaExit`]: what `KVM_EXIT_ARM_SEA` says
//! - [`Refusal`]: why a call was refused, with the errno
//!
//! It is fit to run inside a kernel: `no_std`, no allocation, no floating point, no recursion, and no
//! path to a panic; `cargo xtask kernel-fit` checks the built objects. `examples/own_vcpu` embeds it.
#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod exit;
pub mod kernel;
mod refusal;
pub mod wire;

pub use abi::{Abi, Layout, VcpuEvents, Words};
pub use exit::{MmioExit, NisvExit, SeaExit};
pub use refusal::{Errno, Refusal, Refused};
pub use seawall_arm::{Reg, Registers};
