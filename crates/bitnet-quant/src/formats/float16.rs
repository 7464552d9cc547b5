//! f32 to F16 and BF16, little-endian, rounded to nearest, ties to even.

use half::{bf16, f16};

/// `values [n]` to `2 n` bytes of F16. Beyond 65504 the result is infinite, as in NumPy.
pub fn encode_f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

/// `values [n]` to `2 n` bytes of BF16.
pub fn encode_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
}
