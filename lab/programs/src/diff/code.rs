//! Tiny guest programs: their words for KVM, their meaning for the model.

use std::collections::{BTreeSet, HashMap};

use super::{Guest, aarch32, aarch64};

/// The start of the guest's memory, and its size in bytes.
pub(super) const RAM: (u64, u64) = (0x4000_0000, 0x10_0000);
/// Memory at AArch32's high vectors.
pub(super) const HIGH: (u64, u64) = (0xffff_0000, 0x1_0000);
/// An address without memory that programs branch to.
pub(super) const HOLE: u64 = 0x1000_0000;
/// A page of RAM whose first line is bad, if the host has the lab's poison register.
pub(super) const POISON: u64 = RAM.0 + 0x8_0000;
/// The address of the first program.
const PROGRAMS: u64 = RAM.0 + 0x1_0000;
/// The distance between two programs in bytes.
const STRIDE: u64 = 0x40;

/// The effect of an instruction, as far as exceptions and exits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A load whose syndrome describes it. Without a register it is the zero register.
    Load {
        /// The register loaded.
        target: Option<u8>,
        /// Size in bytes.
        bytes: u8,
        /// True for sign extension.
        signed: bool,
        /// True for all 64 bits of the register.
        wide: bool,
        /// The register that holds the address.
        base: u8,
    },
    /// A store whose syndrome describes it.
    Store {
        /// The stored register; `None` is the zero register.
        source: Option<u8>,
        /// Size in bytes.
        bytes: u8,
        /// The register that holds the address.
        base: u8,
    },
    /// A load or store that no syndrome describes (ISV 0).
    Unsyndromed {
        /// True for a store.
        write: bool,
        /// The register from which the address is computed.
        base: u8,
        /// The offset added to it in bytes.
        offset: u64,
    },
    /// A change of PSTATE.DAIF.
    Mask {
        /// True to set the bits, false to clear them.
        set: bool,
        /// The bits of PSTATE.
        bits: u64,
    },
    /// A change of another bit of PSTATE.
    Field {
        /// The bit.
        bit: u64,
        /// Its new value.
        set: bool,
        /// True if it is UNDEFINED at EL0.
        privileged: bool,
    },
    /// A move of a constant into a register.
    Constant {
        /// The register.
        target: u8,
        /// The constant.
        value: u64,
        /// The bits of the register that do not change.
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
    /// B by this many bytes.
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
    /// True for T32.
    pub thumb: bool,
    /// The text for an assembler.
    pub text: &'static str,
    /// Its effect.
    pub action: Action,
}

/// A program, which loops forever unless it exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its instructions.
    pub text: String,
    /// Its address.
    pub start: u64,
    /// True if it runs in T32 state.
    pub thumb: bool,
}

/// All code that a guest can reach.
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

    /// Puts `report`, a store that exits, after the other code in each page.
    pub(super) fn add_probes(&mut self, report: Instruction) {
        let pages: BTreeSet<u64> = self.instructions.keys().map(|address| address & !0xfff).collect();
        self.probes = pages.into_iter().map(|page| page + 0xffc).collect();
        for probe in self.probes.clone() {
            self.put(probe, &[report]);
        }
    }

    /// An address in each page of code, with a store that exits. The host maps a page on the first touch;
    /// without these, that fault would become the vCPU's last one.
    pub fn probes(&self) -> &[u64] {
        &self.probes
    }

    /// Puts instructions at an address, and returns the address after them.
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

    /// The possible values of `VBAR` when the guest runs.
    pub fn tables(&self) -> &[u64] {
        &self.tables
    }

    /// The content of guest memory: addresses and bytes.
    pub fn memory(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.instructions.iter().map(|(address, instruction)| {
            // A 32-bit T32 instruction is two halfwords, the first at the lower address.
            let word = instruction.word.to_le_bytes();
            (*address, word[..usize::from(instruction.bytes)].to_vec())
        })
    }
}

/// Returns true if there is memory at an address.
pub(super) fn is_memory(guest: Guest, address: u64) -> bool {
    let within = |(start, size): (u64, u64)| (start..start + size).contains(&address);
    within(RAM) || guest == Guest::Aarch32 && within(HIGH)
}
