//! Distillation: a student, ternary as a rule, learns from a teacher as well as from the text (Wu et al. 2025, BitNet
//! Distillation): from the distribution of its next tokens, and from the relations between tokens in one of its blocks.

mod losses;

pub use losses::{Head, Projections, Related, logit_loss, relation_loss};

use crate::data::Batch;
use crate::model::Transformer;
use crate::module::Module;
use crate::objective::{Objective, documents};
use crate::{Result, TrainingError};
use bitnet_core::autograd::no_grad;
use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetTensor, Generator};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[distill]`: a teacher beside the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// A Hugging Face directory with the teacher; it has the student's tokenizer.
    pub teacher: PathBuf,
    /// Weight of the loss of the text itself.
    #[serde(default = "one")]
    pub text: f64,
    /// Weight of the loss of the teacher's next tokens.
    #[serde(default = "one")]
    pub logits: f64,
    /// What logits are divided by before they are compared.
    #[serde(default = "two")]
    pub temperature: f64,
    /// Weight of the loss of the relations between tokens; 0 leaves it out.
    #[serde(default)]
    pub relations: f64,
    /// The student's block whose relations are compared, from 0; the last where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// The teacher's block that they are compared with; the last where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_block: Option<usize>,
    /// Heads that relations are split into; the student's heads of keys where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
}

fn one() -> f64 {
    1.0
}
fn two() -> f64 {
    2.0
}

/// A student that is trained beside a teacher that stays.
#[derive(Debug)]
pub struct Distillation {
    student: Transformer,
    teacher: Transformer,
    config: DistillConfig,
    block: usize,
    teacher_block: usize,
    relation_heads: usize,
}

impl Distillation {
    /// Brings both together.
    ///
    /// # Errors
    /// When their vocabularies differ, a block is not there, relation heads do not divide a width, or a number is
    /// out of range.
    pub fn new(student: Transformer, mut teacher: Transformer, config: DistillConfig) -> Result<Self> {
        let refuse = |problem: String| Err(TrainingError::Invalid(format!("distill: {problem}")));
        let (own, theirs) = (student.config(), teacher.config());
        if own.vocab_size != theirs.vocab_size {
            return refuse(format!("the student has {} tokens, the teacher {}", own.vocab_size, theirs.vocab_size));
        }
        if theirs.max_positions < own.max_positions {
            let (own, theirs) = (own.max_positions, theirs.max_positions);
            return refuse(format!("the student has {own} positions, the teacher {theirs}: too few"));
        }
        for (name, value) in [("text", config.text), ("logits", config.logits), ("relations", config.relations)] {
            if !(0. ..f64::INFINITY).contains(&value) {
                return refuse(format!("{name} is {value}: a weight is at least 0"));
            }
        }
        if !(config.temperature > 0. && config.temperature.is_finite()) {
            return refuse(format!("temperature is {}: it is above 0", config.temperature));
        }
        let block = config.block.unwrap_or(own.layers - 1);
        let teacher_block = config.teacher_block.unwrap_or(theirs.layers - 1);
        for (name, block, layers) in [("block", block, own.layers), ("teacher_block", teacher_block, theirs.layers)] {
            if block >= layers {
                return refuse(format!("{name} is {block}, the model has {layers}, counted from 0"));
            }
        }
        let relation_heads = config.relation_heads.unwrap_or(own.kv_heads);
        let widths = [own.query_size(), own.kv_size(), theirs.query_size(), theirs.kv_size()];
        if relation_heads == 0 || !widths.iter().all(|width| width.is_multiple_of(relation_heads)) {
            return refuse(format!("{relation_heads} relation_heads do not divide the widths {widths:?}"));
        }
        for tensor in teacher.tensors_mut().values_mut() {
            tensor.requires_grad_(false)?;
        }
        Ok(Self { student, teacher, config, block, teacher_block, relation_heads })
    }

    fn projections<'a>(model: &Transformer, all: &'a BitNetTensor) -> Projections<'a> {
        Projections { all, query: model.config().query_size(), kv: model.config().kv_size() }
    }
}

impl Module for Distillation {
    fn parameters(&self) -> Vec<(String, &BitNetTensor)> {
        self.student.parameters()
    }

    fn parameters_mut(&mut self) -> Vec<(String, &mut BitNetTensor)> {
        self.student.parameters_mut()
    }
}

impl Objective for Distillation {
    fn model(&self) -> &Transformer {
        &self.student
    }

    fn set_lambda(&mut self, lambda: f64) {
        self.student.set_lambda(lambda);
    }

    fn loss(&self, batch: &Batch, generator: Option<&mut Generator>) -> Result<BitNetTensor> {
        let (student, teacher) = (&self.student, &self.teacher);
        let related = self.config.relations > 0.;
        let block = |block: usize| related.then_some(block);
        let (hidden, own) =
            student.hidden_and_projections(&batch.inputs, documents(batch), generator, block(self.block))?;
        let taught =
            || teacher.hidden_and_projections(&batch.inputs, documents(batch), None, block(self.teacher_block));
        let (taught, theirs) = no_grad(taught)?;
        let compute = student.options().compute;
        let targets = batch.targets.reshape(&[hidden.dims()[0]])?;
        let text = student.head_loss(&hidden, &targets)?;
        let heads = (Head { hidden: &hidden, table: student.head() }, Head { hidden: &taught, table: teacher.head() });
        let logits = logit_loss(heads.0, heads.1, &targets, self.config.temperature, compute)?;
        let mut all = vec![(self.config.text, &text), (self.config.logits, &logits)];
        let relations = match (&own, &theirs) {
            (Some(own), Some(theirs)) => {
                let (own, theirs) = (Self::projections(student, own), Self::projections(teacher, theirs));
                let related = Related::new(&batch.targets, batch.segments.as_ref())?;
                Some(relation_loss(own, theirs, &related, self.relation_heads)?)
            }
            _ => None,
        };
        all.extend(relations.as_ref().map(|relations| (self.config.relations, relations)));
        losses::weighted_sum(&all)
    }

    fn fixed_model(&self) -> Option<&Transformer> {
        Some(&self.teacher)
    }

    fn result(&self, average: Option<&TensorMap>) -> Result<Transformer> {
        self.student.result(average)
    }
}
