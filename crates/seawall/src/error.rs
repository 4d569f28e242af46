//! The error: a SEA exit or a SIGBUS, with the state of the vCPU.

use std::fmt;
use std::ops::Range;

use seawall_arm::{Esr, ExceptionLevel, FaultStatus, Pstate, Syndrome, hcr, hcrx};
use seawall_events::SeaExit;
use seawall_inject::SigbusExit;

/// The kind of access that met the bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// An instruction fetch.
    Fetch,
    /// A read of data.
    Load,
    /// A write of data.
    Store,
    /// A cache maintenance or address translation instruction.
    Maintenance,
    /// Unknown, after SIGBUS.
    Unknown,
}

/// The source of an error report: an exit of a vCPU, or SIGBUS on its thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `KVM_EXIT_ARM_SEA`.
    Sea(SeaExit),
    /// `BUS_MCEERR_AR`, or `BUS_MCEERR_AO` for an early warning.
    Sigbus(SigbusExit),
    /// `BUS_MCEERR_AR` for which the VMM itself found the guest's memory.
    SigbusAt(Range<u64>),
}

impl From<SeaExit> for Source {
    fn from(exit: SeaExit) -> Self {
        Self::Sea(exit)
    }
}

impl From<SigbusExit> for Source {
    fn from(exit: SigbusExit) -> Self {
        Self::Sigbus(exit)
    }
}

/// An uncorrectable memory error that a guest consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// The start of the bad range, at the start of a page, if the exit gave the address and FnV was 0.
    pub gpa: Option<u64>,
    /// The part that the source named: the 4 KiB page of a SEA exit, or the start of the range that SIGBUS
    /// names. The vCPU's access was there.
    pub named: Option<u64>,
    /// The size in bytes of the range that is lost. An exit names 4 KiB; SIGBUS names the range that the host
    /// took away. A [`Containment`](crate::Containment) extends it to whole pages: the guest's own (4, 16 or
    /// 64 KiB), or the host's if those are larger.
    pub size: u64,
    /// The guest virtual address, if FnV was 0: exact to the byte.
    pub gva: Option<u64>,
    /// The kind of access.
    pub access: Access,
    /// The lookup level, if a table walk met the error: the guest's page tables are bad, not its data.
    pub walk_level: Option<i8>,
    /// The Exception level of the access.
    pub level: ExceptionLevel,
    /// PC of the instruction, which has not retired.
    pub pc: u64,
    /// The ESR of the exit, unchanged; `None` after SIGBUS.
    pub esr: Option<Esr>,
    /// The taker of an abort, if the vCPU ran a guest of its guest hypervisor.
    pub nested: Option<Nested>,
}

/// The taker of an external abort at EL1 or EL0 of a nested guest, on a vCPU with a virtual EL2. DDI 0487,
/// `HCR_EL2.TEA`, `HCRX_EL2.TMEA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nested {
    /// The nested guest.
    Guest,
    /// The guest hypervisor, at virtual EL2.
    Hypervisor,
}

/// The bytes that a SEA exit names, whatever the page sizes of guest and host: `HPFAR_EL2` and `PAR_EL1` have
/// bits `[47:12]`.
pub(crate) const PAGE: u64 = 4096;

impl MemoryError {
    /// The lost range: guest physical addresses, whole pages.
    pub fn range(&self) -> Option<Range<u64>> {
        self.gpa.map(|gpa| gpa..gpa.saturating_add(self.size))
    }

    /// The error of a SIGBUS at `pc` with `pstate`; `range` is the guest's memory behind it.
    pub fn from_sigbus(range: Range<u64>, pc: u64, pstate: Pstate) -> Self {
        Self {
            gpa: Some(range.start),
            named: Some(range.start),
            size: range.end.saturating_sub(range.start),
            gva: None,
            access: Access::Unknown,
            walk_level: None,
            level: pstate.exception_level(),
            pc,
            esr: None,
            nested: None,
        }
    }

    /// The error of a SEA exit at `pc` with `pstate`.
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
            // The gpa is a translation of the FAR: without a valid FAR it is useless, whatever the flags say.
            gpa: exit.gva_valid().and(exit.gpa_valid()),
            named: exit.gva_valid().and(exit.gpa_valid()),
            size: PAGE,
            gva: exit.gva_valid(),
            access,
            walk_level,
            level: pstate.exception_level(),
            pc,
            esr: Some(exit.esr),
            nested: None,
        }
    }

    /// The same error, extended to whole pages of `page` bytes, a power of two.
    #[must_use]
    pub fn in_pages_of(self, page: u64) -> Self {
        let Some(range) = self.range() else { return self };
        let start = range.start & !page.saturating_sub(1);
        let end = range.end.checked_next_multiple_of(page.max(1)).unwrap_or(range.end);
        Self { gpa: Some(start), size: end - start, ..self }
    }

    /// The same error on a vCPU with a virtual EL2 and these values of `HCR_EL2` and `HCRX_EL2`.
    ///
    /// A SEA exit gives the input address of stage 2. With `HCR_EL2.VM` that address belongs to the nested
    /// guest and does not say which page of the VM is bad. SIGBUS names the VM's own address.
    #[must_use]
    pub fn with_el2(self, hcr_el2: u64, hcrx_el2: u64) -> Self {
        if self.level == ExceptionLevel::El2 || hcr_el2 & hcr::TGE != 0 {
            return self;
        }
        let is_taken = hcr_el2 & hcr::TEA != 0 || hcrx_el2 & hcrx::TMEA != 0;
        let nested = Some(if is_taken { Nested::Hypervisor } else { Nested::Guest });
        let is_of_nested = self.esr.is_some() && hcr_el2 & hcr::VM != 0;
        let is_vms = |_: &u64| !is_of_nested;
        Self { nested, gpa: self.gpa.filter(is_vms), named: self.named.filter(is_vms), ..self }
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
            Access::Unknown => f.write_str("access")?,
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
