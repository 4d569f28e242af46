//! ACPI Platform Error Interfaces: the record that says to a guest which of its memory is bad.
//!
//! An abort alone kills the process that took it. With a record, Linux takes the page offline as well, so that nobody
//! gets it next, and tells the process why (`BUS_MCEERR_AR`).
//!
//! - [`cper`]: a memory error as the 172 bytes of a Generic Error Status Block
//! - [`hest`]: the table that tells the guest where records appear
//! - [`efi`]: the hand-over of ACPI tables without UEFI firmware
//! - [`explain`]: status blocks, CPER records and sections of any writer, field by field
//! - [`ghes`]: the records' place in guest memory, and whose turn it is there
//!
//! Source: ACPI 6.5, 18.3.2; UEFI 2.10, appendix N.

pub mod cper;
pub mod efi;
pub mod explain;
pub mod ghes;
pub mod hest;
