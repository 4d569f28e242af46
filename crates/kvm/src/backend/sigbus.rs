//! SIGBUS on a vCPU's thread: recorded by a handler that does nothing else, and reported by the run.
//!
//! Source: sigaction(2), `BUS_MCEERR_AR` and `BUS_MCEERR_AO`; Linux `mm/memory-failure.c`, `kvm_send_hwpoison_signal`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, compiler_fence};

use libc::{c_int, c_void, siginfo_t};
use seawall_events::SigbusExit;

use super::{Error, failed};

/// `si_code`: the thread was about to consume the memory.
const BUS_MCEERR_AR: c_int = 4;
/// `si_code`: an early warning.
const BUS_MCEERR_AO: c_int = 5;

/// What the handler leaves for the thread that it interrupted.
struct Record {
    /// The thread is in a run, or asked for the memory to be made bad.
    expected: AtomicBool,
    present: AtomicBool,
    address: AtomicU64,
    lsb: AtomicU8,
    action_required: AtomicBool,
}

thread_local! {
    /// Initialised at compile time and without a destructor: a signal handler may use it.
    static RECORD: Record = const {
        Record {
            expected: AtomicBool::new(false),
            present: AtomicBool::new(false),
            address: AtomicU64::new(0),
            lsb: AtomicU8::new(0),
            action_required: AtomicBool::new(false),
        }
    };
}

/// The disposition that was there before ours, or sigaction's errno.
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// Installs the handler for the process, once. A SIGBUS that is not of a run goes on to the handler that
/// was there before, or kills the process as it would have.
///
/// # Errors
/// [`Error::Ioctl`] with sigaction's errno.
pub fn install() -> Result<(), Error> {
    let installed = PREVIOUS.get_or_init(|| {
        // SAFETY: a zeroed sigaction is a valid one: default disposition, empty mask.
        let (mut previous, mut ours): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to live structures; the handler is async-signal-safe.
        let both = unsafe {
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) == 0 {
                libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut())
            } else {
                -1
            }
        };
        match both {
            0 => Ok(previous),
            _ => Err(vmm_sys_util::errno::Error::last().errno()),
        }
    });
    match installed {
        Ok(_) => Ok(()),
        Err(errno) => Err(failed("sigaction(SIGBUS)")(vmm_sys_util::errno::Error::new(*errno))),
    }
}

/// For a program that has a SIGBUS handler of its own: give it the `siginfo_t` first. True if it was of a
/// run on this thread and is recorded; the handler shall return then. Async-signal-safe.
///
/// # Safety
/// `info` must be what the kernel gave the handler of SIGBUS.
pub unsafe fn handle(info: *const siginfo_t) -> bool {
    // SAFETY: by the caller, `info` points to a whole siginfo_t.
    let code = unsafe { (*info).si_code };
    if code != BUS_MCEERR_AR && code != BUS_MCEERR_AO {
        return false;
    }
    // SAFETY: as above. `si_addr_lsb` is a short behind `si_addr`, which libc's siginfo_t has no name for:
    // a 64-bit siginfo_t has its union at 16.
    let (address, lsb) =
        unsafe { ((*info).si_addr() as u64, info.cast::<u8>().add(24).cast::<i16>().read_unaligned()) };
    RECORD
        .try_with(|record| {
            if !record.expected.load(Ordering::Relaxed) {
                return false;
            }
            // An error that is there already is not lost to an early warning.
            let keep =
                record.present.load(Ordering::Relaxed) && record.action_required.load(Ordering::Relaxed);
            if !keep {
                record.address.store(address, Ordering::Relaxed);
                record.lsb.store(lsb as u8, Ordering::Relaxed);
                record.action_required.store(code == BUS_MCEERR_AR, Ordering::Relaxed);
                record.present.store(true, Ordering::Release);
            }
            true
        })
        .unwrap_or(false)
}

extern "C" fn handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls this with its siginfo_t.
    if unsafe { handle(info) } {
        return;
    }
    let Some(Ok(previous)) = PREVIOUS.get() else { return };
    // SAFETY: what was registered is called as it was registered;
    // sigaction and raise are async-signal-safe.
    unsafe {
        match previous.sa_sigaction {
            libc::SIG_IGN => {}
            libc::SIG_DFL => {
                libc::sigaction(signal, previous, std::ptr::null_mut());
                libc::raise(signal);
            }
            function if previous.sa_flags & libc::SA_SIGINFO != 0 => {
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

/// What was recorded on this thread, once.
pub(super) fn take() -> Option<SigbusExit> {
    RECORD.with(|record| {
        record.present.swap(false, Ordering::Acquire).then(|| SigbusExit {
            address: record.address.load(Ordering::Relaxed),
            lsb: record.lsb.load(Ordering::Relaxed),
            action_required: record.action_required.load(Ordering::Relaxed),
        })
    })
}

/// Runs `run` with SIGBUS of this thread recorded.
pub(super) fn recording<T>(run: impl FnOnce() -> T) -> T {
    RECORD.with(|record| {
        record.expected.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = run();
        compiler_fence(Ordering::SeqCst);
        record.expected.store(false, Ordering::Relaxed);
        result
    })
}

/// Runs `act` with SIGBUS of this thread swallowed; what was recorded before stays.
pub(super) fn ignoring<T>(act: impl FnOnce() -> T) -> T {
    let before = take();
    let result = recording(act);
    take();
    if let Some(sigbus) = before {
        RECORD.with(|record| {
            record.address.store(sigbus.address, Ordering::Relaxed);
            record.lsb.store(sigbus.lsb, Ordering::Relaxed);
            record.action_required.store(sigbus.action_required, Ordering::Relaxed);
            record.present.store(true, Ordering::Release);
        });
    }
    result
}
