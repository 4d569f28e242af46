//! One guest on the software machine, with its memory errors and what is done about them.

use std::time::Duration;

use seawall::{Action, ContainError, Containment, Outcome, Policy, StopReason};
use seawall_arm::Esr;
use seawall_events::{Exit, MmioExit, NisvExit, Reg, SystemEvent, Vcpu};
use seawall_machine::Error;
use seawall_machine::board::Board;

use crate::parse::Poison;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The limit of instructions is reached.
    Limit,
    /// The guest waits for an interrupt, and nothing can raise one.
    Idle,
    /// The guest took the same abort for ever.
    Storm(StopReason),
    /// The guest takes an exception at the first instruction of its own vector, for ever.
    BadVector {
        /// PC, `ELR_EL1` and the vector: all the same address.
        pc: u64,
        /// `ESR_EL1`.
        esr: Esr,
    },
    /// The guest accessed a device that is not there.
    NoDevice(MmioExit),
    /// The same, by an instruction whose syndrome does not say what it does.
    NoSyndrome(NisvExit),
    /// The guest asked for something else by PSCI.
    Event(SystemEvent),
}

/// What a slice of a session ended with.
pub(crate) enum Pause {
    /// The slice of instructions is spent; the guest can go on.
    Slice,
    /// A memory error was handled; the guest can go on.
    Error(Outcome),
    /// The session is over.
    End(End),
}

/// A guest, a policy, and the memory that will go bad.
pub(crate) struct Session<'p> {
    board: Board,
    containment: Containment<&'p dyn Policy>,
    /// In the order of their time.
    poison: Vec<Poison>,
}

impl<'p> Session<'p> {
    /// A loaded guest.
    pub(crate) fn new(board: Board, policy: &'p dyn Policy, mut poison: Vec<Poison>) -> Self {
        poison.sort_by_key(|poison| poison.after);
        Self { board, containment: Containment::new(policy), poison }
    }

    /// The machine and its devices.
    pub(crate) fn board(&mut self) -> &mut Board {
        &mut self.board
    }

    /// What the guest wrote to its console since this was asked last.
    pub(crate) fn console(&mut self) -> Vec<u8> {
        self.board.take_console()
    }

    /// Instructions executed so far.
    pub(crate) fn instructions(&self) -> u64 {
        self.board.instructions()
    }

    /// Runs until something happens, but not past `limit` instructions in all and not more than `slice`
    /// at once.
    pub(crate) fn run(&mut self, slice: u64, limit: u64) -> Result<Pause, ContainError<Error>> {
        let now = self.instructions();
        while let Some(first) = self.poison.first().filter(|first| first.after <= now) {
            self.board.vm_mut().poison(first.range.clone()).map_err(ContainError::Vcpu)?;
            self.poison.remove(0);
        }
        if now >= limit {
            return Ok(Pause::End(End::Limit));
        }
        let next_poison = self.poison.first().map_or(u64::MAX, |next| next.after - now);
        self.board.set_budget(Some(slice.min(limit - now).min(next_poison)));
        let end = match self.board.run()? {
            Exit::Intr => match self.bad_vector().map_err(ContainError::Vcpu)? {
                Some(end) => end,
                None => return Ok(Pause::Slice),
            },
            Exit::Sea(sea) => {
                // A step is a nanosecond of the guest's own clock.
                let now = Duration::from_nanos(self.instructions());
                let outcome = self.containment.handle(&mut self.board.vcpu()?, &sea, now)?;
                match outcome.action {
                    Action::Stop(reason) => End::Storm(reason),
                    Action::Injected { .. } => return Ok(Pause::Error(outcome)),
                }
            }
            Exit::SystemEvent(SystemEvent::Shutdown) => End::PowerOff,
            Exit::SystemEvent(SystemEvent::Reset) => End::Reset,
            Exit::SystemEvent(event) => End::Event(event),
            Exit::Mmio(mmio) => End::NoDevice(mmio),
            Exit::Nisv(nisv) => End::NoSyndrome(nisv),
            _ => End::Idle,
        };
        Ok(Pause::End(end))
    }

    /// Whether the guest is at a vector that itself aborts: PC is in the vectors and `ELR_EL1` is PC. The
    /// same exception comes again then, and nothing changes but by poison that is still to come.
    fn bad_vector(&mut self) -> Result<Option<End>, Error> {
        const FROM_SAME_LEVEL: [u64; 2] = [0x000, 0x200];
        let no_poison_to_come = self.poison.is_empty();
        let vcpu = self.board.vcpu()?;
        let (pc, elr, vbar) = (vcpu.reg(Reg::Pc)?, vcpu.reg(Reg::ElrEl1)?, vcpu.reg(Reg::VbarEl1)?);
        let at_own_vector = FROM_SAME_LEVEL.contains(&pc.wrapping_sub(vbar & !0x7ff));
        if pc != elr || !at_own_vector || !no_poison_to_come {
            return Ok(None);
        }
        Ok(Some(End::BadVector { pc, esr: Esr::from_bits(vcpu.reg(Reg::EsrEl1)?) }))
    }

    /// How many ranges have not gone bad yet.
    pub(crate) fn poison_to_come(&self) -> usize {
        self.poison.len()
    }

    /// PC, to say where a guest is that does not go on.
    pub(crate) fn pc(&mut self) -> Result<u64, Error> {
        self.board.vcpu()?.reg(Reg::Pc)
    }
}
