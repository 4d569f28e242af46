//! aarch64 code, read from its instructions: stack frames, as Linux builds without unwind tables; and branches that the
//! assembler resolved, which no relocation tells.

/// The frame of a function: by how much all instructions together that move SP down do so. A function that moves it in one
/// of several branches has less; none has more. `None` if SP moves by what is not a constant.
pub(crate) fn of_instructions(code: &[u8]) -> Option<u64> {
    let words = code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words.map(step).sum()
}

/// How far one instruction moves SP down; 0 for all others.
fn step(word: u32) -> Option<u64> {
    const SP: u32 = 31;
    let (rd, rn) = (word & 0x1f, word >> 5 & 0x1f);
    // STP (pre-index), 64 bits: imm7 counts by 8, imm7 of the Q registers by 16.
    if word & 0xffc0_0000 == 0xa980_0000 && rn == SP {
        return Some(negative(word >> 15, 7) * 8);
    }
    if word & 0xffc0_0000 == 0xad80_0000 && rn == SP {
        return Some(negative(word >> 15, 7) * 16);
    }
    // STR (immediate, pre-index), 64 bits: imm9 in bytes.
    if word & 0xffe0_0c00 == 0xf800_0c00 && rn == SP {
        return Some(negative(word >> 12, 9));
    }
    // SUB (immediate) to SP, from SP or from a frame pointer that was set from it.
    if word & 0xff80_0000 == 0xd100_0000 && rd == SP {
        let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
        return if rn == SP { Some(u64::from(word >> 10 & 0xfff) << shift) } else { None };
    }
    // ADD and SUB (extended register) to SP: what is not a constant.
    if word & 0xbfe0_0000 == 0x8b20_0000 && rd == SP {
        return None;
    }
    Some(0)
}

/// Where B and BL lead, as offsets in the section that the code is in; `start` is its own. Those with a relocation, whose
/// field is 0, lead to themselves.
pub(crate) fn branches(code: &[u8], start: u64) -> impl Iterator<Item = u64> {
    code.chunks_exact(4).zip((start..).step_by(4)).filter_map(|(word, at)| {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let is_branch = word & 0x7c00_0000 == 0x1400_0000;
        // imm26, signed, counts by 4.
        let distance = i64::from((word << 6) as i32 >> 6) * 4;
        at.checked_add_signed(distance).filter(|to| is_branch && *to != at)
    })
}

/// What a signed field takes away; 0 if it adds.
fn negative(field: u32, bits: u32) -> u64 {
    let sign = 1_u64 << (bits - 1);
    let value = u64::from(field) & ((1 << bits) - 1);
    if value & sign == 0 { 0 } else { (sign << 1) - value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(words: &[u32]) -> Option<u64> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        of_instructions(&code)
    }

    /// DDI 0487, C6.2: STP, STR, SUB; as rustc 1.95 writes its prologues.
    #[test]
    fn a_frame_is_what_the_instructions_take_from_sp() {
        // paciasp; sub sp, sp, #0xc0; stp x29, x30, [sp, #96]
        assert_eq!(frame(&[0xd503_233f, 0xd103_03ff, 0xa906_7bfd]), Some(0xc0));
        // stp x29, x30, [sp, #-48]!; str x19, [sp, #-16]!; stp q8, q9, [sp, #-32]!
        assert_eq!(frame(&[0xa9bd_7bfd, 0xf81f_0ff3, 0xadbf_27e8]), Some(48 + 16 + 32));
        // sub sp, sp, #1, lsl #12; ldp x29, x30, [sp], #48; add sp, sp, #0x20; mov x29, sp
        assert_eq!(frame(&[0xd140_07ff, 0xa8c3_7bfd, 0x9100_83ff, 0x9100_03fd]), Some(4096));
    }

    /// DDI 0487, C6.2: B, BL.
    #[test]
    fn branches_lead_where_their_distance_says() {
        // nop; bl . + 8; b . - 8; bl . (a relocation is to fill it in)
        let words = [0xd503_201f_u32, 0x9400_0002, 0x17ff_fffe, 0x9400_0000];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(branches(&code, 0x100).collect::<Vec<_>>(), [0x10c, 0x100]);
    }

    #[test]
    fn a_frame_that_is_not_constant_has_no_size() {
        // sub sp, sp, x1, uxtx; sub sp, x29, #16
        assert_eq!(frame(&[0xcb21_63ff]), None);
        assert_eq!(frame(&[0xd100_43bf]), None);
    }
}
