//! One sequence on the model and on a subject, compared after each step.

use std::fmt::Write as _;
use std::sync::Arc;

use seawall_arm::{ExceptionClass, Pstate, Reg, Registers as _};
use seawall_events::{Abi, NisvExit};
use seawall_inject::{Delivery, Exit};

use super::sequence::show;
use super::{Code, Cpu, Guest, Model, Ran, Sequence, Set, Step, Subject, compared, written};

/// A difference between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of steps before it; one more than there are if it showed only in the full comparison at the
    /// end.
    pub after: usize,
    /// The differing values, the model's first.
    pub what: Vec<String>,
    /// The steps before.
    pub trace: String,
}

/// The result of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The difference, if there is one.
    pub difference: Option<Difference>,
    /// The number of runs that ended in an exit.
    pub runs: u32,
    /// The number of steps that the model could not predict, and that were left out on both sides.
    pub left_out: u32,
}

/// Plays a sequence on both. `trace`: records the steps, which takes more calls.
///
/// # Errors
/// A call on the subject that must not fail.
pub fn play(
    cpu: &Arc<Cpu>,
    code: &Arc<Code>,
    sequence: &Sequence,
    subject: &mut impl Subject,
    trace: bool,
) -> Result<Played, String> {
    let model = Model::new(Arc::clone(cpu), Arc::clone(code), sequence.abi);
    let trace = trace.then(String::new);
    let mut both = Both { model, subject, sequence, trace, what: Vec::new() };
    let mut played = Played { difference: None, runs: 0, left_out: 0 };
    both.begin()?;
    both.compare(compared(cpu.guest))?;
    for (n, step) in sequence.steps.iter().enumerate() {
        if !both.what.is_empty() {
            played.difference = Some(both.difference(n));
            return Ok(played);
        }
        match both.step(step)? {
            Outcome::Done => {}
            Outcome::Wrote => continue,
            Outcome::Ran => played.runs += 1,
            Outcome::LeftOut => {
                played.left_out += 1;
                continue;
            }
        }
        both.compare(compared(cpu.guest))?;
    }
    let mut after = sequence.steps.len();
    if both.what.is_empty() && sequence.thorough {
        after += 1;
        let there = |reg: &Reg| cpu.config.sctlr2 || !matches!(reg, Reg::Sctlr2El1 | Reg::Sctlr2El2);
        both.compare(written(cpu.guest).filter(there))?;
    }
    played.difference = (!both.what.is_empty()).then(|| both.difference(after));
    Ok(played)
}

enum Outcome {
    Done,
    /// Only the written register changed.
    Wrote,
    Ran,
    LeftOut,
}

struct Both<'a, S> {
    model: Model,
    subject: &'a mut S,
    sequence: &'a Sequence,
    trace: Option<String>,
    what: Vec<String>,
}

impl<S: Subject> Both<'_, S> {
    fn begin(&mut self) -> Result<(), String> {
        self.subject.begin(self.sequence.fresh, self.sequence.scratch)?;
        if !self.sequence.fresh {
            self.model.aborted_at(self.sequence.scratch);
        }
        self.write_start()
    }

    fn write_start(&mut self) -> Result<(), String> {
        for (reg, value) in &self.sequence.start {
            self.subject.set_reg(*reg, *value)?;
            self.model.write(*reg, *value);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, String> {
        let (outcome, how) = match step {
            Step::Events(bytes) if self.model.may_change_context(bytes) => {
                if let Some(trace) = &mut self.trace {
                    let _ = writeln!(trace, "  {step}: left out, the guest hypervisor may take it");
                }
                return Ok(Outcome::LeftOut);
            }
            Step::Events(bytes) => {
                let before = self.place();
                let (ours, theirs) = (self.model.set(bytes), self.subject.set_events(bytes));
                self.compare_set(before, ours, theirs);
                (Outcome::Done, format!("errno {}", theirs.errno))
            }
            Step::Write(reg, value) => {
                self.subject.set_reg(*reg, *value)?;
                self.model.write(*reg, *value);
                (Outcome::Wrote, String::new())
            }
            Step::Answer(data) => {
                self.subject.answer(*data);
                Subject::answer(&mut self.model, *data);
                (Outcome::Wrote, String::new())
            }
            Step::Run | Step::RunImmediate => {
                let immediate = *step == Step::RunImmediate;
                let before = self.model.clone();
                let ours = match self.model.go(immediate) {
                    Ran::Exit(exit) => exit,
                    Ran::Unpredictable(why) => {
                        self.model = before;
                        if let Some(trace) = &mut self.trace {
                            let _ = writeln!(trace, "  {step}: left out, {why:?}");
                        }
                        return Ok(Outcome::LeftOut);
                    }
                };
                let theirs = self.subject.run(immediate);
                let how = if self.trace.is_some() { format!("{theirs:x?}") } else { String::new() };
                let theirs = theirs.map(without_level);
                if theirs != Ok(without_level(ours)) {
                    self.what.push(format!("exit: model {ours:x?}, kernel {theirs:x?}"));
                }
                (Outcome::Ran, how)
            }
            Step::Reset => {
                self.subject.reset()?;
                Subject::reset(&mut self.model)?;
                self.write_start()?;
                (Outcome::Done, String::new())
            }
        };
        if let Some(trace) = &mut self.trace {
            let [pc, pstate] = [Reg::Pc, Reg::Pstate].map(|reg| self.subject.reg(reg));
            let (pc, pstate) = (show(Reg::Pc, pc?), show(Reg::Pstate, pstate?));
            let _ = writeln!(trace, "  {step}: {how}; then {pc}, {pstate}");
        }
        Ok(outcome)
    }

    /// PC and PSTATE of the model.
    fn place(&self) -> [u64; 2] {
        [Reg::Pc, Reg::Pstate].map(|reg| self.model.vcpu.reg(reg))
    }

    fn compare_set(&mut self, before: [u64; 2], ours: Set, theirs: Set) {
        if ours.errno != theirs.errno {
            self.what.push(format!("errno: model {}, kernel {}", ours.errno, theirs.errno));
        }
        // The limit that `Injector` states: an SError whose vector is where the vCPU was already is taken for the one that
        // is pending beside it. With EASE an abort of the same SET has brought the vCPU there.
        let waits = self.model.vcpu.serror.pending || self.model.vcpu.serror.held_for_el2;
        let is_unseen = match (ours.delivery, theirs.delivery) {
            (Some(Delivery::AtVector { .. }), Some(Delivery::SErrorPending)) => self.place() == before,
            (
                Some(Delivery::AtVector { pc, esr, .. }),
                Some(Delivery::AtVector { pc: abort, esr: seen, .. }),
            ) => {
                pc == abort
                    && esr.ec() == ExceptionClass::SERROR
                    && matches!(seen.ec(), ExceptionClass::DATA_ABORT_SAME | ExceptionClass::DATA_ABORT_LOWER)
            }
            _ => false,
        } && waits;
        // The kernel itself says none: the registers are compared.
        let is_said = theirs.delivery.is_some() || theirs.errno != 0 || self.sequence.abi != Abi::Mainline;
        if is_said && ours.delivery != theirs.delivery && !is_unseen {
            self.what.push(format!("delivery: model {:x?}, kernel {:x?}", ours.delivery, theirs.delivery));
        }
    }

    /// Takes from the subject what the model cannot know of the last run: the differences between the CPU's
    /// own entry and KVM's, where it may have been either; the syndrome of an SError, if the CPU has no RAS.
    fn settle(&mut self) -> Result<(), String> {
        const ISS: u64 = 0x1ff_ffff;
        const AET_EXT: u64 = 0xd000;
        let cpu = Arc::clone(&self.model.cpu);
        let entry = cpu.entry_sets | cpu.entry_loses | Pstate::PAN | Pstate::SSBS;
        let mut unknown = Vec::new();
        if std::mem::take(&mut self.model.by_either) {
            unknown = vec![(Reg::Pstate, entry), (Reg::SpsrEl1, !cpu.pstate), (Reg::SpsrEl2, !cpu.pstate)];
        }
        if std::mem::take(&mut self.model.by_cpu) && !cpu.config.ras {
            unknown.push((Reg::EsrEl1, if cpu.guest == Guest::Aarch32 { AET_EXT } else { ISS }));
        }
        for (reg, bits) in unknown {
            let value = self.model.vcpu.reg(reg) & !bits | self.subject.reg(reg)? & bits;
            self.model.vcpu.set_reg(reg, value);
        }
        Ok(())
    }

    fn compare(&mut self, registers: impl Iterator<Item = Reg>) -> Result<(), String> {
        self.settle()?;
        for reg in registers {
            let (ours, theirs) = (self.model.vcpu.reg(reg), self.subject.reg(reg)?);
            // R0 to R14 have 32 bits. KVM's PSCI may leave more, until a core register is written.
            let r = self.model.cpu.guest == Guest::Aarch32 && matches!(reg, Reg::X(_));
            if if r { ours as u32 != theirs as u32 } else { ours != theirs } {
                self.what.push(format!("model {}, kernel {}", show(reg, ours), show(reg, theirs)));
            }
        }
        let (ours, theirs) = (self.model.events()?, self.subject.events()?);
        if ours != theirs {
            let [ours, theirs] = [ours, theirs].map(|bytes| Step::Events(bytes).to_string());
            self.what.push(format!("GET: model {ours}, kernel {theirs} (SET_ for GET_)"));
        }
        Ok(())
    }

    fn difference(&self, after: usize) -> Difference {
        let hidden = format!("  model: {:?}, {:?}\n", self.model.vcpu.serror, self.model.vcpu.last_fault);
        let trace = self.trace.iter().map(|trace| trace.clone() + &hidden).collect();
        Difference { after, what: self.what.clone(), trace }
    }
}

/// Removes the level of a stage 2 fault, which concerns only the host.
fn without_level(exit: Exit) -> Exit {
    match exit {
        Exit::Nisv(NisvExit { esr_iss, fault_ipa }) => {
            Exit::Nisv(NisvExit { esr_iss: esr_iss & !3, fault_ipa })
        }
        other => other,
    }
}
