//! FP and AdvSIMD. Each class is a function; every one first asks whether CPACR_EL1 allows it.

// The names are those of the registers, Vd, Vn, Vm, and of their elements.
#![allow(clippy::many_single_char_names)]

mod across;
mod crypto;
mod float;
mod lanes;
mod long;
mod memory;
mod moves;
mod narrow;
mod saturating;
mod shift;
mod vector;

pub(super) use crypto::crypto;
pub(super) use float::float;
pub(super) use memory::access;
pub(super) use moves::moves;
pub(super) use vector::vector;
