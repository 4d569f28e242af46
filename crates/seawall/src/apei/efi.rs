//! The least of UEFI that Linux takes: system table, configuration table with ACPI in it, memory map.
//!
//! Source: UEFI 2.10, 4.2 and 4.3 (system table), 4.6 (configuration table), 7.2.3 (memory map); Linux,
//! arch/arm/uefi.rst (`/chosen`).

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Types of memory.
pub const RESERVED: u32 = 0;
/// See [`RESERVED`].
pub const CONVENTIONAL: u32 = 7;
/// See [`RESERVED`]: errors were found in it.
pub const UNUSABLE: u32 = 8;
/// See [`RESERVED`].
pub const ACPI_RECLAIM: u32 = 9;
/// See [`RESERVED`].
pub const ACPI_NVS: u32 = 10;

/// Write-back, of the memory's attributes.
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
/// The vendor's name, UCS-2.
const VENDOR: &str = "Seawall";

/// A part of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Physical addresses, whole pages.
    pub range: Range<u64>,
    /// What it is: [`CONVENTIONAL`] and so on.
    pub kind: u32,
}

/// Where Linux finds it: `linux,uefi-system-table` and so on, by their names in `/chosen`.
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
    /// Consoles, and the services: there are none.
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

const _: () = assert!(size_of::<SystemTable>() == 120 && size_of::<Descriptor>() == 40);

/// System table and all that it points to, for `base`; and where Linux finds it.
pub fn tables(base: u64, rsdp: u64, map: &[Memory]) -> (Vec<u8>, Handover) {
    let configuration = base + size_of::<SystemTable>() as u64;
    let mmap_start = configuration + size_of::<ConfigurationEntry>() as u64;
    let mmap_size = map.len() * size_of::<Descriptor>();
    let vendor = mmap_start + mmap_size as u64;
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
            kind: memory.kind.into(),
            pad: 0.into(),
            physical: memory.range.start.into(),
            virtual_address: 0.into(),
            pages: ((memory.range.end - memory.range.start) / PAGE).into(),
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
