//! A small VMM: boots Linux or a bare-metal guest, and turns the memory errors that it meets into what a policy
//! decides.
//!
//! - [`Kernel`](kernel::Kernel): what a file is; arm64 `Image`s raw, gzipped and as EFI zboot, ELF, flat
//! - [`load`], [`fdt`], [`layout`]: a machine laid out like QEMU's `virt`
//! - [`board`], [`devices`], [`interrupt`]: PL011, PL031 and virtio-mmio on a bus, for any backend
//! - [`SoftwareMachine`] (anywhere): the guest on the software Arm machine, the same run each time, to the bit
//! - `KvmMachine` (aarch64 Linux only): the guest on `/dev/kvm`, a thread for each vCPU
//! - [`firmware`]: ACPI instead of the device tree, for guests that want records of memory errors
//! - [`initramfs`]: an archive out of files, without tools
//!
//! ```no_run
//! use seawall_vmm::{Config, End, Guest, SoftwareMachine};
//!
//! let guest = Guest::read("vmlinuz".as_ref(), Some("initrd.gz".as_ref()), "console=ttyAMA0 panic=-1", 256 << 20)?;
//! match SoftwareMachine::new(Config::new(256 << 20), &guest, Box::new(()))?.run(None)? {
//!     Some(End::PowerOff) => println!("it is done"),
//!     Some(other) => println!("the guest {other}"),
//!     None => println!("no steps were left"),
//! }
//! # Ok::<(), seawall_vmm::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod board;
mod config;
pub mod console;
pub mod devices;
mod dma;
mod error;
pub mod fdt;
pub mod firmware;
pub mod initramfs;
pub mod interrupt;
pub mod kernel;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
mod kvm;
pub mod layout;
pub mod load;
mod marks;
pub mod ram;
mod server;
mod snapshot;
mod software;

pub use board::{Board, End, Served};
pub use config::{Config, Guest};
pub use console::{Lines, Observer};
pub use error::Error;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use kvm::{Arrived, Arriving, Gauges, Keyboard, KvmMachine, Pauser};
pub use load::Placement;
pub use seawall_machine::{GuestExit, SnapshotLimits, Translation};
pub use server::SecondUart;
pub use snapshot::Snapshot;
pub use software::SoftwareMachine;
