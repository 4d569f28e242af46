//! The guest's memory, as two functions of its VMM.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::sync::atomic::{Ordering, fence};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{AtomicAccess, Bytes, GuestAddress, ReadVolatile, VolatileSlice, WriteVolatile};

use crate::status::{Failure, Status};

/// Guest memory, for the records of errors. Each function gives 0 or an errno (positive or negative), and does all of
/// what it is asked for or fails. An access of 4 or 8 bytes, which are aligned then, must be one load or one store: the
/// guest looks at the same words. In QEMU `address_space_rw` does that; over a mapping, `__atomic_load_n` and
/// `__atomic_store_n` do. Ordering is the library's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Memory {
    /// Given to each function as it is.
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

/// Why memory was not read or written.
#[derive(Debug)]
pub(crate) enum MemoryError {
    /// The VMM's function failed.
    Call { what: &'static str, gpa: u64, size: usize, errno: i32 },
    /// What it was to be copied from or to failed.
    Stream(io::ErrorKind),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { what, gpa, size, errno } => {
                let words = io::Error::from_raw_os_error(*errno);
                write!(f, "cannot {what} {size} bytes of guest memory at {gpa:#x}: {words}")
            }
            Self::Stream(kind) => write!(f, "cannot copy guest memory: {kind}"),
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        let errno = match error {
            MemoryError::Call { errno, .. } => Some(errno),
            MemoryError::Stream(_) => None,
        };
        Self::new(Status::Memory, error).with_errno(errno)
    }
}

impl From<vm_memory::VolatileMemoryError> for MemoryError {
    fn from(error: vm_memory::VolatileMemoryError) -> Self {
        match error {
            vm_memory::VolatileMemoryError::IOError(error) => Self::Stream(error.kind()),
            _ => Self::Stream(io::ErrorKind::InvalidInput),
        }
    }
}

impl Bytes<GuestAddress> for Calls {
    type E = MemoryError;

    fn write(&self, bytes: &[u8], gpa: GuestAddress) -> Result<usize, MemoryError> {
        self.write_slice(bytes, gpa)?;
        Ok(bytes.len())
    }

    fn read(&self, bytes: &mut [u8], gpa: GuestAddress) -> Result<usize, MemoryError> {
        self.read_slice(bytes, gpa)?;
        Ok(bytes.len())
    }

    fn write_slice(&self, bytes: &[u8], gpa: GuestAddress) -> Result<(), MemoryError> {
        // SAFETY: the VMM's own function, with what it asked for.
        match unsafe { (self.write)(self.opaque, gpa.0, bytes.as_ptr(), bytes.len()) } {
            0 => Ok(()),
            errno => Err(failed("write", gpa, bytes.len(), errno)),
        }
    }

    fn read_slice(&self, bytes: &mut [u8], gpa: GuestAddress) -> Result<(), MemoryError> {
        // SAFETY: as above.
        match unsafe { (self.read)(self.opaque, gpa.0, bytes.as_mut_ptr(), bytes.len()) } {
            0 => Ok(()),
            errno => Err(failed("read", gpa, bytes.len(), errno)),
        }
    }

    fn read_volatile_from<F: ReadVolatile>(
        &self,
        gpa: GuestAddress,
        from: &mut F,
        count: usize,
    ) -> Result<usize, MemoryError> {
        let mut bytes = vec![0; count];
        let read = from.read_volatile(&mut slice(&mut bytes))?;
        bytes.truncate(read);
        self.write(&bytes, gpa)
    }

    fn read_exact_volatile_from<F: ReadVolatile>(
        &self,
        gpa: GuestAddress,
        from: &mut F,
        count: usize,
    ) -> Result<(), MemoryError> {
        let mut bytes = vec![0; count];
        from.read_exact_volatile(&mut slice(&mut bytes))?;
        self.write_slice(&bytes, gpa)
    }

    fn write_volatile_to<F: WriteVolatile>(
        &self,
        gpa: GuestAddress,
        to: &mut F,
        count: usize,
    ) -> Result<usize, MemoryError> {
        let mut bytes = vec![0; count];
        self.read_slice(&mut bytes, gpa)?;
        Ok(to.write_volatile(&slice(&mut bytes))?)
    }

    fn write_all_volatile_to<F: WriteVolatile>(
        &self,
        gpa: GuestAddress,
        to: &mut F,
        count: usize,
    ) -> Result<(), MemoryError> {
        let mut bytes = vec![0; count];
        self.read_slice(&mut bytes, gpa)?;
        Ok(to.write_all_volatile(&slice(&mut bytes))?)
    }

    /// In the strongest order, whatever was asked for: the VMM's function has none.
    fn store<T: AtomicAccess>(&self, value: T, gpa: GuestAddress, _: Ordering) -> Result<(), MemoryError> {
        fence(Ordering::SeqCst);
        self.write_slice(value.as_slice(), gpa)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn load<T: AtomicAccess>(&self, gpa: GuestAddress, _: Ordering) -> Result<T, MemoryError> {
        fence(Ordering::SeqCst);
        let mut value = T::zeroed();
        self.read_slice(value.as_mut_slice(), gpa)?;
        fence(Ordering::SeqCst);
        Ok(value)
    }
}

fn slice(bytes: &mut [u8]) -> VolatileSlice<'_, impl BitmapSlice + use<>> {
    VolatileSlice::from(bytes)
}

fn failed(what: &'static str, gpa: GuestAddress, size: usize, errno: i32) -> MemoryError {
    MemoryError::Call { what, gpa: gpa.0, size, errno: errno.saturating_abs() }
}
