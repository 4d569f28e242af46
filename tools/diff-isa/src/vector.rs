//! Encoding diagrams of FP and AdvSIMD, like those of the base instruction set in `template`: Armv8.0 with
//! FEAT_AES, FEAT_PMULL, FEAT_SHA1, FEAT_SHA256, and without half-precision arithmetic.

use crate::template::Needs::Base;
use crate::template::{Access, Class, Offset, Size, Template, field, row};

const PLAIN: Class = Class::Plain;

const fn single(offset: Offset) -> Class {
    Class::Access(Access { offset, size: Size::Vector, registers: 1, aligned: false, faults_whole: false })
}

const fn pair(offset: Offset) -> Class {
    Class::Access(Access { offset, size: Size::VectorPair, registers: 2, aligned: false, faults_whole: true })
}

const STRUCTURES: Class = Class::Access(Access {
    offset: Offset::Base,
    size: Size::Structures,
    registers: 1,
    aligned: false,
    faults_whole: true,
});

/// FPCR: AHP, DN, FZ, RMode. Neither side supports the trap enables; the rest belongs to AArch32 or
/// FEAT_FP16.
pub(super) const FPCR: u64 = 0x07c0_0000;
/// FPSR: QC and the cumulative flags. QEMU also keeps AArch32's NZCV there.
pub(super) const FPSR: u64 = 0x0800_009f;

fn size(word: u32) -> u32 {
    field(word, 23, 22)
}

fn quad(word: u32) -> bool {
    field(word, 30, 30) == 1
}

fn unsigned(word: u32) -> bool {
    field(word, 29, 29) == 1
}

fn any(_: u32) -> bool {
    true
}

fn same(word: u32) -> bool {
    let (size, u) = (size(word), unsigned(word));
    let fits = match field(word, 15, 11) {
        0b00000 | 0b00010 | 0b00100 | 0b01100..=0b01111 | 0b10010 | 0b10100 | 0b10101 => size < 3,
        0b00011 => return true,
        0b10011 => size < if u { 1 } else { 3 },
        0b10110 => size == 1 || size == 2,
        0b10111 => !u,
        0b11000.. => false,
        _ => true,
    };
    fits && (size < 3 || quad(word))
}

fn same_float(word: u32) -> bool {
    let (u, high) = (unsigned(word), size(word) >= 2);
    let fits = match field(word, 13, 11) {
        0b000 | 0b010 | 0b110 => true,
        0b001 => !u,
        0b011 => !high,
        0b100 => u || !high,
        0b101 => u,
        _ => !(u && high),
    };
    fits && (size(word) & 1 == 0 || quad(word))
}

fn scalar_same(word: u32) -> bool {
    let (u, high) = (unsigned(word), size(word) >= 2);
    match field(word, 15, 11) {
        0b00001 | 0b00101 | 0b01001 | 0b01011 => true,
        0b00110 | 0b00111 | 0b01000 | 0b01010 | 0b10000 | 0b10001 => size(word) == 3,
        0b10110 => size(word) == 1 || size(word) == 2,
        0b11010 => u && high,
        0b11011 => !u && !high,
        0b11100 => u || !high,
        0b11101 => u,
        0b11111 => !u,
        _ => false,
    }
}

fn different(word: u32) -> bool {
    let size = size(word);
    match field(word, 15, 12) {
        0b1001 | 0b1011 | 0b1101 => !unsigned(word) && (size == 1 || size == 2),
        0b1110 => !unsigned(word) && (size == 0 || size == 3),
        0b1111 => false,
        _ => size < 3,
    }
}

fn scalar_different(word: u32) -> bool {
    matches!(field(word, 15, 12), 0b1001 | 0b1011 | 0b1101) && matches!(size(word), 1 | 2)
}

fn misc(word: u32) -> bool {
    let (size, u) = (size(word), unsigned(word));
    let fits = match (field(word, 16, 12), u) {
        (0b00000 | 0b00101, true) => return size < 2,
        (0b00001 | 0b00101, false) => return size == 0,
        (0b00010 | 0b00100 | 0b00110 | 0b10010 | 0b10100, _) | (0b10011, true) | (0b00000, false) => {
            return size < 3;
        }
        (0b00011 | 0b00111 | 0b01000 | 0b01001 | 0b01011, _) | (0b01010, false) => true,
        _ => return misc_float(word),
    };
    fits && (size < 3 || quad(word))
}

fn misc_float(word: u32) -> bool {
    let (u, high, double) = (unsigned(word), size(word) >= 2, size(word) & 1 == 1);
    let fits = match field(word, 16, 12) {
        0b01100 | 0b01101 | 0b01111 => high,
        0b01110 => high && !u,
        0b10110 => return !high && (!u || double),
        0b10111 => return !high && !u,
        0b11000 => !(u && high),
        0b11001 | 0b11010 | 0b11011 | 0b11101 => true,
        0b11100 => !(high && double),
        0b11111 => u && high,
        _ => false,
    };
    fits && (!double || quad(word))
}

fn scalar_misc(word: u32) -> bool {
    let (size, u, high) = (size(word), unsigned(word), size(word) >= 2);
    match field(word, 16, 12) {
        0b00011 | 0b00111 | 0b11010 | 0b11011 | 0b11101 => true,
        0b01000 | 0b01001 | 0b01011 => size == 3,
        0b01010 => size == 3 && !u,
        0b10010 => size < 3 && u,
        0b10100 => size < 3,
        0b01100 | 0b01101 => high,
        0b01110 | 0b11111 => high && !u,
        0b10110 => size == 1 && u,
        0b11100 => !high,
        _ => false,
    }
}

fn across(word: u32) -> bool {
    match field(word, 16, 12) {
        0b00011 | 0b01010 | 0b11010 => size(word) < 2 || (size(word) == 2 && quad(word)),
        0b11011 => !unsigned(word) && (size(word) < 2 || (size(word) == 2 && quad(word))),
        0b01100 | 0b01111 => unsigned(word) && size(word) & 1 == 0 && quad(word),
        _ => false,
    }
}

fn scalar_pairwise(word: u32) -> bool {
    match (field(word, 16, 12), unsigned(word)) {
        (0b11011, false) => size(word) == 3,
        (0b01100 | 0b01111, true) => true,
        (0b01101, true) => size(word) < 2,
        _ => false,
    }
}

fn element(word: u32) -> bool {
    let (size, u) = (size(word), unsigned(word));
    let float = |scalar: bool| match size {
        2 => true,
        3 => field(word, 21, 21) == 0 && (scalar || quad(word)),
        _ => false,
    };
    let scalar = field(word, 28, 28) == 1;
    let middle = size == 1 || size == 2;
    match (field(word, 15, 12), u) {
        (0b0001 | 0b0101, false) | (0b1001, _) => float(scalar),
        (0b0011 | 0b0111 | 0b1011 | 0b1100 | 0b1101, false) => middle,
        (0b0010 | 0b0110 | 0b1010, _) | (0b0000 | 0b0100, true) | (0b1000, false) => middle && !scalar,
        _ => false,
    }
}

fn shift(word: u32) -> bool {
    let (immh, u, opcode) = (field(word, 22, 19), unsigned(word), field(word, 15, 11));
    if immh == 0 {
        return false;
    }
    match opcode {
        0b00000 | 0b00010 | 0b00100 | 0b00110 | 0b01010 | 0b01110 => immh < 8 || quad(word),
        0b01000 | 0b01100 => u && (immh < 8 || quad(word)),
        0b10000..=0b10100 => immh < 8,
        0b11100 | 0b11111 => immh >= 4 && (immh < 8 || quad(word)),
        _ => false,
    }
}

fn scalar_shift(word: u32) -> bool {
    let (immh, u, opcode) = (field(word, 22, 19), unsigned(word), field(word, 15, 11));
    match opcode {
        0b00000 | 0b00010 | 0b00100 | 0b00110 | 0b01010 => immh >= 8,
        0b01000 => u && immh >= 8,
        0b01100 => u && immh > 0,
        0b01110 => immh > 0,
        0b10000 | 0b10001 => u && immh > 0 && immh < 8,
        0b10010 | 0b10011 => immh > 0 && immh < 8,
        0b11100 | 0b11111 => immh >= 4,
        _ => false,
    }
}

fn immediate(word: u32) -> bool {
    field(word, 15, 12) != 15 || !unsigned(word) || quad(word)
}

fn copy(word: u32) -> bool {
    let size = field(word, 19, 16).trailing_zeros();
    if size > 3 {
        return false;
    }
    let quad = quad(word);
    match (unsigned(word), field(word, 14, 11)) {
        (true, _) | (_, 0b0011) => quad,
        (_, 0b0000 | 0b0001) => size < 3 || quad,
        (_, 0b0101) => size < 2 || (size == 2 && quad),
        (_, 0b0111) => (size == 3) == quad,
        _ => false,
    }
}

fn has_element(word: u32) -> bool {
    field(word, 19, 16) != 0
}

fn extract(word: u32) -> bool {
    quad(word) || field(word, 14, 14) == 0
}

fn permute(word: u32) -> bool {
    field(word, 13, 12) != 0 && (size(word) < 3 || quad(word))
}

/// FCVTZS, FCVTZU, SCVTF, UCVTF; with 32 bits the scale is 32 or more.
fn fixed(word: u32) -> bool {
    matches!(field(word, 20, 16), 0b00010 | 0b00011 | 0b11000 | 0b11001)
        && (word >> 31 == 1 || field(word, 15, 15) == 1)
}

fn integer(word: u32) -> bool {
    match (field(word, 20, 19), field(word, 18, 16)) {
        (_, 0 | 1) | (0, 2..=5) => true,
        (0, 6 | 7) => word >> 31 == field(word, 22, 22),
        _ => false,
    }
}

fn one_source(word: u32) -> bool {
    match field(word, 20, 15) {
        0..=3 | 7..=12 | 14 | 15 => true,
        4 => field(word, 22, 22) == 1,
        5 => field(word, 22, 22) == 0,
        _ => false,
    }
}

fn two_sources(word: u32) -> bool {
    field(word, 15, 12) <= 8
}

fn sha_two(word: u32) -> bool {
    field(word, 13, 12) != 3
}

fn sha_three(word: u32) -> bool {
    field(word, 14, 12) != 7
}

/// Quadwords have size 00 and the high bit of opc.
fn one_register(word: u32) -> bool {
    field(word, 23, 23) == 0 || word >> 30 == 0
}

fn register_offset(word: u32) -> bool {
    one_register(word) && field(word, 14, 14) == 1
}

/// A load of one register twice is CONSTRAINED UNPREDICTABLE.
fn two_registers(word: u32) -> bool {
    word >> 30 != 3 && !(field(word, 22, 22) == 1 && field(word, 4, 0) == field(word, 14, 10))
}

fn literal(word: u32) -> bool {
    word >> 30 != 3
}

fn multiple(word: u32) -> bool {
    let allocated = matches!(field(word, 15, 12), 0 | 2 | 4 | 6 | 7 | 8 | 10);
    let of_one = matches!(field(word, 15, 12), 2 | 6 | 7 | 10);
    allocated && (of_one || quad(word) || field(word, 11, 10) != 3)
}

fn one_element(word: u32) -> bool {
    let (load, s, low) = (field(word, 22, 22) == 1, field(word, 12, 12) == 1, field(word, 11, 10));
    match field(word, 15, 14) {
        0 => true,
        1 => low & 1 == 0,
        2 => low == 0 || (low == 1 && !s),
        _ => load && !s,
    }
}

fn not_xzr(word: u32) -> bool {
    field(word, 4, 0) != 31
}

/// Bytes that a structure access touches.
pub(super) fn structure_bytes(word: u32) -> u64 {
    let register = 8 << field(word, 30, 30);
    if field(word, 24, 24) == 0 {
        return register
            * match field(word, 15, 12) {
                0 | 2 => 4,
                4 | 6 => 3,
                8 | 10 => 2,
                _ => 1,
            };
    }
    let elements = u64::from(field(word, 13, 13) << 1 | field(word, 21, 21)) + 1;
    let size = match (field(word, 15, 14), field(word, 11, 10)) {
        (3, low) => low,
        (2, low) => 2 + low,
        (scale, _) => scale,
    };
    elements << size
}

/// The instruction set.
#[rustfmt::skip]
pub(super) const TEMPLATES: &[Template] = &[
    row("simd same", "0Qu01110zz1mmmmmooooo1nnnnnddddd", PLAIN, Base, same, "*"),
    row("simd same", "0Qu01110zz1mmmmmooooo1nnnnnddddd", PLAIN, Base, same, "*"),
    row("simd same", "0Qu01110zz1mmmmmooooo1nnnnnddddd", PLAIN, Base, same, "*"),
    row("simd same fp", "0Qu01110zz1mmmmm11ooo1nnnnnddddd", PLAIN, Base, same_float, "f*"),
    row("simd same fp", "0Qu01110zz1mmmmm11ooo1nnnnnddddd", PLAIN, Base, same_float, "f*"),
    row("simd scalar same", "01u11110zz1mmmmmooooo1nnnnnddddd", PLAIN, Base, scalar_same, "*"),
    row("simd different", "0Qu01110zz1mmmmmoooo00nnnnnddddd", PLAIN, Base, different, "*"),
    row("simd different", "0Qu01110zz1mmmmmoooo00nnnnnddddd", PLAIN, Base, different, "*"),
    row("simd scalar different", "01011110zz1mmmmmoooo00nnnnnddddd", PLAIN, Base, scalar_different, "sqdm*"),
    row("simd misc", "0Qu01110zz10000ooooo10nnnnnddddd", PLAIN, Base, misc, "*"),
    row("simd misc", "0Qu01110zz10000ooooo10nnnnnddddd", PLAIN, Base, misc, "*"),
    row("simd misc", "0Qu01110zz10000ooooo10nnnnnddddd", PLAIN, Base, misc, "*"),
    row("simd scalar misc", "01u11110zz10000ooooo10nnnnnddddd", PLAIN, Base, scalar_misc, "*"),
    row("simd scalar misc", "01u11110zz10000ooooo10nnnnnddddd", PLAIN, Base, scalar_misc, "*"),
    row("simd across", "0Qu01110zz11000ooooo10nnnnnddddd", PLAIN, Base, across, "*"),
    row("simd scalar pairwise", "01u11110zz11000ooooo10nnnnnddddd", PLAIN, Base, scalar_pairwise, "addp|faddp|fmax*|fmin*"),
    row("simd element", "0Qu01111zzimmmmmooooi0nnnnnddddd", PLAIN, Base, element, "*"),
    row("simd scalar element", "01u11111zzimmmmmooooi0nnnnnddddd", PLAIN, Base, element, "fm*|sq*"),
    row("simd shift", "0Qu011110iiiiiiiooooo1nnnnnddddd", PLAIN, Base, shift, "*"),
    row("simd shift", "0Qu011110iiiiiiiooooo1nnnnnddddd", PLAIN, Base, shift, "*"),
    row("simd scalar shift", "01u111110iiiiiiiooooo1nnnnnddddd", PLAIN, Base, scalar_shift, "*"),
    row("simd immediate", "0Qo0111100000iiicccc01iiiiiddddd", PLAIN, Base, immediate, "movi|mvni|orr|bic|fmov"),
    row("simd copy", "0Qo01110000iiiii0kkkk1nnnnnddddd", PLAIN, Base, copy, "dup|ins|mov|smov|umov"),
    row("simd dup scalar", "01011110000iiiii000001nnnnnddddd", PLAIN, Base, has_element, "dup|mov"),
    row("simd ext", "0Q101110000mmmmm0iiii0nnnnnddddd", PLAIN, Base, extract, "ext"),
    row("simd permute", "0Q001110zz0mmmmm0ooo10nnnnnddddd", PLAIN, Base, permute, "zip*|uzp*|trn*"),
    row("simd table", "0Q001110000mmmmm0llo00nnnnnddddd", PLAIN, Base, any, "tbl|tbx"),
    row("aes", "010011100010100001oo10nnnnnddddd", PLAIN, Base, any, "aes*"),
    row("sha two", "010111100010100000oo10nnnnnddddd", PLAIN, Base, sha_two, "sha*"),
    row("sha three", "01011110000mmmmm0ooo00nnnnnddddd", PLAIN, Base, sha_three, "sha*"),
    row("fp fixed", "x00111100p0rroooSSSSSSnnnnnddddd", PLAIN, Base, fixed, "scvtf|ucvtf|fcvtzs|fcvtzu"),
    row("fp integer", "x00111100p1rrooo000000nnnnnddddd", PLAIN, Base, integer, "scvtf|ucvtf|fcvt*|fmov"),
    row("fmov top", "100111101010111o000000nnnnnddddd", PLAIN, Base, any, "fmov"),
    row("fp one source", "000111100p1oooooo10000nnnnnddddd", PLAIN, Base, one_source, "fmov|fabs|fneg|fsqrt|fcvt|frint*"),
    row("fp one source", "000111100p1oooooo10000nnnnnddddd", PLAIN, Base, one_source, "fmov|fabs|fneg|fsqrt|fcvt|frint*"),
    row("fcvt half", "0001111011100010o10000nnnnnddddd", PLAIN, Base, any, "fcvt"),
    row("fp compare", "000111100p1mmmmm001000nnnnnoz000", PLAIN, Base, any, "fcmp|fcmpe"),
    row("fp immediate", "000111100p1iiiiiiii10000000ddddd", PLAIN, Base, any, "fmov"),
    row("fp cond compare", "000111100p1mmmmmcccc01nnnnnokkkk", PLAIN, Base, any, "fccmp|fccmpe"),
    row("fp two sources", "000111100p1mmmmmoooo10nnnnnddddd", PLAIN, Base, two_sources, "fmul|fdiv|fadd|fsub|fmax*|fmin*|fnmul"),
    row("fp two sources", "000111100p1mmmmmoooo10nnnnnddddd", PLAIN, Base, two_sources, "fmul|fdiv|fadd|fsub|fmax*|fmin*|fnmul"),
    row("fp select", "000111100p1mmmmmcccc11nnnnnddddd", PLAIN, Base, any, "fcsel"),
    row("fp three sources", "000111110pommmmmoaaaaannnnnddddd", PLAIN, Base, any, "fmadd|fmsub|fnmadd|fnmsub"),
    row("v ldst unsigned", "zz111101oLiiiiiiiiiiiinnnnnttttt", single(Offset::Unsigned12), Base, one_register, "ldr|str"),
    row("v ldst unscaled", "zz111100oL0iiiiiiiii00nnnnnttttt", single(Offset::Signed9), Base, one_register, "ldur|stur"),
    row("v ldst post-indexed", "zz111100oL0iiiiiiiii01nnnnnttttt", single(Offset::Signed9Post), Base, one_register, "ldr|str"),
    row("v ldst pre-indexed", "zz111100oL0iiiiiiiii11nnnnnttttt", single(Offset::Signed9), Base, one_register, "ldr|str"),
    row("v ldst register", "zz111100oL1mmmmmeeeS10nnnnnttttt", single(Offset::Register), Base, register_offset, "ldr|str"),
    row("v pair non-temporal", "oo1011000Liiiiiiiuuuuunnnnnttttt", pair(Offset::Signed7), Base, two_registers, "ldnp|stnp"),
    row("v pair post-indexed", "oo1011001Liiiiiiiuuuuunnnnnttttt", pair(Offset::Signed7Post), Base, two_registers, "ldp|stp"),
    row("v pair offset", "oo1011010Liiiiiiiuuuuunnnnnttttt", pair(Offset::Signed7), Base, two_registers, "ldp|stp"),
    row("v pair pre-indexed", "oo1011011Liiiiiiiuuuuunnnnnttttt", pair(Offset::Signed7), Base, two_registers, "ldp|stp"),
    row("v literal", "oo011100iiiiiiiiiiiiiiiiiiittttt", Class::Literal, Base, literal, "ldr"),
    row("structures", "0Q0011000L000000oooozznnnnnttttt", STRUCTURES, Base, multiple, "ld1|ld2|ld3|ld4|st1|st2|st3|st4"),
    row("structures post-indexed", "0Q0011001L0mmmmmoooozznnnnnttttt", STRUCTURES, Base, multiple, "ld1|ld2|ld3|ld4|st1|st2|st3|st4"),
    row("structure element", "0Q0011010LR00000oooSzznnnnnttttt", STRUCTURES, Base, one_element, "ld1*|ld2*|ld3*|ld4*|st1|st2|st3|st4"),
    row("structure element post-indexed", "0Q0011011LRmmmmmoooSzznnnnnttttt", STRUCTURES, Base, one_element, "ld1*|ld2*|ld3*|ld4*|st1|st2|st3|st4"),
    row("mrs fpcr/fpsr", "11010101001110110100010000ottttt", PLAIN, Base, any, "mrs"),
    row("msr fpcr", "110101010001101101000100000ttttt", Class::ValueInRt(FPCR), Base, not_xzr, "msr"),
    row("msr fpsr", "110101010001101101000100001ttttt", Class::ValueInRt(FPSR), Base, not_xzr, "msr"),
];
