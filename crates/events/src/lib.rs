//! vCPU events of KVM/arm64: external aborts and SErrors, with the instruction aborts and the ESRs that stock
//! kernels lack.
//!
//! - [`kernel`]: `KVM_SET_VCPU_EVENTS`, `KVM_GET_VCPU_EVENTS` and KVM's handler of a guest's external abort,
//!   as a core for any hypervisor to embed. It keeps the kernel's order of checks, its errnos and its quirks,
//!   and works on a vCPU that implements [`VcpuState`](kernel::VcpuState)
//! - [`wire`]: `struct kvm_vcpu_events` in each layout, the union of `kvm_run`, capability and ioctl numbers
//! - [`VcpuEvents`]: the events without a layout; [`Abi`] selects the layout of a VM
//! - [`SeaExit`]: the content of `KVM_EXIT_ARM_SEA`
//! - [`Refusal`]: the reason for a refused call, with the errno
//!
//! The crate can run inside a kernel: `no_std`, no allocation, no floating point, no recursion, and no path
//! to a panic; `cargo xtask kernel-fit` checks the built objects. `examples/own_vcpu` embeds it.
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
