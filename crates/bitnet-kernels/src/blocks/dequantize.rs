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

/// The 6-bit scales and minima of a Q4_K block.
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
