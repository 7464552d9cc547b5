//! Seconds of rounding one layer with error feedback:
//! `cargo bench -p bitnet-quant --bench post_training -- [640x2560 2560x2560 6912x2560 2560x6912]`, rows by columns.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_quant::post_training::{InputStatistics, error_feedback, output_error, round_to_nearest};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().filter(|a| a.contains('x') && !a.contains('/')).collect();
    let shapes = if given.is_empty() { vec!["640x2560".to_owned()] } else { given };
    for shape in shapes {
        let (rows, cols) = shape.split_once('x').ok_or("rows x columns")?;
        let (rows, cols): (usize, usize) = (rows.parse()?, cols.parse()?);
        let (device, mut random) = (Device::cpu(), Generator::new(1));
        let mut randn = |dims: &[usize]| BitNetTensor::randn(dims, BitNetDType::F32, &device, &mut random);
        // Inputs that depend on each other, as those of a network do.
        let (mixed, noise) = (randn(&[2048, cols / 4])?.matmul(&randn(&[cols / 4, cols])?)?, randn(&[2048, cols])?);
        let weights = randn(&[rows, cols])?.to_vec::<f32>()?;
        let mut inputs = InputStatistics::new(cols)?;
        inputs.observe(&mixed.add(&noise.mul(4.)?)?)?;
        let mut fit = round_to_nearest(&weights, rows, cols)?;
        let before = output_error(&weights, &fit, &inputs)?;
        let mut best = f64::INFINITY;
        for _ in 0..2 {
            let start = Instant::now();
            fit = error_feedback(&weights, rows, cols, &inputs)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        let after = output_error(&weights, &fit, &inputs)?;
        println!("{shape:>10}  {best:6.2} s  output error {before:.6} -> {after:.6}, scale {:.6}", fit.scale);
    }
    Ok(())
}
