//! Initial values of weights, `F32`; the same for a seed on every device.

use bitnet_core::backend::Distribution;
use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator, Result};

/// Normal numbers of mean 0.
pub fn normal(dims: &[usize], std: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    BitNetTensor::random(Distribution::Normal { mean: 0., std }, dims, BitNetDType::F32, device, generator)
}

/// Uniform numbers between `-bound` and `bound`.
pub fn uniform(dims: &[usize], bound: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    let between = Distribution::Uniform { low: -bound, high: bound };
    BitNetTensor::random(between, dims, BitNetDType::F32, device, generator)
}

/// Inputs and outputs of a weight `[outputs, inputs]`.
fn fans(dims: &[usize]) -> (f64, f64) {
    let inputs: usize = dims.iter().skip(1).product();
    (inputs.max(1) as f64, dims.first().copied().unwrap_or(1).max(1) as f64)
}

/// Standard deviation `gain / sqrt(inputs)` (He et al. 2015; `torch.nn.init.kaiming_normal_`): activations keep their size
/// with the gain `sqrt(2)` before a ReLU, 1 without.
pub fn kaiming_normal(dims: &[usize], gain: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    normal(dims, gain / fans(dims).0.sqrt(), generator, device)
}

/// As [`kaiming_normal`] with uniform numbers (`torch.nn.init.kaiming_uniform_`).
pub fn kaiming_uniform(dims: &[usize], gain: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    uniform(dims, gain * (3. / fans(dims).0).sqrt(), generator, device)
}

/// Standard deviation `gain sqrt(2 / (inputs + outputs))` (Glorot and Bengio 2010; `torch.nn.init.xavier_normal_`):
/// activations and gradients both about keep their size.
pub fn xavier_normal(dims: &[usize], gain: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    let (inputs, outputs) = fans(dims);
    normal(dims, gain * (2. / (inputs + outputs)).sqrt(), generator, device)
}

/// As [`xavier_normal`] with uniform numbers (`torch.nn.init.xavier_uniform_`).
pub fn xavier_uniform(dims: &[usize], gain: f64, generator: &mut Generator, device: &Device) -> Result<BitNetTensor> {
    let (inputs, outputs) = fans(dims);
    uniform(dims, gain * (6. / (inputs + outputs)).sqrt(), generator, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deviation, largest magnitude and mean.
    fn measured(x: BitNetTensor) -> (f64, f64, f64) {
        let number = |x: bitnet_core::Result<BitNetTensor>| x.unwrap().to_scalar().unwrap().to_f64();
        (number(x.std(.., 1., false)), number(x.abs().unwrap().amax(.., false)), number(x.mean(.., false)))
    }

    #[test]
    fn deviations_and_bounds_are_those_of_the_papers() {
        let (cpu, dims) = (Device::cpu(), [300, 200]);
        let near = |value: f64, expected: f64| assert!((value / expected - 1.).abs() < 0.01, "{value} {expected}");
        let gain = 2f64.sqrt();
        let (std, most, mean) = measured(kaiming_normal(&dims, gain, &mut Generator::new(1), &cpu).unwrap());
        near(std, 0.1);
        assert!(most > 0.38 && mean.abs() < 2e-3, "{most} {mean}");
        let (std, most, _) = measured(kaiming_uniform(&dims, gain, &mut Generator::new(2), &cpu).unwrap());
        near(std, 0.1);
        near(most, 0.1 * 3f64.sqrt());
        let (std, most, _) = measured(xavier_normal(&dims, 1., &mut Generator::new(3), &cpu).unwrap());
        near(std, (2f64 / 500.).sqrt());
        assert!(most > 3.8 * std);
        let (std, most, _) = measured(xavier_uniform(&dims, 1., &mut Generator::new(4), &cpu).unwrap());
        near(std, (2f64 / 500.).sqrt());
        near(most, (6f64 / 500.).sqrt());
        let again = |seed| normal(&[5], 1., &mut Generator::new(seed), &cpu).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(again(7), again(7));
        assert_ne!(again(7), again(8));
    }
}
