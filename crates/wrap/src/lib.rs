//! Containment inside a VMM that is not changed.
//!
//! The preload library (`libseawall_preload.so`) stands before the C library's functions. It hands `ioctl`, `mmap` and the
//! like to a [`Wrap`], which lets the VMM's own calls pass as they are, learns from them which VMs, vCPUs and memory there
//! are, and takes what `KVM_RUN` brings: an SEA exit, or a SIGBUS for bad memory. It contains the error
//! ([`seawall::Containment`]) and runs the vCPU again; the VMM sees neither.
//!
//! - [`Settings`]: what is done, and who is told: variables of the environment, which `seawall wrap` sets
//! - [`Wrap`]: the bookkeeping, and the hand-over to the thread that contains (on Linux)
//! - [`Calls`]: the functions behind ours; a test has a kernel of its own there
//!
//! # While nothing is bad
//!
//! A `KVM_RUN` costs a look at its exit's reason, and two stores around it that tell SIGBUS's handler that this thread is in
//! a run. Nothing is allocated, no lock is taken, and no system call is made.
//!
//! # A thread of its own
//!
//! VMMs filter the system calls of their threads: a vCPU's may not read registers. So containment is done by a helper thread,
//! made before the VMM's `main`. The vCPU's thread hands over and waits by futex. With its first error the helper gets a
//! filter of its own, in which a call too many fails and does not kill. A filter that the VMM puts on all of its threads at
//! once (`SECCOMP_FILTER_FLAG_TSYNC`) is on the helper too: it is asked for the calls of containment when it is installed, and
//! if one is missing, errors are left to the VMM and the calls are named.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]
#![deny(clippy::undocumented_unsafe_blocks)]

mod settings;

#[cfg(target_os = "linux")]
mod bpf;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod chain;
#[cfg(target_os = "linux")]
mod desk;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod helper;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod slots;
#[cfg(target_os = "linux")]
mod wrap;

pub use settings::{BadSetting, Settings, Sigbus};

#[cfg(target_os = "linux")]
pub use calls::Calls;
#[cfg(target_os = "linux")]
pub use report::StartError;
#[cfg(target_os = "linux")]
pub use wrap::Wrap;
