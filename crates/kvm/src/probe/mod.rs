//! A host's means to contain memory errors: an Arm KVM, the way of each kind of injection, the VMM's view of
//! errors, and a source of errors to try it with.
//!
//! ```
//! let report = seawall_kvm::probe::probe();
//! for advice in &report.advice {
//!     println!("{advice}");
//! }
//! ```
//!
//! The probe only asks and reads: KVM's capabilities, a vCPU of a throwaway VM for the extended ABI, and
//! files of `/proc` and `/sys`. It leaves open what it may not read.

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod device;
mod firmware;
mod system;
mod verdict;

use std::path::Path;

use seawall_events::Layout;
use seawall_events::wire::{
    KVM_CAP_ARM_INJECT_EXT_DABT, KVM_CAP_ARM_INJECT_SERROR_ESR, KVM_CAP_ARM_NISV_TO_USER,
    KVM_CAP_ARM_SEA_TO_USER, KVM_CAP_VCPU_EVENTS,
};

pub use firmware::Firmware;
pub use system::{HugePages, Memory, System};
pub use verdict::{Injection, Kind, Seen, Way};

use crate::Errno;

/// `KVM_CAP_ARM_EL1_32BIT`: EL1 of a vCPU can be AArch32.
pub const KVM_CAP_ARM_EL1_32BIT: u32 = 93;
/// `KVM_CAP_ARM_VM_IPA_SIZE`: the largest size of a guest physical address in bits.
pub const KVM_CAP_ARM_VM_IPA_SIZE: u32 = 165;
/// `KVM_CAP_ARM_EL2`: a vCPU can have an EL2, for nested guests.
pub const KVM_CAP_ARM_EL2: u32 = 240;

/// The capabilities that the probe asks of an Arm KVM: number, name and purpose.
pub const CAPABILITIES: [(u32, &str, &str); 8] = [
    (KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", "SErrors can be injected"),
    (KVM_CAP_ARM_INJECT_SERROR_ESR, "KVM_CAP_ARM_INJECT_SERROR_ESR", "the CPUs have RAS"),
    (KVM_CAP_ARM_NISV_TO_USER, "KVM_CAP_ARM_NISV_TO_USER", "an access without a syndrome exits"),
    (KVM_CAP_ARM_INJECT_EXT_DABT, "KVM_CAP_ARM_INJECT_EXT_DABT", "data aborts can be injected"),
    (KVM_CAP_ARM_SEA_TO_USER, "KVM_CAP_ARM_SEA_TO_USER", "an SEA can exit to the VMM"),
    (KVM_CAP_ARM_EL1_32BIT, "KVM_CAP_ARM_EL1_32BIT", "AArch32 guests"),
    (KVM_CAP_ARM_EL2, "KVM_CAP_ARM_EL2", "guest hypervisors"),
    (KVM_CAP_ARM_VM_IPA_SIZE, "KVM_CAP_ARM_VM_IPA_SIZE", "bits of a guest physical address"),
];

/// The kind of `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Arm's, with the answers of `KVM_CHECK_EXTENSION` to [`CAPABILITIES`], in their order, and the way to
    /// the extended ABI.
    Arm64 {
        /// The answers; 0: the kernel lacks it.
        capabilities: [i32; CAPABILITIES.len()],
        /// The way to instruction aborts and ESRs.
        extended: Extended,
    },
    /// KVM of another architecture.
    OtherArchitecture,
    /// It opens, but does not answer like KVM: an emulator of Linux's system calls, or no KVM at all.
    NotKvm(Errno),
    /// It cannot be opened.
    NotOpened(Errno),
    /// It is missing.
    Absent(Absent),
    /// Not Linux.
    NotLinux,
}

/// The reason why `/dev/kvm` is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The kernel has the device, but it is not in this file system: a container.
    NotInThisFileSystem,
    /// The kernel's command line turned it off: `kvm-arm.mode=none`.
    SwitchedOff,
    /// The kernel has KVM and did not start it: on Arm it was not booted at EL2.
    NotStarted,
    /// The kernel has no KVM, or its module is not loaded.
    NotInKernel,
}

/// The way of an Arm KVM to instruction aborts, and to ESRs for aborts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// The kernel has the extended ABI.
    Native(Layout),
    /// By [assisted injection](seawall_inject::Way::Assisted).
    Assisted,
    /// No vCPU could be asked.
    Unknown(String),
}

/// The findings about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Kernel, processor, privileges.
    pub system: System,
    /// `/dev/kvm`.
    pub device: Device,
    /// Each kind of injection, and its way.
    pub injections: [Injection; Kind::ALL.len()],
    /// The firmware's handling of errors before Linux sees them.
    pub firmware: Firmware,
    /// The VMM's view of a guest's access to bad memory.
    pub seen: Seen,
    /// The host's handling of bad pages.
    pub memory: Memory,
    /// Advice, in sentences.
    pub advice: Vec<String>,
}

impl Report {
    fn new(system: System, device: Device, firmware: Firmware, memory: Memory) -> Self {
        let injections = verdict::injections(&device);
        let seen = verdict::seen(&device, firmware);
        let mut report = Self { system, device, injections, firmware, seen, memory, advice: Vec::new() };
        report.advice = verdict::advice(&report);
        report
    }
}

/// Probes this host.
pub fn probe() -> Report {
    let root = Path::new("/");
    Report::new(system::system(root), device(root), firmware::firmware(root), system::memory(root))
}

#[cfg(target_os = "linux")]
fn device(root: &Path) -> Device {
    device::device(root)
}

#[cfg(not(target_os = "linux"))]
fn device(_: &Path) -> Device {
    Device::NotLinux
}
