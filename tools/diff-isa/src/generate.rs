//! Random sequences in which every access lands in the buffer.

use crate::case::{Case, Fix, State, Unit};
use crate::layout;
use crate::random::Random;
use crate::template::{self, Access, Class, Needs, Offset, Template, field};
use crate::vector;

/// The CPU model of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cpu {
    /// All features of QEMU, without pointer authentication, SVE and SME.
    Max,
    /// Armv8.2, with the machine's DC ZVA block size.
    NeoverseN1,
    /// Armv8.0 with AES, PMULL, SHA-1, SHA-256: exactly the machine's FP and AdvSIMD.
    CortexA57,
}

impl Cpu {
    /// QEMU's `-cpu` value.
    pub(super) fn option(self) -> &'static str {
        match self {
            Cpu::Max => "max,pauth=off,sve=off,sme=off",
            Cpu::NeoverseN1 => "neoverse-n1",
            Cpu::CortexA57 => "cortex-a57",
        }
    }

    fn has(self, needs: Needs) -> bool {
        match needs {
            Needs::Base => true,
            Needs::Max => self == Cpu::Max,
            Needs::ZvaBlock64 => self == Cpu::NeoverseN1,
        }
    }
}

/// A sequence of `length` units for `cpu`; sometimes with an access to unmapped memory, or a trap, at its end.
pub(super) fn case(random: &mut Random, cpu: Cpu, length: usize) -> Case {
    let rows: Vec<&Template> = template::all().filter(|t| cpu.has(t.needs)).collect();
    let accesses: Vec<&Template> =
        rows.iter().copied().filter(|t| matches!(t.class, Class::Access(_))).collect();
    let mut units = Vec::with_capacity(length + 1);
    for _ in 0..length {
        units.push(match random.below(32) {
            0 | 1 => exclusive(random),
            2 | 3 => constant(random),
            4 => counted_loop(random),
            5 => system_call(random),
            6..10 => vector_constant(random),
            10..14 => {
                let row = *random.pick(&accesses);
                unit(random, row, Place::Buffer)
            }
            _ => {
                let row = *random.pick(&rows);
                unit(random, row, Place::Buffer)
            }
        });
    }
    match random.below(16) {
        0 | 1 => {
            let row = *random.pick(&accesses);
            units.push(unit(random, row, Place::Fault));
        }
        2 => units.push(trap(random)),
        _ => {}
    }
    Case { initial: state(random), units }
}

/// Random registers, flags and memory.
fn state(random: &mut Random) -> State {
    let mut x = [0; 31];
    x.fill_with(|| random.nasty());
    let mut v = [0; 32];
    v.fill_with(|| random.nasty_vector());
    let buffer = (0..layout::BUFFER_SIZE / 16).flat_map(|_| random.nasty_vector().to_le_bytes()).collect();
    let (sp, nzcv) = (random.nasty(), random.bits() & 0xf000_0000);
    // Mostly ordinary rounding: other modes lose information.
    let fpcr = if random.one_in(2) { random.bits() & random.bits() & vector::FPCR } else { 0 };
    State { x, sp, nzcv, v, fpcr, fpsr: random.bits() & vector::FPSR, buffer }
}

/// The target of an access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Somewhere in the buffer, often over its page boundary.
    Buffer,
    /// To unmapped memory, or over the end of mapped memory: the sequence ends there.
    Fault,
}

impl Place {
    /// An address for an access of `bytes`, a power of two up to 16.
    fn address(self, random: &mut Random, bytes: u64, aligned: bool) -> u64 {
        let address = match self {
            Place::Fault if random.one_in(2) => layout::UNMAPPED + 0x800 + random.bits() % 256,
            // Never readable: a store may write its first bytes before it faults, or none (QEMU does both).
            Place::Fault if aligned => layout::END,
            Place::Fault => return layout::END - random.bits() % bytes,
            Place::Buffer if random.one_in(4) => layout::MIDDLE - random.bits() % (bytes + 1),
            Place::Buffer => layout::BUFFER + random.bits() % (layout::BUFFER_SIZE - bytes + 1),
        };
        let address = if aligned || random.one_in(2) { address & !(bytes - 1) } else { address };
        // Linux has TBI on for processes: the top byte is not part of the address.
        if self == Place::Buffer && random.one_in(8) { address | random.bits() << 56 } else { address }
    }
}

/// An instruction from a row, with its registers set up.
fn unit(random: &mut Random, row: &Template, place: Place) -> Unit {
    let word = row.draw(random);
    let (words, fix) = match row.class {
        Class::Plain => (vec![word], None),
        Class::Access(access) => (access_words(random, row, access, place), None),
        Class::ValueInRt(mask) => {
            let value = random.bits() & mask;
            let mut words = set_register(field(word, 4, 0), value);
            words.push(word);
            (words, None)
        }
        Class::AddressInRt => {
            let address = Place::Buffer.address(random, 1, false);
            let mut words = set_register(field(word, 4, 0), address);
            words.push(word);
            (words, None)
        }
        Class::Literal => {
            (vec![word], Some(Fix::Literal(Place::Buffer.address(random, 16, false) & ADDRESS & !3)))
        }
        Class::Branch(offset) => (vec![word], Some(Fix::Branch(offset, random.below(4)))),
        Class::BranchRegister => (branch_register(random, word), Some(Fix::Adr(random.below(4)))),
    };
    Unit { name: row.name, words, fix }
}

/// An address without its tag.
const ADDRESS: u64 = u64::MAX >> 8;
const ADR: u32 = 0x1000_0000;
const CLREX: u32 = 0xd503_3f5f;

/// Gives a register an interesting value.
fn constant(random: &mut Random) -> Unit {
    let register = random.below(31) as u32;
    let value = random.nasty();
    Unit { name: "constant", words: set_register(register, value), fix: None }
}

/// Gives halves of a V register interesting numbers: FMOV, and sometimes INS of another one.
fn vector_constant(random: &mut Random) -> Unit {
    const FMOV: u32 = 0x9e67_0000;
    const INS_TOP: u32 = 0x4e18_1c00;
    let (scratch, register) = (random.below(31) as u32, random.below(32) as u32);
    let value = random.nasty_vector();
    let mut words = set_register(scratch, value as u64);
    words.push(FMOV | scratch << 5 | register);
    if random.one_in(2) {
        words.extend(set_register(scratch, (value >> 64) as u64));
        words.push(INS_TOP | scratch << 5 | register);
    }
    Unit { name: "vector constant", words, fix: None }
}

/// ADR into the branch's register, sometimes with a tag in the top byte that the branch must drop (TBI), then the branch.
fn branch_register(random: &mut Random, branch: u32) -> Vec<u32> {
    const ORR_TAG: u32 = 0xb248_1c00; // orr x0, x0, #0xff00000000000000
    let register = field(branch, 9, 5);
    let tag = random.one_in(4).then_some(ORR_TAG | register << 5 | register);
    [ADR | register].into_iter().chain(tag).chain([branch]).collect()
}

/// A backward branch: a few turns of EOR, SUBS and B.NE.
fn counted_loop(random: &mut Random) -> Unit {
    let counter = random.below(31) as u32;
    let (a, b) =
        ((counter + 1 + random.below(15) as u32) % 31, (counter + 16 + random.below(15) as u32) % 31);
    let mut words = set_register(counter, 1 + random.bits() % 9);
    words.extend([
        0xca80_0000 | b << 16 | 7 << 10 | a << 5 | a, // eor a, a, b, asr #7
        0xf100_0400 | counter << 5 | counter,         // subs counter, counter, #1
        0x54ff_ffc1,                                  // b.ne back two
    ]);
    Unit { name: "loop", words, fix: None }
}

/// `sched_yield`, which returns 0 and has no other effect: an exception and its return in the middle of a
/// sequence.
fn system_call(random: &mut Random) -> Unit {
    const SCHED_YIELD: u64 = 124;
    let mut words = set_register(8, SCHED_YIELD);
    words.push(0xd400_0001 | (random.word() & 0xffff) << 5);
    Unit { name: "svc", words, fix: None }
}

/// The end of a sequence: BRK or UDF with any immediate, or a jump to an address that cannot be fetched.
fn trap(random: &mut Random) -> Unit {
    let immediate = random.word() & 0xffff;
    let words = match random.below(4) {
        0 => vec![0xd420_0000 | immediate << 5],
        1 => vec![immediate],
        kind => {
            let register = random.below(31) as u32;
            let target =
                if kind == 2 { layout::MIDDLE } else { layout::UNMAPPED + 4 * u64::from(immediate & 0xff) };
            let mut words = set_register(register, target);
            words.push([0xd61f_0000, 0xd63f_0000, 0xd65f_0000][random.below(3)] | register << 5);
            words
        }
    };
    Unit { name: "trap", words, fix: None }
}

/// MOVZ or MOVN, then MOVK until the register (0..=30) has the value.
pub(super) fn set_register(register: u32, value: u64) -> Vec<u32> {
    const MOVZ: u32 = 0xd280_0000;
    const MOVN: u32 = 0x9280_0000;
    const MOVK: u32 = 0xf280_0000;
    let half = |i: u32| (value >> (16 * i)) as u32 & 0xffff;
    let ones = (0..4).filter(|&i| half(i) == 0xffff).count();
    let zeros = (0..4).filter(|&i| half(i) == 0).count();
    let (first, fill) = if ones > zeros { (MOVN, 0xffff) } else { (MOVZ, 0) };
    let mut words: Vec<u32> = Vec::with_capacity(4);
    for i in (0..4).filter(|&i| half(i) != fill) {
        let (opcode, immediate) = if words.is_empty() { (first, half(i) ^ fill) } else { (MOVK, half(i)) };
        words.push(opcode | i << 21 | immediate << 5 | register);
    }
    if words.is_empty() {
        words.push(first | register);
    }
    words
}

/// A load, store or atomic: index register, base register (or SP by way of a scratch register), then the word.
fn access_words(random: &mut Random, row: &Template, access: Access, place: Place) -> Vec<u32> {
    let (word, index) = loop {
        let word = row.draw(random);
        if access.offset != Offset::Register {
            break (word, None);
        }
        // Base and index in one register would leave no choice of address.
        let (n, m) = (field(word, 9, 5), field(word, 20, 16));
        if m == 31 || m != n {
            break (word, (m != 31).then_some(m));
        }
    };
    let size = access.size.bytes(word);
    let aligned = access.aligned || (place == Place::Fault && access.faults_whole);
    let address = place.address(random, size * access.registers, aligned);
    let mut words = Vec::new();
    let mut index_value = 0;
    if let Some(register) = index {
        index_value = if random.one_in(2) { random.nasty() } else { random.bits() % 512 };
        words.extend(set_register(register, index_value));
    }
    let base = address.wrapping_sub(offset(word, access.offset, size, index_value));
    let n = field(word, 9, 5);
    if n == 31 {
        const MOV_SP: u32 = 0x9100_001f;
        let scratch = (0..31).find(|&r| Some(r) != index && !random.one_in(8)).unwrap_or(30);
        let scratch = if Some(scratch) == index { 29 } else { scratch };
        words.extend(set_register(scratch, base));
        words.push(MOV_SP | scratch << 5);
    } else {
        words.extend(set_register(n, base));
    }
    if row.name == "cas" && random.one_in(2) {
        words.extend(compare_will_match(word, size));
    }
    words.push(word);
    words
}

/// The offset that the access adds to its base, in bytes. `size` is one register's.
fn offset(word: u32, offset: Offset, size: u64, index: u64) -> u64 {
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)) as i32 >> (32 - bits)) as u64;
    match offset {
        Offset::Base | Offset::Signed9Post | Offset::Signed7Post => 0,
        Offset::Unsigned12 => u64::from(field(word, 21, 10)) * size,
        Offset::Signed9 => signed(field(word, 20, 12), 9),
        Offset::Signed7 => signed(field(word, 21, 15), 7).wrapping_mul(size),
        Offset::Register => {
            let extended = match field(word, 15, 13) {
                2 => index & 0xffff_ffff,
                6 => index as i32 as u64,
                _ => index,
            };
            if field(word, 12, 12) == 1 { extended.wrapping_mul(size) } else { extended }
        }
    }
}

/// For CAS: loads the compare register from the same place first, so that the swap happens. `None` if that
/// would lose the base.
fn compare_will_match(cas: u32, size: u64) -> Option<u32> {
    let (s, n) = (field(cas, 20, 16), field(cas, 9, 5));
    (s != n && s != 31).then_some(0x3940_0000 | size.ilog2() << 30 | n << 5 | s)
}

/// A load-exclusive, up to two register instructions, and the matching store-exclusive. Sometimes CLREX comes
/// between, or the load is missing: then the store must fail.
fn exclusive(random: &mut Random) -> Unit {
    let mut registers: Vec<u32> = (0..31).collect();
    let mut take = |random: &mut Random| {
        let i = random.below(registers.len());
        registers.swap_remove(i)
    };
    let (base, status, t, u) = (take(random), take(random), take(random), take(random));
    let (t2, u2, free) = (take(random), take(random), take(random));
    let pair = random.one_in(3);
    let size = if pair { 2 + random.below(2) as u32 } else { random.below(4) as u32 };
    let status = if random.one_in(8) { 31 } else { status };
    // Bits 22 (L), 21 (pair) and 15 (acquire or release).
    let (load_ordered, store_ordered) = (random.word() & 1, random.word() & 1);
    let common = size << 30 | 0x0800_0000 | u32::from(pair) << 21 | base << 5;
    let second = |register: u32| if pair { register << 10 } else { 31 << 10 };
    let load = common | 1 << 22 | 31 << 16 | load_ordered << 15 | second(u) | t;
    let store = common | status << 16 | store_ordered << 15 | second(u2) | t2;

    let bytes = (1 << size) << u32::from(pair);
    let address = Place::Buffer.address(random, bytes, true);
    let mut words = set_register(base, address);
    let lost = random.below(8);
    if lost == 0 {
        words.push(CLREX);
    } else {
        words.push(load);
    }
    for _ in 0..random.below(3) {
        // EOR free, t, u: between the two no instruction may access memory or change the base.
        words.push(0xca00_0000 | u << 16 | t << 5 | free);
    }
    if lost == 1 {
        words.push(CLREX);
    }
    words.push(store);
    Unit { name: "exclusive", words, fix: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_take_the_fewest_moves() {
        assert_eq!(set_register(3, 0), [0xd280_0003]); // movz x3, #0
        assert_eq!(set_register(3, u64::MAX), [0x9280_0003]); // movn x3, #0
        assert_eq!(set_register(3, 0x4108_7f00), [0xd28f_e003, 0xf2a8_2103]); // movz, movk lsl 16
        assert_eq!(set_register(3, 0xffff_ffff_1234_ffff), [0x92bd_b963]); // movn x3, #0xedcb, lsl 16
    }

    #[test]
    fn an_offset_is_what_the_encoding_says() {
        // ldr x0, [x1, #32760]; ldur x0, [x1, #-256]; ldp x0, x2, [x1, #-512]; ldrsh w0, [x1, w2, sxtw #1]
        assert_eq!(offset(0xf97f_fc20, Offset::Unsigned12, 8, 0), 32760);
        assert_eq!(offset(0xf850_0020, Offset::Signed9, 8, 0), (-256i64) as u64);
        assert_eq!(offset(0xa960_0820, Offset::Signed7, 8, 0), (-512i64) as u64);
        assert_eq!(offset(0x78e2_d820, Offset::Register, 2, 0x1_ffff_ffff), (-2i64) as u64);
    }

    #[test]
    fn the_same_seed_makes_the_same_sequence() {
        let words = |seed| case(&mut Random::new(seed, 3), Cpu::Max, 20).words(layout::CODE);
        assert_eq!(words(7), words(7));
        assert_ne!(words(7), words(8));
    }
}
