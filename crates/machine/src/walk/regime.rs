//! The registers that govern EL1&0 stage-1 translation, and what they say for one address
//! (`AArch64.GetS1TTWParams`).

use seawall_arm::FaultStatus;

use super::{MemoryAttributes, Stage2};

/// The system registers of a regime. Cheap to build for each walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    /// SCTLR_EL1: M, I and WXN are used.
    pub sctlr: u64,
    /// TCR_EL1.
    pub tcr: u64,
    /// TTBR0_EL1: VAs with bit 55 clear.
    pub ttbr0: u64,
    /// TTBR1_EL1: VAs with bit 55 set.
    pub ttbr1: u64,
    /// MAIR_EL1.
    pub mair: u64,
    /// Bits of physical address of the CPU (ID_AA64MMFR0_EL1.PARange), 32 to 48.
    pub pa_bits: u32,
    /// What is below stage 1, if anything is.
    pub stage2: Option<Stage2>,
}

/// A translation granule: the size of pages and of full tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granule {
    /// 4 KiB.
    Size4K,
    /// 16 KiB.
    Size16K,
    /// 64 KiB.
    Size64K,
}

impl Granule {
    /// log2 of its size in bytes: 12, 14 or 16.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size16K => 14,
            Self::Size64K => 16,
        }
    }

    /// Bits of address that one full table resolves: 9, 11 or 13.
    pub(super) const fn stride(self) -> u32 {
        self.shift() - 3
    }

    /// log2 of what one descriptor at `level` covers, bytes.
    pub(super) const fn shift_at(self, level: i8) -> u32 {
        self.shift() + self.stride() * (3 - level as u32)
    }

    /// True if a descriptor at `level` may be a block (`AArch64.BlockDescSupported`, without LPA2
    /// and LPA).
    pub(super) const fn has_blocks_at(self, level: i8) -> bool {
        matches!((self, level), (Self::Size4K, 1 | 2) | (Self::Size16K | Self::Size64K, 2))
    }
}

/// What governs the walk of one address: one TTBR and its half of TCR_EL1.
#[derive(Clone, Copy)]
pub(super) struct TableRange {
    pub(super) granule: Granule,
    /// log2 of the size of the VA range, bytes: 64 - TnSZ.
    input_bits: u32,
    /// Bits of address that tables and pages may have: TCR_EL1.IPS, at most the CPU's.
    pub(super) output_bits: u32,
    /// TCR_EL1.HPDn is clear.
    pub(super) hierarchical_permissions: bool,
    ttbr: u64,
}

impl TableRange {
    /// `AArch64.S1StartLevel`.
    pub(super) fn start_level(&self) -> i8 {
        3 - ((self.input_bits - 1 - self.granule.shift()) / self.granule.stride()) as i8
    }

    /// Where the first table lies (`AArch64.S1TTBaseAddress`): aligned to its own size.
    pub(super) fn table_base(&self) -> Result<u64, FaultStatus> {
        let table_shift = self.input_bits - self.granule.shift_at(self.start_level()) + 3;
        let base = self.ttbr & (u64::MAX >> 16) & (u64::MAX << table_shift);
        if base >> self.output_bits != 0 {
            return Err(FaultStatus::AddressSize { level: 0 });
        }
        Ok(base)
    }

    /// Which descriptor of its table `va` selects at `level`.
    pub(super) fn index(&self, va: u64, level: i8) -> u64 {
        let top = self.input_bits.min(self.granule.shift_at(level) + self.granule.stride());
        (va & (u64::MAX >> (64 - top))) >> self.granule.shift_at(level)
    }
}

impl Regime {
    /// SCTLR_EL1.M, which HCR_EL2.DC overrules.
    pub fn mmu_on(&self) -> bool {
        self.sctlr & 1 != 0 && !self.default_cacheable()
    }

    /// HCR_EL2.DC.
    pub(super) fn default_cacheable(&self) -> bool {
        self.stage2.is_some_and(|stage2| stage2.default_cacheable)
    }

    /// TCR_EL1.TBI0 or TBI1, by bit 55: address bits `[63:56]` are a tag.
    pub fn top_byte_ignored(&self, va: u64) -> bool {
        self.tcr >> (37 + upper_half(va)) & 1 != 0
    }

    /// The ASID in use: from the TTBR that TCR_EL1.A1 selects, 8 bits unless TCR_EL1.AS.
    pub fn asid(&self) -> u16 {
        let ttbr = if self.tcr >> 22 & 1 != 0 { self.ttbr1 } else { self.ttbr0 };
        let asid = (ttbr >> 48) as u16;
        if self.tcr >> 36 & 1 != 0 { asid } else { asid & 0xff }
    }

    /// SCTLR_EL1.I.
    pub(super) fn instruction_cache(&self) -> bool {
        self.sctlr >> 12 & 1 != 0
    }

    /// SCTLR_EL1.WXN.
    pub(super) fn write_implies_execute_never(&self) -> bool {
        self.sctlr >> 19 & 1 != 0
    }

    /// TCR_EL1.HA.
    pub(super) fn hardware_access_flag(&self) -> bool {
        self.tcr >> 39 & 1 != 0
    }

    /// TCR_EL1.HD, which counts only with HA.
    pub(super) fn hardware_dirty_state(&self) -> bool {
        self.tcr >> 40 & 1 != 0 && self.hardware_access_flag()
    }

    /// The memory type that AttrIndx selects, with the descriptor's SH (`S1DecodeMemAttrs`).
    pub(super) fn attributes(&self, index: u8, shareability: u8) -> MemoryAttributes {
        let mair = (self.mair >> (8 * u32::from(index & 7))) as u8;
        let outer_always = mair & 0xf0 == 0 || mair == 0x44;
        MemoryAttributes { mair, shareability: if outer_always { 2 } else { shareability } }
    }

    /// The half of the VA space that `va` is in, checked: a level 0 translation fault if its walks
    /// are disabled (EPDn), TnSZ is out of range, or `va` is not in the range that TnSZ leaves.
    pub(super) fn table_range(&self, va: u64) -> Result<TableRange, FaultStatus> {
        let fault = Err(FaultStatus::Translation { level: 0 });
        let upper = upper_half(va);
        let half = self.tcr >> (16 * upper);
        let granule = granule(self.tcr, upper);
        let size = (half & 0x3f) as u32;
        // FEAT_TTST: tables of down to 2^16 (64 KiB granule: 2^17) bytes of VA.
        let largest = if granule == Granule::Size64K { 47 } else { 48 };
        if !(16..=largest).contains(&size) {
            return fault;
        }
        let input_bits = 64 - size;
        let top = if self.top_byte_ignored(va) { 56 } else { 64 };
        // Sign-extend from bit 55, so that an address in range has only copies of it above
        // input_bits.
        let signed = ((va << (64 - top)) as i64) >> (64 - top);
        let above = signed >> input_bits;
        if above != -(upper as i64) || half >> 7 & 1 != 0 {
            return fault;
        }
        Ok(TableRange {
            granule,
            input_bits,
            output_bits: output_bits_of(self.tcr >> 32 & 7).min(self.pa_bits),
            hierarchical_permissions: self.tcr >> (41 + upper) & 1 == 0,
            ttbr: if upper == 0 { self.ttbr0 } else { self.ttbr1 },
        })
    }
}

/// Bit 55, which chooses the TTBR.
fn upper_half(va: u64) -> u32 {
    (va >> 55 & 1) as u32
}

/// TG0 or TG1; the reserved encoding of each is taken as 4 KiB (IMPLEMENTATION DEFINED).
fn granule(tcr: u64, upper: u32) -> Granule {
    let encoding = if upper == 0 { tcr >> 14 } else { tcr >> 30 } & 3;
    match (upper, encoding) {
        (0, 0b01) | (1, 0b11) => Granule::Size64K,
        (0, 0b10) | (1, 0b01) => Granule::Size16K,
        _ => Granule::Size4K,
    }
}

/// TCR_EL1.IPS or VTCR_EL2.PS, in bits; the reserved encodings are taken as 48.
pub(super) fn output_bits_of(size: u64) -> u32 {
    match size {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}
