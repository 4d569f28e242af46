//! Brings a thread out of `KVM_RUN` from outside, by a signal.
//!
//! The signal's handler sets `immediate_exit` of the vCPU that its thread runs, so a kick just before
//! `KVM_RUN` is not lost. Source: Linux, Documentation/virt/kvm/api.rst, `immediate_exit`.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence};

use libc::{c_int, c_long, pid_t};

use super::{Error, failed};

/// The handler's data on its thread.
struct Kick {
    asked: AtomicBool,
    /// `kvm_run.immediate_exit` of the vCPU that the thread runs; null outside a run.
    immediate_exit: AtomicPtr<u8>,
}

thread_local! {
    /// It is initialised at compile time and has no destructor, so a signal handler may use it.
    static KICK: Kick =
        const { Kick { asked: AtomicBool::new(false), immediate_exit: AtomicPtr::new(ptr::null_mut()) } };
    static THREAD: Cell<Option<pid_t>> = const { Cell::new(None) };
}

/// A handle that ends the runs of the thread that created it.
#[derive(Clone, Copy, Debug)]
pub struct Kicker {
    thread: pid_t,
}

impl Kicker {
    /// The kicker of the calling thread. It takes the signal `SIGRTMIN + 1` for the process.
    ///
    /// # Errors
    /// [`Error::Ioctl`] with sigaction's errno.
    pub fn of_this_thread() -> Result<Self, Error> {
        install()?;
        let thread = THREAD.get().unwrap_or_else(|| {
            // SAFETY: gettid has no arguments and only reads.
            let thread = unsafe { libc::syscall(libc::SYS_gettid) } as pid_t;
            THREAD.set(Some(thread));
            thread
        });
        Ok(Self { thread })
    }

    /// Ends the thread's current run, or else its next one: with [`Exit::Intr`](seawall_inject::Exit::Intr),
    /// or with an exit that it had anyway. It does nothing if the thread has ended.
    pub fn kick(&self) {
        // SAFETY: tgkill reads none of our memory; the signal has had a handler since the kicker was made.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                c_long::from(libc::getpid()),
                c_long::from(self.thread),
                c_long::from(signal()),
            );
        }
    }
}

fn signal() -> c_int {
    libc::SIGRTMIN() + 1
}

fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: a zeroed sigaction is a valid one: default disposition, empty mask, no SA_RESTART.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = handler as *const () as usize;
        // SAFETY: it points to a live structure; the handler is async-signal-safe.
        match unsafe { libc::sigaction(signal(), &raw const ours, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(vmm_sys_util::errno::Error::last().errno()),
        }
    });
    installed.map_err(|errno| failed("sigaction(SIGRTMIN + 1)")(vmm_sys_util::errno::Error::new(errno)))
}

extern "C" fn handler(_: c_int) {
    let _ = KICK.try_with(|kick| {
        kick.asked.store(true, Ordering::Relaxed);
        let flag = kick.immediate_exit.load(Ordering::Relaxed);
        if !flag.is_null() {
            // SAFETY: not null only while the thread, which this handler interrupts, is in `kickable`, whose
            // caller has the vCPU and so its mapped kvm_run.
            unsafe { flag.write_volatile(1) };
        }
    });
}

/// Calls `run`; a kick ends it by `immediate_exit` of the vCPU that it runs.
///
/// # Safety
/// `immediate_exit` must be that of a `kvm_run` that stays mapped until `run` returns.
pub(super) unsafe fn kickable<T>(immediate_exit: *mut u8, run: impl FnOnce() -> T) -> T {
    KICK.with(|kick| {
        kick.immediate_exit.store(immediate_exit, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if kick.asked.load(Ordering::Relaxed) {
            // SAFETY: kvm_run stays mapped until `run` returns.
            unsafe { immediate_exit.write_volatile(1) };
        }
        let result = run();
        kick.immediate_exit.store(ptr::null_mut(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if kick.asked.swap(false, Ordering::Relaxed) {
            // SAFETY: `run` has only now returned, and kvm_run is still mapped.
            unsafe { immediate_exit.write_volatile(0) };
        }
        result
    })
}
