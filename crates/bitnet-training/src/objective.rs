//! Objectives of training: parameters and the loss that is minimized.

use crate::Result;
use crate::data::Batch;
use crate::model::{Documents, Transformer};
use crate::module::Module;
use bitnet_core::serialize::TensorMap;
use bitnet_core::{BitNetTensor, Generator};
use std::fmt::Debug;

/// Parameters and the loss that is minimized.
pub trait Objective: Module + Debug + Send {
    /// The model that is trained, or that the parameters change.
    fn model(&self) -> &Transformer;

    /// How much of quantization the forward pass has, 0 to 1.
    fn set_lambda(&mut self, lambda: f64);

    /// The mean loss over the targets of a batch that count; with a generator it drops out, as training does.
    fn loss(&self, batch: &Batch, generator: Option<&mut Generator>) -> Result<BitNetTensor>;

    /// A model that the loss depends on and that stays as it is: the base of adapters, a teacher.
    fn fixed_model(&self) -> Option<&Transformer> {
        None
    }

    /// The model that these parameters make, or `average` in their place, quantized whole: what is evaluated and exported.
    fn result(&self, average: Option<&TensorMap>) -> Result<Transformer>;
}

/// Positions and documents of the tokens of a batch, where several share a row.
pub(crate) fn documents(batch: &Batch) -> Option<Documents<'_>> {
    Some(Documents { positions: batch.positions.as_ref()?, segments: batch.segments.as_ref()? })
}

impl Objective for Transformer {
    fn model(&self) -> &Transformer {
        self
    }

    fn set_lambda(&mut self, lambda: f64) {
        Transformer::set_lambda(self, lambda);
    }

    fn loss(&self, batch: &Batch, generator: Option<&mut Generator>) -> Result<BitNetTensor> {
        Transformer::loss(self, &batch.inputs, &batch.targets, documents(batch), generator)
    }

    fn result(&self, average: Option<&TensorMap>) -> Result<Transformer> {
        let mut model = self.clone();
        if let Some(average) = average {
            model.load_state_dict(average)?;
        }
        model.set_lambda(1.);
        Ok(model)
    }
}
