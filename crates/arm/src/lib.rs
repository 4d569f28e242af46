//! The Arm architecture's own part of Seawall: syndromes, fault status codes, PSTATE and exception
//! entry, to the bit, and nothing of KVM.
//!
//! - [`Esr`]: `ESR_ELx` with every [`ExceptionClass`], its ISS fields by name, and a text form for logs
//! - [`DataAbort`], [`InstructionAbort`], [`SError`]: the ISS of the exceptions a memory error becomes
//! - [`FaultStatus`]: what went wrong, and at which walk level
//! - [`Dfsr`], [`Ifsr`]: the same for AArch32, in short-descriptor and LPAE form
//! - [`Pstate`]: PSTATE and `SPSR_ELx`, both execution states
//! - [`sysreg`]: system registers by number and name
//! - [`take_exception`], [`take_abort32`]: what the CPU does when it takes one, over [`Registers`]
//!
//! Every value decodes to something and encodes back to itself: hardware may write what this crate
//! does not know yet.
//!
//! ```
//! use seawall_arm::{DataAbort, Esr, FaultStatus, Syndrome};
//!
//! // What a CPU reports when a guest loads from a line that its memory could not correct.
//! let esr = Esr::from_bits(0x9200_0210);
//! let Syndrome::DataAbort(abort) = esr.syndrome() else { panic!() };
//! assert_eq!(abort.dfsc, FaultStatus::External);
//! assert!(abort.ea && !abort.fnv && !abort.wnr);
//! assert_eq!(
//!     esr.to_string(),
//!     "0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort"
//! );
//! # let _: DataAbort = abort;
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod abort;
mod bits;
mod class;
mod entry;
mod entry32;
mod esr;
mod fault_status;
mod fields;
mod fsr;
mod pstate;
mod registers;
mod serror;
pub mod sysreg;

pub use abort::{AccessSize, DataAbort, ErrorState, InstructionAbort};
pub use class::ExceptionClass;
pub use entry::{EntryContext, Exception, Target, Vector, synchronous_abort_vector, take_exception};
pub use entry32::{Abort32, report_abort32, take_abort32};
pub use esr::{Esr, Syndrome};
pub use fault_status::FaultStatus;
pub use fields::{Field, Fields};
pub use fsr::{Dfsr, FsrFormat, FsrStatus, Ifsr};
pub use pstate::{ExceptionLevel, Mode, Pstate};
pub use registers::{Reg, Registers, hcr, hcrx, sctlr, sctlr2, tcr};
pub use serror::{AsynchronousErrorType, SError};
