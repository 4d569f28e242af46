//! `/dev/kvm`. Opening it proves nothing, so the probe asks it.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;

use super::{Absent, CAPABILITIES, Device, Extended};
use crate::Errno;

const KVM_GET_API_VERSION: u32 = 0xae00;
const KVM_CHECK_EXTENSION: u32 = 0xae03;
/// The only version that ever existed.
const API_VERSION: i32 = 12;
/// Every KVM/arm64 has this capability, and no other KVM does.
const KVM_CAP_ARM_PSCI_0_2: u32 = 102;

const ENOENT: i32 = 2;
const ENOTTY: i32 = 25;

pub(super) fn device(root: &Path) -> Device {
    let file = match OpenOptions::new().read(true).write(true).open(root.join("dev/kvm")) {
        Ok(file) => file,
        Err(error) => match error.raw_os_error() {
            Some(ENOENT) => return Device::Absent(absent(root)),
            errno => return Device::NotOpened(Errno(errno.unwrap_or(0))),
        },
    };
    match ask(file.as_raw_fd(), KVM_GET_API_VERSION, 0) {
        Ok(API_VERSION) => {}
        Ok(_) => return Device::NotKvm(Errno(ENOTTY)),
        Err(errno) => return Device::NotKvm(errno),
    }
    let check = |number: u32| ask(file.as_raw_fd(), KVM_CHECK_EXTENSION, number).unwrap_or(0);
    if check(KVM_CAP_ARM_PSCI_0_2) == 0 {
        return Device::OtherArchitecture;
    }
    Device::Arm64 { capabilities: CAPABILITIES.map(|(number, ..)| check(number)), extended: extended() }
}

/// A request that takes a number.
fn ask(kvm: RawFd, request: u32, number: u32) -> Result<i32, Errno> {
    // SAFETY: the two requests passed here take no pointer, whatever the descriptor is.
    match unsafe { libc::ioctl(kvm, request.into(), libc::c_ulong::from(number)) } {
        -1 => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        value => Ok(value),
    }
}

fn absent(root: &Path) -> Absent {
    let line = std::fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
    if root.join("sys/class/misc/kvm").exists() {
        Absent::NotInThisFileSystem
    } else if line.split_whitespace().any(|word| word == "kvm-arm.mode=none") {
        Absent::SwitchedOff
    } else if root.join("sys/module/kvm").exists() {
        Absent::NotStarted
    } else {
        Absent::NotInKernel
    }
}

#[cfg(target_arch = "aarch64")]
fn extended() -> Extended {
    match crate::Kvm::open().and_then(|kvm| kvm.way()) {
        Ok(crate::Way::Native(layout)) => Extended::Native(layout),
        Ok(crate::Way::Assisted) => Extended::Assisted,
        Err(error) => Extended::Unknown(error.to_string()),
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn extended() -> Extended {
    Extended::Unknown("this program was not built for aarch64".into())
}

#[cfg(test)]
mod tests {
    use super::super::system::tree::Tree;
    use super::*;

    #[test]
    fn an_absent_device_is_told_by_what_the_kernel_has() {
        for (files, expected) in [
            (&["sys/class/misc/kvm/dev", "sys/module/kvm/x"][..], Absent::NotInThisFileSystem),
            (&["sys/module/kvm/parameters/x"], Absent::NotStarted),
            (&["sys/module/other/x"], Absent::NotInKernel),
        ] {
            let tree = Tree::new(&files.iter().map(|path| (*path, "")).collect::<Vec<_>>());
            assert_eq!(device(tree.root()), Device::Absent(expected));
        }
        let tree =
            Tree::new(&[("proc/cmdline", "quiet kvm-arm.mode=none\n"), ("sys/module/kvm/parameters/x", "")]);
        assert_eq!(device(tree.root()), Device::Absent(Absent::SwitchedOff));
    }

    #[test]
    fn a_file_that_opens_is_no_kvm() {
        let tree = Tree::new(&[("dev/kvm", "")]);
        assert_eq!(device(tree.root()), Device::NotKvm(Errno(ENOTTY)));
    }
}
