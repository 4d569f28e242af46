//! What `seawall-lab-contain` finds in the lab: Debian's kernel for its guests, and that kernel's modules for a disk.

use std::path::Path;

use super::initramfs::Guest;
use super::kernel::Kernel;
use super::machine::Machine;

/// Two vCPUs meet the same page at the same instant only if both run.
const CPUS: u32 = 2;

/// Below /guest.
pub(crate) fn files(kernel: &Kernel) -> Vec<Guest> {
    let named = |path: &Path, folder: &str| Guest {
        host: path.to_owned(),
        lab: format!("guest/{folder}{}", path.file_name().unwrap_or_default().to_string_lossy()),
    };
    let image = named(&kernel.image, "");
    std::iter::once(image).chain(kernel.storage.iter().map(|path| named(path, "storage/"))).collect()
}

/// The lab's machine, with as many CPUs as it takes.
pub(crate) fn machine(machine: &Machine) -> Machine {
    Machine { smp: machine.smp.max(CPUS), ..machine.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_kernel_and_its_modules_keep_their_names() {
        let kernel = Kernel {
            image: "/c/vmlinuz".into(),
            busybox: "/c/busybox".into(),
            storage: vec!["/c/storage/00-virtio_mmio.ko".into()],
            release: String::new(),
        };
        let places: Vec<String> = files(&kernel).into_iter().map(|file| file.lab).collect();
        assert_eq!(places, ["guest/vmlinuz", "guest/storage/00-virtio_mmio.ko"]);
    }
}
