//! Every format against bytes and values of gguf-py and transformers (`data/make.py`).

use bitnet_quant::formats::{
    PTQ1_0, Q1_0, Q2_0_G64, Q2_0_G128, ScaledFormat, TQ1_0, TQ2_0, float16, hf, i2_s, i2_s::I2sOrder, q8_0,
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
    assert!(matches!(Q1_0.encode(&weights(), &1f32.into()), Err(QuantError::NoZeros { .. })));
    let signs: Vec<i8> = weights().to_weights().iter().map(|w| if *w < 0 { -1 } else { 1 }).collect();
    let signs = TernaryCodes::from_weights(5, 512, &signs).unwrap();
    assert_eq!(Q1_0.decode(&Q1_0.encode(&signs, &1f32.into()).unwrap(), 5, 512).unwrap().codes, signs);
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
