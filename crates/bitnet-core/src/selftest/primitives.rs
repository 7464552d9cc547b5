//! Cases of the primitives.

use super::*;

pub(super) fn all(cases: &mut Cases) {
    elementwise(cases);
    casts(cases);
    copies(cases);
    reductions(cases);
    gathers(cases);
    scans_sorts_and_scatters(cases);
    random_numbers(cases);
}

fn elementwise(cases: &mut Cases) {
    for (rows, columns) in [(1, 1), (3, 5), (4, 1), (1, 7), (0, 3), (17, 33)] {
        cases.add("binary of a transpose and a broadcast row", 1e-7, move |device| {
            let a = tensor(device, &[columns, rows], 1)?.transpose(0, 1)?;
            let b = tensor(device, &[columns], 2)?;
            let mut c = out(device, &[rows, columns])?;
            let mut row = b.as_ref();
            row.layout = row.layout.broadcast_to(&[rows, columns])?;
            for op in [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Minimum, BinaryOp::Maximum]
            {
                device.binary(op, a.as_ref(), row, c.as_mut()?)?;
            }
            c.to_vec()
        });
        cases.add("unary", 1e-6, move |device| {
            let x = tensor(device, &[rows, columns], 3)?;
            let mut all = Vec::new();
            for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Exp, UnaryOp::Relu, UnaryOp::Sigmoid, UnaryOp::Round] {
                let mut y = out(device, &[rows, columns])?;
                device.unary(op, x.as_ref(), y.as_mut()?)?;
                all.extend(y.to_vec::<f32>()?);
            }
            Ok(all)
        });
        cases.add("compare and select", 0., move |device| {
            let (a, b) = (tensor(device, &[rows, columns], 4)?, tensor(device, &[rows, columns], 5)?);
            let mut all = Vec::new();
            for op in [CompareOp::Eq, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge] {
                let mut mask = BitNetTensor::empty(&[rows, columns], BitNetDType::Bool, device)?;
                let mut c = out(device, &[rows, columns])?;
                device.compare(op, a.as_ref(), b.as_ref(), mask.as_mut()?)?;
                device.select(mask.as_ref(), a.as_ref(), b.as_ref(), c.as_mut()?)?;
                all.extend(c.to_vec::<f32>()?);
            }
            Ok(all)
        });
    }
}

fn casts(cases: &mut Cases) {
    use BitNetDType::{BF16, Bool, F16, F32, F64, I8, I32, U8};
    for to in [F64, F16, BF16, I8, I32, U8, Bool] {
        cases.add("cast there and back", 0., move |device| {
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

fn copies(cases: &mut Cases) {
    cases.add("copy into a narrowed, transposed place", 0., move |device| {
        let x = tensor(device, &[5, 3, 4], 7)?;
        let mut cache = BitNetTensor::zeros(&[3, 9, 4], BitNetDType::F32, device)?;
        device.copy(x.as_ref().transpose(0, 1)?, cache.as_mut()?.narrow(1, 2, 5)?)?;
        cache.to_vec()
    });
}

fn reductions(cases: &mut Cases) {
    use ReduceOp::*;
    for (op, dtype) in [
        (Sum, BitNetDType::F32),
        (Prod, BitNetDType::F32),
        (Norm, BitNetDType::F32),
        (Max, BitNetDType::F32),
        (Min, BitNetDType::F32),
        (Any, BitNetDType::Bool),
        (All, BitNetDType::Bool),
    ] {
        for axis in [0, 1] {
            cases.add(format!("reduce {op:?}"), 1e-6, move |device| {
                reduced(op, &tensor(device, &[33, 70], 36)?, axis, dtype)
            });
        }
    }
    for op in [ArgMax, ArgMin] {
        for axis in [0, 1] {
            cases.add(format!("reduce {op:?}"), 0., move |device| {
                reduced(op, &tensor(device, &[33, 70], 36)?, axis, positions(device))
            });
        }
    }
    for (op, dtype) in
        [(Sum, BitNetDType::U8), (Sum, BitNetDType::I32), (Prod, BitNetDType::I32), (Sum, BitNetDType::U32)]
    {
        cases.add(format!("reduce {op:?} of {dtype}"), 0., move |device| {
            let x = integers(device, dtype)?;
            reduced(op, &x, 1, summed(dtype, device.has(BitNetDType::I64)))
        });
        cases.add(format!("scan of {dtype}"), 0., move |device| {
            let x = integers(device, dtype)?;
            let mut y = BitNetTensor::empty(x.dims(), summed(dtype, device.has(BitNetDType::I64)), device)?;
            device.scan(ScanOp::Sum, x.as_ref(), 1, y.as_mut()?)?;
            y.to_dtype(BitNetDType::F32)?.to_vec()
        });
    }
}

/// Small integers `[5, 31]`, odd ones among them, so that sums and products are below 2^24.
fn integers(device: &Device, dtype: BitNetDType) -> Result<BitNetTensor> {
    let values: Vec<i32> = (0..155).map(|i| if i % 7 == 0 { 3 } else { 1 - i % 2 * 2 }).collect();
    let values = values.into_iter().map(|x| if dtype == BitNetDType::I32 { x } else { x + 1 });
    BitNetTensor::from_vec(values.collect::<Vec<i32>>(), &[5, 31], device)?.to_dtype(dtype)
}

/// The dtype of positions on a device.
fn positions(device: &Device) -> BitNetDType {
    if device.has(BitNetDType::I64) { BitNetDType::I64 } else { BitNetDType::U32 }
}

fn reduced(op: ReduceOp, x: &BitNetTensor, axis: usize, dtype: BitNetDType) -> Result<Vec<f32>> {
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    let mut y = BitNetTensor::empty(&dims, dtype, x.device())?;
    x.device().reduce(op, x.as_ref(), axis, y.as_mut()?)?;
    y.to_dtype(BitNetDType::F32)?.to_vec()
}

fn gathers(cases: &mut Cases) {
    for axis in [0, 1] {
        for dtype in [BitNetDType::U32, BitNetDType::I64] {
            cases.add(format!("gather by {dtype}"), 0., move |device| {
                let x = tensor(device, &[6, 9], 37)?;
                let places: Vec<u32> = (0..24).map(|i| i * 7 % 6).collect();
                let places = BitNetTensor::from_slice(&places, &[4, 6], device)?.to_dtype(dtype)?;
                let mut y = out(device, &[4, 6])?;
                device.gather(x.as_ref(), axis, places.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
    }
}

fn scans_sorts_and_scatters(cases: &mut Cases) {
    let dims = [6, 9];
    for axis in [0, 1] {
        for op in [ScanOp::Sum, ScanOp::Prod] {
            cases.add("scan", 1e-6, move |device| {
                let (x, mut y) = (tensor(device, &dims, 31)?, out(device, &dims)?);
                device.scan(op, x.as_ref(), axis, y.as_mut()?)?;
                y.to_vec()
            });
        }
        cases.add("sort", 0., move |device| {
            let (x, mut sorted) = (tensor(device, &dims, 32)?, out(device, &dims)?);
            let mut places = BitNetTensor::empty(&dims, positions(device), device)?;
            device.sort(x.as_ref(), axis, true, sorted.as_mut()?, places.as_mut()?)?;
            let places = places.to_cpu()?.to_dtype(BitNetDType::F32)?.to_vec::<f32>()?;
            Ok([sorted.to_vec::<f32>()?, places].concat())
        });
        for op in [ScatterOp::Assign, ScatterOp::Add] {
            cases.add("scatter", 1e-6, move |device| {
                let (x, mut y) = (tensor(device, &dims, 33)?, tensor(device, &dims, 34)?);
                let places: Vec<u32> = (0..54).map(|i| i * 7 % 6).collect();
                let places = BitNetTensor::from_slice(&places, &dims, device)?;
                device.scatter(op, x.as_ref(), axis, places.as_ref(), y.as_mut()?)?;
                y.to_vec()
            });
        }
    }
    cases.add("unary_assign", 1e-6, move |device| {
        let mut x = tensor(device, &dims, 35)?;
        device.unary_assign(UnaryOp::Exp, x.as_mut()?)?;
        x.to_vec()
    });
}

fn random_numbers(cases: &mut Cases) {
    for distribution in [Distribution::Uniform { low: -1., high: 3. }, Distribution::Normal { mean: 1., std: 2. }] {
        // Logarithm and cosine of devices may differ in the last place.
        cases.add("random", 1e-6, move |device| {
            let state = BitNetTensor::from_slice(&[7u32, 1, 5, 0], &[4], device)?;
            let mut y = out(device, &[3, 41])?;
            device.random(distribution, 0, state.as_ref(), y.as_mut()?)?;
            y.to_vec()
        });
    }
}
