//! Detection of a diverged run by its training loss.

use serde::{Deserialize, Serialize};

/// Updates over which the loss is smoothed.
const WINDOW: f64 = 20.;
/// Losses before the smoothed loss is judged; as many batches give the loss of the first weights.
pub(crate) const FIRST: usize = 8;
/// A smoothed loss this many times its recent minimum is suspicious.
const RATIO: f64 = 1.5;
/// It must also lie this many standard errors above it: small batches are noisy.
const DEVIATIONS: f64 = 8.;
/// Updates of a block; the recent minimum is that of the current block and the one before.
const BLOCK: u64 = 200;

/// A smoothed training loss beside its recent minimum.
///
/// The loss of one batch says little: with rows of 32 tokens it varies by half of itself. The exponential average of the
/// last 20 or so does not, and in a run that learns it stays near its minimum. Two minimums of blocks of 200 updates
/// make the minimum recent, so that a slow change of the data is not taken for a divergence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DivergenceDetector {
    /// Losses observed.
    updates: u64,
    smoothed: f64,
    /// Of single losses.
    variance: f64,
    /// Minimum of the current block, and of the one before.
    block: Option<f64>,
    previous: Option<f64>,
    /// What is known of the first weights.
    start: Option<Start>,
}

/// The first weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Where the quantizer is faded in: the larger one of their mean losses without and with it.
    pub loss: Option<f64>,
    /// Their validation loss.
    pub validation: Option<f64>,
}

impl DivergenceDetector {
    /// What is known of the first weights, once that was set.
    pub fn start(&self) -> Option<Start> {
        self.start
    }

    /// Sets what is known of the first weights.
    pub fn set_start(&mut self, start: Start) {
        self.start = Some(start);
    }

    /// Forgets all losses.
    pub fn restart(&mut self) {
        *self = Self { start: self.start, ..Self::default() };
    }

    /// Takes in the loss of an update, which must be finite; gives what it has risen from where that is suspicious.
    pub fn observe(&mut self, loss: f64) -> Option<f64> {
        let share = (1. / (self.updates + 1) as f64).max(1. / WINDOW);
        let change = loss - self.smoothed;
        self.smoothed += share * change;
        self.variance = (1. - share) * (self.variance + share * change * change);
        self.updates += 1;
        if self.updates < FIRST as u64 {
            return None;
        }
        if self.updates.is_multiple_of(BLOCK) {
            self.previous = self.block.take();
        }
        let minimum = self.minimum().map_or(self.smoothed, |minimum| minimum.min(self.smoothed));
        self.block = Some(self.block.map_or(self.smoothed, |block| block.min(self.smoothed)));
        // The variance of an exponential average of independent values.
        let error = (self.variance * share / (2. - share)).sqrt();
        let is_above = |limit: f64| self.smoothed > RATIO * limit && self.smoothed > limit + DEVIATIONS * error;
        let start = self.start.and_then(|start| start.loss);
        [Some(minimum), start].into_iter().flatten().find(|&limit| is_above(limit))
    }

    /// The smoothed loss.
    pub fn smoothed(&self) -> f64 {
        self.smoothed
    }

    /// Whether the smoothed loss is at its recent minimum.
    pub fn is_lowest(&self) -> bool {
        self.minimum().is_none_or(|minimum| self.smoothed <= minimum)
    }

    fn minimum(&self) -> Option<f64> {
        match (self.block, self.previous) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};

    /// The update at which losses are suspicious.
    fn stopped(losses: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut detector = DivergenceDetector::default();
        losses.into_iter().position(|loss| detector.observe(loss).is_some())
    }

    fn noise(count: usize, seed: u64) -> Vec<f64> {
        let mut generator = Generator::new(seed);
        let normal = BitNetTensor::randn(&[count], BitNetDType::F64, &Device::cpu(), &mut generator).unwrap();
        normal.to_vec().unwrap()
    }

    #[test]
    fn noise_of_small_batches_is_no_divergence() {
        // A batch of one row of 32 characters: a standard deviation of about 0.4 nats around 1.35.
        let losses = |seed| noise(20_000, seed).into_iter().map(|x| (1.35 + 0.4 * x).max(0.05));
        for seed in 0..5 {
            assert_eq!(stopped(losses(seed)), None, "seed {seed}");
        }
        // Nearly overfitted: small losses with many times their size between them.
        assert_eq!(stopped(noise(20_000, 9).into_iter().map(|x| 0.02 * (1.5 * x).exp())), None);
    }

    #[test]
    fn a_rise_is_seen_within_a_few_updates() {
        for (level, deviation) in [(1.35, 0.02), (1.35, 0.4), (0.1, 0.05), (4.2, 0.1)] {
            let rising = noise(400, 1).into_iter().enumerate().map(|(i, x)| {
                let risen = if i < 100 { 1. } else { 2.5 };
                (risen * level + deviation * x).max(0.)
            });
            let at = stopped(rising).unwrap_or_else(|| panic!("{level} with {deviation} was not seen"));
            assert!((101..130).contains(&at), "{level} with {deviation}: {at}");
        }
    }

    #[test]
    fn a_loss_that_falls_or_rises_slowly_is_healthy() {
        assert_eq!(stopped((0..3000).map(|i| 1.2 + 3. / (1. + i as f64 / 50.))), None);
        // Other data, little by little: twice the loss over 4000 updates.
        assert_eq!(stopped((0..4000).map(|i| 1. + i as f64 / 4000.)), None);
    }
}
