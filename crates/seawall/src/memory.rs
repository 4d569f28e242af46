//! Guest memory, as error records need it.

use std::error::Error;

use thiserror::Error as ThisError;

/// The part of the guest's memory that holds error records. With the feature `records` every
/// `vm_memory::Bytes<GuestAddress>` implements it, and so every `GuestMemory` does.
pub trait RecordMemory {
    /// Writes all of these bytes at a guest physical address.
    ///
    /// # Errors
    /// [`RecordError`]: the memory is missing, or cannot be written.
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), RecordError>;

    /// One load of 8 aligned bytes, with the ordering of `Acquire`.
    ///
    /// # Errors
    /// As [`RecordMemory::write`].
    fn load_u64(&self, gpa: u64) -> Result<u64, RecordError>;

    /// One store of 8 aligned bytes, with the ordering of `Release`.
    ///
    /// # Errors
    /// As [`RecordMemory::write`].
    fn store_u64(&self, gpa: u64, value: u64) -> Result<(), RecordError>;

    /// One store of 4 aligned bytes, with the ordering of `Release`.
    ///
    /// # Errors
    /// As [`RecordMemory::write`].
    fn store_u32(&self, gpa: u64, value: u32) -> Result<(), RecordError>;
}

/// An access to the guest's records failed.
#[derive(Debug, ThisError)]
#[error(transparent)]
pub struct RecordError(Box<dyn Error + Send + Sync>);

impl RecordError {
    /// Wraps the memory's own error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The memory's own error.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

#[cfg(feature = "records")]
mod vm_memory_impl {
    use std::error::Error;
    use std::sync::atomic::Ordering;

    use vm_memory::{Bytes, GuestAddress};

    use super::{RecordError, RecordMemory};

    impl<M> RecordMemory for M
    where
        M: Bytes<GuestAddress>,
        M::E: Error + Send + Sync + 'static,
    {
        fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), RecordError> {
            self.write_slice(bytes, GuestAddress(gpa)).map_err(RecordError::new)
        }

        fn load_u64(&self, gpa: u64) -> Result<u64, RecordError> {
            self.load(GuestAddress(gpa), Ordering::Acquire).map_err(RecordError::new)
        }

        fn store_u64(&self, gpa: u64, value: u64) -> Result<(), RecordError> {
            self.store(value, GuestAddress(gpa), Ordering::Release).map_err(RecordError::new)
        }

        fn store_u32(&self, gpa: u64, value: u32) -> Result<(), RecordError> {
            self.store(value, GuestAddress(gpa), Ordering::Release).map_err(RecordError::new)
        }
    }
}
