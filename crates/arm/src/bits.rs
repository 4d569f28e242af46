//! Bit fields, written as the manual writes them: `[msb:lsb]`.

/// The field `[msb:lsb]` of `value`, right-aligned.
///
/// The positions come from tables. Wrapping arithmetic leaves no path to a panic where overflow checks are
/// on, as in Linux.
pub(crate) const fn field(value: u64, msb: u32, lsb: u32) -> u64 {
    value.wrapping_shr(lsb) & mask(msb.wrapping_sub(lsb).wrapping_add(1))
}

/// Returns true if bit `n` of `value` is set.
pub(crate) const fn bit(value: u64, n: u32) -> bool {
    (value >> n) & 1 != 0
}

/// A word with bit `n` set if `on`.
pub(crate) const fn set_bit(n: u32, on: bool) -> u64 {
    (on as u64) << n
}

/// `width` ones.
const fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { !(u64::MAX << width) }
}
