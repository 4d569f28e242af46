//! KVM around the kernel half (`seawall-events`), for tests: one model for all of them.
//!
//! - [`Vcpu`]: a vCPU as its kernel keeps it. It has `KVM_SET_ONE_REG` with its rules, `KVM_ARM_VCPU_INIT`,
//!   and the steps of `KVM_RUN` before the guest is entered and after it has left: a waiting MMIO access, a
//!   held SError, an abort that goes to the host. The users of the model execute the guest's instructions
//! - [`Kernel`]: the same behind the four ioctls of [`KvmVcpu`](seawall_inject::KvmVcpu), mainline's or with
//!   the extended ABI in either layout; it counts its calls, and fails one of them on request
//! - [`guests`]: guests that have met bad memory
//!
//! The tests of the injector, of the preload library and of containment use [`Kernel`]; the conformance suite
//! and the lab's differential program, which have programs for the guest, use [`Vcpu`].

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
