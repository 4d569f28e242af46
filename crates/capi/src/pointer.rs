//! Pointers that cross the boundary.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::status::{Failure, Status};

fn null(name: &str) -> Failure {
    Failure::new(Status::NullPointer, format_args!("expected `{name}`, got NULL"))
}

/// The value that a pointer points to.
///
/// # Safety
/// It must be NULL, or aligned and valid for reads as long as `'a`, with nobody writing there but the locks inside.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: NULL, or a `T` that is readable for `'a`, by the caller.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// The same for a value to change.
///
/// # Safety
/// It must be NULL, or aligned and valid for reads and writes as long as `'a`, and not used by anybody else
/// meanwhile.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: NULL, or a `T` that nobody else uses for `'a`, by the caller.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// The place for a result, which may be uninitialised.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// It must be NULL, or aligned and valid for writes until [`Out::set`].
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        // SAFETY: the caller gives the same guarantee.
        unsafe { Self::optional(pointer) }.ok_or_else(|| null(name))
    }

    /// The place for an optional result: `None` for NULL.
    ///
    /// # Safety
    /// As [`Out::new`].
    pub(crate) unsafe fn optional(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: valid for writes until now, by the contract of `new` and `optional`.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// Hands out a handle, which the caller must free.
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Frees a handle; does nothing for NULL.
///
/// # Safety
/// It must be NULL, or from [`Out::give`] and no longer in use.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: from `Box::into_raw` in `Out::give`, and freed once, by the caller.
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
    // SAFETY: not NULL, and there is a zero at its end, by the caller.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// An array; NULL is an empty one.
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
    // SAFETY: by the caller `count` elements are readable, and a slice can have that size.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A caller's buffer for bytes or text, which may be uninitialised.
pub(crate) struct Buffer {
    start: *mut u8,
    size: usize,
    name: &'static str,
}

impl Buffer {
    /// # Safety
    /// `start` must be NULL, or valid for writes of `size` bytes, and not used by anybody else, until the
    /// buffer is set.
    pub(crate) unsafe fn new(start: *mut u8, size: usize, name: &'static str) -> Self {
        Self { start, size, name }
    }

    /// Writes all bytes or none, and their number to `length`.
    pub(crate) fn set(self, bytes: &[u8], length: Out<usize>) -> Result<(), Failure> {
        length.set(bytes.len());
        let (expected, size) = (bytes.len(), self.size);
        if size < expected {
            let words = format!("expected a buffer of {expected} bytes, got one of {size}");
            return Err(Failure::new(Status::BufferTooSmall, words));
        }
        self.write(bytes)
    }

    /// Writes as much of a text as fits, cut at a character, and a zero.
    pub(crate) fn set_text(self, text: &str) -> Result<(), Failure> {
        let text = cut(text, self.size.saturating_sub(1));
        self.write(&[text.as_bytes(), &[0]].concat())
    }

    fn write(self, bytes: &[u8]) -> Result<(), Failure> {
        let start = NonNull::new(self.start).ok_or_else(|| null(self.name))?;
        let fits = bytes.len().min(self.size);
        // SAFETY: `fits` is within both; nobody else uses the buffer by the contract of `new`, so it does not
        // overlap `bytes`.
        unsafe { start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), fits) };
        Ok(())
    }
}

/// As much of a text as `size` bytes hold, cut at a character.
pub(crate) fn cut(text: &str, size: usize) -> &str {
    let is_end = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=size.min(text.len())).rev().find(is_end).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Locks even after a panic: each state behind our locks is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
