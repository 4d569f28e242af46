//! The named bit fields of the ISS, one table per exception class.

use core::fmt;
use core::slice;

use crate::bits::field;
use crate::{Esr, ExceptionClass};

/// One bit field of an ESR, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name in DDI 0487.
    pub name: &'static str,
    /// Most significant bit within `ESR_ELx`.
    pub msb: u8,
    /// Least significant bit within `ESR_ELx`.
    pub lsb: u8,
    /// The value, right-aligned.
    pub value: u32,
}

/// `COND=0xe`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.msb == self.lsb {
            write!(f, "{}={}", self.name, self.value)
        } else {
            write!(f, "{}={:#x}", self.name, self.value)
        }
    }
}

/// The fields of an ESR: ISS first, then ISS2. Bits that are RES0 have no field.
#[derive(Clone, Debug)]
pub struct Fields {
    esr: Esr,
    iss: slice::Iter<'static, Layout>,
    iss2: slice::Iter<'static, Layout>,
}

impl Fields {
    pub(crate) fn of(esr: Esr) -> Self {
        let (iss, iss2) = layout(esr);
        Self { esr, iss: iss.iter(), iss2: iss2.iter() }
    }
}

impl Iterator for Fields {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        let &(name, msb, lsb) = self.iss.next().or_else(|| self.iss2.next())?;
        let value = field(self.esr.bits(), msb.into(), lsb.into()) as u32;
        Some(Field { name, msb, lsb, value })
    }
}

/// Name, msb, lsb.
type Layout = (&'static str, u8, u8);

const NONE: &[Layout] = &[];
const RAW: &[Layout] = &[("ISS", 24, 0)];
const WFX: &[Layout] = &[("CV", 24, 24), ("COND", 23, 20), ("RN", 9, 5), ("RV", 2, 2), ("TI", 1, 0)];
const MCR: &[Layout] = &[
    ("CV", 24, 24),
    ("COND", 23, 20),
    ("Opc2", 19, 17),
    ("Opc1", 16, 14),
    ("CRn", 13, 10),
    ("Rt", 9, 5),
    ("CRm", 4, 1),
    ("Direction", 0, 0),
];
const MCRR: &[Layout] = &[
    ("CV", 24, 24),
    ("COND", 23, 20),
    ("Opc1", 19, 16),
    ("Rt2", 14, 10),
    ("Rt", 9, 5),
    ("CRm", 4, 1),
    ("Direction", 0, 0),
];
const LDC: &[Layout] = &[
    ("CV", 24, 24),
    ("COND", 23, 20),
    ("imm8", 19, 12),
    ("Rn", 9, 5),
    ("Offset", 4, 4),
    ("AM", 3, 1),
    ("Direction", 0, 0),
];
const CONDITION: &[Layout] = &[("CV", 24, 24), ("COND", 23, 20)];
const SMC32: &[Layout] = &[("CV", 24, 24), ("COND", 23, 20), ("CCKNOWNPASS", 19, 19)];
const BTI: &[Layout] = &[("BTYPE", 1, 0)];
const IMM16: &[Layout] = &[("imm16", 15, 0)];
const COMMENT: &[Layout] = &[("Comment", 15, 0)];
const SYSREG128: &[Layout] = &[
    ("Op0", 21, 20),
    ("Op2", 19, 17),
    ("Op1", 16, 14),
    ("CRn", 13, 10),
    ("Rt", 9, 6),
    ("CRm", 4, 1),
    ("Direction", 0, 0),
];
const SYSREG: &[Layout] = &[
    ("Op0", 21, 20),
    ("Op2", 19, 17),
    ("Op1", 16, 14),
    ("CRn", 13, 10),
    ("Rt", 9, 5),
    ("CRm", 4, 1),
    ("Direction", 0, 0),
];
const ERET: &[Layout] = &[("ERET", 1, 1), ("ERETA", 0, 0)];
const TSTART: &[Layout] = &[("Rd", 9, 5)];
const PAC_FAIL: &[Layout] = &[("IorD", 1, 1), ("AorB", 0, 0)];
const SME: &[Layout] = &[("SMTC", 2, 0)];
const GPC: &[Layout] = &[
    ("S2PTW", 21, 21),
    ("InD", 20, 20),
    ("GPCSC", 19, 14),
    ("VNCR", 13, 13),
    ("CM", 8, 8),
    ("S1PTW", 7, 7),
    ("WnR", 6, 6),
    ("xFSC", 5, 0),
];
const INSTRUCTION_ABORT: &[Layout] =
    &[("PFV", 14, 14), ("SET", 12, 11), ("FnV", 10, 10), ("EA", 9, 9), ("S1PTW", 7, 7), ("IFSC", 5, 0)];
const DATA_ABORT_ISV: &[Layout] = &[
    ("ISV", 24, 24),
    ("SAS", 23, 22),
    ("SSE", 21, 21),
    ("SRT", 20, 16),
    ("SF", 15, 15),
    ("AR", 14, 14),
    ("VNCR", 13, 13),
    ("SET", 12, 11),
    ("FnV", 10, 10),
    ("EA", 9, 9),
    ("CM", 8, 8),
    ("S1PTW", 7, 7),
    ("WnR", 6, 6),
    ("DFSC", 5, 0),
];
const DATA_ABORT: &[Layout] = &[
    ("ISV", 24, 24),
    ("WU", 17, 16),
    ("FnP", 15, 15),
    ("PFV", 14, 14),
    ("VNCR", 13, 13),
    ("SET", 12, 11),
    ("FnV", 10, 10),
    ("EA", 9, 9),
    ("CM", 8, 8),
    ("S1PTW", 7, 7),
    ("WnR", 6, 6),
    ("DFSC", 5, 0),
];
const MOPS: &[Layout] = &[
    ("MemInst", 24, 24),
    ("isSETG", 23, 23),
    ("Options", 22, 19),
    ("FromEpilogue", 18, 18),
    ("WrongOption", 17, 17),
    ("OptionA", 16, 16),
    ("destreg", 14, 10),
    ("srcreg", 9, 5),
    ("sizereg", 4, 0),
];
const FP_EXCEPTION: &[Layout] = &[
    ("TFV", 23, 23),
    ("VECITR", 10, 8),
    ("IDF", 7, 7),
    ("IXF", 4, 4),
    ("UFF", 3, 3),
    ("OFF", 2, 2),
    ("DZF", 1, 1),
    ("IOF", 0, 0),
];
const GCS: &[Layout] = &[("ExType", 23, 20), ("Raddr", 14, 10), ("Rvalue", 9, 5), ("IT", 4, 0)];
const SERROR: &[Layout] = &[("IDS", 24, 24), ("IESB", 13, 13), ("AET", 12, 10), ("EA", 9, 9), ("DFSC", 5, 0)];
const SERROR_IDS: &[Layout] = &[("IDS", 24, 24), ("IMPDEF", 23, 0)];
const IFSC: &[Layout] = &[("IFSC", 5, 0)];
const STEP: &[Layout] = &[("ISV", 24, 24), ("EX", 6, 6), ("IFSC", 5, 0)];
const WATCHPOINT: &[Layout] = &[
    ("WPT", 23, 18),
    ("WPTV", 17, 17),
    ("WPF", 16, 16),
    ("FnP", 15, 15),
    ("VNCR", 13, 13),
    ("FnV", 10, 10),
    ("CM", 8, 8),
    ("WnR", 6, 6),
    ("DFSC", 5, 0),
];
const PMU: &[Layout] = &[("SYNC", 0, 0)];

const DATA_ABORT_ISS2: &[Layout] = &[
    ("HDBSSF", 43, 43),
    ("TnD", 42, 42),
    ("TagAccess", 41, 41),
    ("GCS", 40, 40),
    ("AssuredOnly", 39, 39),
    ("Overlay", 38, 38),
    ("DirtyBit", 37, 37),
    ("Xs", 36, 32),
];
const INSTRUCTION_ABORT_ISS2: &[Layout] =
    &[("HDBSSF", 43, 43), ("AssuredOnly", 39, 39), ("Overlay", 38, 38), ("DirtyBit", 37, 37)];

/// The layouts of ISS and ISS2.
fn layout(esr: Esr) -> (&'static [Layout], &'static [Layout]) {
    use ExceptionClass as Ec;
    let iss = match esr.ec() {
        Ec::WFX => WFX,
        Ec::MCR_CP15 | Ec::MCR_CP14 | Ec::VMRS => MCR,
        Ec::MCRR_CP15 | Ec::MRRC_CP14 => MCRR,
        Ec::LDC_CP14 => LDC,
        Ec::FP_ASIMD => CONDITION,
        Ec::SMC32 => SMC32,
        Ec::BTI => BTI,
        Ec::SVC32 | Ec::HVC32 | Ec::SVC64 | Ec::HVC64 | Ec::SMC64 => IMM16,
        Ec::SYSREG128 => SYSREG128,
        Ec::SYSREG => SYSREG,
        Ec::ERET => ERET,
        Ec::TSTART => TSTART,
        Ec::PAC_FAIL => PAC_FAIL,
        Ec::SME => SME,
        Ec::GPC => GPC,
        Ec::INSTRUCTION_ABORT_LOWER | Ec::INSTRUCTION_ABORT_SAME => {
            return (INSTRUCTION_ABORT, INSTRUCTION_ABORT_ISS2);
        }
        Ec::DATA_ABORT_LOWER | Ec::DATA_ABORT_SAME if esr.iss() >> 24 == 1 => {
            return (DATA_ABORT_ISV, DATA_ABORT_ISS2);
        }
        Ec::DATA_ABORT_LOWER | Ec::DATA_ABORT_SAME => return (DATA_ABORT, DATA_ABORT_ISS2),
        Ec::MOPS => MOPS,
        Ec::FP32 | Ec::FP64 => FP_EXCEPTION,
        Ec::GCS => GCS,
        Ec::SERROR if esr.iss() >> 24 == 1 => SERROR_IDS,
        Ec::SERROR => SERROR,
        Ec::BREAKPOINT_LOWER | Ec::BREAKPOINT_SAME | Ec::VECTOR_CATCH => IFSC,
        Ec::STEP_LOWER | Ec::STEP_SAME => STEP,
        Ec::WATCHPOINT_LOWER | Ec::WATCHPOINT_SAME => WATCHPOINT,
        Ec::BKPT32 | Ec::BRK64 => COMMENT,
        Ec::PMU => PMU,
        Ec::UNKNOWN | Ec::PAUTH | Ec::ILLEGAL_STATE | Ec::SVE | Ec::PC_ALIGNMENT | Ec::SP_ALIGNMENT => NONE,
        _ => RAW,
    };
    (iss, NONE)
}
