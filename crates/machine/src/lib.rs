//! A software Arm machine with poisonable memory, in the shape of KVM.
#![forbid(unsafe_code)]

pub mod board;
mod cpu;
mod decode;
mod exec;
pub mod fdt;
mod icache;
mod idregs;
pub mod loader;
pub mod memory;
mod poison;
mod psci;
mod run;
mod sysreg;
mod tlb;
mod trap;
pub mod uart;
mod vcpu;
mod vm;
pub mod walk;

pub use decode::is_allocated;
pub use vcpu::Vcpu;
pub use vm::{Config, Error, RAM_BASE, StorePolicy, UndefinedLog, Vm};
