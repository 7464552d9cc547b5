//! One body for every operation, run on every device: the CPU with each instruction set, the CPU with every fused operation
//! composed of primitives, a device with a queue, and the reference device, with which all are compared.

use bitnet_core::backend::{
    AdamStep, BinaryOp, CausalShape, CompareOp, Distribution, GateActivation, Op, QuantizedActivations, ReduceOp,
    ScanOp, ScatterOp, TensorRef, TernarySource, UnaryOp,
};
use bitnet_core::registry::{self, DeviceKind};
use bitnet_core::{
    Backend, BitNetDType, BitNetError, BitNetTensor, Device, Element, Layout, Profiler, Result, TensorShape,
    auto_select_device,
};
use bitnet_kernels::Isa;
use bitnet_testkit::golden::relative_error;
use bitnet_testkit::{ReferenceBackend, composed_device, queue_device, reference_device};
use half::f16;
use std::sync::Arc;

fn devices() -> Vec<(String, Device)> {
    let cpus = Isa::available().into_iter().map(|isa| (format!("cpu {isa}"), Device::cpu_with_isa(isa, 2).unwrap()));
    let others = [reference_device(), queue_device(), composed_device(Device::cpu())];
    let others = others.map(|device| (device.name(), device));
    cpus.chain(others).collect()
}

/// Numbers between -1 and 1, the same for equal seeds.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(device: &Device, dims: &[usize], seed: u64) -> BitNetTensor {
    BitNetTensor::from_slice(&noise(dims.iter().product(), seed), dims, device).unwrap()
}

fn out(device: &Device, dims: &[usize]) -> BitNetTensor {
    BitNetTensor::empty(dims, BitNetDType::F32, device).unwrap()
}

/// `start..start + tokens`.
fn positions(device: &Device, start: usize, tokens: usize) -> BitNetTensor {
    BitNetTensor::arange(start, start + tokens, 1, BitNetDType::U32, device).unwrap()
}

/// Runs `body` on every device and compares the results with the reference device's, relative to the largest value.
fn agree(what: &str, bound: f32, body: impl Fn(&Device) -> Result<Vec<f32>>) {
    let expected = body(&reference_device()).unwrap_or_else(|e| panic!("{what} on reference: {e}"));
    for (name, device) in devices() {
        let got = match body(&device) {
            Ok(got) => got,
            // A device may lack a dtype, if it says so.
            Err(BitNetError::Unsupported { dtype, .. }) if !device.has(dtype) => continue,
            Err(error) => panic!("{what} on {name}: {error}"),
        };
        if expected.is_empty() {
            assert!(got.is_empty(), "{what} on {name}");
            continue;
        }
        let error = relative_error(&got, &expected);
        assert!(error <= bound || got == expected, "{what} on {name} differs by {error:e}");
    }
}

#[test]
fn primitives_follow_strides_and_broadcasts() {
    for (rows, columns) in [(1, 1), (3, 5), (4, 1), (1, 7), (0, 3), (17, 33)] {
        agree("binary of a transpose and a broadcast row", 1e-7, |device| {
            let a = tensor(device, &[columns, rows], 1).transpose(0, 1)?;
            let b = tensor(device, &[columns], 2);
            let mut c = out(device, &[rows, columns]);
            let mut row = b.as_ref();
            row.layout = row.layout.broadcast_to(&[rows, columns])?;
            for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Minimum, BinaryOp::Maximum]
            {
                device.binary(op, a.as_ref(), row, c.as_mut()?)?;
            }
            c.to_vec()
        });
        agree("unary", 1e-6, |device| {
            let x = tensor(device, &[rows, columns], 3);
            let mut all = Vec::new();
            for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Exp, UnaryOp::Relu, UnaryOp::Sigmoid, UnaryOp::Round] {
                let mut y = out(device, &[rows, columns]);
                device.unary(op, x.as_ref(), y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            Ok(all)
        });
        agree("compare and select", 0., |device| {
            let (a, b) = (tensor(device, &[rows, columns], 4), tensor(device, &[rows, columns], 5));
            let mut all = Vec::new();
            for op in [CompareOp::Eq, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge] {
                let mut mask = BitNetTensor::empty(&[rows, columns], BitNetDType::Bool, device)?;
                let mut c = out(device, &[rows, columns]);
                device.compare(op, a.as_ref(), b.as_ref(), mask.as_mut()?)?;
                device.select(mask.as_ref(), a.as_ref(), b.as_ref(), c.as_mut()?)?;
                all.extend(c.to_vec::<f32>()?);
            }
            Ok(all)
        });
    }
    // One case computed by hand, to check the reference itself.
    for (name, device) in devices() {
        let a = BitNetTensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3], &device).unwrap();
        let mut sums = out(&device, &[1, 3]);
        device.reduce(ReduceOp::Sum, a.as_ref(), 0, sums.as_mut().unwrap()).unwrap();
        assert_eq!(sums.to_vec::<f32>().unwrap(), [5., 7., 9.], "{name}");
        let mut largest = out(&device, &[2, 1]);
        device.reduce(ReduceOp::Max, a.as_ref(), 1, largest.as_mut().unwrap()).unwrap();
        assert_eq!(largest.to_vec::<f32>().unwrap(), [3., 6.], "{name}");
        let mut square = out(&device, &[2, 2]);
        device.matmul(a.as_ref(), a.transpose(0, 1).unwrap().as_ref(), square.as_mut().unwrap()).unwrap();
        assert_eq!(square.to_vec::<f32>().unwrap(), [14., 32., 32., 77.], "{name}");
        let ids = BitNetTensor::from_slice(&[1u32, 0, 1], &[3], &device).unwrap();
        let mut rows = out(&device, &[3, 3]);
        device.gather(a.as_ref(), 0, every_column(&ids, &[3, 3]), rows.as_mut().unwrap()).unwrap();
        assert_eq!(rows.to_vec::<f32>().unwrap(), [4., 5., 6., 1., 2., 3., 4., 5., 6.], "{name}");
        let beyond = BitNetTensor::from_slice(&[2u32], &[1], &device).unwrap();
        let mut row = out(&device, &[1, 3]);
        let index = every_column(&beyond, &[1, 3]);
        let result = device.gather(a.as_ref(), 0, index, row.as_mut().unwrap());
        assert!(result.and_then(|()| device.synchronize()).is_err(), "{name}");
    }
}

/// An index of rows that all columns share.
fn every_column<'a>(ids: &'a BitNetTensor, dims: &[usize]) -> TensorRef<'a> {
    let layout = ids.layout().unsqueeze(1).unwrap().broadcast_to(dims).unwrap();
    TensorRef { layout, ..ids.as_ref() }
}

#[test]
fn casts_round_alike() {
    use BitNetDType::{BF16, Bool, F16, F32, F64, I8, I32, U8};
    for to in [F64, F16, BF16, I8, I32, U8, Bool] {
        agree("cast there and back", 0., |device| {
            let values: Vec<f32> = noise(65, 6).iter().map(|x| x * 100. + if to == U8 { 100. } else { 0. }).collect();
            let x = BitNetTensor::from_slice(&values, &[65], device)?;
            let mut y = BitNetTensor::empty(&[65], to, device)?;
            device.cast(x.as_ref(), y.as_mut()?)?;
            let mut back = BitNetTensor::empty(&[65], F32, device)?;
            device.cast(y.as_ref(), back.as_mut()?)?;
            back.to_vec()
        });
    }
}

#[test]
fn copies_place_every_element() {
    agree("copy into a narrowed, transposed place", 0., |device| {
        let x = tensor(device, &[5, 3, 4], 7);
        let mut cache = BitNetTensor::zeros(&[3, 9, 4], F32_, device)?;
        device.copy(x.as_ref().transpose(0, 1)?, cache.as_mut()?.narrow(1, 2, 5)?)?;
        cache.to_vec()
    });
}

const F32_: BitNetDType = BitNetDType::F32;

#[test]
fn norms_and_softmax() {
    for (rows, width) in [(1, 1), (1, 256), (7, 33), (40, 2560)] {
        agree("rms_norm", 1e-6, |device| {
            let (x, w) = (tensor(device, &[rows, width], 8), tensor(device, &[width], 9));
            let mut y = out(device, &[rows, width]);
            device.rms_norm(x.as_ref(), w.as_ref(), 1e-5, y.as_mut()?)?;
            y.to_vec()
        });
        agree("softmax", 1e-6, |device| {
            let x = tensor(device, &[rows, width], 10);
            let mut y = out(device, &[rows, width]);
            device.softmax(x.as_ref(), y.as_mut()?)?;
            let mut logarithms = out(device, &[rows, width]);
            device.log_softmax(x.as_ref(), logarithms.as_mut()?)?;
            Ok([y.to_vec::<f32>()?, logarithms.to_vec()?].concat())
        });
        agree("layer_norm", 2e-6, |device| {
            let (x, w, b) =
                (tensor(device, &[rows, width], 8), tensor(device, &[width], 9), tensor(device, &[width], 10));
            let mut all = Vec::new();
            for (w, b) in [(None, None), (Some(&w), None), (None, Some(&b)), (Some(&w), Some(&b))] {
                let mut y = out(device, &[rows, width]);
                let (w, b) = (w.map(BitNetTensor::as_ref), b.map(BitNetTensor::as_ref));
                device.layer_norm(x.as_ref(), w, b, 1e-5, y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            Ok(all)
        });
        for axis in [0, 1] {
            agree("variance and standard deviation", 2e-6, |device| {
                let x = tensor(device, &[rows, width], 11);
                let dims = if axis == 0 { [1, width] } else { [rows, 1] };
                let [mut mean, mut variance, mut deviation] = [(); 3].map(|()| out(device, &dims));
                device.variance(x.as_ref(), axis, 0., mean.as_mut()?, variance.as_mut()?)?;
                device.standard_deviation(x.as_ref(), axis, 0., deviation.as_mut()?)?;
                Ok([mean.to_vec::<f32>()?, variance.to_vec()?, deviation.to_vec()?].concat())
            });
        }
    }
}

#[test]
fn scans_sorts_and_scatters() {
    let dims = [6, 9];
    for axis in [0, 1] {
        for op in [ScanOp::Sum, ScanOp::Prod] {
            agree("scan", 1e-6, |device| {
                let (x, mut y) = (tensor(device, &dims, 31), out(device, &dims));
                device.scan(op, x.as_ref(), axis, y.as_mut()?)?;
                y.to_vec()
            });
        }
        agree("sort", 0., |device| {
            let (x, mut sorted) = (tensor(device, &dims, 32), out(device, &dims));
            let dtype = if device.has(BitNetDType::I64) { BitNetDType::I64 } else { BitNetDType::U32 };
            let mut places = BitNetTensor::empty(&dims, dtype, device)?;
            device.sort(x.as_ref(), axis, true, sorted.as_mut()?, places.as_mut()?)?;
            let places = places.to_cpu()?.to_dtype(BitNetDType::F32)?.to_vec::<f32>()?;
            Ok([sorted.to_vec::<f32>()?, places].concat())
        });
        for op in [ScatterOp::Assign, ScatterOp::Add] {
            agree("scatter", 1e-6, |device| {
                let (x, mut y) = (tensor(device, &dims, 33), tensor(device, &dims, 34));
                let places: Vec<u32> = (0..54).map(|i| i * 7 % 6).collect();
                let places = BitNetTensor::from_slice(&places, &dims, device)?;
                device.scatter(op, x.as_ref(), axis, places.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
    }
    agree("unary_assign", 1e-6, |device| {
        let mut x = tensor(device, &dims, 35);
        device.unary_assign(UnaryOp::Exp, x.as_mut()?)?;
        x.to_vec()
    });
}

#[test]
fn random_numbers_are_equal() {
    for distribution in [Distribution::Uniform { low: -1., high: 3. }, Distribution::Normal { mean: 1., std: 2. }] {
        // Logarithm and cosine of devices may differ in the last place.
        agree("random", 1e-6, |device| {
            let state = BitNetTensor::from_slice(&[7u32, 1, 5, 0], &[4], device)?;
            let mut y = out(device, &[3, 41]);
            device.random(distribution, state.as_ref(), y.as_mut()?)?;
            y.to_vec()
        });
    }
}

/// A step that was recorded is replayed with what its operands hold then.
#[test]
fn recorded_steps_are_replayed() {
    let device = queue_device();
    let (x, mut y) = (tensor(&device, &[3, 8], 1), out(&device, &[3, 8]));
    let mut ids = BitNetTensor::from_slice(&[2u32, 0], &[2], &device).unwrap();
    let mut rows = out(&device, &[2, 8]);
    let mut step = || {
        device.softmax(x.as_ref(), y.as_mut()?)?;
        device.embedding(ids.as_ref(), y.as_ref(), rows.as_mut()?)
    };
    let graph = device.record(&mut step).unwrap().expect("this device records");
    let first = rows.to_vec::<f32>().unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap()[16..], first[..8]);
    device.write(ids.as_mut().unwrap().storage, 0, &[1u32, 2].map(u32::to_ne_bytes).concat()).unwrap();
    graph.replay().unwrap();
    let second = rows.to_vec::<f32>().unwrap();
    assert_eq!((&y.to_vec::<f32>().unwrap()[8..16], &second[8..]), (&second[..8], &first[..8]));
    // Nothing can be read while a step is recorded: the host would see it once only.
    let waits = device.record(&mut || y.to_vec::<f32>().map(drop)).unwrap_err().to_string();
    assert!(waits.contains("must not wait"), "{waits}");
    // The CPU has nothing to record: the step is run each time.
    assert!(Device::cpu().record(&mut || Ok(())).unwrap().is_none());
}

/// An error of a device with a queue reaches the next call that waits, once.
#[test]
fn errors_of_a_queue_come_late_and_once() {
    let device = queue_device();
    let x = tensor(&device, &[3, 8], 1);
    let ids = BitNetTensor::from_slice(&[3u32], &[1], &device).unwrap();
    let mut row = out(&device, &[1, 8]);
    device.embedding(ids.as_ref(), x.as_ref(), row.as_mut().unwrap()).unwrap();
    let late = device.synchronize().unwrap_err().to_string();
    assert!(late.contains("index 3 is outside dimension 0"), "{late}");
    device.synchronize().unwrap();
    assert_eq!(x.add(0).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
}

/// What a program registers is found by name, and two handles of one device are equal.
#[test]
fn registered_devices_are_found() {
    let missing = Device::vulkan(0).unwrap_err().to_string();
    assert_eq!(missing, "device vulkan:0 is not compiled into this build: use the cpu");
    let open = |index| match index {
        0 => Ok(Arc::new(ReferenceBackend) as Arc<dyn Backend>),
        _ => Err(BitNetError::NoDevice(format!("vulkan:{index}: there is one"))),
    };
    registry::register(DeviceKind { name: "vulkan", open });
    let (device, again) = (Device::vulkan(0).unwrap(), Device::gpu().unwrap());
    assert!(device == again && device == auto_select_device() && device != Device::cpu());
    assert_eq!(device.name(), "reference");
    assert_eq!(Device::vulkan(1).unwrap_err().to_string(), "vulkan:1: there is one");
    let x = tensor(&device, &[3], 1);
    assert_eq!(x.add(&tensor(&again, &[3], 1)).unwrap().to_cpu().unwrap().device(), &Device::cpu());
}

/// Runs every case once more, on this thread, and counts.
#[test]
fn every_operation_has_a_case() {
    let profiler = Profiler::start();
    primitives_follow_strides_and_broadcasts();
    casts_round_alike();
    copies_place_every_element();
    norms_and_softmax();
    scans_sorts_and_scatters();
    random_numbers_are_equal();
    rotary_embedding();
    attention_over_a_cache();
    gates();
    derivatives_of_norms_and_gates();
    scaled_operands_and_products_summed_in_f32();
    attention_of_training();
    a_step_of_adam();
    dense_layers_and_embeddings_of_every_weight_type();
    ternary_layers_are_exact_until_they_are_scaled();
    let profile = profiler.stop();
    let ran = |name: &str| profile.operations().iter().any(|o| o.operation.split(' ').next() == Some(name));
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !ran(name)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn rotary_embedding() {
    for (tokens, heads, width, start) in [(1, 1, 2, 0), (5, 3, 34, 4), (3, 2, 128, 9)] {
        agree("rope", 1e-6, |device| {
            let at = positions(device, start, tokens);
            let mut x = tensor(device, &[tokens, heads, width], 11);
            let (cos, sin) = (tensor(device, &[12, width / 2], 12), tensor(device, &[12, width / 2], 13));
            device.rope(x.as_mut()?, cos.as_ref(), sin.as_ref(), at.as_ref())?;
            x.to_vec()
        });
    }
}

#[test]
fn attention_over_a_cache() {
    let shapes = [(1, 1, 1, 2, 0), (1, 4, 2, 16, 30), (5, 6, 2, 20, 3), (70, 4, 1, 64, 0), (1, 8, 8, 36, 200)];
    for (tokens, heads, kv_heads, width, start) in shapes {
        for half in [false, true] {
            agree("attention", 5e-6, |device| {
                let at = positions(device, start, tokens);
                let q = tensor(device, &[tokens, heads, width], 14);
                let dims = [kv_heads, start + tokens + 3, width];
                let cache = |seed| -> Result<BitNetTensor> {
                    if !half {
                        return Ok(tensor(device, &dims, seed));
                    }
                    let values: Vec<f16> = noise(dims.iter().product(), seed).into_iter().map(f16::from_f32).collect();
                    BitNetTensor::from_slice(&values, &dims, device)
                };
                let (keys, values) = (cache(15)?, cache(16)?);
                let mut y = out(device, &[tokens, heads, width]);
                device.attention(q.as_ref(), keys.as_ref(), values.as_ref(), at.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
    }
}

#[test]
fn gates() {
    for act in [GateActivation::Relu2, GateActivation::Silu] {
        agree("gated", 1e-6, |device| {
            let (mut gate, up) = (tensor(device, &[9, 77], 17), tensor(device, &[9, 77], 18));
            device.gated(act, gate.as_mut()?, up.as_ref())?;
            gate.to_vec()
        });
    }
    agree("add_assign of rows and of one row", 1e-7, |device| {
        let (mut y, x, bias) = (tensor(device, &[9, 77], 19), tensor(device, &[9, 77], 20), tensor(device, &[77], 21));
        device.binary_assign(BinaryOp::Add, y.as_mut()?, x.as_ref())?;
        device.binary_assign(BinaryOp::Add, y.as_mut()?, bias.as_ref())?;
        y.to_vec()
    });
}

#[test]
fn derivatives_of_norms_and_gates() {
    for (rows, width) in [(1, 2), (7, 34), (130, 768)] {
        agree("rms_norm_backward", 2e-6, |device| {
            let (grad, x) = (tensor(device, &[rows, width], 8), tensor(device, &[rows, width], 9));
            let w = tensor(device, &[width], 10);
            let (mut dx, mut dw) = (out(device, &[rows, width]), out(device, &[width]));
            let results = (dx.as_mut()?, dw.as_mut()?);
            let (grad, x, w) = (grad.as_ref(), x.as_ref(), w.as_ref());
            device.rms_norm_backward(grad, x, w, 1e-5, results.0, results.1)?;
            Ok([dx.to_vec::<f32>()?, dw.to_vec()?].concat())
        });
        for act in [GateActivation::Relu2, GateActivation::Silu] {
            agree("gate and its derivative", 1e-6, |device| {
                let (grad, both) = (tensor(device, &[rows, width / 2], 11), tensor(device, &[rows, width], 12));
                let (mut y, mut d) = (out(device, &[rows, width / 2]), out(device, &[rows, width]));
                device.gated_halves(act, both.as_ref(), y.as_mut()?)?;
                device.gated_halves_backward(act, grad.as_ref(), both.as_ref(), d.as_mut()?)?;
                Ok([y.to_vec::<f32>()?, d.to_vec()?].concat())
            });
        }
    }
}

#[test]
fn scaled_operands_and_products_summed_in_f32() {
    for (rows, width) in [(1, 1), (9, 77), (100, 700)] {
        // bf16: two products that differ in the last bit of f32 may be rounded to neighbours.
        for (dtype, bound) in [(BitNetDType::F32, 1e-7), (BitNetDType::BF16, 4e-3)] {
            agree("scale", bound, |device| {
                let (x, r) = (tensor(device, &[rows, width], 1), tensor(device, &[rows], 2));
                let c = tensor(device, &[width], 3);
                let bytes = x.mul(100)?.to_dtype(BitNetDType::I8)?;
                let mut all = Vec::new();
                for (x, r, c) in
                    [(&x, Some(&r), Some(&c)), (&x, None, Some(&c)), (&x, Some(&r), None), (&bytes, Some(&r), None)]
                {
                    let (r, c) = (r.map(BitNetTensor::as_ref), c.map(BitNetTensor::as_ref));
                    let mut y = BitNetTensor::empty(&[rows, width], dtype, device)?;
                    device.scale(x.as_ref(), r, c, y.as_mut()?)?;
                    all.extend(y.to_dtype(BitNetDType::F32)?.to_vec::<f32>()?);
                }
                Ok(all)
            });
        }
    }
    agree("a product of bf16 in f32", 1e-6, |device| {
        let bf16 = |dims: &[usize], seed| tensor(device, dims, seed).to_dtype(BitNetDType::BF16);
        let (a, b, mut y) = (bf16(&[33, 70], 1)?, bf16(&[70, 41], 2)?, out(device, &[33, 41]));
        device.matmul(a.as_ref(), b.as_ref(), y.as_mut()?)?;
        y.to_vec()
    });
}

#[test]
fn attention_of_training() {
    for (batch, tokens, heads, kv_heads, head_dim) in [(1, 1, 1, 1, 2), (2, 70, 4, 2, 8), (3, 5, 6, 3, 20)] {
        let shape = CausalShape { batch, tokens, heads, kv_heads, head_dim };
        agree("causal_attention and its derivative", 5e-6, |device| {
            let (rows, wide, narrow) = (batch * tokens, shape.row(), shape.out_row());
            let (qkv, grad) = (tensor(device, &[rows, wide], 1), tensor(device, &[rows, narrow], 2));
            let angles = tensor(device, &[tokens, head_dim / 2], 3);
            let (cos, sin) = (angles.cos()?, angles.sin()?);
            let (mut y, mut d) = (out(device, &[rows, narrow]), out(device, &[rows, wide]));
            let (x, cos, sin, g) = (qkv.as_ref(), cos.as_ref(), sin.as_ref(), grad.as_ref());
            device.causal_attention(shape, x, cos, sin, y.as_mut()?)?;
            device.causal_attention_backward(shape, g, x, cos, sin, d.as_mut()?)?;
            Ok([y.to_vec::<f32>()?, d.to_vec()?].concat())
        });
    }
}

#[test]
fn a_step_of_adam() {
    let step = AdamStep { beta1: 0.9, beta2: 0.95, eps: 1e-8, shrink: 0.99, rate: 0.02, root: 0.4 };
    agree("adam_step", 1e-6, |device| {
        let (mut x, grad) = (tensor(device, &[7, 301], 1), tensor(device, &[7, 301], 2));
        let (mut m, mut v) = (tensor(device, &[7, 301], 3), tensor(device, &[7, 301], 4).square()?);
        let operands = (x.as_mut()?, grad.as_ref(), m.as_mut()?, v.as_mut()?);
        device.adam_step(step, operands.0, operands.1, operands.2, operands.3)?;
        Ok([x.to_vec::<f32>()?, m.to_vec()?, v.to_vec()?].concat())
    });
}

/// A matrix of any weight type: random bytes whose scales are small numbers.
fn weights(dtype: BitNetDType, rows: usize, columns: usize) -> Vec<u8> {
    let values = noise(rows * columns, 22);
    let small = f16::from_f32(0.01).to_le_bytes();
    // Offsets of the f16 scales in a block.
    let scales: &[usize] = match dtype {
        BitNetDType::F32 => return values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        BitNetDType::F16 => return values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        BitNetDType::BF16 => return values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        BitNetDType::Q6K => &[208],
        BitNetDType::Q4K => &[0, 2],
        _ => &[0],
    };
    let mut bytes: Vec<u8> =
        noise(rows * dtype.row_bytes(columns), 23).iter().map(|v| (v.to_bits() >> 8) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block().1) {
        for &at in scales {
            block[at..at + 2].copy_from_slice(&small);
        }
    }
    bytes
}

#[test]
fn dense_layers_and_embeddings_of_every_weight_type() {
    use BitNetDType::{BF16, F16, F32, Q4_0, Q4K, Q6K, Q8_0};
    for dtype in [F32, F16, BF16, Q8_0, Q6K, Q4_0, Q4K] {
        let columns = if dtype.is_packed() { 256 } else { 37 };
        for tokens in [1, 2, 5] {
            // Quantized types round activations to 16 bits: 1e-5 of |w| |x| (the kernels' own tests hold them to that),
            // of which a sum of 256 products with changing signs can be a tenth.
            let bound = if dtype.is_packed() { 1e-4 } else { 5e-6 };
            agree(&format!("linear of {dtype}"), bound, |device| {
                let x = tensor(device, &[tokens, columns], 24);
                let w = BitNetTensor::from_bytes(&weights(dtype, 19, columns), &[19, columns], dtype, device)?;
                let mut y = out(device, &[tokens, 19]);
                device.linear(x.as_ref(), w.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
        agree(&format!("embedding of {dtype}"), 0., |device| {
            let w = BitNetTensor::from_bytes(&weights(dtype, 19, columns), &[19, columns], dtype, device)?;
            let mut y = out(device, &[3, columns]);
            let ids = |ids: &[u32]| BitNetTensor::from_slice(ids, &[ids.len()], device);
            device.embedding(ids(&[18, 0, 7])?.as_ref(), w.as_ref(), y.as_mut()?)?;
            let beyond = device.embedding(ids(&[19])?.as_ref(), w.as_ref(), out(device, &[1, columns]).as_mut()?);
            assert!(beyond.and_then(|()| device.synchronize()).is_err());
            y.to_vec()
        });
    }
}

/// Random canonical codes: 0, 1 or 2 in every place, 1 where a row ends within a byte.
fn codes(rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let weights: Vec<i8> = noise(rows * columns, seed).iter().map(|v| (v * 1.5).round() as i8).collect();
    let mut bytes = vec![0b01010101u8; rows * columns.div_ceil(4)];
    for (i, &w) in weights.iter().enumerate() {
        let (row, column) = (i / columns, i % columns);
        let byte = &mut bytes[row * columns.div_ceil(4) + column / 4];
        *byte = *byte & !(3 << (2 * (column % 4))) | ((w + 1) as u8) << (2 * (column % 4));
    }
    bytes
}

#[test]
fn ternary_layers_are_exact_until_they_are_scaled() {
    for (tokens, rows, columns) in [(1, 1, 1), (1, 48, 64), (3, 37, 50), (9, 16, 257), (33, 100, 30)] {
        agree("quantize and ternary_matmul of stacked parts", 3e-7, |device| {
            let x = tensor(device, &[tokens, columns], 25);
            let elements = tokens * device.padded_columns(columns);
            let mut values = BitNetTensor::empty(&[elements], BitNetDType::I8, device)?;
            let padded = TensorShape::new(&[tokens, device.padded_columns(columns)])?;
            let layout = Layout::contiguous(padded).narrow(1, 0, columns)?;
            let mut scales = out(device, &[tokens]);
            let mut sums = BitNetTensor::empty(&[tokens], BitNetDType::I32, device)?;
            let place = bitnet_core::backend::TensorMut { layout, ..values.as_mut()? };
            device.quantize_activations(x.as_ref(), place, scales.as_mut()?, sums.as_mut()?)?;
            let stored = bitnet_core::backend::TensorRef { layout, ..values.as_ref() };
            let quantized = QuantizedActivations { values: stored, scales: scales.as_ref(), sums: sums.as_ref() };
            // The first of two parts has rows in whole groups of any device here; the scales differ.
            let (top, bottom) = (codes(32, columns, 26), codes(rows, columns, 27));
            let parts = [
                TernarySource { codes: &top, rows: 32, columns, scale: 0.5 },
                TernarySource { codes: &bottom, rows, columns, scale: 2.0 },
            ];
            let packed = device.pack_ternary(&parts)?;
            let mut y = out(device, &[tokens, 32 + rows]);
            device.ternary_matmul(quantized, &packed, y.as_mut()?)?;
            let mut all = y.to_vec::<f32>()?;
            all.extend(sums.to_vec::<i32>()?.iter().map(|&s| s as f32 * 1e-3));
            all.extend(scales.to_vec::<f32>()?.iter().map(|s| s * 1e-3));
            Ok(all)
        });
    }
}

#[test]
fn wrong_shapes_are_errors_on_every_device() {
    for (name, device) in devices() {
        let a = tensor(&device, &[2, 3], 28);
        let bytes = BitNetTensor::from_slice(&[1i8, 2, 3, 4, 5, 6], &[2, 3], &device).unwrap();
        let (mut same, mut other) = (out(&device, &[2, 3]), out(&device, &[3, 2]));
        let results = [
            ("copy", device.copy(a.as_ref(), other.as_mut().unwrap())),
            ("copy of a dtype", device.copy(bytes.as_ref(), same.as_mut().unwrap())),
            ("unary", device.unary(UnaryOp::Abs, a.as_ref(), other.as_mut().unwrap())),
            ("binary", device.binary(BinaryOp::Add, a.as_ref(), a.as_ref(), other.as_mut().unwrap())),
            ("matmul", device.matmul(a.as_ref(), a.as_ref(), other.as_mut().unwrap())),
            ("rms_norm", device.rms_norm(a.as_ref(), a.as_ref(), 1e-5, same.as_mut().unwrap())),
            ("linear", device.linear(a.as_ref(), tensor(&device, &[4, 5], 29).as_ref(), other.as_mut().unwrap())),
            ("rope", device.rope(same.as_mut().unwrap(), a.as_ref(), a.as_ref(), a.as_ref())),
            ("add_assign", device.binary_assign(BinaryOp::Add, other.as_mut().unwrap(), a.as_ref())),
        ];
        for (operation, result) in results {
            let message = result.expect_err(&format!("{operation} on {name}")).to_string();
            assert!(!message.contains('\n') && message.len() > 10, "{operation} on {name}: {message}");
        }
    }
    // An operand of another device.
    let (cpu, reference) = (Device::cpu(), reference_device());
    let (here, there) = (tensor(&cpu, &[2, 3], 30), tensor(&reference, &[2, 3], 30));
    assert!(cpu.unary(UnaryOp::Abs, there.as_ref(), out(&cpu, &[2, 3]).as_mut().unwrap()).is_err());
    assert!(reference.unary(UnaryOp::Abs, here.as_ref(), out(&reference, &[2, 3]).as_mut().unwrap()).is_err());
    assert_eq!(there.to_device(&cpu).unwrap().to_vec::<f32>().unwrap(), here.to_vec::<f32>().unwrap());
    assert_eq!(f32::DTYPE, F32_);
}
