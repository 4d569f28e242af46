//! Tiny guest programs: their words for KVM, their meaning for the model.

use std::collections::{BTreeSet, HashMap};

use super::{Guest, aarch32, aarch64};

/// Where the guest's memory begins, and its size in bytes.
pub(super) const RAM: (u64, u64) = (0x4000_0000, 0x10_0000);
/// AArch32's high vectors are memory too.
pub(super) const HIGH: (u64, u64) = (0xffff_0000, 0x1_0000);
/// An address without memory that programs branch to.
pub(super) const HOLE: u64 = 0x1000_0000;
/// A page of RAM whose first line is bad, where the host has the lab's poison register.
pub(super) const POISON: u64 = RAM.0 + 0x8_0000;
/// Where the first program begins.
const PROGRAMS: u64 = RAM.0 + 0x1_0000;
/// Bytes from one program to the next.
const STRIDE: u64 = 0x40;

/// What an instruction does, as far as exceptions and exits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A load whose syndrome describes it. Into no register: the zero register.
    Load {
        /// The register loaded.
        target: Option<u8>,
        /// How many bytes.
        bytes: u8,
        /// Sign-extended.
        signed: bool,
        /// Into all 64 bits of the register.
        wide: bool,
        /// The register that holds the address.
        base: u8,
    },
    /// A store whose syndrome describes it.
    Store {
        /// The register stored; the zero register if there is none.
        source: Option<u8>,
        /// How many bytes.
        bytes: u8,
        /// The register that holds the address.
        base: u8,
    },
    /// A load or store that no syndrome describes (ISV 0).
    Unsyndromed {
        /// A store.
        write: bool,
        /// The register that the address is made of.
        base: u8,
        /// What is added to it, bytes.
        offset: u64,
    },
    /// PSTATE.DAIF.
    Mask {
        /// Set, not clear.
        set: bool,
        /// Which bits of PSTATE.
        bits: u64,
    },
    /// Another bit of PSTATE.
    Field {
        /// Which.
        bit: u64,
        /// Its new value.
        set: bool,
        /// UNDEFINED at EL0.
        privileged: bool,
    },
    /// A constant into a register.
    Constant {
        /// Which.
        target: u8,
        /// What.
        value: u64,
        /// The bits of the register that stay.
        keep: u64,
    },
    /// HVC.
    Hypercall {
        /// Its immediate, 16 bits.
        immediate: u16,
    },
    /// SVC, AArch64.
    SupervisorCall {
        /// Its immediate, 16 bits.
        immediate: u16,
    },
    /// An UNDEFINED instruction, AArch64.
    Undefined,
    /// ERET.
    ExceptionReturn,
    /// BR to the address in this register.
    BranchTo(u8),
    /// B by so many bytes.
    Branch(i64),
    /// NOP.
    Nothing,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// A word, or a halfword of T32.
    pub word: u32,
    /// 4, or 2 for a halfword.
    pub bytes: u8,
    /// It is T32.
    pub thumb: bool,
    /// As an assembler takes it.
    pub text: &'static str,
    /// What it does.
    pub action: Action,
}

/// A program, which loops for ever unless it exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its instructions.
    pub text: String,
    /// Its address.
    pub start: u64,
    /// It runs in T32 state.
    pub thumb: bool,
}

/// All code that a guest can come to.
#[derive(Clone, Debug, Default)]
pub struct Code {
    instructions: HashMap<u64, Instruction>,
    programs: Vec<Program>,
    tables: Vec<u64>,
    probes: Vec<u64>,
}

impl Code {
    /// The code of a guest's programs and vector tables.
    pub fn new(guest: Guest) -> Self {
        let mut code = Self::default();
        match guest {
            Guest::Aarch64 => aarch64::fill(&mut code, true),
            Guest::Nested => aarch64::fill(&mut code, false),
            Guest::Aarch32 => aarch32::fill(&mut code),
        }
        code
    }

    /// Adds a program, and a branch from its end back to its start.
    pub(super) fn add_program(&mut self, body: &[Instruction], thumb: bool, back: fn(i64) -> Instruction) {
        let start = PROGRAMS + self.programs.len() as u64 * STRIDE;
        let end = self.put(start, body);
        self.put(end, &[back(start.wrapping_sub(end) as i64)]);
        let text = body.iter().map(|instruction| instruction.text).collect::<Vec<_>>().join("; ");
        self.programs.push(Program { text, start, thumb });
    }

    /// Adds a vector table that runs may use. The first one reports by a store wherever it is entered.
    pub(super) fn add_table(&mut self, base: u64) {
        self.tables.push(base);
    }

    /// A vector table that reports by a store, at its beginning and at each vector.
    pub fn report(&self) -> u64 {
        self.tables.first().copied().unwrap_or(0)
    }

    /// Puts `report`, a store that exits, behind everything in each page that has code.
    pub(super) fn add_probes(&mut self, report: Instruction) {
        let pages: BTreeSet<u64> = self.instructions.keys().map(|address| address & !0xfff).collect();
        self.probes = pages.into_iter().map(|page| page + 0xffc).collect();
        for probe in self.probes.clone() {
            self.put(probe, &[report]);
        }
    }

    /// An address in each page of code, with a store that exits: the host maps a page when it is first touched,
    /// and that fault would be seen as the vCPU's last.
    pub fn probes(&self) -> &[u64] {
        &self.probes
    }

    /// Puts instructions at an address, and gives the address behind them.
    pub(super) fn put(&mut self, mut address: u64, instructions: &[Instruction]) -> u64 {
        for instruction in instructions {
            self.instructions.insert(address, *instruction);
            address += u64::from(instruction.bytes);
        }
        address
    }

    /// The instruction at an address.
    pub fn at(&self, address: u64) -> Option<&Instruction> {
        self.instructions.get(&address)
    }

    /// The programs.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Where `VBAR` may point to when the guest runs.
    pub fn tables(&self) -> &[u64] {
        &self.tables
    }

    /// What goes into guest memory: addresses and bytes.
    pub fn memory(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.instructions.iter().map(|(address, instruction)| {
            // A 32-bit T32 instruction is two halfwords, the first at the lower address.
            let word = instruction.word.to_le_bytes();
            (*address, word[..usize::from(instruction.bytes)].to_vec())
        })
    }
}

/// Whether there is memory at an address.
pub(super) fn is_memory(guest: Guest, address: u64) -> bool {
    let within = |(start, size): (u64, u64)| (start..start + size).contains(&address);
    within(RAM) || guest == Guest::Aarch32 && within(HIGH)
}
