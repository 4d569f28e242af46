//! The kernel half inside Linux: `KVM_SET_VCPU_EVENTS`, `KVM_GET_VCPU_EVENTS` and the content of `KVM_EXIT_ARM_SEA`, decided by
//! `seawall-events` for a vCPU of KVM's.
//!
//! The C side is `kernel/linux/seawall.c`. It holds `vcpu->mutex`, copies the 64 bytes in and out, and reads and writes
//! registers, many in one call. Everything else happens here and in the two crates below.
//!
//! kbuild compiles the three as crates of their own (`kernel/linux/Kbuild`). In this repository the crate is a library like
//! any other, whose C side the tests stand in for.
#![no_std]

#[cfg(test)]
extern crate std;

mod c;
mod copy;
mod entry;
#[cfg(test)]
mod tests;

pub use c::{Base, Fault, KvmVcpu, Registers, Sea};
pub use entry::{
    seawall_rust_get_events, seawall_rust_predict_events, seawall_rust_sea_exit, seawall_rust_set_events,
};
