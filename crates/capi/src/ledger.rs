//! The list of bad pages.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use seawall::ledger::{self, END, file::FileError};

use crate::pointer::{Buffer, Out, array, free, lock, shared, string};
use crate::records::{range, time};
use crate::status::{Error, ErrorOut, Failure, Status};

/// The way in which a page was found to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    /// A vCPU consumed it: a SEA exit, or SIGBUS with `BUS_MCEERR_AR`.
    Consumed = 1,
    /// The host found it before any access: SIGBUS with `BUS_MCEERR_AO`, or a scrubber's report.
    Found = 2,
    /// It was bad at the source of a migration.
    Migrated = 3,
    /// An experiment made it bad.
    Experiment = 4,
}

/// Neighbouring bad pages with the same history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BadRange {
    /// Guest physical address, whole pages of 4 KiB.
    pub gpa: u64,
    /// Size in bytes.
    pub size: u64,
    /// The time at which it was found, in seconds since 1970.
    pub unix_seconds: u64,
    /// One of `seawall_cause`.
    pub cause: u32,
}

/// The bad pages of one guest.
pub struct Ledger(Mutex<ledger::Ledger>);

/// Makes an empty ledger.
///
/// # Safety
/// `ledger` must be NULL or valid for writes of a pointer; the new ledger must go to `seawall_ledger_free`.
/// `error` must be NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_new(ledger: *mut *mut Ledger, error: *mut Error) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let ledger = unsafe { Out::new(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        ledger?.give(Ledger(Mutex::default()));
        Ok(())
    })
}

/// Reads a ledger from a file. SEAWALL_STATUS_NOT_FOUND if there is no file yet: make a new one. A damaged,
/// truncated or foreign file is refused (SEAWALL_STATUS_FORMAT); do not overwrite it without checking.
///
/// # Safety
/// `path` must be NULL or end with a zero. Otherwise as `seawall_ledger_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_load(
    path: *const c_char,
    ledger: *mut *mut Ledger,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let ledger = unsafe { Out::new(ledger, "ledger") };
    // SAFETY: NULL or a string with a zero at its end, by the contract.
    let path = unsafe { string(path, "path") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (ledger, path) = (ledger?, file_path(path?)?);
        let none = || Failure::new(Status::NotFound, format_args!("there is no ledger {}", path.display()));
        ledger.give(Ledger(Mutex::new(ledger::Ledger::load(&path)?.ok_or_else(none)?)));
        Ok(())
    })
}

/// Reads a ledger from the bytes of `seawall_ledger_to_bytes`, on the other side of a migration.
///
/// # Safety
/// `bytes` must be valid for reads of `size` bytes, or NULL with `size` 0. Otherwise as `seawall_ledger_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_from_bytes(
    bytes: *const u8,
    size: usize,
    ledger: *mut *mut Ledger,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let ledger = unsafe { Out::new(ledger, "ledger") };
    // SAFETY: valid for reads of `size` bytes or NULL with 0, by the contract.
    let bytes = unsafe { array(bytes, size, "bytes") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (ledger, bytes) = (ledger?, bytes?);
        let read = ledger::Ledger::from_bytes(bytes);
        ledger.give(Ledger(Mutex::new(read.map_err(|error| Failure::new(Status::Format, error))?)));
        Ok(())
    })
}

/// Frees a ledger; does nothing for NULL.
///
/// # Safety
/// `ledger` must be NULL, or from the library and no longer in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_free(ledger: *mut Ledger) {
    // SAFETY: NULL, or from the library and no longer in use, by the contract.
    unsafe { free(ledger) }
}

/// Writes the ledger to a file, replacing the old one. When it returns the file is on the disk; if it fails,
/// the old file stays.
///
/// # Safety
/// `ledger` must be NULL or from the library, `path` NULL or end with a zero, `error` NULL or valid for
/// writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_save(
    ledger: *const Ledger,
    path: *const c_char,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or a string with a zero at its end, by the contract.
    let path = unsafe { string(path, "path") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (ledger, path) = (ledger?, file_path(path?)?);
        // Not under the lock: a vCPU must not wait for the disk.
        let ledger = lock(&ledger.0).clone();
        Ok(ledger.save(&path)?)
    })
}

/// Writes the ledger as the bytes of its file: their number to `length`, and the bytes to `buffer` if its
/// `size` suffices.
///
/// # Safety
/// `ledger` must be NULL or from the library; `buffer` valid for writes of `size` bytes, or NULL with `size`
/// 0; `length` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_to_bytes(
    ledger: *const Ledger,
    buffer: *mut u8,
    size: usize,
    length: *mut usize,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: valid for writes of `size` bytes or NULL, by the contract.
    let buffer = unsafe { Buffer::new(buffer, size, "buffer") };
    // SAFETY: NULL or valid for writes, by the contract.
    let length = unsafe { Out::new(length, "length") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let bytes = lock(&ledger?.0).to_bytes();
        buffer.set(&bytes, length?)
    })
}

/// Enters the pages that a range touches. `cause` is one of `seawall_cause`. `added`, which may be NULL,
/// receives the number of new pages; the other pages keep their entry.
///
/// # Safety
/// `ledger` must be NULL or from the library, `added` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_insert(
    ledger: *const Ledger,
    gpa: u64,
    size: u64,
    cause: u32,
    unix_seconds: u64,
    added: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    let added = unsafe { Out::optional(added) };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let cause = match cause {
            bits if bits == Cause::Consumed as u32 => ledger::Cause::Consumed,
            bits if bits == Cause::Found as u32 => ledger::Cause::Found,
            bits if bits == Cause::Migrated as u32 => ledger::Cause::Migrated,
            bits if bits == Cause::Experiment as u32 => ledger::Cause::Experiment,
            other => {
                return Err(Failure::invalid(format_args!("expected a cause from 1 to 4, got {other}")));
            }
        };
        let (range, time) = (guest_range(gpa, size)?, time(unix_seconds)?);
        let pages = lock(&ledger?.0).insert(range, cause, time);
        if let Some(added) = added {
            added.set(pages);
        }
        Ok(())
    })
}

/// Removes the pages that lie wholly in a range, because they were healed. `removed`, which may be NULL,
/// receives their number.
///
/// # Safety
/// `ledger` must be NULL or from the library, `removed` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_remove(
    ledger: *const Ledger,
    gpa: u64,
    size: u64,
    removed: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    let removed = unsafe { Out::optional(removed) };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let range = guest_range(gpa, size)?;
        let pages = lock(&ledger?.0).remove(range);
        if let Some(removed) = removed {
            removed.set(pages);
        }
        Ok(())
    })
}

/// Writes 1 to `is_bad` if the page of this address is bad, otherwise 0.
///
/// # Safety
/// `ledger` must be NULL or from the library, `is_bad` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_contains(
    ledger: *const Ledger,
    gpa: u64,
    is_bad: *mut u32,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    let is_bad = unsafe { Out::new(is_bad, "is_bad") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        is_bad?.set(lock(&ledger?.0).contains(gpa).into());
        Ok(())
    })
}

/// Writes the number of bad pages to `pages`.
///
/// # Safety
/// `ledger` must be NULL or from the library, `pages` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_pages(
    ledger: *const Ledger,
    pages: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    let pages = unsafe { Out::new(pages, "pages") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        pages?.set(lock(&ledger?.0).pages());
        Ok(())
    })
}

/// Writes the first bad range at or after `from` to `bad`; SEAWALL_STATUS_NOT_FOUND if there is none. Search
/// for the next one from its end.
///
/// # Safety
/// `ledger` must be NULL or from the library, `bad` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_ledger_next(
    ledger: *const Ledger,
    from: u64,
    bad: *mut BadRange,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a ledger of the library's, by the contract.
    let ledger = unsafe { shared(ledger, "ledger") };
    // SAFETY: NULL or valid for writes, by the contract.
    let bad = unsafe { Out::new(bad, "bad") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (ledger, bad) = (lock(&ledger?.0), bad?);
        let found = ledger.overlapping(from..END).next();
        let none = || Failure::new(Status::NotFound, format_args!("nothing is bad from {from:#x} on"));
        let found = found.ok_or_else(none)?;
        let since = found.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        bad.set(BadRange {
            gpa: found.range.start,
            size: found.range.end - found.range.start,
            unix_seconds: since.as_secs(),
            cause: found.cause as u32,
        });
        Ok(())
    })
}

/// A range within a ledger's limits: guest physical addresses of 52 bits.
fn guest_range(gpa: u64, size: u64) -> Result<std::ops::Range<u64>, Failure> {
    let range = range(gpa, size)?;
    if range.end > END {
        let words = "expected a range within 52 bits of guest physical addresses, got";
        return Err(Failure::invalid(format_args!("{words} {size:#x} bytes at {gpa:#x}")));
    }
    Ok(range)
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere not all bytes are a path")]
fn file_path(path: &CStr) -> Result<PathBuf, Failure> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    Ok(OsStr::from_bytes(path.to_bytes()).into())
}

#[cfg(not(unix))]
fn file_path(path: &CStr) -> Result<PathBuf, Failure> {
    let path = path.to_str().map_err(|_| Failure::invalid("expected a path in UTF-8"))?;
    Ok(path.into())
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let (status, errno) = match &error {
            FileError::Read { source, .. } | FileError::Write { source, .. } => {
                (Status::File, source.raw_os_error())
            }
            FileError::Format { .. } => (Status::Format, None),
            _ => (Status::File, None),
        };
        Self::new(status, error).with_errno(errno)
    }
}
