//! Encoding diagrams of the A64 base instruction set, as the Arm ARM (DDI 0487, C4.1) draws them.
//!
//! A diagram is 32 characters, bit 31 first: `0` and `1` are fixed, a letter is a field that is drawn at
//! random. Letters with a meaning to the generator: `n` base or first source, `t` transfer register, `u`
//! second transfer register, `s` status or compare register, `m` index register. The `accept` function of a
//! diagram refuses what the diagram cannot express: unallocated and CONSTRAINED UNPREDICTABLE combinations.

use crate::random::Random;

/// A `qemu-aarch64 -cpu` whose features a template needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Armv8.2 with LSE, CRC32 and FEAT_LRCPC: every CPU model used here.
    Base,
    /// `max`: also FlagM, FEAT_LRCPC2, DIT.
    Max,
    /// A model whose DC ZVA block is 64 bytes, as in the machine. `max` has 512 in user mode.
    ZvaBlock64,
}

/// The computation of a memory access's address from its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offset {
    /// The base register alone.
    Base,
    /// `[21:10]`, unsigned, in units of the access size.
    Unsigned12,
    /// `[20:12]`, signed, in bytes, before the access.
    Signed9,
    /// `[20:12]`, signed, added to the base after the access.
    Signed9Post,
    /// `[21:15]`, signed, in units of one register, before the access.
    Signed7,
    /// `[21:15]`, added to the base after the access.
    Signed7Post,
    /// `Rm [20:16]`, extended by `[15:13]`, shifted by the access size if `[12]`.
    Register,
}

/// The bits that give the size of one register's part of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Size {
    /// `[31:30]`: 1, 2, 4, 8 bytes.
    Bits31And30,
    /// Load/store pair: `[31]`: 4 or 8 bytes.
    Bit31,
    /// CASP: `[30]`: 4 or 8 bytes.
    Bit30,
    /// An FP or AdvSIMD register: `[23]` and `[31:30]`, 1 to 16 bytes.
    Vector,
    /// Each of a pair: `[31:30]`, 4 to 16 bytes.
    VectorPair,
    /// LD1 to LD4, ST1 to ST4: the whole access.
    Structures,
}

impl Size {
    /// Bytes of one register.
    pub(super) fn bytes(self, word: u32) -> u64 {
        match self {
            Size::Bits31And30 => 1 << (word >> 30),
            Size::Bit31 => 4 << (word >> 31),
            Size::Bit30 => 4 << ((word >> 30) & 1),
            Size::Vector => 1 << (field(word, 23, 23) << 2 | word >> 30),
            Size::VectorPair => 4 << (word >> 30),
            Size::Structures => super::vector::structure_bytes(word),
        }
    }
}

/// A load, store or atomic on one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// The computation of the address.
    pub(super) offset: Offset,
    /// The place of the size.
    pub(super) size: Size,
    /// 1, or 2 for pairs.
    pub(super) registers: u64,
    /// True if the address must be a multiple of the whole access. Unaligned atomics and ordered accesses are
    /// left out: their behaviour depends on FEAT_LSE2, which QEMU 7.2 lacks.
    pub(super) aligned: bool,
    /// True if no part of a faulting access may be mapped: QEMU changes registers before a later part faults.
    pub(super) faults_whole: bool,
}

/// The preparation that an instruction needs before it can run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    /// Nothing: registers in, registers out.
    Plain,
    /// A base register, and an index register.
    Access(Access),
    /// `Rt` holds an address (DC, IC).
    AddressInRt,
    /// `Rt` holds any value of these bits.
    ValueInRt(u64),
    /// The literal at its PC-relative place.
    Literal,
    /// PC relative forward, offset in `[25:0]`, `[23:5]`, or `[18:5]`.
    Branch(BranchOffset),
    /// Register branch, to an address made by ADR just before.
    BranchRegister,
}

/// The place of a direct branch's offset, counted in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BranchOffset {
    /// `[25:0]`.
    Imm26,
    /// `[23:5]`.
    Imm19,
    /// `[18:5]`.
    Imm14,
}

impl BranchOffset {
    /// `word` with its offset set to `words` forward.
    pub(super) fn set(self, word: u32, words: u32) -> u32 {
        let (mask, shift) = match self {
            BranchOffset::Imm26 => (0x03ff_ffff, 0),
            BranchOffset::Imm19 => (0x7_ffff, 5),
            BranchOffset::Imm14 => (0x3fff, 5),
        };
        (word & !(mask << shift)) | ((words & mask) << shift)
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(super) struct Template {
    /// The group's name, for reports.
    pub(super) name: &'static str,
    /// The encoding diagram, bit 31 first.
    pub(super) diagram: &'static str,
    /// The preparation that it needs.
    pub(super) class: Class,
    /// The CPU it needs.
    pub(super) needs: Needs,
    /// False for words that are unallocated or CONSTRAINED UNPREDICTABLE.
    pub(super) accept: fn(u32) -> bool,
    /// The mnemonics (no aliases) that words of this row may have, `|` between, `*` for any rest.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) mnemonics: &'static str,
}

impl Template {
    /// A word of this row, drawn until it is accepted.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        loop {
            let noise = random.word();
            let word = self.diagram.bytes().enumerate().fold(0, |word, (i, c)| {
                let bit = match c {
                    b'0' => 0,
                    b'1' => 1,
                    _ => (noise >> (31 - i)) & 1,
                };
                word << 1 | bit
            });
            if (self.accept)(word) {
                return word;
            }
        }
    }
}

/// Bits `[high:low]` of a word.
pub(super) fn field(word: u32, high: u32, low: u32) -> u32 {
    (word >> low) & (u32::MAX >> (31 - (high - low)))
}

fn any(_: u32) -> bool {
    true
}

/// `sf` = 1, or the 6-bit amount at `low` is below 32.
fn amount_fits(word: u32, low: u32) -> bool {
    word >> 31 == 1 || field(word, low + 5, low) < 32
}

/// `DecodeBitMasks`: the pattern must have an element size, and not be all ones; N = 1 only with sf = 1.
fn bitmask(word: u32) -> bool {
    let (n, imms) = (field(word, 22, 22), field(word, 15, 10));
    let combined = n << 6 | (!imms & 0x3f);
    if combined < 2 || (n == 1 && word >> 31 == 0) {
        return false;
    }
    let levels = (1 << combined.ilog2()) - 1;
    imms & levels != levels
}

/// N must equal sf, and both 6-bit numbers fit the register.
fn bitfield(word: u32) -> bool {
    let sf = word >> 31;
    field(word, 30, 29) != 3 && field(word, 22, 22) == sf && amount_fits(word, 16) && amount_fits(word, 10)
}

fn extract(word: u32) -> bool {
    field(word, 22, 22) == word >> 31 && amount_fits(word, 10)
}

fn move_wide(word: u32) -> bool {
    field(word, 30, 29) != 1 && (word >> 31 == 1 || field(word, 22, 21) < 2)
}

fn shifted(word: u32) -> bool {
    amount_fits(word, 10)
}

fn add_shifted(word: u32) -> bool {
    field(word, 23, 22) != 3 && amount_fits(word, 10)
}

fn add_extended(word: u32) -> bool {
    field(word, 12, 10) <= 4
}

fn crc(word: u32) -> bool {
    (word >> 31 == 1) == (field(word, 11, 10) == 3)
}

fn one_source(word: u32) -> bool {
    let opcode = field(word, 12, 10);
    opcode < 6 && (opcode != 3 || word >> 31 == 1)
}

/// Not WFE or WFI, which wait. The PAC hints are NOPs without pointer authentication and stay in.
fn hint(word: u32) -> bool {
    !matches!(field(word, 11, 5), 2 | 3)
}

fn barrier(word: u32) -> bool {
    matches!(field(word, 7, 5), 4..=6)
}

/// Size and opc of a single-register access are allocated; PRFM where it exists.
fn single(word: u32) -> bool {
    match field(word, 23, 22) {
        0..=2 => true,
        _ => word >> 30 < 2,
    }
}

/// The same as `single`, in a form without PRFM.
fn single_no_prefetch(word: u32) -> bool {
    single(word) && !(word >> 30 == 3 && field(word, 23, 22) == 2)
}

/// Writeback with the base also transferred is CONSTRAINED UNPREDICTABLE (C6.2 LDR immediate, STR immediate).
fn writeback(word: u32) -> bool {
    let (n, t) = (field(word, 9, 5), field(word, 4, 0));
    single_no_prefetch(word) && (n == 31 || n != t)
}

fn register_offset(word: u32) -> bool {
    single(word) && field(word, 14, 14) == 1
}

/// opc 01 is LDPSW, which has no store form; a load of one register twice is CONSTRAINED UNPREDICTABLE.
fn pair(word: u32) -> bool {
    let (load, t, u) = (field(word, 22, 22) == 1, field(word, 4, 0), field(word, 14, 10));
    match word >> 30 {
        0 | 2 => {}
        1 if load => {}
        _ => return false,
    }
    !(load && t == u)
}

fn pair_non_temporal(word: u32) -> bool {
    pair(word) && word >> 30 != 1
}

fn pair_writeback(word: u32) -> bool {
    let (n, t, u) = (field(word, 9, 5), field(word, 4, 0), field(word, 14, 10));
    pair(word) && (n == 31 || (n != t && n != u))
}

/// DC CVAC, CVAU, CIVAC (CRm 10, 11, 14), with an address: XZR would be address 0.
fn cache_by_va(word: u32) -> bool {
    field(word, 11, 8) != 15 && not_xzr(word)
}

fn not_xzr(word: u32) -> bool {
    field(word, 4, 0) != 31
}

fn base_not_31(word: u32) -> bool {
    field(word, 9, 5) != 31
}

fn even_pairs(word: u32) -> bool {
    field(word, 16, 16) == 0 && field(word, 0, 0) == 0
}

const PLAIN: Class = Class::Plain;

const fn access(offset: Offset) -> Class {
    Class::Access(Access {
        offset,
        size: Size::Bits31And30,
        registers: 1,
        aligned: false,
        faults_whole: false,
    })
}

const fn paired(offset: Offset) -> Class {
    Class::Access(Access { offset, size: Size::Bit31, registers: 2, aligned: false, faults_whole: false })
}

const fn ordered(offset: Offset, size: Size, registers: u64) -> Class {
    Class::Access(Access { offset, size, registers, aligned: true, faults_whole: false })
}

const ONE: Class = ordered(Offset::Base, Size::Bits31And30, 1);

pub(super) const fn row(
    name: &'static str,
    diagram: &'static str,
    class: Class,
    needs: Needs,
    accept: fn(u32) -> bool,
    mnemonics: &'static str,
) -> Template {
    Template { name, diagram, class, needs, accept, mnemonics }
}

use Needs::{Base, Max, ZvaBlock64};

/// All templates.
pub(super) fn all() -> impl Iterator<Item = &'static Template> + Clone {
    TEMPLATES.iter().chain(super::vector::TEMPLATES)
}

/// The base instruction set. The generator makes LDXR…STXR, which have a meaning only together.
#[rustfmt::skip]
pub(super) const TEMPLATES: &[Template] = &[
    // Data processing, immediate.
    row("adr", "0ii10000iiiiiiiiiiiiiiiiiiiddddd", PLAIN, Base, any, "adr"),
    row("adrp", "1ii10000iiiiiiiiiiiiiiiiiiiddddd", PLAIN, Base, any, "adrp"),
    row("add/sub imm", "xxx100010siiiiiiiiiiiinnnnnddddd", PLAIN, Base, any, "add|adds|sub|subs"),
    row("logical imm", "xoo100100Nrrrrrrssssssnnnnnddddd", PLAIN, Base, bitmask, "and|orr|eor|ands"),
    row("move wide", "xoo100101hhiiiiiiiiiiiiiiiiddddd", PLAIN, Base, move_wide, "movn|movz|movk"),
    row("bitfield", "xoo100110Nrrrrrrssssssnnnnnddddd", PLAIN, Base, bitfield, "sbfm|bfm|ubfm"),
    row("extract", "x00100111N0mmmmmssssssnnnnnddddd", PLAIN, Base, extract, "extr"),
    // Data processing, register.
    row("logical shifted", "xoo01010ttNmmmmmiiiiiinnnnnddddd", PLAIN, Base, shifted, "and|bic|orr|orn|eor|eon|ands|bics"),
    row("add/sub shifted", "xos01011tt0mmmmmiiiiiinnnnnddddd", PLAIN, Base, add_shifted, "add|adds|sub|subs"),
    row("add/sub extended", "xos01011001mmmmmoooiiinnnnnddddd", PLAIN, Base, add_extended, "add|adds|sub|subs"),
    row("add/sub carry", "xos11010000mmmmm000000nnnnnddddd", PLAIN, Base, any, "adc|adcs|sbc|sbcs"),
    row("rmif", "10111010000iiiiii00001nnnnn0kkkk", PLAIN, Max, any, "rmif"),
    row("setf", "00111010000000000z0010nnnnn01101", PLAIN, Max, any, "setf8|setf16"),
    row("cfinv", "11010101000000000100000000011111", PLAIN, Max, any, "cfinv"),
    row("cond compare reg", "xo111010010mmmmmcccc00nnnnn0kkkk", PLAIN, Base, any, "ccmn|ccmp"),
    row("cond compare imm", "xo111010010iiiiicccc10nnnnn0kkkk", PLAIN, Base, any, "ccmn|ccmp"),
    row("cond select", "xo011010100mmmmmcccc0pnnnnnddddd", PLAIN, Base, any, "csel|csinc|csinv|csneg"),
    row("divide", "x0011010110mmmmm00001onnnnnddddd", PLAIN, Base, any, "udiv|sdiv"),
    row("shift variable", "x0011010110mmmmm0010oonnnnnddddd", PLAIN, Base, any, "lslv|lsrv|asrv|rorv"),
    row("crc32", "x0011010110mmmmm010czznnnnnddddd", PLAIN, Base, crc, "crc32b|crc32h|crc32w|crc32x|crc32cb|crc32ch|crc32cw|crc32cx"),
    row("one source", "x101101011000000000ooonnnnnddddd", PLAIN, Base, one_source, "rbit|rev16|rev|rev32|clz|cls"),
    row("multiply-add", "x0011011000mmmmmoaaaaannnnnddddd", PLAIN, Base, any, "madd|msub"),
    row("multiply-add long", "10011011u01mmmmmoaaaaannnnnddddd", PLAIN, Base, any, "smaddl|smsubl|umaddl|umsubl"),
    row("multiply high", "10011011u10mmmmm011111nnnnnddddd", PLAIN, Base, any, "smulh|umulh"),
    // System.
    row("mrs nzcv", "110101010011101101000010000ddddd", PLAIN, Base, any, "mrs"),
    row("msr nzcv", "110101010001101101000010000ddddd", PLAIN, Base, any, "msr"),
    row("mrs tpidr_el0", "110101010011101111010000010ddddd", PLAIN, Base, any, "mrs"),
    row("msr tpidr_el0", "110101010001101111010000010ddddd", PLAIN, Base, any, "msr"),
    row("mrs tpidrro_el0", "110101010011101111010000011ddddd", PLAIN, Base, any, "mrs"),
    row("mrs dit", "110101010011101101000010101ddddd", PLAIN, Max, any, "mrs"),
    row("msr dit", "110101010001101101000010101ddddd", PLAIN, Max, any, "msr"),
    row("msr dit imm", "11010101000000110100iiii01011111", PLAIN, Max, any, "msr"),
    row("hint", "11010101000000110010hhhhhhh11111", PLAIN, Base, hint, "hint"),
    row("barrier", "11010101000000110011mmmmooo11111", PLAIN, Base, barrier, "dsb|dmb|isb|ssbb|pssbb|dfb"),
    row("sb", "11010101000000110011000011111111", PLAIN, Max, any, "sb"),
    row("dc cvac/cvau/civac", "110101010000101101111o1m001ttttt", Class::AddressInRt, Base, cache_by_va, "sys"),
    row("ic ivau", "110101010000101101110101001ttttt", Class::AddressInRt, Base, not_xzr, "sys"),
    row("dc zva", "110101010000101101110100001ttttt", Class::AddressInRt, ZvaBlock64, not_xzr, "sys"),
    // Branches.
    row("b", "000101iiiiiiiiiiiiiiiiiiiiiiiiii", Class::Branch(BranchOffset::Imm26), Base, any, "b"),
    row("bl", "100101iiiiiiiiiiiiiiiiiiiiiiiiii", Class::Branch(BranchOffset::Imm26), Base, any, "bl"),
    row("b.cond", "01010100iiiiiiiiiiiiiiiiiii0cccc", Class::Branch(BranchOffset::Imm19), Base, any, "b.*"),
    row("cbz/cbnz", "x011010oiiiiiiiiiiiiiiiiiiittttt", Class::Branch(BranchOffset::Imm19), Base, any, "cbz|cbnz"),
    row("tbz/tbnz", "b011011obbbbbiiiiiiiiiiiiiittttt", Class::Branch(BranchOffset::Imm14), Base, any, "tbz|tbnz"),
    row("br", "1101011000011111000000nnnnn00000", Class::BranchRegister, Base, base_not_31, "br"),
    row("blr", "1101011000111111000000nnnnn00000", Class::BranchRegister, Base, base_not_31, "blr"),
    row("ret", "1101011001011111000000nnnnn00000", Class::BranchRegister, Base, base_not_31, "ret"),
    // Loads and stores.
    row("ldr literal", "oo011000iiiiiiiiiiiiiiiiiiittttt", Class::Literal, Base, any, "ldr|ldrsw|prfm"),
    row("ldst unsigned offset", "zz111001ooiiiiiiiiiiiinnnnnttttt", access(Offset::Unsigned12), Base, single, LDST),
    row("ldst unscaled", "zz111000oo0iiiiiiiii00nnnnnttttt", access(Offset::Signed9), Base, single, LDST_UNSCALED),
    row("ldst unprivileged", "zz111000oo0iiiiiiiii10nnnnnttttt", access(Offset::Signed9), Base, single_no_prefetch, LDST_UNPRIVILEGED),
    row("ldst post-indexed", "zz111000oo0iiiiiiiii01nnnnnttttt", access(Offset::Signed9Post), Base, writeback, LDST),
    row("ldst pre-indexed", "zz111000oo0iiiiiiiii11nnnnnttttt", access(Offset::Signed9), Base, writeback, LDST),
    row("ldst register offset", "zz111000oo1mmmmmeeeS10nnnnnttttt", access(Offset::Register), Base, register_offset, LDST),
    row("pair non-temporal", "oo1010000Liiiiiiiuuuuunnnnnttttt", paired(Offset::Signed7), Base, pair_non_temporal, "ldnp|stnp"),
    row("pair post-indexed", "oo1010001Liiiiiiiuuuuunnnnnttttt", paired(Offset::Signed7Post), Base, pair_writeback, "ldp|stp|ldpsw"),
    row("pair offset", "oo1010010Liiiiiiiuuuuunnnnnttttt", paired(Offset::Signed7), Base, pair, "ldp|stp|ldpsw"),
    row("pair pre-indexed", "oo1010011Liiiiiiiuuuuunnnnnttttt", paired(Offset::Signed7), Base, pair_writeback, "ldp|stp|ldpsw"),
    row("ldar/stlr", "zz0010001L011111111111nnnnnttttt", ONE, Base, any, "ldar|ldarb|ldarh|stlr|stlrb|stlrh"),
    row("ldapr", "zz11100010111111110000nnnnnttttt", ONE, Base, any, "ldapr|ldaprb|ldaprh"),
    row("ldapur/stlur", "zz011001oo0iiiiiiiii00nnnnnttttt", ordered(Offset::Signed9, Size::Bits31And30, 1), Max, single_no_prefetch,
        "stlur|stlurb|stlurh|ldapur|ldapurb|ldapurh|ldapursb|ldapursh|ldapursw"),
    // LSE atomics. In `cas`, `s` is compared and `t` is stored.
    row("atomic", "zz111000AR1sssss0ooo00nnnnnttttt", ONE, Base, any, "ldadd*|ldclr*|ldeor*|ldset*|ldsmax*|ldsmin*|ldumax*|ldumin*"),
    row("swp", "zz111000AR1sssss100000nnnnnttttt", ONE, Base, any, "swp*"),
    row("cas", "zz0010001L1ssssso11111nnnnnttttt", ONE, Base, any, "cas*"),
    row("casp", "0z0010000L1ssssso11111nnnnnttttt", ordered(Offset::Base, Size::Bit30, 2), Base, even_pairs, "casp|caspa|caspl|caspal"),
];

const LDST: &str = "strb|strh|str|ldrb|ldrh|ldr|ldrsb|ldrsh|ldrsw|prfm";
const LDST_UNSCALED: &str = "sturb|sturh|stur|ldurb|ldurh|ldur|ldursb|ldursh|ldursw|prfum";
const LDST_UNPRIVILEGED: &str = "sttrb|sttrh|sttr|ldtrb|ldtrh|ldtr|ldtrsb|ldtrsh|ldtrsw";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disassembly::objdump;

    #[test]
    fn every_diagram_has_32_bits_and_takes_a_draw() {
        let mut random = Random::new(1, 0);
        for row in all() {
            assert_eq!(row.diagram.len(), 32, "{}", row.name);
            row.draw(&mut random);
        }
    }

    #[test]
    fn drawn_words_disassemble_to_the_mnemonics_of_their_row() {
        let mut random = Random::new(2, 0);
        let drawn: Vec<_> = all().flat_map(|row| [row; 64]).map(|row| (row, row.draw(&mut random))).collect();
        let words: Vec<u32> = drawn.iter().map(|&(_, word)| word).collect();
        // LLVM has aliases that cannot be turned off.
        let Some(lines) = objdump(&words, 0) else {
            eprintln!("skipped: aarch64-linux-gnu-objdump is not installed");
            return;
        };
        for ((row, word), line) in drawn.iter().zip(&lines) {
            let mnemonic = line.split(' ').next().unwrap_or_default();
            let known = row.mnemonics.split('|').any(|name| match name.strip_suffix('*') {
                Some(prefix) => mnemonic.starts_with(prefix),
                None => mnemonic == name,
            });
            let known = known && !matches!(mnemonic, ".inst" | "undefined");
            assert!(known, "{}: {word:#010x} is `{line}`, not one of {}", row.name, row.mnemonics);
        }
    }

    #[test]
    fn bitmask_immediates_are_the_5334_that_the_architecture_has() {
        // 64-bit: 5334 patterns by (N, immr, imms), rotation amounts above the element size counted once.
        let mut patterns = 0;
        for imms in 0..64u32 {
            for n in 0..2u32 {
                let word = 1 << 31 | n << 22 | imms << 10;
                if bitmask(word) {
                    let element = 1 << (n << 6 | (!imms & 0x3f)).ilog2();
                    patterns += element;
                }
            }
        }
        assert_eq!(patterns, 5334);
    }
}
