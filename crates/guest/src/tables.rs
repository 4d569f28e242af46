//! Translation tables and their registers: 4 KiB granule, 39-bit addresses, so walks start at level 1.
//!
//! The tables are made on the host and are part of the image, as with a linker; the guest only changes level
//! 3 descriptors. Descriptor fields: DDI 0487 D8.3, `VMSAv8-64 translation table format descriptors`.

use crate::layout::PAGE;

/// Descriptor bits `[1:0]`: a table (levels 1, 2) or a page (level 3).
const TABLE_OR_PAGE: u64 = 0b11;
/// Descriptor bits `[1:0]`: a block (levels 1, 2).
const BLOCK: u64 = 0b01;
const NORMAL: u64 = 0 << 2;
const DEVICE: u64 = 1 << 2;
const EL0_ACCESS: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;

/// Level 3 descriptor bits of a task's text: read and execute at EL0.
pub(crate) const USER_TEXT: u64 =
    TABLE_OR_PAGE | NORMAL | EL0_ACCESS | READ_ONLY | INNER_SHAREABLE | ACCESS_FLAG | NOT_GLOBAL | PXN;
/// Level 3 descriptor bits of a task's data and stack: read and write at EL0.
pub(crate) const USER_DATA: u64 =
    TABLE_OR_PAGE | NORMAL | EL0_ACCESS | INNER_SHAREABLE | ACCESS_FLAG | NOT_GLOBAL | PXN | UXN;
/// Level 3 descriptor bits of kernel text: read and execute at EL1.
pub(crate) const KERNEL_TEXT: u64 = TABLE_OR_PAGE | NORMAL | READ_ONLY | INNER_SHAREABLE | ACCESS_FLAG | UXN;
/// Level 3 descriptor bits of kernel data, and of the kernel's view of every frame: read and write at EL1.
pub(crate) const KERNEL_RW: u64 = TABLE_OR_PAGE | NORMAL | INNER_SHAREABLE | ACCESS_FLAG | PXN | UXN;
/// Block descriptor bits of devices, for EL1.
pub(crate) const DEVICE_BLOCK: u64 = BLOCK | DEVICE | ACCESS_FLAG | PXN | UXN;
/// Block descriptor bits of memory that EL1 reads, writes and executes: boot and the bench images.
pub(crate) const BOOT_BLOCK: u64 = BLOCK | NORMAL | INNER_SHAREABLE | ACCESS_FLAG | UXN;
/// Level 3 form of [`BOOT_BLOCK`].
pub(crate) const BOOT_PAGE: u64 = TABLE_OR_PAGE | BOOT_BLOCK;
/// Descriptor bits that point to the next table.
pub(crate) const NEXT_TABLE: u64 = TABLE_OR_PAGE;

/// MAIR_EL1: attribute 0 is normal memory, write-back; attribute 1 is Device-nGnRE.
pub(crate) const MAIR: u64 = 0x04ff;
/// TCR_EL1: T0SZ = T1SZ = 25, 4 KiB granules, walks inner shareable and write-back, 40-bit output, 8-bit ASID from TTBR0.
pub(crate) const TCR: u64 =
    0x19 | 1 << 8 | 1 << 10 | 3 << 12 | 0x19 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 2 << 32;
/// SCTLR_EL1: M, C, I, SA, SA0, and the bits that are RES1 in Armv8.0 (SPAN among them: PSTATE.PAN does not
/// change).
pub(crate) const SCTLR: u64 = 0x30d0_0800 | 1 << 12 | 1 << 4 | 1 << 3 | 1 << 2 | 1;

/// Index of `va` in a table of `level` (1 to 3).
pub(crate) const fn index(va: u64, level: u32) -> u64 {
    va >> (12 + 9 * (3 - level)) & 0x1ff
}

/// A flat image being filled in by physical address.
pub(crate) struct Memory {
    base: u64,
    bytes: Vec<u8>,
}

impl Memory {
    /// `pages` pages of zeros at the physical address `base`.
    pub(crate) fn new(base: u64, pages: u64) -> Self {
        Self { base, bytes: vec![0; (pages * PAGE) as usize] }
    }

    /// Copies `bytes` to the physical address `pa`.
    ///
    /// # Panics
    /// If they do not fit the image, a mistake in this crate that every test shows.
    pub(crate) fn write(&mut self, pa: u64, bytes: &[u8]) {
        let start = (pa - self.base) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes one 64-bit word, little-endian.
    pub(crate) fn write_u64(&mut self, pa: u64, value: u64) {
        self.write(pa, &value.to_le_bytes());
    }

    /// Sets the descriptor for `va` in the table at `table`, which is one of `level`.
    pub(crate) fn descriptor(&mut self, table: u64, level: u32, va: u64, descriptor: u64) {
        self.write_u64(table + 8 * index(va, level), descriptor);
    }

    /// Maps `pages` pages from `va` to `pa` in the level 3 table at `table`.
    pub(crate) fn map_pages(&mut self, table: u64, va: u64, pa: u64, pages: u64, bits: u64) {
        for n in 0..pages {
            self.descriptor(table, 3, va + n * PAGE, (pa + n * PAGE) | bits);
        }
    }

    /// The image.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
