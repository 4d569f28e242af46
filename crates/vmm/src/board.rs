//! The board: devices on a bus, and what an exit of a vCPU comes to. Generic over the backend: `serve` takes any
//! [`Vcpu`], interrupts go by [`InterruptLine`].

mod access;
mod end;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::ledger::Keeper;
use seawall::telemetry::{self, ErrorReport, Facades};
use seawall::{
    Action, ContainError, Contained, Containment, Now, Outcome, RecordError, RecordMemory, Source,
};
use seawall_events::MmioExit;
use seawall_inject::{Exit, Inject, SystemEvent, Vcpu};
use vm_device::MutDeviceMmio;
use vm_device::bus::{self, MmioAddress, MmioRange};
use vm_device::device_manager::{IoManager, MmioManager as _};

pub use end::End;
pub(crate) use state::BoardState;

use crate::console::{Console, Observer};
use crate::devices::disk::Disk;
use crate::devices::pl011::Pl011;
use crate::devices::rtc::{Clock, Pl031};
use crate::devices::virtio::{Block, DeviceMemory, Empty, VirtioConsole, VirtioMmio};
use crate::interrupt::InterruptLine;
use crate::layout;

/// What an exit came to.
#[derive(Debug)]
pub enum Served {
    /// It is done: the vCPU can go on.
    Done,
    /// The guest ended.
    End(End),
    /// There is bad memory: [`Board::contain`].
    MemoryError(Source),
}

type Uart = Pl011<Arc<dyn InterruptLine>, Console>;
type Rtc = Pl031<Arc<dyn InterruptLine>>;
type Hvc = VirtioMmio<VirtioConsole<Console>, Arc<dyn InterruptLine>>;
type Vd = VirtioMmio<Block, Arc<dyn InterruptLine>>;

/// Devices, console and containment of one guest. All of its vCPUs share it.
pub struct Board {
    bus: IoManager,
    console: Console,
    uart: Arc<Mutex<Uart>>,
    rtc: Arc<Mutex<Rtc>>,
    hvc: Option<Arc<Mutex<Hvc>>>,
    /// In the order of their transports.
    disks: Vec<Arc<Mutex<Vd>>>,
    containment: Mutex<Containment>,
    virtio: u32,
    acpi: bool,
    /// The CPUs have EL2.
    el2: bool,
    /// The bad pages.
    ledger: Arc<Keeper>,
    /// The containment may have accesses to forget as soon as the guest does something else.
    is_repeating: AtomicBool,
}

/// More devices than the layout has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {} virtio devices", layout::VIRTIO_TRANSPORTS)]
pub struct TooManyDevices;

impl Board {
    /// A board with UART, RTC and virtio transports, all empty. `line` gives the input of an SPI by its number, `clock` is what the RTC shows.
    /// Bad pages are entered in `ledger`.
    ///
    /// # Errors
    /// What `line` fails with.
    pub fn new<E>(
        mut line: impl FnMut(u32) -> Result<Arc<dyn InterruptLine>, E>,
        clock: Box<dyn Clock>,
        observer: Box<dyn Observer>,
        containment: Containment,
        ledger: Arc<Keeper>,
    ) -> Result<Self, E> {
        let console = Console::new(observer);
        let uart = Arc::new(Mutex::new(Pl011::new(line(layout::UART_SPI)?, console.clone())));
        let rtc = Arc::new(Mutex::new(Pl031::new(clock, line(layout::RTC_SPI)?)));
        let mut board = Self {
            bus: IoManager::new(),
            console,
            uart: uart.clone(),
            rtc: rtc.clone(),
            hvc: None,
            disks: Vec::new(),
            containment: Mutex::new(containment.with_ledger(ledger.clone()).with_telemetry(Facades)),
            virtio: 0,
            acpi: false,
            el2: false,
            ledger,
            is_repeating: AtomicBool::new(false),
        };
        board.put(layout::UART, uart);
        board.put(layout::RTC, rtc);
        for transport in 0..layout::VIRTIO_TRANSPORTS {
            board.put(layout::virtio(transport), Arc::new(Mutex::new(Empty)));
        }
        Ok(board)
    }

    /// The SPI of the virtio device that is added next.
    pub fn next_spi(&self) -> u32 {
        layout::VIRTIO_SPI + layout::transport(self.virtio)
    }

    /// Puts a virtio block device on the bus, in front of those that are there ([`layout::transport`]). Its line is that
    /// of [`Board::next_spi`].
    ///
    /// # Errors
    /// [`TooManyDevices`].
    pub fn add_disk(&mut self, line: Arc<dyn InterruptLine>, disk: Disk) -> Result<(), TooManyDevices> {
        let disk = Arc::new(Mutex::new(VirtioMmio::new(Block::new(disk), line)));
        self.disks.insert(0, disk.clone());
        self.add_shared(disk)
    }

    /// Puts a virtio console on the bus, as [`Board::add_disk`] does.
    ///
    /// # Errors
    /// [`TooManyDevices`].
    pub fn add_virtio_console(&mut self, line: Arc<dyn InterruptLine>) -> Result<(), TooManyDevices> {
        let hvc = Arc::new(Mutex::new(VirtioMmio::new(VirtioConsole::new(self.console.clone()), line)));
        self.hvc = Some(hvc.clone());
        self.add_shared(hvc)
    }

    fn add_shared<D: MutDeviceMmio + Send + 'static>(
        &mut self,
        device: Arc<Mutex<D>>,
    ) -> Result<(), TooManyDevices> {
        if self.virtio >= layout::VIRTIO_TRANSPORTS {
            return Err(TooManyDevices);
        }
        let registers = layout::virtio(layout::transport(self.virtio));
        // In the place of the empty one.
        let _: Option<_> = self.bus.deregister_mmio(MmioAddress(registers.start));
        self.put(registers, device);
        self.virtio += 1;
        Ok(())
    }

    fn put<D: MutDeviceMmio + Send + 'static>(&mut self, registers: Range<u64>, device: Arc<Mutex<D>>) {
        let Range { start, end } = registers;
        if let Ok(range) = MmioRange::new(MmioAddress(start), end - start) {
            // The layout's ranges do not overlap (a test of this module).
            let _: Result<(), bus::Error> = self.bus.register_mmio(range, device);
        }
    }

    /// When the RTC raises its interrupt, if the guest waits for it: seconds of its [`Clock`]. [`Board::tick`] then.
    pub fn alarm(&self) -> Option<u64> {
        lock(&self.rtc).alarm()
    }

    /// Does what the time asks for.
    pub fn tick(&self) {
        lock(&self.rtc).update();
    }

    /// The console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Types this on the guest's console, the virtio console if a driver has taken it, else the UART: how many
    /// bytes there was room for. What is for the virtio console gets there by [`Board::process`].
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        if let Some(mut hvc) = self.hvc.as_deref().map(lock).filter(|hvc| hvc.is_driven()) {
            let taken = hvc.device().receive(bytes);
            hvc.notify(VirtioConsole::<Console>::RECEIVE);
            return taken;
        }
        lock(&self.uart).receive(bytes)
    }

    /// True if a driver waits for what is typed, on the virtio console or by the UART's interrupt.
    pub fn is_listened_to(&self) -> bool {
        self.hvc.as_deref().is_some_and(|hvc| lock(hvc).is_driven()) || lock(&self.uart).is_listened_to()
    }

    /// True if there is something to [`process`](Board::process).
    pub fn is_notified(&self) -> bool {
        self.hvc.as_deref().is_some_and(|hvc| lock(hvc).is_notified())
            || self.disks.iter().any(|disk| lock(disk).is_notified())
    }

    /// Does what is in the virtio queues that there was notice of since the last time, in guest memory.
    pub fn process<M: DeviceMemory>(&self, memory: &M) {
        if let Some(hvc) = &self.hvc {
            lock(hvc).process(memory);
        }
        for disk in &self.disks {
            lock(disk).process(memory);
        }
    }

    /// The bad pages.
    pub fn ledger(&self) -> &Arc<Keeper> {
        &self.ledger
    }

    /// The guest is told of the board by ACPI.
    pub fn set_acpi(&mut self) {
        self.acpi = true;
    }

    /// The CPUs have EL2, which the guest is to be told of.
    pub(crate) fn set_el2(&mut self) {
        self.el2 = true;
    }

    /// True if the CPUs have EL2.
    pub(crate) fn has_el2(&self) -> bool {
        self.el2
    }

    /// True if a device answers an access.
    pub(crate) fn answers(&self, mmio: &MmioExit) -> bool {
        self.bus.mmio_device(MmioAddress(mmio.phys_addr)).is_some()
    }

    /// True if the guest is told of the board by ACPI.
    pub fn has_acpi(&self) -> bool {
        self.acpi
    }

    /// The guest looks here for records of memory errors.
    ///
    /// # Errors
    /// If it is not in its memory.
    pub fn set_records(&self, memory: &dyn RecordMemory, region: GhesRegion) -> Result<(), RecordError> {
        let mut ghes = Ghes::new(region);
        ghes.reset(memory)?;
        lock(&self.containment).set_records(Some(ghes));
        Ok(())
    }

    /// See [`Containment::set_patience`].
    pub fn set_patience(&self, patience: Duration) {
        lock(&self.containment).set_patience(patience);
    }

    /// See [`Containment::set_host`]: there is none.
    pub fn set_untold(&self) {
        lock(&self.containment).set_host(None);
    }

    /// Does what an exit of a vCPU asks for; if [`Board::is_notified`] then, [`Board::process`] has the rest.
    ///
    /// # Errors
    /// As [`Containment::refuse`].
    pub fn serve<V: Vcpu>(
        &self,
        vcpu: &mut V,
        exit: &Exit,
        now: &Now,
    ) -> Result<Served, ContainError<V::Error>> {
        let end = match exit {
            Exit::Mmio(mmio) => self.access(vcpu, mmio, now)?,
            Exit::Nisv(nisv) => self.access_without_syndrome(vcpu, nisv, now)?,
            Exit::Sea(sea) => return Ok(Served::MemoryError(Source::Sea(*sea))),
            Exit::Sigbus(sigbus) => return Ok(Served::MemoryError(Source::Sigbus(*sigbus))),
            Exit::SystemEvent(event) => Some(self.system_event(*event)),
            Exit::Intr => None,
            Exit::Idle => {
                self.does_something_else();
                Some(End::Idle)
            }
            Exit::Other(reason) => Some(End::Unknown(*reason)),
            _ => Some(End::Unknown(u32::MAX)),
        };
        Ok(end.map_or(Served::Done, Served::End))
    }

    /// Contains a memory error ([`Containment::contain`]), and tells the observer of it. Gives how the guest ended, if it did.
    ///
    /// # Errors
    /// As [`Containment::contain`].
    pub fn contain<V: Inject>(
        &self,
        vcpu: &mut V,
        source: &Source,
        memory: &dyn RecordMemory,
        now: &Now,
    ) -> Result<Option<End>, ContainError<V::Error>> {
        let contained = lock(&self.containment).contain(vcpu, source, Some(memory), now)?;
        match contained {
            Contained::Error(Outcome { action: Action::Waiting, .. }) => {
                // The guest has records to read yet: by its other vCPUs.
                thread::yield_now();
                Ok(None)
            }
            Contained::Error(outcome) => {
                if let Some(report) = ErrorReport::new(&outcome, now) {
                    self.console.memory_error(&report, &outcome);
                }
                Ok(match outcome.action {
                    Action::Stop(reason) => Some(End::Stopped(reason)),
                    Action::DryRun(_) => Some(End::DryRun),
                    _ => None,
                })
            }
            Contained::NotGuests(sigbus) => Ok(sigbus.action_required.then_some(End::HostMemory(sigbus))),
            Contained::Found(_) => Ok(None),
        }
    }

    /// Brings the gauges up to date ([`telemetry::records`]), for a recorder of `metrics` that is asked for them now.
    ///
    /// # Errors
    /// If the guest's memory cannot be read.
    pub fn gauge(&self, memory: &dyn RecordMemory) -> Result<(), RecordError> {
        self.ledger.with(telemetry::ledger);
        match lock(&self.containment).records() {
            Some(ghes) => telemetry::records(ghes, memory),
            None => Ok(()),
        }
    }

    fn system_event(&self, event: SystemEvent) -> End {
        match event {
            SystemEvent::Shutdown => End::PowerOff,
            SystemEvent::Reset => self.panicked().unwrap_or(End::Reset),
            event => End::Event(event),
        }
    }

    fn panicked(&self) -> Option<End> {
        self.console.panic().map(|message| End::Panic { message })
    }
}

/// A thread that panicked does not take the device with it.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("virtio", &self.virtio).finish_non_exhaustive()
    }
}
