//! Single random words: a check that both sides find the same ones undefined, and that they do the same for
//! the others.
//!
//! All registers and SP point to the middle of the buffer, so that any load or store has a valid target, and
//! a register branch ends in a fault at a known place. `comparable` names the words that are left out, with
//! the reasons.

use crate::case::{Case, State, Unit};
use crate::generate::Cpu;
use crate::random::Random;
use crate::template::{BranchOffset, TEMPLATES, field};
use crate::{layout, vector};

/// A case of one word. For `CortexA57`, which has exactly the machine's FP and AdvSIMD, it is one of those;
/// for other models it is any other word.
pub(super) fn case(random: &mut Random, cpu: Cpu) -> Case {
    let word = if cpu == Cpu::CortexA57 { vector_word(random) } else { word(random) };
    Case {
        initial: State {
            x: [layout::MIDDLE; 31],
            sp: layout::MIDDLE,
            nzcv: random.bits() & 0xf000_0000,
            v: std::array::from_fn(|_| random.nasty_vector()),
            fpcr: 0,
            fpsr: 0,
            buffer: (0..layout::BUFFER_SIZE / 8).flat_map(|_| random.nasty().to_le_bytes()).collect(),
        },
        units: vec![Unit { name: "word", words: vec![word], fix: None }],
    }
}

/// Half of the words are noise, half are allocated ones with one to three bits flipped.
fn word(random: &mut Random) -> u32 {
    loop {
        let word = if random.one_in(2) {
            random.word()
        } else {
            let near = random.pick(TEMPLATES).draw(random);
            (0..=random.below(3)).fold(near, |word, _| word ^ 1 << random.below(32))
        };
        if let Some(word) = comparable(word) {
            return word;
        }
    }
}

/// The same among the words of FP and AdvSIMD: bits `[28:25]` are x11x, or x1x0 with V.
fn vector_word(random: &mut Random) -> u32 {
    loop {
        let word = if random.one_in(2) {
            let noise = random.word();
            if random.one_in(2) { noise | 0x0e00_0000 } else { noise & !0x0200_0000 | 0x0c00_0000 }
        } else {
            let near = random.pick(vector::TEMPLATES).draw(random);
            (0..=random.below(3)).fold(near, |word, _| word ^ 1 << random.below(32))
        };
        let comparable = match field(word, 27, 25) {
            0b111 => Some(word),
            0b110 | 0b100 if field(word, 26, 26) == 1 => vector_load_store(word),
            _ => None,
        };
        if let Some(word) = comparable {
            return word;
        }
    }
}

/// Loads and stores with V: all but CONSTRAINED UNPREDICTABLE ones.
fn vector_load_store(word: u32) -> Option<u32> {
    match field(word, 29, 28) {
        // A literal load reads the words around it, which are the same on both sides.
        0b01 if field(word, 24, 24) == 0 => Some(BranchOffset::Imm19.set(word, 1)),
        0b10 if field(word, 22, 22) == 1 && field(word, 4, 0) == field(word, 14, 10) => None,
        _ => Some(word),
    }
}

/// The word, with PC-relative offsets made harmless; None if the two sides may rightly differ.
fn comparable(word: u32) -> Option<u32> {
    match field(word, 28, 25) {
        // Reserved, SME, unallocated, SVE: undefined in both (`sve=off,sme=off`).
        0b0000..=0b0011 => Some(word),
        0b1000 | 0b1001 => (!tagged_immediate(word)).then_some(word),
        0b1010 | 0b1011 => branch_or_system(word),
        0b0101 | 0b1101 => (!tag_arithmetic(word)).then_some(word),
        // A literal load reads the next word: farther away there are records, which differ.
        0b1100 if field(word, 29, 24) == 0b011000 => Some(BranchOffset::Imm19.set(word, 1)),
        0b0100 | 0b1100 => load_store(word).then_some(word),
        // FP and AdvSIMD: `max` has more of it than the machine. See `vector_word`.
        _ => None,
    }
}

/// ADDG, SUBG: FEAT_MTE, which `max` has and the machine lacks.
fn tagged_immediate(word: u32) -> bool {
    field(word, 28, 23) == 0b100011 && field(word, 31, 31) == 1 && field(word, 29, 29) == 0
}

/// SUBP, SUBPS, IRG, GMI: FEAT_MTE.
fn tag_arithmetic(word: u32) -> bool {
    field(word, 28, 21) == 0b1101_0110
        && matches!(field(word, 15, 10), 0b000000 | 0b000100 | 0b000101)
        && word >> 30 != 3
}

/// Direct branches go to the next word.
fn branch_or_system(word: u32) -> Option<u32> {
    if field(word, 30, 26) == 0b00101 {
        return Some(BranchOffset::Imm26.set(word, 1));
    }
    match (field(word, 30, 25), field(word, 31, 24)) {
        (0b011010, _) | (_, 0b0101_0100 | 0b0101_0101) => Some(BranchOffset::Imm19.set(word, 1)),
        (0b011011, _) => Some(BranchOffset::Imm14.set(word, 1)),
        (_, 0b1101_0100) => exception(word).then_some(word),
        (_, 0b1101_0101) if field(word, 23, 22) == 0 => system(word).then_some(word),
        _ => Some(word),
    }
}

/// SVC would be a system call; HLT #0xf000 is semihosting in QEMU's user mode.
fn exception(word: u32) -> bool {
    let svc = field(word, 23, 21) == 0 && field(word, 4, 0) == 1;
    let semihosting = field(word, 23, 21) == 2 && field(word, 20, 5) == 0xf000;
    !svc && !semihosting
}

fn system(word: u32) -> bool {
    let (op1, crn, crm, op2) =
        (field(word, 18, 16), field(word, 15, 12), field(word, 11, 8), field(word, 7, 5));
    let read = field(word, 21, 21) == 1;
    match field(word, 20, 19) {
        0 => match (crn, op1, op2) {
            // WFE and WFI wait.
            (2, ..) => !matches!(crm << 3 | op2, 2 | 3),
            // XAFLAG, AXFLAG: FEAT_FlagM2; MSR TCO: FEAT_MTE. QEMU has them, the machine does not.
            (4, 0, 1 | 2) | (4, 3, 4) => false,
            _ => true,
        },
        // EL0 has SYS with op1 = 3. Left out: prediction restriction (CRm 3), tag forms, CVAP and CVADP
        // (QEMU's user mode lacks them), the block size of DC ZVA, and XZR, an address at which QEMU's user
        // mode does not fault.
        1 if op1 == 3 && crn == 7 && !read => {
            op2 == 1 && !matches!(crm, 3 | 4 | 12 | 13) && field(word, 4, 0) != 31
        }
        1 => true,
        // EL0's registers: only those that both sides have in the same way.
        _ if op1 == 3 => matches!(
            (field(word, 20, 19), crn, crm, op2, read),
            (3, 4, 2, 0 | 5, _) | (3, 13, 0, 2, _) | (3, 13, 0, 3, true)
        ),
        // Linux answers MRS of the ID registers for a process.
        3 => !(op1 == 0 && crn == 0),
        _ => true,
    }
}

/// Loads and stores without V: all but other features' words and CONSTRAINED UNPREDICTABLE ones.
fn load_store(word: u32) -> bool {
    let (t, n, u, s) = (field(word, 4, 0), field(word, 9, 5), field(word, 14, 10), field(word, 20, 16));
    match field(word, 29, 24) {
        0b001000 => exclusive(word, t, n, u, s),
        // Tag loads and stores: FEAT_MTE. Unaligned STLUR and LDAPUR depend on FEAT_LSE2.
        0b011001 => field(word, 21, 21) == 0 && field(word, 20, 12) % (1 << (word >> 30)) == 0,
        0b101000 | 0b101001 => {
            let (load, writeback) = (field(word, 22, 22) == 1, field(word, 23, 23) == 1);
            // STGP: FEAT_MTE.
            let tags = word >> 30 == 1 && !load;
            !(tags || load && t == u || writeback && n != 31 && (n == t || n == u))
        }
        0b111000 => {
            let writeback = field(word, 21, 21) == 0 && field(word, 10, 10) == 1;
            // LDAPR with a register in a field that should be ones.
            let ldapr = field(word, 21, 21) == 1 && field(word, 15, 10) == 0b110000;
            !(writeback && n == t && n != 31 || ldapr && s != 31)
        }
        _ => true,
    }
}

/// The exclusive and ordered group, bits 23 (o2), 22 (L), 21 (o1), 15 (o0).
fn exclusive(word: u32, t: u32, n: u32, u: u32, s: u32) -> bool {
    let (o2, load, o1, o0) = (
        field(word, 23, 23) == 1,
        field(word, 22, 22) == 1,
        field(word, 21, 21) == 1,
        field(word, 15, 15) == 1,
    );
    let pair = !o2 && o1 && word >> 31 == 1;
    if o2 && !o1 {
        // LDLAR, STLLR (o0 = 0): FEAT_LOR, which QEMU has and the machine lacks. Others: ones where ones
        // should be.
        return o0 && s == 31 && u == 31;
    }
    if (o2 || word >> 31 == 0) && o1 {
        return true; // CAS and CASP: nothing unpredictable.
    }
    let status_clash = !load && (s == t || (s == n && n != 31) || (pair && s == u));
    let should_be_ones = (load && s != 31) || (!pair && u != 31);
    !(status_clash || should_be_ones || load && pair && t == u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_would_leave_the_program_or_wait_are_not_run() {
        for word in [
            0xd400_0001, // svc #0
            0xd45e_0000, // hlt #0xf000: semihosting
            0xd503_207f, // wfi
            0xd53b_e040, // mrs x0, cntvct_el0
            0xd538_0000, // mrs x0, midr_el1: Linux answers it
            0x1ee0_2800, // fadd h0, h0, h0: `max` has FEAT_FP16
        ] {
            assert_eq!(comparable(word), None, "{word:#010x}");
        }
    }

    #[test]
    fn unallocated_words_are_run() {
        for word in [
            0x0000_0000, // udf #0
            0xd400_0002, // hvc #0, at EL0
            0x0480_0000, // SVE
            0xdac1_0000, // pacia x0, x0: no pointer authentication on either side
        ] {
            assert_eq!(comparable(word), Some(word), "{word:#010x}");
        }
    }

    #[test]
    fn direct_branches_go_to_the_next_word() {
        assert_eq!(comparable(0x17ff_ffff), Some(0x1400_0001)); // b back
        assert_eq!(comparable(0x54ff_ffe0), Some(0x5400_0020)); // b.eq back
        assert_eq!(comparable(0x3607_ffe0), Some(0x3600_0020)); // tbz back
    }
}
