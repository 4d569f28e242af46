//! The side that has the guest.

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

/// Why pages cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PageError {
    /// One of them is bad. Of several, each is then read by itself.
    #[error("the page is bad")]
    Bad,
    /// They are not there.
    #[error(transparent)]
    Memory(#[from] GuestMemoryError),
}

/// Why a guest was not sent. It is where it was, and can go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The memory is none that can be sent.
    #[error("expected 1 to 256 regions of whole pages of 4 KiB, in rising order and apart, got {0:x?}")]
    Regions(Vec<Range<u64>>),
    /// Guest memory cannot be read.
    #[error("guest memory at {gpa:#x} cannot be read: {source}")]
    Memory {
        /// Guest physical address.
        gpa: u64,
        /// Why not.
        source: GuestMemoryError,
    },
    /// The connection.
    #[error("the other side does not take the guest, which stays: {0}")]
    Io(#[from] io::Error),
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Pages with something in them.
    pub pages: u64,
    /// Pages that are zero, and were left out.
    pub zero: u64,
    /// Pages that are bad, those that were found to be so included.
    pub bad: u64,
    /// What was found to be bad just now, page by page.
    pub found: Vec<Range<u64>>,
    /// What the other side must have received.
    pub checksum: Checksum,
}

/// Reads pages of `memory` as they are. Their bad ones must be in the ledger: any other ends this process.
pub fn plainly<M: GuestMemory>(memory: &M) -> impl FnMut(u64, &mut [u8]) -> Result<(), PageError> {
    |gpa, pages| Ok(memory.read_slice(pages, GuestAddress(gpa))?)
}

/// Sends a guest that stands still: `state`, which only the VMM understands, and the memory of these `regions` (guest
/// physical addresses), but for what the ledger has of it.
///
/// `read` fills whole pages, at most 1 MiB at a time, from a guest physical address on. What it finds to be bad goes into the
/// ledger, as found at `time`, and over as bad. It may find a page only if that can be survived: a plain load of it
/// cannot.
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
    // Also if the connection broke: the guest goes on with what is known now.
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

/// Whether these can be a guest's memory.
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

/// A record's first bytes.
fn record<W: Write>(to: &mut Hashed<W>, kind: u8, pages: Range<u64>) -> io::Result<()> {
    let count = (pages.end - pages.start) / ledger::PAGE;
    let header =
        RecordHeader { kind, zero: [0; 3], pages: (count as u32).into(), address: pages.start.into() };
    to.write_all(header.as_bytes())
}

/// Hashes what goes through it.
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

/// The memory on its way.
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
    /// All of a region, around what the ledger has of it.
    fn region(&mut self, region: &Range<u64>, ledger: &Ledger, buffer: &mut [u8]) -> Result<(), SendError> {
        let mut next = region.start;
        for bad in ledger.overlapping(region.clone()) {
            self.run(next..bad.range.start, buffer)?;
            self.bad += (bad.range.end - bad.range.start) / ledger::PAGE;
            next = bad.range.end;
        }
        self.run(next..region.end, buffer)
    }

    /// Pages that are not known to be bad.
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

    /// Sends what is not zero of these pages.
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
