//! The decoded form of an A64 instruction: 16 bytes, operands ready for use.

use super::fp_simd::op::{CryptoOp, FloatOp, MoveOp, VectorAccess, VectorOp};

/// Index of the register slot that always reads zero (XZR as a source).
pub(crate) const ZR: u8 = 31;
/// Index of the slot of the current stack pointer.
pub(crate) const SP: u8 = 32;
/// Index of the slot that swallows writes to XZR.
pub(crate) const SINK: u8 = 33;

/// The slot to write for a destination field in which 31 means XZR.
pub(crate) const fn dest(r: u8) -> u8 {
    if r == 31 { SINK } else { r }
}

/// The slot for a register field in which 31 means SP.
pub(crate) const fn or_sp(r: u8) -> u8 {
    if r == 31 { SP } else { r }
}

/// What an instruction does. One flat list: the interpreter's loop matches on it once.
///
/// `64`/`32` is the width of the operation. Register shifts by LSL are folded into the common
/// operations; the other shifts and the extensions go through `AluGen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Not decoded yet: the line has to be read (and may be poisoned).
    Pending,
    /// No such instruction here: UNDEFINED. `imm` is the word.
    Undefined,
    Nop,

    // PC-relative and moves.
    Adr,
    Adrp,
    MovImm,
    Movk64,
    Movk32,
    Mov64,

    // Add and subtract, immediate (a subtraction that sets no flags is an addition).
    AddImm64,
    AddImm32,
    AddsImm64,
    AddsImm32,
    SubsImm64,
    SubsImm32,
    // As those above and below without the B, and the conditional branch that follows: see `Op::with_branch`.
    SubsImm64B,
    SubsImm32B,
    Subs64B,
    Subs32B,
    AndsImm64B,
    AndsImm32B,
    // Register operand, shifted left by `x`.
    Add64,
    Add32,
    Sub64,
    Sub32,
    Adds64,
    Adds32,
    Subs64,
    Subs32,
    // Logical, immediate. A 32-bit AND needs no form of its own: the mask is zero-extended.
    AndImm,
    OrrImm64,
    OrrImm32,
    EorImm64,
    EorImm32,
    AndsImm64,
    AndsImm32,
    // Logical, register shifted left by `x`, then inverted if `imm` is all ones.
    And64,
    And32,
    Orr64,
    Orr32,
    Eor64,
    Eor32,
    Ands64,
    Ands32,
    /// Any of the above with another shift or an extension: `ra` = what is done to Rm, low byte
    /// of `x` the amount, high byte of `x` the operation, `imm` the inversion.
    AluGen64,
    AluGen32,
    /// ADC, ADCS, SBC, SBCS: bit 0 of `x` = invert Rm, bit 1 = set flags.
    Adc64,
    Adc32,

    // Bit fields: UBFM and BFM as rotate right by `rm` and mask `imm`;
    // SBFM as shift left by `rm`, arithmetic shift right by `ra`.
    Ubfm64,
    Ubfm32,
    Bfm64,
    Bfm32,
    Sbfm64,
    Sbfm32,
    /// SBFIZ forms: as Sbfm with `x` more to the left at the end.
    Sbfiz64,
    Sbfiz32,
    Extr64,
    Extr32,

    // Conditional compare and select: `x` is the condition as a mask over NZCV values.
    Ccmp64,
    Ccmp32,
    Ccmn64,
    Ccmn32,
    Csel64,
    Csel32,

    // One source.
    Rbit64,
    Rbit32,
    Rev16x64,
    Rev16x32,
    Rev32x64,
    Rev64,
    Rev32,
    Clz64,
    Clz32,
    Cls64,
    Cls32,
    // Two sources.
    Udiv64,
    Udiv32,
    Sdiv64,
    Sdiv32,
    Lslv64,
    Lslv32,
    Lsrv64,
    Lsrv32,
    Asrv64,
    Asrv32,
    Rorv64,
    Rorv32,
    /// CRC32 and CRC32C: `x` = bytes (1, 2, 4, 8), `imm` = the reflected polynomial.
    Crc32,
    // Three sources.
    Madd64,
    Madd32,
    Msub64,
    Msub32,
    Smaddl,
    Smsubl,
    Umaddl,
    Umsubl,
    Smulh,
    Umulh,
    // FEAT_FlagM.
    Cfinv,
    Rmif,
    Setf,

    // Branches: `imm` is the offset in instructions.
    B,
    Bl,
    BCond,
    Cbz64,
    Cbz32,
    Cbnz64,
    Cbnz32,
    Tbz,
    Tbnz,
    Br,
    Blr,
    Ret,
    Eret,

    // Exceptions. `imm` is the 16-bit immediate.
    Svc,
    Hvc,
    Smc,
    Brk,

    // System.
    Wfi,
    Wfe,
    Sev,
    Sevl,
    Esb,
    Bti,
    Clrex,
    Isb,
    /// MRS: `imm` = op0:op1:CRn:CRm:op2.
    Mrs,
    /// MSR (register).
    Msr,
    /// MSR (immediate): `x` = op1:op2, `imm` = CRm.
    MsrImm,
    /// SYS: `imm` = op0:op1:CRn:CRm:op2, `rd` the source.
    Sys,

    // Loads and stores with an immediate offset and no writeback.
    StrB,
    StrH,
    StrW,
    StrX,
    LdrB,
    LdrH,
    LdrW,
    LdrX,
    LdrSb64,
    LdrSh64,
    LdrSw64,
    LdrSb32,
    LdrSh32,
    // With writeback: low half of `imm` = offset of the access, high half = change of the base.
    StrBWb,
    StrHWb,
    StrWWb,
    StrXWb,
    LdrBWb,
    LdrHWb,
    LdrWWb,
    LdrXWb,
    LdrSb64Wb,
    LdrSh64Wb,
    LdrSw64Wb,
    LdrSb32Wb,
    LdrSh32Wb,
    // Register offset: mask `imm`, sign bit position by `ra`, shift `x`.
    StrBReg,
    StrHReg,
    StrWReg,
    StrXReg,
    LdrBReg,
    LdrHReg,
    LdrWReg,
    LdrXReg,
    LdrSb64Reg,
    LdrSh64Reg,
    LdrSw64Reg,
    LdrSb32Reg,
    LdrSh32Reg,
    // PC-relative; `imm` = offset in bytes.
    LdrWLit,
    LdrXLit,
    LdrSwLit,
    // Pairs, `ra` = Rt2, offsets as with writeback (the change may be 0).
    StpW,
    StpX,
    LdpW,
    LdpX,
    LdpSw,
    /// Unprivileged: `x` is the [`Kind`] as a number.
    Unprivileged,
    /// LDAR, STLR, LDAPR, LDLAR and their unscaled forms: `x` is the [`Kind`].
    Ordered,
    /// Exclusives: `x` = size as log2 of bytes, `rm` = Rs (status), `ra` = Rt2.
    Ldxr,
    Stxr,
    Ldxp,
    Stxp,
    /// CAS: `rm` = Rs (compare and result), `rd` = Rt (new value), `x` = size.
    Cas,
    Casp,
    /// LSE read-modify-write: `ra` = the [`Rmw`] operation, `rm` = Rs, `rd` = Rt, `x` = size.
    Rmw,

    // FP and AdvSIMD, all trapped by CPACR_EL1.FPEN. Register numbers are those of V registers where
    // the instruction names one; `x` is the [`Shape`](super::fp_simd::op::Shape), of memory accesses as they say.
    Vector(VectorOp),
    Float(FloatOp),
    Move(MoveOp),
    Crypto(CryptoOp),
    VectorMemory(VectorAccess),
}

const _: () = assert!(size_of::<Insn>() == 16);

impl Op {
    /// The same without the branch behind it.
    pub(crate) const fn without_branch(self) -> Op {
        match self {
            Op::SubsImm64B => Op::SubsImm64,
            Op::SubsImm32B => Op::SubsImm32,
            Op::Subs64B => Op::Subs64,
            Op::Subs32B => Op::Subs32,
            Op::AndsImm64B => Op::AndsImm64,
            Op::AndsImm32B => Op::AndsImm32,
            other => other,
        }
    }

    /// What does this and goes on with the [`Op::BCond`] behind it, where there is such an operation. It is two
    /// steps all the same, and the second instruction stays where it is for who branches to it.
    pub(crate) fn with_branch(self) -> Op {
        match self {
            Op::SubsImm64 => Op::SubsImm64B,
            Op::SubsImm32 => Op::SubsImm32B,
            Op::Subs64 => Op::Subs64B,
            Op::Subs32 => Op::Subs32B,
            Op::AndsImm64 => Op::AndsImm64B,
            Op::AndsImm32 => Op::AndsImm32B,
            other => other,
        }
    }
}

/// The thirteen shapes of a single-register load or store, in the order in which the
/// interpreter's operations are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    StrB,
    StrH,
    StrW,
    StrX,
    LdrB,
    LdrH,
    LdrW,
    LdrX,
    LdrSb64,
    LdrSh64,
    LdrSw64,
    LdrSb32,
    LdrSh32,
}

impl Kind {
    /// All kinds, in order.
    pub(crate) const ALL: [Kind; 13] = [
        Kind::StrB,
        Kind::StrH,
        Kind::StrW,
        Kind::StrX,
        Kind::LdrB,
        Kind::LdrH,
        Kind::LdrW,
        Kind::LdrX,
        Kind::LdrSb64,
        Kind::LdrSh64,
        Kind::LdrSw64,
        Kind::LdrSb32,
        Kind::LdrSh32,
    ];

    /// From `size` (log2 of bytes) and `opc` of the encoding; `None` for PRFM and the
    /// unallocated ones.
    pub(crate) const fn from_size_opc(size: u32, opc: u32) -> Option<Kind> {
        Some(match (opc, size) {
            (0, 0) => Kind::StrB,
            (0, 1) => Kind::StrH,
            (0, 2) => Kind::StrW,
            (0, 3) => Kind::StrX,
            (1, 0) => Kind::LdrB,
            (1, 1) => Kind::LdrH,
            (1, 2) => Kind::LdrW,
            (1, 3) => Kind::LdrX,
            (2, 0) => Kind::LdrSb64,
            (2, 1) => Kind::LdrSh64,
            (2, 2) => Kind::LdrSw64,
            (3, 0) => Kind::LdrSb32,
            (3, 1) => Kind::LdrSh32,
            _ => return None,
        })
    }

    /// The kind with this number; the number comes from our own decoder.
    pub(crate) fn from_number(n: u16) -> Kind {
        debug_assert!((n as usize) < Kind::ALL.len(), "expected the number of a kind, got {n}");
        Kind::ALL.get(n as usize).copied().unwrap_or(Kind::LdrX)
    }

    /// True if it stores.
    pub(crate) const fn is_store(self) -> bool {
        (self as u8) < 4
    }

    /// Log2 of the bytes accessed.
    pub(crate) const fn size(self) -> u32 {
        match self {
            Kind::StrB | Kind::LdrB | Kind::LdrSb64 | Kind::LdrSb32 => 0,
            Kind::StrH | Kind::LdrH | Kind::LdrSh64 | Kind::LdrSh32 => 1,
            Kind::StrW | Kind::LdrW | Kind::LdrSw64 => 2,
            Kind::StrX | Kind::LdrX => 3,
        }
    }

    /// True if the value loaded is sign-extended.
    pub(crate) const fn is_signed(self) -> bool {
        self as u8 >= Kind::LdrSb64 as u8
    }

    /// True if the register is 64 bits wide (ISS.SF).
    pub(crate) const fn is_64(self) -> bool {
        matches!(self, Kind::StrX | Kind::LdrX | Kind::LdrSb64 | Kind::LdrSh64 | Kind::LdrSw64)
    }

    /// What the register gets when memory gave `raw` (zero-extended).
    pub(crate) const fn extend(self, raw: u64) -> u64 {
        match self {
            Kind::LdrSb64 => raw as u8 as i8 as i64 as u64,
            Kind::LdrSh64 => raw as u16 as i16 as i64 as u64,
            Kind::LdrSw64 => raw as u32 as i32 as i64 as u64,
            Kind::LdrSb32 => raw as u8 as i8 as i32 as u32 as u64,
            Kind::LdrSh32 => raw as u16 as i16 as i32 as u32 as u64,
            Kind::StrB | Kind::LdrB => raw as u8 as u64,
            Kind::StrH | Kind::LdrH => raw as u16 as u64,
            Kind::StrW | Kind::LdrW => raw as u32 as u64,
            Kind::StrX | Kind::LdrX => raw,
        }
    }
}

/// The read-modify-write operations of FEAT_LSE, as bits `[15:12]` of the encoding number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rmw {
    Add,
    Clear,
    Xor,
    Set,
    SignedMax,
    SignedMin,
    UnsignedMax,
    UnsignedMin,
    Swap,
}

impl Rmw {
    /// From o3:opc of the encoding.
    pub(crate) const fn from_bits(n: u32) -> Option<Rmw> {
        Some(match n {
            0 => Rmw::Add,
            1 => Rmw::Clear,
            2 => Rmw::Xor,
            3 => Rmw::Set,
            4 => Rmw::SignedMax,
            5 => Rmw::SignedMin,
            6 => Rmw::UnsignedMax,
            7 => Rmw::UnsignedMin,
            8 => Rmw::Swap,
            _ => return None,
        })
    }
}

/// A decoded instruction. The fields' meaning depends on [`Op`]; registers are slot numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) op: Op,
    pub(crate) rd: u8,
    pub(crate) rn: u8,
    pub(crate) rm: u8,
    pub(crate) ra: u8,
    pub(crate) x: u16,
    pub(crate) imm: u64,
}

impl Insn {
    /// The filler of lines that are not decoded yet.
    pub(crate) const PENDING: Insn = Insn::new(Op::Pending);

    /// An operation with all operands zero-register or 0.
    pub(crate) const fn new(op: Op) -> Insn {
        Insn { op, rd: SINK, rn: ZR, rm: ZR, ra: ZR, x: 0, imm: 0 }
    }

    /// The UNDEFINED instruction for this word.
    pub(crate) const fn undefined(word: u32) -> Insn {
        let mut insn = Insn::new(Op::Undefined);
        insn.imm = word as u64;
        insn
    }
}

/// The condition `cond` (4 bits) as a mask: bit `nzcv` is set if it holds for these flags.
/// Source: ConditionHolds.
pub(crate) const fn condition_mask(cond: u32) -> u16 {
    let mut mask = 0;
    let mut nzcv = 0;
    while nzcv < 16 {
        let (n, z, c, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
        let base = match cond >> 1 {
            0 => z,
            1 => c,
            2 => n,
            3 => v,
            4 => c && !z,
            5 => n == v,
            6 => n == v && !z,
            _ => true,
        };
        let invert = cond & 1 == 1 && cond != 15;
        if base != invert {
            mask |= 1 << nzcv;
        }
        nzcv += 1;
    }
    mask
}
