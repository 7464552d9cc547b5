//! Fused operations in primitives.

use super::*;

impl Op {
    /// Runs a fused operation as primitives of `device`. Operands narrower than f32 are computed in f32 and rounded once, f64 in
    /// f64.
    ///
    /// # Errors
    /// [`BitNetError::Unsupported`] for a primitive: it has no composition.
    pub fn compose(&self, device: &dyn Backend, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        match (*self, inputs, outputs) {
            (Op::UnaryAssign(op), [], [x]) => fused::unary_assign(device, op, x.reborrow()),
            (Op::BinaryAssign(op), &[x], [y]) => fused::binary_assign(device, op, y.reborrow(), x),
            (Op::RmsNorm { eps }, &[x, weight], [out]) => fused::rms_norm(device, x, weight, eps, out.reborrow()),
            (Op::Softmax, &[x], [out]) => fused::softmax(device, x, out.reborrow()),
            (Op::LogSoftmax, &[x], [out]) => fused::log_softmax(device, x, out.reborrow()),
            (Op::LayerNorm { eps, weight, bias }, [x, rest @ ..], [out]) => {
                let (weight, bias) = optional(rest, weight, bias);
                fused::layer_norm(device, *x, weight, bias, eps, out.reborrow())
            }
            (Op::Variance { axis, correction }, &[x], [mean, out]) => {
                fused::variance(device, x, axis, correction, mean.reborrow(), out.reborrow())
            }
            (Op::StandardDeviation { axis, correction }, &[x], [out]) => {
                fused::standard_deviation(device, x, axis, correction, out.reborrow())
            }
            (Op::Rope, &[cos, sin, positions], [x]) => fused::rope(device, x.reborrow(), cos, sin, positions),
            (Op::StoreKv, &[keys, values, slots], outputs) => {
                kv_pages::store_kv(device, [keys, values, slots], outputs)
            }
            (
                Op::PagedAttention { scale, window },
                &[q, keys, values, table, sequences, positions, ref rest @ ..],
                [out],
            ) => {
                let pages = KvPages { keys, values, scales: rest.try_into().ok() };
                let rows = KvRows { table, sequences, positions };
                kv_pages::paged_attention(device, (scale, window), q, pages, rows, out.reborrow())
            }
            (Op::ShortConv, &[x, weights, sequences, positions, slots], [out, state]) => {
                let rows = StateRows { sequences, positions, slots };
                recurrent::short_conv(device, x, weights, rows, out.reborrow(), state.reborrow())
            }
            (Op::GatedDelta(shape), &[qkv, a, b, decay, bias, sequences, positions, slots], [out, state]) => {
                let (gates, rows) = (DeltaGates { a, b, decay, bias }, StateRows { sequences, positions, slots });
                recurrent::gated_delta(device, shape, qkv, gates, rows, out.reborrow(), state.reborrow())
            }
            (Op::Sample, &[logits, rows, edited, edits, mask], [tokens, probabilities]) => {
                let how = SampleRows { rows, edited, edits, mask };
                sample::sample(device, logits, how, tokens.reborrow(), probabilities.reborrow())
            }
            (Op::Gated(act), &[up], [gate]) => fused::gated(device, act, gate.reborrow(), up),
            (Op::Embedding, &[table, ids], [out]) => fused::embedding(device, ids, table, out.reborrow()),
            (Op::Linear, &[x, w], [out]) => fused::linear(device, x, w, out.reborrow()),
            (Op::ExpertLinear, &[x, w, experts], [out]) => fused::expert_linear(device, x, w, experts, out.reborrow()),
            (Op::QuantizeActivations(rule), &[x], [values, scales, sums]) => {
                ternary::quantize_activations(device, rule, x, values.reborrow(), scales.reborrow(), sums.reborrow())
            }
            (Op::TernaryMatmul(rule), &[values, scales, sums, weights, row_scales], [out]) => {
                let x = QuantizedActivations { rule, values, scales, sums };
                ternary::ternary_matmul(device, x, weights, row_scales, out.reborrow())
            }
            (Op::RmsNormBackward { eps }, &[grad, x, weight], [dx, dweight]) => {
                gradient::rms_norm_backward(device, grad, x, weight, eps, dx.reborrow(), dweight.reborrow())
            }
            (Op::GatedHalves(act), &[both], [out]) => gradient::gated_halves(device, act, both, out.reborrow()),
            (Op::GatedHalvesBackward(act), &[grad, both], [out]) => {
                gradient::gated_halves_backward(device, act, grad, both, out.reborrow())
            }
            (Op::CausalAttention(shape), &[qkv, cos, sin], [out]) => {
                attention::causal_attention(device, shape, qkv, cos, sin, out.reborrow())
            }
            (Op::CausalAttentionBackward(shape), &[grad, qkv, cos, sin], [out]) => {
                attention::causal_attention_backward(device, shape, grad, qkv, cos, sin, out.reborrow())
            }
            (Op::Scale { rows, columns }, [x, rest @ ..], [out]) => {
                let (rows, columns) = optional(rest, rows, columns);
                gradient::scale(device, *x, rows, columns, out.reborrow())
            }
            (Op::AdamStep(step), &[grad, rates], [x, first, second]) => {
                gradient::adam_step(device, step, rates, x.reborrow(), grad, first.reborrow(), second.reborrow())
            }
            (op, inputs, _) => {
                let dtype = inputs.first().map_or(BitNetDType::F32, |x| x.dtype);
                Err(unsupported(device, op.name(), dtype))
            }
        }
    }
}

/// The operands after the first that an operation says are there.
pub fn optional<'a>(
    rest: &[TensorRef<'a>],
    first: bool,
    second: bool,
) -> (Option<TensorRef<'a>>, Option<TensorRef<'a>>) {
    let one = first.then(|| rest[0]);
    (one, second.then(|| rest[first as usize]))
}
