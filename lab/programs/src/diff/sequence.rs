//! A sequence: an initial state, and steps.

use std::fmt;

use seawall_arm::{Pstate, Reg};
use seawall_events::wire::VCPU_EVENTS_SIZE;
use seawall_events::{Abi, VcpuEvents};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `KVM_SET_VCPU_EVENTS` with these bytes.
    Events([u8; VCPU_EVENTS_SIZE]),
    /// `KVM_SET_ONE_REG`.
    Write(Reg, u64),
    /// Answers the waiting load.
    Answer([u8; 8]),
    /// `KVM_RUN` to the next exit, from the current PC.
    Run,
    /// `KVM_RUN` with `immediate_exit`.
    RunImmediate,
    /// `KVM_ARM_VCPU_INIT`, and the initial state again.
    Reset,
}

/// An initial state, and steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The VM's ABI.
    pub abi: Abi,
    /// True if the vCPU never ran before.
    pub fresh: bool,
    /// True if every register is compared at the end.
    pub thorough: bool,
    /// The address of the last abort before the sequence, unless `fresh`.
    pub scratch: u64,
    /// Every register, in writing order.
    pub start: Vec<(Reg, u64)>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// PSTATE and SPSR with the names of their bits, the others as numbers.
pub(super) fn show(reg: Reg, value: u64) -> String {
    match reg {
        Reg::Pstate | Reg::SpsrEl1 | Reg::SpsrEl2 | Reg::SpsrAbt => {
            format!("{:?} {:?}", reg, Pstate::from_bits(value))
        }
        _ => format!("{reg:?} {value:#x}"),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(bytes) => {
                write!(f, "KVM_SET_VCPU_EVENTS {:02x?}", &bytes[..8])?;
                for (offset, word) in bytes.chunks_exact(8).enumerate().skip(1) {
                    if word.iter().any(|byte| *byte != 0) {
                        let word = word.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
                        write!(f, " @{}: {word:#x}", offset * 8)?;
                    }
                }
                Ok(())
            }
            Self::Write(reg, value) => write!(f, "set {}", show(*reg, *value)),
            Self::Answer(data) => write!(f, "answer the load with {data:02x?}"),
            Self::Run => f.write_str("KVM_RUN"),
            Self::RunImmediate => f.write_str("KVM_RUN with immediate_exit"),
            Self::Reset => f.write_str("KVM_ARM_VCPU_INIT, and the state to begin with"),
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abi = if self.abi == Abi::Mainline { "mainline" } else { "extended" };
        let vcpu = if self.fresh { "a vCPU that never ran" } else { "a vCPU that ran before" };
        writeln!(f, "{abi} ABI, {vcpu}, last abort at {:#x}; registers that are not 0:", self.scratch)?;
        for (reg, value) in self.start.iter().filter(|(_, value)| *value != 0) {
            writeln!(f, "  {}", show(*reg, *value))?;
        }
        for (n, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", n + 1)?;
            if let Step::Events(bytes) = step {
                if let Ok(events) = VcpuEvents::from_bytes(self.abi, bytes) {
                    writeln!(f, "     {events:?}")?;
                }
            }
        }
        Ok(())
    }
}
