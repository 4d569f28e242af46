//! What comes over the boundary as pointers.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::status::{Failure, Status};

fn null(name: &str) -> Failure {
    Failure::new(Status::NullPointer, format_args!("expected `{name}`, got NULL"))
}

/// What a pointer points to.
///
/// # Safety
/// It must be NULL, or aligned and valid for reads as long as `'a`, with nobody writing there but the locks inside.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: by the caller.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// The same, to be changed.
///
/// # Safety
/// It must be NULL, or aligned and valid for reads and writes as long as `'a`, and nobody else's meanwhile.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: by the caller.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// A place for a result, which need not hold anything yet.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// It must be NULL, or aligned and valid for writes until [`Out::set`].
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        NonNull::new(pointer).map(Self).ok_or_else(|| null(name))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: by the caller of `new`.
        unsafe { self.0.as_ptr().write(value) }
    }
}

impl<T> Out<*mut T> {
    /// A handle, which the caller must free.
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Frees a handle; nothing for NULL.
///
/// # Safety
/// It must be NULL, or from [`Out::give`] and used by nobody any more.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: by the caller.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// A C string.
///
/// # Safety
/// It must be NULL, or valid for reads up to a zero, as long as `'a`.
pub(crate) unsafe fn string<'a>(pointer: *const c_char, name: &str) -> Result<&'a CStr, Failure> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: by the caller.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// An array; NULL is one of no elements.
///
/// # Safety
/// It must be aligned and valid for reads of `count` elements as long as `'a`, or NULL with `count` 0.
pub(crate) unsafe fn array<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T], Failure> {
    if pointer.is_null() {
        return if count == 0 { Ok(&[]) } else { Err(null(name)) };
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::invalid(format_args!(
            "`{name}` has {count} elements: more than memory can hold"
        )));
    }
    // SAFETY: by the caller, and the size is one that a slice can have.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// Gives bytes to a buffer of `size`, and their number to `length`.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, or NULL with `size` 0; `length` as for [`Out::new`].
pub(crate) unsafe fn give_bytes(
    bytes: &[u8],
    buffer: *mut u8,
    size: usize,
    length: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: by the caller.
    unsafe { Out::new(length, "length") }?.set(bytes.len());
    if size < bytes.len() {
        let expected = bytes.len();
        return Err(Failure::new(
            Status::BufferTooSmall,
            format_args!("expected a buffer of {expected} bytes, got one of {size}"),
        ));
    }
    if buffer.is_null() {
        return Err(null("buffer"));
    }
    // SAFETY: by the caller, `buffer` has at least as many bytes; ours are not in it.
    unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

/// Writes as much of a text as fits, cut at a character, and a zero.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes.
pub(crate) unsafe fn write_text(buffer: *mut c_char, size: usize, text: &str) {
    let Some(room) = size.checked_sub(1) else { return };
    let fits = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    // SAFETY: `fits` is less than `size`.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), fits);
        buffer.add(fits).write(0);
    }
}

/// Also after a panic: each state behind our locks is sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
