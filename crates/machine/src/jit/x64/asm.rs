//! An encoder for the few x86-64 instructions that translations are made of.
//!
//! Source: Intel SDM volume 2. Registers are their numbers; `wide` chooses 64 bits over 32, which clear the upper half.

pub(super) type Reg = u8;
pub(super) const RAX: Reg = 0;
pub(super) const RCX: Reg = 1;
pub(super) const RDX: Reg = 2;
pub(super) const RBX: Reg = 3;
pub(super) const RSP: Reg = 4;
pub(super) const RBP: Reg = 5;
pub(super) const RSI: Reg = 6;
pub(super) const RDI: Reg = 7;
pub(super) const R13: Reg = 13;
pub(super) const R14: Reg = 14;
pub(super) const R15: Reg = 15;

/// Two-operand arithmetic, as the opcodes number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

impl Alu {
    pub(super) fn commutes(self) -> bool {
        !matches!(self, Alu::Sub | Alu::Cmp)
    }
}

/// Shifts and rotations, as the opcodes number them.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Shift {
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// One-operand arithmetic of opcode F7; the products and quotients are of RAX and RDX.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Unary {
    Not = 2,
    Neg = 3,
    Mul = 4,
    Imul = 5,
    Div = 6,
    Idiv = 7,
}

/// Conditions, as the opcodes number them; bit 0 inverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cc(pub(super) u8);

impl Cc {
    pub(super) const BELOW: Cc = Cc(2);
    pub(super) const AT_LEAST: Cc = Cc(3);
    pub(super) const ZERO: Cc = Cc(4);
    pub(super) const NOT_ZERO: Cc = Cc(5);
    pub(super) const PARITY: Cc = Cc(10);

    pub(super) fn inverted(self) -> Cc {
        Cc(self.0 ^ 1)
    }
}

/// How a value of memory or the low part of a register becomes a register's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extend {
    U8,
    U16,
    U32,
    U64,
    S8To32,
    S16To32,
    S8,
    S16,
    S32,
}

impl Extend {
    fn opcode(self) -> (bool, &'static [u8]) {
        match self {
            Extend::U8 => (false, &[0x0f, 0xb6]),
            Extend::U16 => (false, &[0x0f, 0xb7]),
            Extend::U32 => (false, &[0x8b]),
            Extend::U64 => (true, &[0x8b]),
            Extend::S8To32 => (false, &[0x0f, 0xbe]),
            Extend::S16To32 => (false, &[0x0f, 0xbf]),
            Extend::S8 => (true, &[0x0f, 0xbe]),
            Extend::S16 => (true, &[0x0f, 0xbf]),
            Extend::S32 => (true, &[0x63]),
        }
    }
}

/// A place in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mem {
    base: Reg,
    /// Index register and log2 of its factor.
    index: Option<(Reg, u8)>,
    disp: i32,
}

impl Mem {
    pub(super) fn at(base: Reg, disp: i32) -> Mem {
        Mem { base, index: None, disp }
    }

    pub(super) fn indexed(base: Reg, index: Reg, scale: u8, disp: i32) -> Mem {
        debug_assert!(index != RSP, "RSP is no index");
        Mem { base, index: Some((index, scale)), disp }
    }

    pub(super) fn plus(self, more: i32) -> Mem {
        Mem { disp: self.disp + more, ..self }
    }
}

/// A jump that is not bound yet: where its displacement ends.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Jump(usize);

/// Bytes of code.
#[derive(Debug, Default)]
pub(super) struct Asm {
    bytes: Vec<u8>,
}

impl Asm {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn here(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn rex(&mut self, wide: bool, reg: Reg, index: Reg, base: Reg, force: bool) {
        let value = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if value != 0x40 || force {
            self.bytes.push(value);
        }
    }

    /// Both operands registers; `reg` is the one in the reg field.
    fn rr(&mut self, wide: bool, opcode: &[u8], reg: Reg, rm: Reg) {
        self.rr_forced(wide, opcode, reg, rm, false);
    }

    fn rr_forced(&mut self, wide: bool, opcode: &[u8], reg: Reg, rm: Reg, force: bool) {
        self.rex(wide, reg, 0, rm, force);
        self.raw(opcode);
        self.bytes.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    fn rm(&mut self, prefix: &[u8], wide: bool, opcode: &[u8], reg: Reg, mem: Mem, force: bool) {
        self.raw(prefix);
        self.rex(wide, reg, mem.index.map_or(0, |(index, _)| index), mem.base, force);
        self.raw(opcode);
        let mode = match mem.disp {
            0 if mem.base & 7 != RBP => 0,
            -128..128 => 1,
            _ => 2,
        };
        let reg_and_mode = mode << 6 | (reg & 7) << 3;
        if let Some((index, scale)) = mem.index {
            self.raw(&[reg_and_mode | 4, scale << 6 | (index & 7) << 3 | mem.base & 7]);
        } else if mem.base & 7 == RSP {
            self.raw(&[reg_and_mode | 4, 0x24]);
        } else {
            self.bytes.push(reg_and_mode | mem.base & 7);
        }
        match mode {
            1 => self.bytes.push(mem.disp as u8),
            2 => self.raw(&mem.disp.to_le_bytes()),
            _ => {}
        }
    }

    pub(super) fn mov(&mut self, wide: bool, to: Reg, from: Reg) {
        if !wide || to != from {
            self.rr(wide, &[0x8b], to, from);
        }
    }

    pub(super) fn mov_imm(&mut self, to: Reg, value: u64) {
        if let Ok(low) = u32::try_from(value) {
            self.rex(false, 0, 0, to, false);
            self.bytes.push(0xb8 | to & 7);
            self.raw(&low.to_le_bytes());
        } else if let Ok(signed) = i32::try_from(value as i64) {
            self.rr(true, &[0xc7], 0, to);
            self.raw(&signed.to_le_bytes());
        } else {
            self.rex(true, 0, 0, to, false);
            self.bytes.push(0xb8 | to & 7);
            self.raw(&value.to_le_bytes());
        }
    }

    /// The low part of a register, extended.
    pub(super) fn extend(&mut self, extend: Extend, to: Reg, from: Reg) {
        let (wide, opcode) = extend.opcode();
        self.rr_forced(wide, opcode, to, from, matches!(extend, Extend::U8 | Extend::S8To32));
    }

    pub(super) fn load(&mut self, extend: Extend, to: Reg, mem: Mem) {
        let (wide, opcode) = extend.opcode();
        self.rm(&[], wide, opcode, to, mem, false);
    }

    /// Store the low `size` bytes.
    pub(super) fn store(&mut self, size: u32, from: Reg, mem: Mem) {
        match size {
            1 => self.rm(&[], false, &[0x88], from, mem, true),
            2 => self.rm(&[0x66], false, &[0x89], from, mem, false),
            4 => self.rm(&[], false, &[0x89], from, mem, false),
            _ => self.rm(&[], true, &[0x89], from, mem, false),
        }
    }

    pub(super) fn store_imm8(&mut self, mem: Mem, value: u8) {
        self.rm(&[], false, &[0xc6], 0, mem, false);
        self.bytes.push(value);
    }

    pub(super) fn store_imm16(&mut self, mem: Mem, value: u16) {
        self.rm(&[0x66], false, &[0xc7], 0, mem, false);
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn store_imm32(&mut self, mem: Mem, value: u32) {
        self.rm(&[], false, &[0xc7], 0, mem, false);
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn lea(&mut self, wide: bool, to: Reg, mem: Mem) {
        self.rm(&[], wide, &[0x8d], to, mem, false);
    }

    pub(super) fn alu(&mut self, op: Alu, wide: bool, to: Reg, from: Reg) {
        self.rr(wide, &[(op as u8) << 3 | 3], to, from);
    }

    pub(super) fn alu_mem(&mut self, op: Alu, wide: bool, to: Reg, mem: Mem) {
        self.rm(&[], wide, &[(op as u8) << 3 | 3], to, mem, false);
    }

    pub(super) fn alu_imm(&mut self, op: Alu, wide: bool, to: Reg, value: i32) {
        if let Ok(small) = i8::try_from(value) {
            self.rr(wide, &[0x83], op as u8, to);
            self.bytes.push(small as u8);
        } else {
            self.rr(wide, &[0x81], op as u8, to);
            self.raw(&value.to_le_bytes());
        }
    }

    /// Compare a byte of memory.
    pub(super) fn cmp_byte(&mut self, mem: Mem, value: u8) {
        self.rm(&[], false, &[0x80], Alu::Cmp as u8, mem, false);
        self.bytes.push(value);
    }

    /// Bits of a byte of memory.
    pub(super) fn test_byte(&mut self, mem: Mem, bits: u8) {
        self.rm(&[], false, &[0xf6], 0, mem, false);
        self.bytes.push(bits);
    }

    pub(super) fn test(&mut self, wide: bool, a: Reg, b: Reg) {
        self.rr(wide, &[0x85], a, b);
    }

    pub(super) fn test_imm(&mut self, wide: bool, reg: Reg, value: i32) {
        self.rr(wide, &[0xf7], 0, reg);
        self.raw(&value.to_le_bytes());
    }

    /// CF = the bit.
    pub(super) fn bit_test(&mut self, reg: Reg, bit: u8) {
        self.rr(bit >= 32, &[0x0f, 0xba], 4, reg);
        self.bytes.push(bit);
    }

    pub(super) fn shift(&mut self, op: Shift, wide: bool, reg: Reg, count: u8) {
        if count != 0 {
            self.rr(wide, &[0xc1], op as u8, reg);
            self.bytes.push(count);
        }
    }

    /// RORX: the low 32 bits, rotated; changes no flag.
    pub(super) fn rotate_right(&mut self, to: Reg, from: Reg, count: u8) {
        // VEX.LZ.F2.0F3A.W0; R and B are inverted.
        let inverted = (to >> 3 ^ 1) << 7 | 1 << 6 | (from >> 3 ^ 1) << 5;
        self.raw(&[0xc4, inverted | 0b0_0011, 0x7b, 0xf0, 0xc0 | (to & 7) << 3 | from & 7, count]);
    }

    /// By CL.
    pub(super) fn shift_cl(&mut self, op: Shift, wide: bool, reg: Reg) {
        self.rr(wide, &[0xd3], op as u8, reg);
    }

    /// SHRD: `to` shifted right, filled from `from`.
    pub(super) fn shift_double(&mut self, wide: bool, to: Reg, from: Reg, count: u8) {
        self.rr(wide, &[0x0f, 0xac], from, to);
        self.bytes.push(count);
    }

    pub(super) fn unary(&mut self, op: Unary, wide: bool, reg: Reg) {
        self.rr(wide, &[0xf7], op as u8, reg);
    }

    pub(super) fn multiply(&mut self, wide: bool, to: Reg, by: Reg) {
        self.rr(wide, &[0x0f, 0xaf], to, by);
    }

    /// CQO or CDQ: the sign of RAX through RDX.
    pub(super) fn sign_to_rdx(&mut self, wide: bool) {
        self.rex(wide, 0, 0, 0, false);
        self.bytes.push(0x99);
    }

    pub(super) fn swap_bytes(&mut self, wide: bool, reg: Reg) {
        self.rex(wide, 0, 0, reg, false);
        self.raw(&[0x0f, 0xc8 | reg & 7]);
    }

    pub(super) fn leading_zeros(&mut self, wide: bool, to: Reg, from: Reg) {
        self.bytes.push(0xf3);
        self.rr(wide, &[0x0f, 0xbd], to, from);
    }

    pub(super) fn cmov(&mut self, cc: Cc, wide: bool, to: Reg, from: Reg) {
        self.rr(wide, &[0x0f, 0x40 | cc.0], to, from);
    }

    pub(super) fn complement_carry(&mut self) {
        self.bytes.push(0xf5);
    }

    /// LAHF, SETO AL: the flags into AX.
    pub(super) fn flags_to_ax(&mut self) {
        self.raw(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    /// The inverse: OF by an addition to AL that overflows if it is 1.
    pub(super) fn flags_from_ax(&mut self) {
        self.raw(&[0x04, 0x7f, 0x9e]);
    }

    pub(super) fn push(&mut self, reg: Reg) {
        self.rex(false, 0, 0, reg, false);
        self.bytes.push(0x50 | reg & 7);
    }

    pub(super) fn pop(&mut self, reg: Reg) {
        self.rex(false, 0, 0, reg, false);
        self.bytes.push(0x58 | reg & 7);
    }

    pub(super) fn ret(&mut self) {
        self.bytes.push(0xc3);
    }

    pub(super) fn call_mem(&mut self, mem: Mem) {
        self.rm(&[], false, &[0xff], 2, mem, false);
    }

    pub(super) fn jmp_reg(&mut self, reg: Reg) {
        self.rr(false, &[0xff], 4, reg);
    }

    pub(super) fn jmp_mem(&mut self, mem: Mem) {
        self.rm(&[], false, &[0xff], 4, mem, false);
    }

    pub(super) fn jcc(&mut self, cc: Cc) -> Jump {
        self.raw(&[0x0f, 0x80 | cc.0, 0, 0, 0, 0]);
        Jump(self.bytes.len())
    }

    pub(super) fn jmp(&mut self) -> Jump {
        self.raw(&[0xe9, 0, 0, 0, 0]);
        Jump(self.bytes.len())
    }

    /// The jump goes to `target`.
    pub(super) fn bind(&mut self, Jump(end): Jump, target: usize) {
        let distance = (target as i64 - end as i64) as i32;
        if let Some(bytes) = self.bytes.get_mut(end - 4..end) {
            bytes.copy_from_slice(&distance.to_le_bytes());
        }
    }

    pub(super) fn bind_here(&mut self, jump: Jump) {
        let here = self.here();
        self.bind(jump, here);
    }

    pub(super) fn zero_xmm(&mut self, xmm: Reg) {
        self.rr(false, &[0x0f, 0x57], xmm, xmm);
    }

    /// An XMM register and another, or a general one: `opcode` behind its mandatory prefix.
    pub(super) fn xmm(&mut self, prefix: &[u8], wide: bool, opcode: &[u8], reg: Reg, rm: Reg) {
        self.raw(prefix);
        self.rr(wide, opcode, reg, rm);
    }

    /// XMM register and memory: `opcode` behind its mandatory prefix.
    pub(super) fn xmm_mem(&mut self, prefix: &[u8], opcode: &[u8], xmm: Reg, mem: Mem) {
        self.rm(prefix, false, opcode, xmm, mem, false);
    }
}
