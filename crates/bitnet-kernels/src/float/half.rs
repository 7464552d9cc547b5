//! 16-bit floats as their bits.

/// IEEE half to single precision: exact.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = (bits as u32 & 0x7fff) << 13;
    // As a single the exponent is 112 too small; the product corrects it, and normalizes subnormals.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let infinite = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | infinite | sign)
}

/// Single to IEEE half precision, to nearest, ties to even.
#[inline]
pub fn f32_to_f16(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

/// Single to bfloat16, to nearest, ties to even.
#[inline]
pub fn f32_to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

/// bfloat16 to single precision: exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let ours = f16_to_f32(bits);
            assert!(ours == expected || ours.is_nan() && expected.is_nan(), "{bits:#x}: {ours} {expected}");
            if !ours.is_nan() {
                assert_eq!(ours.is_sign_negative(), expected.is_sign_negative());
                assert_eq!(f32_to_f16(ours), bits);
            }
        }
    }
}
