//! Why an instruction did not complete.

use seawall_arm::{ExceptionClass, FaultStatus};

use crate::bus::BusAccess;
use crate::cpu::Cpu;
use crate::walk::{ExternalCause, Fault, FaultKind, WalkStage};

/// What an access was, as a syndrome tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// An instruction fetch.
    pub(crate) fetch: bool,
    /// A store, or cache maintenance (WnR).
    pub(crate) write: bool,
    /// Cache maintenance (CM).
    pub(crate) maintenance: bool,
}

impl Intent {
    pub(crate) const LOAD: Intent = Intent { fetch: false, write: false, maintenance: false };
    pub(crate) const STORE: Intent = Intent { fetch: false, write: true, maintenance: false };
    pub(crate) const FETCH: Intent = Intent { fetch: true, write: false, maintenance: false };
    pub(crate) const MAINTENANCE: Intent = Intent { fetch: false, write: true, maintenance: true };

    /// CM and WnR as ISS bits.
    pub(crate) fn iss(self) -> u32 {
        u32::from(self.maintenance) << 8 | u32::from(self.write) << 6
    }
}

/// An access that the host (EL2) must deal with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostAbort {
    pub(crate) intent: Intent,
    /// Virtual address of the access.
    pub(crate) va: u64,
    /// Physical address: of the access, or of the descriptor if `walk_level` is given.
    pub(crate) pa: u64,
    /// The level of the table walk that failed.
    pub(crate) walk_level: Option<i8>,
    /// Of which walk the descriptor is, if it was one.
    pub(crate) stage: WalkStage,
    /// Bytes accessed.
    pub(crate) size: u64,
}

/// A fault of stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage2Fault {
    pub(crate) intent: Intent,
    /// Virtual address of the access.
    pub(crate) va: u64,
    /// What stage 2 was to translate.
    pub(crate) ipa: u64,
    pub(crate) status: FaultStatus,
    /// The IPA is that of a descriptor of stage 1.
    pub(crate) of_walk: bool,
}

/// Why the current instruction did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// It did.
    None,
    /// The guest takes an exception to EL1, or to EL2 where that is in its place; the return address is this instruction.
    Exception { class: ExceptionClass, iss: u32, far: Option<u64> },
    /// UNDEFINED; the word, for the record.
    Undefined(u32),
    /// SVC with this immediate: the return address is the next instruction.
    Svc(u16),
    /// HVC with this immediate.
    Hvc(u16),
    /// SMC with this immediate, on a CPU with EL2.
    Smc(u16),
    /// EL2 traps the instruction.
    ToEl2 { class: ExceptionClass, iss: u32 },
    /// Stage 2 does not let the access through.
    Stage2(Stage2Fault),
    /// WFI: the CPU waits.
    Wfi,
    /// WFE, and the event register is clear: the CPU waits.
    Wfe,
    /// SEV: an event for all CPUs.
    Sev,
    /// MRS or MSR of a register of the GIC's CPU interface.
    Gic { register: u16, rt: u8, is_read: bool },
    /// Poison was consumed.
    Poison(HostAbort),
    /// There is no RAM.
    Hole(HostAbort),
    /// The bus is to be accessed.
    Bus(BusAccess),
}

impl Cpu {
    /// Record that the instruction takes an exception to EL1.
    #[cold]
    pub(crate) fn raise(&mut self, class: ExceptionClass, iss: u32, far: Option<u64>) {
        self.trap = Trap::Exception { class, iss, far };
    }

    /// Record an abort of the guest's own making. Source: `AArch64.AbortSyndrome`.
    #[cold]
    pub(crate) fn raise_abort(&mut self, status: FaultStatus, va: u64, intent: Intent) {
        let class = match (intent.fetch, self.state.el) {
            (true, 0) => ExceptionClass::INSTRUCTION_ABORT_LOWER,
            (true, _) => ExceptionClass::INSTRUCTION_ABORT_SAME,
            (false, 0) => ExceptionClass::DATA_ABORT_LOWER,
            (false, _) => ExceptionClass::DATA_ABORT_SAME,
        };
        self.raise(class, intent.iss() | u32::from(status.bits()), Some(va));
    }

    /// Record what a failed translation leads to.
    #[cold]
    pub(crate) fn raise_fault(&mut self, fault: &Fault, va: u64, intent: Intent, size: u64) {
        match fault.kind {
            FaultKind::Stage1 => self.raise_abort(fault.status, va, intent),
            FaultKind::Stage2 { ipa, of_walk } => {
                self.trap = Trap::Stage2(Stage2Fault { intent, va, ipa, status: fault.status, of_walk });
            }
            FaultKind::External { descriptor_pa, cause, stage } => {
                let walk_level = fault.status.level();
                let abort = HostAbort { intent, va, pa: descriptor_pa, walk_level, stage, size };
                self.trap = match cause {
                    ExternalCause::Poison => Trap::Poison(abort),
                    ExternalCause::Hole => Trap::Hole(abort),
                };
            }
        }
    }
}
