//! External aborts, typed and with their syndrome, for a vCPU of KVM/arm64: the extended
//! `KVM_SET_VCPU_EVENTS`, on kernels with and without it.
//!
//! - [`KvmVcpu`]: a vCPU outside of `KVM_RUN`, as four ioctls. With the feature `kvm-ioctls`,
//!   `kvm_ioctls::VcpuFd` implements it
//! - [`Injector`]: asks a VM's vCPU [once](Injector::probe) for its kind and its kernel's ABI; then
//!   [injects](Injector::inject), with every check inside, and returns the guest's position ([`Delivery`])
//! - [`Inject`]: the vCPU as containment (crate `seawall`) needs it; [`Vcpu`]: the vCPU as a VMM's loop needs
//!   it. The software machine implements both, and so does the vCPU of `seawall-kvm`
//! - [`Exited`]: implements [`Inject`] from a [`KvmVcpu`] and its injector
//!
//! ```
//! use seawall_events::VcpuEvents;
//! use seawall_inject::{Delivery, Errno, InjectError, Injector, KvmVcpu, Last};
//!
//! /// A vCPU of yours, behind whatever bindings.
//! struct MyVcpu;
//!
//! impl KvmVcpu for MyVcpu {
//!     fn set_vcpu_events(&self, bytes: &[u8; 64]) -> Result<(), Errno> {
//!         Ok(()) // ioctl(fd, KVM_SET_VCPU_EVENTS, bytes)
//!     }
//!     fn get_vcpu_events(&self) -> Result<[u8; 64], Errno> {
//!         Ok([0; 64]) // ioctl(fd, KVM_GET_VCPU_EVENTS, ...)
//!     }
//!     fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
//!         Ok(0) // ioctl(fd, KVM_GET_ONE_REG, ...)
//!     }
//!     fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
//!         Ok(()) // ioctl(fd, KVM_SET_ONE_REG, ...)
//!     }
//! }
//!
//! /// After a SEA exit of a fetch. `injector`: `Injector::probe(vcpu)`, when the VM was made.
//! fn tell(injector: &Injector, vcpu: &MyVcpu) -> Result<Delivery, InjectError> {
//!     let events = VcpuEvents {
//!         ext_iabt_pending: true,
//!         ext_abt_has_esr: true,
//!         ext_abt_esr: 0x210,
//!         ..VcpuEvents::default()
//!     };
//!     injector.inject(vcpu, Last::NoWalk, &events)
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]

// The text of an errno comes from the system.
extern crate std;

mod aarch32;
mod aarch64;
mod delivery;
mod errno;
mod error;
mod exit;
mod exited;
#[cfg(all(feature = "kvm-ioctls", target_os = "linux", target_arch = "aarch64"))]
mod fd;
mod injector;
mod probe;
mod traits;
mod vcpu;

pub use delivery::Delivery;
pub use errno::Errno;
pub use error::InjectError;
pub use exit::{Exit, SigbusExit, SystemEvent};
pub use exited::{Exited, ExitedError};
pub use injector::{Injector, Last};
pub use probe::{GuestKind, Way, has_ras};
pub use traits::{Inject, Vcpu, VcpuTraits};
pub use vcpu::KvmVcpu;
