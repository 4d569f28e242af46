//! The VMM's own disposition of SIGBUS, behind ours.
//!
//! Ours stands in the kernel from the beginning. What the VMM registers is kept here and given back to it when it asks, and
//! ours takes over its mask and flags.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::siginfo_t;
use seawall_host::sigbus;

/// Words of a `struct sigaction`.
const WORDS: usize = size_of::<libc::sigaction>() / size_of::<u64>();
/// A handler reads the one that was current when it began, while so many others may be registered.
const KEPT: usize = 16;

pub(crate) struct Chain {
    kept: [[AtomicU64; WORDS]; KEPT],
    current: AtomicUsize,
}

impl Chain {
    pub(crate) const fn new() -> Self {
        Self { kept: [const { [const { AtomicU64::new(0) }; WORDS] }; KEPT], current: AtomicUsize::new(0) }
    }

    /// The VMM's, as it registered it.
    pub(crate) fn get(&self) -> libc::sigaction {
        let kept = self.kept.get(self.current.load(Ordering::Acquire) % KEPT);
        let words: [u64; WORDS] = std::array::from_fn(|n| {
            kept.and_then(|kept| kept.get(n)).map_or(0, |word| word.load(Ordering::Relaxed))
        });
        // SAFETY: these are the words of a sigaction, or zeroes: the default, with an empty mask.
        unsafe { std::mem::transmute::<[u64; WORDS], libc::sigaction>(words) }
    }

    /// The VMM registers this.
    pub(crate) fn set(&self, action: &libc::sigaction) {
        let next = self.current.load(Ordering::Relaxed).wrapping_add(1);
        let Some(kept) = self.kept.get(next % KEPT) else { return };
        let from = std::ptr::from_ref(action).cast::<u64>();
        for (n, word) in kept.iter().enumerate() {
            // SAFETY: a sigaction has so many words, and is aligned as a pointer; its padding may be anything, and is read as
            // it is.
            word.store(unsafe { from.add(n).read_volatile() }, Ordering::Relaxed);
        }
        self.current.store(next, Ordering::Release);
    }

    /// The VMM has a function for it.
    pub(crate) fn has_handler(&self) -> bool {
        !matches!(self.get().sa_sigaction, libc::SIG_DFL | libc::SIG_IGN)
    }

    /// Hands a SIGBUS on to the VMM. `kill` puts the default in our place, so that the signal kills.
    ///
    /// # Safety
    /// The arguments must be what the kernel gave the handler.
    pub(crate) unsafe fn pass_on(
        &self,
        (signal, info, context): (c_int, *mut siginfo_t, *mut c_void),
        kill: impl FnOnce(),
    ) {
        let action = self.get();
        // SAFETY: the kernel gave it.
        let is_fault = unsafe { (*info).si_code } > 0;
        if action.sa_sigaction == libc::SIG_DFL || action.sa_sigaction == libc::SIG_IGN && is_fault {
            kill();
            // SAFETY: it is a signal's number.
            unsafe { libc::raise(signal) };
            return;
        }
        if action.sa_flags & libc::SA_RESETHAND != 0 {
            // SAFETY: a zeroed sigaction is the default.
            self.set(&unsafe { std::mem::zeroed() });
        }
        // SAFETY: the caller's; the VMM registered it.
        unsafe { sigbus::pass_on(&action, signal, info, context) };
    }
}

/// What the kernel is given in the place of the VMM's: our function, with the mask and the flags of the VMM's.
pub(crate) fn ours(theirs: &libc::sigaction, function: usize) -> libc::sigaction {
    let mut ours = *theirs;
    ours.sa_sigaction = function;
    let is_function = !matches!(theirs.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    ours.sa_flags = if is_function {
        theirs.sa_flags & !libc::SA_RESETHAND | libc::SA_SIGINFO
    } else {
        libc::SA_SIGINFO | libc::SA_ONSTACK
    };
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(function: usize, flags: c_int) -> libc::sigaction {
        // SAFETY: a zeroed sigaction is one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = function;
        action.sa_flags = flags;
        action
    }

    #[test]
    fn the_vmm_gets_back_what_it_registered_and_the_kernel_gets_ours_with_its_flags() {
        let chain = Chain::new();
        assert!(!chain.has_handler());
        assert_eq!(chain.get().sa_sigaction, libc::SIG_DFL);
        for n in 0..40 {
            let mut theirs = action(0x1000 + n, libc::SA_RESTART | libc::SA_RESETHAND);
            // SAFETY: the set is ours.
            unsafe { libc::sigaddset(&raw mut theirs.sa_mask, libc::SIGUSR1) };
            chain.set(&theirs);
            let got = chain.get();
            assert_eq!((got.sa_sigaction, got.sa_flags), (0x1000 + n, theirs.sa_flags));
            // SAFETY: the set is one.
            assert_eq!(unsafe { libc::sigismember(&raw const got.sa_mask, libc::SIGUSR1) }, 1);
        }
        assert!(chain.has_handler());
        let ours = ours(&chain.get(), 0x77);
        assert_eq!((ours.sa_sigaction, ours.sa_flags), (0x77, libc::SA_RESTART | libc::SA_SIGINFO));
        chain.set(&action(libc::SIG_IGN, 0));
        assert!(!chain.has_handler());
    }

    #[test]
    fn a_handler_for_once_is_called_once() {
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn handler(signal: c_int) {
            CALLED.fetch_add(signal as usize, Ordering::Relaxed);
        }
        let chain = Chain::new();
        chain.set(&action(handler as *const () as usize, libc::SA_RESETHAND));
        // SAFETY: zeroes are a siginfo_t.
        let mut info: siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as the kernel would call it; the handler looks at the number alone.
        unsafe {
            chain.pass_on((libc::SIGBUS, &raw mut info, std::ptr::null_mut()), || panic!("not called"));
        };
        assert_eq!(CALLED.load(Ordering::Relaxed), libc::SIGBUS as usize);
        assert_eq!(chain.get().sa_sigaction, libc::SIG_DFL);
    }
}
