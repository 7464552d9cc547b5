//! Schedules of a run: learning rate, weight decay, and the share of quantization.

use crate::config::{LambdaShape, QuantizationConfig, ScheduleConfig, ScheduleKind};

/// What the optimizer is given at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
}

/// Learning rate and weight decay of every step of a run.
///
/// Warm-up of `w` steps: step `s < w` has `peak (s + 1) / w`. What follows runs from `w` to the last step, and `p` is how
/// much of it has passed, from 0 at step `w` to 1 at the number of steps:
///
/// - constant: `peak`
/// - linear: `peak + (end - peak) p`
/// - cosine: `end + (peak - end) (1 + cos(pi p)) / 2`
/// - wsd (warm-up, stable, decay): `peak` until the switch, then `end + (peak - end) (1 - sqrt(q))`, where `q` is how much of
///   the decay has passed. The last part is a small share of the steps, so that a run can be made longer from a checkpoint
///   before it (Hu et al. 2024, MiniCPM; the shape is that of Hägele et al. 2024, section 4).
/// - two-stage: linear from `peak` to `stage_one_end` until the switch, then linear from `stage_two` to `end`; the weight
///   decay drops at the switch. The schedule of BitNet b1.58 ("The Era of 1-bit LLMs: Training Tips, Code and FAQ", and
///   the technical report of BitNet b1.58 2B4T, section 2.2): ternary weights bear a high rate at first, and a large decay
///   of weights near zero keeps them from settling.
///
/// ```
/// use bitnet_training::Schedule;
/// use bitnet_training::config::{ScheduleConfig, ScheduleKind};
/// let config = ScheduleConfig { kind: ScheduleKind::Linear, learning_rate: 1e-3, warmup: 10, ..Default::default() };
/// let schedule = Schedule::new(&config, 110, 0.1);
/// assert_eq!(schedule.at(4).learning_rate, 0.5e-3);
/// assert_eq!(schedule.at(60).learning_rate, 0.5e-3);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    config: ScheduleConfig,
    steps: u64,
    weight_decay: f64,
}

impl Schedule {
    /// The schedule of a run of `steps` updates whose optimizer decays weights by `weight_decay`.
    pub fn new(config: &ScheduleConfig, steps: u64, weight_decay: f64) -> Self {
        Self { config: config.clone(), steps, weight_decay }
    }

    /// The rates of update `step`, counted from 0. After the last step they stay as they were at the end.
    pub fn at(&self, step: u64) -> Rates {
        let c = &self.config;
        let second = c.kind == ScheduleKind::TwoStage && step >= self.switch();
        let weight_decay = if second { c.stage_two_weight_decay } else { self.weight_decay };
        let peak = c.learning_rate;
        if step < c.warmup {
            return Rates { learning_rate: peak * (step + 1) as f64 / c.warmup as f64, weight_decay };
        }
        let passed = |from: u64, to: u64| ((step - from) as f64 / to.saturating_sub(from).max(1) as f64).min(1.0);
        let line = |from: f64, to: f64, p: f64| from + (to - from) * p;
        let p = passed(c.warmup, self.steps);
        let learning_rate = match c.kind {
            ScheduleKind::Constant => peak,
            ScheduleKind::Linear => line(peak, c.end, p),
            ScheduleKind::Cosine => c.end + (peak - c.end) * (1.0 + (std::f64::consts::PI * p).cos()) / 2.0,
            ScheduleKind::Wsd if step < self.switch() => peak,
            ScheduleKind::Wsd => line(peak, c.end, passed(self.switch(), self.steps).sqrt()),
            ScheduleKind::TwoStage if second => line(c.stage_two_rate(), c.end, passed(self.switch(), self.steps)),
            ScheduleKind::TwoStage => line(peak, c.stage_one_end_rate(), passed(c.warmup, self.switch())),
        };
        Rates { learning_rate, weight_decay }
    }

    /// The first step of the second stage, or of the decay.
    fn switch(&self) -> u64 {
        ((self.steps as f64 * self.config.switch_share()).round() as u64).max(self.config.warmup)
    }
}

/// The share `lambda` of the quantizer in `x + lambda (Q(x) - x)` at each step: from 0 to 1 over the first steps, then 1.
///
/// With `p = step / steps`: linear `p`; cosine `(1 - cos(pi p)) / 2`; exponential `(1 - exp(-5 p)) / (1 - exp(-5))`;
/// sigmoid the logistic function of `12 (p - 1/2)`, scaled to run from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LambdaSchedule {
    shape: LambdaShape,
    steps: u64,
}

impl LambdaSchedule {
    /// The warm-up that a configuration asks for.
    pub fn new(config: &QuantizationConfig) -> Self {
        Self { shape: config.lambda_shape, steps: config.lambda_steps }
    }

    /// `lambda` of update `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step >= self.steps {
            return 1.0;
        }
        let p = step as f64 / self.steps as f64;
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self.shape {
            LambdaShape::Linear => p,
            LambdaShape::Cosine => (1.0 - (std::f64::consts::PI * p).cos()) / 2.0,
            LambdaShape::Exponential => (1.0 - (-5.0 * p).exp()) / (1.0 - (-5.0f64).exp()),
            LambdaShape::Sigmoid => {
                let (low, high) = (logistic(-6.0), logistic(6.0));
                (logistic(12.0 * (p - 0.5)) - low) / (high - low)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        let config = ScheduleConfig { kind, learning_rate: 2e-3, warmup: 100, end: 2e-4, ..ScheduleConfig::default() };
        Schedule::new(&config, 1100, 0.1)
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn all_kinds_warm_up_alike_and_end_at_their_end() {
        for kind in [
            ScheduleKind::Constant,
            ScheduleKind::Linear,
            ScheduleKind::Cosine,
            ScheduleKind::TwoStage,
            ScheduleKind::Wsd,
        ] {
            let s = schedule(kind);
            near(s.at(0).learning_rate, 2e-5);
            near(s.at(99).learning_rate, 2e-3);
            near(s.at(100).learning_rate, 2e-3);
            let end = if kind == ScheduleKind::Constant { 2e-3 } else { 2e-4 };
            near(s.at(1100).learning_rate, end);
            near(s.at(1_000_000).learning_rate, end);
        }
    }

    #[test]
    fn lines_and_cosines() {
        near(schedule(ScheduleKind::Linear).at(600).learning_rate, 1.1e-3);
        let cosine = schedule(ScheduleKind::Cosine);
        near(cosine.at(600).learning_rate, 1.1e-3);
        // A quarter of the way: (1 + cos(pi / 4)) / 2 of the distance is left.
        near(cosine.at(350).learning_rate, 2e-4 + 1.8e-3 * (1.0 + 0.5f64.sqrt()) / 2.0);
    }

    #[test]
    fn wsd_stays_at_its_peak_and_decays_at_the_end() {
        let s = schedule(ScheduleKind::Wsd);
        // Four fifths of 1100 steps are 880; the decay takes 220.
        for step in [100, 500, 879, 880] {
            near(s.at(step).learning_rate, 2e-3);
        }
        near(s.at(935).learning_rate, 2e-3 - 1.8e-3 * 0.5);
        near(s.at(1100).learning_rate, 2e-4);
        let config = ScheduleConfig { kind: ScheduleKind::Wsd, switch_at: Some(0.5), ..ScheduleConfig::default() };
        near(Schedule::new(&config, 100, 0.1).at(75).learning_rate, 1e-3 * (1.0 - 0.5f64.sqrt()));
    }

    #[test]
    fn two_stages_drop_rate_and_decay_at_the_switch() {
        let config = ScheduleConfig {
            kind: ScheduleKind::TwoStage,
            learning_rate: 1.5e-3,
            stage_one_end: Some(8e-4),
            stage_two: Some(5e-4),
            ..ScheduleConfig::default()
        };
        let s = Schedule::new(&config, 1000, 0.1);
        near(s.at(0).learning_rate, 1.5e-3);
        near(s.at(250).learning_rate, 1.15e-3);
        let (before, after) = (s.at(499), s.at(500));
        near(before.learning_rate, 1.5e-3 - 7e-4 * 499.0 / 500.0);
        assert_eq!((before.weight_decay, after.weight_decay), (0.1, 0.0));
        near(after.learning_rate, 5e-4);
        near(s.at(750).learning_rate, 2.5e-4);
        near(s.at(1000).learning_rate, 0.0);
    }

    #[test]
    fn lambda_rises_from_nothing_to_all() {
        for shape in [LambdaShape::Linear, LambdaShape::Cosine, LambdaShape::Exponential, LambdaShape::Sigmoid] {
            let s = LambdaSchedule { shape, steps: 200 };
            near(s.at(0), 0.0);
            assert_eq!(s.at(200), 1.0);
            let values: Vec<f64> = (0..=200).map(|i| s.at(i)).collect();
            assert!(values.windows(2).all(|w| w[0] < w[1]), "{shape:?}");
            if shape != LambdaShape::Exponential {
                near(s.at(100), 0.5);
            }
        }
        assert_eq!(LambdaSchedule { shape: LambdaShape::Linear, steps: 0 }.at(0), 1.0);
    }
}
