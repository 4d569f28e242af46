//! SIGBUS reaches a vCPU's thread while it is in KVM_RUN, sets events, and reads and writes registers.
//!
//! The signals are early warnings (`BUS_MCEERR_AO`) of the kernel's own: the host is told that pages of the
//! guest are bad, and with `vm.memory_failure_early_kill` it warns the process's main thread, which runs the
//! vCPU here.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::disable_transparent_huge_pages;
use seawall_events::{Reg, VcpuEvents};
use seawall_inject::{Exit, Inject as _, SigbusExit, Vcpu as _};
use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap, Kvm, Vcpu, VmConfig};
use seawall_lab_machine::{physical_address, send_sigbus};

use crate::linux::text;
use crate::report::{Verdict, expect};

const RAM: u64 = 0x4000_0000;
const SIZE: usize = 4 << 20;
/// The pages that go bad, one after the other; the guest does not touch them.
const PAGES: u64 = RAM + (1 << 20);
const PAGE: u64 = 4096;
/// An address without memory: a store to it is an exit.
const DEVICE: u64 = 0x0900_0000;
/// EL1h, everything masked.
const PSTATE: u64 = 0x3c5;
/// 1: mov x1, #2000; 2: subs x1, x1, #1; b.ne 2b; add x0, x0, #1; str x0, [x2]; b 1b
const CODE: [u32; 6] = [0xd280fa01, 0xf1000421, 0x54ffffe1, 0x91000400, 0xf9000040, 0x17fffffb];

const BUS_MCEERR_AO: i32 = 5;
const SIGNALS: u64 = 200;
/// Linux, Documentation/ABI/testing/sysfs-memory-page-offline: the page with this physical address has failed.
const FAILED_PAGE: &str = "/sys/devices/system/memory/hard_offline_page";
/// Linux, Documentation/admin-guide/sysctl/vm.rst: the owner of a page is told before it touches the page.
const EARLY: &str = "/proc/sys/vm/memory_failure_early_kill";
/// The number of warnings that wait for a run to report them; further ones are lost.
const SLOTS: u64 = 8;
/// Nothing is pending; an SError could have an ESR, because the host has RAS (KVM,
/// `__kvm_arm_vcpu_get_events`).
const NOTHING: VcpuEvents = VcpuEvents {
    serror_pending: false,
    serror_has_esr: true,
    ext_dabt_pending: false,
    ext_iabt_pending: false,
    ext_abt_has_esr: false,
    serror_esr: 0,
    ext_abt_esr: 0,
};
/// The time limit for the report of one signal.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time limit for the whole scenario.
const LIMIT: Duration = Duration::from_secs(120);

/// State of both threads.
#[derive(Default)]
struct Shared {
    /// The number of reported signals.
    reported: AtomicU64,
    done: AtomicBool,
}

/// The vCPU, and its expected results.
struct Looper<'a> {
    vcpu: Vcpu,
    shared: &'a Shared,
    /// The address of the bad pages in this process.
    pages: u64,
    /// The guest's count.
    stores: u64,
    rounds: u64,
}

pub(super) fn run() -> Verdict {
    // The kernel splits a huge page before it takes a part of it out of use. While KVM maps memory for the
    // guest it holds the huge page for a moment; a split then fails, and the write to `FAILED_PAGE` fails
    // with EHWPOISON (133).
    disable_transparent_huge_pages(true).map_err(text)?;
    let verdict = run_on_small_pages();
    disable_transparent_huge_pages(false).map_err(text)?;
    verdict
}

fn run_on_small_pages() -> Verdict {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), SIZE)]).map_err(text)?;
    let code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&code, GuestAddress(RAM)).map_err(text)?;
    for page in (PAGES..).step_by(PAGE as usize).take(SIGNALS as usize) {
        memory.write_slice(&[1], GuestAddress(page)).map_err(text)?;
    }
    let vm = Kvm::open().and_then(|kvm| kvm.create_vm(memory, VmConfig::default())).map_err(text)?;
    let mut vcpu = vm.create_vcpu(0).map_err(text)?;
    for (reg, value) in [(Reg::Pc, RAM), (Reg::Pstate, PSTATE), (Reg::X(2), DEVICE)] {
        vcpu.set_reg(reg, value).map_err(text)?;
    }
    let pages = vm.host_address(PAGES, SIGNALS * PAGE).map_err(text)? as u64;
    let shared = Shared::default();
    let mut looper = Looper { vcpu, shared: &shared, pages, stores: 0, rounds: 0 };
    fs::write(EARLY, "1").map_err(|error| format!("{EARLY}: {error}"))?;
    let (sent, looped) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = fail_all(&shared, pages);
            shared.done.store(true, Ordering::SeqCst);
            sent
        });
        let looped = looper.run();
        // The sender then waits for nobody.
        shared.done.store(true, Ordering::SeqCst);
        (sender.join().unwrap_or_else(|_| Err("the sender panicked".to_owned())), looped)
    });
    fs::write(EARLY, "0").map_err(|error| format!("{EARLY}: {error}"))?;
    looped?;
    sent?;
    expect("signals reported", &shared.reported.load(Ordering::SeqCst), &SIGNALS)?;
    let rounds = looper.rounds;
    looper.overflow()?;
    Ok(format!(
        "{SIGNALS} pages failed under KVM_RUN, KVM_SET_VCPU_EVENTS, KVM_SET_ONE_REG, KVM_GET_ONE_REG in a loop: all \
         reported, in order; {rounds} rounds, each result right; of 9 at once 8"
    ))
}

/// Makes one page after the other fail, at times unknown to the vCPU's thread; the next one fails once the
/// last was reported.
fn fail_all(shared: &Shared, pages: u64) -> Result<(), String> {
    for n in 0..SIGNALS {
        let physical = physical_address(pages + n * PAGE).map_err(text)?;
        fs::write(FAILED_PAGE, format!("{physical:#x}"))
            .map_err(|error| format!("{FAILED_PAGE}: {error}"))?;
        wait(shared, |shared| shared.reported.load(Ordering::SeqCst) > n)
            .map_err(|error| format!("page {n}: {error}"))?;
    }
    Ok(())
}

fn wait(shared: &Shared, is_so: impl Fn(&Shared) -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !is_so(shared) {
        if shared.done.load(Ordering::SeqCst) {
            return Err("the vCPU's thread ended".to_owned());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("not reported within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

impl Looper<'_> {
    fn run(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while !self.shared.done.load(Ordering::SeqCst) {
            self.round().map_err(|error| format!("round {}: {error}", self.rounds))?;
            if start.elapsed() > LIMIT {
                return Err(format!("expected all signals within {LIMIT:?}"));
            }
        }
        Ok(())
    }

    /// Runs to the guest's next store; then makes each of the other calls, several times.
    fn round(&mut self) -> Result<(), String> {
        loop {
            match self.vcpu.run().map_err(text)? {
                Exit::Mmio(mmio) if mmio.is_write && mmio.phys_addr == DEVICE => {
                    self.stores += 1;
                    expect("what the guest stores", &u64::from_le_bytes(mmio.data), &self.stores)?;
                    break;
                }
                Exit::Sigbus(sigbus) => {
                    let n = self.shared.reported.load(Ordering::SeqCst);
                    let expected =
                        SigbusExit { address: self.pages + n * PAGE, lsb: 12, action_required: false };
                    expect("the signal reported", &sigbus, &expected)?;
                    self.shared.reported.store(n + 1, Ordering::SeqCst);
                }
                Exit::Intr => {}
                other => return Err(format!("expected a store or a signal, got {other:x?}")),
            }
        }
        self.rounds += 1;
        for n in 0..8 {
            let value = self.rounds << 8 | n;
            self.vcpu.inject(&VcpuEvents::default()).map_err(text)?;
            self.vcpu.set_reg(Reg::X(5), value).map_err(text)?;
            expect("X5", &self.vcpu.reg(Reg::X(5)).map_err(text)?, &value)?;
            expect("X0", &self.vcpu.reg(Reg::X(0)).map_err(text)?, &self.stores)?;
            expect("events", &self.vcpu.events().map_err(text)?, &NOTHING)?;
        }
        Ok(())
    }

    /// Sends one more than there are slots, between two runs: the documented number is reported, in order,
    /// and the last is lost.
    fn overflow(&mut self) -> Result<(), String> {
        let page = |n| self.pages + n * PAGE;
        for n in 0..=SLOTS {
            send_sigbus(BUS_MCEERR_AO, page(n), 12).map_err(text)?;
        }
        let mut reported = Vec::new();
        loop {
            match self.vcpu.run().map_err(text)? {
                Exit::Sigbus(sigbus) => reported.push(sigbus.address),
                Exit::Intr => {}
                Exit::Mmio(_) => break,
                other => return Err(format!("expected a store or a signal, got {other:x?}")),
            }
        }
        expect("signals reported of 9 at once", &reported, &(0..SLOTS).map(page).collect())
    }
}
