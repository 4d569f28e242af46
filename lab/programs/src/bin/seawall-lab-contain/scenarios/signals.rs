//! SIGBUS comes to a vCPU's thread while it is in KVM_RUN, sets events, and reads and writes registers.
//!
//! What is sent are early warnings (`BUS_MCEERR_AO`), which are to be reported whenever they come; a `BUS_MCEERR_AR` outside of
//! a run is of the thread's own memory, and is not ours.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use seawall_events::{Exit, Reg, SigbusExit, Vcpu as _, VcpuEvents};
use seawall_kvm::lab::{send_sigbus, this_thread};
use seawall_kvm::{Bytes as _, Config, GuestAddress, GuestMemoryMmap, Kvm, Vcpu};

use crate::linux::text;
use crate::report::{Verdict, expect};

const RAM: u64 = 0x4000_0000;
const SIZE: usize = 1 << 20;
/// No memory: a store to it is an exit.
const DEVICE: u64 = 0x0900_0000;
/// EL1h, everything masked.
const PSTATE: u64 = 0x3c5;
/// 1: mov x1, #2000; 2: subs x1, x1, #1; b.ne 2b; add x0, x0, #1; str x0, [x2]; b 1b
const CODE: [u32; 6] = [0xd280fa01, 0xf1000421, 0x54ffffe1, 0x91000400, 0xf9000040, 0x17fffffb];

const BUS_MCEERR_AO: i32 = 5;
/// How many are sent under each of [`CALLS`].
const SIGNALS: u64 = 200;
/// What the thread is in; its number is told to the sender.
const CALLS: [&str; 4] = ["KVM_RUN", "KVM_SET_VCPU_EVENTS", "KVM_SET_ONE_REG", "KVM_GET_ONE_REG"];
/// Warnings that no run has reported yet; more are lost.
const SLOTS: u64 = 8;
/// Nothing is pending; an SError could have an ESR, as the host has RAS (KVM, `__kvm_arm_vcpu_get_events`).
const NOTHING: VcpuEvents = VcpuEvents {
    serror_pending: false,
    serror_has_esr: true,
    ext_dabt_pending: false,
    ext_iabt_pending: false,
    ext_abt_has_esr: false,
    serror_esr: 0,
    ext_abt_esr: 0,
};
/// For one signal to be reported.
const PATIENCE: Duration = Duration::from_secs(10);
/// For all of it.
const LIMIT: Duration = Duration::from_secs(120);

/// What both threads know.
struct Shared {
    thread: i32,
    /// What the vCPU's thread is about to do: an index of [`CALLS`].
    doing: AtomicUsize,
    /// How many signals were reported.
    reported: AtomicU64,
    done: AtomicBool,
}

/// The vCPU, and what it must come to.
struct Looper<'a> {
    vcpu: Vcpu,
    shared: &'a Shared,
    /// What the guest counted to.
    stores: u64,
    rounds: u64,
}

pub(super) fn run() -> Verdict {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), SIZE)]).map_err(text)?;
    let code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&code, GuestAddress(RAM)).map_err(text)?;
    let vm = Kvm::open().and_then(|kvm| kvm.create_vm(memory, Config::default())).map_err(text)?;
    let mut vcpu = vm.create_vcpu(0).map_err(text)?;
    for (reg, value) in [(Reg::Pc, RAM), (Reg::Pstate, PSTATE), (Reg::X(2), DEVICE)] {
        vcpu.set_reg(reg, value).map_err(text)?;
    }
    let shared = Shared {
        thread: this_thread(),
        doing: AtomicUsize::new(usize::MAX),
        reported: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    let mut looper = Looper { vcpu, shared: &shared, stores: 0, rounds: 0 };
    let (sent, looped) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send_all(&shared);
            shared.done.store(true, Ordering::SeqCst);
            sent
        });
        let looped = looper.run();
        // The sender waits for nobody then.
        shared.done.store(true, Ordering::SeqCst);
        (sender.join().unwrap_or_else(|_| Err("the sender panicked".to_owned())), looped)
    });
    looped?;
    sent?;
    expect("signals reported", &shared.reported.load(Ordering::SeqCst), &(SIGNALS * CALLS.len() as u64))?;
    let rounds = looper.rounds;
    looper.overflow()?;
    Ok(format!(
        "{SIGNALS} in each of {}: all reported, in order; {rounds} rounds, the guest's state right; of 9 at once 8",
        CALLS.join(", ")
    ))
}

/// The page that the Nth signal names.
fn page(n: u64) -> u64 {
    0xffff_0000_0000 + (n << 12)
}

/// One after the other, each while the vCPU's thread is in a call of its turn, as far as one can see from outside.
fn send_all(shared: &Shared) -> Result<(), String> {
    for n in 0..SIGNALS * CALLS.len() as u64 {
        let call = n as usize % CALLS.len();
        wait(shared, |shared| shared.doing.load(Ordering::SeqCst) == call)?;
        send_sigbus(shared.thread, BUS_MCEERR_AO, page(n), 12).map_err(text)?;
        wait(shared, |shared| shared.reported.load(Ordering::SeqCst) > n)
            .map_err(|error| format!("signal {n}, in {}: {error}", CALLS.get(call).unwrap_or(&"")))?;
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
        std::hint::spin_loop();
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

    /// A run to the guest's next store; then each of the other calls, several times.
    fn round(&mut self) -> Result<(), String> {
        loop {
            self.at(0);
            match self.vcpu.run().map_err(text)? {
                Exit::Mmio(mmio) if mmio.is_write && mmio.phys_addr == DEVICE => {
                    self.stores += 1;
                    expect("what the guest stores", &u64::from_le_bytes(mmio.data), &self.stores)?;
                    break;
                }
                Exit::Sigbus(sigbus) => {
                    let n = self.shared.reported.load(Ordering::SeqCst);
                    let expected = SigbusExit { address: page(n), lsb: 12, action_required: false };
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
            self.at(1);
            self.vcpu.set_events(&VcpuEvents::default()).map_err(text)?;
            self.at(2);
            self.vcpu.set_reg(Reg::X(5), value).map_err(text)?;
            self.at(3);
            expect("X5", &self.vcpu.reg(Reg::X(5)).map_err(text)?, &value)?;
            expect("X0", &self.vcpu.reg(Reg::X(0)).map_err(text)?, &self.stores)?;
            expect("events", &self.vcpu.events().map_err(text)?, &NOTHING)?;
        }
        Ok(())
    }

    fn at(&self, call: usize) {
        self.shared.doing.store(call, Ordering::SeqCst);
    }

    /// One more than there are slots, between two runs: the documented number is reported, in order, the last is lost.
    fn overflow(&mut self) -> Result<(), String> {
        for n in 0..=SLOTS {
            send_sigbus(this_thread(), BUS_MCEERR_AO, page(n), 12).map_err(text)?;
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
