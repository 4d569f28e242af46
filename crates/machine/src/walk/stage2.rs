//! Stage 2 of the EL1&0 regime: DDI 0487, `AArch64.S2Translate` and `AArch64.S2Walk`.
//!
//! What is there: the three granules, concatenated tables, small tables (FEAT_TTST), hardware access flag and dirty state,
//! Device memory that a walk must not go through (HCR_EL2.PTW), HCR_EL2.DC. What is not there: XNX, FWB, LPA2, BBM's nT
//! bit, big-endian tables.

use seawall_arm::FaultStatus;

use super::regime::{Granule, output_bits_of};
use super::{
    AF, Access, AccessKind, DBM, DESCRIPTOR_SIZE, Fault, FaultKind, MemoryAttributes, Permissions, Update,
    WalkStage, read_descriptor,
};
use crate::memory::Memory;

/// The registers of stage 2. Cheap to build for each walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2 {
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// HCR_EL2.DC: stage 1 is off, and what it then maps is Normal.
    pub default_cacheable: bool,
    /// HCR_EL2.PTW: a walk of stage 1 through Device memory faults.
    pub protected_walks: bool,
    /// No descriptor is changed: a walk that only asks.
    pub(crate) frozen: bool,
}

/// What stage 2 says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Output {
    /// Physical address.
    pub(super) pa: u64,
    /// Lookup level of the leaf descriptor.
    level: i8,
    /// What may be done there without a further walk.
    pub(super) rights: Permissions,
    /// A store must walk again, to mark the page dirty.
    pub(super) writable_clean: bool,
    /// MemAttr, as bits `[3:0]`.
    memory: u8,
    /// SH.
    shareability: u8,
}

/// S2AP, XN and MemAttr of a descriptor.
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
const XN: u64 = 1 << 54;
const MEM_ATTR_SHIFT: u32 = 2;
const SH_SHIFT: u32 = 8;

/// What an access asks of stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// What the access itself does.
    Access(Access),
    /// A walk of stage 1 reads a descriptor.
    Walk,
    /// A walk of stage 1 changes one.
    Update,
}

impl Asks {
    /// `AArch64.S2HasPermissionsFault`.
    fn allowed(self, rights: Permissions) -> bool {
        let Self::Access(access) = self else {
            return if self == Self::Update { rights.read && rights.write } else { rights.read };
        };
        match access.kind {
            AccessKind::Fetch => rights.execute,
            AccessKind::Read | AccessKind::AddressTranslationRead => rights.read,
            AccessKind::Write | AccessKind::AddressTranslationWrite | AccessKind::CacheInvalidate => {
                rights.write
            }
            AccessKind::CacheClean => access.privileged || rights.read,
        }
    }

    fn writes(self) -> bool {
        match self {
            Self::Access(access) => access.kind == AccessKind::Write,
            Self::Walk => false,
            Self::Update => true,
        }
    }

    /// True if descriptors stay as they are.
    fn only_asks(self) -> bool {
        matches!(self, Self::Access(access) if access.only_asks())
    }

    fn is_of_walk(self) -> bool {
        !matches!(self, Self::Access(_))
    }
}

/// How the walk begins.
struct Start {
    granule: Granule,
    level: i8,
    base: u64,
    output_bits: u32,
}

impl Stage2 {
    /// Stage 2 by its two registers, with HCR_EL2.DC and HCR_EL2.PTW clear.
    pub const fn new(vttbr: u64, vtcr: u64) -> Self {
        Self { vttbr, vtcr, default_cacheable: false, protected_walks: false, frozen: false }
    }

    /// The same, but that no descriptor is changed: what its hardware would change counts as changed.
    pub(super) fn without_updates(self) -> Self {
        Self { frozen: true, ..self }
    }

    /// VTCR_EL2.TG0; the reserved encoding is taken as 4 KiB.
    fn granule(&self) -> Granule {
        match self.vtcr >> 14 & 3 {
            1 => Granule::Size64K,
            2 => Granule::Size16K,
            _ => Granule::Size4K,
        }
    }

    /// `AArch64.S2StartLevel` and `AArch64.S2InvalidSL`, for 48 bits of address. `None`: SL0 is reserved.
    fn start_level(&self) -> Option<i8> {
        match (self.granule(), self.vtcr >> 6 & 3) {
            (Granule::Size4K, 3) => Some(3),
            (Granule::Size4K, sl0) => Some(2 - sl0 as i8),
            (_, 3) => None,
            (_, sl0) => Some(3 - sl0 as i8),
        }
    }

    fn start(&self, ipa: u64, pa_bits: u32) -> Result<Start, FaultStatus> {
        let fault = FaultStatus::Translation { level: 0 };
        let granule = self.granule();
        let size = (self.vtcr & 0x3f) as u32;
        let largest = if granule == Granule::Size64K { 47 } else { 48 };
        let level = self.start_level().ok_or(fault)?;
        if !(64 - pa_bits..=largest).contains(&size) {
            return Err(fault);
        }
        let input_bits = 64 - size;
        // `AArch64.S2InconsistentSL`: the first table is at least one entry, and at most 16 tables.
        let least = granule.shift_at(level) + 1;
        let most = least + granule.stride() - 1 + 4;
        if !(least..=most).contains(&input_bits) || ipa >> input_bits != 0 {
            return Err(fault);
        }
        let output_bits = output_bits_of(self.vtcr >> 16 & 7).min(pa_bits);
        // `AArch64.S2TTBaseAddress`: aligned to the size of all tables together.
        let table_shift = (input_bits - granule.shift_at(level) + 3).max(3);
        let base = self.vttbr & (u64::MAX >> 16) & !1 & (u64::MAX << table_shift);
        if base >> output_bits != 0 {
            return Err(FaultStatus::AddressSize { level: 0 });
        }
        Ok(Start { granule, level, base, output_bits })
    }

    /// VTCR_EL2.HA.
    fn hardware_access_flag(&self) -> bool {
        self.vtcr >> 21 & 1 != 0
    }

    /// VTCR_EL2.HD, which counts only with HA.
    fn hardware_dirty_state(&self) -> bool {
        self.vtcr >> 22 & 1 != 0 && self.hardware_access_flag()
    }

    /// Translates an IPA, and says how the leaf descriptor is to change. `address` is the IPA that a fault reports.
    pub(super) fn translate(
        &self,
        memory: &Memory,
        ipa: u64,
        pa_bits: u32,
        asks: Asks,
    ) -> Result<(Output, Option<Update>), Fault> {
        let of_walk = asks.is_of_walk();
        let fault = |status| Fault { status, kind: FaultKind::Stage2 { ipa, of_walk } };
        let start = self.start(ipa, pa_bits).map_err(fault)?;
        let Start { granule, output_bits, .. } = start;
        let stage = if of_walk { WalkStage::SecondOfWalk } else { WalkStage::Second };
        let (mut level, mut table) = (start.level, start.base);
        loop {
            let shift = granule.shift_at(level);
            // The first lookup may span concatenated tables.
            let mask = if level == start.level { u64::MAX } else { (1 << granule.stride()) - 1 };
            let descriptor_pa = table + (ipa >> shift & mask) * DESCRIPTOR_SIZE as u64;
            let (offset, descriptor) = read_descriptor(memory, descriptor_pa, level, stage)?;
            let is_leaf = match (descriptor & 3, level) {
                (0b11, 3) => true,
                (0b11, _) => false,
                (0b01, _) if granule.has_blocks_at(level) => true,
                _ => return Err(fault(FaultStatus::Translation { level })),
            };
            let span = if is_leaf { shift } else { granule.shift() };
            let address = descriptor & (u64::MAX >> 16) & (u64::MAX << span);
            if address >> output_bits != 0 {
                return Err(fault(FaultStatus::AddressSize { level }));
            }
            if is_leaf {
                let pa = address | ipa & !(u64::MAX << shift);
                return self.grant(descriptor, offset, pa, level, asks).map_err(fault);
            }
            (table, level) = (address, level + 1);
        }
    }

    /// Access flag, permissions, and the update that the access makes.
    fn grant(
        &self,
        descriptor: u64,
        offset: usize,
        pa: u64,
        level: i8,
        asks: Asks,
    ) -> Result<(Output, Option<Update>), FaultStatus> {
        if descriptor & AF == 0 && !self.hardware_access_flag() {
            return Err(FaultStatus::AccessFlag { level });
        }
        let dirty_managed = self.hardware_dirty_state() && descriptor & DBM != 0;
        let memory = (descriptor >> MEM_ATTR_SHIFT) as u8 & 15;
        let mut rights = Permissions {
            read: descriptor & S2AP_READ != 0,
            write: descriptor & S2AP_WRITE != 0 || dirty_managed,
            execute: descriptor & XN == 0,
        };
        let through_device = asks.is_of_walk() && self.protected_walks && is_device(memory);
        if !asks.allowed(rights) || through_device {
            return Err(FaultStatus::Permission { level });
        }
        let mut new = descriptor;
        if !asks.only_asks() {
            new |= AF;
        }
        if dirty_managed && asks.writes() {
            new |= S2AP_WRITE;
        }
        let writable_clean = dirty_managed && new & S2AP_WRITE == 0;
        rights.write &= !writable_clean;
        let shareability = (descriptor >> SH_SHIFT) as u8 & 3;
        let update = (new != descriptor && !self.frozen).then_some(Update { offset, descriptor: new });
        Ok((Output { pa, level, rights, writable_clean, memory, shareability }, update))
    }
}

/// MemAttr 0b00xx.
fn is_device(memory: u8) -> bool {
    memory & 0b1100 == 0
}

impl Output {
    /// The memory type of both stages together. Source: `S2CombineS1MemAttrs`, without FWB.
    pub(super) fn combine(&self, first: MemoryAttributes) -> MemoryAttributes {
        if first.is_device() || is_device(self.memory) {
            // The stricter of two kinds of Device memory: nGnRnE, nGnRE, nGRE, GRE.
            let second = if is_device(self.memory) { (self.memory & 3) << 2 } else { 0xc };
            let kind = if first.is_device() { first.mair & 0xc } else { 0xc };
            return MemoryAttributes { mair: kind.min(second), shareability: 2 };
        }
        let outer = cacheability(first.mair >> 4, self.memory >> 2);
        let inner = cacheability(first.mair & 15, self.memory & 3);
        let mair = outer << 4 | inner;
        // Inner and Outer Non-cacheable memory is Outer Shareable; else the wider of the two.
        let shareability = match (mair, first.shareability, self.shareability) {
            (0x44, ..) | (_, 2, _) | (_, _, 2) => 2,
            (_, 3, _) | (_, _, 3) => 3,
            _ => 0,
        };
        MemoryAttributes { mair, shareability }
    }
}

/// Of a MAIR nibble and MemAttr's two bits (1 Non-cacheable, 2 Write-Through, 3 Write-Back), the less cacheable.
fn cacheability(first: u8, second: u8) -> u8 {
    let is_write_through = first & 0b1000 != 0 && first & 0b0100 == 0 || first & 0b1100 == 0;
    match (first, second) {
        (0b0100, _) | (_, 1) => 0b0100,
        _ if is_write_through || second == 2 => 0b1000 | first & 3,
        _ => first,
    }
}
