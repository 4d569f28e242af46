//! Loads and stores that hit in the TLB. What does not goes to the interpreter: a miss, a page with poison, decoded code,
//! watchpoints or alignment faults, a misaligned SP, an access that leaves its page.

use std::mem::offset_of;

use super::asm::{Alu, Cc, Extend, Mem, RAX, RBX, RCX, RDX, Reg};
use super::near::Check;
use super::{Context, RAM, READ, Translator, context, tlb_index};
use crate::cpu::Cpu;
use crate::decode::fp_simd::op::VectorAccess;
use crate::decode::insn::SP;
use crate::decode::{Insn, Kind, Op, meaning};
use crate::tlb::layout;

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Base and immediate.
    Offset,
    /// Base and a register, extended and shifted by this.
    Register(u8),
    /// As `Offset` in the low half of `imm`; the high half is added to the base.
    Writeback,
    /// The PC.
    Literal,
}

/// What is moved between registers and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Load(Extend),
    Store,
    LoadPair(Extend),
    StorePair,
    VectorLoad,
    VectorStore,
    VectorLoadPair,
    VectorStorePair,
}

impl Data {
    pub(super) fn is_store(self) -> bool {
        matches!(self, Data::Store | Data::StorePair | Data::VectorStore | Data::VectorStorePair)
    }

    fn is_vector(self) -> bool {
        matches!(self, Data::VectorLoad | Data::VectorStore | Data::VectorLoadPair | Data::VectorStorePair)
    }

    fn is_pair(self) -> bool {
        matches!(self, Data::LoadPair(_) | Data::StorePair | Data::VectorLoadPair | Data::VectorStorePair)
    }
}

/// An access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) data: Data,
    /// Log2 of the bytes of one register.
    size: u32,
    mode: Mode,
    /// It must be aligned, or the interpreter looks at it.
    aligned: bool,
}

impl Access {
    fn plain(kind: Kind, mode: Mode) -> Self {
        let data = match kind {
            Kind::StrB | Kind::StrH | Kind::StrW | Kind::StrX => Data::Store,
            Kind::LdrB => Data::Load(Extend::U8),
            Kind::LdrH => Data::Load(Extend::U16),
            Kind::LdrW => Data::Load(Extend::U32),
            Kind::LdrX => Data::Load(Extend::U64),
            Kind::LdrSb64 => Data::Load(Extend::S8),
            Kind::LdrSh64 => Data::Load(Extend::S16),
            Kind::LdrSw64 => Data::Load(Extend::S32),
            Kind::LdrSb32 => Data::Load(Extend::S8To32),
            Kind::LdrSh32 => Data::Load(Extend::S16To32),
        };
        Self { data, size: kind.size(), mode, aligned: false }
    }

    fn pair(data: Data, size: u32) -> Self {
        Self { data, size, mode: Mode::Writeback, aligned: false }
    }

    /// `None`: it is none, or not translated.
    pub(super) fn of(insn: &Insn) -> Option<Self> {
        if let Some((kind, mode)) = insn.op.access() {
            let mode = match mode {
                meaning::Mode::Offset => Mode::Offset,
                meaning::Mode::Register => Mode::Register(insn.x as u8 & 3),
                meaning::Mode::Writeback => Mode::Writeback,
                meaning::Mode::Literal => Mode::Literal,
            };
            return Some(Self::plain(kind, mode));
        }
        match insn.op {
            Op::StpW => Some(Self::pair(Data::StorePair, 2)),
            Op::StpX => Some(Self::pair(Data::StorePair, 3)),
            Op::LdpW => Some(Self::pair(Data::LoadPair(Extend::U32), 2)),
            Op::LdpX => Some(Self::pair(Data::LoadPair(Extend::U64), 3)),
            Op::LdpSw => Some(Self::pair(Data::LoadPair(Extend::S32), 2)),
            Op::Ordered => {
                Some(Self { aligned: true, ..Self::plain(Kind::from_number(insn.x), Mode::Offset) })
            }
            Op::VectorMemory(op) => Self::vector(insn, op),
            _ => None,
        }
    }

    fn vector(insn: &Insn, op: VectorAccess) -> Option<Self> {
        let size = u32::from(insn.x & 0xff);
        let shift = (insn.x >> 8) as u8;
        let (data, mode) = match op {
            VectorAccess::Load => (Data::VectorLoad, Mode::Writeback),
            VectorAccess::Store => (Data::VectorStore, Mode::Writeback),
            // The host's address has factors up to 8.
            VectorAccess::LoadIndexed if shift <= 3 => (Data::VectorLoad, Mode::Register(shift)),
            VectorAccess::StoreIndexed if shift <= 3 => (Data::VectorStore, Mode::Register(shift)),
            VectorAccess::LoadLiteral => (Data::VectorLoad, Mode::Literal),
            VectorAccess::LoadPair => (Data::VectorLoadPair, Mode::Writeback),
            VectorAccess::StorePair => (Data::VectorStorePair, Mode::Writeback),
            _ => return None,
        };
        Some(Self { data, size, mode, aligned: false })
    }

    pub(super) fn bytes(self) -> i32 {
        1 << (self.size + u32::from(self.data.is_pair()))
    }

    /// Its address is that of a base and a constant, and any will do.
    pub(super) fn has_near_address(self) -> bool {
        matches!(self.mode, Mode::Offset | Mode::Writeback) && !self.aligned
    }

    /// The change of its base.
    pub(super) fn change(self, insn: &Insn) -> i32 {
        if self.mode == Mode::Writeback { (insn.imm as i64 >> 32) as i32 } else { 0 }
    }

    /// The general registers that it loads.
    pub(super) fn loads(self, insn: &Insn) -> [Option<u8>; 2] {
        match self.data {
            Data::Load(_) => [Some(insn.rd), None],
            Data::LoadPair(_) => [Some(insn.rd), Some(insn.ra)],
            _ => [None, None],
        }
    }
}

impl Translator<'_> {
    /// True if it is one that is translated.
    pub(super) fn load_store(&mut self, insn: &Insn, k: usize) -> bool {
        let Some(access) = Access::of(insn) else { return false };
        // All registers first, so that the slow path and the fast one agree on where they are.
        let base = (access.mode != Mode::Literal).then(|| self.source(insn.rn));
        let offset = matches!(access.mode, Mode::Register(_)).then(|| self.source(insn.rm));
        let data = self.data_registers(access.data, insn);
        let check = self.plan.check(k);
        let mut reasons = Vec::with_capacity(4);
        if access.data.is_vector() {
            reasons.push(self.if_fp_traps());
        }
        if let Some(base) = base.filter(|_| insn.rn == SP && !matches!(check, Check::Later { .. })) {
            self.asm.test_imm(false, base, 15);
            reasons.push(self.asm.jcc(Cc::NOT_ZERO));
        }
        let is_store = access.data.is_store();
        let distance = match (check, base) {
            (Check::First { lowest, bytes, kept }, Some(base)) => {
                self.add_to_rax(base, lowest);
                reasons.push(self.translate_rax(is_store, bytes));
                self.asm.store(8, RAX, kept_at(kept));
                insn.imm as i32 - lowest
            }
            (Check::Later { distance, kept }, _) => {
                self.asm.load(Extend::U64, RAX, kept_at(kept));
                distance
            }
            _ => {
                self.address_to_rax(insn, access.mode, k, base, offset);
                if access.aligned && access.size != 0 {
                    self.asm.test_imm(false, RAX, access.bytes() - 1);
                    reasons.push(self.asm.jcc(Cc::NOT_ZERO));
                }
                reasons.push(self.translate_rax(is_store, access.bytes()));
                0
            }
        };
        self.unless(&reasons, k);
        self.transfer(access, insn, data, base, distance);
        true
    }

    /// Host registers for what is loaded or stored; vectors stay in memory.
    fn data_registers(&mut self, data: Data, insn: &Insn) -> [Reg; 2] {
        match data {
            Data::Load(_) => [self.destination(insn.rd), RDX],
            Data::Store => [self.source(insn.rd), RDX],
            Data::LoadPair(_) => [self.destination(insn.rd), self.destination(insn.ra)],
            Data::StorePair => [self.source(insn.rd), self.source(insn.ra)],
            _ => [RDX, RDX],
        }
    }

    fn address_to_rax(&mut self, insn: &Insn, mode: Mode, k: usize, base: Option<Reg>, offset: Option<Reg>) {
        match (mode, base, offset) {
            (Mode::Register(shift), Some(base), Some(offset)) => {
                let offset = if insn.imm == u64::MAX {
                    offset
                } else {
                    let extend = if insn.ra & 1 == 1 { Extend::S32 } else { Extend::U32 };
                    self.asm.extend(extend, RAX, offset);
                    RAX
                };
                self.asm.lea(true, RAX, Mem::indexed(base, offset, shift, 0));
            }
            (Mode::Offset | Mode::Writeback, Some(base), _) => self.add_to_rax(base, insn.imm as i32),
            _ => {
                let index = (self.block.start + k) as i32;
                self.asm.load(Extend::U64, RAX, context!(page_va));
                self.asm.lea(true, RAX, Mem::at(RAX, index * 4 + insn.imm as i32));
            }
        }
    }

    /// RAX = a register and a constant. A host renames a register faster than it adds.
    fn add_to_rax(&mut self, base: Reg, displacement: i32) {
        if displacement == 0 {
            self.asm.mov(true, RAX, base);
        } else {
            self.asm.lea(true, RAX, Mem::at(base, displacement));
        }
    }

    /// The virtual address in RAX becomes an offset in RAM. Gives the jump that is taken if the TLB does not have it.
    pub(super) fn translate_rax(&mut self, write: bool, bytes: i32) -> super::Jump {
        tlb_index(&mut self.asm);
        // The page of the last byte must be that of the first, whose entry this is.
        if bytes == 1 {
            self.asm.mov(true, RDX, RAX);
        } else {
            self.asm.lea(true, RDX, Mem::at(RAX, bytes - 1));
        }
        self.asm.alu_imm(Alu::And, true, RDX, -4096);
        let tag = if write {
            self.asm.alu_mem(Alu::Add, true, RCX, context!(write));
            Mem::at(RCX, layout::TAG)
        } else {
            Mem::indexed(READ, RCX, 0, layout::TAG)
        };
        self.asm.alu_mem(Alu::Cmp, true, RDX, tag);
        let miss = self.asm.jcc(Cc::NOT_ZERO);
        self.asm.alu_mem(Alu::Add, true, RAX, tag.plus(layout::WORD - layout::TAG));
        miss
    }

    /// Between the registers and the offset in RAX and `distance`; and the base's change. Nothing of it can fail.
    fn transfer(&mut self, access: Access, insn: &Insn, data: [Reg; 2], base: Option<Reg>, distance: i32) {
        let place = Mem::indexed(RAM, RAX, 0, distance);
        let second = place.plus(1 << access.size);
        let change = access.change(insn);
        if access.data.is_store() {
            self.store_data(access, insn, data, place, second);
            self.change_base(insn, base, change);
            return;
        }
        // A loaded register that is the base as well has what was loaded, as the interpreter does it.
        self.change_base(insn, base, change);
        match access.data {
            Data::Load(extend) | Data::LoadPair(extend) => {
                self.asm.load(extend, data[0], place);
                self.written(insn.rd);
                if access.data.is_pair() {
                    self.asm.load(extend, data[1], second);
                    self.written(insn.ra);
                }
            }
            _ => {
                self.load_vector(insn.rd, access.size, place);
                if access.data.is_pair() {
                    self.load_vector(insn.ra, access.size, second);
                }
            }
        }
    }

    fn store_data(&mut self, access: Access, insn: &Insn, data: [Reg; 2], place: Mem, second: Mem) {
        if access.data.is_vector() {
            self.store_vector(insn.rd, access.size, place);
            if access.data.is_pair() {
                self.store_vector(insn.ra, access.size, second);
            }
            return;
        }
        self.asm.store(1 << access.size, data[0], place);
        if access.data.is_pair() {
            self.asm.store(1 << access.size, data[1], second);
        }
    }

    fn change_base(&mut self, insn: &Insn, base: Option<Reg>, change: i32) {
        if let Some(base) = base.filter(|_| change != 0) {
            self.asm.alu_imm(Alu::Add, true, base, change);
            self.written(insn.rn);
        }
    }

    /// A V register gets so many bytes, and zeros above.
    fn load_vector(&mut self, v: u8, size: u32, from: Mem) {
        let to = vector_at(v);
        if size == 4 {
            self.asm.xmm_mem(&[], MOVUPS_LOAD, 0, from);
            self.asm.xmm_mem(&[], MOVUPS_STORE, 0, to);
            return;
        }
        let extend = [Extend::U8, Extend::U16, Extend::U32, Extend::U64][size as usize & 3];
        self.asm.load(extend, RCX, from);
        self.asm.alu(Alu::Xor, false, RDX, RDX);
        self.asm.store(8, RCX, to);
        self.asm.store(8, RDX, to.plus(8));
    }

    fn store_vector(&mut self, v: u8, size: u32, to: Mem) {
        if size == 4 {
            self.asm.xmm_mem(&[], MOVUPS_LOAD, 0, vector_at(v));
            self.asm.xmm_mem(&[], MOVUPS_STORE, 0, to);
            return;
        }
        self.asm.load(Extend::U64, RCX, vector_at(v));
        self.asm.store(1 << size, RCX, to);
    }
}

pub(super) const MOVUPS_LOAD: &[u8] = &[0x0f, 0x10];
pub(super) const MOVUPS_STORE: &[u8] = &[0x0f, 0x11];

/// Where the place of a group's page is kept.
fn kept_at(n: usize) -> Mem {
    Mem::at(RBX, (offset_of!(Cpu, kept) + 8 * n) as i32)
}

/// Where a V register is.
pub(super) fn vector_at(v: u8) -> Mem {
    Mem::at(RBX, offset_of!(Cpu, v) as i32 + 16 * i32::from(v & 31))
}
