//! The parts of the Arm architecture that Seawall needs: syndromes, fault status codes, PSTATE and exception
//! entry, exact to the bit. The crate knows nothing of KVM.
//!
//! - [`Esr`]: `ESR_ELx` with every [`ExceptionClass`], its ISS fields by name, and a text form for logs
//! - [`DataAbort`], [`InstructionAbort`], [`SError`]: the ISS of the exceptions that a memory error raises
//! - [`FaultStatus`]: the kind of fault, and the level of the walk
//! - [`Dfsr`], [`Ifsr`]: the same for AArch32, in short-descriptor and LPAE form
//! - [`Pstate`]: PSTATE and `SPSR_ELx`, both execution states
//! - [`sysreg`]: system registers by number and name
//! - [`take_exception`], [`take_abort32`]: exception entry as the CPU does it, over [`Registers`]
//!
//! Every value decodes and encodes back to itself, because hardware may write values that this crate does not
//! know yet.
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
