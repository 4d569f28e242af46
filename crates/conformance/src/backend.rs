//! What a scenario asks of the thing under test: a VM with one vCPU, and memory that can go bad.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, Layout, VcpuEvents};
use seawall_inject::{Delivery, Exit, Vcpu};

/// Guest physical address at which the VM's RAM begins.
pub const RAM: u64 = 0x4000_0000;
/// Bytes of RAM.
pub const RAM_SIZE: u64 = 4 << 20;
/// Guest physical address of a page that is backed by a place of the host where nothing answers; see
/// [`Capability::HostHole`].
pub const HOST_HOLE: u64 = 0x5000_0000;

/// What a scenario may need and a backend may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// The host has RAS: an ESR may be given.
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
    /// Exceptions of EL1 and EL0 can be injected that a guest hypervisor at virtual EL2 takes: TEA, AMO.
    RouteToEl2,
    /// Lines of 64 bytes can go bad ([`TestVm::poison`]), and the VM gets SEA exits.
    Poison,
    /// A store to a bad line aborts, if [`Setup::stores_abort`] is set.
    PoisonAbortsStores,
    /// A store to a bad line is not lost: it is there once the line is healed.
    PoisonKeepsStores,
    /// A page that the host knows to be bad ([`TestVm::hwpoison`]) ends in SIGBUS.
    HwPoison,
    /// A page of guest memory behind which the host has nothing ([`HOST_HOLE`]): each access aborts.
    HostHole,
    /// A vCPU can be left uninitialised ([`Setup::initialised`]).
    UninitialisedVcpu,
    /// The call can be given memory that cannot be read ([`TestVm::set_events_unreadable`]).
    UnreadableEvents,
}

/// What the vCPU's EL1 is, and whether there is an EL2 above it.
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

/// What a VM is made with. Each field beyond the default needs the [`Capability`] of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which `struct kvm_vcpu_events` its vCPU speaks.
    pub abi: Abi,
    /// The host has RAS.
    pub ras: bool,
    /// `KVM_CAP_ARM_SEA_TO_USER`.
    pub sea_to_user: bool,
    /// `KVM_CAP_ARM_NISV_TO_USER`.
    pub nisv_to_user: bool,
    /// Stores to bad lines abort as loads do.
    pub stores_abort: bool,
    /// There is a page at [`HOST_HOLE`].
    pub host_hole: bool,
    /// `KVM_ARM_VCPU_INIT` was done.
    pub initialised: bool,
    /// What the vCPU is.
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

/// What a backend failed with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A system call failed, or would have in the place of the one that it stands for.
    #[error("errno {number}: {text}")]
    Errno {
        /// As in errno(3), positive.
        number: i32,
        /// What failed, and why.
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

/// Ends runs: set by the suite or by the scenario, acted upon by [`Backend::kick`].
#[derive(Debug, Default)]
pub struct Interrupt {
    expired: AtomicBool,
    wanted: AtomicBool,
}

impl Interrupt {
    /// The scenario's time is over: every run from now on ends at once.
    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::SeqCst);
    }

    /// The scenario's time is over.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::SeqCst)
    }

    /// Asks for the run that goes on, or comes next, to be ended; or takes the wish back.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// A run is to be ended.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) || self.is_expired()
    }
}

/// A place where scenarios run.
pub trait Backend: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Whether it has what a scenario needs.
    ///
    /// # Errors
    /// Why not, as a clause for people.
    fn offers(&self, capability: Capability) -> Result<(), String>;

    /// Makes a VM with [`RAM_SIZE`] bytes of zeroed memory at [`RAM`], and one vCPU as it comes out of reset.
    ///
    /// # Errors
    /// Whatever kept it from being made.
    fn create(&self, setup: &Setup, interrupt: Arc<Interrupt>) -> Result<Box<dyn TestVm>, Error>;

    /// Makes a run on this thread return with [`Exit::Intr`]. May come too early or too late, and is done
    /// again while [`Interrupt::is_wanted`].
    fn kick(&self, thread: &JoinHandle<()>);
}

/// A VM with one vCPU, which it is driven as.
pub trait TestVm: Vcpu<Error = Error> {
    /// `KVM_SET_VCPU_EVENTS` with the bytes of the system call, in the layout of the VM's ABI; and where the guest is then.
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

    /// `KVM_GET_VCPU_EVENTS` as bytes, in mainline's layout: what an extended layout adds reads as zero.
    ///
    /// # Errors
    /// The call's errno.
    fn events_bytes(&mut self) -> Result<[u8; VCPU_EVENTS_SIZE], Error>;

    /// A run with `immediate_exit`: a waiting MMIO access is completed, and no instruction is executed.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    fn run_at_once(&mut self) -> Result<Exit, Error>;

    /// A run that is interrupted from outside after a while; long enough for a hundred instructions.
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

    /// Heals the line at this address, with what was in it before.
    ///
    /// # Errors
    /// As [`TestVm::poison`].
    fn heal(&mut self, gpa: u64) -> Result<(), Error>;

    /// Makes the page at this address one that the host knows to be bad.
    ///
    /// # Errors
    /// If it is not RAM, or without [`Capability::HwPoison`].
    fn hwpoison(&mut self, gpa: u64) -> Result<(), Error>;

    /// Puts a fresh page of zeros in the place of the page at this address.
    ///
    /// # Errors
    /// As [`TestVm::hwpoison`].
    fn remap(&mut self, gpa: u64) -> Result<(), Error>;

    /// Where guest memory is in this process: what SIGBUS gives.
    ///
    /// # Errors
    /// As [`TestVm::hwpoison`].
    fn host_address(&self, gpa: u64) -> Result<u64, Error>;
}
