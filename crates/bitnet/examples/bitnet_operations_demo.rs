//! The arithmetic of BitNet b1.58: ternary weights, 8-bit activations, a product in integers, one rescaling.
//!
//! ```text
//! cargo run -p bitnet --example bitnet_operations_demo
//! ```

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, Result};
use bitnet::quant::quantizers::{Granularity, absmean, int8};

const TOKENS: usize = 4;
const INPUTS: usize = 64;
const OUTPUTS: usize = 16;

fn main() -> Result<()> {
    let (device, mut random) = (Device::cpu(), Generator::new(7));
    let x = BitNetTensor::randn(&[TOKENS, INPUTS], BitNetDType::F32, &device, &mut random)?;
    let w = BitNetTensor::randn(&[OUTPUTS, INPUTS], BitNetDType::F32, &device, &mut random)?;

    // W is about step * {-1, 0, 1}, the step the mean of |W|.
    let weights = absmean(&w, Granularity::Tensor)?;
    let codes = weights.codes().to_vec::<i8>()?;
    assert!(codes.iter().all(|code| (-1..=1).contains(code)));
    let zeros = codes.iter().filter(|&&code| code == 0).count();
    println!("weights: {} codes, {:.0} % of them 0, one step", codes.len(), 100. * zeros as f64 / codes.len() as f64);

    // x is about step * code, the largest code of a token 127.
    let activations = int8(&x, Granularity::Row)?;
    let largest = activations.codes().to_vec::<i8>()?.iter().map(|code| code.unsigned_abs()).max();
    println!("activations: 8 bits, a step for each token, the largest code is {}", largest.unwrap_or(0));
    assert_eq!(largest, Some(127));

    // i8 times i8 sums in i32: exact, whatever the order of the sum.
    let sums = activations.codes().matmul(&weights.codes().t()?)?;
    assert_eq!(sums.dtype(), BitNetDType::I32);
    let first: i32 = (0..INPUTS)
        .map(|k| i32::from(activations.codes().to_vec::<i8>().map_or(0, |q| q[k])) * i32::from(codes[k]))
        .sum();
    assert_eq!(sums.to_vec::<i32>()?[0], first);
    println!("products: integers, the first is {first}");

    // The steps are multiplied in at the end, once for each output; the result is that of the dequantized operands.
    let y = sums.to_dtype(BitNetDType::F32)?.mul(&weights.steps()?)?.mul(&activations.steps()?)?;
    let floats = activations.dequantize()?.matmul(&weights.dequantize()?.t()?)?;
    let error = y.sub(&floats)?.abs()?.amax(.., false)?.item::<f32>()?;
    println!("rescaled, it differs from a product of floats by at most {error:.1e}");
    assert!(error < 1e-3);

    let exact = x.matmul(&w.t()?)?;
    let similar = y.mul(&exact)?.sum(.., false)?.item::<f32>()?
        / (y.pow(2)?.sum(.., false)?.item::<f32>()? * exact.pow(2)?.sum(.., false)?.item::<f32>()?).sqrt();
    println!("cosine to the unquantized product of random weights: {similar:.3}");
    assert!(similar > 0.8);
    Ok(())
}
