//! Hostile bytes for all code that reads data from outside.
//!
//! The [bodies](targets) are shared by the fuzz targets in `fuzz`, by the tests here, which try some inputs
//! of fixed seeds, and by the command, which tries inputs for any length of time under a limit of memory.

#![forbid(unsafe_code)]
// A panic of a body is a finding.
#![allow(clippy::missing_panics_doc, reason = "a body panics if something is not as it must be")]

pub mod targets;

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use targets::Target;

/// The input of a case, which depends only on target, seed and number.
pub fn input(target: &Target, seed: u64, case: u64) -> Vec<u8> {
    let mut key = [0; 32];
    for (byte, name) in key.iter_mut().zip(target.name.bytes()) {
        *byte = name;
    }
    key[16..24].copy_from_slice(&seed.to_le_bytes());
    key[24..].copy_from_slice(&case.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    // Short inputs are as frequent as long ones.
    let most = random.random_range(0..=target.longest.ilog2());
    let mut bytes = vec![0; random.random_range(0..=1_usize << most)];
    random.fill_bytes(&mut bytes);
    // Fields are often valid if they are zeros and ones.
    if random.random_ratio(1, 2) {
        for byte in &mut bytes {
            match random.random_range(0..4) {
                0 => *byte = 0,
                1 => *byte &= 1,
                _ => {}
            }
        }
    }
    bytes
}
