//! Conclusions from the findings.

use super::{
    Absent, CAPABILITIES, Device, Extended, Firmware, KVM_CAP_ARM_INJECT_EXT_DABT,
    KVM_CAP_ARM_INJECT_SERROR_ESR, KVM_CAP_ARM_SEA_TO_USER, KVM_CAP_VCPU_EVENTS, Report,
};
use crate::Errno;

/// A kind of injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An external data abort, with the kernel's ESR.
    DataAbort,
    /// An external data abort with the caller's ESR.
    DataAbortEsr,
    /// An external instruction abort, with the kernel's ESR.
    InstructionAbort,
    /// An external instruction abort with the caller's ESR.
    InstructionAbortEsr,
    /// An SError.
    SError,
    /// An SError with the caller's ESR.
    SErrorEsr,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::DataAbort,
        Self::DataAbortEsr,
        Self::InstructionAbort,
        Self::InstructionAbortEsr,
        Self::SError,
        Self::SErrorEsr,
    ];

    fn has_esr(self) -> bool {
        matches!(self, Self::DataAbortEsr | Self::InstructionAbortEsr | Self::SErrorEsr)
    }
}

/// The way of an injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The kernel does it.
    Native,
    /// [Assisted](seawall_inject::Way::Assisted): the kernel's own data abort is turned into it.
    Assisted,
    /// It is not available; the reason.
    Not(String),
}

/// A kind of injection, and its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The kind.
    pub kind: Kind,
    /// The way.
    pub way: Way,
}

/// The VMM's view of a guest's access to bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// `KVM_EXIT_ARM_SEA`.
    Exit,
    /// SIGBUS for an error that firmware reports to Linux, otherwise `KVM_EXIT_ARM_SEA`.
    SigbusOrExit,
    /// SIGBUS for an error that firmware reports to Linux; otherwise nothing, and the guest takes an SError.
    SigbusOrSError,
    /// Nothing: the guest takes an SError, which panics Linux.
    SError,
    /// There is no KVM/arm64.
    NoKvm,
}

/// The answer to a capability; 0 if there is no KVM/arm64.
fn capability(device: &Device, number: u32) -> i32 {
    let Device::Arm64 { capabilities, .. } = device else { return 0 };
    let mut answers = CAPABILITIES.iter().zip(capabilities);
    answers.find(|((n, ..), _)| *n == number).map_or(0, |(_, value)| *value)
}

pub(super) fn injections(device: &Device) -> [Injection; Kind::ALL.len()] {
    Kind::ALL.map(|kind| Injection { kind, way: way(device, kind) })
}

fn way(device: &Device, kind: Kind) -> Way {
    let Device::Arm64 { extended, .. } = device else { return Way::Not("no KVM/arm64 here".into()) };
    let has = |number| capability(device, number) > 0;
    let needed = match kind {
        Kind::SError | Kind::SErrorEsr => KVM_CAP_VCPU_EVENTS,
        _ => KVM_CAP_ARM_INJECT_EXT_DABT,
    };
    if !has(needed) {
        return Way::Not("the kernel is older than Linux 5.5".into());
    }
    if kind.has_esr() && !has(KVM_CAP_ARM_INJECT_SERROR_ESR) {
        return Way::Not("the CPUs have no RAS, so that an ESR is refused".into());
    }
    match (kind, extended) {
        (Kind::DataAbort | Kind::SError | Kind::SErrorEsr, _) | (_, Extended::Native(_)) => Way::Native,
        (_, Extended::Assisted) => Way::Assisted,
        (_, Extended::Unknown(why)) => Way::Not(why.clone()),
    }
}

pub(super) fn seen(device: &Device, firmware: Firmware) -> Seen {
    if !matches!(device, Device::Arm64 { .. }) {
        return Seen::NoKvm;
    }
    // Without RAS the host keeps SEAs to itself, even if the VM asked for them.
    let exits = [KVM_CAP_ARM_SEA_TO_USER, KVM_CAP_ARM_INJECT_SERROR_ESR]
        .into_iter()
        .all(|number| capability(device, number) > 0);
    match (exits, firmware.claims_sea) {
        (true, Some(false)) => Seen::Exit,
        (true, _) => Seen::SigbusOrExit,
        (false, Some(false)) => Seen::SError,
        (false, _) => Seen::SigbusOrSError,
    }
}

const ELSEWHERE: [&str; 2] = [
    "`seawall demo` and `seawall check` need no KVM: they run on a software Arm machine.",
    "`cargo xtask lab` boots an arm64 Linux with working KVM, and memory that can go bad, under emulation on \
     this host.",
];

/// `EPERM` and `EACCES`.
const NOT_ALLOWED: [Errno; 2] = [Errno(1), Errno(13)];

pub(super) fn advice(report: &Report) -> Vec<String> {
    let mut advice = Vec::new();
    let mut say = |sentence: &str| advice.push(sentence.to_owned());
    match &report.device {
        Device::Arm64 { extended, .. } => arm64(report, extended, &mut say),
        device => {
            if let Some(sentence) = missing(device, &report.system.architecture) {
                say(sentence);
            }
            ELSEWHERE.into_iter().for_each(&mut say);
        }
    }
    memory(report, &mut say);
    advice
}

/// Advice on how to get a KVM/arm64 on this host.
fn missing(device: &Device, architecture: &str) -> Option<&'static str> {
    let is_arm = architecture == "aarch64";
    Some(match device {
        Device::NotOpened(errno) if NOT_ALLOWED.contains(errno) => {
            "Run as root, or as a member of the group that owns /dev/kvm (`ls -l /dev/kvm`; often `kvm`)."
        }
        Device::Absent(Absent::NotInThisFileSystem) => {
            "The host has /dev/kvm: give it to this container (`--device /dev/kvm`)."
        }
        Device::Absent(Absent::SwitchedOff) => "Boot without kvm-arm.mode=none.",
        Device::Absent(Absent::NotStarted) if is_arm => {
            "Linux must be entered at EL2 for KVM: take a machine that is no VM itself, or one with nested \
             virtualisation."
        }
        Device::Absent(Absent::NotInKernel) if is_arm => {
            "Take a kernel with CONFIG_KVM=y; that of any distribution has it."
        }
        _ => return None,
    })
}

fn arm64(report: &Report, extended: &Extended, say: &mut impl FnMut(&str)) {
    let has = |number| capability(&report.device, number) > 0;
    match extended {
        Extended::Assisted if has(KVM_CAP_ARM_INJECT_EXT_DABT) => say(
            "Instruction aborts and ESRs are had by assisted injection: use crate `seawall-kvm`, or preload \
             libseawall_preload.so into an unmodified program.",
        ),
        _ => {}
    }
    if !has(KVM_CAP_ARM_INJECT_SERROR_ESR) {
        say("The CPUs have no RAS: KVM keeps SEAs for itself, and takes no ESR. Take newer ones (Armv8.2).");
    } else if !has(KVM_CAP_ARM_SEA_TO_USER) {
        say("Run Linux 6.19 or newer: before, KVM makes an SError of an SEA, which panics a Linux guest.");
    } else {
        say("Enable KVM_CAP_ARM_SEA_TO_USER in the VM: if not, KVM makes an SError of an SEA.");
    }
    match report.firmware.claims_sea {
        Some(true) => say("Handle SIGBUS on vCPU threads too: firmware may claim an SEA before KVM sees it."),
        None => say("Run as root to learn whether firmware claims SEAs before KVM sees them."),
        Some(false) => {}
    }
    say("`seawall check --backend kvm` shows what this host does.");
}

fn memory(report: &Report, say: &mut impl FnMut(&str)) {
    let is_arm64 = matches!(report.device, Device::Arm64 { .. });
    if report.memory.recovers == Some(false) {
        say("vm.memory_failure_recovery is 0: this host panics at the first bad page. Set it to 1.");
    } else if is_arm64 && report.memory.hwpoison {
        let who = if report.system.is_admin { "" } else { ", as root" };
        say(&format!(
            "To try SIGBUS without bad hardware{who}: madvise(MADV_HWPOISON), as `seawall check --backend kvm \
             sigbus::` does."
        ));
    }
    let largest = report.memory.huge_pages.iter().rfind(|pool| pool.total > 0);
    if let Some(pool) = largest.filter(|pool| is_arm64 && pool.kib >= 1 << 20) {
        say(&format!(
            "A bad line in a huge page takes the page: guests on the {} GiB pages lose that much at once.",
            pool.kib >> 20
        ));
    }
}

#[cfg(test)]
mod tests;
