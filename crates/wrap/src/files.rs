//! Which file descriptors of the process are VMs and vCPUs, and where each vCPU's `struct kvm_run` is.
//!
//! A `KVM_RUN` looks here after each exit: two loads, no lock. All of it is zeroes to begin with, so that it costs no memory
//! until something is entered.

use std::ffi::c_int;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::{ptr, slice};

use seawall::Source;
use seawall_events::SeaExit;
use seawall_events::wire::{ArmSea, KVM_EXIT_ARM_SEA, KVM_EXIT_INTR, KVM_RUN_EXIT_REASON, KVM_RUN_UNION};
use zerocopy::FromBytes as _;

/// Descriptors from here on are not known. The kernel gives the lowest that is free.
pub(crate) const FILES: usize = 1 << 15;
/// VMs at a time.
pub(crate) const VMS: usize = 256;
/// In the place of a vCPU's number.
const IS_VM: u32 = u32::MAX;

/// The VM's user handles its SEA exits.
pub(crate) const OWN_EXITS: u32 = 1 << 0;
/// SIGBUS for this VM's memory is left to its user from now on, until its guest is reset.
pub(crate) const LET_THROUGH: u32 = 1 << 1;
/// The VM's guest must not run on, until it is reset.
pub(crate) const STOPPED: u32 = 1 << 2;
/// A user that runs a vCPU again after so many exits that were left to it does not know them.
const MOST_LEFT: u32 = 16;

/// A file descriptor that is of a VM or of its vCPU.
pub(crate) struct File {
    /// Where the VMM has mapped it.
    run: AtomicPtr<u8>,
    /// 0: neither; else the VM's place, from 1 on.
    vm: AtomicU32,
    vcpu: AtomicU32,
}

/// A VM. Its place is used again when nothing refers to it.
pub(crate) struct Vm {
    references: AtomicU32,
    generation: AtomicU32,
    flags: AtomicU32,
    /// Exits that were left to the user.
    left: AtomicU32,
}

/// Which VM: its place, and which of those that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VmId {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

pub(crate) struct Files {
    table: [File; FILES],
    vms: [Vm; VMS],
    /// Where mappings were seen.
    lowest: AtomicUsize,
    highest: AtomicUsize,
    /// No descriptor from here on was seen.
    end: AtomicUsize,
}

impl Files {
    #[allow(clippy::large_stack_arrays, reason = "it is a static")]
    pub(crate) const fn new() -> Self {
        Self {
            table: [const {
                File { run: AtomicPtr::new(ptr::null_mut()), vm: AtomicU32::new(0), vcpu: AtomicU32::new(0) }
            }; FILES],
            vms: [const {
                Vm {
                    references: AtomicU32::new(0),
                    generation: AtomicU32::new(0),
                    flags: AtomicU32::new(0),
                    left: AtomicU32::new(0),
                }
            }; VMS],
            lowest: AtomicUsize::new(0),
            highest: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn file(&self, fd: c_int) -> Option<&File> {
        self.table.get(usize::try_from(fd).ok()?)
    }

    /// A new VM. `None` if there is no place for it.
    pub(crate) fn add_vm(&self, fd: c_int) -> Option<VmId> {
        self.remove(fd);
        let file = self.file(fd)?;
        let is_free =
            |vm: &Vm| vm.references.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let place = self.vms.iter().position(is_free)?;
        let vm = self.vms.get(place)?;
        vm.flags.store(0, Ordering::Relaxed);
        vm.left.store(0, Ordering::Relaxed);
        let generation = vm.generation.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        file.vcpu.store(IS_VM, Ordering::Relaxed);
        self.publish(fd, file, place as u32);
        Some(VmId { place: place as u32, generation })
    }

    /// A new vCPU of the VM behind `of`. False if that is not known, or there is no place.
    pub(crate) fn add_vcpu(&self, fd: c_int, of: c_int, number: u32) -> bool {
        self.remove(fd);
        let (Some(file), Some(id)) = (self.file(fd), self.vm_of(of)) else { return false };
        let Some(vm) = self.vms.get(id.place as usize) else { return false };
        vm.references.fetch_add(1, Ordering::AcqRel);
        file.vcpu.store(number, Ordering::Relaxed);
        self.publish(fd, file, id.place);
        true
    }

    fn publish(&self, fd: c_int, file: &File, place: u32) {
        self.end.fetch_max(fd as usize + 1, Ordering::Relaxed);
        file.vm.store(place + 1, Ordering::Release);
    }

    /// The descriptor is closed, or is another's now. Gives the VM that nobody refers to any more.
    pub(crate) fn remove(&self, fd: c_int) -> Option<VmId> {
        let file = self.file(fd)?;
        if file.vm.load(Ordering::Relaxed) == 0 {
            return None;
        }
        file.run.store(ptr::null_mut(), Ordering::Release);
        let place = file.vm.swap(0, Ordering::AcqRel).checked_sub(1)?;
        let vm = self.vms.get(place as usize)?;
        let generation = vm.generation.load(Ordering::Relaxed);
        let was_last = vm.references.fetch_sub(1, Ordering::AcqRel) == 1;
        was_last.then_some(VmId { place, generation })
    }

    /// The VM of a descriptor of its own, or of a vCPU's.
    pub(crate) fn vm_of(&self, fd: c_int) -> Option<VmId> {
        let place = self.file(fd)?.vm.load(Ordering::Acquire).checked_sub(1)?;
        let generation = self.vms.get(place as usize)?.generation.load(Ordering::Relaxed);
        Some(VmId { place, generation })
    }

    /// The vCPU behind a descriptor.
    #[inline]
    pub(crate) fn vcpu(&self, fd: c_int) -> Option<Running<'_>> {
        let file = self.file(fd)?;
        let place = file.vm.load(Ordering::Acquire).checked_sub(1)?;
        let number = file.vcpu.load(Ordering::Relaxed);
        let vm = self.vms.get(place as usize)?;
        (number != IS_VM).then_some(Running { file, vm, place, number })
    }

    pub(crate) fn set_flag(&self, id: VmId, flag: u32) {
        if let Some(vm) = self.vms.get(id.place as usize) {
            vm.flags.fetch_or(flag, Ordering::Relaxed);
        }
    }

    /// The VM's guest is reset: it may run, and its errors are contained.
    pub(crate) fn reset(&self, id: VmId) {
        if let Some(vm) = self.vms.get(id.place as usize) {
            vm.flags.fetch_and(!(LET_THROUGH | STOPPED), Ordering::Relaxed);
            vm.left.store(0, Ordering::Relaxed);
        }
    }

    /// An exit is left to the VM's user. True if that does not know such exits: it had too many, and ran the vCPU again.
    pub(crate) fn leave(&self, id: VmId) -> bool {
        let vm = self.vms.get(id.place as usize);
        vm.is_some_and(|vm| vm.left.fetch_add(1, Ordering::Relaxed) >= MOST_LEFT)
    }

    /// Memory was mapped: a vCPU's `struct kvm_run`, perhaps.
    pub(crate) fn mapped(&self, fd: c_int, address: *mut u8) {
        let Some(file) = self.file(fd) else { return };
        if file.vm.load(Ordering::Acquire) == 0 || file.vcpu.load(Ordering::Relaxed) == IS_VM {
            return;
        }
        let at = address as usize;
        // 0: none was seen.
        let lower = |lowest: usize| (lowest == 0 || at < lowest).then_some(at);
        let _ = self.lowest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
        self.highest.fetch_max(at, Ordering::Relaxed);
        file.run.store(address, Ordering::Release);
    }

    /// These addresses are not what they were.
    pub(crate) fn unmapped(&self, address: *mut u8, length: usize) {
        let start = address as usize;
        let end = start.saturating_add(length);
        if start > self.highest.load(Ordering::Relaxed) || end <= self.lowest.load(Ordering::Relaxed) {
            return;
        }
        let seen = self.table.get(..self.end.load(Ordering::Relaxed)).unwrap_or_default();
        for file in seen {
            let run = file.run.load(Ordering::Relaxed);
            if !run.is_null() && (start..end).contains(&(run as usize)) {
                let gone = ptr::null_mut();
                // Another thread may have mapped it elsewhere meanwhile.
                let _ = file.run.compare_exchange(run, gone, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

/// A vCPU, by its descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    file: &'a File,
    vm: &'a Vm,
    place: u32,
    pub(crate) number: u32,
}

#[allow(clippy::cast_ptr_alignment, reason = "`struct kvm_run` begins at a page")]
impl Running<'_> {
    pub(crate) fn vm_id(&self) -> VmId {
        VmId { place: self.place, generation: self.vm.generation.load(Ordering::Relaxed) }
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.vm.flags.load(Ordering::Relaxed) & flag != 0
    }

    #[inline]
    fn run(&self) -> *mut u8 {
        self.file.run.load(Ordering::Acquire)
    }

    /// The VMM's `struct kvm_run` is known.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        !self.run().is_null()
    }

    /// The run came back, and not for a memory error; false if that is not known.
    #[inline]
    pub(crate) fn came_for_another_reason(&self) -> bool {
        let run = self.run();
        // SAFETY: the VMM has the vCPU's struct kvm_run mapped there, a page at least: it was told of by mmap, and not
        // unmapped. The kernel wrote it before KVM_RUN came back, and nobody writes it until the vCPU runs again.
        !run.is_null()
            && unsafe { run.add(KVM_RUN_EXIT_REASON).cast::<u32>().read_volatile() } != KVM_EXIT_ARM_SEA
    }

    /// What `KVM_EXIT_ARM_SEA` says, if that is what the run came back with.
    pub(crate) fn sea(&self) -> Option<Source> {
        let run = self.run();
        if run.is_null() || self.came_for_another_reason() {
            return None;
        }
        // SAFETY: as in `came_for_another_reason`; the union begins at 32 of a page's bytes.
        let bytes = unsafe { slice::from_raw_parts(run.add(KVM_RUN_UNION), size_of::<ArmSea>()) };
        ArmSea::read_from_bytes(bytes).ok().map(|sea| Source::Sea(SeaExit::from(sea)))
    }

    /// `KVM_RUN` came back for a signal, as far as the VMM shall know.
    pub(crate) fn interrupted(&self) {
        let run = self.run();
        if !run.is_null() {
            // SAFETY: as in `came_for_another_reason`; the vCPU does not run, and this is its thread.
            unsafe { run.add(KVM_RUN_EXIT_REASON).cast::<u32>().write_volatile(KVM_EXIT_INTR) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_lives_as_long_as_one_of_its_descriptors() {
        static FILES: Files = Files::new();
        let vm = FILES.add_vm(10).unwrap();
        assert!(FILES.add_vcpu(11, 10, 0) && FILES.add_vcpu(12, 10, 1));
        assert_eq!(FILES.vm_of(12), Some(vm));
        assert_eq!((FILES.remove(10), FILES.remove(11)), (None, None));
        assert_eq!(FILES.vcpu(12).map(|vcpu| (vcpu.vm_id(), vcpu.number)), Some((vm, 1)));
        assert_eq!(FILES.remove(12), Some(vm));
        let next = FILES.add_vm(12).unwrap();
        assert_eq!((next.place, next.generation), (vm.place, vm.generation + 1));
    }

    #[test]
    fn a_descriptor_that_was_closed_unseen_is_the_new_ones() {
        static FILES: Files = Files::new();
        let first = FILES.add_vm(5).unwrap();
        assert!(FILES.add_vcpu(6, 5, 0));
        let second = FILES.add_vm(6).unwrap();
        assert_ne!(first, second);
        assert!(FILES.vcpu(6).is_none());
        assert_eq!(FILES.vm_of(5), Some(first));
    }

    #[test]
    fn a_vcpu_of_what_is_no_vm_and_a_descriptor_out_of_reach_are_not_known() {
        static FILES: Files = Files::new();
        assert!(!FILES.add_vcpu(6, 5, 0));
        assert!(FILES.add_vm(1 << 15).is_none() && FILES.add_vm(-1).is_none());
        assert!(FILES.vcpu(-1).is_none() && FILES.vm_of(i32::MAX).is_none());
    }

    #[test]
    fn more_vms_than_there_are_places_are_refused_and_a_place_is_used_again() {
        static FILES: Files = Files::new();
        assert!((0..256).all(|fd| FILES.add_vm(fd).is_some()));
        assert!(FILES.add_vm(256).is_none());
        FILES.remove(7);
        assert!(FILES.add_vm(256).is_some());
    }

    #[test]
    fn an_exit_is_read_where_the_vmm_mapped_it_and_not_after_it_was_unmapped() {
        static FILES: Files = Files::new();
        let mut page = [0_u64; 512];
        let address: *mut u8 = page.as_mut_ptr().cast();
        FILES.add_vm(3).unwrap();
        FILES.mapped(3, address);
        assert!(FILES.add_vcpu(4, 3, 0));
        let vcpu = FILES.vcpu(4).unwrap();
        assert!(!vcpu.is_mapped() && vcpu.sea().is_none());
        FILES.mapped(4, address);
        page[1] = 41;
        page[4..8].copy_from_slice(&[1, 0x9200_0210, 0x50_0040, 0x8020_0000]);
        let Some(Source::Sea(exit)) = vcpu.sea() else { panic!("expected an exit") };
        assert_eq!((exit.flags, exit.esr.bits()), (1, 0x9200_0210));
        assert_eq!((exit.gva, exit.gpa), (0x50_0040, 0x8020_0000));
        vcpu.interrupted();
        assert_eq!(page[1], 10);
        FILES.unmapped(address.wrapping_add(4096), 4096);
        assert!(vcpu.is_mapped());
        FILES.unmapped(address.wrapping_sub(4096), 8192);
        assert!(!vcpu.is_mapped() && vcpu.sea().is_none());
    }
}
