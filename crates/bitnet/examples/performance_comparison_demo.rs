//! A linear layer of one token, in f32 and packed ternary: time, bytes, and the same answer as the float form.
//!
//! ```text
//! cargo run --release -p bitnet --example performance_comparison_demo -- 4096
//! ```
//!
//! The number is the width of the layer; 1024 unless given. Times of a debug build say little.

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet::quant::{ActivationBuffer, ActivationRule, BitLinear, BitLinearConfig};
use std::error::Error;
use std::time::{Duration, Instant};

/// The shortest time of several calls.
fn best<T>(mut f: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn Error>> {
    let width: usize = match std::env::args().nth(1) {
        Some(width) => width.parse().map_err(|_| format!("{width} is not a width: give a number such as 4096"))?,
        None => 1024,
    };
    let (device, mut random) = (Device::cpu(), Generator::new(1));
    let layer = BitLinear::new(BitLinearConfig::new(width, width), &mut random, &device)?;
    let x = BitNetTensor::randn(&[1, width], BitNetDType::F32, &device, &mut random)?;

    let (weight, packed) = (layer.weight().detach(), layer.pack()?);
    let dense = best(|| Ok(x.matmul(&weight.t()?)?))?;
    let mut buffer = ActivationBuffer::new(ActivationRule::Token, 1, width, &device)?;
    let mut y = BitNetTensor::empty(&[1, width], BitNetDType::F32, &device)?;
    let ternary = best(|| Ok(packed.forward(x.as_ref(), &mut buffer, &device, y.as_mut()?)?))?;

    let rows = [("f32", dense, 4 * width * width), ("ternary", ternary, packed.packed_bytes())];
    println!("{width} x {width} on {}", device.kernel());
    for (name, time, bytes) in rows {
        println!(
            "{name:<8} {:>9.1} us {:>10} bytes {:>7.1} GB/s",
            time.as_secs_f64() * 1e6,
            bytes,
            bytes as f64 / time.as_secs_f64() / 1e9
        );
    }
    println!(
        "ternary: {:.1} times the speed, {:.1} times smaller",
        dense.as_secs_f64() / ternary.as_secs_f64(),
        rows[0].2 as f64 / rows[1].2 as f64
    );
    assert!(rows[0].2 > 10 * rows[1].2);

    // The packed product is that of the layer which training uses.
    let expected = bitnet::core::autograd::no_grad(|| layer.forward(&x))?;
    let error = y.sub(&expected)?.abs()?.amax(.., false)?.item::<f32>()?;
    println!("outputs within {error:.1e} of the layer in floats");
    assert!(error < 1e-4);
    Ok(())
}
