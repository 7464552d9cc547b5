//! Random weights in memory, for benchmarks of a shape.

use super::weights::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, WeightSource, Weights};
use crate::{Config, ModelError, Result};
use bitnet_core::BitNetDType;
use bitnet_quant::{TernaryCodes, TernaryScales};

/// Random ternary weights and a random Q6_K embedding, which is also the head. The output is noise, at the full cost of
/// a model.
#[derive(Debug, Clone)]
pub struct RandomWeights {
    config: Config,
    seed: u64,
    /// Columns that share a scale; `None`: one for a matrix.
    group: Option<usize>,
}

impl RandomWeights {
    /// Weights for a configuration; equal seeds give equal weights.
    pub fn new(config: Config, seed: u64) -> Self {
        Self { config: Config { tied: true, ..config }, seed, group: None }
    }

    /// The same with a random scale for every `group` columns of a row, as Q2_0 has them.
    pub fn with_groups(self, group: usize) -> Self {
        Self { group: Some(group), ..self }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the next state and its output.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Weights for RandomWeights {
    fn config(&self) -> &Config {
        &self.config
    }

    fn embedding(&self) -> Result<DenseTensor> {
        const BLOCK: usize = BitNetDType::Q6K.block().1;
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        let mut bytes = vec![0; rows * BitNetDType::Q6K.row_bytes(cols)];
        let mut state = self.seed;
        for block in bytes.chunks_exact_mut(BLOCK) {
            for part in block.chunks_mut(8) {
                part.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..part.len()]);
            }
            // A small scale: values of about 1e-2.
            block[BLOCK - 2..].copy_from_slice(&half::f16::from_f32(1e-5).to_le_bytes());
        }
        DenseTensor::owned("embedding", bytes, BitNetDType::Q6K, rows, cols)
    }

    fn head(&self) -> Result<Option<LinearSource>> {
        Ok(None)
    }

    fn norm(&self, norm: Norm) -> Result<Vec<f32>> {
        Ok(vec![1.; norm.len(&self.config)])
    }

    fn linear(&self, layer: usize, projection: Projection) -> Result<LinearSource> {
        let (rows, cols) = projection.shape(&self.config);
        let mut state = self.seed ^ (((layer as u64) << 8) | (projection as u64 + 1));
        // Two random bits a weight, 3 made 1: -1, 0 and +1 in the proportions 1:2:1.
        let mut codes = vec![0; rows * cols.div_ceil(4)];
        for part in codes.chunks_mut(8) {
            let bits = split_mix(&mut state);
            let threes = bits & (bits >> 1) & 0x5555_5555_5555_5555;
            part.copy_from_slice(&(bits & !(threes << 1)).to_le_bytes()[..part.len()]);
        }
        let codes = TernaryCodes::new(rows, cols, codes)?;
        let scales = match self.group {
            Some(group) => {
                let mut scale = || half::f16::from_f32(0.01 + (split_mix(&mut state) >> 40) as f32 * 1e-9).to_f32();
                TernaryScales::groups((0..rows * (cols / group)).map(|_| scale()).collect(), group, &codes)?
            }
            None => 0.02.into(),
        };
        let weight = WeightSource::Ternary { codes, scales };
        Ok(LinearSource { weight, bias: None, inner_norm: None })
    }

    fn delta(&self, layer: usize) -> Result<DeltaSource> {
        let Some(sizes) = self.config.block.delta(layer) else {
            return Err(ModelError::Config(format!("layer {layer} attends")));
        };
        let mut state = self.seed ^ ((layer as u64) << 8);
        // Between -0.5 and 0.5.
        let mut noise = || (split_mix(&mut state) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        Ok(DeltaSource {
            conv: (0..sizes.taps * sizes.channels()).map(|_| noise()).collect(),
            decay: (0..sizes.value_heads).map(|_| noise() - 1.).collect(),
            bias: (0..sizes.value_heads).map(|_| noise()).collect(),
        })
    }
}
