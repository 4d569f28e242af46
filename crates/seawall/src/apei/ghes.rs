//! The error sources of a guest: where their records lie, and which of them is free for the next.
//!
//! A record belongs to the guest from when it is written until the guest has set bit 0 of the source's read-ack
//! register. There are several sources of a kind, so that several errors can be outstanding; what comes when all are
//! taken is for the caller to hold back ([`Report::Busy`], for an error that a vCPU waits with), or waits here in a queue
//! that is bounded ([`Ghes::announce`], for one that nobody has consumed yet). Nothing is written over, and nothing is
//! sent twice.
//!
//! ```
//! use std::time::SystemTime;
//! use seawall::apei::cper::{MemoryErrorRecord, Severity};
//! use seawall::apei::ghes::{Ghes, GhesRegion, Report};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x4000_0000), 0x1_0000)])?;
//! let region = GhesRegion { base: 0x4000_0000, sea: 16, polled: 1, poll_interval: 1000 };
//! let hest = seawall::apei::hest::table(&region.sources());
//! assert_eq!(hest.len(), 40 + 17 * 92);
//!
//! let mut ghes = Ghes::new(region);
//! ghes.reset(&memory)?;
//! let report = ghes.report(&memory, 0x4021_0000, 0x4021_0000..0x4021_1000, Severity::Recoverable, SystemTime::now())?;
//! assert_eq!(report, Report::Written { source: 0 });
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::time::SystemTime;

use super::cper::{MemoryErrorRecord, RECORD_SIZE, Severity, granule};
use super::hest::{ErrorSource, Notification};
use crate::{RecordError, RecordMemory};

/// Bytes of guest memory that a source takes: the address register, the read-ack register, the status block.
pub const SOURCE_STRIDE: u64 = 512;
/// Of these, where the read-ack register is.
const READ_ACK: u64 = 8;
/// And where the status block is.
const BLOCK: u64 = 16;
/// How many announcements wait at most for a free source.
pub const QUEUE: usize = 4096;

const _: () = assert!(BLOCK + RECORD_SIZE as u64 <= SOURCE_STRIDE);

/// The sources and their place. The guest must not take the region for RAM of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GhesRegion {
    /// Guest physical address, a multiple of 8.
    pub base: u64,
    /// Sources for errors that were consumed: as many can be outstanding.
    pub sea: u16,
    /// Sources for errors that were only found; they have the ids behind the others.
    pub polled: u16,
    /// How often the guest looks at those, in milliseconds.
    pub poll_interval: u32,
}

impl GhesRegion {
    /// Bytes of guest memory.
    pub fn size(&self) -> u64 {
        (u64::from(self.sea) + u64::from(self.polled)) * SOURCE_STRIDE
    }

    /// The sources, for [`hest::table`](super::hest::table).
    pub fn sources(&self) -> Vec<ErrorSource> {
        let polled = Notification::Polled { interval: self.poll_interval };
        let kinds = (0..self.sea).map(|_| Notification::Sea).chain((0..self.polled).map(|_| polled));
        let source = |(id, notification)| {
            let start = self.start(id);
            ErrorSource {
                id,
                notification,
                status_address_register: start,
                status_block_length: (SOURCE_STRIDE - BLOCK) as u32,
                read_ack_register: start + READ_ACK,
            }
        };
        (0..).zip(kinds).map(source).collect()
    }

    fn start(&self, id: u16) -> u64 {
        self.base + u64::from(id) * SOURCE_STRIDE
    }

    fn sea_ids(&self) -> Range<u16> {
        0..self.sea
    }

    fn polled_ids(&self) -> Range<u16> {
        self.sea..self.sea.saturating_add(self.polled)
    }
}

/// What became of an error that a vCPU consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its record is there: inject the abort.
    Written {
        /// The id of the source.
        source: u16,
    },
    /// The guest has not read any of the records that are there. Let other vCPUs run, and ask again; a guest that
    /// does not acknowledge gets the abort without a record in the end.
    Busy,
}

/// What became of an error that was only found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The guest finds its record when it looks next.
    Written {
        /// The id of the source.
        source: u16,
    },
    /// It waits for a source to be free, behind so many others.
    Queued {
        /// How many are before it.
        ahead: usize,
    },
    /// Too many wait: [`QUEUE`]. The guest will not be told.
    Dropped,
}

/// The sources at work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ghes {
    region: GhesRegion,
    /// The serial number of the next record.
    serial: u32,
    /// The sources with a record that the guest had not acknowledged when that was last looked at: only these are looked at,
    /// as there are few.
    taken: Vec<u16>,
    queue: VecDeque<MemoryErrorRecord>,
}

impl Ghes {
    /// The sources of this region; nothing is written yet.
    pub fn new(region: GhesRegion) -> Self {
        Self { region, serial: 1, taken: Vec::new(), queue: VecDeque::new() }
    }

    /// Where they are.
    pub fn region(&self) -> &GhesRegion {
        &self.region
    }

    /// Whether it can be at work: what came from a file may not be.
    pub fn is_sound(&self) -> bool {
        let sources = self.region.polled_ids().end;
        self.taken.iter().all(|id| *id < sources)
            && self.queue.iter().all(|record| record.range.start < record.range.end)
    }

    /// What waits for a source to be free, in its order.
    pub fn waiting(&self) -> impl Iterator<Item = &MemoryErrorRecord> {
        self.queue.iter()
    }

    /// Makes all sources free: before the guest starts, and each time that it starts anew. What waited for the old
    /// guest is forgotten.
    ///
    /// # Errors
    /// [`RecordError`], if the region is not in it.
    pub fn reset(&mut self, memory: &dyn RecordMemory) -> Result<(), RecordError> {
        self.queue.clear();
        self.taken.clear();
        for id in self.region.sea_ids().start..self.region.polled_ids().end {
            let start = self.region.start(id);
            memory.write(start, &[0; SOURCE_STRIDE as usize])?;
            memory.store_u64(start, (start + BLOCK).to_le())?;
            memory.store_u64(start + READ_ACK, 1_u64.to_le())?;
        }
        Ok(())
    }

    /// Writes the record of an error that a vCPU consumed at `address`, with all of `range` lost. The abort must follow.
    ///
    /// # Errors
    /// [`RecordError`]. The source stays free if it could not be written.
    pub fn report(
        &mut self,
        memory: &dyn RecordMemory,
        address: u64,
        range: Range<u64>,
        severity: Severity,
        time: SystemTime,
    ) -> Result<Report, RecordError> {
        let Some(source) = self.free(memory, self.region.sea_ids())? else { return Ok(Report::Busy) };
        let record = self.record(address, range, severity, time);
        self.write(memory, source, &record)?;
        Ok(Report::Written { source })
    }

    /// Takes back the record at this source, for an abort that does not follow after all.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn retract(&mut self, memory: &dyn RecordMemory, source: u16) -> Result<(), RecordError> {
        let start = self.region.start(source);
        memory.store_u32(start + BLOCK, 0)?;
        memory.store_u64(start + READ_ACK, 1_u64.to_le())?;
        self.taken.retain(|taken| *taken != source);
        Ok(())
    }

    /// Tells the guest of bad memory that it has not touched yet.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn announce(
        &mut self,
        memory: &dyn RecordMemory,
        range: Range<u64>,
        time: SystemTime,
    ) -> Result<Announcement, RecordError> {
        self.flush(memory)?;
        let ahead = self.queue.len();
        if ahead == 0 {
            if let Some(source) = self.free(memory, self.region.polled_ids())? {
                let record = self.record(range.start, range, Severity::Recoverable, time);
                self.write(memory, source, &record)?;
                return Ok(Announcement::Written { source });
            }
        }
        if ahead >= QUEUE {
            return Ok(Announcement::Dropped);
        }
        let record = self.record(range.start, range, Severity::Recoverable, time);
        self.queue.push_back(record);
        Ok(Announcement::Queued { ahead })
    }

    /// Writes what waits into the sources that the guest has freed since; gives how many still wait. To be called now
    /// and then while there are some.
    ///
    /// # Errors
    /// [`RecordError`]; what was not written waits on.
    pub fn flush(&mut self, memory: &dyn RecordMemory) -> Result<usize, RecordError> {
        while let Some(record) = self.queue.front().cloned() {
            let Some(source) = self.free(memory, self.region.polled_ids())? else { break };
            self.write(memory, source, &record)?;
            self.queue.pop_front();
        }
        Ok(self.queue.len())
    }

    /// How many records the guest has not acknowledged: of errors consumed, and of errors found.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn outstanding(&self, memory: &dyn RecordMemory) -> Result<(usize, usize), RecordError> {
        let mut outstanding = (0, 0);
        for id in &self.taken {
            if !self.is_free(memory, *id)? {
                let is_sea = self.region.sea_ids().contains(id);
                *(if is_sea { &mut outstanding.0 } else { &mut outstanding.1 }) += 1;
            }
        }
        Ok(outstanding)
    }

    /// The first of these sources whose record the guest has acknowledged, or that had none.
    fn free(&mut self, memory: &dyn RecordMemory, ids: Range<u16>) -> Result<Option<u16>, RecordError> {
        let mut taken = Vec::with_capacity(self.taken.len());
        for id in &self.taken {
            if !self.is_free(memory, *id)? {
                taken.push(*id);
            }
        }
        self.taken = taken;
        Ok(ids.into_iter().find(|id| !self.taken.contains(id)))
    }

    fn is_free(&self, memory: &dyn RecordMemory, id: u16) -> Result<bool, RecordError> {
        Ok(u64::from_le(memory.load_u64(self.region.start(id) + READ_ACK)?) & 1 == 1)
    }

    fn record(
        &mut self,
        address: u64,
        range: Range<u64>,
        severity: Severity,
        time: SystemTime,
    ) -> MemoryErrorRecord {
        let serial = self.serial;
        self.serial = serial.wrapping_add(1);
        MemoryErrorRecord { address, range: granule(range), severity, time, serial }
    }

    /// The block's status goes last: until then a guest that looks sees that there is nothing.
    fn write(
        &mut self,
        memory: &dyn RecordMemory,
        source: u16,
        record: &MemoryErrorRecord,
    ) -> Result<(), RecordError> {
        let start = self.region.start(source);
        let bytes = record.to_bytes();
        let (status, rest) = bytes.split_at(size_of::<u32>());
        memory.write(start + BLOCK + size_of::<u32>() as u64, rest)?;
        memory.store_u64(start + READ_ACK, 0)?;
        let status = status.first_chunk().map_or(0, |status| u32::from_ne_bytes(*status));
        memory.store_u32(start + BLOCK, status)?;
        self.taken.push(source);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
