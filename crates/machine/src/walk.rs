//! Translation of the EL1&0 and EL2&0 regimes: DDI 0487, `AArch64.S1Translate` and `AArch64.S1Walk`; stage 2 is in
//! [`Stage2`].
//!
//! One call walks the tables in guest RAM for one access and says either where the address leads
//! and what may be done there ([`Translation`], with all that a software TLB must hold), or which
//! fault the access takes ([`Fault`]). The CPU asks only on a TLB miss.
//!
//! What is there: 4, 16 and 64 KiB granules, both TTBRs, 48-bit VA and PA, small tables
//! (FEAT_TTST), TBI, EPD, HPD, hierarchical table permissions, WXN, PAN, hardware access flag and
//! dirty state (FEAT_HAFDBS), BTI's guarded pages, little-endian tables. What is not there: LPA2,
//! LVA, EPAN, E0PD, NFD, BBM's nT bit, big-endian tables. The contiguous bit is a hint, and not
//! taken.
//!
//! A descriptor in a poisoned line, or where there is no RAM, is an external abort on the walk,
//! with its level: [`FaultKind::External`].

mod regime;
mod stage2;
#[cfg(test)]
mod tests;

use seawall_arm::FaultStatus;

use crate::memory::Memory;
use regime::TableRange;
pub use regime::{Granule, Regime};
use stage2::Asks;
pub use stage2::Stage2;

/// What an access does, as far as translation must know (`AccessDescriptor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// A load.
    Read,
    /// A store, or an atomic that also stores, or DC ZVA.
    Write,
    /// An instruction fetch.
    Fetch,
    /// DC CVAC, CVAU, CVAP, CIVAC, or IC IVAU: at EL0 needs to be able to read; at EL1 has no
    /// permission fault.
    CacheClean,
    /// DC IVAC: needs to be able to write.
    CacheInvalidate,
    /// AT S1E0R, S1E1R, S1E1RP: checked like a load, changes no descriptor.
    AddressTranslationRead,
    /// AT S1E0W, S1E1W, S1E1WP: checked like a store, changes no descriptor.
    AddressTranslationWrite,
}

/// One access, for which an address is to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// Done with EL1's permissions; false at EL0, for LDTR/STTR without UAO, and for AT S1E0*.
    pub privileged: bool,
    /// PSTATE.PAN, for the accesses it governs: loads and stores at EL1 and AT S1E1RP/WP; false for
    /// LDTR/STTR, cache maintenance, fetches and the other AT. Ignored unless `privileged`.
    pub pan: bool,
}

impl Access {
    /// A load or store at EL1 (`privileged`) or EL0, with PSTATE.PAN.
    pub fn data(write: bool, privileged: bool, pan: bool) -> Self {
        Self { kind: if write { AccessKind::Write } else { AccessKind::Read }, privileged, pan }
    }

    /// AT, which changes no descriptor.
    fn only_asks(self) -> bool {
        matches!(self.kind, AccessKind::AddressTranslationRead | AccessKind::AddressTranslationWrite)
    }

    /// An instruction fetch at EL1 (`privileged`) or EL0.
    pub fn fetch(privileged: bool) -> Self {
        Self { kind: AccessKind::Fetch, privileged, pan: false }
    }
}

/// What one exception level may do with a page. Each right is one that needs no further walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Load.
    pub read: bool,
    /// Store.
    pub write: bool,
    /// Fetch.
    pub execute: bool,
}

/// Memory type and shareability, as PAR_EL1 reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAttributes {
    /// The attribute byte of MAIR_EL1 (PAR_EL1.ATTR): 0x00 Device-nGnRnE, 0xff Normal write-back.
    pub mair: u8,
    /// Shareability (PAR_EL1.SH): 0 none, 2 outer, 3 inner. Device and non-cacheable memory is
    /// always 2.
    pub shareability: u8,
}

impl MemoryAttributes {
    /// Device-nGnRnE: what data accesses get with the MMU off.
    pub const DEVICE_NGNRNE: Self = Self { mair: 0x00, shareability: 2 };

    /// True if this is Device memory of any kind: unaligned accesses fault.
    pub fn is_device(self) -> bool {
        self.mair & 0xf0 == 0
    }
}

/// Where an address leads, and what may be done there: all that a TLB entry needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the very address asked for.
    pub pa: u64,
    /// log2 of the block's size at stage 1, bytes: 12, 14, 16 for pages; 21, 25, 29, 30 for blocks; 48 with
    /// the MMU off. The block maps linearly, unless there is a stage 2. Maintenance by address drops all of it.
    pub shift: u32,
    /// Lookup level of the leaf descriptor, 0 to 3; 0 with the MMU off.
    pub level: i8,
    /// Rights of EL0.
    pub el0: Permissions,
    /// Rights of EL1 with PSTATE.PAN clear. With PAN set EL1 may neither load nor store where EL0
    /// may load.
    pub el1: Permissions,
    /// FEAT_HAFDBS: the page may be written, but is clean: the first store must walk again to mark
    /// it dirty. `write` is false until then.
    pub writable_clean: bool,
    /// Memory type and shareability.
    pub attributes: MemoryAttributes,
    /// The entry holds for this ASID alone; `None` if it is global.
    pub asid: Option<u16>,
    /// FEAT_BTI: a guarded page (GP).
    pub guarded: bool,
}

/// Why an access cannot be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The fault status code for the syndrome, with its level.
    pub status: FaultStatus,
    /// Who takes it.
    pub kind: FaultKind,
}

impl Fault {
    fn stage1(status: FaultStatus) -> Self {
        Self { status, kind: FaultKind::Stage1 }
    }
}

/// Who takes a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The guest's own tables say no: EL1 takes it.
    Stage1,
    /// Stage 2's tables say no: EL2 takes it.
    Stage2 {
        /// The address that stage 2 was to translate.
        ipa: u64,
        /// It is that of a descriptor of stage 1.
        of_walk: bool,
    },
    /// A descriptor could not be read: an external abort on the walk, which the host (EL2) sees
    /// first.
    External {
        /// Physical address of the descriptor, 8 bytes.
        descriptor_pa: u64,
        /// What is there.
        cause: ExternalCause,
        /// Whose descriptor it is.
        stage: WalkStage,
    },
}

/// Of which walk a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkStage {
    /// Of stage 1.
    First,
    /// Of stage 2, for the access itself.
    Second,
    /// Of stage 2, for a descriptor of stage 1.
    SecondOfWalk,
}

/// Why a descriptor could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalCause {
    /// Its line is poisoned.
    Poison,
    /// There is no RAM.
    Hole,
}

/// Translates `va` for `access`, and does what the hardware then does to the leaf descriptor: sets
/// the access flag (TCR_EL1.HA) and, on a store, marks it dirty (TCR_EL1.HD). An access that
/// faults, and an AT instruction, changes nothing, but for what stage 1 did before stage 2 faults.
///
/// # Errors
/// The [`Fault`] with the highest priority (`AArch64.S1Translate`, then `AArch64.S2Translate`).
pub fn translate(
    memory: &mut Memory,
    regime: &Regime,
    va: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let Some(stage2) = &regime.stage2 else { return translate_stage1(memory, regime, va, access) };
    let first = translate_stage1(memory, regime, va, access)?;
    let (translation, update) = second_stage(memory, regime, stage2, first, access)?;
    if let Some(update) = update {
        update.apply(memory);
    }
    Ok(translation)
}

/// Translates `va` by stage 1 alone, whose descriptors are where stage 2 says: the address is an IPA.
///
/// # Errors
/// As [`translate`].
pub(crate) fn translate_stage1(
    memory: &mut Memory,
    regime: &Regime,
    va: u64,
    access: Access,
) -> Result<Translation, Fault> {
    let Some(stage2) = &regime.stage2 else {
        let (translation, update) = walk(memory, regime, va, access, |pa, _| Ok(pa))?;
        if let Some(update) = update {
            update.apply(memory);
        }
        return Ok(translation);
    };
    loop {
        match walk_below(memory, regime, stage2, va, access) {
            Ok((translation, update)) => {
                if let Some(update) = update {
                    update.apply(memory);
                }
                return Ok(translation);
            }
            Err(Interruption::Fault(fault)) => return Err(fault),
            // Stage 2 needs no such change the next time.
            Err(Interruption::Update(update)) => update.apply(memory),
        }
    }
}

/// Translates `va` for `access` as [`translate`] does, but changes no descriptor.
///
/// # Errors
/// As [`translate`].
pub fn probe(memory: &Memory, regime: &Regime, va: u64, access: Access) -> Result<Translation, Fault> {
    let Some(stage2) = &regime.stage2 else {
        return walk(memory, regime, va, access, |pa, _| Ok(pa)).map(|(translation, _)| translation);
    };
    let mut of_walk = *stage2;
    let first = loop {
        match walk_below(memory, regime, &of_walk, va, access) {
            Ok((translation, _)) => break translation,
            Err(Interruption::Fault(fault)) => return Err(fault),
            Err(Interruption::Update(_)) => of_walk = of_walk.without_updates(),
        }
    };
    second_stage(memory, regime, stage2, first, access).map(|(translation, _)| translation)
}

/// Sends what stage 1 gave through stage 2.
fn second_stage(
    memory: &Memory,
    regime: &Regime,
    stage2: &Stage2,
    first: Translation,
    access: Access,
) -> Result<(Translation, Option<Update>), Fault> {
    let (output, update) = stage2.translate(memory, first.pa, regime.pa_bits, Asks::Access(access))?;
    let both = |rights: Permissions| Permissions {
        read: rights.read && output.rights.read,
        write: rights.write && output.rights.write,
        execute: rights.execute && output.rights.execute,
    };
    let translation = Translation {
        pa: output.pa,
        el0: both(first.el0),
        el1: both(first.el1),
        writable_clean: first.writable_clean || output.writable_clean,
        attributes: output.combine(first.attributes),
        ..first
    };
    Ok((translation, update))
}

/// The level at which a walk for `va` reads a descriptor in the granule at `descriptor_ipa`: how
/// KVM finds the level of an abort on a stage-1 walk, of which the hardware told only the page (its
/// `S1PTW` rule). `None` if the walk never gets there, or the MMU is off.
pub fn descriptor_level(memory: &Memory, regime: &Regime, va: u64, descriptor_ipa: u64) -> Option<i8> {
    if !regime.mmu_on() {
        return None;
    }
    let mut lookup = Lookup::start(regime, va).ok()?;
    let granule = descriptor_ipa >> lookup.range.granule.shift();
    loop {
        if lookup.descriptor_pa >> lookup.range.granule.shift() == granule {
            return Some(lookup.level);
        }
        let (_, descriptor) =
            read_descriptor(memory, lookup.descriptor_pa, lookup.level, WalkStage::First).ok()?;
        if lookup.resolve(descriptor).ok()?.is_some() {
            return None;
        }
    }
}

/// Bytes of a descriptor.
const DESCRIPTOR_SIZE: usize = 8;

// Leaf descriptor fields (DDI 0487, "Block descriptor and Page descriptor formats").
const ATTR_INDEX_SHIFT: u32 = 2; // [4:2]
const AP_EL0: u64 = 1 << 6; // AP[1]
const AP_READ_ONLY: u64 = 1 << 7; // AP[2]
const SH_SHIFT: u32 = 8; // [9:8]
const AF: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const GUARDED: u64 = 1 << 50;
const DBM: u64 = 1 << 51;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;

// Table descriptor fields: limits for every level below.
const PXN_TABLE: u64 = 1 << 59;
const UXN_TABLE: u64 = 1 << 60;
const AP_TABLE_NO_EL0: u64 = 1 << 61;
const AP_TABLE_READ_ONLY: u64 = 1 << 62;
const TABLE_LIMITS: u64 = PXN_TABLE | UXN_TABLE | AP_TABLE_NO_EL0 | AP_TABLE_READ_ONLY;

/// A leaf descriptor that the hardware changes: AF set, or `AP[2]` cleared.
struct Update {
    /// RAM offset of the descriptor.
    offset: usize,
    /// Its new value.
    descriptor: u64,
}

impl Update {
    fn apply(&self, memory: &mut Memory) {
        if memory.write(self.offset, self.descriptor.to_le_bytes()).is_some() {
            memory.note_written(self.offset, self.offset + DESCRIPTOR_SIZE);
        }
    }
}

/// Why a walk ended early.
enum Interruption {
    Fault(Fault),
    /// A descriptor of stage 2 is to be changed first; then the walk begins again.
    Update(Update),
}

impl From<Fault> for Interruption {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// `AArch64.S1Translate` up to the descriptor update, which the caller does or leaves. `place` says where a descriptor is: a
/// guest without stage 2 walks often, and pays nothing for one.
fn walk<E: From<Fault>>(
    memory: &Memory,
    regime: &Regime,
    va: u64,
    access: Access,
    place: impl Fn(u64, Asks) -> Result<u64, E>,
) -> Result<(Translation, Option<Update>), E> {
    let stage1 = |status| E::from(Fault::stage1(status));
    if !regime.mmu_on() {
        return mmu_off(regime, va, access).map(|translation| (translation, None)).map_err(stage1);
    }
    let mut lookup = Lookup::start(regime, va).map_err(stage1)?;
    loop {
        let ipa = lookup.descriptor_pa;
        let pa = place(ipa, Asks::Walk)?;
        let (offset, descriptor) = read_descriptor(memory, pa, lookup.level, WalkStage::First)?;
        if let Some(leaf) = lookup.resolve(descriptor).map_err(stage1)? {
            let (translation, update) = leaf.grant(regime, access, offset).map_err(stage1)?;
            if update.is_some() {
                place(ipa, Asks::Update)?;
            }
            return Ok((translation, update));
        }
    }
}

/// [`walk`], whose descriptors are where stage 2 says.
fn walk_below(
    memory: &Memory,
    regime: &Regime,
    stage2: &Stage2,
    va: u64,
    access: Access,
) -> Result<(Translation, Option<Update>), Interruption> {
    walk(memory, regime, va, access, |ipa, asks| descriptor_pa(memory, regime, stage2, ipa, asks))
}

/// Where a descriptor of stage 1 is.
fn descriptor_pa(
    memory: &Memory,
    regime: &Regime,
    stage2: &Stage2,
    ipa: u64,
    asks: Asks,
) -> Result<u64, Interruption> {
    match stage2.translate(memory, ipa, regime.pa_bits, asks)? {
        (output, None) => Ok(output.pa),
        (_, Some(update)) => Err(Interruption::Update(update)),
    }
}

/// `AArch64.S1DisabledOutput`: the address goes through, if it is one.
fn mmu_off(regime: &Regime, va: u64, access: Access) -> Result<Translation, FaultStatus> {
    let top = if regime.top_byte_ignored(va) { 56 } else { 64 };
    let pa = va & (u64::MAX >> (64 - top));
    if pa >> regime.pa_bits != 0 {
        return Err(FaultStatus::AddressSize { level: 0 });
    }
    let attributes = match access.kind {
        // HCR_EL2.DC: Write-Back, Non-shareable.
        _ if regime.default_cacheable() => MemoryAttributes { mair: 0xff, shareability: 0 },
        // Instruction fetches are Normal, write-through if SCTLR_EL1.I, else non-cacheable; outer
        // shareable.
        AccessKind::Fetch => {
            MemoryAttributes { mair: if regime.instruction_cache() { 0xaa } else { 0x44 }, shareability: 2 }
        }
        _ => MemoryAttributes::DEVICE_NGNRNE,
    };
    let all = Permissions { read: true, write: true, execute: true };
    Ok(Translation {
        pa,
        shift: 48,
        level: 0,
        el0: all,
        el1: all,
        writable_clean: false,
        attributes,
        asid: None,
        guarded: false,
    })
}

/// Reads the descriptor at `pa` for a lookup at `level`; gives its RAM offset and value.
#[inline]
fn read_descriptor(memory: &Memory, pa: u64, level: i8, stage: WalkStage) -> Result<(usize, u64), Fault> {
    let external = |cause| Fault {
        status: FaultStatus::ExternalOnWalk { level },
        kind: FaultKind::External { descriptor_pa: pa, cause, stage },
    };
    let offset = memory.offset(pa).ok_or_else(|| external(ExternalCause::Hole))?;
    if memory.page_has_poison(offset) && memory.stops(pa, DESCRIPTOR_SIZE as u64) {
        return Err(external(ExternalCause::Poison));
    }
    let bytes = memory.read(offset).ok_or_else(|| external(ExternalCause::Hole))?;
    Ok((offset, u64::from_le_bytes(bytes)))
}

/// One lookup of a walk: which descriptor to read next (`TTWState`).
struct Lookup {
    range: TableRange,
    va: u64,
    level: i8,
    descriptor_pa: u64,
    /// APTable, UXNTable and PXNTable of the tables so far, ORed, as bits of a table descriptor.
    limits: u64,
}

impl Lookup {
    /// The first lookup for `va`, with the checks that come before any (`AArch64.S1Walk`, first
    /// part): level 0 faults.
    fn start(regime: &Regime, va: u64) -> Result<Self, FaultStatus> {
        let range = regime.table_range(va)?;
        let level = range.start_level();
        let descriptor_pa = range.table_base()? + range.index(va, level) * DESCRIPTOR_SIZE as u64;
        Ok(Self { range, va, level, descriptor_pa, limits: 0 })
    }

    /// Goes one level down, or arrives.
    #[inline]
    fn resolve(&mut self, descriptor: u64) -> Result<Option<Leaf>, FaultStatus> {
        let level = self.level;
        let granule = self.range.granule;
        let is_leaf = match (descriptor & 3, level) {
            (0b11, 3) => true,
            (0b11, _) => false,
            (0b01, _) if granule.has_blocks_at(level) => true,
            _ => return Err(FaultStatus::Translation { level }),
        };
        let shift = if is_leaf { granule.shift_at(level) } else { granule.shift() };
        let address = descriptor & (u64::MAX >> 16) & (u64::MAX << shift);
        if address >> self.range.output_bits != 0 {
            return Err(FaultStatus::AddressSize { level });
        }
        if is_leaf {
            let pa = address | (self.va & !(u64::MAX << shift));
            return Ok(Some(Leaf { descriptor, pa, shift, level, limits: self.limits }));
        }
        if self.range.hierarchical_permissions {
            self.limits |= descriptor & TABLE_LIMITS;
        }
        self.level += 1;
        self.descriptor_pa = address + self.range.index(self.va, self.level) * DESCRIPTOR_SIZE as u64;
        Ok(None)
    }
}

/// A block or page descriptor at the end of a walk.
struct Leaf {
    descriptor: u64,
    pa: u64,
    shift: u32,
    level: i8,
    limits: u64,
}

impl Leaf {
    /// Access flag, permissions, and the update that the access makes.
    fn grant(
        &self,
        regime: &Regime,
        access: Access,
        offset: usize,
    ) -> Result<(Translation, Option<Update>), FaultStatus> {
        let level = self.level;
        if self.descriptor & AF == 0 && !regime.hardware_access_flag() {
            return Err(FaultStatus::AccessFlag { level });
        }
        // DBM makes AP[2] mean "clean", not "read only".
        let dirty_managed = regime.hardware_dirty_state() && self.descriptor & DBM != 0;
        let effective = if dirty_managed { self.descriptor & !AP_READ_ONLY } else { self.descriptor };
        let (mut el0, mut el1) = self.permissions(effective, regime.write_implies_execute_never());
        if !allowed(access, el0, el1) {
            return Err(FaultStatus::Permission { level });
        }

        let mut new = self.descriptor;
        if !access.only_asks() {
            new |= AF;
        }
        if dirty_managed && access.kind == AccessKind::Write {
            new &= !AP_READ_ONLY;
        }
        let writable_clean = dirty_managed && new & AP_READ_ONLY != 0 && el1.write;
        if writable_clean {
            el0.write = false;
            el1.write = false;
        }
        let translation = Translation {
            pa: self.pa,
            shift: self.shift,
            level,
            el0,
            el1,
            writable_clean,
            attributes: regime.attributes(
                (self.descriptor >> ATTR_INDEX_SHIFT) as u8 & 7,
                (self.descriptor >> SH_SHIFT) as u8 & 3,
            ),
            asid: (self.descriptor & NOT_GLOBAL != 0).then(|| regime.asid()),
            guarded: self.descriptor & GUARDED != 0,
        };
        let update = (new != self.descriptor).then_some(Update { offset, descriptor: new });
        Ok((translation, update))
    }

    /// `AArch64.S1DirectBasePermissions`, for EL0 and EL1, PAN left out.
    fn permissions(&self, descriptor: u64, wxn: bool) -> (Permissions, Permissions) {
        let limits = self.limits;
        let el0_access = descriptor & AP_EL0 != 0 && limits & AP_TABLE_NO_EL0 == 0;
        let writable = descriptor & AP_READ_ONLY == 0 && limits & AP_TABLE_READ_ONLY == 0;
        let uxn = descriptor & UXN != 0 || limits & UXN_TABLE != 0;
        let pxn = descriptor & PXN != 0 || limits & PXN_TABLE != 0;
        let el0_write = el0_access && writable;
        let el0 = Permissions { read: el0_access, write: el0_write, execute: !(uxn || wxn && el0_write) };
        // What EL0 can write, EL1 never executes.
        let el1 =
            Permissions { read: true, write: writable, execute: !(pxn || el0_write || wxn && writable) };
        (el0, el1)
    }
}

/// `AArch64.S1CheckPermissions`.
fn allowed(access: Access, el0: Permissions, el1: Permissions) -> bool {
    let rights = if access.privileged { el1 } else { el0 };
    let pan_blocks = access.privileged && access.pan && el0.read;
    match access.kind {
        AccessKind::Fetch => rights.execute,
        AccessKind::Read | AccessKind::AddressTranslationRead => rights.read && !pan_blocks,
        AccessKind::Write | AccessKind::AddressTranslationWrite => rights.write && !pan_blocks,
        AccessKind::CacheClean => access.privileged || rights.read,
        AccessKind::CacheInvalidate => rights.write,
    }
}
