//! Translation tables, 4 KiB granule, 39 bits each half.
//!
//! | virtual address | content |
//! |---|---|
//! | 0, 1 GiB | devices, for EL0 too |
//! | 0x4000_0000, 4 MiB | RAM as it is, for EL1 |
//! | [`USER_CODE`] | [`CODE`], for EL0 to execute |
//! | [`DATA_EL1`], [`SPARE_EL1`] | [`DATA`] and [`SPARE`], for EL1 |
//! | [`DATA_EL0`], [`SPARE_EL0`] | the same, for EL0 |
//!
//! The last four are in the upper half. Each pair has its own tables at every level but the first, where its
//! descriptors are in lines of their own, so that bad memory there affects nothing else.

use seawall_events::Reg;

use super::{CODE, DATA, Guest, SPARE};
use crate::trial::Stop;

/// Program code, as EL0 sees it.
pub(crate) const USER_CODE: u64 = 0x2_0000_0000;
/// [`DATA`], as EL1 sees it.
pub(crate) const DATA_EL1: u64 = 0xffff_ff80_0000_1000;
/// [`SPARE`], as EL1 sees it.
pub(crate) const SPARE_EL1: u64 = 0xffff_ff80_0000_2000;
/// [`DATA`], as EL0 sees it.
pub(crate) const DATA_EL0: u64 = 0xffff_ff82_0000_1000;
/// [`SPARE`], as EL0 sees it.
pub(crate) const SPARE_EL0: u64 = 0xffff_ff82_0000_2000;

/// Level 1, 2 and 3 tables, named by their mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// For [`DATA_EL1`] and [`SPARE_EL1`].
    El1,
    /// For [`DATA_EL0`] and [`SPARE_EL0`].
    El0,
}

impl Table {
    const fn addresses(self) -> [u64; 3] {
        match self {
            Self::El1 => [UPPER, 0x4011_1000, 0x4011_2000],
            Self::El0 => [UPPER, 0x4012_1000, 0x4012_2000],
        }
    }
}

/// Level 1 table of the lower half, and its tables for RAM and for [`USER_CODE`].
const LOWER: u64 = 0x4010_0000;
const RAM_LEVEL_2: u64 = 0x4010_1000;
const CODE_LEVEL_2: u64 = 0x4010_2000;
const CODE_LEVEL_3: u64 = 0x4010_3000;
/// Level 1 table of the upper half.
const UPPER: u64 = 0x4011_0000;

/// Guest physical address of a level 1 table that maps nothing.
pub(crate) fn other_level_1() -> u64 {
    0x4013_0000
}

/// T0SZ and T1SZ 25; inner shareable, write-back walks; TG1 4 KiB; 40-bit addresses.
const TCR: u64 = 0x2_b519_3519;
/// Attribute 0 is normal memory, 1 a device.
const MAIR: u64 = 0x00ff;

/// The registers that point to the tables.
pub(crate) const REGISTERS: [(Reg, u64); 4] =
    [(Reg::MairEl1, MAIR), (Reg::TcrEl1, TCR), (Reg::Ttbr0El1, LOWER), (Reg::Ttbr1El1, UPPER)];

// Descriptor bits.
const TABLE: u64 = 3;
const PAGE: u64 = 3;
const BLOCK: u64 = 1;
const DEVICE: u64 = 1 << 2;
const FOR_EL0: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const AF: u64 = 1 << 10;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const NORMAL: u64 = INNER_SHAREABLE | AF;

/// Guest physical address of the descriptor that the walk for `va` reads at `level`, 1 to 3.
pub(crate) fn descriptor_of(table: Table, va: u64, level: usize) -> u64 {
    let shift = 39 - 9 * level as u64;
    let base = table.addresses().get(level.wrapping_sub(1)).copied().unwrap_or_default();
    base + 8 * (va >> shift & 0x1ff)
}

/// Writes all tables.
pub(super) fn write(guest: &mut Guest) -> Result<(), Stop> {
    let lower = [
        (LOWER, DEVICE | AF | FOR_EL0 | PXN | UXN | BLOCK),
        (LOWER + 8, RAM_LEVEL_2 | TABLE),
        (LOWER + 8 * 8, CODE_LEVEL_2 | TABLE),
        (RAM_LEVEL_2, 0x4000_0000 | NORMAL | BLOCK),
        (RAM_LEVEL_2 + 8, 0x4020_0000 | NORMAL | BLOCK),
        (CODE_LEVEL_2, CODE_LEVEL_3 | TABLE),
        (CODE_LEVEL_3, CODE | NORMAL | FOR_EL0 | READ_ONLY | PXN | PAGE),
    ];
    for (at, value) in lower {
        guest.write(at, value)?;
    }
    let upper = [
        (Table::El1, DATA_EL1, DATA | NORMAL | PAGE),
        (Table::El1, SPARE_EL1, SPARE | NORMAL | READ_ONLY | PAGE),
        (Table::El0, DATA_EL0, DATA | NORMAL | FOR_EL0 | PXN | PAGE),
        (Table::El0, SPARE_EL0, SPARE | NORMAL | FOR_EL0 | READ_ONLY | PXN | PAGE),
    ];
    for (table, va, leaf) in upper {
        let [_, level_2, level_3] = table.addresses();
        guest.write(descriptor_of(table, va, 1), level_2 | TABLE)?;
        guest.write(descriptor_of(table, va, 2), level_3 | TABLE)?;
        guest.write(descriptor_of(table, va, 3), leaf)?;
    }
    Ok(())
}
