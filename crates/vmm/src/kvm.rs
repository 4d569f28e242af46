//! A guest on real KVM: a thread for each vCPU, the kernel's GICv3, its timers and its PSCI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seawall::ledger::Keeper;
use seawall::{AddressMap, BadRegion, LinuxHost, MemoryRegion, Now};
use seawall_events::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_kvm::{
    Gic, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, Kicker, Kvm, SavedVcpu, SpiLine, Vcpu, Vm,
};

use vm_memory::GuestMemoryRegion as _;

use crate::board::{Board, BoardState, End, Served};
use crate::console::Observer;
use crate::devices::rtc::WallClock;
use crate::interrupt::InterruptLine;
use crate::load::Placement;
use crate::{Config, Error, Guest, layout};

mod migration;

pub use migration::{Arrived, Arriving};

/// An input of the interrupt controller; after a reset it is that of another one.
struct Line {
    spi: u32,
    input: Mutex<SpiLine>,
}

impl InterruptLine for Line {
    fn set(&self, high: bool) {
        // It was set once when it was made: what can fail failed then.
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let _: Result<(), _> = input.set_level(high);
    }
}

/// What KVM has of a guest. It is made anew at each reset.
#[derive(Debug)]
struct InKernel {
    vcpus: Vec<Vcpu>,
    gic: Gic,
    vm: Vm,
}

impl InKernel {
    fn new(cpus: u32, memory: &GuestMemoryMmap) -> Result<Self, Error> {
        let vm = Kvm::open()?.create_vm(memory.clone(), seawall_kvm::VmConfig::default())?;
        let vcpus = (0..cpus).map(|n| match n {
            0 => vm.create_vcpu(0),
            n => vm.create_vcpu_off(n.into()),
        });
        let vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
        let (distributor, redistributors) = (layout::GIC_DISTRIBUTOR, layout::GIC_REDISTRIBUTORS);
        let gic = vm.create_gic(distributor.start, redistributors.start)?;
        Ok(Self { vcpus, gic, vm })
    }

    /// The input of an SPI, low.
    fn input(&self, spi: u32) -> Result<SpiLine, Error> {
        Ok(self.gic.line(spi).ok_or(Error::NoInterrupt(spi))??)
    }
}

/// A guest on `/dev/kvm`, loaded and ready to run.
pub struct KvmMachine {
    kernel: InKernel,
    lines: Vec<Arc<Line>>,
    board: Arc<Board>,
    /// The board before its guest ran.
    new: BoardState,
    memory: GuestMemoryMmap,
    placement: Placement,
    heal: bool,
    /// How long the guest ran before, also elsewhere.
    ran: Duration,
    /// A guest that came from elsewhere has not run yet: its counters go on when it does.
    counters: Option<SavedVcpu>,
    say: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
}

impl KvmMachine {
    /// Makes the VM and loads the guest.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(config: Config, guest: &Guest, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let mut machine = Self::empty(config, observer)?;
        machine.start(guest)?;
        Ok(machine)
    }

    /// Makes the VM, without a guest.
    fn empty(config: Config, observer: Box<dyn Observer>) -> Result<Self, Error> {
        if config.el2 {
            return Err(Error::NoEl2);
        }
        let cpus = config.checked_cpus()?;
        let memory = memory(config.checked_memory()?)?;
        let heal = config.heal;
        let kernel = InKernel::new(cpus, &memory)?;
        let mut lines = Vec::new();
        let line = |spi| -> Result<Arc<dyn InterruptLine>, Error> {
            let line = Arc::new(Line { spi, input: Mutex::new(kernel.input(spi)?) });
            lines.push(line.clone());
            Ok(line)
        };
        let (addresses, page) = (addresses(&memory)?, seawall_host::page_size());
        let board = config.board(line, Box::new(WallClock), observer, |containment| {
            containment.with_addresses(addresses).with_host_page(page).with_host(LinuxHost)
        })?;
        let (new, board) = (board.state(), Arc::new(board));
        let (placement, ran, counters) = (Placement::default(), Duration::ZERO, None);
        let (say, said) = mpsc::channel();
        Ok(Self { kernel, lines, board, new, memory, placement, heal, ran, counters, say, said })
    }

    /// The guest starts anew, as after a reset of the machine: vCPUs, interrupt controller and devices are as they were
    /// when it was made, bad pages are healed by mapping new ones in their place, or left out of the guest's memory map
    /// if they cannot be, and `guest` is loaded. Other memory, disks and the ledger stay as they are.
    ///
    /// # Errors
    /// [`Error`]: the machine must not be run then.
    pub fn reset(&mut self, guest: &Guest) -> Result<(), Error> {
        let cpus = self.kernel.vcpus.len() as u32;
        self.kernel = InKernel::new(cpus, &self.memory)?;
        for line in &self.lines {
            *line.input.lock().unwrap_or_else(PoisonError::into_inner) = self.kernel.input(line.spi)?;
        }
        self.counters = None;
        self.board.reset(&self.new);
        self.start(guest)
    }

    /// Heals, and loads the guest.
    fn start(&mut self, guest: &Guest) -> Result<(), Error> {
        let size = self.memory.iter().map(vm_memory::GuestMemoryRegion::len).sum();
        if self.heal {
            self.heal(size);
        }
        let cpus = self.kernel.vcpus.len() as u32;
        self.placement = guest.load(&self.memory, size, cpus, false, &self.board)?;
        if let Some(boot) = self.kernel.vcpus.first_mut() {
            for (reg, value) in [(Reg::Pc, self.placement.entry), (Reg::X(0), self.placement.fdt.start)] {
                boot.set_reg(reg, value)?;
            }
        }
        Ok(())
    }

    /// New pages in the place of those that are in the ledger. What cannot be replaced stays in it.
    fn heal(&self, size: u64) {
        let ledger = self.board.ledger();
        let ram = layout::RAM..layout::RAM + size;
        let bad: Vec<_> = ledger.with(|ledger| ledger.overlapping(ram).map(|bad| bad.range).collect());
        for range in bad {
            if self.kernel.vm.heal(range.start, range.end - range.start).is_ok() {
                ledger.remove(range);
            }
        }
    }

    /// Where the parts of the guest are.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The VM, for instance to make memory of it bad.
    pub fn vm(&self) -> &Vm {
        &self.kernel.vm
    }

    /// The guest's memory; clones are the same memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The bad pages.
    pub fn ledger(&self) -> &Arc<Keeper> {
        self.board.ledger()
    }

    /// How long a vCPU waits at most for the guest to acknowledge a record before the next is written
    /// ([`seawall::Containment::set_patience`]); a second if nothing else is said. For hosts on which a guest gets little
    /// time. The software machine never waits: while one of its vCPUs waits no other runs.
    pub fn set_patience(&self, patience: Duration) {
        self.board.set_patience(patience);
    }

    /// The host's kernel is not told of bad pages from now on, nor are they kept: it gives them to others. For tests.
    pub fn set_untold(&self) {
        self.board.set_untold();
    }

    /// The guest's console, to type on while it runs.
    pub fn keyboard(&self) -> Keyboard {
        Keyboard { board: self.board.clone(), memory: self.memory.clone() }
    }

    /// The guest's gauges, to be brought up to date while it runs.
    pub fn gauges(&self) -> Gauges {
        Gauges { board: self.board.clone(), memory: self.memory.clone() }
    }

    /// Runs the guest to its end, or for `limit`: after [`End::TimeLimit`] it can be run on.
    ///
    /// # Errors
    /// [`Error`]: the first that one of the vCPUs met.
    pub fn run(&mut self, limit: Option<Duration>) -> Result<End, Error> {
        Ok(self.run_for(limit)?.unwrap_or(End::TimeLimit))
    }

    /// Runs the guest for `limit`, or until it is [paused](Self::pauser). `None`: it stands still and can go on.
    ///
    /// # Errors
    /// [`Error`]: the first that one of the vCPUs met.
    pub fn run_for(&mut self, limit: Option<Duration>) -> Result<Option<End>, Error> {
        if let (Some(state), Some(vcpu)) = (&self.counters, self.kernel.vcpus.first_mut()) {
            vcpu.restore_counters(state)?;
            self.counters = None;
        }
        let Self { kernel, board, memory, ran, say, said, .. } = self;
        let (stop, start) = (AtomicBool::new(false), Instant::now());
        let before = *ran;
        let end = thread::scope(|scope| {
            let threads: Result<Vec<_>, _> = (0..)
                .zip(&mut kernel.vcpus)
                .map(|(number, vcpu)| {
                    let (say, stop, board, memory) = (say.clone(), &stop, &**board, &*memory);
                    let thread = thread::Builder::new().name(format!("vcpu {number}"));
                    thread.spawn_scoped(scope, move || {
                        let now = || before + start.elapsed();
                        let run =
                            || kicker(&say).and_then(|()| run(number, vcpu, board, memory, stop, now, &say));
                        let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Error::Panicked));
                        // It is listened to as long as there is the machine.
                        let _ = say.send(Said::Ended(ended));
                    })
                })
                .collect();
            let (mut end, mut kickers) = match &threads {
                Ok(_) => wait(said, limit.map(|limit| start + limit), board),
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

impl std::fmt::Debug for KvmMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvmMachine").field("board", &self.board).finish_non_exhaustive()
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
    let regions = memory.iter().map(|region| MemoryRegion {
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

/// Brings the gauges of `metrics` up to date, from any thread.
#[derive(Clone, Debug)]
pub struct Gauges {
    board: Arc<Board>,
    memory: GuestMemoryMmap,
}

impl Gauges {
    /// See [`Board::gauge`].
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn gauge(&self) -> Result<(), Error> {
        self.board.gauge(&self.memory).map_err(Error::Record)
    }
}

/// What a vCPU's thread tells the one that waits for it.
#[derive(Debug)]
enum Said {
    Runs(Kicker),
    Ended(Result<Option<End>, Error>),
    /// The guest wrote to the RTC: its alarm may be another.
    Alarm,
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

/// When the RTC's alarm is due.
fn alarm(board: &Board) -> Option<Instant> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(board.alarm()?))?;
    Instant::now().checked_add(time.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Waits for the first end or a pause, and collects the kickers and does what the time asks for meanwhile.
fn wait(
    said: &mpsc::Receiver<Said>,
    limit: Option<Instant>,
    board: &Board,
) -> (Result<Option<End>, Error>, Vec<Kicker>) {
    let mut kickers = Vec::new();
    loop {
        let until = alarm(board).into_iter().chain(limit).min();
        let next = match until {
            Some(until) => said.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => said.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        let end = match next {
            Ok(Said::Runs(kicker)) => {
                kickers.push(kicker);
                continue;
            }
            Ok(Said::Ended(Ok(None)) | Said::Alarm) => continue,
            Ok(Said::Ended(end)) => end,
            Err(mpsc::RecvTimeoutError::Timeout) if limit.is_none_or(|limit| Instant::now() < limit) => {
                board.tick();
                continue;
            }
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
    say: &mpsc::Sender<Said>,
) -> Result<Option<End>, Error> {
    while !stop.load(Ordering::SeqCst) {
        // In portions, between which a stop is seen; also what was left when the guest was stopped.
        if board.is_notified() {
            board.process(memory);
            continue;
        }
        let exit = vcpu.run()?;
        let now = Now::new(number, now());
        let end = match board.serve(vcpu, &exit, &now)? {
            Served::Done => None,
            Served::End(end) => Some(end),
            Served::MemoryError(source) => board.contain(vcpu, &source, memory, &now)?,
        };
        if end.is_some() {
            return Ok(end);
        }
        if matches!(&exit, Exit::Mmio(mmio) if mmio.is_write && layout::RTC.contains(&mmio.phys_addr)) {
            let _ = say.send(Said::Alarm);
        }
    }
    Ok(None)
}
