//! The codes of TQ1_0 and PTQ1_0 blocks: base-3 digits, five per byte.
//!
//! 256 weights in `qs[48]` and `qh[4]`, or 128 in `qs[24]` and `qh[2]`. A byte of digits `d0 .. d4` (first most significant) is
//! `ceil(v * 256 / 243)` of `v = 81 d0 + 27 d1 + 9 d2 + 3 d3 + d4`, so that a digit is extracted by a
//! multiplication: digit n is `((q * 3^n mod 256) * 3) >> 8`. Digits of a byte are a stride apart:
//! 32 in the first 32 bytes of `qs`, 16 in the next 16, 4 in `qh` (which holds four digits a byte); 16, 8 and 2 in PTQ1_0.

use crate::codes::gather4;

/// (first byte, bytes, digits a byte) of the three parts.
pub(super) type Parts = [(usize, usize, usize); 3];
pub(super) const TQ1_0: Parts = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];
pub(super) const PTQ1_0: Parts = [(0, 16, 5), (16, 8, 5), (24, 2, 4)];

/// `block [52]` to `codes [64]` in order, or `[26]` to `[32]`.
pub(super) fn unpack(parts: Parts, block: &[u8], codes: &mut [u8]) {
    let mut digits = [0u8; 256];
    let mut at = 0;
    for (first, len, per_byte) in parts {
        let mut power = 1u8;
        for _ in 0..per_byte {
            for (digit, &q) in digits[at..at + len].iter_mut().zip(&block[first..first + len]) {
                *digit = ((u16::from(q.wrapping_mul(power)) * 3) >> 8) as u8;
            }
            at += len;
            power = power.wrapping_mul(3);
        }
    }
    for (four, code) in digits.chunks_exact(4).zip(codes) {
        *code = gather4(u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    }
}

/// `codes [64]` in order to `block [52]`, or `[32]` to `[26]`.
pub(super) fn pack(parts: Parts, codes: &[u8], block: &mut [u8]) {
    let digit = |i: usize| u16::from((codes[i / 4] >> (2 * (i % 4))) & 3);
    let mut at = 0;
    for (first, len, per_byte) in parts {
        for m in 0..len {
            let digits = (0..5).map(|n| if n < per_byte { digit(at + n * len + m) } else { 0 });
            let value = digits.fold(0, |v, d| 3 * v + d);
            block[first + m] = (value * 256).div_ceil(243) as u8;
        }
        at += len * per_byte;
    }
}
