//! A register as elements.

use crate::decode::fp_simd::op::Shape;

/// An element type: a register holds an array of it, the first in the lowest bits.
pub(super) trait Lane: Copy {
    type Array: AsRef<[Self]> + AsMut<[Self]>;

    fn split(register: u128) -> Self::Array;
    fn join(lanes: &Self::Array) -> u128;
    /// All ones or all zeros.
    fn all_or_none(set: bool) -> Self;
}

macro_rules! lane {
    ($($type:ty)*) => {$(
        impl Lane for $type {
            type Array = [$type; 16 / size_of::<$type>()];

            #[inline]
            fn split(register: u128) -> Self::Array {
                let bytes = register.to_le_bytes();
                std::array::from_fn(|i| {
                    <$type>::from_le_bytes(std::array::from_fn(|j| bytes[i * size_of::<$type>() + j]))
                })
            }

            #[inline]
            fn join(lanes: &Self::Array) -> u128 {
                let mut bytes = [0; 16];
                for (to, lane) in bytes.chunks_exact_mut(size_of::<$type>()).zip(lanes) {
                    to.copy_from_slice(&lane.to_le_bytes());
                }
                u128::from_le_bytes(bytes)
            }

            #[inline]
            fn all_or_none(set: bool) -> Self {
                if set { !0 } else { 0 }
            }
        }
    )*};
}
lane!(u8 u16 u32 u64 i8 i16 i32 i64);

/// An operation on the elements of two registers.
#[inline]
pub(super) fn zip<T: Lane>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128 {
    let (mut lanes, other) = (T::split(a), T::split(b));
    for (x, y) in lanes.as_mut().iter_mut().zip(other.as_ref()) {
        *x = f(*x, *y);
    }
    T::join(&lanes)
}

/// An operation on the elements of a register.
#[inline]
pub(super) fn map<T: Lane>(a: u128, f: impl Fn(T) -> T) -> u128 {
    let mut lanes = T::split(a);
    for x in lanes.as_mut() {
        *x = f(*x);
    }
    T::join(&lanes)
}

/// Every second element of `low` and then of `high`, from the first or the second on.
fn unzip_lanes<T: Lane>(low: u128, high: u128, odd: bool) -> u128 {
    let (mut lanes, other) = (T::split(low), T::split(high));
    let start = usize::from(odd);
    let half = lanes.as_ref().len() / 2;
    for i in 0..half {
        let from = 2 * i + start;
        if let Some(&value) = lanes.as_ref().get(from) {
            lanes.as_mut()[i] = value;
        }
    }
    for (to, &value) in lanes.as_mut().iter_mut().skip(half).zip(other.as_ref().iter().skip(start).step_by(2))
    {
        *to = value;
    }
    T::join(&lanes)
}

/// The same for elements of 2^`size` bytes in registers of 2^`width` bytes.
pub(super) fn unzip(shape: Shape, low: u128, high: u128, odd: bool) -> u128 {
    let (low, high) = if shape.width == 4 { (low, high) } else { (low & LOW | high << 64, 0) };
    match shape.size {
        0 => unzip_lanes::<u8>(low, high, odd),
        1 => unzip_lanes::<u16>(low, high, odd),
        2 => unzip_lanes::<u32>(low, high, odd),
        // Two elements of 64 bits.
        _ if odd => low >> 64 | high & !LOW,
        _ => low & LOW | high << 64,
    }
}

/// The low half of a register.
pub(super) const LOW: u128 = u64::MAX as u128;

/// Element `index` of 2^`size` bytes.
#[inline]
pub(super) fn element(register: u128, size: u32, index: u32) -> u64 {
    let bits = 8 << size;
    ((register >> ((index * bits) & 127)) as u64) & (u64::MAX >> (64 - bits))
}

/// `register` with element `index` replaced.
#[inline]
pub(super) fn with_element(register: u128, size: u32, index: u32, value: u64) -> u128 {
    let bits = 8 << size;
    let (mask, shift) = (u128::from(u64::MAX >> (64 - bits)), (index * bits) & 127);
    register & !(mask << shift) | (u128::from(value) & mask) << shift
}

/// An element in every place of a register.
pub(super) fn splat(value: u64, size: u32) -> u128 {
    (size..4)
        .fold(u128::from(value) & (u128::MAX >> (128 - (8 << size))), |all, size| all | all << (8 << size))
}

/// An element as a number.
pub(super) fn number(register: u128, size: u32, index: u32, unsigned: bool) -> i128 {
    let value = element(register, size, index);
    let shift = 64 - (8 << size);
    if unsigned { i128::from(value) } else { i128::from((value << shift) as i64 >> shift) }
}

/// An operation on elements as numbers; results are cut to the element.
pub(super) fn numbers(
    shape: Shape,
    unsigned: bool,
    [a, b]: [u128; 2],
    mut f: impl FnMut(i128, i128) -> i128,
) -> u128 {
    (0..shape.count()).fold(0, |result, i| {
        let (x, y) = (number(a, shape.size, i, unsigned), number(b, shape.size, i, unsigned));
        with_element(result, shape.size, i, f(x, y) as u64)
    })
}

/// `zip` with the unsigned (`u`) or signed (`s`) element type of a size.
macro_rules! zip_by_size {
    (u, $size:expr, $a:expr, $b:expr, |$x:ident, $y:ident| $value:expr) => {
        match $size {
            0 => zip::<u8>($a, $b, |$x, $y| $value),
            1 => zip::<u16>($a, $b, |$x, $y| $value),
            2 => zip::<u32>($a, $b, |$x, $y| $value),
            _ => zip::<u64>($a, $b, |$x, $y| $value),
        }
    };
    (s, $size:expr, $a:expr, $b:expr, |$x:ident, $y:ident| $value:expr) => {
        match $size {
            0 => zip::<i8>($a, $b, |$x, $y| $value),
            1 => zip::<i16>($a, $b, |$x, $y| $value),
            2 => zip::<i32>($a, $b, |$x, $y| $value),
            _ => zip::<i64>($a, $b, |$x, $y| $value),
        }
    };
}
pub(super) use zip_by_size;

/// `map` likewise.
macro_rules! map_by_size {
    (u, $size:expr, $a:expr, |$x:ident| $value:expr) => {
        match $size {
            0 => map::<u8>($a, |$x| $value),
            1 => map::<u16>($a, |$x| $value),
            2 => map::<u32>($a, |$x| $value),
            _ => map::<u64>($a, |$x| $value),
        }
    };
    (s, $size:expr, $a:expr, |$x:ident| $value:expr) => {
        match $size {
            0 => map::<i8>($a, |$x| $value),
            1 => map::<i16>($a, |$x| $value),
            2 => map::<i32>($a, |$x| $value),
            _ => map::<i64>($a, |$x| $value),
        }
    };
}
pub(super) use map_by_size;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_in_the_lowest_bits() {
        let register = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100_u128;
        assert_eq!(u16::split(register)[1], 0x0302);
        assert_eq!(u32::join(&u32::split(register)), register);
        assert_eq!((element(register, 2, 3), element(register, 0, 15)), (0x0f0e_0d0c, 0x0f));
        assert_eq!(with_element(register, 3, 1, 7), 0x0000_0000_0000_0007_0706_0504_0302_0100);
        assert_eq!(splat(0xab, 0), 0xabab_abab_abab_abab_abab_abab_abab_abab);
        assert_eq!(splat(5, 3), 0x5_0000_0000_0000_0005);
    }
}
