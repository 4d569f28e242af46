use seawall_events::Layout;

use super::super::{HugePages, Memory, System};
use super::*;

/// Answers to `CAPABILITIES`, in their order: Linux 7.2 on a CPU with RAS, in the lab.
const LAB: [i32; 8] = [1, 1, 1, 1, 1, 0, 0, 48];

fn arm64(capabilities: [i32; 8]) -> Device {
    Device::Arm64 { capabilities, extended: Extended::Assisted }
}

fn ways(device: &Device) -> [Way; 6] {
    injections(device).map(|injection| injection.way)
}

fn report(device: Device, firmware: Firmware, memory: Memory) -> Report {
    let system = System { architecture: "aarch64".into(), is_admin: true, ..System::default() };
    Report::new(system, device, firmware, memory)
}

const NO_FIRMWARE: Firmware = Firmware { claims_sea: Some(false), hest: false, einj: false };

/// Checks that the advice has a sentence with this beginning.
fn advises(report: &Report, beginning: &str) -> bool {
    report.advice.iter().any(|sentence| sentence.starts_with(beginning))
}

#[test]
fn a_stock_kernel_assists_what_it_has_no_fields_for() {
    use Way::{Assisted, Native};
    assert_eq!(ways(&arm64(LAB)), [Native, Assisted, Assisted, Assisted, Native, Native]);
    let native = Device::Arm64 { capabilities: LAB, extended: Extended::Native(Layout::Posted) };
    assert_eq!(ways(&native), [Native, Native, Native, Native, Native, Native]);
}

#[test]
fn without_ras_an_esr_is_refused_and_an_sea_is_never_seen() {
    let device = arm64([1, 0, 1, 1, 1, 0, 0, 44]);
    let no_ras = || Way::Not("the CPUs have no RAS, so that an ESR is refused".into());
    let expected = [Way::Native, no_ras(), Way::Assisted, no_ras(), Way::Native, no_ras()];
    assert_eq!(ways(&device), expected);
    assert_eq!(seen(&device, NO_FIRMWARE), Seen::SError);
    assert!(advises(&report(device, NO_FIRMWARE, Memory::default()), "The CPUs have no RAS"));
}

#[test]
fn an_old_kernel_injects_serrors_alone() {
    let old = || Way::Not("the kernel is older than Linux 5.5".into());
    let device =
        Device::Arm64 { capabilities: [1, 1, 0, 0, 0, 0, 0, 48], extended: Extended::Unknown("x".into()) };
    assert_eq!(ways(&device), [old(), old(), old(), old(), Way::Native, Way::Native]);
}

#[test]
fn a_vcpu_that_could_not_be_asked_leaves_the_kernel_s_own() {
    let why = "KVM_CREATE_VM failed";
    let device = Device::Arm64 { capabilities: LAB, extended: Extended::Unknown(why.into()) };
    let not = || Way::Not(why.into());
    assert_eq!(ways(&device), [Way::Native, not(), not(), not(), Way::Native, Way::Native]);
}

#[test]
fn elsewhere_nothing_can_be_injected_and_the_lab_is_advised() {
    for device in [
        Device::OtherArchitecture,
        Device::NotKvm(Errno(25)),
        Device::NotOpened(Errno(13)),
        Device::Absent(Absent::NotStarted),
        Device::NotLinux,
    ] {
        assert!(ways(&device).iter().all(|way| *way == Way::Not("no KVM/arm64 here".into())));
        assert_eq!(seen(&device, NO_FIRMWARE), Seen::NoKvm);
        let report = report(device, NO_FIRMWARE, Memory::default());
        assert!(advises(&report, "`cargo xtask lab`") && advises(&report, "`seawall demo`"));
        assert!(!advises(&report, "Enable") && !advises(&report, "`seawall check --backend kvm`"));
    }
}

#[test]
fn what_keeps_kvm_from_this_very_host_is_said_first() {
    for (device, beginning) in [
        (Device::NotOpened(Errno(13)), "Run as root"),
        (Device::NotOpened(Errno(1)), "Run as root"),
        (Device::Absent(Absent::NotInThisFileSystem), "The host has /dev/kvm"),
        (Device::Absent(Absent::SwitchedOff), "Boot without kvm-arm.mode=none"),
        (Device::Absent(Absent::NotStarted), "Linux must be entered at EL2"),
        (Device::Absent(Absent::NotInKernel), "Take a kernel with CONFIG_KVM"),
    ] {
        let report = report(device, NO_FIRMWARE, Memory::default());
        assert!(report.advice[0].starts_with(beginning), "{:?}", report.advice);
    }
    // On x86 none of this makes KVM/arm64 available.
    let x86 = System { architecture: "x86_64".into(), ..System::default() };
    let device = Device::Absent(Absent::NotInKernel);
    let report = Report::new(x86, device, NO_FIRMWARE, Memory::default());
    assert_eq!(report.advice.len(), 2);
}

#[test]
fn firmware_that_claims_seas_means_sigbus() {
    let old = arm64([1, 1, 1, 1, 0, 0, 0, 48]);
    for (claims_sea, new_kernel, old_kernel) in [
        (Some(false), Seen::Exit, Seen::SError),
        (Some(true), Seen::SigbusOrExit, Seen::SigbusOrSError),
        (None, Seen::SigbusOrExit, Seen::SigbusOrSError),
    ] {
        let firmware = Firmware { claims_sea, hest: claims_sea != Some(false), einj: false };
        assert_eq!(seen(&arm64(LAB), firmware), new_kernel);
        assert_eq!(seen(&old, firmware), old_kernel);
    }
    let claims = Firmware { claims_sea: Some(true), hest: true, einj: true };
    assert!(advises(&report(arm64(LAB), claims, Memory::default()), "Handle SIGBUS"));
    assert!(advises(&report(old, NO_FIRMWARE, Memory::default()), "Run Linux 6.19 or newer"));
}

#[test]
fn a_host_that_panics_at_a_bad_page_is_not_advised_to_make_one() {
    let memory = |recovers| Memory { hwpoison: true, recovers: Some(recovers), ..Memory::default() };
    let dangerous = report(arm64(LAB), NO_FIRMWARE, memory(false));
    assert!(advises(&dangerous, "vm.memory_failure_recovery is 0") && !advises(&dangerous, "To try SIGBUS"));
    assert!(advises(&report(arm64(LAB), NO_FIRMWARE, memory(true)), "To try SIGBUS"));
}

#[test]
fn pages_of_a_gigabyte_are_told_by_their_cost_if_there_are_any() {
    let memory = |total| Memory {
        huge_pages: vec![
            HugePages { kib: 2048, total: 9, free: 9 },
            HugePages { kib: 1048576, total, free: 0 },
        ],
        ..Memory::default()
    };
    let cost = "A bad line in a huge page takes the page: guests on the 1 GiB pages lose that much at once.";
    assert!(advises(&report(arm64(LAB), NO_FIRMWARE, memory(1)), cost));
    assert!(!advises(&report(arm64(LAB), NO_FIRMWARE, memory(0)), "A bad line"));
}
