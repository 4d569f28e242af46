//! Test gear: the lab's machine (`cargo xtask lab`), whose memory can go bad, and what a test does to a process that no
//! VMM would.
//!
//! - [`PoisonRegister`], [`physical_address`], [`hole`]: the lab's machine; elsewhere they say that it is not there
//! - [`send_sigbus`], [`set_events_unreadable`]: signals and system calls as no VMM makes them, on any Linux

#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod calls;
mod register;

pub use calls::{send_sigbus, set_events_unreadable};
pub use register::{PoisonRegister, hole, is_lab, physical_address};

/// The lab's machine is not there, or did not take what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);
