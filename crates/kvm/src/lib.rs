//! `/dev/kvm` on aarch64 Linux, behind the trait [`Vcpu`](seawall_inject::Vcpu): SEA exits, MMIO, NISV and
//! system events, SIGBUS on a vCPU's thread as an exit of its own, and, by [`seawall_inject`], the extended
//! `KVM_SET_VCPU_EVENTS` on kernels that lack it. A VMM with its own vCPUs uses only that crate and
//! `seawall-host`.
//!
//! - `Kvm`, `Vm`, `Vcpu` (aarch64 Linux only; elsewhere `Kvm::open` returns an error): the backend
//! - [`probe`]: the features of this host, on any host
//!
//! ```no_run
//! # #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
//! # fn main() -> Result<(), seawall_kvm::Error> {
//! use seawall_events::VcpuEvents;
//! use seawall_inject::{Exit, Inject as _, Vcpu as _};
//! use seawall_kvm::{VmConfig, GuestAddress, GuestMemoryMmap, Kvm};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x4000_0000), 64 << 20)]).unwrap();
//! let vm = Kvm::open()?.create_vm(memory, VmConfig::default())?;
//! let mut vcpu = vm.create_vcpu(0)?;
//! if let Exit::Sea(sea) = vcpu.run()? {
//!     let events = VcpuEvents {
//!         ext_iabt_pending: sea.is_fetch(),
//!         ext_dabt_pending: !sea.is_fetch(),
//!         ext_abt_has_esr: true,
//!         ext_abt_esr: sea.esr.iss().into(),
//!         ..VcpuEvents::default()
//!     };
//!     vcpu.inject(&events)?;
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
//! # fn main() {}
//! ```

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod probe;
#[cfg_attr(not(all(target_os = "linux", target_arch = "aarch64")), allow(dead_code))]
mod state;

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod backend;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub use backend::*;

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
mod elsewhere;
#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
pub use elsewhere::{Error, Kvm};

pub use seawall_inject::Errno;
pub use state::{SavedGic, SavedVcpu};
