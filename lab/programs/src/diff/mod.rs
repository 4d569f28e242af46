//! The model of the kernel half compared with the real kernel: random guest states, random sequences of
//! events, masks and runs, the same on `/dev/kvm` and on `seawall_events`, compared bit by bit.
//!
//! - [`Cpu`]: measurements of the host before any comparison: the register bits that KVM and its CPU keep
//! - [`Sequence`]: a random state and random [`Step`]s, made from a seed alone
//! - [`Model`]: KVM around `seawall_events` (`seawall_model`), and the effect of running a tiny guest program
//! - [`Subject`]: the counterpart of the model: real KVM (`Real`, aarch64 Linux only), or in tests another
//!   model
//! - [`play`]: runs one sequence on both; [`shrink`]: finds the smallest sequence that still differs
//!
//! `lab/DIFFERENCES.md` lists the findings.

mod aarch32;
mod aarch64;
mod code;
mod cpu;
mod interpret;
mod model;
mod play;
mod random;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod real;
mod registers;
mod sequence;
mod shrink;
mod subject;

pub use code::{Action, Code, Instruction, Program};
pub use cpu::{Cpu, Kept};
pub use model::{Model, Ran, Unpredictable};
pub use play::{Difference, Played, play};
pub use random::{Only, sequence};
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use real::{Host, Real};
pub use registers::{Guest, compared, configuration, written};
pub use sequence::{Sequence, Step};
pub use shrink::shrink;
pub use subject::{Set, Subject};

#[cfg(test)]
mod tests;
