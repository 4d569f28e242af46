//! The devices. They know nothing of a backend: they are on a bus, drive [`InterruptLine`]s, and reach guest
//! memory by `vm-memory`.
//!
//! [`InterruptLine`]: crate::interrupt::InterruptLine

pub mod disk;
pub mod pl011;
pub mod rtc;
pub mod virtio;
