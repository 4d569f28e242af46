//! SIGBUS: a handler only records it, and the VMM's loop takes it after a run.
//!
//! A signal for memory that a vCPU was about to consume (`BUS_MCEERR_AR`) belongs to the run that met it. An
//! early warning (`BUS_MCEERR_AO`) belongs to the process, and with `vm.memory_failure_early_kill` its main
//! thread receives it: the next thread that calls [`take`] gets it. It does not interrupt a run.
//!
//! Source: sigaction(2), `BUS_MCEERR_AR` and `BUS_MCEERR_AO`; Linux `mm/memory-failure.c`,
//! `kvm_send_hwpoison_signal`.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence};

use libc::{c_int, c_void, siginfo_t};

use crate::{Error, errno};

/// A SIGBUS for bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `si_addr`: host virtual address of a bad byte, rounded down to 128 bytes.
    pub address: u64,
    /// `si_addr_lsb`: log2 of the size of the bad range: a page, or a huge page.
    pub lsb: u8,
    /// True for `BUS_MCEERR_AR`: the thread was about to consume the memory. False for an early warning.
    pub action_required: bool,
}

impl Signal {
    /// The bad range, host virtual addresses.
    pub fn range(&self) -> Range<u64> {
        let size = 1_u64.checked_shl(self.lsb.into()).unwrap_or(1);
        let start = self.address & !(size - 1);
        start..start.saturating_add(size)
    }
}

/// `si_code`: the thread was about to consume the memory.
const BUS_MCEERR_AR: c_int = 4;
/// `si_code`: an early warning.
const BUS_MCEERR_AO: c_int = 5;

/// Early warnings that nobody has taken yet, [`pack`]ed; 0: none. Further ones are lost.
static EARLY: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// The handler's record for the thread that it interrupted.
struct Record {
    /// True while the thread is in a run, or asked for memory to be made bad.
    expected: AtomicBool,
    /// The memory that the thread was about to consume, [`pack`]ed; 0: none.
    required: AtomicU64,
}

thread_local! {
    /// It is initialised at compile time and has no destructor, so a signal handler may use it.
    static RECORD: Record =
        const { Record { expected: AtomicBool::new(false), required: AtomicU64::new(0) } };
}

/// Packs both into one word, so that a signal handler finds it whole or not at all. The bad range is a page
/// at least, so the low bits of its address are free.
fn pack(address: u64, lsb: u8) -> u64 {
    address & !0x7f | PRESENT | u64::from(lsb) & LSB
}

const PRESENT: u64 = 0x40;
const LSB: u64 = 0x3f;

fn unpack(packed: u64, action_required: bool) -> Option<Signal> {
    let signal = Signal { address: packed & !0x7f, lsb: (packed & LSB) as u8, action_required };
    (packed != 0).then_some(signal)
}

/// The disposition before ours, or sigaction's errno.
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// Installs the handler for the process, once. A SIGBUS outside of a run goes on to the earlier handler, or
/// kills the process as before. Early warnings are recorded on any thread.
///
/// # Errors
/// [`Error::Call`] with sigaction's errno.
pub fn install() -> Result<(), Error> {
    let installed = PREVIOUS.get_or_init(|| {
        // SAFETY: a zeroed sigaction is a valid one: default disposition, empty mask.
        let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both point to live structures; the handler is async-signal-safe.
        let both = unsafe {
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) == 0 {
                libc::sigaction(libc::SIGBUS, &ours(), std::ptr::null_mut())
            } else {
                -1
            }
        };
        match both {
            0 => Ok(previous),
            _ => Err(errno()),
        }
    });
    match installed {
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::Call { call: "sigaction(SIGBUS)", errno: *errno }),
    }
}

/// Leaves SIGBUS to the program's own handler, which calls [`handle`] first: from now on neither [`install`]
/// nor [`tell`](crate::tell) and its like install one. Call this before any of them.
pub fn leave_to_program() {
    // `handler`'s action does not matter, because nobody calls it.
    let _ = PREVIOUS.get_or_init(|| Ok(default()));
}

fn ours() -> libc::sigaction {
    let mut ours = default();
    ours.sa_sigaction = handler as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    ours
}

fn default() -> libc::sigaction {
    // SAFETY: a zeroed sigaction is a valid one: default disposition, empty mask.
    unsafe { std::mem::zeroed() }
}

/// Handles SIGBUS for a program with its own handler, which passes the `siginfo_t` here first. Returns true
/// if the signal belonged to a run on this thread, or was an early warning, and is recorded; then let the
/// handler return. Async-signal-safe.
///
/// # Safety
/// `info` must be the pointer that the kernel passed to the SIGBUS handler.
pub unsafe fn handle(info: *const siginfo_t) -> bool {
    // SAFETY: by the caller, `info` points to a whole siginfo_t.
    let code = unsafe { (*info).si_code };
    if code != BUS_MCEERR_AR && code != BUS_MCEERR_AO {
        return false;
    }
    // SAFETY: as above. `si_addr_lsb` is a short after `si_addr`, for which libc's siginfo_t has no name: a
    // 64-bit siginfo_t has its union at 16.
    let (address, lsb) =
        unsafe { ((*info).si_addr() as u64, info.cast::<u8>().add(24).cast::<i16>().read_unaligned()) };
    let packed = pack(address, lsb as u8);
    if code == BUS_MCEERR_AO {
        let _ = EARLY.iter().any(|slot| put(slot, packed));
        return true;
    }
    RECORD.try_with(|record| record.note(packed)).unwrap_or(false)
}

impl Record {
    /// Records the signal if it belongs to a run. A run returns after its first one: a second one is for this
    /// thread's own memory, and would repeat forever.
    fn note(&self, packed: u64) -> bool {
        self.expected.load(Ordering::Relaxed) && put(&self.required, packed)
    }
}

/// Fills the slot; returns true if it was free.
fn put(slot: &AtomicU64, packed: u64) -> bool {
    slot.compare_exchange(0, packed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use crate::copy::recover_from as recover;

/// There is no copy on this architecture.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
unsafe fn recover(_: c_int, _: *mut c_void) -> bool {
    false
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls this with its siginfo_t and ucontext_t.
    let is_done = unsafe { handle(info) || recover((*info).si_code, context) };
    if is_done {
        return;
    }
    let Some(Ok(previous)) = PREVIOUS.get() else { return };
    // SAFETY: the kernel gave all of it, and the disposition, which was registered.
    unsafe { pass_on(previous, signal, info, context) };
}

/// Handles a signal as a disposition says that had been registered for it: calls its function, ignores the signal, or kills
/// the process by it. For a handler that stands before another. Async-signal-safe.
///
/// # Safety
/// The arguments must be what the kernel gave a handler of `signal`, and `to` a disposition that was registered for it, whose
/// function can still be called.
pub unsafe fn pass_on(to: &libc::sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gave it; what was registered is called as it was registered; sigaction and raise are
    // async-signal-safe.
    unsafe {
        let is_fault = (*info).si_code > 0;
        match to.sa_sigaction {
            // A sent signal can be ignored. A fault would repeat forever, so the kernel kills for it.
            libc::SIG_IGN if !is_fault => {}
            libc::SIG_IGN | libc::SIG_DFL => {
                libc::sigaction(signal, &default(), std::ptr::null_mut());
                libc::raise(signal);
            }
            function if to.sa_flags & libc::SA_SIGINFO != 0 => {
                let function: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                    std::mem::transmute(function);
                function(signal, info, context);
            }
            function => {
                let function: extern "C" fn(c_int) = std::mem::transmute(function);
                function(signal);
            }
        }
    }
}

/// Takes a recorded signal: first the memory that a run on this thread was about to consume. Call it after
/// each `KVM_RUN` in [`recording`], until it returns `None`.
pub fn take() -> Option<Signal> {
    let required = RECORD.with(|record| record.required.swap(0, Ordering::Relaxed));
    let early = || EARLY.iter().find_map(|slot| unpack(slot.swap(0, Ordering::Relaxed), false));
    unpack(required, true).or_else(early)
}

/// Calls `run`, which is a `KVM_RUN`, and records SIGBUS of this thread for [`take`].
pub fn recording<T>(run: impl FnOnce() -> T) -> T {
    RECORD.with(|record| {
        record.expected.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = run();
        compiler_fence(Ordering::SeqCst);
        record.expected.store(false, Ordering::Relaxed);
        result
    })
}

/// Calls `act` and swallows SIGBUS of this thread, even if it is blocked; earlier records stay. It is for the
/// VMM's own `madvise(MADV_HWPOISON)`, which signals its caller: the kernel kills a thread that blocks that
/// signal.
pub fn ignoring<T>(act: impl FnOnce() -> T) -> T {
    RECORD.with(|record| {
        let before = record.required.swap(0, Ordering::Relaxed);
        let result = unblocked(|| recording(act));
        record.required.store(before, Ordering::Relaxed);
        result
    })
}

fn unblocked<T>(act: impl FnOnce() -> T) -> T {
    // SAFETY: zeroed signal sets are valid and all of them are ours; the calls change only this thread's
    // mask.
    let before = unsafe {
        let (mut sigbus, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigaddset(&raw mut sigbus, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const sigbus, &raw mut before);
        before
    };
    let result = act();
    // SAFETY: the kernel has filled in `before`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use seawall_lab_machine::send_sigbus;

    use super::*;

    /// Early warnings belong to the process: one test at a time.
    fn installed() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        install().unwrap();
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the signal to this thread. (QEMU's user mode does not survive that: this needs a Linux of its
    /// own, as in the lab.)
    fn send(code: c_int, address: u64, lsb: i16) {
        send_sigbus(code, address, lsb).unwrap();
    }

    fn signal(address: u64, lsb: u8, action_required: bool) -> Signal {
        Signal { address, lsb, action_required }
    }

    #[test]
    fn what_comes_during_a_run_is_taken_once_and_what_was_about_to_be_consumed_comes_first() {
        let _one = installed();
        recording(|| {
            send(BUS_MCEERR_AO, 0xffff_7f6b_4000, 12);
            send(BUS_MCEERR_AR, 0xffff_7f80_0000, 21);
        });
        assert_eq!(take(), Some(signal(0xffff_7f80_0000, 21, true)));
        assert_eq!(take(), Some(signal(0xffff_7f6b_4000, 12, false)));
        assert_eq!(take(), None);
    }

    /// The earlier handler, that of Rust's runtime, would have restored the default.
    #[test]
    fn early_warnings_to_any_thread_at_any_time_are_for_the_next_run() {
        let _one = installed();
        std::thread::spawn(|| send(BUS_MCEERR_AO, 0x1000, 12)).join().unwrap();
        send(BUS_MCEERR_AO, 0x2000, 12);
        recording(|| send(BUS_MCEERR_AR, 0x3000, 12));
        let expected = [signal(0x3000, 12, true), signal(0x1000, 12, false), signal(0x2000, 12, false)];
        assert_eq!([take(), take(), take()], expected.map(Some));
    }

    #[test]
    fn memory_made_bad_on_purpose_is_not_reported_and_what_was_recorded_before_is() {
        let _one = installed();
        recording(|| send(BUS_MCEERR_AR, 0x1000, 12));
        ignoring(|| send(BUS_MCEERR_AR, 0x2000, 12));
        assert_eq!(take(), Some(signal(0x1000, 12, true)));
        assert_eq!(take(), None);
    }

    /// The main thread gets early warnings at any time.
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    #[test]
    fn an_early_warning_during_a_copy_is_kept_and_the_copy_goes_on() {
        let _one = installed();
        // The kernel's arguments for a handler: the siginfo_t of `send_sigbus`, and a context whose PC is in
        // the copy.
        let mut info = [0_u64; 16];
        info[1] = BUS_MCEERR_AO as u32 as u64;
        info[2] = 0x7000;
        info[3] = 12;
        let mut context = crate::copy::context_in_copy();
        let before = crate::copy::is_in_copy(&mut context);
        handler(libc::SIGBUS, info.as_mut_ptr().cast(), (&raw mut context).cast());
        assert!(before && crate::copy::is_in_copy(&mut context), "PC is where it was");
        assert_eq!(take(), Some(signal(0x7000, 12, false)));
        info[1] = BUS_MCEERR_AR as u32 as u64;
        handler(libc::SIGBUS, info.as_mut_ptr().cast(), (&raw mut context).cast());
        assert!(!crate::copy::is_in_copy(&mut context), "the copy met it");
    }

    /// Otherwise the kernel would kill: force_sig of a blocked signal.
    #[test]
    fn memory_can_be_made_bad_on_a_thread_that_blocks_sigbus_and_it_is_blocked_again_after() {
        let _one = installed();
        // SAFETY: a zeroed set is valid, and it is ours.
        let blocked = || unsafe {
            let mut set = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
            libc::sigismember(&raw const set, libc::SIGBUS)
        };
        // SAFETY: as above; only this thread's mask changes.
        unsafe {
            let mut sigbus = std::mem::zeroed();
            libc::sigaddset(&raw mut sigbus, libc::SIGBUS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const sigbus, std::ptr::null_mut());
        }
        assert_eq!(
            ignoring(|| {
                send(BUS_MCEERR_AR, 0x2000, 12);
                blocked()
            }),
            0
        );
        assert_eq!((blocked(), take()), (1, None));
    }

    #[test]
    fn a_signal_is_of_the_whole_page_that_its_address_is_in() {
        assert_eq!(signal(0x7f00_0020_3080, 21, true).range(), 0x7f00_0020_0000..0x7f00_0040_0000);
        assert_eq!(signal(0x1000, 12, false).range(), 0x1000..0x2000);
        assert_eq!(signal(0x1000, 64, false).range(), 0x1000..0x1001);
        assert_eq!(signal(u64::MAX, 12, true).range(), 0xffff_ffff_ffff_f000..u64::MAX);
    }

    /// A second signal in one run is for the thread's own memory: it would repeat forever.
    #[test]
    fn only_the_first_of_a_run_is_of_the_run() {
        let record = Record { expected: AtomicBool::new(false), required: AtomicU64::new(0) };
        assert!(!record.note(pack(0x1000, 12)));
        record.expected.store(true, Ordering::Relaxed);
        assert!(record.note(pack(0x1000, 12)));
        assert!(!record.note(pack(0x1000, 12)));
    }
}
