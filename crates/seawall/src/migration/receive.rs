//! The receiving side.

use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use vm_memory::{Bytes as _, GuestAddress, GuestMemory, GuestMemoryError, Permissions};
use zerocopy::FromBytes as _;

use super::send::are_sound;
use super::{
    BAD, Checksum, DATA, END, HASH_SIZE, Head, MAGIC, MAX_PAGES, MAX_REGIONS, RecordHeader, RegionEntry,
    VERSION,
};
use crate::ledger::file::FormatError;
use crate::ledger::{self, Cause, Ledger};

/// Bounds on the received data. The memory passed to [`Incoming::receive`] bounds the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the VMM's state.
    pub state: u64,
    /// Bytes of the ledger: 24 for each range.
    pub ledger: u64,
}

impl Default for Limits {
    /// 256 MiB each.
    fn default() -> Self {
        Self { state: 256 << 20, ledger: 256 << 20 }
    }
}

/// The reason why a guest was not taken. Do not run what was received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The connection failed.
    #[error("the guest did not come: {0}")]
    Io(#[source] io::Error),
    /// The stream ended too early.
    #[error("the guest did not come whole: the stream was cut off after {after} bytes")]
    Cut {
        /// Bytes received.
        after: u64,
    },
    /// The stream has another format.
    #[error("expected a guest on its way, which begins with `SEAMIGR`, got something else")]
    Foreign,
    /// The stream has another version.
    #[error("expected a stream of version 1, got version {0}: the other side is another release")]
    Version(u32),
    /// The stream announced more than the limit.
    #[error(
        "expected at most {limit} bytes of {what}, got {got}; raise the limit if the other side is trusted"
    )]
    TooMuch {
        /// The VMM's state, or the ledger.
        what: &'static str,
        /// Bytes.
        got: u64,
        /// Bytes.
        limit: u64,
    },
    /// A checksum is wrong.
    #[error("the checksum is wrong: the stream was damaged on its way")]
    Damaged,
    /// The ledger in it is not valid.
    #[error("the ledger in the stream: {0}")]
    Ledger(#[source] FormatError),
    /// The regions are not valid.
    #[error(
        "expected 1 to 256 regions of whole pages of 4 KiB, in rising order and apart: this was not written by Seawall"
    )]
    Regions,
    /// The guest's memory has another shape.
    #[error("the guest's memory is {region:#x?}, which is not there: make the VM as the other side's")]
    OtherMemory {
        /// A region of the guest's.
        region: Range<u64>,
    },
    /// A record is not valid.
    #[error(
        "expected a record of pages behind those before it, in the guest's memory and not known to be bad, got kind {kind}, \
         {pages} pages at {address:#x}: the stream was damaged, or not written by Seawall"
    )]
    Record {
        /// Its kind.
        kind: u8,
        /// Pages.
        pages: u32,
        /// Guest physical address.
        address: u64,
    },
    /// Guest memory cannot be written.
    #[error("guest memory at {gpa:#x} cannot be written: {source}")]
    Memory {
        /// Guest physical address.
        gpa: u64,
        /// The cause.
        source: GuestMemoryError,
    },
}

/// A guest in transfer, after its whole head was received.
#[derive(Debug)]
pub struct Incoming<R> {
    from: Hashed<R>,
    regions: Vec<Range<u64>>,
    state: Vec<u8>,
    /// The ledger as it was on the other side.
    ledger: Ledger,
}

/// A completely received guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The VMM's own state.
    pub state: Vec<u8>,
    /// The bad pages: found elsewhere ([`Cause::Migrated`]), with the time at which they were found.
    pub ledger: Ledger,
    /// The guest's memory to make bad before the guest runs: guest physical addresses, whole pages, rising.
    pub bad: Vec<Range<u64>>,
    /// The number of non-zero pages.
    pub pages: u64,
    /// The checksum that the other side must have sent.
    pub checksum: Checksum,
}

impl<R: Read> Incoming<R> {
    /// Reads the head. It is whole and undamaged, but may come from anybody.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn read(from: R, limits: &Limits) -> Result<Self, ReceiveError> {
        let mut from = Hashed { from, hasher: blake3::Hasher::new(), after: 0 };
        let mut head = [0; size_of::<Head>()];
        from.fill(&mut head)?;
        let head = Head::ref_from_bytes(&head).map_err(|_| ReceiveError::Foreign)?;
        if head.magic != MAGIC {
            return Err(ReceiveError::Foreign);
        }
        if head.version.get() != VERSION {
            return Err(ReceiveError::Version(head.version.get()));
        }
        let sizes = [
            ("the VMM's state", head.state.get(), limits.state),
            ("the ledger", head.ledger.get(), limits.ledger),
        ];
        for (what, got, limit) in sizes {
            if got > limit {
                return Err(ReceiveError::TooMuch { what, got, limit });
            }
        }
        let regions = from.regions(head.regions.get())?;
        let state = from.bytes(head.state.get())?;
        let ledger = from.bytes(head.ledger.get())?;
        from.checksum()?;
        if !are_sound(&regions) {
            return Err(ReceiveError::Regions);
        }
        let ledger = Ledger::from_bytes(&ledger).map_err(ReceiveError::Ledger)?;
        Ok(Self { from, regions, state, ledger })
    }

    /// The guest's memory: guest physical addresses, whole pages, rising.
    pub fn regions(&self) -> &[Range<u64>] {
        &self.regions
    }

    /// The VMM's own state.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Receives the guest's memory, to the end of the stream. `memory` must have the guest's regions, and
    /// zeroed pages.
    ///
    /// # Errors
    /// [`ReceiveError`]. The memory may be partly written then; do not run it.
    pub fn receive<M: GuestMemory>(mut self, memory: &M) -> Result<Received, ReceiveError> {
        for region in &self.regions {
            let size = region.end - region.start;
            if !memory.check_range(GuestAddress(region.start), size as usize, Permissions::Write) {
                return Err(ReceiveError::OtherMemory { region: region.clone() });
            }
        }
        let mut ledger = Ledger::default();
        for bad in self.ledger.ranges() {
            ledger.insert(bad.range, Cause::Migrated, bad.time);
        }
        let mut next = 0;
        let mut pages = 0;
        let mut buffer = Vec::new();
        while let Some(record) = self.record(next, pages)? {
            next = record.range.end;
            if let Some(time) = record.found {
                ledger.insert(record.range, Cause::Migrated, time);
                continue;
            }
            let gpa = record.range.start;
            buffer.resize((next - gpa) as usize, 0);
            self.from.fill(&mut buffer)?;
            let written = memory.write_slice(&buffer, GuestAddress(gpa));
            written.map_err(|source| ReceiveError::Memory { gpa, source })?;
            pages += (next - gpa) / ledger::PAGE;
        }
        let checksum = self.from.checksum()?;
        let bad = self.regions.iter().flat_map(|region| ledger.overlapping(region.clone()));
        let bad = joined(bad.map(|bad| bad.range));
        Ok(Received { state: self.state, ledger, bad, pages, checksum })
    }

    /// The next record, which must lie at or after `next`; `None` at the end, which must count `pages`.
    fn record(&mut self, next: u64, pages: u64) -> Result<Option<Record>, ReceiveError> {
        let mut bytes = [0; size_of::<RecordHeader>()];
        self.from.fill(&mut bytes)?;
        let RecordHeader { kind, zero, pages: count, address } = zerocopy::transmute!(bytes);
        let (count, address) = (count.get(), address.get());
        let wrong = ReceiveError::Record { kind, pages: count, address };
        if zero != [0; 3] {
            return Err(wrong);
        }
        if kind == END {
            return if count == 0 && address == pages { Ok(None) } else { Err(wrong) };
        }
        let end = address.checked_add(u64::from(count) * ledger::PAGE);
        let Some(range) = end.map(|end| address..end).filter(|range| self.takes(range, next)) else {
            return Err(wrong);
        };
        let found = match kind {
            DATA if count as usize <= MAX_PAGES => None,
            BAD => {
                let mut seconds = [0; 8];
                self.from.fill(&mut seconds)?;
                let seconds = u32::try_from(u64::from_le_bytes(seconds)).map_err(|_| wrong)?;
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()))
            }
            _ => return Err(wrong),
        };
        Ok(Some(Record { range, found }))
    }

    /// Returns true if a record can have these addresses.
    fn takes(&self, range: &Range<u64>, next: u64) -> bool {
        let has = |region: &Range<u64>| region.start <= range.start && range.end <= region.end;
        range.start < range.end
            && range.start >= next
            && range.start % ledger::PAGE == 0
            && self.regions.iter().any(has)
            && self.ledger.overlapping(range.clone()).next().is_none()
    }
}

/// A record, without the pages that follow it.
struct Record {
    range: Range<u64>,
    /// The time of pages that were found to be bad.
    found: Option<SystemTime>,
}

/// Joins neighbours.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(before) if before.end == range.start => before.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// A reader that hashes and counts its data.
#[derive(Debug)]
struct Hashed<R> {
    from: R,
    hasher: blake3::Hasher,
    after: u64,
}

impl<R: Read> Hashed<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReceiveError> {
        self.from.read_exact(bytes).map_err(|error| self.failed(error))?;
        self.after += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    fn failed(&self, error: io::Error) -> ReceiveError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReceiveError::Cut { after: self.after },
            _ => ReceiveError::Io(error),
        }
    }

    /// Reads `size` bytes. It allocates for received data, not for the announced size.
    fn bytes(&mut self, size: u64) -> Result<Vec<u8>, ReceiveError> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(size).read_to_end(&mut bytes);
        let read = read.map_err(ReceiveError::Io)? as u64;
        self.after += read;
        if read != size {
            return Err(ReceiveError::Cut { after: self.after });
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn regions(&mut self, count: u32) -> Result<Vec<Range<u64>>, ReceiveError> {
        if count as usize > MAX_REGIONS {
            return Err(ReceiveError::Regions);
        }
        let region = |_| {
            let mut bytes = [0; size_of::<RegionEntry>()];
            self.fill(&mut bytes)?;
            let RegionEntry { start, size } = zerocopy::transmute!(bytes);
            let end = start.get().checked_add(size.get()).ok_or(ReceiveError::Regions)?;
            Ok(start.get()..end)
        };
        (0..count).map(region).collect()
    }

    /// Checks the checksum of everything before it.
    fn checksum(&mut self) -> Result<Checksum, ReceiveError> {
        let expected = self.hasher.finalize();
        let mut bytes = [0; HASH_SIZE];
        // The hash of the rest includes the head's checksum.
        self.fill(&mut bytes)?;
        // blake3 compares in constant time.
        if expected == bytes { Ok(Checksum(bytes)) } else { Err(ReceiveError::Damaged) }
    }
}
