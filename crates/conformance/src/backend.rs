//! The interface to the thing under test: a VM with one vCPU, and memory that can go bad.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, Layout, VcpuEvents};
use seawall_inject::{Delivery, Exit, Vcpu};

/// Guest physical address of the VM's RAM.
pub const RAM: u64 = 0x4000_0000;
/// Size of the RAM in bytes.
pub const RAM_SIZE: u64 = 4 << 20;
/// Guest physical address of a page with nothing behind it on the host; see [`Capability::HostHole`].
pub const HOST_HOLE: u64 = 0x5000_0000;

/// A feature that a scenario may need and a backend may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// RAS on the host: an ESR may be given.
    Ras,
    /// A VM whose host has no RAS ([`Setup::ras`]).
    NoRas,
    /// `SCTLR2_EL1` with EASE and NMEA (FEAT_SCTLR2, FEAT_DoubleFault2).
    Sctlr2,
    /// PSTATE.BTYPE (FEAT_BTI).
    Bti,
    /// EL0 can be in AArch32 state below an AArch64 EL1.
    Aarch32El0,
    /// EL1 can be in AArch32 state ([`El1::Aarch32`]).
    Aarch32El1,
    /// A virtual EL2 ([`El1::BelowEl2`]).
    El2,
    /// Injection of an exception of EL1 or EL0 that a guest hypervisor at virtual EL2 takes: TEA, AMO.
    RouteToEl2,
    /// Lines of 64 bytes can go bad ([`TestVm::poison`]), and the VM gets SEA exits.
    Poison,
    /// A store to a bad line aborts, if [`Setup::stores_abort`] is set.
    PoisonAbortsStores,
    /// A store to a bad line is kept, and visible once the line is healed.
    PoisonKeepsStores,
    /// A page that the host knows to be bad ([`TestVm::hwpoison`]) ends in SIGBUS.
    HwPoison,
    /// A page of guest memory with nothing behind it on the host ([`HOST_HOLE`]): each access aborts.
    HostHole,
    /// A vCPU can be left uninitialised ([`Setup::initialised`]).
    UninitialisedVcpu,
    /// The call accepts memory that cannot be read ([`TestVm::set_events_unreadable`]).
    UnreadableEvents,
}

/// The kind of the vCPU's EL1, with or without an EL2 above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum El1 {
    /// AArch64, no EL2.
    #[default]
    Aarch64,
    /// AArch32.
    Aarch32,
    /// AArch64 below a virtual EL2.
    BelowEl2,
}

/// The configuration of a VM. Each field beyond the default needs the [`Capability`] of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The `struct kvm_vcpu_events` of its vCPU.
    pub abi: Abi,
    /// True if the host has RAS.
    pub ras: bool,
    /// `KVM_CAP_ARM_SEA_TO_USER`.
    pub sea_to_user: bool,
    /// `KVM_CAP_ARM_NISV_TO_USER`.
    pub nisv_to_user: bool,
    /// True if stores to bad lines abort as loads do.
    pub stores_abort: bool,
    /// True if there is a page at [`HOST_HOLE`].
    pub host_hole: bool,
    /// True if `KVM_ARM_VCPU_INIT` was done.
    pub initialised: bool,
    /// The kind of the vCPU.
    pub el1: El1,
}

impl Default for Setup {
    /// The extended ABI as posted, RAS, both exits, stores that do not abort, an initialised AArch64 vCPU.
    fn default() -> Self {
        Self {
            abi: Abi::Extended(Layout::Posted),
            ras: true,
            sea_to_user: true,
            nisv_to_user: true,
            stores_abort: false,
            host_hole: false,
            initialised: true,
            el1: El1::Aarch64,
        }
    }
}

/// The failure of a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A system call failed, or the call that stands in for it did.
    #[error("errno {number}: {text}")]
    Errno {
        /// As in errno(3), positive.
        number: i32,
        /// The failed call, and the reason.
        text: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The errno, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Errno { number, .. } => Some(*number),
            Self::Other(_) => None,
        }
    }
}

/// A request to end runs: the suite or the scenario sets it, and [`Backend::kick`] acts on it.
#[derive(Debug, Default)]
pub struct Interrupt {
    expired: AtomicBool,
    wanted: AtomicBool,
}

impl Interrupt {
    /// Ends the scenario's time: every further run ends at once.
    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::SeqCst);
    }

    /// Returns true once the scenario's time is over.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::SeqCst)
    }

    /// Requests the end of the current or next run, or cancels the request.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Returns true if a run is to be ended.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) || self.is_expired()
    }
}

/// A place where scenarios run.
pub trait Backend: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Checks that it has a feature.
    ///
    /// # Errors
    /// The reason why not, as a clause for people.
    fn offers(&self, capability: Capability) -> Result<(), String>;

    /// Makes a VM with [`RAM_SIZE`] bytes of zeroed memory at [`RAM`], and one vCPU in its reset state.
    ///
    /// # Errors
    /// The failure of a step.
    fn create(&self, setup: &Setup, interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error>;

    /// Makes a run on this thread return with [`Exit::Intr`]. The kick may come too early or too late, and is
    /// repeated while [`Interrupt::is_wanted`].
    fn kick(&self, thread: &JoinHandle<()>);
}

/// A VM with one vCPU, driven through [`Vcpu`].
pub trait TestVm: Vcpu<Error = Error> {
    /// `KVM_SET_VCPU_EVENTS` with the bytes of the system call, in the layout of the VM's ABI; returns the
    /// guest's position after it.
    ///
    /// # Errors
    /// The call's errno.
    fn set_events_bytes(&mut self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Delivery, Error>;

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// The call's errno.
    fn events(&self) -> Result<VcpuEvents, Error>;

    /// `KVM_SET_VCPU_EVENTS` with an address that cannot be read.
    ///
    /// # Errors
    /// The call's errno; anything else without [`Capability::UnreadableEvents`].
    fn set_events_unreadable(&mut self) -> Result<(), Error>;

    /// `KVM_GET_VCPU_EVENTS` as bytes, in mainline's layout: the additional fields of an extended layout read
    /// as zero.
    ///
    /// # Errors
    /// The call's errno.
    fn events_bytes(&mut self) -> Result<[u8; VCPU_EVENTS_SIZE], Error>;

    /// A run with `immediate_exit`: a waiting MMIO access is completed, and no instruction is executed.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn run_at_once(&mut self) -> Result<Exit, Error>;

    /// A run that is interrupted from outside after a while, which suffices for a hundred instructions.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn run_for_a_while(&mut self) -> Result<Exit, Error>;

    /// Reads guest memory. It must not be bad.
    ///
    /// # Errors
    /// If it is not RAM.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Error>;

    /// Writes guest memory. It must not be bad.
    ///
    /// # Errors
    /// If it is not RAM.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Turns the 64-byte line at this address bad.
    ///
    /// # Errors
    /// If it is not RAM, or without [`Capability::Poison`].
    fn poison(&mut self, gpa: u64) -> Result<(), Error>;

    /// Heals the line at this address, and restores its content.
    ///
    /// # Errors
    /// As [`TestVm::poison`].
    fn heal(&mut self, gpa: u64) -> Result<(), Error>;

    /// Makes the page at this address one that the host knows to be bad.
    ///
    /// # Errors
    /// If it is not RAM, or without [`Capability::HwPoison`].
    fn hwpoison(&mut self, gpa: u64) -> Result<(), Error>;

    /// Replaces the page at this address by a fresh page of zeros.
    ///
    /// # Errors
    /// As [`TestVm::hwpoison`].
    fn remap(&mut self, gpa: u64) -> Result<(), Error>;

    /// The address of guest memory in this process, as SIGBUS gives it.
    ///
    /// # Errors
    /// As [`TestVm::hwpoison`].
    fn host_address(&self, gpa: u64) -> Result<u64, Error>;
}
