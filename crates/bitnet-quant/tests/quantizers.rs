//! Quantizers and the Hadamard transform against PyTorch and NumPy (`data/make_quantizers.py`), on the CPU and on a
//! device with primitives only.

use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_quant::hadamard::{block, hadamard, transform};
use bitnet_quant::quantizers::{
    Granularity, Quantized, Quantizer, absmean, absmedian, binary, initial_step, int4, int8, learned_step,
};
use bitnet_testkit::{queue_device, reference_device};
use proptest::prelude::*;
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("data/quantizers.safetensors");

fn bytes(name: &str) -> Vec<u8> {
    SafeTensors::deserialize(GOLDEN).unwrap().tensor(name).unwrap().data().to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn tensor(values: &[f32], dims: &[usize]) -> BitNetTensor {
    BitNetTensor::from_slice(values, dims, &Device::cpu()).unwrap()
}

/// Codes are equal; scales and values to the last bit if `exact`, else but for the last places of a mean.
fn check(got: &Quantized, golden: &str, exact: bool) {
    let codes: Vec<i8> = bytes(&format!("{golden}.codes")).into_iter().map(|b| b as i8).collect();
    assert_eq!(got.codes().to_vec::<i8>().unwrap(), codes, "{golden}");
    let close = |got: Vec<f32>, what: &str| {
        for (got, want) in got.iter().zip(floats(&format!("{golden}.{what}"))) {
            let bound = if exact { 0. } else { 4e-7 * want.abs() };
            assert!((got - want).abs() <= bound, "{golden}.{what}: {got} is not {want}");
        }
    };
    close(got.scales().unwrap().to_vec().unwrap(), "scales");
    let values = got.dequantize().unwrap();
    if values.dtype() == BitNetDType::F32 || exact {
        close(values.to_dtype(BitNetDType::F32).unwrap().to_vec().unwrap(), "values");
    }
}

#[test]
fn equal_to_pytorch() {
    for device in [Device::cpu(), reference_device(), queue_device()] {
        for (dtype_name, dtype) in [("f32", BitNetDType::F32), ("bf16", BitNetDType::BF16)] {
            let x = tensor(&floats(&format!("{dtype_name}.input")), &[6, 48]);
            let x = x.to_dtype(dtype).unwrap().to_device(&device).unwrap();
            for (name, granularity) in
                [("tensor", Granularity::Tensor), ("row", Granularity::Row), ("group", Granularity::Group(16))]
            {
                let key = |method: &str| format!("{dtype_name}.{method}.{name}");
                // Elsewhere than on a host the sum is rounded to f32 before it is divided.
                check(&absmean(&x, granularity).unwrap(), &key("absmean"), device.is_host());
                check(&absmedian(&x, granularity).unwrap(), &key("absmedian"), true);
                check(&int8(&x, granularity).unwrap(), &key("int8"), true);
                check(&int4(&x, granularity).unwrap(), &key("int4"), true);
                check(&binary(&x, granularity).unwrap(), &key("binary"), false);
            }
        }
    }
}

#[test]
fn learned_steps_equal_pytorch() {
    for (name, granularity) in
        [("tensor", Granularity::Tensor), ("row", Granularity::Row), ("group", Granularity::Group(16))]
    {
        // Without the rows that are zero: there the golden step is 0.
        let x = tensor(&floats("f32.input"), &[6, 48]);
        let golden = format!("f32.lsq.{name}");
        let want = floats(&format!("{golden}.scales"));
        let step = initial_step(&x, granularity).unwrap();
        for (got, want) in step.to_vec::<f32>().unwrap().iter().zip(&want) {
            assert!((got - want.max(1e-5)).abs() <= 4e-7 * want.abs(), "{golden}: {got} is not {want}");
        }
        let step = tensor(&want, &[want.len()]).clamp(Some(1e-5.into()), None).unwrap();
        let got = learned_step(&x, &step, granularity).unwrap();
        assert_eq!(
            got.codes().to_vec::<i8>().unwrap(),
            bytes(&format!("{golden}.codes")).iter().map(|&b| b as i8).collect::<Vec<_>>()
        );
        let values = floats(&format!("{golden}.values"));
        // 0 / 0 of the golden's rows of zeros.
        for (got, want) in got.dequantize().unwrap().to_vec::<f32>().unwrap().iter().zip(values) {
            assert!(*got == want || want.is_nan() && *got == 0., "{golden}: {got} is not {want}");
        }
    }
}

#[test]
fn hadamard_equals_numpy_and_undoes_itself() {
    for device in [Device::cpu(), reference_device(), queue_device()] {
        for n in [1, 2, 8, 48, 128] {
            let x = tensor(&floats(&format!("hadamard.{n}.input")), &[3, n]).to_device(&device).unwrap();
            let once = hadamard(&x).unwrap();
            for (got, want) in once.to_vec::<f32>().unwrap().iter().zip(floats(&format!("hadamard.{n}"))) {
                assert!((got - want).abs() < 2e-6, "{n}: {got} is not {want}");
            }
            assert!(hadamard(&once).unwrap().allclose(&x, 1e-5, 1e-6, false).unwrap(), "{n}");
        }
    }
    assert_eq!((block(0), block(48), block(6912), block(4096)), (1, 16, 256, 4096));
    // Columns of a view, and a type that is computed in f32.
    let x = tensor(&floats("hadamard.128.input"), &[3, 128]).t().unwrap().narrow(1, 0, 2).unwrap();
    let by_rows = hadamard(&x).unwrap();
    assert!(by_rows.allclose(&hadamard(&x.contiguous().unwrap()).unwrap(), 0., 0., false).unwrap());
    let half = hadamard(&x.to_dtype(BitNetDType::BF16).unwrap()).unwrap();
    assert_eq!(half.dtype(), BitNetDType::BF16);
    assert!(half.to_dtype(BitNetDType::F32).unwrap().allclose(&by_rows, 2e-2, 2e-2, false).unwrap());
}

#[test]
fn invalid_inputs_of_quantizers_are_errors() {
    let x = tensor(&[1.; 12], &[2, 6]);
    let message = |r: bitnet_core::Result<Quantized>| r.unwrap_err().to_string();
    assert!(message(int8(&x, Granularity::Group(4))).contains("whole groups of 4"));
    assert!(message(int8(&x, Granularity::Group(0))).contains("at least one value"));
    assert!(message(absmean(&tensor(&[], &[0]), Granularity::Tensor)).contains("at least one value"));
    assert!(message(int4(&tensor(&[1.], &[]), Granularity::Row)).contains("rows"));
    assert!(message(binary(&x.to_dtype(BitNetDType::I32).unwrap(), Granularity::Row)).contains("quantize"));
    assert!(message(learned_step(&x, &tensor(&[1.], &[1]), Granularity::Row)).contains("2 steps"));
    assert!(hadamard(&tensor(&[1.], &[])).is_err());
}

#[test]
fn nan_poisons_what_shares_its_scale() {
    let x = tensor(&[1., f32::NAN, 2., 1., 1., 1., -3., 0.], &[2, 4]);
    for quantizer in [Quantizer::AbsMean, Quantizer::AbsMedian, Quantizer::Binary, Quantizer::Int4, Quantizer::Int8] {
        let values = quantizer.fake_quantize(&x, Granularity::Row).unwrap().to_vec::<f32>().unwrap();
        assert!(values[..4].iter().all(|v| v.is_nan()), "{quantizer:?}: {values:?}");
        assert!(values[4..].iter().all(|v| v.is_finite()), "{quantizer:?}: {values:?}");
    }
}

fn matrix() -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
    (1usize..6, 1usize..5).prop_flat_map(|(rows, groups)| {
        let n = rows * groups * 8;
        prop::collection::vec(-3f32..3., n).prop_map(move |v| (rows, groups * 8, v))
    })
}

proptest! {
    #[test]
    fn a_whole_tensor_is_as_the_slice_function_has_it((rows, cols, values) in matrix()) {
        for quantizer in [Quantizer::AbsMean, Quantizer::AbsMedian] {
            let (codes, scale) = quantizer.ternarize(&values, rows, cols).unwrap();
            let got = quantizer.quantize(&tensor(&values, &[rows, cols]), Granularity::Tensor).unwrap();
            prop_assert_eq!(got.codes().to_vec::<i8>().unwrap(), codes.to_weights());
            let values = got.dequantize().unwrap().to_vec::<f32>().unwrap();
            let values: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            // -0 and 0: code / scale has the sign of the scale.
            let ours: Vec<u32> = codes.to_weights().iter().map(|&c| (f32::from(c) * scale).to_bits()).collect();
            prop_assert_eq!(values, ours);
        }
    }

    #[test]
    fn an_error_is_at_most_half_a_step((rows, cols, values) in matrix(), group in prop::sample::select(vec![1usize, 4, 8])) {
        let x = tensor(&values, &[rows, cols]);
        for (quantizer, steps) in [(Quantizer::Int8, 127.), (Quantizer::Int4, 7.)] {
            let back = quantizer.fake_quantize(&x, Granularity::Group(group)).unwrap().to_vec::<f32>().unwrap();
            for (x, y) in values.chunks(group).zip(back.chunks(group)) {
                let largest = x.iter().fold(1e-5f32, |m, v| m.max(v.abs()));
                for (x, y) in x.iter().zip(y) {
                    prop_assert!((x - y).abs() <= 0.5001 * largest / steps, "{} {}", x, y);
                }
            }
        }
    }

    #[test]
    fn quantizing_what_is_quantized_changes_nothing((rows, cols, values) in matrix()) {
        let x = tensor(&values, &[rows, cols]);
        let once = Quantizer::Int8.quantize(&x, Granularity::Row).unwrap();
        let twice = Quantizer::Int8.quantize(&once.dequantize().unwrap(), Granularity::Row).unwrap();
        prop_assert_eq!(once.codes().to_vec::<i8>().unwrap(), twice.codes().to_vec::<i8>().unwrap());
    }

    #[test]
    fn the_transform_keeps_lengths(values in prop::collection::vec(-3f32..3., 64)) {
        let mut out = values.clone();
        transform(&mut out, 64);
        let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        prop_assert!((length(&out) - length(&values)).abs() <= 1e-5 * length(&values));
    }
}
