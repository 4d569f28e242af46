//! The result of a call, as a number and in words.

use std::any::Any;
use std::ffi::c_char;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::pointer::{Out, cut};

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// A required pointer is NULL.
    NullPointer = 1,
    /// An argument is not valid.
    InvalidArgument = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The buffer is too small; it is unchanged, and the length says how many bytes are needed.
    BufferTooSmall = 4,
    /// A callback of the vCPU failed, or the request was refused; nothing was injected.
    Vcpu = 5,
    /// A callback of the vCPU failed after the kernel delivered: the guest takes a sound abort, but not the
    /// complete request.
    Degraded = 6,
    /// This vCPU cannot carry out the policy's decision; nothing was injected.
    Refused = 7,
    /// A callback of the guest's memory failed.
    Memory = 8,
    /// A file could not be read or written.
    File = 9,
    /// Bytes or a file are not a ledger, or are damaged.
    Format = 10,
    /// A bug of the library: please report it.
    Panic = 11,
}

/// Size of a message in bytes, with the zero at its end.
pub const SEAWALL_MESSAGE_SIZE: usize = 256;

/// A failure in words. The caller owns it; it needs no initialisation. Each call that gets it writes it, even
/// on success.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Error {
    /// The returned status.
    pub status: Status,
    /// The underlying errno, positive; 0 if none is known.
    pub os_errno: i32,
    /// The expectation and the finding, for people. Empty on success.
    pub message: [c_char; SEAWALL_MESSAGE_SIZE],
}

/// A call that failed.
pub(crate) struct Failure {
    pub(crate) status: Status,
    errno: i32,
    message: String,
}

impl Error {
    fn of(result: Result<(), Failure>) -> Self {
        let mut error = Self { status: Status::Ok, os_errno: 0, message: [0; SEAWALL_MESSAGE_SIZE] };
        let Err(Failure { status, errno, message }) = result else { return error };
        (error.status, error.os_errno) = (status, errno);
        // The last byte stays zero.
        let text = cut(&message, SEAWALL_MESSAGE_SIZE - 1);
        for (to, byte) in error.message.iter_mut().zip(text.bytes()) {
            *to = byte as c_char;
        }
        error
    }
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl Display) -> Self {
        Self { status, errno: 0, message: message.to_string() }
    }

    pub(crate) fn with_errno(self, errno: Option<i32>) -> Self {
        Self { errno: errno.unwrap_or(0), ..self }
    }

    pub(crate) fn invalid(message: impl Display) -> Self {
        Self::new(Status::InvalidArgument, message)
    }
}

/// The place for a call's error; none for NULL.
pub(crate) struct ErrorOut(Option<Out<Error>>);

impl ErrorOut {
    /// # Safety
    /// `error` must be NULL, or aligned and valid for writes until [`ErrorOut::call`].
    pub(crate) unsafe fn new(error: *mut Error) -> Self {
        // SAFETY: the caller gives the same guarantee.
        Self(unsafe { Out::optional(error) })
    }

    /// Runs the body of a call and lets no panic out.
    pub(crate) fn call(self, body: impl FnOnce() -> Result<(), Failure>) -> Status {
        // State that a panic left half done is behind a lock, and each such state is consistent.
        let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        let error = Error::of(result);
        let status = error.status;
        if let Some(out) = self.0 {
            out.set(error);
        }
        status
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
    Failure::new(Status::Panic, format_args!("a bug in Seawall, please report it: {words}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn error() -> Error {
        Error { status: Status::Ok, os_errno: 0, message: [1; SEAWALL_MESSAGE_SIZE] }
    }

    fn message(error: &Error) -> String {
        // SAFETY: each call ends the message with a zero.
        unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_comes_out_as_a_status_with_its_words() {
        let mut error = error();
        // SAFETY: `error` lives until the call is over, and nobody reads it before.
        let status = unsafe { ErrorOut::new(&raw mut error) }.call(|| panic!("the sky fell"));
        assert_eq!((status, error.status), (Status::Panic, Status::Panic));
        assert_eq!(message(&error), "a bug in Seawall, please report it: the sky fell");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_success_clears_it() {
        let mut error = error();
        // SAFETY: `error` lives until the call is over, and nobody reads it before.
        let out = unsafe { ErrorOut::new(&raw mut error) };
        let status = out.call(|| Err(Failure::invalid("ä".repeat(200))));
        assert_eq!((status, message(&error)), (Status::InvalidArgument, "ä".repeat(127)));
        // SAFETY: `error` is still alive.
        assert_eq!(unsafe { ErrorOut::new(&raw mut error) }.call(|| Ok(())), Status::Ok);
        assert_eq!(message(&error), "");
    }
}
