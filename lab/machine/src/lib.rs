//! Test equipment: the lab's machine (`cargo xtask lab`), whose memory can go bad, and actions on a process
//! that no VMM takes.
//!
//! - [`PoisonRegister`], [`physical_address`], [`hole`]: the lab's machine; elsewhere they report that it is
//!   missing
//! - [`send_sigbus`], [`set_events_unreadable`]: signals and system calls that no VMM makes, on any Linux

#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod calls;
mod register;

pub use calls::{send_sigbus, set_events_unreadable};
pub use register::{PoisonRegister, hole, is_lab, physical_address};

/// The lab's machine is missing, or refused a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);
