//! What runs an operation: a vector kernel for common layouts of f32, else the strided engine, else the composition.

use super::*;

pub(super) fn run(cpu: &CpuBackend, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
    let threads = &cpu.threads;
    let ran = match (*op, inputs, &mut *outputs) {
        (Op::Copy, &[x], [out]) => {
            dense::transpose(cpu, &x, out.reborrow())? || done(copy::copy(threads, x, out.reborrow()))?
        }
        (Op::Unary(f), [x], [out]) => {
            dense::unary(cpu, f, x, out)? || done(elementwise::unary(cpu, f, *x, out.reborrow()))?
        }
        (Op::Binary(f), [a, b], [out]) => {
            dense::binary(cpu, f, a, b, out)? || done(elementwise::binary(threads, f, *a, *b, out.reborrow()))?
        }
        (Op::Compare(f), &[a, b], [out]) => done(compare::compare(threads, f, a, b, out.reborrow()))?,
        (Op::Select, &[condition, a, b], [out]) => done(compare::select(threads, condition, a, b, out.reborrow()))?,
        (Op::Cast, &[x], [out]) => {
            dense::cast(cpu, &x, out.reborrow())? || done(cast::cast(threads, x, out.reborrow()))?
        }
        (Op::Reduce { op: ReduceOp::Norm, axis }, &[x], [out]) => done(norm::norm(cpu, x, axis, out.reborrow()))?,
        (Op::Reduce { op, axis }, &[x], [out]) => {
            dense::reduce(cpu, op, &x, axis, out.reborrow())?
                || done(reduce::reduce(threads, op, x, axis, out.reborrow()))?
        }
        (Op::Scan { op, axis }, &[x], [out]) => done(reduce::scan(op, x, axis, out.reborrow()))?,
        (Op::Matmul, [a, b], [out]) => done(matmul::matmul(cpu, a, b, out.reborrow()))?,
        (Op::Gather { axis }, &[source, indices], [out]) => {
            done(gather::gather(threads, source, axis, indices, out.reborrow()))?
        }
        (Op::Scatter { op, axis }, &[source, indices], [out]) => {
            done(scatter::scatter(op, source, axis, indices, out.reborrow()))?
        }
        (Op::Sort { axis, descending }, &[x], [values, indices]) => {
            done(sort::sort(threads, x, axis, descending, values.reborrow(), indices.reborrow()))?
        }
        (Op::Random { distribution, skip }, [state], [out]) => {
            done(random::random(threads, distribution, skip, state, out.reborrow()))?
        }
        (Op::UnaryAssign(f), [], [x]) => {
            dense::unary_assign(cpu, f, x.reborrow())? || done(elementwise::unary_assign(cpu, f, x.reborrow()))?
        }
        (Op::BinaryAssign(f), [x], [y]) => done(fused::binary_assign(cpu, f, y, x))?,
        (Op::RmsNorm { eps }, [x, weight], [out]) => fused::rms_norm(cpu, x, weight, eps, out)?,
        (Op::Softmax, [x], [out]) => dense::softmax(cpu, x, false, out.reborrow())?,
        (Op::LogSoftmax, [x], [out]) => dense::softmax(cpu, x, true, out.reborrow())?,
        (Op::LayerNorm { eps, weight, bias }, [x, rest @ ..], [out]) => {
            let (weight, bias) = optional(rest, weight, bias);
            dense::layer_norm(cpu, x, weight, bias, eps, out.reborrow())?
        }
        (Op::Variance { axis, correction }, [x], [mean, out]) => {
            dense::variance(cpu, x, axis, correction, mean.reborrow(), out.reborrow())?
        }
        (Op::StandardDeviation { axis, correction }, &[x], [out]) => {
            dense::standard_deviation(cpu, &x, axis, correction, out.reborrow())?
                || norm::standard_deviation(cpu, x, axis, correction, out)?
        }
        (Op::Rope, [cos, sin, positions], [x]) => done(fused::rope(cpu, x.reborrow(), cos, sin, positions))?,
        (Op::StoreKv, [keys, values, slots], outputs) => kv_pages::store_kv(cpu, keys, values, slots, outputs)?,
        (Op::PagedAttention { scale, window }, inputs, [out]) => {
            kv_pages::paged_attention(cpu, (scale, window), inputs, out)?
        }
        (Op::ShortConv, inputs, [out, state]) => {
            let Ok(inputs) = inputs.try_into() else { return op.check(inputs, outputs) };
            done(recurrent::short_conv(cpu, inputs, out, state))?
        }
        (Op::GatedDelta(shape), inputs, [out, state]) => {
            let Ok(inputs) = inputs.try_into() else { return op.check(inputs, outputs) };
            done(recurrent::gated_delta(cpu, shape, inputs, out, state))?
        }
        (Op::Sample, inputs, [tokens, probabilities]) => {
            let Ok(inputs) = inputs.try_into() else { return op.check(inputs, outputs) };
            done(sample::sample(cpu, inputs, tokens, probabilities))?
        }
        (Op::Gated(act), [up], [gate]) => done(fused::gated(cpu, act, gate.reborrow(), up))?,
        (Op::Embedding, [table, ids], [out]) => done(fused::embedding(table, ids, out.reborrow()))?,
        (Op::Linear, [x, w], [out]) => done(fused::linear(cpu, x, w, out.reborrow()))?,
        (Op::ExpertLinear, [x, w, experts], [out]) => done(fused::expert_linear(cpu, x, w, experts, out.reborrow()))?,
        (Op::QuantizeActivations(rule), [x], [values, scales, sums]) => {
            done(fused::quantize_activations(cpu, rule, x, values.reborrow(), scales.reborrow(), sums.reborrow()))?
        }
        (Op::TernaryMatmul(rule), inputs, [out]) => {
            let Ok(inputs) = inputs.try_into() else { return op.check(inputs, outputs) };
            done(fused::ternary_matmul(cpu, rule, inputs, out.reborrow()))?
        }
        (Op::RmsNormBackward { eps }, [grad, x, weight], [dx, dweight]) => {
            gradient::rms_norm_backward(cpu, grad, x, weight, eps, dx, dweight)?
        }
        (Op::GatedHalves(act), [both], [out]) => gradient::gated_halves(cpu, act, both, out)?,
        (Op::GatedHalvesBackward(act), [grad, both], [out]) => {
            gradient::gated_halves_backward(cpu, act, grad, both, out)?
        }
        (Op::CausalAttention(shape), [qkv, cos, sin], [out]) => {
            gradient::causal_attention(cpu, shape, qkv, cos, sin, out)?
        }
        (Op::CausalAttentionBackward(shape), [grad, qkv, cos, sin], [out]) => {
            gradient::causal_attention_backward(cpu, shape, grad, qkv, cos, sin, out)?
        }
        (Op::Scale { rows, columns }, [x, rest @ ..], [out]) => {
            let (rows, columns) = optional(rest, rows, columns);
            gradient::scale(cpu, x, rows, columns, out)?
        }
        (Op::AdamStep(step), [grad, rates], [x, first, second]) => {
            gradient::adam_step(cpu, step, rates, grad, x, first, second)?
        }
        _ => false,
    };
    if ran { Ok(()) } else { op.compose(cpu, inputs, outputs) }
}

/// Of a function that takes every operand.
fn done(result: Result<()>) -> Result<bool> {
    result.map(|()| true)
}
