//! `ESR_ELx.EC`.

use core::fmt;

/// The exception class, `ESR_ELx[31:26]`: the reason for the exception.
///
/// The set is open: it holds any 6-bit value. Values that DDI 0487 names have a constant;
/// [`ExceptionClass::name`] is `None` for the rest.
///
/// Source: DDI 0487, D24.2 `ESR_EL1`, field EC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ExceptionClass(u8);

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl ExceptionClass {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every class that DDI 0487 allocates, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The meaning of the class in the manual's words; `None` if it is not allocated.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

classes! {
    /// An exception that no other class fits, such as an UNDEFINED instruction.
    UNKNOWN = 0x00, "unknown reason";
    /// Trapped `WFI`, `WFE`, `WFIT` or `WFET`.
    WFX = 0x01, "trapped WFI or WFE";
    /// Trapped `MCR` or `MRC`, coproc 0b1111.
    MCR_CP15 = 0x03, "trapped MCR or MRC (coproc 0b1111)";
    /// Trapped `MCRR` or `MRRC`, coproc 0b1111.
    MCRR_CP15 = 0x04, "trapped MCRR or MRRC (coproc 0b1111)";
    /// Trapped `MCR` or `MRC`, coproc 0b1110.
    MCR_CP14 = 0x05, "trapped MCR or MRC (coproc 0b1110)";
    /// Trapped `LDC` or `STC`.
    LDC_CP14 = 0x06, "trapped LDC or STC";
    /// Access to SME, SVE, Advanced SIMD or floating point, trapped by `CPACR_EL1.FPEN` or its like.
    FP_ASIMD = 0x07, "trapped SME, SVE, Advanced SIMD or floating-point access";
    /// Trapped `VMRS` access from an ID group, to EL2.
    VMRS = 0x08, "trapped VMRS access";
    /// Trapped use of a pointer authentication instruction.
    PAUTH = 0x09, "trapped pointer authentication";
    /// Trapped `LD64B`, `ST64B*`, or another instruction whose class the ISS gives.
    LS64 = 0x0a, "trapped LD64B or ST64B*";
    /// Trapped `MRRC`, coproc 0b1110.
    MRRC_CP14 = 0x0c, "trapped MRRC (coproc 0b1110)";
    /// Branch Target exception.
    BTI = 0x0d, "branch target exception";
    /// Illegal Execution state.
    ILLEGAL_STATE = 0x0e, "illegal execution state";
    /// `SVC` in AArch32 state.
    SVC32 = 0x11, "SVC in AArch32 state";
    /// `HVC` in AArch32 state.
    HVC32 = 0x12, "HVC in AArch32 state";
    /// `SMC` in AArch32 state.
    SMC32 = 0x13, "SMC in AArch32 state";
    /// Trapped `MSRR`, `MRRS` or 128-bit system instruction.
    SYSREG128 = 0x14, "trapped MSRR, MRRS or SYSP";
    /// `SVC` in AArch64 state.
    SVC64 = 0x15, "SVC in AArch64 state";
    /// `HVC` in AArch64 state.
    HVC64 = 0x16, "HVC in AArch64 state";
    /// `SMC` in AArch64 state.
    SMC64 = 0x17, "SMC in AArch64 state";
    /// Trapped `MSR`, `MRS` or system instruction.
    SYSREG = 0x18, "trapped MSR, MRS or system instruction";
    /// Trapped SVE access.
    SVE = 0x19, "trapped SVE access";
    /// Trapped `ERET`, `ERETAA` or `ERETAB`.
    ERET = 0x1a, "trapped ERET";
    /// Trapped `TSTART`.
    TSTART = 0x1b, "trapped TSTART";
    /// A pointer authentication instruction failed.
    PAC_FAIL = 0x1c, "pointer authentication failure";
    /// Trapped SME access.
    SME = 0x1d, "trapped SME access";
    /// Granule Protection Check fault, to EL3.
    GPC = 0x1e, "granule protection check";
    /// IMPLEMENTATION DEFINED exception to EL3.
    IMPDEF_EL3 = 0x1f, "implementation defined, to EL3";
    /// Instruction abort from a lower Exception level.
    INSTRUCTION_ABORT_LOWER = 0x20, "instruction abort from a lower EL";
    /// Instruction abort without a change of Exception level.
    INSTRUCTION_ABORT_SAME = 0x21, "instruction abort from the same EL";
    /// PC alignment fault.
    PC_ALIGNMENT = 0x22, "PC alignment fault";
    /// Data abort from a lower Exception level.
    DATA_ABORT_LOWER = 0x24, "data abort from a lower EL";
    /// Data abort without a change of Exception level.
    DATA_ABORT_SAME = 0x25, "data abort from the same EL";
    /// SP alignment fault.
    SP_ALIGNMENT = 0x26, "SP alignment fault";
    /// Memory copy or set exception (`FEAT_MOPS`).
    MOPS = 0x27, "memory operation exception";
    /// Trapped floating-point exception in AArch32 state.
    FP32 = 0x28, "trapped floating-point exception in AArch32 state";
    /// Trapped floating-point exception in AArch64 state.
    FP64 = 0x2c, "trapped floating-point exception in AArch64 state";
    /// Guarded Control Stack exception.
    GCS = 0x2d, "guarded control stack exception";
    /// SError.
    SERROR = 0x2f, "SError";
    /// Breakpoint from a lower Exception level.
    BREAKPOINT_LOWER = 0x30, "breakpoint from a lower EL";
    /// Breakpoint without a change of Exception level.
    BREAKPOINT_SAME = 0x31, "breakpoint from the same EL";
    /// Software step from a lower Exception level.
    STEP_LOWER = 0x32, "software step from a lower EL";
    /// Software step without a change of Exception level.
    STEP_SAME = 0x33, "software step from the same EL";
    /// Watchpoint from a lower Exception level.
    WATCHPOINT_LOWER = 0x34, "watchpoint from a lower EL";
    /// Watchpoint without a change of Exception level.
    WATCHPOINT_SAME = 0x35, "watchpoint from the same EL";
    /// `BKPT` in AArch32 state.
    BKPT32 = 0x38, "BKPT in AArch32 state";
    /// Vector catch in AArch32 state, to EL2.
    VECTOR_CATCH = 0x3a, "vector catch in AArch32 state";
    /// `BRK` in AArch64 state.
    BRK64 = 0x3c, "BRK in AArch64 state";
    /// Profiling exception (`FEAT_EBEP`).
    PMU = 0x3d, "profiling exception";
}

impl ExceptionClass {
    /// The class with this value; only bits `[5:0]` are kept.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x3f)
    }

    /// The value, 0 to 0x3f.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns true for a data abort, from a lower or the same Exception level.
    pub const fn is_data_abort(self) -> bool {
        matches!(self, Self::DATA_ABORT_LOWER | Self::DATA_ABORT_SAME)
    }

    /// Returns true for an instruction abort, from a lower or the same Exception level.
    pub const fn is_instruction_abort(self) -> bool {
        matches!(self, Self::INSTRUCTION_ABORT_LOWER | Self::INSTRUCTION_ABORT_SAME)
    }
}

impl fmt::Display for ExceptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "unallocated exception class {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for ExceptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} ({self})", self.0)
    }
}
