//! The Hardware Error Source Table: Generic Hardware Error Sources, version 2.
//!
//! Source: ACPI 6.5, 18.3.2 (the table), 18.3.2.8 (GHESv2), 18.3.2.9 (notification), 5.2.3.2 (Generic Address Structure).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Bytes of the table before its first source.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// Bytes of one source.
pub const SOURCE_SIZE: usize = size_of::<Ghes2>();

const _: () = assert!(HEADER_SIZE == 40 && SOURCE_SIZE == 92 && size_of::<Notify>() == 28);

/// The way in which a guest learns of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notification {
    /// The guest looks when it takes a synchronous external abort.
    Sea,
    /// The guest polls at an interval.
    Polled {
        /// Milliseconds.
        interval: u32,
    },
    /// The event device of the DSDT (PNP0C33) is notified, by a GPIO signal or an interrupt.
    EventDevice,
}

/// One source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSource {
    /// Its number, unique among the sources.
    pub id: u16,
    /// The way in which the guest learns of its records.
    pub notification: Notification,
    /// Guest physical address of the 8 bytes that hold the address of the status block.
    pub status_address_register: u64,
    /// Size of the status block in bytes.
    pub status_block_length: u32,
    /// Guest physical address of the 8 bytes whose bit 0 the guest sets after it read the block.
    pub read_ack_register: u64,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
    sources: U32,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct GenericAddress {
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access_size: u8,
    address: U64,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Notify {
    kind: u8,
    length: u8,
    configuration_write_enable: U16,
    poll_interval: U32,
    vector: U32,
    thresholds: [U32; 4],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Ghes2 {
    kind: U16,
    id: U16,
    related: U16,
    flags: u8,
    enabled: u8,
    records: U32,
    sections_per_record: U32,
    raw_data_length: U32,
    status_address: GenericAddress,
    notify: Notify,
    status_block_length: U32,
    read_ack: GenericAddress,
    read_ack_preserve: U64,
    read_ack_write: U64,
}

/// A register of 64 bits in system memory.
fn register(address: u64) -> GenericAddress {
    GenericAddress { space: 0, bit_width: 64, bit_offset: 0, access_size: 4, address: address.into() }
}

impl Notification {
    fn structure(self) -> Notify {
        let (kind, poll_interval) = match self {
            Self::Polled { interval } => (0, interval),
            Self::EventDevice => (7, 0),
            Self::Sea => (8, 0),
        };
        Notify {
            kind,
            length: size_of::<Notify>() as u8,
            configuration_write_enable: 0.into(),
            poll_interval: poll_interval.into(),
            vector: 0.into(),
            thresholds: [0.into(); 4],
        }
    }
}

impl ErrorSource {
    fn entry(&self) -> Ghes2 {
        Ghes2 {
            kind: 10.into(),
            id: self.id.into(),
            related: 0xffff.into(),
            flags: 0,
            enabled: 1,
            records: 1.into(),
            sections_per_record: 1.into(),
            raw_data_length: 0.into(),
            status_address: register(self.status_address_register),
            notify: self.notification.structure(),
            status_block_length: self.status_block_length.into(),
            read_ack: register(self.read_ack_register),
            read_ack_preserve: (!1).into(),
            read_ack_write: 1.into(),
        }
    }
}

/// The table.
///
/// ```
/// use seawall::apei::hest::{Notification, ErrorSource, table};
///
/// let source = ErrorSource {
///     id: 0,
///     notification: Notification::Sea,
///     status_address_register: 0x4000_0000,
///     status_block_length: 4096,
///     read_ack_register: 0x4000_0008,
/// };
/// let hest = table(&[source]);
/// assert_eq!(hest.len(), 40 + 92);
/// assert_eq!(hest.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), 0);
/// ```
pub fn table(sources: &[ErrorSource]) -> Vec<u8> {
    let header = Header {
        signature: *b"HEST",
        length: ((HEADER_SIZE + sources.len() * SOURCE_SIZE) as u32).into(),
        revision: 1,
        checksum: 0,
        oem_id: *b"SEAWLL",
        oem_table_id: *b"SEAWALL ",
        oem_revision: 1.into(),
        creator_id: *b"SWLL",
        creator_revision: 1.into(),
        sources: (sources.len() as u32).into(),
    };
    let mut table = header.as_bytes().to_vec();
    for source in sources {
        table.extend_from_slice(source.entry().as_bytes());
    }
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = table.get_mut(std::mem::offset_of!(Header, checksum)) {
        *checksum = sum.wrapping_neg();
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(notification: Notification) -> ErrorSource {
        ErrorSource {
            id: 3,
            notification,
            status_address_register: 0x1122_3344_5566,
            status_block_length: 0x400,
            read_ack_register: 0x6677_8899,
        }
    }

    /// ACPI 6.5, table 18.10: each field at its offset in the entry.
    #[test]
    fn a_source_has_each_field_where_the_specification_puts_it() {
        let table = table(&[source(Notification::Sea)]);
        let entry = &table[40..];
        let expected: [(usize, &[u8]); 14] = [
            (0, &[10, 0]),
            (2, &[3, 0]),
            (4, &[0xff, 0xff]),
            (6, &[0, 1]),
            (8, &[1, 0, 0, 0, 1, 0, 0, 0]),
            (16, &[0; 4]),
            (20, &[0, 64, 0, 4, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0]),
            (32, &[8, 28]),
            (34, &[0; 26]),
            (60, &[0, 4, 0, 0]),
            (64, &[0, 64, 0, 4]),
            (68, &[0x99, 0x88, 0x77, 0x66, 0, 0, 0, 0]),
            (76, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (84, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (at, expected) in expected {
            assert_eq!(&entry[at..at + expected.len()], expected, "at {at}");
        }
        assert_eq!(entry.len(), 92);
    }

    #[test]
    fn a_polled_source_says_how_often() {
        let table = table(&[source(Notification::Polled { interval: 1000 })]);
        assert_eq!(table[40 + 32..40 + 40], [0, 28, 0, 0, 0xe8, 3, 0, 0]);
    }

    #[test]
    fn the_table_counts_its_sources_and_sums_to_zero() {
        let sources: Vec<ErrorSource> =
            (0..17).map(|id| ErrorSource { id, ..source(Notification::Sea) }).collect();
        let table = table(&sources);
        assert_eq!(table[..8], [b'H', b'E', b'S', b'T', 0x44, 0x06, 0, 0]);
        assert_eq!(table[36..40], [17, 0, 0, 0]);
        assert_eq!(table.len(), 0x644);
        assert_eq!(table.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256, 0);
    }
}
