//! `seawall-lab-victim NAME load|spin [FILE]`, `seawall-lab-victim NAME fetch`: a process for a Linux guest,
//! which asks on its console for bad memory under itself and reports the result. It needs root, for
//! /proc/self/pagemap.
//!
//! `load` reads a page again and again, and lets other processes run in between; `spin` does not let them.
//! The page is anonymous, or a page of FILE, shared by all processes that map it. `fetch` calls a function
//! that is alone in a page of this program's file.
//!
//! | line | when |
//! |---|---|
//! | `NAME: bad memory please: 0xX` | the guest physical address of a line of that page |
//! | `NAME: SIGBUS si_code=N si_addr=0xX lsb=N page=0xX` | SIGBUS came; `page` is the page's address in this process |
//! | `NAME: right N times, at 0xX, then at 0xX` | `fetch`: no SIGBUS; the old and the new address of the function's page |
//! | `NAME: nothing happened` | none of these, for a while |
//!
//! Exit codes: 0 it went on, 1 nothing happened, or a wrong result, 3 SIGBUS.
//!
//! Source of `siginfo_t`: sigaction(2); Linux, include/uapi/asm-generic/siginfo.h.

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod victim {
    use std::error::Error;
    use std::ffi::{c_int, c_void};
    use std::fmt::Write as _;
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::FileExt as _;
    use std::process::ExitCode;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    const PAGE: u64 = 4096;
    /// Offset in the page of a line without other uses.
    const OFFSET: u64 = 2048;
    /// The value of every word of the page.
    const WORD: u64 = 0x5ea_3a11;
    /// The longest wait for SIGBUS.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// The time for calls of a function that Linux may read again from disk.
    const CALLS: Duration = Duration::from_secs(1);
    /// The pause between two batches of loads, if other processes are to run.
    const PAUSE: Duration = Duration::from_millis(1);
    /// Loads or calls between two checks of the clock.
    const BATCH: u64 = 256;
    const SIGBUS_CAME: c_int = 3;

    // The sum of 1 to x0, by adding, alone in its page.
    std::arch::global_asm!(
        ".pushsection .text.seawall_lab_sum, \"ax\", %progbits",
        ".balign 4096",
        ".global seawall_lab_sum",
        "seawall_lab_sum:",
        "mov x1, #0",
        "2: add x1, x1, x0",
        "subs x0, x0, #1",
        "b.ne 2b",
        "mov x0, x1",
        "ret",
        ".balign 4096",
        ".popsection",
    );

    unsafe extern "C" {
        fn seawall_lab_sum(to: u64) -> u64;
    }

    fn sum(to: u64) -> u64 {
        // SAFETY: it changes only x0, x1 and flags, and ends for any number but 0.
        unsafe { seawall_lab_sum(to.max(1)) }
    }

    /// The process's name, for the handler.
    static NAME: OnceLock<String> = OnceLock::new();
    static TARGET: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn main() -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (name, done) = match words[..] {
            [name, "load"] => (name, prepare(name).and_then(|()| load(name, None, false))),
            [name, "load", file] => (name, prepare(name).and_then(|()| load(name, Some(file), false))),
            [name, "spin", file] => (name, prepare(name).and_then(|()| load(name, Some(file), true))),
            [name, "fetch"] => (name, prepare(name).and_then(|()| fetch(name))),
            _ => ("usage", Err("seawall-lab-victim NAME load|spin|fetch [FILE]".into())),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{name}: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn prepare(name: &str) -> Result<(), Box<dyn Error>> {
        let _ = NAME.set(name.to_owned());
        // SAFETY: a zeroed sigaction is a valid one.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the structure lives; the handler calls nothing but write and _exit.
        match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    /// A line under construction, without an allocation.
    struct Line {
        bytes: [u8; 256],
        length: usize,
    }

    impl std::fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let end = self.length + text.len();
            let room = self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?;
            room.copy_from_slice(text.as_bytes());
            self.length = end;
            Ok(())
        }
    }

    extern "C" fn on_sigbus(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel passes a whole siginfo_t. `si_addr_lsb` is a short after `si_addr`, at 24.
        let (code, address, lsb) = unsafe {
            let lsb = info.cast::<u8>().add(24).cast::<i16>().read_unaligned();
            ((*info).si_code, (*info).si_addr() as u64, lsb)
        };
        // Only memory errors have it.
        let lsb = if code == 4 || code == 5 { lsb } else { 0 };
        let name = NAME.get().map_or("", String::as_str);
        let page = TARGET.load(Ordering::Relaxed);
        let mut line = Line { bytes: [0; 256], length: 0 };
        let _ = writeln!(line, "{name}: SIGBUS si_code={code} si_addr={address:#x} lsb={lsb} page={page:#x}");
        // SAFETY: both are async-signal-safe, and the bytes are valid.
        unsafe {
            libc::write(1, line.bytes.as_ptr().cast(), line.length);
            libc::_exit(SIGBUS_CAME);
        }
    }

    /// Asks for bad memory at this address, which must be in a present page. It returns once the whole line
    /// is written.
    fn ask(name: &str, address: u64) -> Result<u64, Box<dyn Error>> {
        TARGET.store(address & !(PAGE - 1), Ordering::Relaxed);
        let physical = physical(address)?;
        println!("{name}: bad memory please: {physical:#x}");
        // SAFETY: it waits until the terminal has written everything, and touches no memory.
        unsafe { libc::tcdrain(1) };
        Ok(physical)
    }

    fn load(name: &str, file: Option<&str>, spins: bool) -> Result<(), Box<dyn Error>> {
        let page = map(file)?;
        for word in 0..PAGE / 8 {
            // SAFETY: inside the page, which was mapped writable.
            unsafe { (page as *mut u64).add(word as usize).write_volatile(WORD) };
        }
        let address = page + OFFSET;
        ask(name, address)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for _ in 0..BATCH {
                // SAFETY: inside the page.
                let word = unsafe { (address as *const u64).read_volatile() };
                if word != WORD {
                    return Err(format!("expected {WORD:#x}, got {word:#x}").into());
                }
            }
            if !spins {
                std::thread::sleep(PAUSE);
            }
        }
        Err("nothing happened".into())
    }

    fn fetch(name: &str) -> Result<(), Box<dyn Error>> {
        let address = seawall_lab_sum as *const () as u64;
        if sum(1) != 1 {
            return Err("the sum is wrong".into());
        }
        let before = ask(name, address)?;
        let start = Instant::now();
        let mut calls = 0;
        while start.elapsed() < CALLS {
            for to in 1..=BATCH {
                let (got, expected) = (sum(to), to * (to + 1) / 2);
                if got != expected {
                    return Err(format!("expected {expected}, got {got}").into());
                }
                calls += 1;
            }
        }
        println!("{name}: right {calls} times, at {before:#x}, then at {:#x}", physical(address)?);
        Ok(())
    }

    /// A new page of anonymous memory, or of a file.
    fn map(file: Option<&str>) -> Result<u64, Box<dyn Error>> {
        let file = file.map(|path| -> std::io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.set_len(PAGE)?;
            Ok(file)
        });
        let file = file.transpose()?;
        let (flags, descriptor) = match &file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE as usize, access, flags, descriptor, 0) };
        if page == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(page as u64)
    }

    /// The physical address behind an address: Linux, Documentation/admin-guide/mm/pagemap.rst.
    fn physical(address: u64) -> Result<u64, Box<dyn Error>> {
        const PRESENT: u64 = 1 << 63;
        const FRAME: u64 = (1 << 55) - 1;
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, address / PAGE * 8)?;
        let entry = u64::from_le_bytes(entry);
        if entry & PRESENT == 0 || entry & FRAME == 0 {
            return Err(format!("no page is known behind {address:#x}: expected root").into());
        }
        Ok((entry & FRAME) * PAGE + address % PAGE)
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    victim::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("seawall-lab-victim: not available here: expected a program built for aarch64 Linux");
    std::process::ExitCode::from(2)
}
