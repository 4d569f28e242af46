//! Random programs and registers.

use super::{CODE, DATA, HOLE, TABLES};
use proptest::prelude::*;

/// Words that are often real instructions: random ones with their major opcode from a list.
pub(crate) fn word() -> impl Strategy<Value = u32> {
    // Data processing, branches, system, loads and stores (exclusive, pair, immediate, register).
    let major = prop::sample::select(vec![
        0x1100_0000_u32,
        0x1200_0000,
        0x1300_0000,
        0x1a00_0000,
        0x0b00_0000,
        0x1400_0000,
        0x3400_0000,
        0x5400_0000,
        0xd400_0000,
        0xd500_0000,
        0xd518_0000,
        0xd538_0000,
        0xd508_0000,
        0xd600_0000,
        0x0800_0000,
        0x2800_0000,
        0x3800_0000,
        0x3900_0000,
        0x3820_0000,
        0xf800_0000,
        0x1900_0000,
    ]);
    prop_oneof![
        any::<u32>(),
        // FP and AdvSIMD, and their loads and stores.
        any::<u32>().prop_map(|word| word & 0xfeff_ffff | 0x0e00_0000),
        any::<u32>().prop_map(|word| word & 0x7fff_ffff | 0x0e00_0000),
        any::<u32>().prop_map(|word| word & !0x0200_0000 | 0x0c00_0000),
        (major, any::<u32>()).prop_map(|(major, rest)| major & 0x7f38_0000 | rest & 0x80df_ffff | major),
    ]
}

/// Addresses where something happens, and others.
pub(crate) fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(HOLE),
        (0..0x2000_u64).prop_map(|offset| DATA + offset),
        (0..0x1000_u64).prop_map(|offset| CODE + offset),
        (0..0x3000_u64).prop_map(|offset| TABLES[0] + offset),
        0..64_u64,
    ]
}
