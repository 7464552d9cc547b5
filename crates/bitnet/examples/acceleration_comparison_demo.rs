//! One ternary product on every instruction set of this CPU: the same integers, other times.
//!
//! ```text
//! cargo run --release -p bitnet --example acceleration_comparison_demo
//! ```
//!
//! Times of a debug build say little. A build with other devices can compare them in the same way.

use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator, Result, explain_device_selection};
use bitnet::kernels::Isa;
use bitnet::quant::{ActivationBuffer, ActivationRule, BitLinear, BitLinearConfig};
use std::time::{Duration, Instant};

const WIDTH: usize = 1024;

fn main() -> Result<()> {
    println!("selected: {:?}, because {}", bitnet::core::auto_select_device(), explain_device_selection());
    let cpu = Device::cpu();
    let mut random = Generator::new(4);
    let weights = BitNetTensor::randn(&[WIDTH, WIDTH], BitNetDType::F32, &cpu, &mut random)?;
    let x = BitNetTensor::randn(&[8, WIDTH], BitNetDType::F32, &cpu, &mut random)?;

    let mut first: Option<(Vec<f32>, Duration)> = None;
    for isa in Isa::available() {
        let device = Device::cpu_with_isa(isa, 1)?;
        let layer = BitLinear::with_weights(BitLinearConfig::new(WIDTH, WIDTH), weights.to_device(&device)?, None)?;
        let (packed, x) = (layer.pack()?, x.to_device(&device)?);
        let mut buffer = ActivationBuffer::new(ActivationRule::Token, 8, WIDTH, &device)?;
        let mut y = BitNetTensor::empty(&[8, WIDTH], BitNetDType::F32, &device)?;
        let mut time = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            packed.forward(x.as_ref(), &mut buffer, &device, y.as_mut()?)?;
            time = time.min(start.elapsed());
        }
        let y = y.to_vec::<f32>()?;
        let (expected, slowest) = first.get_or_insert_with(|| (y.clone(), time));
        println!(
            "{:<8} {:>8.0} us, {:>5.1} times the speed of {}",
            isa.name(),
            time.as_secs_f64() * 1e6,
            slowest.as_secs_f64() / time.as_secs_f64(),
            Isa::available()[0].name()
        );
        assert_eq!(&y, expected, "every instruction set gives the same bits");
    }
    Ok(())
}
