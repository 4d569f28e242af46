//! What happened: a SEA exit, with what the vCPU was doing.

use std::fmt;

use seawall_arm::{Esr, ExceptionLevel, FaultStatus, Pstate, Syndrome};
use seawall_events::SeaExit;

/// What the guest was doing when it met the bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Fetching an instruction.
    Fetch,
    /// Reading data.
    Load,
    /// Writing data.
    Store,
    /// Cache maintenance or address translation by instruction.
    Maintenance,
}

/// An uncorrectable memory error that a guest consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// The guest page, 4 KiB aligned, if the exit gave it and FnV was 0.
    pub gpa: Option<u64>,
    /// The guest virtual address, if FnV was 0: exact to the byte.
    pub gva: Option<u64>,
    /// What the guest was doing.
    pub access: Access,
    /// The lookup level, if the table walk met the error: the guest's page tables are bad, not its data.
    pub walk_level: Option<i8>,
    /// At which Exception level.
    pub level: ExceptionLevel,
    /// PC of the instruction, which has not retired.
    pub pc: u64,
    /// The ESR of the exit, as it came.
    pub esr: Esr,
}

impl MemoryError {
    /// The error that a SEA exit reports, at `pc` with `pstate`.
    pub fn from_sea(exit: &SeaExit, pc: u64, pstate: Pstate) -> Self {
        let access = match exit.esr.syndrome() {
            Syndrome::InstructionAbort(_) => Access::Fetch,
            Syndrome::DataAbort(abort) if abort.cm => Access::Maintenance,
            Syndrome::DataAbort(abort) if abort.wnr => Access::Store,
            _ => Access::Load,
        };
        let walk_level = match exit.fault_status() {
            FaultStatus::ExternalOnWalk { level } | FaultStatus::EccOnWalk { level } => Some(level),
            _ => None,
        };
        Self {
            // The gpa is a translation of the FAR: worth nothing if that is not valid, whatever the flags say.
            gpa: exit.gva_valid().and(exit.gpa_valid()),
            gva: exit.gva_valid(),
            access,
            walk_level,
            level: pstate.exception_level(),
            pc,
            esr: exit.esr,
        }
    }
}

/// `load at EL0, PC 0x401000: gva 0x500040, gpa 0x40210000`.
impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.access {
            Access::Fetch => f.write_str("fetch")?,
            Access::Load => f.write_str("load")?,
            Access::Store => f.write_str("store")?,
            Access::Maintenance => f.write_str("cache maintenance")?,
        }
        let level = match self.level {
            ExceptionLevel::El0 => 0,
            ExceptionLevel::El1 => 1,
            ExceptionLevel::El2 => 2,
            ExceptionLevel::El3 => 3,
        };
        write!(f, " at EL{level}, PC {:#x}: ", self.pc)?;
        match self.gva {
            Some(gva) => write!(f, "gva {gva:#x}")?,
            None => f.write_str("gva unknown")?,
        }
        match (self.gpa, self.walk_level) {
            (_, Some(level)) => write!(f, ", on the table walk at level {level}"),
            (Some(gpa), None) => write!(f, ", gpa {gpa:#x}"),
            (None, None) => f.write_str(", gpa unknown"),
        }
    }
}
