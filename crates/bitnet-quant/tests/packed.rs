//! `QuantizedTensor`: every format against the quantizers, the codecs and PyTorch, and its products.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_quant::formats::{TQ2_0, q8_0};
use bitnet_quant::quantizers::{Granularity, Quantizer};
use bitnet_quant::{PackedFormat, QuantError, QuantizedTensor, TernaryCodes};
use bitnet_testkit::{queue_device, reference_device};
use half::f16;
use proptest::prelude::*;
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("data/quantizers.safetensors");

fn floats(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn random(dims: &[usize], seed: u64) -> BitNetTensor {
    BitNetTensor::randn(dims, BitNetDType::F32, &Device::cpu(), &mut Generator::new(seed)).unwrap()
}

fn values(packed: &QuantizedTensor) -> Vec<f32> {
    packed.dequantize(&Device::cpu()).unwrap().to_vec().unwrap()
}

const TERNARY: [PackedFormat; 6] = [
    PackedFormat::I2S,
    PackedFormat::Tq1_0,
    PackedFormat::Tq2_0,
    PackedFormat::Q2_0G64,
    PackedFormat::Q2_0G128,
    PackedFormat::HuggingFace,
];

#[test]
fn values_are_those_of_the_quantizers() {
    let x = random(&[2, 3, 256], 1);
    let fake = |q: Quantizer, g| q.fake_quantize(&x, g).unwrap().to_vec::<f32>().unwrap();
    for format in TERNARY {
        let packed = QuantizedTensor::from_tensor(&x, format).unwrap();
        assert_eq!(packed.dims(), [2, 3, 256]);
        assert_eq!(values(&packed), fake(Quantizer::AbsMean, Granularity::Tensor), "{format:?}");
        assert_eq!(packed.zero_points(), [1]);
    }
    let packed = QuantizedTensor::from_tensor(&x, PackedFormat::Binary { group: 64 }).unwrap();
    assert_eq!(values(&packed), fake(Quantizer::Binary, Granularity::Group(64)));
    let packed = QuantizedTensor::from_tensor(&x, PackedFormat::Int4 { group: 32 }).unwrap();
    assert_eq!(values(&packed), fake(Quantizer::Int4, Granularity::Group(32)));
    assert_eq!(packed.zero_points(), [8]);
    let packed = QuantizedTensor::from_tensor(&x, PackedFormat::Q8_0).unwrap();
    assert_eq!(packed.bytes(), q8_0::encode(&x.to_vec::<f32>().unwrap(), 6, 256).unwrap());
}

#[test]
fn a_zero_point_as_pytorch_has_it() {
    let x = BitNetTensor::from_slice(&floats("f32.input"), &[6, 48], &Device::cpu()).unwrap();
    let packed = QuantizedTensor::from_tensor(&x, PackedFormat::UInt4 { group: 16 }).unwrap();
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    assert_eq!(packed.scales(), floats("uint4.scales"));
    assert_eq!(packed.zero_points(), golden.tensor("uint4.zeros").unwrap().data());
    assert_eq!(values(&packed), floats("uint4.values"));
    // Zero is kept exactly.
    let zeros = x.to_vec::<f32>().unwrap().iter().zip(values(&packed)).filter(|(x, _)| **x == 0.).all(|(_, y)| y == 0.);
    assert!(zeros);
}

#[test]
fn sizes() {
    let x = random(&[64, 256], 2);
    let bits = |format| QuantizedTensor::from_tensor(&x, format).unwrap().bits_per_weight();
    assert_eq!(bits(PackedFormat::Tq1_0), 1.6875);
    assert_eq!(bits(PackedFormat::Tq2_0), 2.0625);
    assert_eq!(bits(PackedFormat::I2S), 2. + 32. * 8. / 16384.);
    assert_eq!(bits(PackedFormat::HuggingFace), 2. + 4. * 8. / 16384.);
    assert_eq!(bits(PackedFormat::Binary { group: 256 }), 1.125);
    assert_eq!(bits(PackedFormat::Int4 { group: 64 }), 4.5);
    assert_eq!(bits(PackedFormat::UInt4 { group: 64 }), 4.625);
    assert_eq!(bits(PackedFormat::Q8_0), 8.5);
}

#[test]
fn products_are_those_of_the_values() {
    let (w, x) = (random(&[48, 256], 3), random(&[2, 5, 256], 4));
    for device in [Device::cpu(), reference_device(), queue_device()] {
        let x = x.to_device(&device).unwrap();
        for format in TERNARY.into_iter().chain([
            PackedFormat::Binary { group: 256 },
            PackedFormat::Binary { group: 32 },
            PackedFormat::Int4 { group: 64 },
            PackedFormat::UInt4 { group: 64 },
            PackedFormat::Q8_0,
        ]) {
            let packed = -&(QuantizedTensor::from_tensor(&w, format).unwrap() * 0.37);
            let weights = packed.dequantize(&device).unwrap();
            let quantizes = TERNARY.contains(&format) || format == PackedFormat::Binary { group: 256 };
            let inputs = match quantizes {
                true => Quantizer::Int8.fake_quantize(&x, Granularity::Row).unwrap(),
                false => x.clone(),
            };
            let want = inputs.matmul(&weights.t().unwrap()).unwrap();
            let product = packed.to_product(&device).unwrap();
            let got = product.linear(&x).unwrap();
            assert_eq!(got.dims(), [2, 5, 48]);
            // Dense quantized weights meet activations in 16 bits: 1e-5 of |x| |w|, here about 16 and 6.
            let bound = if format == PackedFormat::Q8_0 { 1e-3 } else { 1e-4 };
            assert!(got.allclose(&want, 1e-5, bound, false).unwrap(), "{format:?} on {}", device.name());
            assert!(packed.linear(&x).unwrap().equal(&got).unwrap());
            if quantizes {
                assert!(product.bytes() <= 48 * 256 / 4 + 64, "{format:?} takes {} bytes", product.bytes());
            }
        }
    }
}

#[test]
fn the_gradient_of_the_input_passes_to_it() {
    let (w, dy) = (random(&[48, 256], 8), random(&[2, 5, 48], 9));
    for device in [Device::cpu(), reference_device(), queue_device()] {
        for format in [PackedFormat::HuggingFace, PackedFormat::Int4 { group: 64 }, PackedFormat::Q8_0] {
            let packed = QuantizedTensor::from_tensor(&w, format).unwrap() * -0.5;
            let (mut x, dy) = (random(&[2, 5, 256], 10).to_device(&device).unwrap(), dy.to_device(&device).unwrap());
            let value = packed.linear(&x).unwrap();
            x.requires_grad_(true).unwrap();
            let y = packed.linear(&x).unwrap();
            assert!(y.detach().equal(&value).unwrap());
            y.mul(&dy).unwrap().sum(.., false).unwrap().backward().unwrap();
            let want = dy.matmul(&packed.dequantize(&device).unwrap()).unwrap();
            assert!(x.grad().unwrap().allclose(&want, 1e-6, 1e-6, false).unwrap(), "{format:?} on {}", device.name());
            let laid_out = packed.to_product(&device).unwrap().linear(&x).unwrap_err().to_string();
            assert!(laid_out.contains("QuantizedTensor::linear"), "{laid_out}");
        }
    }
}

#[test]
fn other_scales_in_the_blocks_are_values_all_the_same() {
    let codes = TernaryCodes::from_weights(2, 512, &[1; 1024]).unwrap();
    let mut bytes = TQ2_0.encode(&codes, &1f32.into()).unwrap();
    bytes[64..66].copy_from_slice(&f16::from_f32(2.).to_le_bytes());
    let packed = QuantizedTensor::from_parts(PackedFormat::Tq2_0, bytes, &[2, 512], vec![], vec![]).unwrap() * 0.5;
    let x = BitNetTensor::ones(&[1, 512], BitNetDType::F32, &Device::cpu()).unwrap();
    assert_eq!(packed.linear(&x).unwrap().to_vec::<f32>().unwrap(), [256. + 128., 256.]);
}

#[test]
fn packed_shape_errors_are_reported() {
    let x = random(&[4, 96], 5);
    let refused = |format| QuantizedTensor::from_tensor(&x, format).unwrap_err().to_string();
    assert!(refused(PackedFormat::Tq1_0).contains("HF packed"));
    assert!(refused(PackedFormat::Int4 { group: 64 }).contains("whole groups of 64"));
    assert!(refused(PackedFormat::Binary { group: 0 }).contains("groups of 0"));
    let nan = BitNetTensor::full(&[4, 32], f64::NAN, BitNetDType::F32, &Device::cpu()).unwrap();
    for format in [PackedFormat::HuggingFace, PackedFormat::Q8_0, PackedFormat::UInt4 { group: 32 }] {
        let error = QuantizedTensor::from_tensor(&nan, format).unwrap_err();
        assert!(matches!(error, QuantError::ValueOutOfRange { .. }), "{format:?}: {error}");
    }
    let codes = TernaryCodes::from_weights(1, 4, &[1; 4]).unwrap();
    assert!(QuantizedTensor::from_codes(&codes, 1., PackedFormat::Q8_0).is_err());
    let vector = QuantizedTensor::from_tensor(&random(&[32], 6), PackedFormat::Q8_0).unwrap();
    assert!(vector.to_product(&Device::cpu()).is_err());
    let packed = QuantizedTensor::from_tensor(&x, PackedFormat::HuggingFace).unwrap();
    assert!(packed.linear(&random(&[3, 95], 7)).unwrap_err().to_string().contains("[.., 96]"));
}

proptest! {
    #[test]
    fn hostile_parts_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        dims in prop::collection::vec(0usize..300, 0..3),
        scales in prop::collection::vec(any::<f32>(), 0..4),
        zeros in prop::collection::vec(any::<u8>(), 0..3),
        group in 0usize..5,
    ) {
        for format in TERNARY.into_iter().chain([
            PackedFormat::Binary { group },
            PackedFormat::Int4 { group },
            PackedFormat::UInt4 { group },
            PackedFormat::Q8_0,
        ]) {
            if let Ok(x) = QuantizedTensor::from_parts(format, bytes.clone(), &dims, scales.clone(), zeros.clone()) {
                let _ = x.dequantize(&Device::cpu());
                let _ = x.to_product(&Device::cpu());
            }
        }
    }

    #[test]
    fn four_bits_are_half_a_step_off_at_most(values in prop::collection::vec(-3f32..5., 64)) {
        let x = BitNetTensor::from_slice(&values, &[2, 32], &Device::cpu()).unwrap();
        let packed = QuantizedTensor::from_tensor(&x, PackedFormat::UInt4 { group: 8 }).unwrap();
        let back = packed.dequantize(&Device::cpu()).unwrap().to_vec::<f32>().unwrap();
        for (i, (x, y)) in values.iter().zip(back).enumerate() {
            // The zero point is rounded too: the ends of the range may move by half a step.
            prop_assert!((x - y).abs() <= 1.001 * packed.scales()[i / 8], "{} {}", x, y);
        }
    }
}
