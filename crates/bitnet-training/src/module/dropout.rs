//! Dropout with its own random numbers.

use bitnet_core::{BitNetTensor, Generator, Result};

/// Zeroes elements at random while training, and divides the others by `1 - p` (Srivastava et al. 2014).
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Probability that an element is zeroed.
    pub p: f64,
    /// Where it is in its stream of random numbers: its seed and offset are all that a resumed run needs.
    pub generator: Generator,
}

impl Dropout {
    /// Dropout with the random numbers of a seed.
    pub fn new(p: f64, seed: u64) -> Self {
        Self { p, generator: Generator::new(seed) }
    }

    /// The tensor, some of it zero where `training`, else as it is.
    pub fn forward(&mut self, x: &BitNetTensor, training: bool) -> Result<BitNetTensor> {
        if training && self.p > 0. { x.dropout(self.p, &mut self.generator) } else { Ok(x.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::{BitNetDType, Device};

    #[test]
    fn it_goes_on_where_it_was() {
        let x = BitNetTensor::ones(&[64], BitNetDType::F32, &Device::cpu()).unwrap();
        let mut dropout = Dropout::new(0.25, 3);
        let draw = |dropout: &mut Dropout| dropout.forward(&x, true).unwrap().to_vec::<f32>().unwrap();
        let first = draw(&mut dropout);
        let mut resumed = dropout.clone();
        resumed.generator = Generator::at(3, dropout.generator.offset());
        let second = draw(&mut dropout);
        assert_eq!(second, draw(&mut resumed));
        assert_ne!(first, second);
        assert!(first.iter().all(|&x| x == 0. || x == 1. / 0.75));
        assert!(first.contains(&0.));
        assert!(dropout.forward(&x, false).unwrap().equal(&x).unwrap());
    }
}
