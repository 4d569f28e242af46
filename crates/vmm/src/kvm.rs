//! A guest on real KVM: a thread for each vCPU, the kernel's GICv3, its timers and its PSCI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use seawall::{AddressMap, BadRegion, Region, Verdict};
use seawall_events::{Reg, Vcpu as _};
use seawall_kvm::{
    Gic, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, Kicker, Kvm, SpiLine, Vcpu, VcpuState, Vm,
};

use vm_memory::GuestMemoryRegion as _;

use crate::board::{Board, End, Served};
use crate::console::Observer;
use crate::devices::rtc::WallClock;
use crate::interrupt::InterruptLine;
use crate::load::Placement;
use crate::{Config, Error, Guest, layout};

mod migration;

pub use migration::{Arrived, Arriving};

impl InterruptLine for SpiLine {
    fn set(&self, high: bool) {
        // It was set once when it was made: what can fail failed then.
        let _: Result<(), _> = self.set_level(high);
    }
}

/// A guest on `/dev/kvm`, loaded and ready to run.
#[derive(Debug)]
pub struct KvmMachine {
    vcpus: Vec<Vcpu>,
    board: Arc<Board>,
    memory: GuestMemoryMmap,
    placement: Placement,
    gic: Gic,
    vm: Vm,
    /// How long the guest ran before, also elsewhere.
    ran: Duration,
    /// A guest that came from elsewhere has not run yet: its counters go on when it does.
    counters: Option<VcpuState>,
    say: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
}

impl KvmMachine {
    /// Makes the VM and loads the guest.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(config: Config, guest: &Guest, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let load = |memory: &_, size, cpus, board: &_| guest.load(memory, size, cpus, false, board);
        let mut machine = Self::with(config, observer, load)?;
        let Placement { entry, fdt, .. } = &machine.placement;
        if let Some(boot) = machine.vcpus.first_mut() {
            for (reg, value) in [(Reg::Pc, *entry), (Reg::X(0), fdt.start)] {
                boot.set_reg(reg, value)?;
            }
        }
        Ok(machine)
    }

    /// Makes the VM; `load` gets its memory, how many bytes of RAM and vCPUs there are, and the board.
    fn with(
        config: Config,
        observer: Box<dyn Observer>,
        load: impl FnOnce(&GuestMemoryMmap, u64, u32, &Board) -> Result<Placement, Error>,
    ) -> Result<Self, Error> {
        let cpus = config.checked_cpus()?;
        let size = config.checked_memory()?;
        let memory = memory(size)?;
        let vm = Kvm::open()?.create_vm(memory.clone(), seawall_kvm::Config::default())?;
        let vcpus = (0..cpus).map(|n| match n {
            0 => vm.create_vcpu(0),
            n => vm.create_vcpu_off(n.into()),
        });
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
        let (distributor, redistributors) = (layout::GIC_DISTRIBUTOR, layout::GIC_REDISTRIBUTORS);
        let gic = vm.create_gic(distributor.start, redistributors.start)?;
        let line = |spi| -> Result<Arc<dyn InterruptLine>, Error> {
            match gic.line(spi) {
                Some(line) => Ok(Arc::new(line?)),
                None => Err(Error::NoInterrupt(spi)),
            }
        };
        let mut board = config.board(line, Box::new(WallClock), observer)?;
        board.set_addresses(addresses(&memory)?);
        let board = Arc::new(board);
        let placement = load(&memory, size, cpus, &board)?;
        let (say, said) = mpsc::channel();
        let (ran, counters) = (Duration::ZERO, None);
        Ok(Self { vcpus, board, memory, placement, gic, vm, ran, counters, say, said })
    }

    /// Where the parts of the guest are.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The VM, for instance to make memory of it bad.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The guest's memory; clones are the same memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The guest's console, to type on while it runs.
    pub fn keyboard(&self) -> Keyboard {
        Keyboard { board: self.board.clone(), memory: self.memory.clone() }
    }

    /// Runs the guest to its end, or for `limit`.
    ///
    /// # Errors
    /// [`Error`]: the first that one of the vCPUs met.
    pub fn run(mut self, limit: Option<Duration>) -> Result<End, Error> {
        Ok(self.run_for(limit)?.unwrap_or(End::TimeLimit))
    }

    /// Runs the guest for `limit`, or until it is [paused](Self::pauser). `None`: it stands still and can go on.
    ///
    /// # Errors
    /// [`Error`]: the first that one of the vCPUs met.
    pub fn run_for(&mut self, limit: Option<Duration>) -> Result<Option<End>, Error> {
        if let (Some(state), Some(vcpu)) = (&self.counters, self.vcpus.first_mut()) {
            vcpu.restore_counters(state)?;
            self.counters = None;
        }
        let Self { vcpus, board, memory, ran, say, said, .. } = self;
        let (stop, start) = (AtomicBool::new(false), Instant::now());
        let before = *ran;
        let end = thread::scope(|scope| {
            let threads: Result<Vec<_>, _> = (0..)
                .zip(vcpus)
                .map(|(number, vcpu)| {
                    let (say, stop, board, memory) = (say.clone(), &stop, &**board, &*memory);
                    let thread = thread::Builder::new().name(format!("vcpu {number}"));
                    thread.spawn_scoped(scope, move || {
                        let now = || before + start.elapsed();
                        let run = || kicker(&say).and_then(|()| run(number, vcpu, board, memory, stop, now));
                        let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Error::Panicked));
                        // It is listened to as long as there is the machine.
                        let _ = say.send(Said::Ended(ended));
                    })
                })
                .collect();
            let (mut end, mut kickers) = match &threads {
                Ok(_) => wait(said, limit.map(|limit| start + limit)),
                Err(_) => (Ok(None), Vec::new()),
            };
            stop.store(true, Ordering::SeqCst);
            // A thread that has only now begun sees `stop` before its first run.
            end = said.try_iter().fold(end, |end, said| end_of(end, said, &mut kickers));
            kickers.iter().for_each(Kicker::kick);
            for thread in threads.map_err(Error::Thread)? {
                thread.join().map_err(|_| Error::Panicked)?;
            }
            // A guest that ended while it was to be paused has ended.
            said.try_iter().fold(end, |end, said| end_of(end, said, &mut kickers))
        });
        *ran = before + start.elapsed();
        end
    }

    /// Pauses the guest, from any thread.
    pub fn pauser(&self) -> Pauser {
        Pauser(self.say.clone())
    }
}

/// Brings a machine's run to an end; the guest stands still then and can go on.
#[derive(Clone, Debug)]
pub struct Pauser(mpsc::Sender<Said>);

impl Pauser {
    /// The run that the machine is in comes back, or else the next at once. Does nothing if there is no machine any more.
    pub fn pause(&self) {
        let _ = self.0.send(Said::Pause);
    }
}

/// `size` bytes of RAM.
fn memory(size: u64) -> Result<GuestMemoryMmap, Error> {
    let failed = |reason: String| Error::Memory { size, reason };
    let bytes = usize::try_from(size).map_err(|error| failed(error.to_string()))?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(layout::RAM), bytes)]);
    memory.map_err(|error| failed(error.to_string()))
}

/// Where the guest's memory is in this process.
fn addresses(memory: &GuestMemoryMmap) -> Result<AddressMap, Error> {
    let regions = memory.iter().map(|region| Region {
        guest: region.start_addr().0,
        host: region.as_ptr() as u64,
        size: region.len(),
    });
    let failed = |error: BadRegion| Error::Memory { size: error.0.size, reason: error.to_string() };
    AddressMap::new(regions).map_err(failed)
}

/// Types on a guest's console, from any thread.
#[derive(Clone, Debug)]
pub struct Keyboard {
    board: Arc<Board>,
    memory: GuestMemoryMmap,
}

impl Keyboard {
    /// Types this: how many bytes there was room for.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        let taken = self.board.type_in(bytes);
        self.board.process(&self.memory);
        taken
    }
}

/// What a vCPU's thread tells the one that waits for it.
#[derive(Debug)]
enum Said {
    Runs(Kicker),
    Ended(Result<Option<End>, Error>),
    /// It is not a vCPU's thread that says this.
    Pause,
}

/// The end of a run of which somebody says something more: what came first counts.
fn end_of(
    end: Result<Option<End>, Error>,
    said: Said,
    kickers: &mut Vec<Kicker>,
) -> Result<Option<End>, Error> {
    match (end, said) {
        (Ok(None), Said::Ended(ended)) => ended,
        (end, Said::Runs(kicker)) => {
            kickers.push(kicker);
            end
        }
        (end, _) => end,
    }
}

fn kicker(say: &mpsc::Sender<Said>) -> Result<(), Error> {
    let _ = say.send(Said::Runs(Kicker::of_this_thread()?));
    Ok(())
}

/// Waits for the first end or a pause, and collects the kickers meanwhile.
fn wait(said: &mpsc::Receiver<Said>, until: Option<Instant>) -> (Result<Option<End>, Error>, Vec<Kicker>) {
    let mut kickers = Vec::new();
    loop {
        let next = match until {
            Some(until) => said.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => said.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        let end = match next {
            Ok(Said::Runs(kicker)) => {
                kickers.push(kicker);
                continue;
            }
            Ok(Said::Ended(Ok(None))) => continue,
            Ok(Said::Ended(end)) => end,
            Ok(Said::Pause) | Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::Panicked),
        };
        return (end, kickers);
    }
}

/// Runs one vCPU until the guest ends by it, or somebody stops it.
fn run(
    number: u32,
    vcpu: &mut Vcpu,
    board: &Board,
    memory: &GuestMemoryMmap,
    stop: &AtomicBool,
    now: impl Fn() -> Duration,
) -> Result<Option<End>, Error> {
    while !stop.load(Ordering::SeqCst) {
        let exit = vcpu.run()?;
        let end = match board.serve(vcpu, &exit, now())? {
            Served::Done => None,
            Served::End(end) => Some(end),
            Served::MemoryError(mut decision) => {
                board.record(memory, &mut decision, SystemTime::now()).map_err(Error::Record)?;
                if decision.verdict == Verdict::Wait {
                    // The guest has records to read yet: by its other vCPUs.
                    thread::yield_now();
                }
                board.inject(number, vcpu, decision)?
            }
            Served::Found(range) => {
                board.announce(memory, range, SystemTime::now()).map_err(Error::Record)?;
                None
            }
        };
        if end.is_some() {
            return Ok(end);
        }
        if board.is_notified() {
            board.process(memory);
        }
    }
    Ok(None)
}
