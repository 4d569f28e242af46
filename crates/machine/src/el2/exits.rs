//! The exits of a guest of EL2, recorded while it runs: why EL1 or EL0 left for EL2, and what EL2 spent until it went back.
//!
//! A record changes nothing of the run: it is no part of the state, and steps are the machine's own.

use seawall_arm::{Esr, Exception, ExceptionClass, Vector};

use crate::cpu::Cpu;
use crate::vm::Vm;

/// An exit, from the exception that EL2 took to the return to EL1 or EL0 below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestExit {
    /// The CPU's number.
    pub cpu: usize,
    /// The machine's steps of all CPUs in front of the exit ([`Vm::instructions`]).
    pub instructions: u64,
    /// The machine's time at the exit ([`Vm::time`]), nanoseconds.
    pub time: u64,
    /// The vector of EL2 that it went to.
    pub vector: Vector,
    /// ESR_EL2; of an interrupt there is none.
    pub esr: Option<Esr>,
    /// FAR_EL2, if the exception set it.
    pub far: Option<u64>,
    /// HPFAR_EL2, if it was an abort of the guest's.
    pub hpfar: Option<u64>,
    /// ELR_EL2: the guest's PC.
    pub pc: u64,
    /// Steps of the CPU in the guest, since it last went there.
    pub guest_steps: u64,
    /// Steps of the CPU from the exit to the return to a guest.
    pub host_steps: u64,
    /// Time from the exit to the return, nanoseconds: more than the steps if the CPU waited, or others ran.
    pub host_time: u64,
    /// EL0 below EL2 ran in between: the exit went to user space.
    pub to_user_space: bool,
}

/// What is recorded on one CPU.
#[derive(Debug, Default)]
pub(crate) struct ExitLog {
    done: Vec<GuestExit>,
    open: Option<GuestExit>,
    /// The CPU's steps when it last went to a guest.
    entered_at: u64,
    /// The machine's steps less this CPU's, in its turn.
    others: u64,
}

impl ExitLog {
    /// EL0 below EL2 runs.
    pub(super) fn user_space(&mut self) {
        if let Some(exit) = &mut self.open {
            exit.to_user_space = true;
        }
    }

    /// The CPU goes to a guest.
    pub(super) fn enters(&mut self, steps: u64, time: u64) {
        self.entered_at = steps;
        if let Some(mut exit) = self.open.take() {
            exit.host_steps = steps.wrapping_sub(exit.host_steps);
            exit.host_time = time.wrapping_sub(exit.host_time);
            self.done.push(exit);
        }
    }

    fn restart(&mut self, steps: u64) {
        (self.open, self.entered_at) = (None, steps);
    }
}

impl Cpu {
    fn exit_log(&mut self) -> Option<&mut ExitLog> {
        self.el2.as_mut().and_then(|el2| el2.exits.as_deref_mut())
    }

    /// Records that the CPU left its guest by this exception, which it has taken.
    pub(super) fn note_guest_exit(&mut self, exception: &Exception) {
        let (steps, time) = (self.steps.wrapping_add(self.elapsed), self.time());
        let pc = self.sys.elr;
        let Some(el2) = &mut self.el2 else { return };
        let hpfar = el2.registers.hpfar;
        let Some(log) = &mut el2.exits else { return };
        let is_abort = exception.esr.is_some_and(|esr| {
            matches!(esr.ec(), ExceptionClass::DATA_ABORT_LOWER | ExceptionClass::INSTRUCTION_ABORT_LOWER)
        });
        log.open = Some(GuestExit {
            cpu: 0,
            instructions: log.others.wrapping_add(steps),
            time,
            vector: exception.vector,
            esr: exception.esr,
            far: exception.far,
            hpfar: is_abort.then_some(hpfar),
            pc,
            guest_steps: steps.wrapping_sub(log.entered_at),
            host_steps: steps,
            host_time: time,
            to_user_space: false,
        });
    }
}

impl Vm {
    /// Begins to record the exits of guests of EL2, on a machine that has it; a [reset](Vm::reset) ends it. The record is no
    /// part of a snapshot; going back to one leaves it on.
    pub fn begin_exit_trace(&mut self) {
        for cpu in &mut self.cpus {
            if let Some(el2) = &mut cpu.el2 {
                el2.exits = Some(Box::default());
            }
        }
        self.restart_exit_trace();
    }

    /// The machine's state is another: an exit that was open there is not known.
    pub(crate) fn restart_exit_trace(&mut self) {
        for cpu in &mut self.cpus {
            let steps = cpu.steps;
            if let Some(log) = cpu.exit_log() {
                log.restart(steps);
            }
        }
        self.note_steps_of_others();
    }

    /// The exits that are complete since the last call, in the order of their time.
    pub fn take_exits(&mut self) -> Vec<GuestExit> {
        let mut exits = Vec::new();
        for (number, cpu) in self.cpus.iter_mut().enumerate() {
            let done = cpu.exit_log().map(|log| std::mem::take(&mut log.done)).unwrap_or_default();
            exits.extend(done.into_iter().map(|exit| GuestExit { cpu: number, ..exit }));
        }
        exits.sort_by_key(|exit| exit.time);
        exits
    }

    /// Brings up to date what each CPU's record knows of the others' steps.
    pub(crate) fn note_steps_of_others(&mut self) {
        let all = self.instructions();
        for cpu in &mut self.cpus {
            let own = cpu.steps;
            if let Some(log) = cpu.exit_log() {
                log.others = all.wrapping_sub(own);
            }
        }
    }
}
