//! The choice of tokens: a call of the kernel with slices.

use super::CpuBackend;
use super::operand::{slice, slice_mut};
use bitnet_device::backend::{TensorMut, TensorRef};
use bitnet_device::{Result, TensorOpError};
use bitnet_kernels::sampling::{Choices, choose};

pub(super) fn sample(
    cpu: &CpuBackend,
    inputs: &[TensorRef; 5],
    tokens: &mut TensorMut,
    probabilities: &mut TensorMut,
) -> Result<()> {
    const OP: &str = "sample";
    let [logits, rows, edited, edits, mask] = inputs;
    let choices = Choices {
        logits: slice(OP, "logits", logits)?,
        rows: slice(OP, "rows", rows)?.as_chunks().0,
        edited: slice(OP, "edited", edited)?,
        edits: slice(OP, "edits", edits)?,
        mask: slice(OP, "mask", mask)?,
    };
    let vocab = logits.layout.shape().last();
    if let Some(token) = choices.edited.iter().find(|&&token| token as usize >= vocab) {
        let message = format!("an edit of token {token}: there are {vocab}");
        return Err(TensorOpError::Argument { op: OP, message }.into());
    }
    let tokens = slice_mut(OP, "tokens", tokens.reborrow())?;
    choose(&cpu.threads, &choices, tokens, slice_mut(OP, "probabilities", probabilities.reborrow())?);
    Ok(())
}
