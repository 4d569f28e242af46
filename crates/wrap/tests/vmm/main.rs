//! A VMM that knows nothing of Seawall, on a kernel that is not there: what it sees, and what becomes of its guest.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod exits;
mod fake;
mod sigbus;
