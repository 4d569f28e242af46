//! What a host offers to contain memory errors with: whether its KVM is Arm's, which way each kind of
//! injection takes, whether a VMM sees errors, and how an error can be had to try it.
//!
//! ```
//! let report = seawall_kvm::probe::probe();
//! for advice in &report.advice {
//!     println!("{advice}");
//! }
//! ```
//!
//! It asks and reads, and changes nothing: KVM's capabilities, a vCPU of a throwaway VM for the extended ABI,
//! and files of `/proc` and `/sys`. What it may not read it leaves open.

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
/// `KVM_CAP_ARM_VM_IPA_SIZE`: bits of a guest physical address, at most.
pub const KVM_CAP_ARM_VM_IPA_SIZE: u32 = 165;
/// `KVM_CAP_ARM_EL2`: a vCPU can have an EL2, for nested guests.
pub const KVM_CAP_ARM_EL2: u32 = 240;

/// What is asked of an Arm KVM: number, name, and what it is for.
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

/// What `/dev/kvm` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// Arm's, with what `KVM_CHECK_EXTENSION` says of [`CAPABILITIES`], in their order, and how the extended
    /// ABI is had.
    Arm64 {
        /// 0: the kernel does not have it.
        capabilities: [i32; CAPABILITIES.len()],
        /// How instruction aborts and ESRs are had.
        extended: Extended,
    },
    /// KVM of another architecture.
    OtherArchitecture,
    /// It opens, but does not answer as KVM does: an emulator of Linux's system calls, or no KVM at all.
    NotKvm(Errno),
    /// It cannot be opened.
    NotOpened(Errno),
    /// It is not there.
    Absent(Absent),
    /// Not Linux.
    NotLinux,
}

/// Why there is no `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The kernel has the device, but it is not in this file system: a container.
    NotInThisFileSystem,
    /// The kernel was told not to: `kvm-arm.mode=none`.
    SwitchedOff,
    /// The kernel has KVM and did not start it: on Arm it was not booted at EL2.
    NotStarted,
    /// The kernel has no KVM, or its module is not loaded.
    NotInKernel,
}

/// How an Arm KVM has instruction aborts, and ESRs for aborts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extended {
    /// The kernel speaks the extended ABI.
    Native(Layout),
    /// By [assisted injection](seawall_inject::Way::Assisted).
    Assisted,
    /// No vCPU could be asked.
    Unknown(String),
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Kernel, processor, privileges.
    pub system: System,
    /// `/dev/kvm`.
    pub device: Device,
    /// Each kind of injection, and which way it takes.
    pub injections: [Injection; Kind::ALL.len()],
    /// What firmware does with errors before Linux sees them.
    pub firmware: Firmware,
    /// What a VMM sees of a guest's access to bad memory.
    pub seen: Seen,
    /// The host's handling of bad pages.
    pub memory: Memory,
    /// What to do, in sentences.
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

/// Looks at this host.
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
