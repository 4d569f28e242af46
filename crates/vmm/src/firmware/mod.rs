//! What a Linux that boots with ACPI finds in memory instead of a device tree: ACPI tables, and of UEFI just the
//! system table and the memory map, handed over by `/chosen`. There are no UEFI services.
//!
//! All of it is in a few pages at the top of RAM that the memory map keeps from the guest. Among it are the records of
//! memory errors ([`seawall::apei`]): that is what ACPI is for here.

pub mod acpi;
mod aml;
pub(crate) mod einj;

use std::ops::Range;

use seawall::apei::efi::{self, Memory, MemoryType};
use seawall::apei::ghes::GhesRegion;

use crate::fdt::Platform;
use crate::ram::Ram;

/// Bytes at the top of RAM that are the firmware's.
pub const SIZE: u64 = 0x2_0000;
/// Of these, where the tables of ACPI begin; before them are the records of errors.
const TABLES: u64 = 0x8000;
/// And where those of UEFI begin.
const EFI: u64 = 0x1_e000;

/// Sources of records for errors that vCPUs consumed: as many can be outstanding at once.
const SEA_SOURCES: u16 = 32;
/// Sources for errors that were only found.
const POLLED_SOURCES: u16 = 8;
const PAGE: u64 = 0x1000;
/// How often a guest looks at those, milliseconds.
const POLL_INTERVAL: u32 = 1000;

/// The records of memory errors, if the firmware begins here.
pub(crate) fn records_at(base: u64) -> GhesRegion {
    GhesRegion { base, sea: SEA_SOURCES, polled: POLLED_SOURCES, poll_interval: POLL_INTERVAL }
}

/// The firmware of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Where it lies: at the end of RAM, or below what is bad there.
    pub range: Range<u64>,
    /// Where the records of memory errors are.
    pub records: GhesRegion,
    /// The tables of ACPI.
    pub tables: Vec<u8>,
    /// The system table and the memory map of UEFI.
    pub efi: Vec<u8>,
    /// What `/chosen` says of them.
    pub handover: efi::Handover,
}

/// The firmware does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected ACPI tables and maps of memory of at most {limit} bytes, these have {size}: fewer vCPUs or devices, please"
)]
pub struct TooBig {
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub limit: u64,
}

impl Firmware {
    /// The firmware of a guest on this platform.
    ///
    /// # Errors
    /// [`TooBig`].
    pub fn new(platform: &Platform<'_>) -> Result<Self, TooBig> {
        let ram = platform.memory;
        let range = ram.highest(SIZE, PAGE).ok_or(TooBig { size: SIZE, limit: 0 })?;
        let base = range.start;
        let records = records_at(base);
        let (tables, rsdp) = acpi::tables(base + TABLES, platform, &records);
        let (size, limit) = (tables.len() as u64, EFI - TABLES);
        if size > limit {
            return Err(TooBig { size, limit });
        }
        let map = map(ram, &range);
        let (efi, handover) = efi::tables(base + EFI, rsdp, &map);
        let (size, limit) = (efi.len() as u64, SIZE - EFI);
        if size > limit {
            return Err(TooBig { size, limit });
        }
        Ok(Self { range, records, tables, efi, handover })
    }

    /// The parts with their guest physical addresses.
    pub fn parts(&self) -> [(u64, &[u8]); 2] {
        [(self.range.start + TABLES, &self.tables), (self.range.start + EFI, &self.efi)]
    }
}

/// UEFI's map of memory, in rising order.
fn map(ram: &Ram, firmware: &Range<u64>) -> Vec<Memory> {
    let base = firmware.start;
    let mut other = vec![
        Memory { range: base..base + TABLES, kind: MemoryType::ACPI_NVS },
        Memory { range: base + TABLES..base + EFI, kind: MemoryType::ACPI_RECLAIM },
        Memory { range: base + EFI..firmware.end, kind: MemoryType::RESERVED },
    ];
    other.extend(ram.bad().iter().map(|bad| Memory { range: bad.clone(), kind: MemoryType::UNUSABLE }));
    efi::memory_map(&[ram.range()], &other)
}

#[cfg(test)]
mod tests;
