//! The sending side.

use std::io::{self, Write};
use std::ops::Range;
use std::time::SystemTime;

use thiserror::Error;
use vm_memory::{Bytes as _, GuestAddress, GuestMemory, GuestMemoryError};
use zerocopy::IntoBytes as _;

use super::{
    BAD, Checksum, DATA, END, Head, MAGIC, MAX_PAGES, MAX_REGIONS, PAGE, RecordHeader, RegionEntry, VERSION,
};
use crate::ledger::{self, Cause, Ledger};

/// The reason why pages cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PageError {
    /// At least one of them is bad. Of several pages, each is then read alone.
    #[error("the page is bad")]
    Bad,
    /// The memory is missing.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
}

/// The reason why a guest was not sent. It is unchanged, and can go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Memory regions that cannot be sent.
    #[error("expected 1 to 256 regions of whole pages of 4 KiB, in rising order and apart, got {0:x?}")]
    Regions(Vec<Range<u64>>),
    /// Guest memory cannot be read.
    #[error("guest memory at {gpa:#x} cannot be read: {source}")]
    Memory {
        /// Guest physical address.
        gpa: u64,
        /// The cause.
        source: GuestMemoryError,
    },
    /// The connection failed.
    #[error("the other side does not take the guest, which stays: {0}")]
    Io(#[from] io::Error),
}

/// The sent guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The number of non-zero pages.
    pub pages: u64,
    /// The number of zero pages, which were left out.
    pub zero: u64,
    /// The number of bad pages, including newly found ones.
    pub bad: u64,
    /// The pages found to be bad during the transfer, page by page.
    pub found: Vec<Range<u64>>,
    /// The checksum that the other side must have received.
    pub checksum: Checksum,
}

/// Reads pages of `memory` by plain loads. Its bad pages must be in the ledger: any other ends this process.
pub fn plainly<M: GuestMemory>(memory: &M) -> impl FnMut(u64, &mut [u8]) -> Result<(), PageError> {
    |gpa, pages| Ok(memory.read_slice(pages, GuestAddress(gpa))?)
}

/// Sends a guest that stands still: `state`, the VMM's own data, and the memory of these `regions` (guest
/// physical addresses) without the pages in the ledger.
///
/// `read` fills whole pages, at most 1 MiB at a time, from a guest physical address on. Pages that it reports
/// as bad go into the ledger, as found at `time`, and are sent as bad. It may report a page only if it
/// survives the read; a plain load does not.
///
/// # Errors
/// [`SendError`]. The guest can go on here, with the ledger as it is then.
pub fn send(
    to: impl Write,
    state: &[u8],
    regions: &[Range<u64>],
    ledger: &mut Ledger,
    read: impl FnMut(u64, &mut [u8]) -> Result<(), PageError>,
    time: SystemTime,
) -> Result<Sent, SendError> {
    if !are_sound(regions) {
        return Err(SendError::Regions(regions.to_vec()));
    }
    let mut to = Hashed { to, hasher: blake3::Hasher::new() };
    head(&mut to, state, regions, ledger)?;
    let mut memory = Memory { to, read, time, pages: 0, zero: 0, bad: 0, found: Vec::new() };
    let mut buffer = vec![0; PAGE * MAX_PAGES];
    let sent = regions.iter().try_for_each(|region| memory.region(region, ledger, &mut buffer));
    // This holds also if the connection broke: the guest goes on with what is known now.
    for range in &memory.found {
        ledger.insert(range.clone(), Cause::Found, time);
    }
    sent?;
    let Memory { mut to, pages, zero, bad, found, .. } = memory;
    record(&mut to, END, pages..pages)?;
    let checksum = Checksum(*to.hasher.finalize().as_bytes());
    to.to.write_all(&checksum.0)?;
    to.to.flush()?;
    Ok(Sent { pages, zero, bad, found, checksum })
}

/// Returns true if these can be a guest's memory.
pub(super) fn are_sound(regions: &[Range<u64>]) -> bool {
    let mut end = 0;
    (1..=MAX_REGIONS).contains(&regions.len())
        && regions.iter().all(|region| {
            let follows = region.start >= end && region.start < region.end && region.end <= ledger::END;
            end = region.end;
            follows && region.start % ledger::PAGE == 0 && region.end % ledger::PAGE == 0
        })
}

fn head<W: Write>(
    to: &mut Hashed<W>,
    state: &[u8],
    regions: &[Range<u64>],
    ledger: &Ledger,
) -> io::Result<()> {
    let ledger = ledger.to_bytes();
    let head = Head {
        magic: MAGIC,
        version: VERSION.into(),
        regions: (regions.len() as u32).into(),
        state: (state.len() as u64).into(),
        ledger: (ledger.len() as u64).into(),
    };
    to.write_all(head.as_bytes())?;
    for region in regions {
        let entry = RegionEntry { start: region.start.into(), size: (region.end - region.start).into() };
        to.write_all(entry.as_bytes())?;
    }
    to.write_all(state)?;
    to.write_all(&ledger)?;
    let hash = to.hasher.finalize();
    to.write_all(hash.as_bytes())
}

/// Writes a record's first bytes.
fn record<W: Write>(to: &mut Hashed<W>, kind: u8, pages: Range<u64>) -> io::Result<()> {
    let count = (pages.end - pages.start) / ledger::PAGE;
    let header =
        RecordHeader { kind, zero: [0; 3], pages: (count as u32).into(), address: pages.start.into() };
    to.write_all(header.as_bytes())
}

/// A writer that hashes its data.
struct Hashed<W> {
    to: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The memory in transfer.
struct Memory<W, R> {
    to: Hashed<W>,
    read: R,
    time: SystemTime,
    pages: u64,
    zero: u64,
    bad: u64,
    found: Vec<Range<u64>>,
}

impl<W: Write, R: FnMut(u64, &mut [u8]) -> Result<(), PageError>> Memory<W, R> {
    /// Sends a region without its pages in the ledger.
    fn region(&mut self, region: &Range<u64>, ledger: &Ledger, buffer: &mut [u8]) -> Result<(), SendError> {
        let mut next = region.start;
        for bad in ledger.overlapping(region.clone()) {
            self.run(next..bad.range.start, buffer)?;
            self.bad += (bad.range.end - bad.range.start) / ledger::PAGE;
            next = bad.range.end;
        }
        self.run(next..region.end, buffer)
    }

    /// Sends pages that are not known to be bad.
    fn run(&mut self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), SendError> {
        let mut next = range.start;
        while next < range.end {
            let size = (range.end - next).min(buffer.len() as u64);
            self.chunk(next, buffer.get_mut(..size as usize).unwrap_or_default())?;
            next += size;
        }
        Ok(())
    }

    fn chunk(&mut self, gpa: u64, pages: &mut [u8]) -> Result<(), SendError> {
        match (self.read)(gpa, pages) {
            Ok(()) => return Ok(self.data(gpa, pages)?),
            Err(PageError::Memory(source)) => return Err(SendError::Memory { gpa, source }),
            Err(PageError::Bad) => {}
        }
        for (gpa, page) in (gpa..).step_by(PAGE).zip(pages.chunks_exact_mut(PAGE)) {
            match (self.read)(gpa, page) {
                Ok(()) => self.data(gpa, page)?,
                Err(PageError::Memory(source)) => return Err(SendError::Memory { gpa, source }),
                Err(PageError::Bad) => self.found(gpa)?,
            }
        }
        Ok(())
    }

    /// Sends the non-zero pages among these.
    fn data(&mut self, gpa: u64, pages: &[u8]) -> io::Result<()> {
        const ZERO: [u8; PAGE] = [0; PAGE];
        let all = (gpa..).step_by(PAGE).zip(pages.chunks_exact(PAGE));
        let mut rest = all.map(|(gpa, page)| (gpa, page != ZERO)).peekable();
        while let Some((start, is_data)) = rest.next() {
            let mut end = start + ledger::PAGE;
            while rest.next_if(|(_, next)| *next == is_data).is_some() {
                end += ledger::PAGE;
            }
            let count = (end - start) / ledger::PAGE;
            if !is_data {
                self.zero += count;
                continue;
            }
            self.pages += count;
            record(&mut self.to, DATA, start..end)?;
            let bytes = (start - gpa) as usize..(end - gpa) as usize;
            self.to.write_all(pages.get(bytes).unwrap_or_default())?;
        }
        Ok(())
    }

    fn found(&mut self, gpa: u64) -> io::Result<()> {
        let page = gpa..gpa + ledger::PAGE;
        self.found.push(page.clone());
        self.bad += 1;
        record(&mut self.to, BAD, page)?;
        self.to.write_all(&u64::from(ledger::seconds(self.time)).to_le_bytes())
    }
}
