//! A guest on the software machine: a slice is a number of instructions.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use seawall::ledger::Keeper;
use seawall_arm::Esr;
use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_vmm::{End, Guest, GuestExit, Snapshot, SoftwareMachine};
use serde_json::Value;

use super::ending::{Ending, Where};
use super::machine::{Machine, Slice};
use super::output::When;
use crate::{Failure, exit};

/// Instructions between two checks of the console.
const SLICE: u64 = 5_000_000;
/// The same while a user types: about a millisecond.
const KEY_SLICE: u64 = 200_000;

impl Machine for SoftwareMachine {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn run(&mut self, slice: Slice) -> Result<Option<End>, Failure> {
        let steps = if slice.is_typed_to { KEY_SLICE } else { SLICE };
        Ok(self.run(Some(steps.min(slice.instructions)))?)
    }

    fn waker(&self) -> Box<dyn Fn() + Send> {
        let kicker = self.kicker();
        Box::new(move || kicker.kick())
    }

    fn type_in(&mut self, bytes: &[u8]) -> usize {
        self.type_in(bytes)
    }

    fn reset(&mut self, guest: &Guest) -> Result<(), Failure> {
        Ok(self.reset(guest)?)
    }

    fn gauge(&mut self) {
        // A guest whose records are not in its memory learns of it at its next error.
        let _ = self.gauge();
    }

    fn ledger(&self) -> &Arc<Keeper> {
        self.ledger()
    }

    fn when(&self) -> When {
        When { time: Duration::from_nanos(self.time()), instructions: Some(self.instructions()) }
    }

    fn place(&mut self) -> Where {
        let (cpu, instructions) = (self.current_cpu(), self.instructions());
        let pc = self.vm_mut().vcpu(cpu).and_then(|vcpu| vcpu.reg(Reg::Pc)).ok();
        Where { pc, instructions: Some(instructions) }
    }

    /// The end of a guest whose running CPUs are all at a vector that itself aborts: PC is in the vectors and
    /// `ELR_EL1` is PC. The same exception then repeats, and only further poison can change anything.
    fn is_stuck(&mut self) -> Result<Option<Ending>, Failure> {
        const FROM_SAME_LEVEL: [u64; 2] = [0x000, 0x200];
        let mut ending = None;
        let vm = self.vm_mut();
        for cpu in 0..vm.cpu_count() {
            let vcpu = vm.vcpu(cpu)?;
            let reg = |reg| vcpu.reg(reg);
            let (pc, elr, vbar) = (reg(Reg::Pc)?, reg(Reg::ElrEl1)?, reg(Reg::VbarEl1)?);
            if !vcpu.is_on() {
                continue;
            }
            let is_there = pc == elr && FROM_SAME_LEVEL.contains(&pc.wrapping_sub(vbar & !0x7ff));
            if !is_there {
                return Ok(None);
            }
            ending = Some(Ending::BadVector { pc, esr: Esr::from_bits(reg(Reg::EsrEl1)?) });
        }
        Ok(ending)
    }

    fn poison(&mut self, range: Range<u64>) -> Result<(), Failure> {
        match self.poison(range) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new(exit::RANGE, error.to_string())),
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        Ok(self.snapshot()?)
    }

    fn trace_exits(&mut self) -> Result<(), Failure> {
        if !self.vm().config().el2 {
            let message = "--trace-exits: only a machine with EL2 has guests of its guest; give --el2";
            return Err(Failure::new(exit::USAGE, message));
        }
        self.vm_mut().begin_exit_trace();
        Ok(())
    }

    fn take_exits(&mut self) -> Vec<GuestExit> {
        self.vm_mut().take_exits()
    }

    fn report(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("guest_memory_touched", self.vm().memory().touched().into()),
            ("undefined_instructions", self.vm().undefined().count().into()),
        ]
    }
}
