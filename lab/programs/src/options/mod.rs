//! The command lines of the lab's programs. `cargo xtask lab` parses them on the host, which answers wrong
//! words, `--help` and `--list` without a lab.

mod bench;
mod contain;
mod diff;
mod table;
mod wrap;

pub use bench::Bench;
pub use contain::{Contain, Scenario};
pub use diff::{AbiArg, Diff, GuestArg, OnlyArg};
pub use wrap::{Wrap, WrapScenario};
