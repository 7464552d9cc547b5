//! Parameter groups: a rule, a learning rate and a weight decay for the parameters of some names.

use super::Rule;
use crate::{Result, TrainingError};

/// Tensors with fewer elements keep full precision where 8 bits are asked for, as in Dettmers et al. 2022: they are no
/// burden, and norms and biases are sensitive.
pub(super) const SMALLEST_EIGHT_BIT: usize = 4096;

/// In what a rule's memory of a parameter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// In the parameter's own dtype.
    #[default]
    Full,
    /// In 8 bits with a scale for each 256 elements ([`BlockQuantized`](super::BlockQuantized)); parameters of fewer than
    /// 4096 elements in their own dtype.
    EightBit,
}

/// A rule and its numbers for the parameters whose names match.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Names: `*` stands for any characters. No patterns match everything.
    pub patterns: Vec<String>,
    /// The formulas.
    pub rule: Rule,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay, multiplied with the learning rate where it is decoupled (AdamW, Lion, Muon).
    pub weight_decay: f64,
    /// In what the rule's memory is kept.
    pub precision: Precision,
}

impl Group {
    /// A rule for all parameters, without weight decay.
    pub fn new(rule: Rule, learning_rate: f64) -> Self {
        Self { patterns: Vec::new(), rule, learning_rate, weight_decay: 0., precision: Precision::Full }
    }

    /// The same for parameters that match one of these patterns only.
    pub fn matching(mut self, patterns: &[&str]) -> Self {
        self.patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        self
    }

    /// The same with weight decay.
    pub fn decayed(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// The same with its memory in 8 bits.
    pub fn eight_bit(mut self) -> Self {
        self.precision = Precision::EightBit;
        self
    }

    /// Whether a parameter of that name belongs to it, if no group before takes it.
    pub fn contains(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, name))
    }

    pub(super) fn check(&self) -> Result<()> {
        let number = |what: &str, value: f64, good: bool| {
            if good { Ok(()) } else { Err(TrainingError::Invalid(format!("{what} is {value}"))) }
        };
        number("learning rate", self.learning_rate, (0. ..f64::INFINITY).contains(&self.learning_rate))?;
        number("weight decay", self.weight_decay, (0. ..f64::INFINITY).contains(&self.weight_decay))?;
        self.rule.check()
    }
}

/// Whether `name` is `pattern` with each `*` replaced by some characters or none.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("lm_head.weight", "lm_head.weight", true),
            ("lm_head", "lm_head.weight", false),
            ("*norm*", "model.layers.0.input_layernorm.weight", true),
            ("*norm*", "model.layers.0.mlp.up_proj.weight", false),
            ("*_proj.weight", "model.layers.0.mlp.up_proj.weight", true),
            ("*_proj.weight", "model.layers.0.mlp.up_proj.weight_scale", false),
            ("model.*.mlp.*.weight", "model.layers.11.mlp.down_proj.weight", true),
            ("model.*.mlp.*.weight", "model.layers.11.self_attn.q_proj.weight", false),
            ("a*ba", "aba", true),
            ("a*ba", "aa", false),
            ("a*b*b", "ab", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_meant_are_errors() {
        let bad = [
            Group::new(Rule::adamw(), f64::NAN),
            Group::new(Rule::adamw(), -1.),
            Group::new(Rule::adamw(), 1.).decayed(-0.1),
            Group::new(Rule::AdamW { betas: (0.9, 1.), eps: 1e-8 }, 1.),
            Group::new(Rule::Sgd { momentum: 0., nesterov: true }, 1.),
        ];
        for group in bad {
            assert!(matches!(group.check(), Err(TrainingError::Invalid(_))), "{group:?}");
        }
        assert!(Group::new(Rule::muon(), 0.02).decayed(0.1).eight_bit().check().is_ok());
    }
}
