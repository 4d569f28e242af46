//! What FP and AdvSIMD instructions do, by class, and the shape of their operands.

use super::super::insn::Insn;

/// Integer AdvSIMD. Names are the mnemonics; `2` forms and by-element forms are in the [`Shape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum VectorOp {
    // Bitwise.
    And,
    Bic,
    Orr,
    Orn,
    Eor,
    Bsl,
    Bit,
    Bif,
    // Three operands of one shape.
    Add,
    Sub,
    Mul,
    Mla,
    Mls,
    Pmul,
    Shadd,
    Uhadd,
    Srhadd,
    Urhadd,
    Shsub,
    Uhsub,
    Sqadd,
    Uqadd,
    Sqsub,
    Uqsub,
    Cmgt,
    Cmhi,
    Cmge,
    Cmhs,
    Cmtst,
    Cmeq,
    Sshl,
    Ushl,
    Sqshl,
    Uqshl,
    Srshl,
    Urshl,
    Sqrshl,
    Uqrshl,
    Smax,
    Umax,
    Smin,
    Umin,
    Sabd,
    Uabd,
    Saba,
    Uaba,
    Sqdmulh,
    Sqrdmulh,
    Addp,
    Smaxp,
    Umaxp,
    Sminp,
    Uminp,
    // Three operands of two shapes: the size is that of the narrow elements.
    Saddl,
    Uaddl,
    Saddw,
    Uaddw,
    Ssubl,
    Usubl,
    Ssubw,
    Usubw,
    Addhn,
    Raddhn,
    Subhn,
    Rsubhn,
    Sabal,
    Uabal,
    Sabdl,
    Uabdl,
    Smlal,
    Umlal,
    Smlsl,
    Umlsl,
    Smull,
    Umull,
    Sqdmlal,
    Sqdmlsl,
    Sqdmull,
    Pmull,
    // Two registers.
    Rev16,
    Rev32,
    Rev64,
    Saddlp,
    Uaddlp,
    Sadalp,
    Uadalp,
    Suqadd,
    Usqadd,
    Cls,
    Clz,
    Cnt,
    Not,
    Rbit,
    Sqabs,
    Sqneg,
    Abs,
    Neg,
    CmgtZero,
    CmgeZero,
    CmeqZero,
    CmleZero,
    CmltZero,
    Xtn,
    Sqxtn,
    Uqxtn,
    Sqxtun,
    Shll,
    Urecpe,
    Ursqrte,
    // Across all elements.
    AddpScalar,
    Addv,
    Saddlv,
    Uaddlv,
    Smaxv,
    Umaxv,
    Sminv,
    Uminv,
    // Shift by an immediate, in `imm`.
    Sshr,
    Ushr,
    Ssra,
    Usra,
    Srshr,
    Urshr,
    Srsra,
    Ursra,
    Sri,
    Sli,
    Shl,
    Sqshlu,
    SqshlImm,
    UqshlImm,
    Shrn,
    Rshrn,
    Sqshrn,
    Sqrshrn,
    Uqshrn,
    Uqrshrn,
    Sqshrun,
    Sqrshrun,
    Sshll,
    Ushll,
}

/// Floating-point, scalar and vector: a scalar is a vector whose width is one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FloatOp {
    // Two operands.
    Add,
    Sub,
    Mul,
    Div,
    Nmul,
    Max,
    Min,
    Maxnm,
    Minnm,
    Abd,
    Mulx,
    Recps,
    Rsqrts,
    /// FMLA: the accumulator is the destination.
    Mla,
    Mls,
    // The accumulator is `ra`.
    Madd,
    Msub,
    Nmadd,
    Nmsub,
    // Neighbours.
    Addp,
    Maxp,
    Minp,
    Maxnmp,
    Minnmp,
    // Across all elements, and the scalar pairwise forms.
    AddAcross,
    MaxAcross,
    MinAcross,
    MaxnmAcross,
    MinnmAcross,
    // Comparisons that give a mask.
    Cmeq,
    Cmge,
    Cmgt,
    Acge,
    Acgt,
    CmeqZero,
    CmgeZero,
    CmgtZero,
    CmleZero,
    CmltZero,
    // Comparisons that set NZCV: `ra` = 1 with zero. Conditional: `x` of the condition is in `imm`.
    Cmp,
    Cmpe,
    Ccmp,
    Ccmpe,
    /// FCSEL: `imm` is the condition as a mask.
    Csel,
    // One operand.
    Abs,
    Neg,
    Sqrt,
    Recpe,
    Rsqrte,
    Recpx,
    /// FRINTx: `ra` = the rounding as [`rounding`] numbers it; `imm` = 1 for FRINTX.
    Rint,
    /// To integers of the same size: `ra` = rounding, `imm` = fraction bits, `rm` = 1 for unsigned.
    ToInteger,
    /// From integers of the same size: as above.
    FromInteger,
    /// To a general register: `x` also has its width.
    ToGeneral,
    /// From a general register.
    FromGeneral,
    /// FCVT between scalars: `size` is the source's, `imm` the destination's.
    Convert,
    // The size is that of the narrow elements.
    Cvtl,
    Cvtn,
    Cvtxn,
}

/// How `ra` of [`FloatOp::Rint`] and of conversions names a rounding.
pub(crate) mod rounding {
    /// To nearest, ties to even.
    pub(crate) const TIE_EVEN: u8 = 0;
    /// Towards plus infinity.
    pub(crate) const UP: u8 = 1;
    /// Towards minus infinity.
    pub(crate) const DOWN: u8 = 2;
    /// Towards zero.
    pub(crate) const ZERO: u8 = 3;
    /// To nearest, ties away from zero.
    pub(crate) const TIE_AWAY: u8 = 4;
    /// As FPCR says.
    pub(crate) const CURRENT: u8 = 5;
}

/// Moves, tables and permutations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MoveOp {
    /// One element, index `imm`, to all.
    DupElement,
    /// A general register to all.
    DupGeneral,
    /// Element `imm` from a general register.
    InsGeneral,
    /// Element `imm` from element `ra`.
    InsElement,
    /// Element `imm` to a general register.
    Umov,
    /// The same, sign-extended to 64 bits, or to 32 if the width is 4 bytes.
    Smov,
    /// `imm` to each doubleword.
    Movi,
    OrrImmediate,
    BicImmediate,
    /// EXT: from byte `imm`.
    Ext,
    // Tables of `ra` registers.
    Tbl,
    Tbx,
    Uzp1,
    Uzp2,
    Trn1,
    Trn2,
    Zip1,
    Zip2,
}

/// FEAT_AES, FEAT_SHA1, FEAT_SHA256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CryptoOp {
    Aese,
    Aesd,
    Aesmc,
    Aesimc,
    Sha1c,
    Sha1p,
    Sha1m,
    Sha1su0,
    Sha1h,
    Sha1su1,
    Sha256h,
    Sha256h2,
    Sha256su0,
    Sha256su1,
}

/// Loads and stores of the FP and AdvSIMD registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum VectorAccess {
    /// One register: `x` = log2 of bytes, `imm` = two offsets as with integer writeback.
    Load,
    Store,
    /// Register offset: as the integer forms; `x` has the size in its low byte, the shift in its high one.
    LoadIndexed,
    StoreIndexed,
    /// PC-relative.
    LoadLiteral,
    /// `ra` = the second register, `x` = log2 of the bytes of one.
    LoadPair,
    StorePair,
    /// LD1 to LD4, ST1 to ST4 of whole registers: see [`Structures`].
    LoadMultiple,
    StoreMultiple,
    /// Of one element of each register; the index is in `imm[47:32]`.
    LoadElement,
    StoreElement,
    /// LD1R to LD4R.
    LoadReplicate,
}

/// The operands of [`VectorAccess::LoadMultiple`] and what follows it, in `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Structures {
    /// Log2 of the bytes of an element.
    pub(crate) size: u32,
    /// Registers of 128 bits.
    pub(crate) quad: bool,
    /// Structures one after the other.
    pub(crate) repeat: u32,
    /// Elements of a structure: registers in turn.
    pub(crate) elements: u32,
}

impl Structures {
    pub(super) const fn pack(self) -> u16 {
        (self.size | (self.quad as u32) << 2 | self.repeat << 3 | self.elements << 6) as u16
    }

    pub(crate) const fn unpack(x: u16) -> Self {
        let x = x as u32;
        Self { size: x & 3, quad: x & 4 != 0, repeat: x >> 3 & 7, elements: x >> 6 & 7 }
    }
}

/// The shape of operands, in `x` of all classes but memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Log2 of the bytes of an element.
    pub(crate) size: u32,
    /// Log2 of the bytes of the vector; that of the element for scalars.
    pub(crate) width: u32,
    /// The second operand is element `imm` of Rm, for all.
    pub(crate) by_element: bool,
    /// The upper half of the narrow register is read or written: the `2` forms.
    pub(crate) upper: bool,
}

impl Shape {
    /// Elements of 2^`size` bytes in a register of 64 or 128 bits.
    pub(super) const fn vector(size: u32, quad: bool) -> Self {
        Self { size, width: 3 + quad as u32, by_element: false, upper: false }
    }

    /// One element.
    pub(super) const fn scalar(size: u32) -> Self {
        Self { size, width: size, by_element: false, upper: false }
    }

    /// Narrow elements of 2^`size` bytes, 64 bits of them: the lower or the upper half.
    pub(super) const fn half(size: u32, upper: bool) -> Self {
        Self { size, width: 3, by_element: false, upper }
    }

    pub(super) const fn pack(self) -> u16 {
        let (by_element, upper) = (self.by_element as u32, self.upper as u32);
        (self.size | self.width << 2 | by_element << 5 | upper << 6) as u16
    }

    pub(crate) const fn unpack(x: u16) -> Self {
        let bits = x as u32;
        Self { size: bits & 3, width: bits >> 2 & 7, by_element: bits & 0x20 != 0, upper: bits & 0x40 != 0 }
    }

    /// Bits of an element.
    pub(crate) const fn bits(self) -> u32 {
        8 << self.size
    }

    /// How many elements.
    pub(crate) const fn count(self) -> u32 {
        1 << self.width.saturating_sub(self.size)
    }

    /// The bits of a register that are used.
    pub(crate) const fn mask(self) -> u128 {
        u128::MAX >> (128 - (8 << if self.width > 4 { 4 } else { self.width }))
    }
}

impl Insn {
    /// The shape of an FP or AdvSIMD instruction's operands.
    pub(crate) const fn shape(&self) -> Shape {
        Shape::unpack(self.x)
    }
}
