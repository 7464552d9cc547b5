//! Encoding and decoding are inverse, and what does not fit is refused.

use bitnet_kernels::blocks::{BlockType, dequantize_row};
use bitnet_quant::formats::{
    Q2_0_G64, Q2_0_G128, ScaledFormat, TQ1_0, TQ2_0, f16_exact, hf, i2_s, i2_s::I2sOrder, q6_k, q8_0,
};
use bitnet_quant::{QuantError, TernaryCodes, TernaryScales, ternarize};
use half::f16;
use proptest::prelude::*;

/// A ternary matrix whose rows are a multiple of `block`.
fn matrix(block: usize) -> impl Strategy<Value = TernaryCodes> {
    (1usize..5, 1usize..4).prop_flat_map(move |(rows, blocks)| {
        let cols = blocks * block;
        prop::collection::vec(-1i8..=1, rows * cols)
            .prop_map(move |w| TernaryCodes::from_weights(rows, cols, &w).unwrap())
    })
}

fn scaled_round_trip(format: &ScaledFormat, codes: &TernaryCodes, scale: f16) {
    let data = format.encode(codes, &scale.to_f32().into()).unwrap();
    assert_eq!(data.len(), format.byte_size(codes.rows(), codes.cols()).unwrap());
    let decoded = format.decode(&data, codes.rows(), codes.cols()).unwrap();
    assert_eq!(&decoded.codes, codes);
    if codes.count_nonzero() > 0 {
        assert_eq!(decoded.ternary_scales().unwrap(), scale.to_f32().into());
    }
    let values = format.dequantize(&data, codes.rows(), codes.cols()).unwrap();
    let expected = codes.to_weights().into_iter().map(|w| f32::from(w) * scale.to_f32());
    assert!(values.into_iter().eq(expected));
}

proptest! {
    #[test]
    fn block_types(codes in matrix(256), scale in 1e-3f32..100.0) {
        let scale = f16::from_f32(scale);
        for format in [&TQ1_0, &TQ2_0, &Q2_0_G64, &Q2_0_G128] {
            scaled_round_trip(format, &codes, scale);
        }
    }

    #[test]
    fn i2_s_both_orders(codes in matrix(128), scale in -10f32..10.0) {
        for order in [I2sOrder::X86, I2sOrder::Arm] {
            let data = i2_s::encode(&codes, scale, order).unwrap();
            let back = i2_s::decode(&data, codes.rows(), codes.cols(), order).unwrap();
            prop_assert_eq!(back, (codes.clone(), scale));
        }
    }

    #[test]
    fn hf_packed_any_shape(rows in 1usize..14, cols in 1usize..14, seed: u64) {
        let w: Vec<i8> = (0..rows * cols).map(|i| ((seed >> (i % 61)) % 3) as i8 - 1).collect();
        let codes = TernaryCodes::from_weights(rows, cols, &w).unwrap();
        prop_assert_eq!(hf::decode(&hf::encode(&codes), rows, cols).unwrap(), codes);
    }

    #[test]
    fn exact_ternary_undoes_dequantization(codes in matrix(7), scale in 1e-3f32..100.0) {
        let values: Vec<f32> = codes.to_weights().iter().map(|&w| f32::from(w) * scale).collect();
        let (back, s) = ternarize::exact(&values, codes.rows(), codes.cols()).unwrap().unwrap();
        prop_assert_eq!(&back, &codes);
        prop_assert!(s == scale || codes.count_nonzero() == 0);
    }

    #[test]
    fn decoders_never_panic(data in prop::collection::vec(any::<u8>(), 0..300), rows in 0usize..9, cols in 0usize..300) {
        for format in [&TQ1_0, &TQ2_0, &Q2_0_G64, &Q2_0_G128] {
            let _ = format.decode(&data, rows, cols);
            let _ = format.dequantize(&data, rows, cols);
        }
        let _ = i2_s::decode(&data, rows, cols, I2sOrder::X86);
        let _ = i2_s::decode(&data, rows, cols, I2sOrder::Arm);
        let _ = hf::decode(&data, rows, cols);
    }
}

#[test]
fn rows_that_do_not_fit_name_a_type_that_does() {
    let codes = TernaryCodes::from_weights(1, 384, &[1; 384]).unwrap();
    let err = TQ1_0.encode(&codes, &1f32.into()).unwrap_err().to_string();
    assert_eq!(
        err,
        "TQ1_0 stores rows in blocks of 256 weights and 384 is not a multiple; \
         a type that fits: I2_S, HF packed"
    );
    let err = q6_k::encode(&[0.0; 96], 1, 96).unwrap_err().to_string();
    assert!(err.ends_with("a type that fits: Q8_0, F16"), "{err}");
    let codes = TernaryCodes::from_weights(2, 64, &[1; 128]).unwrap();
    assert!(i2_s::encode(&codes, 1.0, I2sOrder::X86).is_err());
}

#[test]
fn scales_are_told_apart() {
    let codes = TernaryCodes::from_weights(1, 512, &[1; 512]).unwrap();
    let mut data = TQ2_0.encode(&codes, &1f32.into()).unwrap();
    data[64..66].copy_from_slice(&f16::from_f32(2.0).to_le_bytes());
    let decoded = TQ2_0.decode(&data, 1, 512).unwrap();
    let scales = decoded.ternary_scales().unwrap();
    assert_eq!((scales.group(), scales.values()), (Some(256), &[2., 1.][..]));
    assert_eq!(TQ2_0.encode(&codes, &scales).unwrap(), data);
    let finer = TernaryScales::groups(vec![1., 1., 1., 3.], 128, &codes).unwrap();
    assert!(matches!(TQ2_0.encode(&codes, &finer), Err(QuantError::BlockScales { block: 256, .. })));
    let between = TernaryScales::from(1. + f32::EPSILON);
    assert!(matches!(TQ2_0.encode(&codes, &between), Err(QuantError::ScaleNotF16 { .. })));
    data[64..66].copy_from_slice(&f16::NAN.to_le_bytes());
    assert!(matches!(TQ2_0.decode(&data, 1, 512), Err(QuantError::ScaleNotFinite { index: 0, .. })));
    assert_eq!(f16_exact(0.0625), Some(f16::from_f32(0.0625)));
    assert_eq!(f16_exact(0.1), None);
    assert_eq!(f16_exact(1e9), None);
}

#[test]
fn hostile_shapes_are_errors() {
    for (rows, cols) in [(usize::MAX, 256), (usize::MAX / 256, 1 << 20), (1 << 40, 1 << 20)] {
        assert!(TQ1_0.decode(&[], rows, cols).is_err());
        assert!(i2_s::decode(&[], rows, cols, I2sOrder::X86).is_err());
        assert!(hf::decode(&[], rows, cols).is_err());
        assert!(q8_0::encode(&[], rows, cols).is_err());
    }
}

/// Q6_K as dequantized by bitnet-kernels, which is tested against gguf-py there.
fn q6_k_values(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let bytes = q6_k::encode(values, rows, cols).unwrap();
    assert_eq!(bytes.len(), values.len() / 256 * 210);
    let mut out = vec![0.0; values.len()];
    dequantize_row(BlockType::Q6_K, &bytes, &mut out);
    out
}

proptest! {
    /// Half a step for rounding, up to one more at the end of the range (31 against -32), and what
    /// rounding a group's scale to 8 bits moves its largest value by.
    #[test]
    fn q6_k_error_is_bounded(values in prop::collection::vec(-1f32..1.0, 512), small in 1e-4f32..1.0) {
        let scaled: Vec<f32> = values.iter().enumerate().map(|(i, v)| if i % 64 < 16 { v * small } else { *v }).collect();
        let out = q6_k_values(&scaled, 2, 256);
        let largest = |v: &[f32]| v.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (block, out) in scaled.chunks(256).zip(out.chunks(256)) {
            let scale_step = largest(block) / 32.0 / 127.0;
            for (group, out) in block.chunks(16).zip(out.chunks(16)) {
                let bound = 1.5 * largest(group) / 31.0 + 16.5 * scale_step;
                for (x, y) in group.iter().zip(out) {
                    prop_assert!((x - y).abs() <= bound, "{} {} {}", x, y, bound);
                }
            }
        }
    }
}

#[test]
fn q6_k_keeps_what_it_can() {
    // Multiples of one step in its whole range: exact. Zeros: zeros.
    let steps: Vec<f32> = (0..256).map(|i| if i % 16 == 0 { -32.0 } else { ((i * 7) % 64) as f32 - 32.0 }).collect();
    assert_eq!(q6_k_values(&steps, 1, 256), steps);
    assert_eq!(q6_k_values(&[0.0; 256], 1, 256), [0.0; 256]);
    // A sum of uniform values, near a normal distribution: the error is 1 % of the values, in squares.
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..256 * 64).map(|_| (0..6).map(|_| uniform()).sum()).collect();
    let out = q6_k_values(&values, 64, 256);
    let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>();
    let error = squares(&mut values.iter().zip(&out).map(|(x, y)| x - y)) / squares(&mut values.iter().copied());
    assert!(error.sqrt() < 0.018, "{}", error.sqrt());
    assert!(q6_k::encode(&[f32::NAN; 256], 1, 256).is_err());
    assert!(q8_0::encode(&[f32::INFINITY; 32], 1, 32).is_err());
}
