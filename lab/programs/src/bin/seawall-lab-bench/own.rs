//! Our own minimal VMM for the same guest: a vCPU's thread that contains errors.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use seawall::apei::ghes::Ghes;
use seawall::ledger::Keeper;
use seawall::{Action, AddressMap, Containment, Delivery, MemoryRegion, Now, Rules, Source};
use seawall_events::Reg;
use seawall_inject::{Exit, Inject, SystemEvent, Vcpu as _};
use seawall_kvm::{
    Bytes as _, GuestAddress, GuestMemoryMmap, GuestMemoryRegion as _, Kvm, Vcpu, Vm, VmConfig,
};
use vm_memory::GuestMemoryBackend as _;

use seawall_lab::peer::conductor::{Conductor, SOURCES, memory};
use seawall_lab::peer::image::{FIRMWARE, FIRMWARE_SIZE, PAGE, PAGES, RAM_SIZE, image};

use crate::guest::unexpected;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The VMM's state for containment.
pub(crate) struct Contained {
    pub(crate) containment: Containment,
    pub(crate) ledger: Arc<Keeper>,
    pub(crate) memory: GuestMemoryMmap,
}

impl Contained {
    /// Containment for this memory, with free sources of errors in it.
    pub(crate) fn new(memory: &GuestMemoryMmap, mut sources: Ghes) -> Result<Self> {
        let regions = memory.iter().map(|region| MemoryRegion {
            guest: region.start_addr().0,
            host: region.as_ptr() as u64,
            size: region.len(),
        });
        sources.reset(memory)?;
        let ledger = Arc::new(Keeper::default());
        let mut containment = Containment::new(Rules::FULL)
            .with_addresses(AddressMap::new(regions)?)
            .with_ledger(ledger.clone());
        containment.set_records(Some(sources));
        Ok(Self { containment, ledger, memory: memory.clone() })
    }

    /// Contains an exit until the vCPU can run again: decides, enters the ledger, records, injects.
    pub(crate) fn contain<V: Inject>(
        &mut self,
        vcpu: &mut V,
        source: &Source,
        now: Duration,
    ) -> Result<Action> {
        let contained = self.containment.contain(vcpu, source, Some(&self.memory), &Now::new(0, now))?;
        match contained.outcome() {
            Some(outcome) => Ok(outcome.action),
            None => Err(unexpected("an error of the guest's", &contained)),
        }
    }
}

/// Returns true if the guest is at its handler.
pub(crate) fn is_at_vector(action: &Action) -> bool {
    matches!(action, Action::Injected { guest: Delivery::AtVector { .. }, .. })
}

/// The guest in its own thread.
pub(crate) struct Own {
    thread: JoinHandle<std::result::Result<(), String>>,
    /// The guest's RAM, seen from outside the VMM.
    pub(crate) memory: GuestMemoryMmap,
}

impl Own {
    /// Starts it; the guest waits for commands.
    pub(crate) fn start(file: &File, pages: u64) -> Result<Self> {
        file.set_len(RAM_SIZE as u64)?;
        let outside = memory(file, None)?;
        Conductor::prepare(&outside, pages)?;
        let inside = memory(file, Some(FIRMWARE_SIZE))?;
        inside.write_slice(&image()?, GuestAddress(FIRMWARE))?;
        let vm = Kvm::open()?.create_vm(inside.clone(), VmConfig::default())?;
        let mut vcpu = vm.create_vcpu(0)?;
        vcpu.set_reg(Reg::Pc, FIRMWARE)?;
        let mut contained = Contained::new(&inside, Ghes::new(SOURCES))?;
        let thread = std::thread::spawn(move || {
            let _vm = vm;
            run(&mut vcpu, &mut contained).map_err(|error| error.to_string())
        });
        Ok(Self { thread, memory: outside })
    }

    /// Gives its guest commands.
    pub(crate) fn conduct<T>(&self, act: impl FnOnce(&mut Conductor<'_>) -> Result<T>) -> Result<T> {
        let mut is_alive = || if self.has_ended() { Err("our own VMM ended early".into()) } else { Ok(()) };
        act(&mut Conductor::new(&self.memory, &mut is_alive))
    }

    /// Returns true if the guest has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, after the guest was told to power off or ended early; returns the reason.
    pub(crate) fn end(self) -> Result<()> {
        Ok(self.thread.join().map_err(|_| "our own VMM's thread panicked")??)
    }
}

fn run(vcpu: &mut Vcpu, contained: &mut Contained) -> Result<()> {
    let start = Instant::now();
    loop {
        let source = match vcpu.run()? {
            Exit::Sea(sea) => Source::Sea(sea),
            Exit::Sigbus(sigbus) => Source::Sigbus(sigbus),
            Exit::SystemEvent(SystemEvent::Shutdown) => return Ok(()),
            other => return Err(unexpected("bad memory, or the end", &other)),
        };
        let action = contained.contain(vcpu, &source, start.elapsed())?;
        if !is_at_vector(&action) {
            return Err(unexpected("the guest at its handler", &action));
        }
    }
}

/// A mapping of a guest's RAM for making its pages bad: a VM without a vCPU, which has the functions for it.
pub(crate) struct Poisoner(Vm);

impl Poisoner {
    pub(crate) fn new(file: &File) -> Result<Self> {
        let config = VmConfig { sea_to_user: false, nisv_to_user: false, ..VmConfig::default() };
        Ok(Self(Kvm::open()?.create_vm(memory(file, None)?, config)?))
    }

    /// `MADV_HWPOISON` on each of these pages.
    pub(crate) fn poison(&self, pages: u64) -> Result<()> {
        for page in 0..pages {
            // This mapping's page tables must have the page: an absent one is fetched first.
            let _: u64 = self.0.memory().read_obj(GuestAddress(PAGES + page * PAGE))?;
            self.0.hwpoison(PAGES + page * PAGE, PAGE)?;
        }
        Ok(())
    }
}
