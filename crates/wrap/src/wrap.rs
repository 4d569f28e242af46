//! What becomes of the VMM's calls.

use std::cell::Cell;
use std::ffi::{c_int, c_ulong, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::{ptr, slice, thread};

use libc::siginfo_t;
use seawall::{MemoryRegion, Source};
use seawall_events::wire::{KVM_ARM_VCPU_INIT, KVM_CAP_ARM_SEA_TO_USER, KVM_ENABLE_CAP, KVM_RUN};
use seawall_host::sigbus::{self, Signal};

use crate::bpf::{Instruction, allows};
use crate::calls::{Calls, errno, set_errno};
use crate::chain::{self, Chain};
use crate::desk::{Answer, Answered, Desk, Place, What};
use crate::files::{Files, LET_THROUGH, OWN_EXITS, Running, STOPPED};
use crate::helper::Helper;
use crate::report::{Reporter, StartError, say};
use crate::slots::Slots;
use crate::{Settings, Sigbus, filter};

const KVM_CREATE_VM: u32 = 0xae01;
const KVM_CREATE_VCPU: u32 = 0xae41;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_SET_USER_MEMORY_REGION2: u32 = 0x40a0_ae49;
/// Calls of which something is learnt when the kernel took them.
const LEARNT: [u32; 6] = [
    KVM_CREATE_VM,
    KVM_CREATE_VCPU,
    KVM_ENABLE_CAP,
    KVM_ARM_VCPU_INIT,
    KVM_SET_USER_MEMORY_REGION,
    KVM_SET_USER_MEMORY_REGION2,
];
/// `si_code`: the thread was about to consume the memory.
const BUS_MCEERR_AR: c_int = 4;

/// What is done with a SIGBUS during a run.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum During {
    /// The VMM's handler gets it.
    Leave,
    /// It is recorded, and contained after the run.
    Record,
    /// It is reported, and the VMM's handler gets it.
    Report,
    /// There is no run: the guest must not run on.
    Stop,
}

/// Things that are said once, by the helper: a filter of the VMM's may forbid its own thread to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Once {
    Descriptors,
    UnknownVm,
    Slots,
    Mapping,
    OwnExits,
    UnknownExit,
}

impl Once {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Descriptors => "too many VMs or files: this VM is not wrapped",
            Self::UnknownVm => "a vCPU of a VM that is not known is not wrapped",
            Self::Slots => {
                "too many memory slots: of some, SIGBUS is left to the VMM, and the host is not told of bad pages"
            }
            Self::Mapping => {
                "a vCPU's struct kvm_run was not mapped by mmap() of its descriptor: its SEA exits are left to the VMM"
            }
            Self::UnknownExit => {
                "the VMM runs the guest again after exit 41, which it does not know: KVM_RUN fails with EHWPOISON until the \
                 guest is reset"
            }
            Self::OwnExits => "this VMM handles SEA exits itself: they are left to it",
        }
    }
}

/// Containment in one process, behind the functions that the preload library has in the place of the C library's.
///
/// It is a static: all of it is there before it is [started](Wrap::start).
pub struct Wrap<C> {
    pub(crate) calls: C,
    pub(crate) files: Files,
    pub(crate) slots: Slots,
    pub(crate) desk: Desk,
    pub(crate) chain: Chain,
    settings: OnceLock<Settings>,
    during: AtomicU8,
    /// The helper's calls that a filter of the VMM's on all threads forbids.
    missing: AtomicU64,
    said: AtomicU8,
}

thread_local! {
    /// This thread is in a run whose SIGBUS is reported before the VMM's handler gets it. No destructor, and initialised at
    /// compile time: a signal's handler may use it.
    static REPORTED: Cell<Option<Place>> = const { Cell::new(None) };
}

impl<C: Calls> Wrap<C> {
    /// Nothing is known, and nothing is done until it is started.
    pub const fn new(calls: C) -> Self {
        Self {
            calls,
            files: Files::new(),
            slots: Slots::new(),
            desk: Desk::new(),
            chain: Chain::new(),
            settings: OnceLock::new(),
            during: AtomicU8::new(During::Leave as u8),
            missing: AtomicU64::new(0),
            said: AtomicU8::new(0),
        }
    }

    /// The functions behind ours.
    pub const fn calls(&self) -> &C {
        &self.calls
    }

    /// From now on errors are contained: once, and before the VMM makes a VM or filters its threads. `handler` is SIGBUS's, and
    /// does no more than [`Wrap::on_sigbus`].
    ///
    /// # Errors
    /// [`StartError`]; nothing was started then.
    pub fn start(
        &'static self,
        settings: Settings,
        handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void),
    ) -> Result<(), StartError> {
        let reporter = Reporter::new(&settings)?;
        let during = match (settings.dry_run, settings.sigbus) {
            (true, _) => During::Report,
            (false, Sigbus::Contain) => During::Record,
            (false, Sigbus::Vmm) => During::Leave,
        };
        self.install(handler)?;
        self.spawn(settings.clone(), reporter)?;
        self.during.store(during as u8, Ordering::Relaxed);
        let _ = self.settings.set(settings);
        Ok(())
    }

    /// SIGBUS is ours, and what was there before is the VMM's.
    fn install(&self, handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void)) -> Result<(), StartError> {
        sigbus::leave_to_program();
        // SAFETY: a zeroed sigaction is one; both are live, and the handler is async-signal-safe.
        let installed = unsafe {
            let mut theirs: libc::sigaction = std::mem::zeroed();
            self.calls.sigaction(libc::SIGBUS, ptr::null(), &raw mut theirs) == 0 && {
                self.chain.set(&theirs);
                let ours = chain::ours(&theirs, handler as *const () as usize);
                self.calls.sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0
            }
        };
        if installed { Ok(()) } else { Err(StartError::System("sigaction(SIGBUS) failed".to_owned())) }
    }

    /// The helper's thread, which gets no signal of the VMM's.
    fn spawn(&'static self, settings: Settings, reporter: Reporter) -> Result<(), StartError> {
        if !self.desk.open() {
            return Ok(());
        }
        // SAFETY: zeroed sets are sets, and are ours; this thread's mask alone changes.
        let before = unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        };
        let helper = Helper::new(self, settings, reporter);
        let spawned = thread::Builder::new().name("seawall".to_owned()).spawn(move || helper.run());
        // SAFETY: `before` is the set that the kernel has filled in.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
        if let Err(error) = spawned {
            self.desk.close();
            return Err(StartError::System(format!("the thread that contains cannot be made: {error}")));
        }
        Ok(())
    }

    /// This process was forked: its parent's threads, the helper among them, are not here. A VM of its own gets a new one.
    pub fn forked(&self) {
        self.desk.close();
    }

    /// `ioctl(2)`.
    ///
    /// # Safety
    /// As libc's.
    #[inline]
    pub unsafe fn ioctl(&'static self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // The kernel takes 32 bits of it.
        if request as u32 == KVM_RUN {
            // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
            return unsafe { self.run(fd, request, argument) };
        }
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        unsafe { self.other_ioctl(fd, request, argument) }
    }

    /// Any but `KVM_RUN`.
    ///
    /// # Safety
    /// As libc's.
    #[inline(never)]
    unsafe fn other_ioctl(&'static self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        let result = unsafe { self.calls.ioctl(fd, request, argument) };
        if result >= 0 && LEARNT.contains(&(request as u32)) {
            let before = errno();
            // SAFETY: the kernel took the argument.
            unsafe { self.learn(fd, request as u32, argument, result) };
            set_errno(before);
        }
        result
    }

    /// `KVM_RUN`. While nothing is bad this is all that it costs: the descriptor's vCPU, a look at how SIGBUS is taken, a mark
    /// for the handler and off again, and a look at the exit's reason.
    ///
    /// # Safety
    /// As libc's.
    #[inline(never)]
    unsafe fn run(&'static self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        if let Some(vcpu) = self.files.vcpu(fd).filter(|vcpu| self.records(*vcpu)) {
            // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
            let result = sigbus::recording(|| unsafe { self.calls.ioctl(fd, request, argument) });
            if result != -1 && vcpu.came_for_another_reason() {
                return result;
            }
            if let Some(result) = self.after_run(fd, During::Record, result) {
                return result;
            }
        }
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        unsafe { self.run_otherwise(fd, request, argument) }
    }

    /// The usual way of a run's SIGBUS: it is recorded.
    #[inline]
    fn records(&self, vcpu: Running<'_>) -> bool {
        self.during.load(Ordering::Relaxed) == During::Record as u8 && !vcpu.has(LET_THROUGH | STOPPED)
    }

    /// `KVM_RUN` whichever way SIGBUS goes, again after each error that is contained.
    ///
    /// # Safety
    /// As libc's.
    #[cold]
    unsafe fn run_otherwise(&'static self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        loop {
            let vcpu = self.files.vcpu(fd);
            let during = vcpu.map_or(During::Leave, |vcpu| self.during(vcpu));
            // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
            let run = || unsafe { self.calls.ioctl(fd, request, argument) };
            let result = match (during, vcpu) {
                (During::Stop, _) => return stopped(),
                (During::Record, _) => sigbus::recording(run),
                (During::Report, Some(vcpu)) => {
                    REPORTED.set(Some(place(fd, vcpu)));
                    let result = run();
                    REPORTED.set(None);
                    result
                }
                _ => run(),
            };
            if let Some(result) = self.after_run(fd, during, result) {
                return result;
            }
        }
    }

    /// How SIGBUS is taken during a run.
    fn during(&self, vcpu: Running<'_>) -> During {
        if vcpu.has(STOPPED) {
            return During::Stop;
        }
        if vcpu.has(LET_THROUGH) || self.is_filtered() {
            return During::Leave;
        }
        match self.during.load(Ordering::Relaxed) {
            during if during == During::Record as u8 => During::Record,
            during if during == During::Report as u8 => During::Report,
            // Asked for the VMM's handler, where there is none.
            _ if self.settings.get().is_some() && !self.chain.has_handler() => During::Record,
            _ => During::Leave,
        }
    }

    /// A run came back: the VMM gets its result, or the vCPU runs again.
    #[cold]
    fn after_run(&'static self, fd: c_int, during: During, result: c_int) -> Option<c_int> {
        if result == -1 {
            let is_interrupted = during == During::Record && errno() == libc::EINTR;
            let must_stop = is_interrupted && self.after_signal(fd) == Answer::Stop;
            return Some(if must_stop { stopped() } else { result });
        }
        let Some(vcpu) = self.files.vcpu(fd) else { return Some(result) };
        let Some(Source::Sea(exit)) = vcpu.sea() else {
            if !vcpu.is_mapped() {
                self.say_once(Once::Mapping);
            }
            return Some(result);
        };
        if vcpu.has(OWN_EXITS) {
            return Some(result);
        }
        let before = errno();
        let answered = self.ask(What::Sea { at: place(fd, vcpu), exit });
        set_errno(before);
        match answered {
            // QEMU on Arm runs the vCPU again after an exit that it does not know, for ever.
            Answered { answer: Answer::Leave, .. } if self.files.leave(vcpu.vm_id()) => {
                self.files.set_flag(vcpu.vm_id(), STOPPED);
                self.say_once(Once::UnknownExit);
                Some(stopped())
            }
            Answered { answer: Answer::Leave, .. } => Some(result),
            Answered { answer: Answer::Stop, .. } => {
                self.files.set_flag(vcpu.vm_id(), STOPPED);
                Some(stopped())
            }
            // Who sent the signal expects the vCPU to come out of its run.
            Answered { answer: Answer::GoOn, was_interrupted: true } => {
                vcpu.interrupted();
                set_errno(libc::EINTR);
                Some(-1)
            }
            Answered { answer: Answer::GoOn, .. } => None,
        }
    }

    /// A run was interrupted: by a SIGBUS that was recorded, perhaps. `KVM_RUN` fails with EINTR as it did; whoever sent
    /// another signal meanwhile expects that.
    fn after_signal(&self, fd: c_int) -> Answer {
        let (Some(signal), Some(vcpu)) = (sigbus::take(), self.files.vcpu(fd)) else { return Answer::GoOn };
        let before = errno();
        let Answered { answer, .. } = self.ask(What::Sigbus { at: place(fd, vcpu), signal });
        match answer {
            Answer::GoOn => {}
            // The guest has not moved: its next run meets the page again, and the VMM's handler, or the default, gets it.
            Answer::Leave => self.files.set_flag(vcpu.vm_id(), LET_THROUGH),
            Answer::Stop => self.files.set_flag(vcpu.vm_id(), STOPPED),
        }
        set_errno(before);
        answer
    }

    /// A filter of the VMM's on all threads forbids the helper its calls.
    fn is_filtered(&self) -> bool {
        self.missing.load(Ordering::Relaxed) != 0
    }

    fn ask(&self, what: What) -> Answered {
        if self.is_filtered() {
            return Answered { answer: Answer::Leave, was_interrupted: false };
        }
        self.desk.ask(what)
    }

    /// Takes note of a call that the kernel took.
    ///
    /// # Safety
    /// `argument` must be what the kernel has just read.
    #[inline(never)]
    unsafe fn learn(&'static self, fd: c_int, request: u32, argument: *mut c_void, result: c_int) {
        match request {
            KVM_CREATE_VM => self.new_vm(result),
            KVM_CREATE_VCPU => {
                self.forget(result);
                if !self.files.add_vcpu(result, fd, argument as usize as u32) {
                    self.say_once(Once::UnknownVm);
                }
            }
            KVM_ARM_VCPU_INIT => {
                if let Some(vm) = self.files.vm_of(fd) {
                    self.files.reset(vm);
                }
            }
            KVM_ENABLE_CAP => {
                // SAFETY: `struct kvm_enable_cap` begins with the capability.
                let capability = unsafe { argument.cast::<u32>().read_unaligned() };
                if let Some(vm) = self.files.vm_of(fd).filter(|_| capability == KVM_CAP_ARM_SEA_TO_USER) {
                    self.files.set_flag(vm, OWN_EXITS);
                    self.say_once(Once::OwnExits);
                }
            }
            _ => {
                let Some(vm) = self.files.vm_of(fd) else { return };
                // SAFETY: `struct kvm_userspace_memory_region` is slot, flags, guest address, size, host address; the other one
                // begins with the same.
                let (numbers, words) = unsafe {
                    (argument.cast::<u32>().read_unaligned(), argument.cast::<[u64; 4]>().read_unaligned())
                };
                let [_, guest, size, host] = words;
                if !self.slots.set(vm, numbers, MemoryRegion { guest, host, size }) {
                    self.say_once(Once::Slots);
                }
            }
        }
    }

    fn new_vm(&'static self, fd: c_int) {
        self.forget(fd);
        if !self.desk.is_open() {
            self.start_again();
        }
        match self.files.add_vm(fd) {
            Some(vm) => {
                self.ask(What::NewVm { fd, vm });
            }
            None => self.say_once(Once::Descriptors),
        }
    }

    /// In a process that was forked.
    fn start_again(&'static self) {
        let Some(settings) = self.settings.get() else { return };
        let started = Reporter::new(settings).and_then(|reporter| self.spawn(settings.clone(), reporter));
        if let Err(error) = started {
            say(error);
        }
    }

    fn forget(&self, fd: c_int) {
        if let Some(vm) = self.files.remove(fd) {
            self.slots.forget(vm);
        }
    }

    /// A `close(2)` is about to be made.
    #[inline]
    pub fn closed(&self, fd: c_int) {
        self.forget(fd);
    }

    /// An `mmap(2)` was made: a vCPU's `struct kvm_run`, perhaps.
    #[inline]
    pub fn mapped(&self, fd: c_int, offset: libc::off_t, address: *mut c_void) {
        if fd >= 0 && offset == 0 && address != libc::MAP_FAILED {
            self.files.mapped(fd, address.cast());
        }
    }

    /// A `munmap(2)`, or an `mmap(2)` with `MAP_FIXED`, is about to be made.
    #[inline]
    pub fn unmapped(&self, address: *mut c_void, length: usize) {
        self.files.unmapped(address.cast(), length);
    }

    /// `sigaction(SIGBUS)` of the VMM's, while `handler` is in the kernel.
    ///
    /// # Safety
    /// As libc's.
    pub unsafe fn sigaction(
        &self,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
        handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void),
    ) -> c_int {
        let before = self.chain.get();
        // SAFETY: the caller's pointers are null, or point to a sigaction.
        let (new, old) = unsafe { (new.as_ref(), old.as_mut()) };
        if let Some(new) = new.copied() {
            let ours = chain::ours(&new, handler as *const () as usize);
            self.chain.set(&new);
            // SAFETY: it is live, and the handler is async-signal-safe.
            let result = unsafe { self.calls.sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) };
            if result != 0 {
                self.chain.set(&before);
                return result;
            }
        }
        if let Some(old) = old {
            *old = before;
        }
        0
    }

    /// SIGBUS's handler. Async-signal-safe.
    ///
    /// # Safety
    /// The arguments must be what the kernel gave the handler.
    pub unsafe fn on_sigbus(&self, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let before = errno();
        // SAFETY: the kernel gave it.
        let code = unsafe { (*info).si_code };
        if code == BUS_MCEERR_AR {
            // SAFETY: the kernel gave it.
            if unsafe { sigbus::handle(info) } {
                return;
            }
            if let Some(at) = REPORTED.get() {
                // SAFETY: the kernel gave it. `si_addr_lsb` is a short behind `si_addr`.
                let (address, lsb) = unsafe { ((*info).si_addr() as u64, info.cast::<u8>().add(24).read()) };
                self.ask(What::Sigbus { at, signal: Signal { address, lsb, action_required: true } });
                set_errno(before);
            }
        }
        let kill = || {
            // SAFETY: a zeroed sigaction is the default.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                self.calls.sigaction(libc::SIGBUS, &raw const default, ptr::null_mut());
            }
        };
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        unsafe { self.chain.pass_on((signal, info, context), kill) };
    }

    /// The VMM has put a filter of system calls on all of its threads: the helper is under it too.
    ///
    /// # Safety
    /// `program` must be the `struct sock_fprog` that the kernel has just taken.
    pub unsafe fn filtered(&self, program: *const c_void) {
        // SAFETY: `struct sock_fprog` is a count and a pointer to so many instructions.
        let instructions = unsafe {
            let count = program.cast::<u16>().read();
            let first = program.cast::<*const Instruction>().add(1).read();
            slice::from_raw_parts(first, count.into())
        };
        let forbidden = filter::needed().enumerate().filter(|(_, rule)| !allows(instructions, rule));
        let missing = forbidden.fold(0, |bits, (place, _)| bits | 1_u64 << place);
        if missing != 0 && self.missing.fetch_or(missing, Ordering::Relaxed) == 0 {
            self.during.store(During::Leave as u8, Ordering::Relaxed);
            let can_say = !filter::names(missing).split(", ").any(|name| name == "write" || name == "futex");
            if can_say {
                self.desk.ask(What::Filtered { missing });
            }
        }
    }

    fn say_once(&self, what: Once) {
        let bit = 1 << what as u8;
        if self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.ask(What::Say(what));
        }
    }
}

/// What `KVM_RUN` fails with for a guest that must not run on. Each VMM takes that for the guest's end, or stops it; not each
/// one does so for an exit that it does not know.
fn stopped() -> c_int {
    set_errno(libc::EHWPOISON);
    -1
}

fn place(fd: c_int, vcpu: Running<'_>) -> Place {
    Place { fd, vm: vcpu.vm_id(), number: vcpu.number }
}
