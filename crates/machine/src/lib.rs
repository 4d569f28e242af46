//! A software Arm machine with poisonable memory, in the shape of KVM.
#![forbid(unsafe_code)]

pub mod memory;
mod poison;
pub mod walk;
