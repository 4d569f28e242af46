//! The command lines of the lab's programs. `cargo xtask lab` reads them on the host, so that a wrong word, `--help` and
//! `--list` are answered there, without a lab.

mod bench;
mod contain;
mod diff;
mod wrap;

pub use bench::Bench;
pub use contain::{Contain, Scenario};
pub use diff::{AbiArg, Diff, GuestArg, OnlyArg};
pub use wrap::{Wrap, WrapScenario};
