//! A ternary linear layer learns what a ternary teacher does, and gives the same outputs when it is packed.
//!
//! ```text
//! cargo run -p bitnet --example bitlinear_demo
//! ```

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, Reduction, autograd};
use bitnet::quant::{ActivationBuffer, ActivationRule, BitLinear, BitLinearConfig};
use std::error::Error;

const INPUTS: usize = 64;
const OUTPUTS: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let (device, mut random) = (Device::cpu(), Generator::new(5));
    let teacher = BitLinear::new(BitLinearConfig::new(INPUTS, OUTPUTS), &mut random, &device)?;
    let mut student = BitLinear::new(BitLinearConfig::new(INPUTS, OUTPUTS), &mut random, &device)?;

    // The gradient passes the rounding unchanged and reaches the latent float weights.
    let (mut first, mut last) = (0., 0.);
    for step in 0..300 {
        let x = BitNetTensor::randn(&[64, INPUTS], BitNetDType::F32, &device, &mut random)?;
        let wanted = autograd::no_grad(|| teacher.forward(&x))?;
        let loss = student.forward(&x)?.mse_loss(&wanted, Reduction::Mean)?;
        loss.backward()?;
        last = loss.item::<f32>()?;
        first = if step == 0 { last } else { first };
        for (_, parameter) in student.parameters_mut() {
            let gradient = parameter.grad().ok_or("every parameter has a gradient")?;
            let step = gradient.mul(0.3)?;
            autograd::no_grad(|| parameter.sub_(&step).map(|_| ()))?;
            parameter.zero_grad();
        }
        if step % 60 == 0 {
            println!("step {step:>3}: loss {last:.5}");
        }
    }
    println!("loss {first:.4} -> {last:.5}");
    assert!(last < first / 10.);

    // Packed: two bits a weight, integer products, the same result.
    let x = BitNetTensor::randn(&[3, INPUTS], BitNetDType::F32, &device, &mut random)?;
    let expected = autograd::no_grad(|| student.forward(&x))?;
    let packed = student.pack()?;
    let mut buffer = ActivationBuffer::new(ActivationRule::Token, 3, INPUTS, &device)?;
    let mut y = BitNetTensor::empty(&[3, OUTPUTS], BitNetDType::F32, &device)?;
    packed.forward(x.as_ref(), &mut buffer, &device, y.as_mut()?)?;
    let error = y.sub(&expected)?.abs()?.amax(.., false)?.item::<f32>()?;
    println!("packed: {} bytes for {} weights, outputs within {error:.1e}", packed.packed_bytes(), INPUTS * OUTPUTS);
    assert!(error < 1e-5);
    Ok(())
}
