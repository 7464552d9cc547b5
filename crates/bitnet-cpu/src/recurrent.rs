//! Layers with a state of fixed size: calls of the kernels with slices.

use super::CpuBackend;
use super::operand::{slice, slice_mut};
use bitnet_device::backend::{DeltaShape, TensorMut, TensorRef};
use bitnet_device::{Result, TensorOpError};
use bitnet_kernels::recurrent::{self, Delta, StateRows};

/// The rows of a call, whose sequences and states are there.
fn rows<'a>(op: &'static str, inputs: &[TensorRef<'a>], state: &TensorMut) -> Result<StateRows<'a>> {
    let [sequences, positions, slots] = inputs else { unreachable!("checked") };
    let rows = StateRows {
        sequences: slice(op, "sequences", sequences)?,
        positions: slice(op, "positions", positions)?,
        slots: slice(op, "slots", slots)?,
    };
    let outside = |what: &str, indices: &[u32], count: usize| -> Result<()> {
        match indices.iter().find(|&&i| i as usize >= count) {
            Some(index) => {
                let message = format!("{what} {index}: there are {count}");
                Err(TensorOpError::Argument { op, message }.into())
            }
            None => Ok(()),
        }
    };
    outside("sequence", rows.sequences, rows.slots.len())?;
    outside("state", rows.slots, state.layout.dims()[0])?;
    if !rows.are_apart() {
        let message = "the rows of a sequence must lie beside each other, and no two sequences have one state".into();
        return Err(TensorOpError::Argument { op, message }.into());
    }
    Ok(rows)
}

pub(super) fn short_conv(
    cpu: &CpuBackend,
    inputs: &[TensorRef; 5],
    out: &mut TensorMut,
    state: &mut TensorMut,
) -> Result<()> {
    const OP: &str = "short_conv";
    let (x, weights) = (slice(OP, "x", &inputs[0])?, slice(OP, "weights", &inputs[1])?);
    let rows = rows(OP, &inputs[2..], state)?;
    let (state, out) = (slice_mut(OP, "state", state.reborrow())?, slice_mut(OP, "out", out.reborrow())?);
    recurrent::short_conv(cpu.kernels()?.isa, &cpu.threads, x, weights, &rows, state, out);
    Ok(())
}

pub(super) fn gated_delta(
    cpu: &CpuBackend,
    shape: DeltaShape,
    inputs: &[TensorRef; 8],
    out: &mut TensorMut,
    state: &mut TensorMut,
) -> Result<()> {
    const OP: &str = "gated_delta";
    let x = Delta {
        shape,
        qkv: slice(OP, "qkv", &inputs[0])?,
        a: slice(OP, "a", &inputs[1])?,
        b: slice(OP, "b", &inputs[2])?,
        decay: slice(OP, "decay", &inputs[3])?,
        bias: slice(OP, "bias", &inputs[4])?,
    };
    let rows = rows(OP, &inputs[5..], state)?;
    let (state, out) = (slice_mut(OP, "state", state.reborrow())?, slice_mut(OP, "out", out.reborrow())?);
    recurrent::gated_delta(cpu.kernels()?.isa, &cpu.threads, &x, &rows, state, out);
    Ok(())
}
