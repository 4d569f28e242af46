//! The error sources of a guest: the place of their records, and the choice of a free one.
//!
//! A record belongs to the guest from the write until the guest sets bit 0 of the source's read-ack register.
//! There are several sources of a kind, so several errors can be outstanding. When all are taken, the caller
//! holds back an error that a vCPU waits with ([`Report::Busy`]); an error that nobody has consumed yet waits
//! in a bounded queue ([`Ghes::announce`]). No record is overwritten, and none is sent twice.
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

/// The guest memory of one source in bytes: the address register, the read-ack register, the status block.
pub const SOURCE_STRIDE: u64 = 512;
/// The offset of the read-ack register.
const READ_ACK: u64 = 8;
/// The offset of the status block.
const BLOCK: u64 = 16;
/// The largest number of announcements that wait for a free source.
pub const QUEUE: usize = 4096;

const _: () = assert!(BLOCK + RECORD_SIZE as u64 <= SOURCE_STRIDE);

/// The sources and their place. The guest must not use the region as RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GhesRegion {
    /// Guest physical address, a multiple of 8.
    pub base: u64,
    /// The number of sources for consumed errors; as many errors can be outstanding.
    pub sea: u16,
    /// The number of sources for errors that were only found; their ids follow the others.
    pub polled: u16,
    /// The interval in milliseconds at which the guest polls those.
    pub poll_interval: u32,
}

impl GhesRegion {
    /// Size in bytes of guest memory.
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

/// The outcome for an error that a vCPU consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its record is written: inject the abort.
    Written {
        /// The id of the source.
        source: u16,
    },
    /// The guest has not read any of the written records. Let other vCPUs run, and ask again; a guest that
    /// never acknowledges finally gets the abort without a record.
    Busy,
}

/// The outcome for an error that was only found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The guest finds its record at its next poll.
    Written {
        /// The id of the source.
        source: u16,
    },
    /// It waits for a free source.
    Queued {
        /// The number of announcements before it.
        ahead: usize,
    },
    /// Too many wait: [`QUEUE`]. The guest will not be told.
    Dropped,
}

/// The error sources in operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ghes {
    region: GhesRegion,
    /// The serial number of the next record.
    serial: u32,
    /// The sources whose record the guest had not acknowledged at the last check. Only these are checked, as
    /// they are few.
    taken: Vec<u16>,
    queue: VecDeque<MemoryErrorRecord>,
}

impl Ghes {
    /// The sources of this region; nothing is written yet.
    pub fn new(region: GhesRegion) -> Self {
        Self { region, serial: 1, taken: Vec::new(), queue: VecDeque::new() }
    }

    /// The region of the sources.
    pub fn region(&self) -> &GhesRegion {
        &self.region
    }

    /// Returns true if the state is consistent; a state from a file may not be.
    pub fn is_sound(&self) -> bool {
        let sources = self.region.polled_ids().end;
        self.taken.iter().all(|id| *id < sources)
            && self.queue.iter().all(|record| record.range.start < record.range.end)
    }

    /// The records that wait for a free source, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &MemoryErrorRecord> {
        self.queue.iter()
    }

    /// Frees all sources: call it before each start of the guest. Records that waited for the old guest are
    /// dropped.
    ///
    /// # Errors
    /// [`RecordError`], if the memory does not contain the region.
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

    /// Writes the record of an error that a vCPU consumed at `address`, with all of `range` lost. The abort
    /// must follow.
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

    /// Takes back the record at this source, because no abort follows after all.
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

    /// Writes waiting records to the sources that the guest has freed; returns how many still wait. Call it
    /// now and then while there are some.
    ///
    /// # Errors
    /// [`RecordError`]; unwritten records keep waiting.
    pub fn flush(&mut self, memory: &dyn RecordMemory) -> Result<usize, RecordError> {
        while let Some(record) = self.queue.front().cloned() {
            let Some(source) = self.free(memory, self.region.polled_ids())? else { break };
            self.write(memory, source, &record)?;
            self.queue.pop_front();
        }
        Ok(self.queue.len())
    }

    /// The number of records that the guest has not acknowledged: of errors consumed, and of errors found.
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

    /// The first of these sources without a record, or with one that the guest has acknowledged.
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

    /// Writes the block's status last: until then a guest that looks finds no record.
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
