//! A software Arm machine with poisonable memory, in the shape of KVM.
#![forbid(unsafe_code)]

pub mod fdt;
pub mod loader;
pub mod memory;
mod poison;
pub mod uart;
pub mod walk;
