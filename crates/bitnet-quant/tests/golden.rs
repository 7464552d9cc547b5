//! Every format against bytes and values of gguf-py and transformers (`data/make.py`).

use bitnet_quant::formats::{
    IQ1_BN, IQ2_BN, PTQ1_0, Q1_0, Q2_0_G64, Q2_0_G128, STQ1_0, ScaledCodes, ScaledFormat, TQ1_0, TQ2_0, float16, hf,
    i2_s, i2_s::I2sOrder, q8_0,
};
use bitnet_quant::{QuantError, TernaryCodes, ternarize};
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("data/golden.safetensors");

fn bytes(name: &str) -> Vec<u8> {
    SafeTensors::deserialize(GOLDEN).unwrap().tensor(name).unwrap().data().to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Equality of bits: 0 and -0 differ.
fn assert_same(ours: &[f32], golden: &str) {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(ours), bits(&floats(golden)), "{golden}");
}

fn weights() -> TernaryCodes {
    let w: Vec<i8> = bytes("weights").into_iter().map(|b| b as i8).collect();
    TernaryCodes::from_weights(5, 512, &w).unwrap()
}

fn check_scaled(format: &ScaledFormat, name: &str) {
    let data = bytes(name);
    assert_eq!(format.encode(&weights(), &0.0625.into()).unwrap().len(), data.len());
    let decoded = format.decode(&data, 5, 512).unwrap();
    assert_eq!(decoded.codes, weights(), "{name}");
    assert_eq!(decoded.ternary_scales().unwrap(), 0.0625.into(), "{name}");
}

#[test]
fn tq_types_equal_gguf_py() {
    for (format, name) in [(&TQ1_0, "tq1_0"), (&TQ2_0, "tq2_0")] {
        check_scaled(format, name);
        let encoded = format.encode(&weights(), &0.0625.into()).unwrap();
        assert_eq!(encoded, bytes(name), "{name}");
        assert_same(&format.dequantize(&encoded, 5, 512).unwrap(), &format!("{name}.values"));
        let any = bytes(&format!("{name}.any"));
        assert_same(&format.dequantize(&any, 8, 256).unwrap(), &format!("{name}.any.values"));
    }
}

#[test]
fn code_three_is_reported() {
    assert!(matches!(TQ2_0.decode(&bytes("tq2_0.any"), 8, 256), Err(QuantError::NotTernary { .. })));
    let any = bytes("q2_0.any");
    assert!(matches!(Q2_0_G64.decode(&any, 2, 128), Err(QuantError::NotTernary { .. })));
    assert_same(&Q2_0_G64.dequantize(&any, 2, 128).unwrap(), "q2_0.any.values");
}

#[test]
fn q2_0_equals_its_description() {
    check_scaled(&Q2_0_G64, "q2_0.64");
    check_scaled(&Q2_0_G128, "q2_0.128");
}

/// Bytes of one block that are not named are 0x80 in base 3, else 0; weights that are not named are `rest`.
fn check_block(format: &ScaledFormat, fill: u8, named: &[(usize, u8)], values: &[(usize, f32)], rest: f32) {
    let mut block = vec![fill; format.bytes];
    named.iter().for_each(|&(at, byte)| block[at] = byte);
    let mut expected = vec![rest; format.block];
    values.iter().for_each(|&(at, value)| expected[at] = value);
    assert_eq!(format.dequantize(&block, 1, format.block).unwrap(), expected, "{}", format.name);
}

#[test]
fn one_bit_and_prism_types_equal_their_descriptions() {
    let half = [(0, 0x00), (1, 0x38)];
    let bits = [(0, 0.5), (2, 0.5), (15, 0.5)];
    check_block(&Q1_0, 0, &[half[0], half[1], (2, 0x05), (3, 0x80)], &bits, -0.5);
    let twos = [(0, -0.5), (1, 0.0), (2, 0.5), (3, 1.0)];
    for format in [&Q2_0_G64, &Q2_0_G128] {
        check_block(format, 0, &[half[0], half[1], (2, 0xE4)], &twos, -0.5);
    }
    // Five zeros are 0x80, four 0x7F; the digits of a byte are 16, 8 or 2 apart.
    let threes = [(26, 0x00), (27, 0x38), (0, 0xB9), (16, 0xD5), (24, 0x2A), (25, 0x7F)];
    check_block(&PTQ1_0, 0x80, &threes, &[(0, 0.5), (16, -0.5), (80, 0.5), (120, -0.5)], 0.0);

    let data = PTQ1_0.encode(&weights(), &0.0625.into()).unwrap();
    let decoded = PTQ1_0.decode(&data, 5, 512).unwrap();
    assert_eq!((&decoded.codes, decoded.ternary_scales().unwrap()), (&weights(), 0.0625.into()));
    assert!(matches!(Q1_0.encode(&weights(), &1f32.into()), Err(QuantError::NotHeld { .. })));
    let signs: Vec<i8> = weights().to_weights().iter().map(|w| if *w < 0 { -1 } else { 1 }).collect();
    let signs = TernaryCodes::from_weights(5, 512, &signs).unwrap();
    assert_eq!(Q1_0.decode(&Q1_0.encode(&signs, &1f32.into()).unwrap(), 5, 512).unwrap().codes, signs);
}

/// Nibbles and signs of groups whose weights are 16 apart.
#[test]
fn stq1_0_equals_its_description() {
    // d = 1; nibble 6: zero at place 1, the third of the others negative; nibble 1: zero first, the second negative.
    let one = [(40, 0x00), (41, 0x3C)];
    let mut values: Vec<(usize, f32)> =
        vec![(0, 1.), (16, 0.), (32, 1.), (48, -1.), (1, 0.), (17, 1.), (33, -1.), (49, 1.)];
    // Nibble 0 of all other groups: a zero, then +.
    values.extend((2..64).map(|g| (g / 16 * 64 + g % 16, 0.)));
    check_block(&STQ1_0, 0, &[one[0], one[1], (0, 0x16)], &values, 1.);
    // The sign negates group 0 alone.
    for (at, value) in [(0, -1.), (32, -1.), (48, 1.)] {
        values.iter_mut().find(|v| v.0 == at).unwrap().1 = value;
    }
    check_block(&STQ1_0, 0, &[one[0], one[1], (0, 0x16), (32, 1)], &values, 1.);

    // Every nibble and sign is what it is encoded to.
    let mut data: Vec<u8> = (0..42u8).map(|i| i.wrapping_mul(89).wrapping_add(7)).collect();
    data[40..].copy_from_slice(&[0x00, 0x38]);
    let decoded = STQ1_0.decode(&data, 1, 256).unwrap();
    assert_eq!(STQ1_0.encode(&decoded.codes, &0.5.into()).unwrap(), data);
    assert_eq!((0..256).filter(|i| decoded.codes.row(0)[i / 4] >> (i % 4 * 2) & 3 == 1).count(), 64);
    assert!(matches!(STQ1_0.encode(&weights(), &1f32.into()), Err(QuantError::NotHeld { .. })));
}

/// A block of IQ1_BN by its description: digits of 15 weights in three bytes, of the sixteenth in the last.
fn iq1_bn_block(weights: &[i8; 64]) -> Vec<u8> {
    let byte = |digits: &[i8]| {
        let value: u32 = digits.iter().zip([1, 3, 9, 27, 81]).map(|(&w, power)| (w + 1) as u32 * power).sum();
        (value * 256).div_ceil(243) as u8
    };
    let fives = weights.chunks(16).flat_map(|sixteen| sixteen[..15].chunks(5));
    let last: Vec<i8> = weights.chunks(16).map(|sixteen| sixteen[15]).collect();
    fives.map(byte).chain([byte(&last)]).collect()
}

#[test]
fn types_with_a_scale_for_each_row_equal_their_descriptions() {
    let values = |decoded: &ScaledCodes| -> Vec<f32> {
        let scales = decoded.ternary_scales().unwrap();
        let value = |(i, w): (usize, i8)| f32::from(w) * scales.at(i / 64, i % 64, 64);
        decoded.codes.to_weights().into_iter().enumerate().map(value).collect()
    };
    // d = 0.5 and 0.25; zeros but for the first weight of row 0.
    let mut rows =
        [[0x00, 0x38].to_vec(), vec![0x80; 12], vec![0x2B], [0x00, 0x34].to_vec(), vec![0x80; 12], vec![0x2B]];
    rows[1][0] = 0x81;
    let mut expected = vec![0.; 128];
    expected[0] = 0.5;
    assert_eq!(values(&IQ1_BN.decode(&rows.concat(), 2, 64).unwrap()), expected);
    // The digits of every value, in every place.
    let weights: Vec<i8> =
        (0..64 * 27).map(|i| (i * 7 + i / 5 % 3 + i / 64 % 3 + i * i / 11) as i8 % 3).map(|w| w.abs() - 1).collect();
    let blocks: Vec<u8> = weights.as_chunks().0.iter().flat_map(iq1_bn_block).collect();
    let decoded = IQ1_BN.decode(&[&[0x00, 0x3C][..], &blocks].concat(), 1, weights.len()).unwrap();
    assert_eq!((decoded.codes.to_weights(), &decoded.scales[..]), (weights, &[1.][..]));

    // An f32 scale; 0x92 has 1, -1, 0, 1 sixteen weights apart.
    let row = |scale: f32| [&scale.to_le_bytes()[..], &[0x92], &[0x55; 15]].concat();
    let mut expected = vec![0.; 128];
    for (row, scale) in [0.3f32, -2.].into_iter().enumerate() {
        for (at, w) in [(0, 1.), (16, -1.), (48, 1.)] {
            expected[64 * row + at] = w * scale;
        }
    }
    let decoded = IQ2_BN.decode(&[row(0.3), row(-2.)].concat(), 2, 64).unwrap();
    assert_eq!(values(&decoded), expected);
    assert_eq!(decoded.ternary_scales().unwrap().group(), Some(64));

    assert!(matches!(IQ2_BN.decode(&row(f32::NAN), 1, 64), Err(QuantError::ScaleNotFinite { .. })));
    assert!(matches!(IQ2_BN.decode(&[0xFF; 20], 1, 64), Err(QuantError::ScaleNotFinite { .. })));
    assert!(matches!(IQ2_BN.decode(&[&[0; 4][..], &[0xFF; 16]].concat(), 1, 64), Err(QuantError::NotTernary { .. })));
    assert!(matches!(IQ1_BN.decode(&[0; 14], 1, 64), Err(QuantError::Length { .. })));
    assert!(matches!(IQ1_BN.decode(&[0; 15], 1, 96), Err(QuantError::RowNotBlocks { .. })));
}

#[test]
fn i2_s_equals_its_description() {
    for (order, name) in [(I2sOrder::X86, "i2_s.x86"), (I2sOrder::Arm, "i2_s.arm")] {
        let data = bytes(name);
        assert_eq!(i2_s::encode(&weights(), 1.21875, order).unwrap(), data);
        assert_eq!(i2_s::decode(&data, 5, 512, order).unwrap(), (weights(), 1.21875));
        assert_eq!(i2_s::byte_size(5 * 512, order), Some(data.len()));
        // The same bytes as rows of 20 and of 10: codes are flat over the tensor.
        let (narrow, _) = i2_s::decode(&data, 128, 20, order).unwrap();
        assert_eq!(narrow.to_weights(), weights().to_weights());
        let (odd, _) = i2_s::decode(&data, 256, 10, order).unwrap();
        assert_eq!(odd.to_weights(), weights().to_weights());
        let values = i2_s::dequantize(&data, 5, 512, order).unwrap();
        assert_eq!(values[0], 1.21875 * f32::from(weights().get(0, 0)));
    }
}

#[test]
fn hf_packing_equals_transformers() {
    let w: Vec<i8> = bytes("hf.weights").into_iter().map(|b| b as i8).collect();
    let codes = TernaryCodes::from_weights(10, 7, &w).unwrap();
    assert_eq!(hf::encode(&codes), bytes("hf"));
    assert_eq!(hf::decode(&bytes("hf"), 10, 7).unwrap(), codes);
    let four = hf::decode(&bytes("hf.4rows"), 4, 512).unwrap();
    assert_eq!(four.as_bytes(), &weights().as_bytes()[..4 * 128]);
}

#[test]
fn embeddings_equal_gguf_py() {
    let values = floats("q8_0.input");
    assert_eq!(q8_0::encode(&values, 4, 128).unwrap(), bytes("q8_0"));
    assert_eq!(float16::encode_bf16(&values), bytes("bf16"));
    assert_eq!(float16::encode_f16(&values), bytes("f16"));
}

#[test]
fn absmean_equals_transformers() {
    for dtype in ["f32", "f16", "bf16"] {
        let master = floats(&format!("absmean.{dtype}.input"));
        let golden = floats(&format!("absmean.{dtype}"));
        let (codes, scale) = ternarize::absmean(&master, 6, 40).unwrap();
        for (i, (w, g)) in codes.to_weights().into_iter().zip(golden).enumerate() {
            let ours = scale * f32::from(w);
            // Equal signs; the scale differs by the order in which PyTorch sums the mean in f32.
            assert!((ours - g).abs() <= 4.0 * f32::EPSILON * scale, "{dtype} {i}: {ours} {g}");
        }
    }
}
