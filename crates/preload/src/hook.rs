//! Functions in the place of the C library's: `ioctl`, and for the second mode those by which a VMM maps memory, closes
//! files, handles signals and filters system calls.
//!
//! Each is passed on as it came, at the price of a comparison, to the next library's function of its name.

use std::ffi::{CStr, c_int, c_long, c_ulong, c_void};
use std::marker::PhantomData;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libc::{off_t, siginfo_t, size_t};
use seawall_events::wire::KVM_SET_VCPU_EVENTS;
use seawall_wrap::{Calls, Settings, StartError, Wrap};

use crate::vcpu_events::{TRAILING, set_vcpu_events};

/// Containment, in the second mode.
static WRAP: Wrap<Next> = Wrap::new(Next);
/// The second mode is on.
static CONTAINS: AtomicBool = AtomicBool::new(false);

/// Exit codes of a program that must not run: those of `seawall`.
const USAGE: u8 = 2;
const FILE: u8 = 3;
const UNAVAILABLE: u8 = 9;

/// libc declares it variadic. The procedure call standard of aarch64 Linux passes the third argument in the
/// same register either way.
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;
type Mmap = unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
type Munmap = unsafe extern "C" fn(*mut c_void, size_t) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, libc::sighandler_t) -> libc::sighandler_t;
/// Variadic as well, of at most six arguments.
type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// The function of a name behind ours. Other libraries' constructors may come before ours, so it is looked for when it is
/// first needed.
pub(crate) struct Function<F> {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
    of: PhantomData<F>,
}

pub(crate) static IOCTL: Function<Ioctl> = Function::new(c"ioctl");
static MMAP: Function<Mmap> = Function::new(c"mmap");
static MUNMAP: Function<Munmap> = Function::new(c"munmap");
static CLOSE: Function<Close> = Function::new(c"close");
static SIGACTION: Function<Sigaction> = Function::new(c"sigaction");
static SIGNAL: Function<Signal> = Function::new(c"signal");
static SYSCALL: Function<Syscall> = Function::new(c"syscall");

impl<F: Copy> Function<F> {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()), of: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> F {
        let found = self.found.load(Ordering::Relaxed);
        let found = if found.is_null() { self.find() } else { found };
        // SAFETY: it is what the dynamic linker gave for the name, whose type F is.
        unsafe { mem::transmute_copy::<*mut c_void, F>(&found) }
    }

    #[cold]
    #[inline(never)]
    fn find(&self) -> *mut c_void {
        // SAFETY: a C string. The C library has all of these.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// The C library's.
struct Next;

// SAFETY: they are the next library's, by the dynamic linker.
unsafe impl Calls for Next {
    #[inline]
    unsafe fn ioctl(&self, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        unsafe { IOCTL.get()(fd, request, argument) }
    }

    unsafe fn sigaction(
        &self,
        signal: c_int,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
    ) -> c_int {
        // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
        unsafe { SIGACTION.get()(signal, new, old) }
    }
}

fn contains() -> bool {
    CONTAINS.load(Ordering::Relaxed)
}

/// `ioctl(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if contains() {
        // SAFETY: the program's own call, as it made it.
        return unsafe { WRAP.ioctl(fd, request, argument) };
    }
    // The kernel takes 32 bits of it.
    if request as u32 == KVM_SET_VCPU_EVENTS && !IS_OTHER_PROGRAM.load(Ordering::Relaxed) {
        return set_vcpu_events(fd, request, argument);
    }
    // SAFETY: the program's own call, as it made it.
    unsafe { IOCTL.get()(fd, request, argument) }
}

/// `mmap(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    access: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if !contains() {
        // SAFETY: the program's own call, as it made it.
        return unsafe { MMAP.get()(address, length, access, flags, fd, offset) };
    }
    if flags & libc::MAP_FIXED != 0 {
        WRAP.unmapped(address, length);
    }
    // SAFETY: the program's own call, as it made it.
    let mapped = unsafe { MMAP.get()(address, length, access, flags, fd, offset) };
    if flags & libc::MAP_ANONYMOUS == 0 {
        WRAP.mapped(fd, offset, mapped);
    }
    mapped
}

/// `mmap64`, which is the same on 64 bits.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: size_t,
    access: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the program's own arguments, passed on as they came: as sound as its call.
    unsafe { mmap(address, length, access, flags, fd, offset) }
}

/// `munmap(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn munmap(address: *mut c_void, length: size_t) -> c_int {
    if contains() {
        WRAP.unmapped(address, length);
    }
    // SAFETY: the program's own call, as it made it.
    unsafe { MUNMAP.get()(address, length) }
}

/// `close(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(fd: c_int) -> c_int {
    if contains() {
        WRAP.closed(fd);
    }
    // SAFETY: the program's own call, as it made it.
    unsafe { CLOSE.get()(fd) }
}

/// `sigaction(2)`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    if signal == libc::SIGBUS && contains() {
        // SAFETY: the program's own call, as it made it.
        return unsafe { WRAP.sigaction(new, old, on_sigbus) };
    }
    // SAFETY: the program's own call, as it made it.
    unsafe { SIGACTION.get()(signal, new, old) }
}

/// `signal(2)`, as the C library has it: with `SA_RESTART`.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    if signal != libc::SIGBUS || !contains() {
        // SAFETY: the program's own call, as it made it.
        return unsafe { SIGNAL.get()(signal, handler) };
    }
    // SAFETY: zeroed sigactions are such, and both are live; the function is the program's.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = (mem::zeroed(), mem::zeroed());
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        match WRAP.sigaction(&raw const new, &raw mut old, on_sigbus) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}

/// `syscall(2)`: an `ioctl` by its number, and filters for all threads.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
#[allow(clippy::many_single_char_names, reason = "what they are is up to the number")]
pub(crate) unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    const SET_FILTER: usize = libc::SECCOMP_SET_MODE_FILTER as usize;
    const ALL_THREADS: usize = libc::SECCOMP_FILTER_FLAG_TSYNC as usize;
    if number == libc::SYS_ioctl && contains() {
        // SAFETY: the program's own call, as it made it.
        return unsafe { ioctl(a as c_int, b as c_ulong, c as *mut c_void) }.into();
    }
    // SAFETY: the program's own call, as it made it.
    let result = unsafe { SYSCALL.get()(number, a, b, c, d, e, f) };
    if number == libc::SYS_seccomp && result == 0 && a == SET_FILTER && b & ALL_THREADS != 0 && contains() {
        // SAFETY: the kernel has just taken the program there.
        unsafe { WRAP.filtered(c as *const c_void) };
    }
    result
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls it with these.
    unsafe { WRAP.on_sigbus(signal, info, context) };
}

extern "C" fn on_fork() {
    WRAP.forked();
}

/// `SEAWALL` is for another program: this one was started by it.
static IS_OTHER_PROGRAM: AtomicBool = AtomicBool::new(false);

/// The dynamic linker calls it before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = init;

extern "C" fn init() {
    // All that follows could unwind into the dynamic linker.
    let begun = std::panic::catch_unwind(begin);
    if let Err(code) = begun.unwrap_or(Err(UNAVAILABLE)) {
        // SAFETY: the program has not begun, and must not.
        unsafe { libc::_exit(code.into()) };
    }
}

/// An error is the code that the program ends with.
fn begin() -> Result<(), u8> {
    let settings = Settings::from_environment(|name| std::env::var_os(name));
    let settings = settings.map_err(|error| {
        say(&error);
        USAGE
    })?;
    let Some(settings) = settings else {
        layout();
        return Ok(());
    };
    let is_this = |program: &Path| std::env::current_exe().is_ok_and(|this| this == program);
    if !settings.program.as_deref().is_none_or(is_this) {
        IS_OTHER_PROGRAM.store(true, Ordering::Relaxed);
        return Ok(());
    }
    // SAFETY: it closes a desk, and takes no lock.
    unsafe { libc::pthread_atfork(None, None, Some(on_fork)) };
    WRAP.start(settings, on_sigbus).map_err(|error| {
        say(&error);
        match error {
            StartError::File { .. } => FILE,
            StartError::Log(_) => USAGE,
            StartError::System(_) => UNAVAILABLE,
        }
    })?;
    CONTAINS.store(true, Ordering::Relaxed);
    Ok(())
}

/// The first mode's.
fn layout() {
    match std::env::var("SEAWALL_LAYOUT").as_deref() {
        Err(_) | Ok("posted") => {}
        Ok("trailing") => TRAILING.store(true, Ordering::Relaxed),
        Ok(_) => say(&"expected SEAWALL_LAYOUT=posted or =trailing; it is posted"),
    }
}

fn say(text: &dyn std::fmt::Display) {
    let line = format!("libseawall_preload.so: {text}\n");
    // SAFETY: the bytes are there. Nothing is to be done if they cannot be written.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}
