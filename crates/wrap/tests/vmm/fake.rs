//! A kernel with one VM and its vCPUs, behind the calls of a VMM that knows nothing of Seawall.

use std::ffi::{c_int, c_ulong, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use seawall_arm::{Reg, Registers as _};
use seawall_inject::{Errno, KvmVcpu as _};
use seawall_model::guests::guest;
use seawall_model::{Kernel, Vcpu};
use seawall_wrap::{Calls, Wrap};

pub(crate) const KVM_CREATE_VM: u32 = 0xae01;
pub(crate) const KVM_CREATE_VCPU: u32 = 0xae41;
pub(crate) const KVM_RUN: u32 = 0xae80;
pub(crate) const KVM_ARM_VCPU_INIT: u32 = 0x4020_aeae;
pub(crate) const KVM_ENABLE_CAP: u32 = 0x4068_aea3;
pub(crate) const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_CHECK_EXTENSION: u32 = 0xae03;
const KVM_GET_ONE_REG: u32 = 0x4010_aeab;
const KVM_SET_ONE_REG: u32 = 0x4010_aeac;
const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
const KVM_SET_VCPU_EVENTS: u32 = 0x4040_aea0;

pub(crate) const EXIT_MMIO: u32 = 6;
pub(crate) const EXIT_INTR: u32 = 10;
pub(crate) const EXIT_SEA: u32 = 41;

/// What a run comes back with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// An access outside of memory.
    Mmio,
    /// A load at EL0 of this page.
    Sea { gpa: u64 },
    /// SIGBUS for this host address, and EINTR.
    Sigbus { address: u64 },
    /// The call fails with this.
    Fails(c_int),
}

/// The kernel. All of its state is the test's.
pub(crate) struct Fake {
    /// The vCPU, of which there is one whatever the descriptor.
    pub(crate) vcpu: Mutex<Option<Kernel>>,
    /// The runs to come, the last one first; then MMIO for ever.
    pub(crate) steps: Mutex<Vec<Step>>,
    pub(crate) runs: AtomicU32,
    /// `KVM_CHECK_EXTENSION` of SEA exits.
    pub(crate) capability: AtomicI32,
    pub(crate) enabled: AtomicU32,
    /// A mistake of ours is made in the next `KVM_GET_ONE_REG`.
    pub(crate) panics: AtomicU32,
    /// SIGBUS's disposition is the process's: else nothing is installed.
    pub(crate) has_signals: AtomicBool,
    next: AtomicI32,
    /// Where `struct kvm_run` is.
    run: Mutex<usize>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    pub(crate) const fn new() -> Self {
        Self {
            vcpu: Mutex::new(None),
            steps: Mutex::new(Vec::new()),
            runs: AtomicU32::new(0),
            capability: AtomicI32::new(1),
            enabled: AtomicU32::new(0),
            panics: AtomicU32::new(0),
            has_signals: AtomicBool::new(false),
            next: AtomicI32::new(1000),
            run: Mutex::new(0),
        }
    }

    /// Looks at the vCPU.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Vcpu) -> T) -> T {
        look(&lock(&self.vcpu).as_ref().expect("a vCPU").vcpu.borrow())
    }

    /// The guest is at its load again.
    pub(crate) fn set_guest(&self, pc: u64) {
        let mut vcpu = guest(0);
        vcpu.set_reg(Reg::Pc, pc);
        *lock(&self.vcpu) = Some(Kernel::stock(&vcpu));
    }

    fn run(&self) -> c_int {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let run = *lock(&self.run) as *mut u64;
        let write = |reason: u32, union: [u64; 4]| {
            // SAFETY: the page that `Vmm` has mapped.
            unsafe {
                run.add(1).cast::<u32>().write_volatile(reason);
                run.add(4).cast::<[u64; 4]>().write_volatile(union);
            }
        };
        let step = lock(&self.steps).pop().unwrap_or(Step::Mmio);
        match step {
            Step::Mmio => write(EXIT_MMIO, [0x900_0000, 0, 1, 0]),
            Step::Sea { gpa } => write(EXIT_SEA, [1, 0x9200_0210, 0x50_0000 + (gpa & 0xfff_f000), gpa]),
            Step::Sigbus { address } => {
                write(EXIT_INTR, [0; 4]);
                seawall_lab_machine::send_sigbus(4, address, 12).expect("a signal");
                return fails(libc::EINTR);
            }
            Step::Fails(errno) => return fails(errno),
        }
        0
    }
}

fn fails(errno: c_int) -> c_int {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

pub(crate) fn errno() -> c_int {
    // SAFETY: it points to this thread's errno.
    unsafe { *libc::__errno_location() }
}

fn result(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => fails(errno.0),
    }
}

// SAFETY: what a test needs of them.
unsafe impl Calls for Fake {
    unsafe fn ioctl(&self, _: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        if request as u32 == KVM_RUN {
            return self.run();
        }
        let vcpu = lock(&self.vcpu);
        let kernel = vcpu.as_ref();
        // SAFETY: the caller gives what each request takes.
        unsafe {
            match request as u32 {
                KVM_CREATE_VM | KVM_CREATE_VCPU => self.next.fetch_add(1, Ordering::Relaxed),
                KVM_CHECK_EXTENSION => self.capability.load(Ordering::Relaxed),
                KVM_ENABLE_CAP => {
                    self.enabled.store(argument.cast::<u32>().read(), Ordering::Relaxed);
                    0
                }
                KVM_SET_USER_MEMORY_REGION | KVM_ARM_VCPU_INIT => 0,
                KVM_GET_ONE_REG | KVM_SET_ONE_REG => {
                    assert!(self.panics.swap(0, Ordering::Relaxed) == 0, "as the test wants");
                    let [id, address] = argument.cast::<[u64; 2]>().read();
                    let value = address as *mut u64;
                    let Some(kernel) = kernel else { return fails(libc::ENOEXEC) };
                    if request as u32 == KVM_SET_ONE_REG {
                        return result(kernel.set_one_reg(id, value.read()));
                    }
                    result(kernel.get_one_reg(id).map(|got| value.write(got)))
                }
                KVM_SET_VCPU_EVENTS => {
                    let Some(kernel) = kernel else { return fails(libc::ENOEXEC) };
                    kernel.calls.borrow_mut().clear();
                    result(kernel.set_vcpu_events(&argument.cast::<[u8; 64]>().read()))
                }
                KVM_GET_VCPU_EVENTS => {
                    let Some(kernel) = kernel else { return fails(libc::ENOEXEC) };
                    result(kernel.get_vcpu_events().map(|got| argument.cast::<[u8; 64]>().write(got)))
                }
                _ => fails(libc::ENOTTY),
            }
        }
    }

    unsafe fn sigaction(
        &self,
        signal: c_int,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
    ) -> c_int {
        if !self.has_signals.load(Ordering::Relaxed) {
            return 0;
        }
        // SAFETY: the caller's.
        unsafe { libc::sigaction(signal, new, old) }
    }
}

/// A VMM with one vCPU.
pub(crate) struct Vmm {
    wrap: &'static Wrap<Fake>,
    pub(crate) vm: c_int,
    pub(crate) vcpu: c_int,
    run: Box<[u64; 512]>,
}

impl Vmm {
    pub(crate) fn new(wrap: &'static Wrap<Fake>, fake: &'static Fake) -> Self {
        fake.set_guest(0x40_1040);
        let run = Box::new([0; 512]);
        *lock(&fake.run) = run.as_ptr() as usize;
        let mut vmm = Self { wrap, vm: -1, vcpu: -1, run };
        vmm.vm = vmm.ioctl(3, KVM_CREATE_VM, std::ptr::null_mut());
        vmm.vcpu = vmm.ioctl(vmm.vm, KVM_CREATE_VCPU, std::ptr::null_mut());
        wrap.mapped(vmm.vcpu, 0, vmm.run.as_mut_ptr().cast());
        vmm
    }

    pub(crate) fn ioctl(&self, fd: c_int, request: u32, argument: *mut c_void) -> c_int {
        // SAFETY: the test gives what the request takes.
        unsafe { self.wrap.ioctl(fd, request.into(), argument) }
    }

    /// What the VMM sees of a run: the result, and why the vCPU came back.
    pub(crate) fn run(&self) -> (c_int, u32) {
        let result = self.ioctl(self.vcpu, KVM_RUN, std::ptr::null_mut());
        // SAFETY: it is there; volatile, as the kernel wrote it.
        (result, unsafe { self.run.as_ptr().add(1).cast::<u32>().read_volatile() })
    }

    pub(crate) fn set_memory(&self, slot: u32, guest: u64, host: u64, size: u64) {
        let mut region = [u64::from(slot), guest, size, host];
        assert_eq!(self.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION, region.as_mut_ptr().cast()), 0);
    }
}
