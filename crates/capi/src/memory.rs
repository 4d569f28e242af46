//! The guest's memory, as two functions of its VMM.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{Ordering, fence};

use seawall::{RecordError, RecordMemory};

use crate::status::{Failure, Status};

/// Guest memory, for the records of errors. Each function returns 0 or an errno (positive or negative), and
/// completes the whole request or fails. An access of 4 or 8 bytes is aligned, and must be one load or one
/// store, because the guest reads the same words. QEMU's `address_space_rw` does that; so do
/// `__atomic_load_n` and `__atomic_store_n` over a mapping. The library takes care of ordering.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Memory {
    /// Passed to each function unchanged.
    pub opaque: *mut c_void,
    /// Reads `size` bytes at `gpa` into `bytes`.
    pub read: Option<unsafe extern "C" fn(opaque: *mut c_void, gpa: u64, bytes: *mut u8, size: usize) -> i32>,
    /// Writes `size` bytes from `bytes` at `gpa`.
    pub write:
        Option<unsafe extern "C" fn(opaque: *mut c_void, gpa: u64, bytes: *const u8, size: usize) -> i32>,
}

/// Both functions, neither of them NULL.
pub(crate) struct Calls {
    opaque: *mut c_void,
    read: unsafe extern "C" fn(*mut c_void, u64, *mut u8, usize) -> i32,
    write: unsafe extern "C" fn(*mut c_void, u64, *const u8, usize) -> i32,
}

impl Memory {
    pub(crate) fn calls(&self) -> Result<Calls, Failure> {
        let missing = |name| {
            Failure::new(
                Status::NullPointer,
                format_args!("expected the memory's function `{name}`, got NULL"),
            )
        };
        Ok(Calls {
            opaque: self.opaque,
            read: self.read.ok_or_else(|| missing("read"))?,
            write: self.write.ok_or_else(|| missing("write"))?,
        })
    }
}

/// The VMM's function failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {size} bytes of guest memory at {gpa:#x}: {}", io::Error::from_raw_os_error(*.errno))]
struct CallFailed {
    what: &'static str,
    gpa: u64,
    size: usize,
    errno: i32,
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let error = error.into_inner();
        let errno = error.downcast_ref().map(|CallFailed { errno, .. }| *errno);
        Self::new(Status::Memory, error).with_errno(errno)
    }
}

fn failed(what: &'static str, gpa: u64, size: usize, errno: i32) -> RecordError {
    RecordError::new(CallFailed { what, gpa, size, errno: errno.saturating_abs() })
}

/// The VMM's functions have no ordering, so this uses the strongest one.
impl RecordMemory for Calls {
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), RecordError> {
        // SAFETY: the VMM's own function with its own pointer; it reads `bytes.len()` bytes, which are valid.
        match unsafe { (self.write)(self.opaque, gpa, bytes.as_ptr(), bytes.len()) } {
            0 => Ok(()),
            errno => Err(failed("write", gpa, bytes.len(), errno)),
        }
    }

    fn load_u64(&self, gpa: u64) -> Result<u64, RecordError> {
        let mut bytes = [0; 8];
        // SAFETY: the VMM's own function with its own pointer; it writes `bytes.len()` bytes, for which there
        // is room.
        let errno = unsafe { (self.read)(self.opaque, gpa, bytes.as_mut_ptr(), bytes.len()) };
        fence(Ordering::SeqCst);
        if errno == 0 { Ok(u64::from_ne_bytes(bytes)) } else { Err(failed("read", gpa, bytes.len(), errno)) }
    }

    fn store_u64(&self, gpa: u64, value: u64) -> Result<(), RecordError> {
        fence(Ordering::SeqCst);
        RecordMemory::write(self, gpa, &value.to_ne_bytes())
    }

    fn store_u32(&self, gpa: u64, value: u32) -> Result<(), RecordError> {
        fence(Ordering::SeqCst);
        RecordMemory::write(self, gpa, &value.to_ne_bytes())
    }
}
