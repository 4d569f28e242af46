//! The VMM.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};
use std::{fs, ptr, thread};

use kvm_bindings::{KVM_API_VERSION, kvm_userspace_memory_region, kvm_vcpu_init};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::guest::{DEVICE, program};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Where RAM begins.
const BASE: u64 = 0x4000_0000;
const KVM_RUN: u64 = 0xae80;
/// `KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE`, `regs.pc` in words of 4 bytes.
const PC: u64 = 0x6030_0000_0010_0040;
/// More of them are counted.
const SHOWN: u64 = 16;

/// The guest's memory.
struct Memory {
    host: u64,
    size: u64,
}

impl Memory {
    fn map(path: &str) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, where the kernel likes.
        let host = unsafe {
            libc::mmap(ptr::null_mut(), size as usize, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if host == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let program = program();
        // SAFETY: the mapping is larger than the program, and nobody else's.
        unsafe { ptr::copy_nonoverlapping(program.as_ptr(), host.cast(), program.len()) };
        Ok(Self { host: host as u64, size })
    }
}

/// A VM that is about to run its guest.
fn boot(kvm: &Kvm, memory: &Memory) -> Result<(VmFd, VcpuFd)> {
    let vm = kvm.create_vm()?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: BASE,
        memory_size: memory.size,
        userspace_addr: memory.host,
    };
    // SAFETY: the memory stays mapped as long as the process.
    unsafe { vm.set_user_memory_region(region)? };
    let vcpu = vm.create_vcpu(0)?;
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target)?;
    vcpu.vcpu_init(&target)?;
    vcpu.set_one_reg(PC, &BASE.to_le_bytes())?;
    Ok((vm, vcpu))
}

/// What the guest is to load from.
#[derive(Clone, Copy)]
struct Loads {
    first: u64,
    count: u64,
    step: u64,
    /// Nothing is told of them.
    is_silent: bool,
}

/// Loads that are timed at once: so few that some of them come between two of the host's other tasks.
const BATCH: u64 = 32;

/// Runs the guest to its end. Gives how many loads were done, how many aborted, and how long the quickest [`BATCH`] took.
fn run(vcpu: &mut VcpuFd, loads: Loads) -> Result<(u64, u64, Duration)> {
    let (mut asked, mut good, mut bad, mut far) = (0, 0, 0, 0);
    let (mut best, mut since) = (Duration::MAX, Instant::now());
    let address = |number: u64| loads.first + (number - 1) * loads.step;
    let is_shown = loads.count <= SHOWN && !loads.is_silent;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::MmioRead(DEVICE, data)) => {
                asked += 1;
                let next = if asked > loads.count { 0 } else { address(asked) };
                data.copy_from_slice(next.to_le_bytes().get(..data.len()).unwrap_or_default());
                if next == 0 {
                    return Ok((good, bad, best));
                }
                if asked % BATCH == 0 {
                    let now = Instant::now();
                    best = best.min(now.duration_since(since));
                    since = now;
                }
            }
            Ok(VcpuExit::MmioWrite(at, data)) => {
                let mut value = [0; 8];
                value.get_mut(..data.len()).unwrap_or_default().copy_from_slice(data);
                let value = u64::from_le_bytes(value);
                match at - DEVICE {
                    0x08 => {
                        good += 1;
                        if is_shown {
                            println!("load {:#x}: {value:#x}", address(asked));
                        }
                    }
                    0x10 => {
                        bad += 1;
                        if is_shown {
                            println!("abort {:#x}: ESR {value:#x} FAR {far:#x}", address(asked));
                        }
                    }
                    _ => far = value,
                }
            }
            Ok(exit) => return Err(format!("an exit that is not known: {exit:?}").into()),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(format!("KVM_RUN: {error}").into()),
        }
    }
}

/// A vCPU's thread may run it, and do what the C library and Rust's need. All else kills the process.
fn filter() -> Result<BpfProgram> {
    let is_run = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, KVM_RUN)?;
    let mut rules = BTreeMap::from([(libc::SYS_ioctl, vec![SeccompRule::new(vec![is_run])?])]);
    for call in [
        libc::SYS_futex,
        libc::SYS_write,
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
    ] {
        rules.insert(call, vec![]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()?)
}

/// On a thread of its own, under the filter. The vCPU is given back: `close` is none of that thread's calls.
fn run_filtered(mut vcpu: VcpuFd, loads: Loads) -> Result<(VcpuFd, (u64, u64))> {
    let filter = filter()?;
    let thread = thread::spawn(move || {
        seccompiler::apply_filter(&filter)?;
        let (good, bad, _) = run(&mut vcpu, loads)?;
        Ok::<_, Box<dyn Error + Send + Sync>>((vcpu, (good, bad)))
    });
    thread.join().map_err(|_| "the vCPU's thread panicked")?
}

/// Open files, and KiB in memory.
fn tell_resources() -> Result<()> {
    let files = fs::read_dir("/proc/self/fd")?.count();
    let status = fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    println!("files {files} memory {}", memory.trim().trim_end_matches(" kB"));
    Ok(())
}

fn number(words: &[String], place: usize) -> Result<u64> {
    let word = words.get(place).ok_or("expected another number")?;
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.map_err(|error| format!("{word}: {error}").into())
}

/// Does what it is told.
pub(crate) fn work(words: &[String]) -> Result<()> {
    let [path, act, ..] = words else { return Err("expected FILE loads|vms|exits ...".into()) };
    // Rust's runtime has a handler, which only tells an overflow of the stack from what kills.
    // SAFETY: it is the default.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    let kvm = Kvm::new()?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err("another version of KVM".into());
    }
    let memory = Memory::map(path)?;
    match act.as_str() {
        "loads" => {
            let loads = Loads {
                first: number(words, 2)?,
                count: number(words, 3)?,
                step: number(words, 4)?,
                is_silent: false,
            };
            let (_vm, vcpu) = boot(&kvm, &memory)?;
            tell_resources()?;
            let (_vcpu, (good, bad)) = run_filtered(vcpu, loads)?;
            tell_resources()?;
            println!("{good} loaded, {bad} aborted");
        }
        "vms" => {
            let loads = Loads { first: number(words, 2)?, count: 1, step: 0, is_silent: true };
            let (mut good, mut bad) = (0, 0);
            for vm in 0..number(words, 3)? {
                // After the first few what stays is there.
                if vm == 16 {
                    tell_resources()?;
                }
                let (_vm, vcpu) = boot(&kvm, &memory)?;
                let (_vcpu, done) = run_filtered(vcpu, loads)?;
                (good, bad) = (good + done.0, bad + done.1);
            }
            tell_resources()?;
            println!("{good} loaded, {bad} aborted");
        }
        "exits" => {
            let count = number(words, 2)?;
            // Any VMM has several threads, and to Linux a call on a file is a longer one then: fdget().
            thread::spawn(thread::park);
            let loads = Loads { first: BASE, count: count / 2, step: 0, is_silent: true };
            let (_vm, mut vcpu) = boot(&kvm, &memory)?;
            let (.., best) = run(&mut vcpu, loads)?;
            // A load is two exits: the guest asks, and tells.
            println!("{} exits in ns {}", 2 * BATCH, best.as_nanos());
        }
        other => return Err(format!("expected loads, vms or exits, got {other}").into()),
    }
    println!("end");
    Ok(())
}
