//! Records of errors, for guests that boot with ACPI.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use seawall::apei::cper::{self, MemoryErrorRecord};
use seawall::apei::ghes::{Announcement as Announced, Ghes, GhesRegion};
use seawall::apei::hest;

use crate::containment::Containment;
use crate::memory::Memory;
use crate::pointer::{Buffer, Out, lock, shared};
use crate::status::{Error, ErrorOut, Failure, Status};

/// Size of a record in bytes: a Generic Error Status Block with one memory section.
pub const SEAWALL_CPER_SIZE: usize = 172;
/// Size in bytes of the guest memory for each source of records.
pub const SEAWALL_SOURCE_SIZE: usize = 512;

const _: () = assert!(SEAWALL_CPER_SIZE == cper::RECORD_SIZE);
const _: () = assert!(SEAWALL_SOURCE_SIZE as u64 == seawall::apei::ghes::SOURCE_STRIDE);

/// The severity of an error, in ACPI's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Severity {
    /// The memory is lost, but not the whole system.
    Recoverable = 0,
    /// The system is lost: Linux panics.
    Fatal = 1,
    /// Nothing was lost.
    Corrected = 2,
}

/// The outcome of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Announcement {
    /// The guest finds its record at its next poll.
    Written = 0,
    /// It waits for a free source: `seawall_flush_records`.
    Queued = 1,
    /// Too many wait: the guest will not be told.
    Dropped = 2,
}

/// The place of the records in guest memory. The guest must not use it as RAM: `seawall_hest` tells the guest
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RecordsRegion {
    /// Guest physical address, a multiple of 8. The region has SEAWALL_SOURCE_SIZE bytes for each source.
    pub base: u64,
    /// The number of sources for consumed errors, such as 16; as many errors can be outstanding.
    pub sea_sources: u16,
    /// The number of sources for errors that were only found, such as 1.
    pub polled_sources: u16,
    /// The interval in milliseconds at which the guest polls those.
    pub poll_interval_ms: u32,
}

impl RecordsRegion {
    fn checked(self) -> Result<GhesRegion, Failure> {
        let sources = u32::from(self.sea_sources) + u32::from(self.polled_sources);
        if sources == 0 || sources > u32::from(u16::MAX) {
            return Err(Failure::invalid(format_args!(
                "expected 1 to 65535 sources of records, got {sources}"
            )));
        }
        let region = GhesRegion {
            base: self.base,
            sea: self.sea_sources,
            polled: self.polled_sources,
            poll_interval: self.poll_interval_ms,
        };
        if self.base % 8 != 0 || self.base.checked_add(region.size()).is_none() {
            let words = "expected the records at a multiple of 8, and to end below 2^64, got";
            return Err(Failure::invalid(format_args!("{words} {:#x}", self.base)));
        }
        Ok(region)
    }
}

/// A range of guest memory.
pub(crate) fn range(gpa: u64, size: u64) -> Result<Range<u64>, Failure> {
    let end = gpa.checked_add(size).filter(|_| size > 0).ok_or_else(|| {
        let words = "expected a range that holds something and ends below 2^64, got";
        Failure::invalid(format_args!("{words} {size:#x} bytes at {gpa:#x}"))
    })?;
    Ok(gpa..end)
}

/// The time of these seconds since 1970, up to the limit of a record: two digits of the century.
pub(crate) fn time(unix_seconds: u64) -> Result<SystemTime, Failure> {
    const YEAR_10000: u64 = 253_402_300_800;
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_seconds));
    time.filter(|_| unix_seconds < YEAR_10000).ok_or_else(|| {
        Failure::invalid(format_args!(
            "expected seconds since 1970 before the year 10000, got {unix_seconds}"
        ))
    })
}

/// Sets the place where the guest looks for records from now on; NULL for none. Call
/// `seawall_containment_reset_records` next.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`, `region` NULL or valid for reads, `error`
/// NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_set_records(
    containment: *const Containment,
    region: *const RecordsRegion,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, by the contract.
    let region = unsafe { region.as_ref() };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let containment = containment?;
        let region = region.map(|region| region.checked()).transpose()?;
        lock(&containment.0).set_records(region.map(Ghes::new));
        Ok(())
    })
}

/// Frees all sources: call it before each start of the guest.
///
/// # Safety
/// `containment` must be NULL or from `seawall_containment_new`; `memory` NULL or valid for reads, and its
/// functions as `seawall_memory` requires; `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_containment_reset_records(
    containment: *const Containment,
    memory: *const Memory,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { shared(memory, "memory") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let memory = memory?.calls()?;
        with_records(containment?, |ghes| Ok(ghes.reset(&memory)?))
    })
}

/// Tells the guest of bad memory that it has not touched yet, after a SIGBUS with `BUS_MCEERR_AO`.
/// `announcement` receives one of `seawall_announcement`.
///
/// # Safety
/// As `seawall_containment_reset_records`; `announcement` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_announce(
    containment: *const Containment,
    memory: *const Memory,
    gpa: u64,
    size: u64,
    unix_seconds: u64,
    announcement: *mut u32,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { shared(memory, "memory") };
    // SAFETY: NULL or valid for writes, by the contract.
    let announcement = unsafe { Out::new(announcement, "announcement") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (memory, announcement) = (memory?.calls()?, announcement?);
        let (range, time) = (range(gpa, size)?, time(unix_seconds)?);
        with_records(containment?, |ghes| {
            announcement.set(match ghes.announce(&memory, range, time)? {
                Announced::Written { .. } => Announcement::Written,
                Announced::Queued { .. } => Announcement::Queued,
                Announced::Dropped => Announcement::Dropped,
            } as u32);
            Ok(())
        })
    })
}

/// Writes waiting announcements to the sources that the guest has freed; `waiting` receives the number that
/// still wait. Call it now and then while there are some.
///
/// # Safety
/// As `seawall_containment_reset_records`; `waiting` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_flush_records(
    containment: *const Containment,
    memory: *const Memory,
    waiting: *mut usize,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or from `seawall_containment_new`, by the contract.
    let containment = unsafe { shared(containment, "containment") };
    // SAFETY: NULL or valid for reads, and its functions access the guest's memory, by the contract.
    let memory = unsafe { shared(memory, "memory") };
    // SAFETY: NULL or valid for writes, by the contract.
    let waiting = unsafe { Out::new(waiting, "waiting") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (memory, waiting) = (memory?.calls()?, waiting?);
        with_records(containment?, |ghes| {
            waiting.set(ghes.flush(&memory)?);
            Ok(())
        })
    })
}

fn with_records(
    containment: &Containment,
    act: impl FnOnce(&mut Ghes) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut containment = lock(&containment.0);
    let none =
        || Failure::new(Status::NotFound, "the guest has no records: seawall_containment_set_records first");
    act(containment.records().ok_or_else(none)?)
}

/// Writes the HEST, the ACPI table that tells the guest of the records: its size in bytes to `length`, and
/// the table to `buffer` if its `size` suffices (40, and 92 for each source).
///
/// # Safety
/// `region` must be NULL or valid for reads; `buffer` valid for writes of `size` bytes, or NULL with `size`
/// 0; `length` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_hest(
    region: *const RecordsRegion,
    buffer: *mut u8,
    size: usize,
    length: *mut usize,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or valid for reads, by the contract.
    let region = unsafe { shared(region, "region") };
    // SAFETY: valid for writes of `size` bytes or NULL, by the contract.
    let buffer = unsafe { Buffer::new(buffer, size, "buffer") };
    // SAFETY: NULL or valid for writes, by the contract.
    let length = unsafe { Out::new(length, "length") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let region = region?.checked()?;
        buffer.set(&hest::table(&region.sources()), length?)
    })
}

/// Writes the record of an error, SEAWALL_CPER_SIZE bytes, for a VMM with its own GHES. `severity` is one of
/// `seawall_severity`. The range becomes the smallest power of two around it. `serial` makes the record
/// differ from all others: Linux takes a record equal to one of the last ten seconds for a repeat, and
/// ignores it.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, or NULL with `size` 0; `length` and `error` NULL or
/// valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_cper(
    gpa: u64,
    range_size: u64,
    severity: u32,
    unix_seconds: u64,
    serial: u32,
    buffer: *mut u8,
    size: usize,
    length: *mut usize,
    error: *mut Error,
) -> Status {
    // SAFETY: valid for writes of `size` bytes or NULL, by the contract.
    let buffer = unsafe { Buffer::new(buffer, size, "buffer") };
    // SAFETY: NULL or valid for writes, by the contract.
    let length = unsafe { Out::new(length, "length") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let severity = match severity {
            bits if bits == Severity::Recoverable as u32 => cper::Severity::Recoverable,
            bits if bits == Severity::Fatal as u32 => cper::Severity::Fatal,
            bits if bits == Severity::Corrected as u32 => cper::Severity::Corrected,
            other => {
                return Err(Failure::invalid(format_args!("expected a severity from 0 to 2, got {other}")));
            }
        };
        let (range, time) = (range(gpa, range_size)?, time(unix_seconds)?);
        let record = MemoryErrorRecord { address: range.start, range, severity, time, serial };
        buffer.set(&record.to_bytes(), length?)
    })
}
