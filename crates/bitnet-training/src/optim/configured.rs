//! The optimizer that a configuration asks for.

use super::{Group, GroupedOptimizer, MuonScale, Precision, Rule};
use crate::Result;
use crate::config::{OptimizerConfig, OptimizerName};

/// Parameters that are not pulled to zero.
const NOT_DECAYED: [&str; 6] = ["*norm*", "*.bias", "*embed*", "lm_head.weight", "*.scale", "*.step"];

impl GroupedOptimizer {
    /// Two groups of one rule: norms, biases, embeddings, the output head and learned steps without weight decay, and all
    /// others with it. For Muon the first are AdamW's, and Muon's steps are as large as AdamW's, so that one learning rate
    /// serves both.
    ///
    /// # Errors
    /// Where a number is out of range.
    pub fn from_config(config: &OptimizerConfig, learning_rate: f64) -> Result<Self> {
        let (betas, eps) = ((config.betas[0], config.betas[1]), config.eps);
        let momentum = config.momentum;
        let adamw = Rule::AdamW { betas, eps };
        let (rule, apart) = match config.name {
            OptimizerName::Sgd => (Rule::Sgd { momentum, nesterov: false }, None),
            OptimizerName::Adam => (Rule::Adam { betas, eps }, None),
            OptimizerName::AdamW => (adamw, None),
            OptimizerName::Lion => (Rule::Lion { betas }, None),
            OptimizerName::Muon => (Rule::Muon { momentum, nesterov: true, scale: MuonScale::MatchAdamW }, Some(adamw)),
        };
        let precision = if config.eight_bit { Precision::EightBit } else { Precision::Full };
        let group = |rule| Group { precision, ..Group::new(rule, learning_rate) };
        Self::new(vec![group(apart.unwrap_or(rule)).matching(&NOT_DECAYED), group(rule).decayed(config.weight_decay)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameter_shapes;
    use crate::optim::{Optimizer, Update};
    use bitnet_core::{BitNetDType, BitNetTensor, Device};
    use bitnet_model::config::Config;

    #[test]
    fn every_parameter_of_a_model_has_its_group() {
        let json = include_str!("../../../bitnet-testkit/golden/bitnet-online-f32/config.json");
        let shapes = parameter_shapes(&Config::from_json(json).unwrap());
        for name in
            [OptimizerName::Sgd, OptimizerName::Adam, OptimizerName::AdamW, OptimizerName::Lion, OptimizerName::Muon]
        {
            let config = OptimizerConfig { name, weight_decay: 0.5, ..OptimizerConfig::default() };
            let mut optimizer = GroupedOptimizer::from_config(&config, 1e-3).unwrap();
            let decayed = |name: &str| !optimizer.group_list()[0].contains(name);
            let names = shapes.iter().filter(|(name, _)| decayed(name));
            assert!(names.clone().count() > 0 && names.clone().all(|(name, _)| name.ends_with("_proj.weight")));
            let cpu = Device::cpu();
            for (name, dims) in &shapes {
                let mut parameter = BitNetTensor::ones(dims, BitNetDType::F32, &cpu).unwrap();
                let gradient = parameter.full_like(0.1).unwrap();
                let update = Update { name: name.clone(), parameter: &mut parameter, gradient };
                optimizer.update(vec![update]).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
}
