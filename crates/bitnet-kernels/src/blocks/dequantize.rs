//! Blocks to f32, in the order of operations of gguf-py (`gguf.quants.dequantize`), equal to it bit for bit.

use super::BlockType;
use crate::float::half::{bf16_to_f32, f16_to_f32};
use crate::float::simd::inlined;

/// Decodes whole blocks: `bytes` of `kind` to `out`.
///
/// # Panics
/// When `out` is not whole blocks, or `bytes` not as long as `out` needs.
pub fn dequantize_row(kind: BlockType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        kind.row_bytes(out.len()),
        Some(bytes.len()),
        "{} values from {} bytes of {kind}",
        out.len(),
        bytes.len()
    );
    dequantize(kind, bytes, out);
}

/// The body of [`dequantize_row`], to be inlined where wider instructions may be used.
#[inline(always)]
pub(crate) fn dequantize(kind: BlockType, bytes: &[u8], out: &mut [f32]) {
    match kind {
        BlockType::F32 => blocks(bytes, out, inlined!(|b: &[u8; 4], o: &mut [f32; 1]| o[0] = f32::from_le_bytes(*b))),
        BlockType::F16 => {
            blocks(bytes, out, inlined!(|b: &[u8; 2], o: &mut [f32; 1]| o[0] = f16_to_f32(u16::from_le_bytes(*b))))
        }
        BlockType::BF16 => {
            blocks(bytes, out, inlined!(|b: &[u8; 2], o: &mut [f32; 1]| o[0] = bf16_to_f32(u16::from_le_bytes(*b))))
        }
        BlockType::Q8_0 => blocks(bytes, out, q8_0),
        BlockType::Q6_K => blocks(bytes, out, q6_k),
        BlockType::Q4_0 => blocks(bytes, out, q4_0),
        BlockType::Q4_K => blocks(bytes, out, q4_k),
        BlockType::Q4_1 => blocks(bytes, out, q4_1),
        BlockType::Q5_0 => blocks(bytes, out, q5_0),
        BlockType::Q5_1 => blocks(bytes, out, q5_1),
        BlockType::Q2_K => blocks(bytes, out, q2_k),
        BlockType::Q3_K => blocks(bytes, out, q3_k),
        BlockType::Q5_K => blocks(bytes, out, q5_k),
        BlockType::IQ4_NL => blocks(bytes, out, iq4_nl),
        BlockType::MXFP4 => blocks(bytes, out, mxfp4),
    }
}

#[inline(always)]
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    one: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (bytes, _) = bytes.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<LEN>();
    for (b, o) in bytes.iter().zip(out) {
        one(b, o);
    }
}

/// The f16 at `bytes[at..at + 2]`.
#[inline(always)]
pub(crate) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

#[inline(always)]
fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for i in 0..32 {
        out[i] = b[2 + i] as i8 as f32 * d;
    }
}

#[inline(always)]
fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for i in 0..16 {
        out[i] = d * ((b[2 + i] & 15) as i32 - 8) as f32;
        out[16 + i] = d * ((b[2 + i] >> 4) as i32 - 8) as f32;
    }
}

#[inline(always)]
fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at(b, 208);
    for half in 0..2 {
        let low = &b[64 * half..][..64];
        let high = &b[128 + 32 * half..][..32];
        for part in 0..4 {
            for i in 0..32 {
                // Weights 0..64 of a half are the low nibbles of its 64 bytes, 64..128 the high ones.
                let nibble = (low[32 * (part & 1) + i] >> (4 * (part >> 1))) & 15;
                let top = (high[i] >> (2 * part)) & 3;
                let q = (nibble | top << 4) as i32 - 32;
                let at = 128 * half + 32 * part + i;
                let scale = d * b[192 + at / 16] as i8 as f32;
                out[at] = scale * q as f32;
            }
        }
    }
}

#[inline(always)]
fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
    let (scales, mins) = q4_k_scales(b[4..16].try_into().expect("12 bytes"));
    for sub in 0..8 {
        let scale = d * scales[sub] as f32;
        let min = dmin * mins[sub] as f32;
        for i in 0..32 {
            // Two sub-blocks share 32 bytes: the even one has the low nibbles.
            let q = (b[16 + 32 * (sub / 2) + i] >> (4 * (sub & 1))) & 15;
            out[32 * sub + i] = scale * q as f32 - min;
        }
    }
}

/// The code of weight `i` of 32 in 16 bytes: the low nibbles come first.
#[inline(always)]
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i % 16] >> (4 * (i / 16)) & 15
}

/// The 5-bit code of weight `i` of 32: the top bits in 4 bytes, then the nibbles.
#[inline(always)]
fn five_bits(bytes: &[u8], i: usize) -> u8 {
    let top = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    nibble(&bytes[4..], i) | ((top >> i & 1) as u8) << 4
}

#[inline(always)]
fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(b, 0), f16_at(b, 2));
    for i in 0..32 {
        out[i] = d * nibble(&b[4..], i) as f32 + min;
    }
}

#[inline(always)]
fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for i in 0..32 {
        out[i] = d * (five_bits(&b[2..], i) as i32 - 16) as f32;
    }
}

#[inline(always)]
fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(b, 0), f16_at(b, 2));
    for i in 0..32 {
        out[i] = d * five_bits(&b[4..], i) as f32 + min;
    }
}

#[inline(always)]
fn q2_k(b: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
    for sub in 0..16 {
        let (scale, min) = (d * (b[sub] & 15) as f32, dmin * (b[sub] >> 4) as f32);
        for i in 16 * sub..16 * sub + 16 {
            out[i] = scale * two_bits(&b[16..], i) as f32 - min;
        }
    }
}

/// The two bits of weight `i` of 256 in 64 bytes: planes of 32 in each half.
#[inline(always)]
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32)) & 3
}

#[inline(always)]
fn q3_k(b: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(b, 108);
    for sub in 0..16 {
        let (low, high) = (b[96 + sub % 8] >> (4 * (sub / 8)) & 15, b[104 + sub % 4] >> (2 * (sub / 4)) & 3);
        let scale = d * ((low | high << 4) as i32 - 32) as f32;
        for i in 16 * sub..16 * sub + 16 {
            let top = b[i % 32] >> (i / 32) & 1;
            out[i] = scale * ((two_bits(&b[32..], i) | top << 2) as i32 - 4) as f32;
        }
    }
}

#[inline(always)]
fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
    let (scales, mins) = q4_k_scales(b[4..16].try_into().expect("12 bytes"));
    for sub in 0..8 {
        let scale = d * scales[sub] as f32;
        let min = dmin * mins[sub] as f32;
        for i in 0..32 {
            let low = b[48 + 32 * (sub / 2) + i] >> (4 * (sub & 1)) & 15;
            out[32 * sub + i] = scale * (low | (b[16 + i] >> sub & 1) << 4) as f32 - min;
        }
    }
}

#[inline(always)]
fn iq4_nl(b: &[u8; 18], out: &mut [f32; 32]) {
    const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let d = f16_at(b, 0);
    for i in 0..32 {
        out[i] = d * VALUES[nibble(&b[2..], i) as usize] as f32;
    }
}

#[inline(always)]
fn mxfp4(b: &[u8; 17], out: &mut [f32; 32]) {
    /// Twice the values, so that they are integers.
    const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    // 2^(e - 128), which is subnormal for the two smallest exponents.
    let d = f32::from_bits(if b[0] < 2 { 0x0020_0000 << b[0] } else { (b[0] as u32 - 1) << 23 });
    for i in 0..32 {
        out[i] = d * VALUES[nibble(&b[1..], i) as usize] as f32;
    }
}

/// The 6-bit scales and minima of a Q4_K or Q5_K block.
///
/// Of bytes `s m x` (4 each), the first four scales and minima are the low 6 bits of `s` and `m`;
/// the last four have their low 4 bits in the nibbles of `x` and their top 2 in the top of `s` and `m`.
#[inline(always)]
pub(crate) fn q4_k_scales(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let (s, m, x) = (word(0), word(4), word(8));
    let join = |low: u32, high: u32| (low as u64 | (high as u64) << 32).to_le_bytes();
    (
        join(s & 0x3f3f_3f3f, x & 0x0f0f_0f0f | s >> 2 & 0x3030_3030),
        join(m & 0x3f3f_3f3f, x >> 4 & 0x0f0f_0f0f | m >> 2 & 0x3030_3030),
    )
}
