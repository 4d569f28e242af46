//! A guest on real KVM: a thread for each vCPU, the kernel's GICv3, its timers and its PSCI.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use seawall::telemetry::Circumstances;
use seawall::{AddressMap, BadRegion, Region, Verdict};
use seawall_events::{Reg, Vcpu as _};
use seawall_kvm::{
    Gic, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, Kicker, Kvm, SpiLine, Vcpu, Vm,
};

use vm_memory::GuestMemoryRegion as _;

use crate::board::{Board, End, Served};
use crate::console::Observer;
use crate::devices::rtc::WallClock;
use crate::interrupt::InterruptLine;
use crate::load::Placement;
use crate::{Config, Error, Guest, layout};

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
    _gic: Gic,
    _vm: Vm,
}

impl KvmMachine {
    /// Makes the VM and loads the guest.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(config: Config, guest: &Guest, observer: Box<dyn Observer>) -> Result<Self, Error> {
        let cpus = config.checked_cpus()?;
        let size = config.checked_memory()?;
        let memory = memory(size)?;
        let vm = Kvm::open()?.create_vm(memory.clone(), seawall_kvm::Config::default())?;
        let vcpus = (0..cpus).map(|n| match n {
            0 => vm.create_vcpu(0),
            n => vm.create_vcpu_off(n.into()),
        });
        let mut vcpus = vcpus.collect::<Result<Vec<_>, _>>()?;
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
        let placement = guest.load(&memory, size, cpus, false, &board)?;
        if let Some(boot) = vcpus.first_mut() {
            for (reg, value) in [(Reg::Pc, placement.entry), (Reg::X(0), placement.fdt.start)] {
                boot.set_reg(reg, value)?;
            }
        }
        Ok(Self { vcpus, board, memory, placement, _gic: gic, _vm: vm })
    }

    /// Where the parts of the guest are.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The guest's memory; clones are the same memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The guest's console, to type on while it runs.
    pub fn keyboard(&self) -> Keyboard {
        Keyboard { board: self.board.clone(), memory: self.memory.clone() }
    }

    /// The guest's gauges, to be brought up to date while it runs.
    pub fn gauges(&self) -> Gauges {
        Gauges { board: self.board.clone(), memory: self.memory.clone() }
    }

    /// Runs the guest to its end, or for `limit`.
    ///
    /// # Errors
    /// [`Error`]: the first that one of the vCPUs met.
    pub fn run(self, limit: Option<Duration>) -> Result<End, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let start = Instant::now();
        let (say, said) = mpsc::channel();
        let threads: Result<Vec<_>, _> = (0..)
            .zip(self.vcpus)
            .map(|(number, vcpu)| {
                let (say, stop) = (say.clone(), stop.clone());
                let (board, memory) = (self.board.clone(), self.memory.clone());
                let thread = thread::Builder::new().name(format!("vcpu {number}"));
                thread.spawn(move || {
                    let run = || kicker(&say).and_then(|()| run(number, vcpu, &board, &memory, &stop, start));
                    let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Error::Panicked));
                    // Nobody listens any more if another vCPU ended the guest before.
                    let _ = say.send(Said::Ended(ended));
                })
            })
            .collect();
        drop(say);
        let (end, mut kickers) = match &threads {
            Ok(_) => wait(&said, limit.map(|limit| start + limit)),
            Err(_) => (Ok(End::TimeLimit), Vec::new()),
        };
        stop.store(true, Ordering::SeqCst);
        // A thread that has only now begun sees `stop` before its first run.
        kickers.extend(said.try_iter().filter_map(Said::kicker));
        kickers.iter().for_each(Kicker::kick);
        for thread in threads.map_err(Error::Thread)? {
            thread.join().map_err(|_| Error::Panicked)?;
        }
        end
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
enum Said {
    Runs(Kicker),
    Ended(Result<Option<End>, Error>),
}

impl Said {
    fn kicker(self) -> Option<Kicker> {
        match self {
            Self::Runs(kicker) => Some(kicker),
            Self::Ended(_) => None,
        }
    }
}

fn kicker(say: &mpsc::Sender<Said>) -> Result<(), Error> {
    let _ = say.send(Said::Runs(Kicker::of_this_thread()?));
    Ok(())
}

/// Waits for the first end, and collects the kickers meanwhile.
fn wait(said: &mpsc::Receiver<Said>, until: Option<Instant>) -> (Result<End, Error>, Vec<Kicker>) {
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
            Ok(Said::Ended(Ok(Some(end)))) => Ok(end),
            Ok(Said::Ended(Err(error))) => Err(error),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(End::TimeLimit),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::Panicked),
        };
        return (end, kickers);
    }
}

/// Runs one vCPU until the guest ends by it, or somebody stops it.
fn run(
    number: u32,
    mut vcpu: Vcpu,
    board: &Board,
    memory: &GuestMemoryMmap,
    stop: &AtomicBool,
    start: Instant,
) -> Result<Option<End>, Error> {
    while !stop.load(Ordering::SeqCst) {
        let exit = vcpu.run()?;
        let exited = Instant::now();
        let guest_time = exited.saturating_duration_since(start);
        let end = match board.serve(&mut vcpu, &exit, guest_time)? {
            Served::Done => None,
            Served::End(end) => Some(end),
            Served::MemoryError(mut decision) => {
                let time = SystemTime::now();
                board.record(memory, &mut decision, time).map_err(Error::Record)?;
                if decision.verdict == Verdict::Wait {
                    // The guest has records to read yet: by its other vCPUs.
                    thread::yield_now();
                }
                board.inject(&mut vcpu, decision, || Circumstances {
                    vcpu: number,
                    time: Some(time),
                    guest_time: Some(guest_time),
                    exit_to_injection: Some(exited.elapsed()),
                })?
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
