//! A guest goes to another VMM process, with the poison in its memory.
//!
//! Stop and copy: the guest stands still while it goes over. What is bad is not read. What turns out to be bad while it is
//! read, known to the host or not, does not end this process either ([`Vm::read`](seawall_kvm::Vm::read)); it goes over as
//! bad. On the other side it is a hole that aborts ([`Vm::make_holes`](seawall_kvm::Vm::make_holes)).
//!
//! ```no_run
//! use std::net::{TcpListener, TcpStream};
//! use std::time::SystemTime;
//! use seawall::migration::{HandoverError, Limits, hand_over};
//! use seawall_vmm::{Arriving, Error, KvmMachine};
//!
//! fn source(mut machine: KvmMachine, link: &TcpStream) -> Result<(), Error> {
//!     let result = machine.send(link, SystemTime::now());
//!     match result.and_then(|sent| Ok(hand_over(link, &sent.checksum)?)) {
//!         Ok(()) => Ok(()), // The guest is gone.
//!         Err(Error::Handover(lost @ HandoverError::Unknown(_))) => Err(lost.into()),
//!         Err(error) => {
//!             eprintln!("{error}: the guest goes on here");
//!             machine.run(None).map(|_| ())
//!         }
//!     }
//! }
//!
//! fn destination(listener: &TcpListener) -> Result<(), Box<dyn std::error::Error>> {
//!     let (link, _) = listener.accept()?;
//!     let arriving = Arriving::read(&link, &Limits::default())?;
//!     let config = arriving.config();
//!     let (machine, arrived) = arriving.receive(config, Box::new(()))?;
//!     arrived.take_over(&link)?;
//!     machine.run(None)?;
//!     Ok(())
//! }
//! ```

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use seawall::ledger::Ledger;
use seawall::migration::{Incoming, Limits, PageError, Received, Sent, send};
use seawall_kvm::{GuestMemoryBackend as _, SavedGic, SavedVcpu};
use vm_memory::{GuestMemoryError, GuestMemoryRegion as _};

use super::KvmMachine;
use crate::board::BoardState;
use crate::load::Placement;
use crate::{Config, Error, Observer};

/// What arrived with a guest: its ledger, and what makes it this side's.
pub type Arrived = Received;

/// What is of this VMM in the stream.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    memory: u64,
    placement: Placement,
    board: BoardState,
    vcpus: Vec<SavedVcpu>,
    gic: SavedGic,
    ran: Duration,
}

impl State {
    /// All but the [large parts](BoardState::large_parts) of the board, and behind that those.
    fn encode(&self) -> Vec<u8> {
        // Into memory it cannot fail.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        bytes.extend(self.board.large_parts());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut state, large_parts) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        state.board.set_large_parts(large_parts)?;
        Some(state)
    }
}

impl KvmMachine {
    /// Sends the guest, which stands still: configuration, devices, vCPUs, memory. What its ledger has is not read; what
    /// turns out to be bad meanwhile goes into it, as found at `time`.
    ///
    /// Then [`hand_over`](seawall::migration::hand_over) gives it away. Until that is done, and if it fails, the guest can
    /// go on here.
    ///
    /// # Errors
    /// [`Error::Send`] if the connection breaks, [`Error::Kvm`].
    pub fn send(&mut self, to: impl Write, time: SystemTime) -> Result<Sent, Error> {
        let mut ledger = self.board.ledger().with(Ledger::clone);
        let state = self.state()?.encode();
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| region.start_addr().0..region.start_addr().0.saturating_add(region.len()))
            .collect();
        let read = |gpa, pages: &mut [u8]| match self.kernel.vm.read(gpa, pages) {
            Ok(()) => Ok(()),
            Err(seawall_kvm::Error::BadMemory(_)) => Err(PageError::Bad),
            Err(_) => Err(GuestMemoryError::InvalidGuestAddress(seawall_kvm::GuestAddress(gpa)).into()),
        };
        let sent = send(to, &state, &regions, &mut ledger, read, time);
        self.board.ledger().replace(ledger);
        Ok(sent?)
    }

    fn state(&mut self) -> Result<State, Error> {
        let vcpus =
            self.kernel.vcpus.iter_mut().map(seawall_kvm::Vcpu::save).collect::<Result<Vec<_>, _>>()?;
        Ok(State {
            memory: self.memory.iter().map(vm_memory::GuestMemoryRegion::len).sum(),
            placement: self.placement.clone(),
            board: self.board.state(),
            gic: self.kernel.gic.save(&self.kernel.vcpus)?,
            vcpus,
            ran: self.ran,
        })
    }
}

/// A guest that is on its way to here: what it needs is known, its memory is yet to come.
#[derive(Debug)]
pub struct Arriving<R> {
    incoming: Incoming<R>,
    state: State,
}

impl<R: Read> Arriving<R> {
    /// Waits for what the guest needs.
    ///
    /// # Errors
    /// [`Error::Receive`], [`Error::OtherVmm`].
    pub fn read(from: R, limits: &Limits) -> Result<Self, Error> {
        let incoming = Incoming::read(from, limits)?;
        let state = State::decode(incoming.state()).ok_or(Error::OtherVmm)?;
        Ok(Self { incoming, state })
    }

    /// What a machine must have for the guest, but for its disks: a disk for each that it had, with the same in it.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.state.memory);
        config.cpus = self.state.vcpus.len() as u32;
        config.acpi = self.state.board.has_acpi();
        config.virtio_console = self.state.board.has_virtio_console();
        config
    }

    /// Receives the guest into a machine with this configuration, which must be like [`Arriving::config`]; policy and
    /// observer may be others. It is not to be run before [`Arrived::take_over`] has made it this side's.
    ///
    /// # Errors
    /// [`Error::OtherMachine`], [`Error::Receive`], [`Error::Kvm`] if this host's KVM has not what the guest needs: the
    /// other side then keeps it.
    pub fn receive(
        self,
        config: Config,
        observer: Box<dyn Observer>,
    ) -> Result<(KvmMachine, Arrived), Error> {
        let Self { incoming, state } = self;
        let State { memory, placement, board, vcpus, gic, ran } = state;
        if (config.memory, config.cpus as usize) != (memory, vcpus.len()) {
            return Err(Error::OtherMachine {
                snapshot: format!("{} vCPUs and {memory} bytes of RAM", vcpus.len()),
                machine: format!("{} vCPUs and {} bytes", config.cpus, config.memory),
            });
        }
        let mut machine = KvmMachine::empty(config, observer)?;
        machine.placement = placement;
        if !machine.board.can_be(&board) {
            return Err(Error::OtherMachine { snapshot: board.shape(), machine: machine.board.shape() });
        }
        let arrived = incoming.receive(&machine.memory)?;
        machine.kernel.vm.make_holes(&arrived.bad)?;
        machine.board.set_state(&board);
        machine.board.ledger().replace(arrived.ledger.clone());
        for (vcpu, state) in machine.kernel.vcpus.iter_mut().zip(&vcpus) {
            vcpu.restore(state)?;
        }
        machine.kernel.gic.restore(&gic, &machine.kernel.vcpus)?;
        machine.ran = ran;
        machine.counters = vcpus.into_iter().next();
        Ok((machine, arrived))
    }
}
