//! ACPI Platform Error Interfaces: the record that tells a guest which memory is bad.
//!
//! An abort alone kills the process that took it. With a record, Linux also takes the page offline, so that
//! nobody gets it next, and tells the process the address (`BUS_MCEERR_AR`).
//!
//! - [`cper`]: a memory error as the 172 bytes of a Generic Error Status Block
//! - [`hest`]: the table that tells the guest where records appear
//! - [`efi`]: the hand-over of ACPI tables without UEFI firmware
//! - [`explain`]: status blocks, CPER records and sections of any writer, field by field
//! - [`ghes`]: the records' place in guest memory, and the order of their use
//!
//! Source: ACPI 6.5, 18.3.2; UEFI 2.10, appendix N.

pub mod cper;
pub mod efi;
pub mod explain;
pub mod ghes;
pub mod hest;
