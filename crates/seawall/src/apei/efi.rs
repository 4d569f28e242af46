//! The hand-over of ACPI tables to a Linux that no UEFI firmware has loaded.
//!
//! Linux on Arm takes ACPI tables from UEFI alone, and maps a GHES record only if UEFI's memory map lists it
//! as memory. Of UEFI it needs only the system table, which leads to the RSDP, and that map. Properties of
//! `/chosen` in the device tree hand over both, as Linux's own EFI stub does for the kernel proper. There are
//! no UEFI services, so the command line needs [`COMMAND_LINE`].
//!
//! ```
//! use seawall::apei::efi::{Memory, MemoryType, Property, memory_map, tables};
//!
//! // 1 GiB of RAM, of which the last 128 KiB are the firmware's: records, ACPI tables, and then what is made here.
//! let ram = [0x4000_0000..0x8000_0000];
//! let firmware = [
//!     Memory { range: 0x7ffe_0000..0x7ffe_8000, kind: MemoryType::ACPI_NVS },
//!     Memory { range: 0x7ffe_8000..0x7fff_e000, kind: MemoryType::ACPI_RECLAIM },
//!     Memory { range: 0x7fff_e000..0x8000_0000, kind: MemoryType::RESERVED },
//! ];
//! let rsdp = 0x7ffe_8000;
//! let (bytes, handover) = tables(0x7fff_e000, rsdp, &memory_map(&ram, &firmware));
//! // Write `bytes` to 0x7fff_e000 of guest memory, and these into `/chosen`.
//! assert_eq!(handover.properties()[0], ("linux,uefi-system-table", Property::U64(0x7fff_e000)));
//! assert!(bytes.len() < 0x2000);
//! ```
//!
//! Source: UEFI 2.10, 4.2 and 4.3 (system table), 4.6 (configuration table), 7.2.3 (memory map); Linux,
//! arch/arm/uefi.rst (`/chosen`).

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// The addition to the guest's command line: without it Linux would call UEFI's runtime services, which do
/// not exist. A guest whose device tree has more than `/chosen` needs `acpi=force` as well, or it uses the
/// tree.
pub const COMMAND_LINE: &str = "efi=noruntime";

/// `EFI_MEMORY_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryType(pub u32);

impl MemoryType {
    /// Memory that the guest must not use.
    pub const RESERVED: Self = Self(0);
    /// RAM.
    pub const CONVENTIONAL: Self = Self(7);
    /// Memory with errors.
    pub const UNUSABLE: Self = Self(8);
    /// ACPI tables.
    pub const ACPI_RECLAIM: Self = Self(9);
    /// Memory that firmware keeps using: a [`Ghes`](super::ghes::Ghes) writes its records there.
    pub const ACPI_NVS: Self = Self(10);
}

/// The memory attribute write-back.
const WRITE_BACK: u64 = 1 << 3;
/// `EFI_ACPI_20_TABLE_GUID`, 8868e871-e4f1-11d3-bc22-0080c73c8881, as it lies in memory.
const ACPI_20: [u8; 16] =
    [0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81];
/// `IBI SYST`.
const SIGNATURE: u64 = 0x5453_5953_2049_4249;
/// UEFI 2.10.
const REVISION: u32 = 0x0002_0064;
const DESCRIPTOR_VERSION: u32 = 1;
const PAGE: u64 = 4096;
/// `efi_secureboot_mode_disabled`.
const SECURE_BOOT_DISABLED: u32 = 2;
/// The vendor's name, UCS-2.
const VENDOR: &str = "Seawall";

/// A range of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Physical addresses, whole pages.
    pub range: Range<u64>,
    /// Its use.
    pub kind: MemoryType,
}

/// The addresses and sizes that lead Linux to the output of [`tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Physical address.
    pub system_table: u64,
    /// Physical address.
    pub mmap_start: u64,
    /// Bytes.
    pub mmap_size: u32,
    /// Bytes.
    pub mmap_desc_size: u32,
    /// 1.
    pub mmap_desc_ver: u32,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct SystemTable {
    signature: U64,
    revision: U32,
    header_size: U32,
    crc32: U32,
    reserved: U32,
    vendor: U64,
    vendor_revision: U32,
    pad: U32,
    /// Consoles and services: there are none.
    handles: [U64; 8],
    entries: U64,
    configuration: U64,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ConfigurationEntry {
    guid: [u8; 16],
    table: U64,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Descriptor {
    kind: U32,
    pad: U32,
    physical: U64,
    virtual_address: U64,
    pages: U64,
    attributes: U64,
}

/// The value of a device tree's property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// One cell.
    U32(u32),
    /// Two cells.
    U64(u64),
}

impl Handover {
    /// The properties of `/chosen`. The last one says that Secure Boot is off. Debian's kernel, which can be
    /// locked down, ignores the others without it.
    pub fn properties(&self) -> [(&'static str, Property); 6] {
        [
            ("linux,uefi-system-table", Property::U64(self.system_table)),
            ("linux,uefi-mmap-start", Property::U64(self.mmap_start)),
            ("linux,uefi-mmap-size", Property::U32(self.mmap_size)),
            ("linux,uefi-mmap-desc-size", Property::U32(self.mmap_desc_size)),
            ("linux,uefi-mmap-desc-ver", Property::U32(self.mmap_desc_ver)),
            ("linux,uefi-secure-boot", Property::U32(SECURE_BOOT_DISABLED)),
        ]
    }
}

const _: () = assert!(size_of::<SystemTable>() == 120 && size_of::<Descriptor>() == 40);

/// UEFI's map of a guest's memory, in rising order: `other` has its own kinds, and the rest of `ram` is
/// conventional memory.
///
/// Both are whole pages of 4 KiB; ranges of `other` do not overlap. Include every bad page that could not be
/// healed: as [`MemoryType::UNUSABLE`] the guest sees it and does not touch it.
pub fn memory_map(ram: &[Range<u64>], other: &[Memory]) -> Vec<Memory> {
    let mut map: Vec<Memory> = other.iter().filter(|memory| !memory.range.is_empty()).cloned().collect();
    map.sort_unstable_by_key(|memory| memory.range.start);
    let taken = map.clone();
    for ram in ram {
        let mut from = ram.start;
        for Memory { range, .. } in taken.iter().filter(|memory| memory.range.end > ram.start) {
            push_conventional(&mut map, from..range.start.min(ram.end));
            from = from.max(range.end);
        }
        push_conventional(&mut map, from..ram.end);
    }
    map.sort_unstable_by_key(|memory| memory.range.start);
    map
}

fn push_conventional(map: &mut Vec<Memory>, range: Range<u64>) {
    if !range.is_empty() {
        map.push(Memory { range, kind: MemoryType::CONVENTIONAL });
    }
}

/// System table, configuration table and memory map as bytes of guest memory from `base` on, with the
/// addresses for Linux. `rsdp` is the RSDP's address.
pub fn tables(base: u64, rsdp: u64, map: &[Memory]) -> (Vec<u8>, Handover) {
    let configuration = base.saturating_add(size_of::<SystemTable>() as u64);
    let mmap_start = configuration.saturating_add(size_of::<ConfigurationEntry>() as u64);
    let mmap_size = map.len() * size_of::<Descriptor>();
    let vendor = mmap_start.saturating_add(mmap_size as u64);
    let mut table = SystemTable {
        signature: SIGNATURE.into(),
        revision: REVISION.into(),
        header_size: (size_of::<SystemTable>() as u32).into(),
        crc32: 0.into(),
        reserved: 0.into(),
        vendor: vendor.into(),
        vendor_revision: 1.into(),
        pad: 0.into(),
        handles: [0.into(); 8],
        entries: 1.into(),
        configuration: configuration.into(),
    };
    table.crc32 = crc32fast::hash(table.as_bytes()).into();

    let mut bytes = table.as_bytes().to_vec();
    bytes.extend_from_slice(ConfigurationEntry { guid: ACPI_20, table: rsdp.into() }.as_bytes());
    for memory in map {
        let descriptor = Descriptor {
            kind: memory.kind.0.into(),
            pad: 0.into(),
            physical: memory.range.start.into(),
            virtual_address: 0.into(),
            pages: (memory.range.end.saturating_sub(memory.range.start) / PAGE).into(),
            attributes: WRITE_BACK.into(),
        };
        bytes.extend_from_slice(descriptor.as_bytes());
    }
    for letter in VENDOR.encode_utf16().chain([0]) {
        bytes.extend_from_slice(&letter.to_le_bytes());
    }
    let handover = Handover {
        system_table: base,
        mmap_start,
        mmap_size: mmap_size as u32,
        mmap_desc_size: size_of::<Descriptor>() as u32,
        mmap_desc_ver: DESCRIPTOR_VERSION,
    };
    (bytes, handover)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: Range<u64> = 0x40fe_0000..0x40ff_0000;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// UEFI 2.10, 4.2, 4.3 and 4.6.
    #[test]
    fn the_system_table_leads_to_the_rsdp() {
        let (bytes, handover) = tables(0x40ff_e000, 0x40ff_0040, &[]);
        assert_eq!(handover.system_table, 0x40ff_e000);
        assert_eq!(bytes[..8], *b"IBI SYST");
        assert_eq!(bytes[8..16], [0x64, 0, 2, 0, 120, 0, 0, 0]);
        let mut without_crc = bytes[..120].to_vec();
        without_crc[16..20].fill(0);
        assert_eq!(bytes[16..20], crc32fast::hash(&without_crc).to_le_bytes());
        assert_eq!((word(&bytes, 104), word(&bytes, 112)), (1, 0x40ff_e078));
        assert_eq!(bytes[120..124], [0x71, 0xe8, 0x68, 0x88]);
        assert_eq!(word(&bytes, 136), 0x40ff_0040);
        assert_eq!(word(&bytes, 24), 0x40ff_e090);
        assert_eq!(bytes[144..], *b"S\0e\0a\0w\0a\0l\0l\0\0\0");
    }

    /// UEFI 2.10, 7.2.3: type, address, pages, write-back.
    #[test]
    fn a_part_of_the_map_is_a_descriptor_of_40_bytes() {
        let map = [Memory { range: RECORDS, kind: MemoryType::ACPI_NVS }];
        let (bytes, handover) = tables(0x40ff_e000, 0, &map);
        assert_eq!((handover.mmap_start, handover.mmap_size, handover.mmap_desc_size), (0x40ff_e090, 40, 40));
        let words: Vec<_> = (0..5).map(|number| word(&bytes, 0x90 + 8 * number)).collect();
        assert_eq!(words, [10, 0x40fe_0000, 0, 0x10, 8]);
    }

    #[test]
    fn the_map_has_all_of_ram_and_what_is_outside_of_it_in_rising_order() {
        let nvs = |range| Memory { range, kind: MemoryType::ACPI_NVS };
        let other = [nvs(RECORDS), nvs(0x2000..0x3000), nvs(0x4000_0000..0x4000_1000), nvs(5..5)];
        let map = memory_map(&[0x4000_0000..0x4100_0000, 0x8000_0000..0x9000_0000], &other);
        let map: Vec<_> = map.into_iter().map(|memory| (memory.kind.0, memory.range)).collect();
        assert_eq!(
            map,
            [
                (10, 0x2000..0x3000),
                (10, 0x4000_0000..0x4000_1000),
                (7, 0x4000_1000..0x40fe_0000),
                (10, RECORDS),
                (7, 0x40ff_0000..0x4100_0000),
                (7, 0x8000_0000..0x9000_0000),
            ]
        );
    }

    /// Linux, arch/arm/uefi.rst; `linux,uefi-secure-boot` of drivers/firmware/efi/fdtparams.c.
    #[test]
    fn chosen_says_where_it_is_and_that_secure_boot_is_off() {
        let (_, handover) = tables(0x1000, 0, &[]);
        let names = handover.properties().map(|(name, _)| name);
        assert_eq!(names[0], "linux,uefi-system-table");
        assert_eq!(handover.properties()[5], ("linux,uefi-secure-boot", Property::U32(2)));
        assert_eq!(handover.properties()[4], ("linux,uefi-mmap-desc-ver", Property::U32(1)));
    }
}
