//! Activation checkpointing.

use super::node::Node;
use super::{BackwardOptions, enable_grad, is_recording, no_grad};
use crate::{BitNetTensor, Result};
use std::sync::Arc;

/// `body(inputs)` whose intermediate results are not saved but recomputed in the backward pass (Chen et al. 2016;
/// `torch.utils.checkpoint`). Gradients reach the inputs, and leaves captured by `body`.
///
/// `body` must be deterministic: draw random numbers from a seed made outside. [`gradients`](super::gradients) reaches
/// only the inputs, not captured leaves.
pub fn checkpoint(
    inputs: &[&BitNetTensor],
    body: impl Fn(&[BitNetTensor]) -> Result<BitNetTensor> + Send + Sync + 'static,
) -> Result<BitNetTensor> {
    let inputs: Vec<BitNetTensor> = inputs.iter().map(|&x| x.clone()).collect();
    let saved: Vec<BitNetTensor> = inputs.iter().map(BitNetTensor::detach).collect();
    let mut out = no_grad(|| body(&saved))?.detach();
    if !is_recording() {
        return Ok(out);
    }
    let wanted: Vec<bool> = inputs.iter().map(BitNetTensor::requires_grad).collect();
    let backward = move |grad: &BitNetTensor| {
        let mut again = saved.clone();
        for (x, &wanted) in again.iter_mut().zip(&wanted) {
            if wanted {
                x.requires_grad_(true)?;
            }
        }
        let result = enable_grad(|| body(&again))?;
        if result.requires_grad() {
            result.backward_with(Some(grad), BackwardOptions::default())?;
        }
        Ok(again.iter().map(BitNetTensor::take_grad).collect())
    };
    let operands: Vec<&BitNetTensor> = inputs.iter().collect();
    out.node = Some(Node::inner("checkpoint", &operands, &out, |_| Arc::new(backward)));
    Ok(out)
}
