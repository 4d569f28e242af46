//! A guest on the software machine: the same board as on KVM, all vCPUs in one thread, time counted in instructions.
//! A run is the same each time, to the bit, if what is typed and turned bad comes at the same instructions.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seawall::ledger::Keeper;
use seawall::{Containment, Now};
use seawall_events::Reg;
use seawall_inject::{Exit, Inject as _, Vcpu as _};
use seawall_machine::{Config as MachineConfig, Kicker, StateHash, StorePolicy, Translation, Vm};

use crate::board::{Board, BoardState, End, Served};
use crate::console::Observer;
use crate::devices::rtc::GuestClock;
use crate::dma::Dma;
use crate::interrupt::InterruptLine;
use crate::kernel::Kernel;
use crate::load::Placement;
use crate::server::Server;
use crate::snapshot::{Devices, Snapshot, state_hash};
use crate::{Config, Error, Guest, layout};

/// While a vCPU waits no other runs, nor does time pass.
const NO_PATIENCE: Duration = Duration::ZERO;

fn without_patience(mut containment: Containment) -> Containment {
    containment.set_patience(NO_PATIENCE);
    containment
}

/// How long a device rests after the work that it does at once, if there is more: nanoseconds of the guest's time.
const REST: u64 = 10_000;
/// INTID of SPI 0.
const FIRST_SPI: u32 = 32;

/// The levels of the SPIs, a bit each, as the devices drive them.
#[derive(Clone, Debug, Default)]
struct Levels(Arc<AtomicU64>);

impl Levels {
    /// The input of an SPI.
    fn line(&self, spi: u32) -> Result<Arc<dyn InterruptLine>, Error> {
        let bit = 1_u64.checked_shl(spi).ok_or(Error::NoInterrupt(spi))?;
        Ok(Arc::new(Line { levels: self.clone(), bit }))
    }
}

/// One of them.
struct Line {
    levels: Levels,
    bit: u64,
}

impl InterruptLine for Line {
    fn set(&self, high: bool) {
        if high {
            self.levels.0.fetch_or(self.bit, Ordering::Relaxed);
        } else {
            self.levels.0.fetch_and(!self.bit, Ordering::Relaxed);
        }
    }
}

/// What a machine with EL2 has more, if this is one.
fn server(config: &mut Config, levels: &Levels) -> Result<Option<Server>, Error> {
    let host = std::mem::take(&mut config.second_uart);
    config.el2.then(|| Ok(Server::new(levels.line(layout::SECOND_UART_SPI)?, host))).transpose()
}

/// Bytes that are typed and wait for the guest to take them.
const MAX_TYPED: usize = 0x1_0000;

/// A guest on the software machine, loaded and ready to run.
#[derive(Debug)]
pub struct SoftwareMachine {
    vm: Vm,
    board: Board,
    placement: Placement,
    clock: GuestClock,
    levels: Levels,
    /// The levels that the interrupt controller knows.
    known: u64,
    /// The vCPU that the last run ended on.
    current: usize,
    /// When devices go on with what was too much for them at once.
    continues_at: Option<u64>,
    /// What is typed and was not yet taken.
    typed: VecDeque<u8>,
    /// Linux throws away what came before it had a driver.
    types_to_driver: bool,
    /// The board before its guest ran.
    new: BoardState,
    heal: bool,
    /// What a machine with EL2 has more.
    server: Option<Server>,
}

impl SoftwareMachine {
    /// Makes the machine and loads the guest.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(config: Config, guest: &Guest, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let (cpus, size) = (config.checked_cpus()?, config.checked_memory()?);
        let (heal, el2) = (config.heal, config.el2);
        // The server's poison register is of broken cells.
        let store_policy = if el2 { StorePolicy::Persist } else { StorePolicy::Defer };
        let machine = MachineConfig {
            cpus: cpus as usize,
            memory_size: size,
            store_policy,
            el2,
            ..MachineConfig::default()
        };
        let vm = Vm::new(machine)?;
        let (levels, clock) = (Levels::default(), GuestClock::default());
        let mut config = config;
        let server = server(&mut config, &levels)?;
        let board =
            config.board(|spi| levels.line(spi), Box::new(clock.clone()), observer, without_patience)?;
        let new = board.state();
        let mut machine = Self {
            vm,
            board,
            placement: Placement::default(),
            clock,
            levels,
            known: 0,
            current: 0,
            continues_at: None,
            typed: VecDeque::new(),
            types_to_driver: false,
            new,
            heal,
            server,
        };
        // What the ledger has of a machine before this one is bad here too, unless it can be healed.
        for bad in machine.bad().into_iter().filter(|_| !heal) {
            machine.vm.poison(bad)?;
        }
        machine.start(guest)?;
        Ok(machine)
    }

    /// How the guest's code is run; see [`Translation`].
    pub fn translation(&self) -> Translation {
        self.vm.translation()
    }

    /// Choose how the guest's code is run. The guest cannot tell.
    pub fn set_translation(&mut self, translation: Translation) {
        self.vm.set_translation(translation);
    }

    /// The guest starts anew, as after a reset of the machine: CPUs and devices are as they were when it was made, bad
    /// pages are healed or left out of its memory map, and `guest` is loaded. Other memory, disks, time and the ledger
    /// stay as they are.
    ///
    /// # Errors
    /// [`Error::Load`] and the like: the machine must not be run then.
    pub fn reset(&mut self, guest: &Guest) -> Result<(), Error> {
        self.vm.reset();
        self.board.reset(&self.new);
        if let Some(server) = &mut self.server {
            server.reset();
        }
        self.levels.0.store(0, Ordering::Relaxed);
        (self.known, self.current, self.continues_at) = (0, 0, None);
        self.typed.clear();
        self.start(guest)
    }

    /// Heals, and loads the guest.
    fn start(&mut self, guest: &Guest) -> Result<(), Error> {
        if self.heal {
            for bad in self.bad() {
                self.vm.heal(bad.clone())?;
                self.vm
                    .memory_mut()
                    .zero(bad.start, bad.end - bad.start)
                    .map_err(seawall_machine::Error::from)?;
                self.board.ledger().remove(bad);
            }
        }
        let (cpus, size) = (self.vm.cpu_count() as u32, self.vm.memory().size());
        let board = &self.board;
        self.placement =
            Dma::with(self.vm.memory_mut(), |memory| guest.load(memory, size, cpus, true, board)).0?;
        let mut boot = self.vm.vcpu(0)?;
        boot.set_reg(Reg::Pc, self.placement.entry)?;
        boot.set_reg(Reg::X(0), self.placement.fdt.start)?;
        self.types_to_driver = matches!(guest.kernel, Kernel::Linux(_));
        Ok(())
    }

    /// What the ledger has of RAM.
    fn bad(&self) -> Vec<Range<u64>> {
        let ram = self.vm.memory().range();
        self.board.ledger().with(|ledger| ledger.overlapping(ram).map(|bad| bad.range).collect())
    }

    /// A machine that goes on from a snapshot. `config` must be like [`Snapshot::config`], with as many disks of the
    /// same sizes as there were; policy and observer may be others.
    ///
    /// # Errors
    /// [`Error::OtherMachine`]; [`Error::Machine`] if the host refuses the memory.
    pub fn resume(snapshot: &Snapshot, config: Config, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let (cpus, size) = (config.checked_cpus()?, config.checked_memory()?);
        let then = snapshot.machine.config();
        if (then.cpus, then.memory_size, then.el2) != (cpus as usize, size, config.el2) {
            let with = |el2| if el2 { " with EL2" } else { "" };
            return Err(Error::OtherMachine {
                snapshot: format!(
                    "{} vCPUs{} and {} bytes of RAM",
                    then.cpus,
                    with(then.el2),
                    then.memory_size
                ),
                machine: format!("{cpus} vCPUs{} and {size} bytes", with(config.el2)),
            });
        }
        let heal = config.heal;
        let (levels, clock) = (Levels::default(), GuestClock::default());
        let mut config = config;
        let server = server(&mut config, &levels)?;
        let board =
            config.board(|spi| levels.line(spi), Box::new(clock.clone()), observer, without_patience)?;
        let new = board.state();
        let vm = snapshot.machine.machine()?;
        let placement = snapshot.devices.placement.clone();
        let (typed, types_to_driver) = (VecDeque::new(), snapshot.devices.types_to_driver);
        let mut machine = Self {
            vm,
            board,
            placement,
            clock,
            levels,
            known: 0,
            current: 0,
            continues_at: None,
            typed,
            types_to_driver,
            new,
            heal,
            server,
        };
        machine.restore(snapshot)?;
        Ok(machine)
    }

    /// The machine as it is now; it can be taken whenever [`Self::run`] has come back. What it costs says
    /// [`Vm::snapshot`].
    ///
    /// # Errors
    /// [`Error::Machine`] if the host has no room; the machine is as it was.
    pub fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let machine = self.vm.snapshot()?;
        Ok(Snapshot { machine, devices: Arc::new(self.devices()) })
    }

    /// The machine is again as it was when the snapshot was taken, of it or of one made alike, and goes on as that
    /// did, to the bit. What it costs says [`Vm::restore`]. What the observer was told stays told.
    ///
    /// # Errors
    /// [`Error::OtherMachine`] if that had other devices; [`Error::Machine`] if the host has no room. The machine is as
    /// it was then.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let Devices {
            placement,
            board,
            levels,
            known,
            current,
            continues_at,
            typed,
            types_to_driver,
            server,
        } = &*snapshot.devices;
        if !self.board.can_be(board) {
            return Err(Error::OtherMachine { snapshot: board.shape(), machine: self.board.shape() });
        }
        self.vm.restore(&snapshot.machine)?;
        self.board.set_state(board);
        self.placement.clone_from(placement);
        self.levels.0.store(*levels, Ordering::Relaxed);
        self.known = *known;
        self.current = *current as usize;
        self.continues_at = *continues_at;
        self.typed = typed.iter().copied().collect();
        self.types_to_driver = *types_to_driver;
        if let (Some(own), Some(server)) = (&mut self.server, server) {
            own.set_state(server);
        }
        self.clock.set(self.vm.time());
        Ok(())
    }

    /// The hash of all that the guest can see of its machine ([`Vm::state_hash`]), and of what devices, console and
    /// containment hold.
    pub fn state_hash(&self) -> StateHash {
        state_hash(self.vm.state_hash(), &self.devices())
    }

    fn devices(&self) -> Devices {
        // All fields by name: whoever adds one must decide here what becomes of it.
        // How it starts anew is the host's.
        let Self {
            vm: _,
            board,
            placement,
            clock: _,
            levels,
            known,
            current,
            continues_at,
            typed,
            types_to_driver,
            new: _,
            heal: _,
            server,
        } = self;
        Devices {
            placement: placement.clone(),
            board: board.state(),
            levels: levels.0.load(Ordering::Relaxed),
            known: *known,
            current: *current as u32,
            continues_at: *continues_at,
            typed: typed.iter().copied().collect(),
            types_to_driver: *types_to_driver,
            server: server.as_ref().map(Server::state),
        }
    }

    /// Where the parts of the guest are.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Runs the guest on all its vCPUs, for at most `steps` (see [`Vm::set_budget`]). `None`: it can go on; the steps
    /// are over, there was a [kick](Self::kicker), or the [observer](Observer::wants_pause) wanted a pause. After [`End::Idle`] it can go on too, if
    /// something was typed.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(&mut self, steps: Option<u64>) -> Result<Option<End>, Error> {
        self.vm.set_budget(steps);
        loop {
            self.give_typed();
            if let Some(server) = &mut self.server {
                server.give_input();
            }
            self.drive_lines()?;
            let alarm = self.board.alarm().map(GuestClock::nanoseconds_at);
            self.vm.set_alarm(alarm.into_iter().chain(self.continues_at).min());
            let (cpu, exit) = self.vm.run()?;
            self.current = cpu;
            let time = self.vm.time();
            self.clock.set(time);
            if exit == Exit::Intr {
                let rings = alarm.is_some_and(|alarm| alarm <= time);
                if rings {
                    self.board.tick();
                }
                let continues = self.continues_at.is_some_and(|at| at <= time);
                if continues {
                    self.process();
                }
                let pauses = continues && (self.vm.budget() == Some(0) || self.board.console().wants_pause());
                if pauses || !(rings || continues) {
                    return Ok(None);
                }
                continue;
            }
            if let (Some(server), Exit::Mmio(mmio)) = (&mut self.server, &exit) {
                if let Some(data) = server.access(mmio, &mut self.vm, self.board.has_acpi()) {
                    self.vm.vcpu(cpu)?.answer_mmio(data);
                    continue;
                }
                if !self.board.answers(mmio) {
                    self.vm.vcpu(cpu)?.refuse_mmio()?;
                    continue;
                }
            }
            // No host's clock: a run is told of the same each time.
            let running = Duration::from_nanos(time);
            let now = Now { vcpu: cpu as u32, running, time: self.clock.time(), exited: None };
            let end = match self.board.serve(&mut self.vm.vcpu(cpu)?, &exit, &now)? {
                Served::Done => None,
                Served::End(end) => Some(end),
                Served::MemoryError(source) => {
                    let (mut vcpu, memory) = self.vm.split(cpu)?;
                    Dma::with(memory, |memory| self.board.contain(&mut vcpu, &source, memory, &now)).0?
                }
            };
            if end.is_some() {
                return Ok(end);
            }
            self.process();
            if self.board.console().wants_pause() {
                return Ok(None);
            }
        }
    }

    /// What ends a run from another thread: the guest can go on from there.
    pub fn kicker(&self) -> Kicker {
        self.vm.kicker()
    }

    /// Brings the gauges of `metrics` up to date: see [`Board::gauge`].
    ///
    /// # Errors
    /// [`Error::Record`].
    pub fn gauge(&mut self) -> Result<(), Error> {
        Dma::with(self.vm.memory_mut(), |memory| self.board.gauge(memory)).0.map_err(Error::Record)
    }

    /// Types this on the guest's console: how many bytes there was room for. It comes there as fast as the guest takes it; a
    /// Linux gets it as soon as it has a driver. Until then at most 64 KiB wait.
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MAX_TYPED.saturating_sub(self.typed.len()));
        self.typed.extend(bytes.iter().take(taken));
        taken
    }

    /// Poisons every line that `range` (physical addresses) touches; gives how many were clean.
    ///
    /// # Errors
    /// [`Error::Machine`] if the range is empty or not in RAM.
    pub fn poison(&mut self, range: Range<u64>) -> Result<u64, Error> {
        Ok(self.vm.poison(range)?)
    }

    /// Heals every line that `range` (physical addresses) touches; gives how many were poisoned.
    ///
    /// # Errors
    /// [`Error::Machine`] if the range is empty or not in RAM.
    pub fn heal(&mut self, range: Range<u64>) -> Result<u64, Error> {
        Ok(self.vm.heal(range)?)
    }

    /// Steps that all vCPUs did.
    pub fn instructions(&self) -> u64 {
        self.vm.instructions()
    }

    /// The machine's time, nanoseconds: a step is one, and all vCPUs waiting lets it go on.
    pub fn time(&self) -> u64 {
        self.vm.time()
    }

    /// The vCPU that the last run ended on.
    pub fn current_cpu(&self) -> usize {
        self.current
    }

    /// The bad pages.
    pub fn ledger(&self) -> &Arc<Keeper> {
        self.board.ledger()
    }

    /// The machine.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The machine, for instance to look at its vCPUs.
    pub fn vm_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// Gives the guest what is typed, as far as there is room for it.
    fn give_typed(&mut self) {
        if self.typed.is_empty() || self.types_to_driver && !self.board.is_listened_to() {
            return;
        }
        let taken = self.board.type_in(self.typed.make_contiguous());
        self.typed.drain(..taken);
        self.process();
    }

    /// Does what is in the devices' queues, in the machine's RAM, unless devices rest.
    fn process(&mut self) {
        if !self.board.is_notified() {
            self.continues_at = None;
            return;
        }
        let now = self.vm.time();
        if self.continues_at.is_some_and(|at| now < at) {
            return;
        }
        let ((), bad) = Dma::with(self.vm.memory_mut(), |memory| self.board.process(memory));
        for address in bad {
            self.board.console().device_error(address);
        }
        self.continues_at = self.board.is_notified().then(|| now.saturating_add(REST));
    }

    /// Tells the interrupt controller of the lines that changed.
    fn drive_lines(&mut self) -> Result<(), Error> {
        let levels = self.levels.0.load(Ordering::Relaxed);
        let changed = levels ^ self.known;
        for spi in (0..layout::SPIS).filter(|spi| changed >> spi & 1 != 0) {
            self.vm.set_irq_line(FIRST_SPI + spi, levels >> spi & 1 != 0)?;
        }
        self.known = levels;
        Ok(())
    }
}
