//! Tensor operations as a user calls them, small and large: `cargo bench -p bitnet-core --bench operations`.
//! Prints `nanoseconds name` a line, the fastest of a few rounds. `.ci/compare COMMIT` runs it alternately with an earlier commit.

use bitnet_core::{
    AttentionOptions, BitNetDType, BitNetTensor, CrossEntropyOptions, Device, Gelu, Generator, Reduction, Result, idx,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(2);
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    // Cargo passes flags such as --bench; a name filters.
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let measure = |name: &str, operation: &mut dyn FnMut() -> Result<BitNetTensor>| -> Result<()> {
        if name.contains(&filter) {
            println!("{:12.0} {name}", fastest(operation)?);
        }
        Ok(())
    };
    let device = Device::cpu();
    let random = &mut Generator::new(1);
    for (size, n) in [("small", 16), ("large", 512)] {
        // a, b, square: [n, n]; row: [n]; classes: [n], each below n.
        let a = BitNetTensor::randn(&[n, n], BitNetDType::F32, &device, random)?;
        let b = BitNetTensor::randn(&[n, n], BitNetDType::F32, &device, random)?;
        let row = BitNetTensor::randn(&[n], BitNetDType::F32, &device, random)?;
        let half = a.to_dtype(BitNetDType::BF16)?;
        let integers = BitNetTensor::randint(0, 100, &[n, n], BitNetDType::I64, &device, random)?;
        let classes = BitNetTensor::randint(0, n as i64, &[n], BitNetDType::I64, &device, random)?;
        let mask = a.gt(0.)?;
        let measure = |name: &str, operation: &mut dyn FnMut() -> Result<BitNetTensor>| {
            measure(&format!("{size} {name}"), operation)
        };
        measure("add", &mut || a.add(&b))?;
        measure("add a row", &mut || a.add(&row))?;
        measure("mul by a number", &mut || a.mul(0.5))?;
        measure("bf16 mul by a number", &mut || half.mul(0.5))?;
        measure("bf16 add", &mut || half.add(&half))?;
        measure("i64 add", &mut || integers.add(&integers))?;
        measure("div", &mut || a.div(&b))?;
        measure("clamp", &mut || a.clamp(Some((-1.).into()), Some(1.0.into())))?;
        measure("exp", &mut || a.exp())?;
        measure("sign", &mut || a.sign())?;
        measure("gelu", &mut || a.gelu(Gelu::Tanh))?;
        measure("less than", &mut || a.lt(&b))?;
        measure("where", &mut || BitNetTensor::where_(&mask, &a, &b))?;
        measure("masked select", &mut || a.masked_select(&mask))?;
        measure("sum", &mut || a.sum(.., false))?;
        measure("sum of axis 0", &mut || a.sum(0, false))?;
        measure("mean of axis 1", &mut || a.mean(1, false))?;
        measure("var", &mut || a.var(1, 1., false))?;
        measure("std", &mut || a.std(1, 1., false))?;
        measure("softmax", &mut || a.softmax(-1))?;
        measure("rms norm", &mut || a.rms_norm(&row, 1e-5))?;
        measure("matmul", &mut || a.matmul(&b))?;
        measure("transpose copy", &mut || a.transpose(0, 1)?.contiguous())?;
        measure("index rows", &mut || a.index(&idx![&classes]))?;
        measure("index select", &mut || a.index_select(0, &classes))?;
        measure("cat", &mut || BitNetTensor::cat(&[&a, &b], 0))?;
        measure("cumsum", &mut || a.cumsum(1))?;
        measure("sort", &mut || Ok(a.sort(1, false)?.0))?;
        measure("cross entropy", &mut || a.cross_entropy(&classes, &CrossEntropyOptions::default()))?;
        measure("mse loss", &mut || a.mse_loss(&b, Reduction::Mean))?;
        measure("cast", &mut || a.to_dtype(BitNetDType::F16))?;
        let heads = a.reshape(&[4, n / 4, n])?;
        let causal = AttentionOptions { causal: true, ..Default::default() };
        measure("attention", &mut || heads.scaled_dot_product_attention(&heads, &heads, &causal))?;
        measure("random", &mut || BitNetTensor::rand(&[n, n], BitNetDType::F32, &device, random))?;
        let (mut y, mut x) = (a.to_dtype(BitNetDType::F64)?, b.to_dtype(BitNetDType::F64)?);
        y.requires_grad_(true)?;
        measure("gradient of f64 atan2", &mut || {
            y.zero_grad();
            let angle = y.atan2(&x)?;
            angle.backward_with(Some(&x), Default::default())?;
            Ok(angle)
        })?;
        let constant = x.clone();
        x.requires_grad_(true)?;
        measure("gradients of f64 atan2", &mut || {
            y.zero_grad();
            x.zero_grad();
            let angle = y.atan2(&x)?;
            angle.backward_with(Some(&constant), Default::default())?;
            Ok(angle)
        })?;
    }
    let matrices = BitNetTensor::randn(&[1000, 3, 3], BitNetDType::F32, &device, random)?;
    measure("1000 lu 3x3", &mut || Ok(matrices.lu()?.0))?;
    measure("1000 inv 3x3", &mut || matrices.inv())?;
    measure("1000 det 3x3", &mut || matrices.det())?;
    measure("1000 cholesky 3x3", &mut || matrices.matmul(&matrices.transpose(1, 2)?)?.cholesky())?;
    measure("1000 qr 3x3", &mut || Ok(matrices.qr()?.1))?;
    measure("1000 svdvals 3x3", &mut || matrices.svdvals())?;
    Ok(())
}

/// Nanoseconds of one call in the fastest of a few rounds.
fn fastest(operation: &mut dyn FnMut() -> Result<BitNetTensor>) -> Result<f64> {
    black_box(operation()?);
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (began, mut calls) = (Instant::now(), 0u32);
        while began.elapsed() < ROUND {
            black_box(operation()?);
            calls += 1;
        }
        best = best.min(began.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(best)
}
