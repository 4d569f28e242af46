//! The transfer of a guest's memory to another VMM, with its poison.
//!
//! A read of a bad page kills the VMM, or its host. So pages in the [`Ledger`] are never read: they are sent
//! as ranges, and the other side makes holes there that abort when they are touched. A page that turns out to
//! be bad during the transfer joins them, if the reader can tell ([`PageError::Bad`]); with plain loads such
//! a page kills the VMM, as it does anywhere else.
//!
//! - [`send`]: the VMM's own state as bytes, the ledger, the pages. The guest must stand still meanwhile
//! - [`Incoming`]: the received guest, in two steps: first the head, from which a VM is made, then its
//!   memory. Run no part of it before [`Incoming::receive`] returns: then all of it arrived as it was sent
//! - [`hand_over`] and [`Received::take_over`]: the change of ownership. The guest never runs on both sides
//!
//! ```
//! use std::time::SystemTime;
//! use seawall::ledger::{Cause, Ledger};
//! use seawall::migration::{Incoming, Limits, plainly, send};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ram = [(GuestAddress(0x4000_0000), 1 << 20)];
//! let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&ram)?;
//! memory.write_slice(b"hello", GuestAddress(0x4000_1000))?;
//! let mut ledger = Ledger::default();
//! ledger.insert(0x4000_2000..0x4000_3000, Cause::Consumed, SystemTime::now());
//!
//! let mut wire = Vec::new(); // A socket, most of the time.
//! let regions = [0x4000_0000..0x4010_0000];
//! send(&mut wire, b"vCPUs and devices", &regions, &mut ledger, plainly(&memory), SystemTime::now())?;
//!
//! let incoming = Incoming::read(&wire[..], &Limits::default())?;
//! assert_eq!(incoming.state(), b"vCPUs and devices");
//! let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&ram)?;
//! let received = incoming.receive(&memory)?;
//! assert_eq!(received.bad, [0x4000_2000..0x4000_3000]); // To be made bad here, too.
//! assert!(received.ledger.contains(0x4000_2000));
//! # Ok(())
//! # }
//! ```
//!
//! # The stream
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SEAMIGR` and a zero |
//! | 4 | version, 1 |
//! | 4 | number of memory regions: 1 to 256 |
//! | 8 | size of the VMM's state in bytes |
//! | 8 | size of the ledger in bytes |
//! | 16 each | regions in rising order: first guest physical address, bytes |
//! | | the VMM's state |
//! | | the ledger in its file format ([`ledger::file`](mod@crate::ledger::file)) |
//! | 32 | BLAKE3 of all of the above |
//! | | records in rising order of their addresses |
//! | 32 | BLAKE3 of all of the above |
//!
//! A record: kind (1 byte), zeros (3), pages of 4 KiB (4), first guest physical address (8). Its content
//! follows:
//!
//! | kind | |
//! |---|---|
//! | 1 | the pages, at most 256 of them |
//! | 2 | pages found to be bad during the transfer: seconds since 1970 (8) |
//! | 3 | the end; its address is the number of pages of kind 1, its pages are 0 |
//!
//! Pages without a record are zero or bad. Numbers are little-endian. Nothing may follow but the handover.

mod handover;
mod receive;
mod send;

use std::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use handover::{HandoverError, hand_over};
pub use receive::{Incoming, Limits, ReceiveError, Received};
pub use send::{PageError, SendError, Sent, plainly, send};

#[cfg(doc)]
use crate::ledger::Ledger;

const MAGIC: [u8; 8] = *b"SEAMIGR\0";
const VERSION: u32 = 1;
const HASH_SIZE: usize = 32;
/// The largest number of memory regions in a stream.
const MAX_REGIONS: usize = 256;
/// Bytes of a page.
const PAGE: usize = crate::ledger::PAGE as usize;
/// The largest number of pages in a record.
const MAX_PAGES: usize = 256;

/// BLAKE3 of the whole stream, by which the two sides identify a migration.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(pub [u8; HASH_SIZE]);

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    regions: U32,
    state: U64,
    ledger: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegionEntry {
    start: U64,
    size: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    kind: u8,
    zero: [u8; 3],
    pages: U32,
    address: U64,
}

const _: () = assert!(size_of::<Head>() == 32 && size_of::<RegionEntry>() == 16);
const _: () = assert!(size_of::<RecordHeader>() == 16);

/// [`RecordHeader::kind`].
const DATA: u8 = 1;
const BAD: u8 = 2;
const END: u8 = 3;

#[cfg(test)]
mod tests;
