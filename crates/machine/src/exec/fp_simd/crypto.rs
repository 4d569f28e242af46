//! FEAT_AES, FEAT_SHA1, FEAT_SHA256. Source: FIPS 197, FIPS 180-4, and the pseudocode of the instructions.

use super::lanes::Lane as _;
use crate::cpu::Cpu;
use crate::decode::Insn;
use crate::decode::fp_simd::op::CryptoOp as C;

/// One instruction.
#[inline(never)]
pub(in super::super) fn crypto(cpu: &mut Cpu, insn: &Insn, op: C) -> Option<()> {
    cpu.check_fp()?;
    let (d, n, m) = (cpu.vector(insn.rd), cpu.vector(insn.rn), cpu.vector(insn.rm));
    let result = match op {
        C::Aese => substitute(shift_rows(d ^ n, ROWS), &SBOX),
        C::Aesd => substitute(shift_rows(d ^ n, INVERSE_ROWS), &INVERSE_SBOX),
        C::Aesmc => mix_columns(n, [2, 3, 1, 1]),
        C::Aesimc => mix_columns(n, [14, 11, 13, 9]),
        C::Sha1c => sha1(d, n as u32, m, |x, y, z| (x & y) | (!x & z)),
        C::Sha1p => sha1(d, n as u32, m, |x, y, z| x ^ y ^ z),
        C::Sha1m => sha1(d, n as u32, m, |x, y, z| (x & y) | (x & z) | (y & z)),
        C::Sha1su0 => (d >> 64 | n << 64) ^ d ^ m,
        C::Sha1h => (n as u32).rotate_left(30).into(),
        C::Sha1su1 => {
            let t = u32::split(d ^ n >> 32);
            let [a, b, c, e] = t.map(|word| word.rotate_left(1));
            u32::join(&[a, b, c, e ^ t[0].rotate_left(2)])
        }
        C::Sha256h => sha256(d, n, m).0,
        C::Sha256h2 => sha256(n, d, m).1,
        C::Sha256su0 => {
            let (x, y) = (u32::split(d), u32::split(d >> 32 | n << 96));
            let sigma = |w: u32| w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3;
            u32::join(&std::array::from_fn(|i| x[i].wrapping_add(sigma(y[i]))))
        }
        C::Sha256su1 => schedule(d, n, m),
    };
    cpu.set_vector(insn.rd, result);
    Some(())
}

/// Where each byte of the state comes from in ShiftRows and in its inverse.
const ROWS: [usize; 16] = [0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11];
const INVERSE_ROWS: [usize; 16] = [0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3];

const SBOX: [u8; 256] = sbox();
const INVERSE_SBOX: [u8; 256] = inverse(&SBOX);

/// A product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    sum
}

/// Every byte times 0 to 15.
static PRODUCTS: [[u8; 256]; 16] = products();

const fn products() -> [[u8; 256]; 16] {
    let mut table = [[0; 256]; 16];
    let mut a = 0;
    while a < 16 {
        let mut b = 0;
        while b < 256 {
            table[a][b] = product(b as u8, a as u8);
            b += 1;
        }
        a += 1;
    }
    table
}

/// The inverse of each byte, then the affine transformation.
const fn sbox() -> [u8; 256] {
    let mut table = [0x63; 256];
    let mut a = 1;
    while a < 256 {
        let mut b = 1;
        while product(a as u8, b) != 1 {
            b += 1;
        }
        table[a] = 0x63 ^ b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4);
        a += 1;
    }
    table
}

const fn inverse(table: &[u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut a = 0;
    while a < 256 {
        inverse[table[a] as usize] = a as u8;
        a += 1;
    }
    inverse
}

fn shift_rows(state: u128, from: [usize; 16]) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(from.map(|i| bytes[i & 15]))
}

fn substitute(state: u128, table: &[u8; 256]) -> u128 {
    u128::from_le_bytes(state.to_le_bytes().map(|byte| table[usize::from(byte)]))
}

/// Each column times the circulant matrix whose first row is given.
fn mix_columns(state: u128, row: [usize; 4]) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (column, position) = (i & !3, i & 3);
        (0..4).fold(0, |sum, j| {
            let products = &PRODUCTS[row[(j + 4 - position) & 3] & 15];
            sum ^ products[usize::from(bytes[column + j])]
        })
    }))
}

/// Four rounds of SHA-1.
fn sha1(hash: u128, mut e: u32, schedule: u128, f: impl Fn(u32, u32, u32) -> u32) -> u128 {
    let [mut a, mut b, mut c, mut d] = u32::split(hash);
    for w in u32::split(schedule) {
        let t = e.wrapping_add(a.rotate_left(5)).wrapping_add(f(b, c, d)).wrapping_add(w);
        (a, b, c, d, e) = (t, a, b.rotate_left(30), c, d);
    }
    u32::join(&[a, b, c, d])
}

/// Four rounds of SHA-256: both halves of the hash.
fn sha256(first: u128, second: u128, schedule: u128) -> (u128, u128) {
    let ([mut a, mut b, mut c, mut d], [mut e, mut f, mut g, mut h]) =
        (u32::split(first), u32::split(second));
    for w in u32::split(schedule) {
        let choice = (e & f) ^ (!e & g);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = h.wrapping_add(sigma1).wrapping_add(choice).wrapping_add(w);
        (h, g, f, e) = (g, f, e, d.wrapping_add(t));
        (d, c, b, a) = (c, b, a, t.wrapping_add(sigma0).wrapping_add(majority));
    }
    (u32::join(&[a, b, c, d]), u32::join(&[e, f, g, h]))
}

/// SHA256SU1.
fn schedule(d: u128, n: u128, m: u128) -> u128 {
    let (old, middle) = (u32::split(d), u32::split(n >> 32 | m << 96));
    let sigma = |w: u32| w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10;
    let last = u32::split(m);
    let one = |i: usize, w: u32| sigma(w).wrapping_add(old[i]).wrapping_add(middle[i]);
    let (first, second) = (one(0, last[2]), one(1, last[3]));
    u32::join(&[first, second, one(2, first), one(3, second)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_fips_197() {
        assert_eq!((SBOX[0], SBOX[1], SBOX[0x53], SBOX[0xff]), (0x63, 0x7c, 0xed, 0x16));
        assert_eq!((INVERSE_SBOX[0x63], INVERSE_SBOX[0]), (0, 0x52));
        assert_eq!(product(0x57, 0x83), 0xc1);
    }
}
