//! Where threads of the VMM hand over what is to be done by the helper thread, and wait for it.
//!
//! A request lies on its thread's stack, and requests are a list whose head is here: nothing is allocated, and nobody holds a
//! lock. Both sides wait by `futex(2)` with the private operations alone, which filters of VMMs let pass as Rust's and C's
//! own locks need them.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use seawall_events::SeaExit;
use seawall_host::sigbus::Signal;

use crate::calls::errno;
use crate::files::VmId;
use crate::wrap::Once;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A new VM shall tell of its errors.
    NewVm { fd: i32, vm: VmId },
    /// A vCPU came out of its run with this.
    Sea { at: Place, exit: SeaExit },
    /// A vCPU's thread got this.
    Sigbus { at: Place, signal: Signal },
    /// A filter of the VMM's is on all threads, and these of the helper's calls are not in it: bits by their place.
    Filtered { missing: u64 },
    /// This is to be said.
    Say(Once),
}

/// Which vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) fd: i32,
    pub(crate) vm: VmId,
    pub(crate) number: u32,
}

/// What the thread does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It goes on: a vCPU is run again.
    GoOn,
    /// It leaves the error to the VMM.
    Leave,
    /// The guest must not run on.
    Stop,
}

/// An answer, and whether a handler of a signal ran on the thread while it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) was_interrupted: bool,
}

impl Answered {
    const NOBODY: Self = Self { answer: Answer::Leave, was_interrupted: false };
}

const ASKED: u32 = 0;
const GO_ON: u32 = 1;
const LEAVE: u32 = 2;
const STOP: u32 = 3;

struct Request {
    next: AtomicPtr<Request>,
    state: AtomicU32,
    what: What,
}

pub(crate) struct Desk {
    /// Requests that nobody has taken, the last one first.
    head: AtomicPtr<Request>,
    /// Counts them: the helper waits here.
    bell: AtomicU32,
    /// There is a helper in this process.
    is_open: AtomicBool,
}

impl Desk {
    pub(crate) const fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            bell: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// There is a helper from now on; false if there was one.
    pub(crate) fn open(&self) -> bool {
        !self.is_open.swap(true, Ordering::AcqRel)
    }

    /// This process has no helper: it was forked, or none could be made. What its parent's threads asked for is not of here.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        self.head.store(ptr::null_mut(), Ordering::Release);
    }

    /// Asks the helper, and waits. Async-signal-safe.
    pub(crate) fn ask(&self, what: What) -> Answered {
        if !self.is_open() {
            return Answered::NOBODY;
        }
        let request = Request { next: AtomicPtr::new(ptr::null_mut()), state: AtomicU32::new(ASKED), what };
        let pointer = ptr::from_ref(&request).cast_mut();
        let push = |head| {
            request.next.store(head, Ordering::Relaxed);
            Some(pointer)
        };
        let _ = self.head.fetch_update(Ordering::AcqRel, Ordering::Acquire, push);
        self.bell.fetch_add(1, Ordering::Release);
        wake(&self.bell);
        let mut was_interrupted = false;
        loop {
            match request.state.load(Ordering::Acquire) {
                ASKED => was_interrupted |= wait(&request.state, ASKED),
                GO_ON => return Answered { answer: Answer::GoOn, was_interrupted },
                STOP => return Answered { answer: Answer::Stop, was_interrupted },
                _ => return Answered { answer: Answer::Leave, was_interrupted },
            }
        }
    }

    /// The helper's side: serves what was asked for, each in its turn, and then waits for more. `serve` is given what is to be
    /// done, and answers when it likes; if it does not, the error is the VMM's.
    pub(crate) fn serve(&self, mut serve: impl FnMut(What, &mut dyn FnMut(Answer))) {
        let seen = self.bell.load(Ordering::Acquire);
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::AcqRel);
        let mut oldest: *mut Request = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: its thread keeps it until it is answered, and changes nothing of it.
            let request = unsafe { &*newest };
            let next = request.next.swap(oldest, Ordering::Relaxed);
            oldest = newest;
            newest = next;
        }
        if oldest.is_null() {
            wait(&self.bell, seen);
            return;
        }
        while !oldest.is_null() {
            // SAFETY: as above.
            let request = unsafe { &*oldest };
            let state = ptr::from_ref(&request.state);
            // After the answer there may be nothing there.
            oldest = request.next.load(Ordering::Relaxed);
            let mut is_answered = false;
            let mut answer = |answer: Answer| {
                if !std::mem::replace(&mut is_answered, true) {
                    let value = match answer {
                        Answer::GoOn => GO_ON,
                        Answer::Leave => LEAVE,
                        Answer::Stop => STOP,
                    };
                    // SAFETY: as above: it was not answered before.
                    unsafe { (*state).store(value, Ordering::Release) };
                    wake_at(state);
                }
            };
            serve(request.what, &mut answer);
            answer(Answer::Leave);
        }
    }
}

/// Nobody waits so long; a time at all has the kernel come back after a signal's handler, whatever `SA_RESTART` says.
static AN_HOUR: libc::timespec = libc::timespec { tv_sec: 3600, tv_nsec: 0 };

/// Waits until the word may be another. True if a handler of a signal ran meanwhile.
fn wait(word: &AtomicU32, value: u32) -> bool {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel compares the word and reads the time.
    let waited =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, &raw const AN_HOUR) };
    waited == -1 && errno() == libc::EINTR
}

fn wake(word: &AtomicU32) {
    wake_at(word);
}

/// The word may be gone: the kernel looks for waiters by the address alone.
fn wake_at(word: *const AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: nothing is read or written at the address.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, 1) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::thread::JoinHandleExt as _;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn filtered(missing: u64) -> What {
        What::Filtered { missing }
    }

    #[test]
    fn each_of_many_threads_gets_its_own_answer() {
        static DESK: Desk = Desk::new();
        static SERVED: AtomicUsize = AtomicUsize::new(0);
        DESK.open();
        thread::spawn(|| {
            loop {
                DESK.serve(|what, answer| {
                    let What::Filtered { missing } = what else { return };
                    SERVED.fetch_add(1, Ordering::Relaxed);
                    answer(if missing % 3 == 0 { Answer::GoOn } else { Answer::Leave });
                });
            }
        });
        thread::scope(|scope| {
            for thread in 0..8_u64 {
                scope.spawn(move || {
                    for n in 0..2000 {
                        let number = thread * 2000 + n;
                        let expected = if number % 3 == 0 { Answer::GoOn } else { Answer::Leave };
                        assert_eq!(DESK.ask(filtered(number)).answer, expected);
                    }
                });
            }
        });
        assert_eq!(SERVED.load(Ordering::Relaxed), 16_000);
    }

    #[test]
    fn without_a_helper_the_error_is_the_vmms_and_nobody_waits() {
        static DESK: Desk = Desk::new();
        assert_eq!(DESK.ask(filtered(0)), Answered { answer: Answer::Leave, was_interrupted: false });
        assert!(DESK.open() && !DESK.open());
        DESK.close();
        assert_eq!(DESK.ask(filtered(0)).answer, Answer::Leave);
    }

    #[test]
    fn what_the_helper_does_not_answer_is_the_vmms() {
        static DESK: Desk = Desk::new();
        DESK.open();
        thread::spawn(|| {
            loop {
                DESK.serve(|_, _| {});
            }
        });
        assert_eq!(DESK.ask(filtered(3)).answer, Answer::Leave);
    }

    /// A handler with `SA_RESTART`, as VMMs have for the signal by which they call a vCPU back.
    #[test]
    fn a_signal_while_a_thread_waits_is_told_of() {
        static DESK: Desk = Desk::new();
        extern "C" fn handler(_: libc::c_int) {}
        DESK.open();
        // SAFETY: the handler does nothing; a zeroed sigaction is one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
        }
        let asks = thread::spawn(|| DESK.ask(filtered(0)));
        // It waits: its request is there, and it is asleep by the time that the signal was taken.
        while DESK.head.load(Ordering::Acquire).is_null() {
            thread::yield_now();
        }
        for _ in 0..50 {
            // SAFETY: the thread is there: nobody has answered it.
            unsafe { libc::pthread_kill(asks.as_pthread_t(), libc::SIGUSR1) };
            thread::sleep(std::time::Duration::from_millis(2));
        }
        DESK.serve(|_, answer| answer(Answer::GoOn));
        assert_eq!(asks.join().unwrap(), Answered { answer: Answer::GoOn, was_interrupted: true });
    }
}
