//! Typed injections: code cannot build one that `KVM_SET_VCPU_EVENTS` forbids.

use std::fmt;

use seawall_arm::{DataAbort, Esr, InstructionAbort, SError as SErrorSyndrome};
use seawall_events::{Abi, Refusal, VcpuEvents};

/// An ISS of exactly 25 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Iss(u32);

impl Iss {
    /// An ISS; `None` if a bit outside `[24:0]` is set.
    pub const fn new(iss: u32) -> Option<Self> {
        if iss as u64 & !Esr::ISS_MASK == 0 { Some(Self(iss)) } else { None }
    }

    /// The ISS of an ESR.
    pub const fn of(esr: Esr) -> Self {
        Self(esr.iss())
    }

    /// The bits, `[24:0]`.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl From<DataAbort> for Iss {
    fn from(abort: DataAbort) -> Self {
        Self(abort.iss())
    }
}

impl From<InstructionAbort> for Iss {
    fn from(abort: InstructionAbort) -> Self {
        Self(abort.iss())
    }
}

impl From<SErrorSyndrome> for Iss {
    fn from(serror: SErrorSyndrome) -> Self {
        Self(serror.iss())
    }
}

/// A synchronous external abort to inject: data or instruction, with an ISS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternalAbort {
    kind: Kind,
    iss: Option<Iss>,
}

/// The kind of external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Data,
    Instruction,
    ByFar,
}

impl ExternalAbort {
    /// Sets the ISS to OR into the ESR that the kernel builds (EC, IL and FSC 0x10 are the kernel's). The
    /// kernel ORs its fault status with 0x10 too: the status of an external abort, on a walk or not, stays
    /// the same, and that of any other fault does not (a translation fault at level 3, 0x07, becomes 0x17).
    #[must_use]
    pub fn iss(self, iss: impl Into<Iss>) -> Self {
        Self { iss: Some(iss.into()), ..self }
    }

    /// Adds an SError to the same call. The abort is taken first.
    #[must_use]
    pub fn and_serror(self, serror: SErrorInjection) -> Injection {
        Injection { abort: Some(self), serror: Some(serror) }
    }
}

/// An SError to inject, with an ISS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SErrorInjection {
    iss: Option<Iss>,
}

impl SErrorInjection {
    /// Sets the ISS of `ESR_ELx`; without one the kernel gives IDS (bit 24) alone.
    #[must_use]
    pub fn iss(self, iss: impl Into<Iss>) -> Self {
        Self { iss: Some(iss.into()) }
    }
}

/// The content of one `KVM_SET_VCPU_EVENTS`: an external abort, an SError, or both.
///
/// ```
/// use seawall::{Injection, Iss};
/// use seawall_events::Abi;
///
/// let injection: Injection = Injection::instruction_abort().iss(Iss::new(0x200).unwrap()).into();
/// let events = injection.events();
/// assert!(events.ext_iabt_pending && events.ext_abt_has_esr);
/// assert_eq!(events.ext_abt_esr, 0x200);
/// // A stock kernel has no words for it.
/// assert!(events.to_bytes(Abi::Mainline).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injection {
    abort: Option<ExternalAbort>,
    serror: Option<SErrorInjection>,
}

impl Injection {
    /// A synchronous external data abort.
    pub const fn data_abort() -> ExternalAbort {
        ExternalAbort { kind: Kind::Data, iss: None }
    }

    /// A synchronous external instruction abort.
    pub const fn instruction_abort() -> ExternalAbort {
        ExternalAbort { kind: Kind::Instruction, iss: None }
    }

    /// A data abort that becomes an instruction abort if the fetch met the bad memory. If the FAR from the
    /// kernel is the address of the instruction itself, [`Containment`](crate::Containment) changes the class
    /// in `ESR_ELx`. This works on any kernel.
    pub const fn abort_by_far() -> ExternalAbort {
        ExternalAbort { kind: Kind::ByFar, iss: None }
    }

    /// An SError.
    pub const fn serror() -> SErrorInjection {
        SErrorInjection { iss: None }
    }

    /// The events of the system call.
    pub fn events(&self) -> VcpuEvents {
        let mut events = VcpuEvents::default();
        if let Some(abort) = self.abort {
            events.ext_iabt_pending = abort.kind == Kind::Instruction;
            events.ext_dabt_pending = abort.kind != Kind::Instruction;
            events.ext_abt_has_esr = abort.iss.is_some();
            events.ext_abt_esr = abort.iss.unwrap_or_default().bits().into();
        }
        if let Some(serror) = self.serror {
            events.serror_pending = true;
            events.serror_has_esr = serror.iss.is_some();
            events.serror_esr = serror.iss.unwrap_or_default().bits().into();
        }
        events
    }

    /// The same without an ISS, for a host without RAS, where `KVM_SET_VCPU_EVENTS` refuses `has_esr`.
    #[must_use]
    pub fn without_iss(self) -> Self {
        Self {
            abort: self.abort.map(|abort| ExternalAbort { iss: None, ..abort }),
            serror: self.serror.map(|_| SErrorInjection { iss: None }),
        }
    }

    /// Returns true if it has an external abort.
    pub const fn has_abort(&self) -> bool {
        self.abort.is_some()
    }

    /// Returns true if the FAR decides the kind of abort.
    pub(crate) fn is_by_far(&self) -> bool {
        self.abort.is_some_and(|abort| abort.kind == Kind::ByFar)
    }

    /// Checks that a kernel with this `abi` can do it.
    ///
    /// # Errors
    /// [`Refusal::NotInMainline`] for an instruction abort or an ESR for an abort.
    pub fn check(&self, abi: Abi) -> Result<(), Refusal> {
        self.events().to_bytes(abi).map(|_| ())
    }
}

impl From<ExternalAbort> for Injection {
    fn from(abort: ExternalAbort) -> Self {
        Self { abort: Some(abort), serror: None }
    }
}

impl From<SErrorInjection> for Injection {
    fn from(serror: SErrorInjection) -> Self {
        Self { abort: None, serror: Some(serror) }
    }
}

/// `instruction abort, ISS 0x210`.
impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(abort) = self.abort {
            f.write_str(match abort.kind {
                Kind::Data => "data abort",
                Kind::Instruction => "instruction abort",
                Kind::ByFar => "abort, data or instruction by its FAR",
            })?;
            write_iss(f, abort.iss)?;
        }
        if let Some(serror) = self.serror {
            f.write_str(if self.abort.is_some() { " and SError" } else { "SError" })?;
            write_iss(f, serror.iss)?;
        }
        Ok(())
    }
}

fn write_iss(f: &mut fmt::Formatter<'_>, iss: Option<Iss>) -> fmt::Result {
    match iss {
        Some(iss) => write!(f, ", ISS {:#x}", iss.bits()),
        None => f.write_str(", no ESR given"),
    }
}
