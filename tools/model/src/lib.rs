//! KVM around the kernel half (`seawall-events`), for tests: one model for all of them.
//!
//! - [`Vcpu`]: a vCPU as its kernel keeps it. `KVM_SET_ONE_REG` with its rules, `KVM_ARM_VCPU_INIT`, and what `KVM_RUN`
//!   does before the guest is entered and after it has left: MMIO that waits, an SError that is held, an abort that goes to
//!   the host. The guest's own instructions are its users' business
//! - [`Kernel`]: the same behind the four ioctls of [`KvmVcpu`](seawall_inject::KvmVcpu), mainline's or with the extended
//!   ABI in either layout; it counts its calls, and fails one of them if it is told to
//! - [`guests`]: guests that have met bad memory, to begin with
//!
//! The injector's tests, those of the preload library and of the containment use [`Kernel`]; the conformance suite and
//! the lab's differential program, which have programs for the guest, use [`Vcpu`].

#![forbid(unsafe_code)]

pub mod guests;
mod kernel;
mod mmio;
mod one_reg;
mod run;
mod vcpu;

pub use kernel::{Call, FAILED, Kernel, POSTED, WAYS};
pub use mmio::{Access, Transfer, Waiting};
pub use one_reg::registers;
pub use vcpu::{REGISTERS, Vcpu};
