//! The meaning of the operations that come in many forms, each once: for the interpreter, which makes code of each form, and
//! for the translator, which asks for an instruction's form.
//!
//! A table calls the macro that it is given with what it is given, and a row for each operation in parentheses. Operations that are no rows have one form, and stand
//! in the interpreter's and the back end's file of the same name.

use super::{Kind, Op};

/// Arithmetic and logic on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Sub,
    And,
    Orr,
    Eor,
}

impl Operation {
    /// The second operand is inverted if `imm` is all ones.
    pub(crate) const fn may_invert(self) -> bool {
        matches!(self, Operation::And | Operation::Orr | Operation::Eor)
    }
}

/// Bits of the operands and the result, which is zero-extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    W32,
    W64,
}

/// Where the second operand comes from; the first is Rn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// `imm`.
    Immediate,
    /// Rm, shifted left by `x`, and inverted if `imm` is all ones and the operation may.
    Shifted,
}

/// Arithmetic or logic on two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arithmetic {
    pub(crate) operation: Operation,
    pub(crate) width: Width,
    pub(crate) operand: Operand,
    /// Sets NZCV.
    pub(crate) sets_flags: bool,
}

/// Operation: what it does, on how many bits, with which second operand, and if it sets flags.
macro_rules! arithmetic {
    ($with:ident! $($arguments:tt)*) => {
        $with! { $($arguments)* (
            // A subtraction of an immediate that sets no flags is an addition.
            AddImm64: Add W64 Immediate false,
            AddImm32: Add W32 Immediate false,
            AddsImm64: Add W64 Immediate true,
            AddsImm32: Add W32 Immediate true,
            SubsImm64: Sub W64 Immediate true,
            SubsImm32: Sub W32 Immediate true,
            // The immediate of a 32-bit AND is zero-extended.
            AndImm: And W64 Immediate false,
            OrrImm64: Orr W64 Immediate false,
            OrrImm32: Orr W32 Immediate false,
            EorImm64: Eor W64 Immediate false,
            EorImm32: Eor W32 Immediate false,
            AndsImm64: And W64 Immediate true,
            AndsImm32: And W32 Immediate true,
            Add64: Add W64 Shifted false,
            Add32: Add W32 Shifted false,
            Sub64: Sub W64 Shifted false,
            Sub32: Sub W32 Shifted false,
            Adds64: Add W64 Shifted true,
            Adds32: Add W32 Shifted true,
            Subs64: Sub W64 Shifted true,
            Subs32: Sub W32 Shifted true,
            And64: And W64 Shifted false,
            And32: And W32 Shifted false,
            Orr64: Orr W64 Shifted false,
            Orr32: Orr W32 Shifted false,
            Eor64: Eor W64 Shifted false,
            Eor32: Eor W32 Shifted false,
            Ands64: And W64 Shifted true,
            Ands32: And W32 Shifted true,
        ) }
    };
}
pub(crate) use arithmetic;

/// How the address of a load or store of one register comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Rn and `imm`.
    Offset,
    /// Rn and Rm under the mask `imm`, with its sign if `ra` is odd, shifted left by `x`.
    Register,
    /// Rn and the low half of `imm`, by whose high half Rn changes.
    Writeback,
    /// The PC and `imm`.
    Literal,
}

/// Operation: what it moves, and its addressing mode.
macro_rules! accesses {
    ($with:ident! $($arguments:tt)*) => {
        $with! { $($arguments)* (
            StrB: StrB Offset,
            StrH: StrH Offset,
            StrW: StrW Offset,
            StrX: StrX Offset,
            LdrB: LdrB Offset,
            LdrH: LdrH Offset,
            LdrW: LdrW Offset,
            LdrX: LdrX Offset,
            LdrSb64: LdrSb64 Offset,
            LdrSh64: LdrSh64 Offset,
            LdrSw64: LdrSw64 Offset,
            LdrSb32: LdrSb32 Offset,
            LdrSh32: LdrSh32 Offset,
            StrBReg: StrB Register,
            StrHReg: StrH Register,
            StrWReg: StrW Register,
            StrXReg: StrX Register,
            LdrBReg: LdrB Register,
            LdrHReg: LdrH Register,
            LdrWReg: LdrW Register,
            LdrXReg: LdrX Register,
            LdrSb64Reg: LdrSb64 Register,
            LdrSh64Reg: LdrSh64 Register,
            LdrSw64Reg: LdrSw64 Register,
            LdrSb32Reg: LdrSb32 Register,
            LdrSh32Reg: LdrSh32 Register,
            StrBWb: StrB Writeback,
            StrHWb: StrH Writeback,
            StrWWb: StrW Writeback,
            StrXWb: StrX Writeback,
            LdrBWb: LdrB Writeback,
            LdrHWb: LdrH Writeback,
            LdrWWb: LdrW Writeback,
            LdrXWb: LdrX Writeback,
            LdrSb64Wb: LdrSb64 Writeback,
            LdrSh64Wb: LdrSh64 Writeback,
            LdrSw64Wb: LdrSw64 Writeback,
            LdrSb32Wb: LdrSb32 Writeback,
            LdrSh32Wb: LdrSh32 Writeback,
            LdrWLit: LdrW Literal,
            LdrXLit: LdrX Literal,
            LdrSwLit: LdrSw64 Literal,
        ) }
    };
}
pub(crate) use accesses;

macro_rules! arithmetic_of {
    ($op:ident ($($name:ident: $operation:ident $width:ident $operand:ident $sets_flags:ident,)*)) => {
        match $op {
            $(Op::$name => Some(Arithmetic {
                operation: Operation::$operation,
                width: Width::$width,
                operand: Operand::$operand,
                sets_flags: $sets_flags,
            }),)*
            _ => None,
        }
    };
}

macro_rules! access_of {
    ($op:ident ($($name:ident: $kind:ident $mode:ident,)*)) => {
        match $op {
            $(Op::$name => Some((Kind::$kind, Mode::$mode)),)*
            _ => None,
        }
    };
}

impl Op {
    /// Its row among arithmetic and logic.
    pub(crate) const fn arithmetic(self) -> Option<Arithmetic> {
        arithmetic!(arithmetic_of! self)
    }

    /// Its row among loads and stores of one register.
    #[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
    pub(crate) const fn access(self) -> Option<(Kind, Mode)> {
        accesses!(access_of! self)
    }
}
