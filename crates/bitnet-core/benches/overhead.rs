//! What a call costs when there is next to nothing to compute: `cargo bench -p bitnet-core --bench overhead`. Prints
//! `nanoseconds name` a line, the fastest of many rounds. `python benches/overhead.py` sets it beside NumPy.

use bitnet_core::{BitNetDType::F32, BitNetTensor, Device, Generator, Result};
use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<()> {
    let (device, random) = (Device::cpu(), &mut Generator::new(1));
    let mut tensor = |dims: &[usize]| BitNetTensor::randn(dims, F32, &device, random);
    let (a, b, mut out) = (tensor(&[4])?, tensor(&[4])?, tensor(&[4])?);
    let (x, y) = (tensor(&[4, 4])?, tensor(&[4, 4])?);
    measure("add", || a.add(&b))?;
    measure("add_into", || a.add_into(&b, &mut out))?;
    measure("matmul", || x.matmul(&y))?;
    measure("transpose", || x.transpose(0, 1))
}

fn measure<R>(name: &str, mut operation: impl FnMut() -> Result<R>) -> Result<()> {
    const CALLS: u32 = 2000;
    operation()?;
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..CALLS {
            // By reference: to move a result is no part of the call.
            black_box(&operation());
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    println!("{best:12.1} {name}");
    Ok(())
}
