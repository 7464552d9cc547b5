//! Blocks of bytes that each hold four weights, a quarter of the block apart.

use crate::codes::{gather4, spread4};

/// Position of the first quarter of the block.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum First {
    /// Bits 6 and 7 (I2_S).
    High,
    /// Bits 0 and 1 (TQ2_0).
    Low,
}

fn shift(first: First, quarter: usize) -> usize {
    match first {
        First::High => 6 - 2 * quarter,
        First::Low => 2 * quarter,
    }
}

/// `block [L]` planes to `codes [L]` in order; L is 16 or 32 bytes.
pub(super) fn unpack(block: &[u8], first: First, codes: &mut [u8]) {
    for (quarter, out) in codes.chunks_exact_mut(block.len() / 4).enumerate() {
        for (four, out) in block.chunks_exact(4).zip(out) {
            let x = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            *out = gather4((x >> shift(first, quarter)) & 0x0303_0303);
        }
    }
}

/// `codes [L]` in order to `block [L]` planes; `block` must be zero.
pub(super) fn pack(codes: &[u8], first: First, block: &mut [u8]) {
    for (quarter, codes) in codes.chunks_exact(block.len() / 4).enumerate() {
        for (&c, four) in codes.iter().zip(block.chunks_exact_mut(4)) {
            let x = spread4(c) << shift(first, quarter);
            for (byte, add) in four.iter_mut().zip(x.to_le_bytes()) {
                *byte |= add;
            }
        }
    }
}
