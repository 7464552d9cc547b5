//! What the operands of an operation must be: checked once, here, for all devices.

use super::*;
use crate::shape::same_dims;
use crate::{MAX_DIMS, TensorOpError};
use BitNetDType::{BF16, Bool, F16, F32, I8, I32, I64, U32, U64};

/// The operands of one call and the operation they are for.
struct Check<'a> {
    op: &'static str,
    inputs: &'a [TensorRef<'a>],
    outputs: &'a [TensorMut<'a>],
}

/// Layout and dtype of an operand.
#[derive(Clone, Copy)]
struct Operand<'a> {
    what: &'static str,
    layout: &'a Layout,
    dtype: BitNetDType,
}

impl Operand<'_> {
    fn dims(&self) -> &[usize] {
        self.layout.dims()
    }

    fn last(&self) -> usize {
        self.layout.shape().last()
    }
}

impl Op {
    /// An error that names the operand and what it must be, unless these operands fit the operation. Values (an index outside
    /// of its dimension, a division by zero) are found by the device.
    pub fn check(&self, inputs: &[TensorRef], outputs: &[TensorMut]) -> Result<()> {
        Check { op: self.name(), inputs, outputs }.all(self)
    }
}

impl<'a> Check<'a> {
    /// The inputs by name; an error for another number of them.
    #[inline(always)]
    fn named<const N: usize, const M: usize>(
        &self,
        inputs: [&'static str; N],
        outputs: [&'static str; M],
    ) -> Result<([Operand<'a>; N], [Operand<'a>; M])> {
        if self.inputs.len() != N || self.outputs.len() != M {
            let (got, out) = (self.inputs.len(), self.outputs.len());
            let message = format!("takes {N} operands and gives {M} results, got {got} and {out}");
            return Err(TensorOpError::Argument { op: self.op, message }.into());
        }
        let (given, results) = (self.inputs, self.outputs);
        let input = |i: usize| Operand { what: inputs[i], layout: &given[i].layout, dtype: given[i].dtype };
        let output = |i: usize| Operand { what: outputs[i], layout: &results[i].layout, dtype: results[i].dtype };
        Ok((std::array::from_fn(input), std::array::from_fn(output)))
    }

    #[inline]
    fn shape(&self, fits: bool, x: Operand, needed: impl FnOnce() -> String) -> Result<()> {
        if fits {
            return Ok(());
        }
        Err(TensorOpError::Shape { op: self.op, what: x.what, got: *x.layout.shape(), needed: needed() }.into())
    }

    fn is(&self, x: Operand, dims: &[usize]) -> Result<()> {
        self.shape(same_dims(x.dims(), dims), x, || format!("{dims:?}"))
    }

    fn dtype(&self, x: Operand, needed: BitNetDType) -> Result<()> {
        if x.dtype == needed {
            return Ok(());
        }
        Err(TensorOpError::DType { op: self.op, what: x.what, got: x.dtype, needed }.into())
    }

    fn same(&self, x: Operand, as_x: Operand) -> Result<()> {
        self.is(x, as_x.dims())
    }

    fn axis(&self, x: Operand, axis: usize) -> Result<()> {
        if axis < x.layout.shape().rank() {
            return Ok(());
        }
        Err(TensorOpError::NoAxis { op: self.op, axis: axis as isize, shape: *x.layout.shape() }.into())
    }

    /// Quantized activations of `[T, K]`.
    fn quantized(
        &self,
        rule: ActivationRule,
        [tokens, columns]: [usize; 2],
        [values, scales, sums]: [Operand; 3],
    ) -> Result<()> {
        let digits = rule.digits();
        self.is(values, &[tokens, digits, columns])?;
        self.is(scales, &[tokens, rule.blocks(columns)])?;
        self.is(sums, &[tokens, digits, columns.div_ceil(ActivationRule::SUM_COLUMNS)])?;
        self.dtype(values, I8)
    }

    /// `out` has the shape of `x` with extent 1 along `axis`.
    fn reduced(&self, x: Operand, axis: usize, out: Operand) -> Result<()> {
        self.axis(x, axis)?;
        let mut dims = [1; MAX_DIMS];
        dims[..x.dims().len()].copy_from_slice(x.dims());
        dims[axis] = 1;
        self.is(out, &dims[..x.dims().len()])
    }

    /// Operands of element-wise arithmetic beside a result of this dtype: one may be a number in f32.
    fn arithmetic(&self, operands: &[Operand], result: BitNetDType) -> Result<()> {
        let number = |x: &Operand| x.dtype == F32 && matches!(result, F16 | BF16);
        let numbers = operands.iter().filter(|x| number(x)).count();
        let odd = operands.iter().find(|x| x.dtype != result && !(number(x) && numbers <= 1));
        odd.map_or(Ok(()), |x| self.dtype(*x, result))
    }

    fn all(&self, op: &Op) -> Result<()> {
        match *op {
            Op::Copy => {
                let ([x], [out]) = self.named(["source"], ["out"])?;
                self.same(x, out)?;
                self.dtype(x, out.dtype)
            }
            Op::Unary(_) => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                self.same(x, out)?;
                self.dtype(out, x.dtype)
            }
            Op::Binary(_) => {
                let ([a, b], [out]) = self.named(["a", "b"], ["out"])?;
                self.same(a, out)?;
                self.same(b, out)?;
                self.arithmetic(&[a, b], out.dtype)
            }
            Op::Compare(_) => {
                let ([a, b], [out]) = self.named(["a", "b"], ["out"])?;
                self.same(a, out)?;
                self.same(b, out)?;
                self.dtype(b, a.dtype)?;
                self.dtype(out, Bool)
            }
            Op::Select => {
                let ([condition, a, b], [out]) = self.named(["condition", "a", "b"], ["out"])?;
                for x in [condition, a, b] {
                    self.same(x, out)?;
                }
                self.dtype(condition, Bool)?;
                self.dtype(a, out.dtype)?;
                self.dtype(b, out.dtype)
            }
            Op::Cast | Op::Softmax | Op::LogSoftmax => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                self.same(x, out)
            }
            Op::Reduce { op, axis } => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                self.reduced(x, axis, out)?;
                let none = x.dims()[axis] == 0 && out.layout.shape().elements() > 0;
                let any = !matches!(op, ReduceOp::Max | ReduceOp::Min | ReduceOp::ArgMax | ReduceOp::ArgMin);
                self.shape(any || !none, x, || {
                    format!("at least one element along dimension {axis}, which has {}", x.dims()[axis])
                })?;
                match op {
                    ReduceOp::Sum | ReduceOp::Prod => self.summed(x, out),
                    ReduceOp::Max | ReduceOp::Min | ReduceOp::Norm => self.dtype(out, x.dtype),
                    ReduceOp::Any | ReduceOp::All => self.dtype(out, Bool),
                    ReduceOp::ArgMax | ReduceOp::ArgMin => self.index(out),
                }
            }
            Op::Scan { axis, .. } => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                self.axis(x, axis)?;
                self.same(x, out)?;
                self.summed(x, out)
            }
            Op::Matmul => self.matmul(),
            Op::Gather { axis } => {
                let ([source, indices], [out]) = self.named(["source", "indices"], ["out"])?;
                self.same(indices, out)?;
                self.dtype(out, source.dtype)?;
                self.indexed(indices, source, axis)
            }
            Op::Scatter { axis, .. } => {
                let ([source, indices], [out]) = self.named(["source", "indices"], ["out"])?;
                self.same(indices, source)?;
                self.dtype(source, out.dtype)?;
                self.indexed(indices, out, axis)
            }
            Op::Sort { axis, .. } => {
                let ([x], [values, indices]) = self.named(["x"], ["values", "indices"])?;
                self.axis(x, axis)?;
                self.same(x, values)?;
                self.same(indices, values)?;
                self.dtype(values, x.dtype)?;
                self.index(indices)
            }
            Op::Random { .. } => {
                let ([state], [_]) = self.named(["state"], ["out"])?;
                self.is(state, &[4])?;
                self.dtype(state, U32)
            }
            Op::UnaryAssign(_) => self.named([], ["x"]).map(drop),
            Op::BinaryAssign(_) => {
                let ([x], [y]) = self.named(["x"], ["y"])?;
                x.layout.broadcast_to(y.dims())?;
                self.arithmetic(&[x], y.dtype)
            }
            Op::RmsNorm { .. } => {
                let ([x, weight], [out]) = self.named(["x", "weight"], ["out"])?;
                self.same(out, x)?;
                self.of_rows(x, weight)
            }
            Op::LayerNorm { weight, bias, .. } => {
                let (x, out) = match weight as usize + bias as usize {
                    0 => self.named(["x"], ["out"]).map(|([x], [out])| (x, out))?,
                    1 => {
                        let what = if weight { "weight" } else { "bias" };
                        let ([x, one], [out]) = self.named(["x", what], ["out"])?;
                        self.of_rows(x, one)?;
                        (x, out)
                    }
                    _ => {
                        let ([x, weight, bias], [out]) = self.named(["x", "weight", "bias"], ["out"])?;
                        self.of_rows(x, weight)?;
                        self.of_rows(x, bias)?;
                        (x, out)
                    }
                };
                self.same(out, x)
            }
            Op::Variance { axis, .. } => {
                let ([x], [mean, out]) = self.named(["x"], ["mean", "out"])?;
                self.reduced(x, axis, mean)?;
                self.reduced(x, axis, out)
            }
            Op::StandardDeviation { axis, .. } => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                self.reduced(x, axis, out)
            }
            Op::Rope => {
                let ([cos, sin, positions], [x]) = self.named(["cos", "sin", "positions"], ["x"])?;
                let &[tokens, _, width] = x.dims() else { return self.shape(false, x, || "[T, heads, D]".into()) };
                self.shape(width.is_multiple_of(2), x, || "[T, heads, D] with an even D".into())?;
                self.tokens(positions, tokens)?;
                let rows = cos.dims().first().copied().unwrap_or(0);
                for table in [cos, sin] {
                    self.shape(table.dims() == [rows, width / 2], table, || "[positions, D / 2]".into())?;
                }
                Ok(())
            }
            Op::StoreKv => self.store_kv(),
            Op::PagedAttention { .. } => self.paged_attention(),
            Op::ShortConv => self.short_conv(),
            Op::GatedDelta(shape) => self.gated_delta(shape),
            Op::Sample => self.sample(),
            Op::Gated(_) => {
                let ([up], [gate]) = self.named(["up"], ["gate"])?;
                self.same(up, gate)
            }
            Op::Embedding => {
                let ([table, ids], [out]) = self.named(["table", "ids"], ["out"])?;
                let &[_, width] = table.dims() else { return self.shape(false, table, || "[V, H]".into()) };
                let tokens = ids.dims().first().copied().unwrap_or(0);
                self.tokens(ids, tokens)?;
                self.is(out, &[tokens, width])?;
                self.dtype(out, F32)
            }
            Op::Linear => {
                let ([x, w], [out]) = self.named(["x", "weights"], ["out"])?;
                let &[outputs, inputs] = w.dims() else { return self.shape(false, w, || "[N, K]".into()) };
                let tokens = x.dims().first().copied().unwrap_or(0);
                let needed = || "[T, K], K the columns of the weights".into();
                self.shape(x.dims() == [tokens, inputs], x, needed)?;
                self.is(out, &[tokens, outputs])
            }
            Op::ExpertLinear => {
                let ([x, w, experts], [out]) = self.named(["x", "weights", "experts"], ["out"])?;
                let &[all, inputs] = w.dims() else { return self.shape(false, w, || "[E * N, K]".into()) };
                let &[rows, outputs] = out.dims() else { return self.shape(false, out, || "[R, N]".into()) };
                let tokens = x.dims().first().copied().unwrap_or(0);
                let needed = || "[T, K], K the columns of the weights, T a divisor of the rows of the result".into();
                self.shape(x.dims() == [tokens, inputs] && tokens > 0 && rows.is_multiple_of(tokens), x, needed)?;
                let whole = outputs > 0 && all > 0 && all.is_multiple_of(outputs);
                self.shape(whole, w, || format!("whole matrices of {outputs} rows"))?;
                self.tokens(experts, rows)?;
                self.dtype(x, F32)?;
                self.dtype(out, F32)
            }
            Op::QuantizeActivations(rule) => {
                let ([x], [values, scales, sums]) = self.named(["x"], ["values", "scales", "sums"])?;
                let &[tokens, columns] = x.dims() else { return self.shape(false, x, || "[T, K]".into()) };
                self.quantized(rule, [tokens, columns], [values, scales, sums])
            }
            Op::TernaryMatmul(rule) => {
                let ([values, scales, sums, w, row_scales], [out]) =
                    self.named(["values", "scales", "sums", "weights", "row scales"], ["out"])?;
                let &[outputs, inputs] = w.dims() else { return self.shape(false, w, || "[rows, K]".into()) };
                let &[tokens, outputs_of_out] = out.dims() else {
                    return self.shape(false, out, || "[T, rows]".into());
                };
                self.shape(outputs_of_out == outputs, out, || format!("[T, {outputs}], the rows of the weights"))?;
                let whole = matches!(*row_scales.dims(), [_, groups] if groups > 0 && inputs.is_multiple_of(groups));
                self.shape(whole, row_scales, || format!("[rows, groups], {inputs} columns in whole groups"))?;
                self.quantized(rule, [tokens, inputs], [values, scales, sums])
            }
            Op::RmsNormBackward { .. } => {
                let ([grad, x, weight], [dx, dweight]) = self.named(["grad", "x", "weight"], ["dx", "dweight"])?;
                self.of_rows(x, weight)?;
                self.same(grad, x)?;
                self.same(dx, x)?;
                self.same(dweight, weight)
            }
            Op::GatedHalves(_) => {
                let ([both], [out]) = self.named(["both"], ["out"])?;
                self.halves(both, out)
            }
            Op::GatedHalvesBackward(_) => {
                let ([grad, both], [out]) = self.named(["grad", "both"], ["out"])?;
                self.halves(both, grad)?;
                self.same(out, both)
            }
            Op::CausalAttention(shape) => {
                let ([qkv, cos, sin], [out]) = self.named(["qkv", "cos", "sin"], ["out"])?;
                self.causal(&shape, cos, sin, &[(qkv, shape.row()), (out, shape.out_row())])
            }
            Op::CausalAttentionBackward(shape) => {
                let ([grad, qkv, cos, sin], [out]) = self.named(["grad", "qkv", "cos", "sin"], ["out"])?;
                let wide = shape.row();
                self.causal(&shape, cos, sin, &[(grad, shape.out_row()), (qkv, wide), (out, wide)])
            }
            Op::Scale { rows, columns } => self.scale(rows, columns),
            Op::AdamStep(_) => {
                let ([grad, rates], [x, first, second]) = self.named(["grad", "rates"], ["x", "first", "second"])?;
                self.is(rates, &[3])?;
                self.dtype(rates, F32)?;
                for state in [grad, first, second] {
                    self.same(state, x)?;
                }
                Ok(())
            }
        }
    }

    /// `U32` `[T]`.
    fn tokens(&self, x: Operand, tokens: usize) -> Result<()> {
        self.is(x, &[tokens])?;
        self.dtype(x, U32)
    }

    /// `weight` has a factor for each column of the rows of `x`.
    fn of_rows(&self, x: Operand, weight: Operand) -> Result<()> {
        let fits = x.layout.shape().rank() > 0 && weight.dims() == [x.last()];
        self.shape(fits, weight, || "[H], the last dimension of x".into())
    }

    fn halves(&self, both: Operand, one: Operand) -> Result<()> {
        let fits = match (both.dims(), one.dims()) {
            ([rows @ .., width], [lead @ .., inner]) => rows == lead && *width == 2 * inner,
            _ => false,
        };
        self.shape(fits, both, || "[.., 2 I], gate and up of [.., I]".into())
    }

    fn matmul(&self) -> Result<()> {
        let ([a, b], [out]) = self.named(["a", "b"], ["out"])?;
        let fits = match (a.dims(), b.dims(), out.dims()) {
            ([lead_a @ .., m, k], [lead_b @ .., k2, n], [lead @ .., m2, n2]) => {
                lead_a == lead_b && lead_a == lead && (m, k, n) == (m2, k2, n2)
            }
            _ => false,
        };
        self.shape(fits, a, || format!("[.., m, k] for {} and a result {}", b.layout.shape(), out.layout.shape()))?;
        self.dtype(b, a.dtype)?;
        self.dtype(
            out,
            match (a.dtype, out.dtype) {
                (I8, _) => I32,
                (BF16, F32) => F32,
                (same, _) => same,
            },
        )
    }

    /// Indices along `axis` of `table`: extents of other dimensions are inside it.
    fn indexed(&self, indices: Operand, table: Operand, axis: usize) -> Result<()> {
        self.axis(table, axis)?;
        let fits = indices.dims().len() == table.dims().len()
            && indices.dims().iter().zip(table.dims()).enumerate().all(|(d, (i, t))| d == axis || i <= t);
        self.shape(fits, indices, || {
            format!("the rank of {} and, but for dimension {axis}, extents inside it", table.layout.shape())
        })?;
        self.index(indices)
    }

    /// A result of sums or products of `x`, of 64 bits or of 32.
    fn summed(&self, x: Operand, out: Operand) -> Result<()> {
        if out.dtype == summed(x.dtype, false) { Ok(()) } else { self.dtype(out, summed(x.dtype, true)) }
    }

    fn index(&self, indices: Operand) -> Result<()> {
        if matches!(indices.dtype, I64 | U32) { Ok(()) } else { self.dtype(indices, I64) }
    }

    fn store_kv(&self) -> Result<()> {
        let (rows, pages, scales) = match self.outputs.len() {
            4 => {
                let outputs = ["key pages", "value pages", "key scales", "value scales"];
                let (rows, [k, v, k_scales, v_scales]) = self.named(["keys", "values", "slots"], outputs)?;
                (rows, [k, v], Some([k_scales, v_scales]))
            }
            _ => {
                let (rows, pages) = self.named(["keys", "values", "slots"], ["key pages", "value pages"])?;
                (rows, pages, None)
            }
        };
        let [keys, values, slots] = rows;
        let (_, kv_heads, head_dim) = self.pages(pages, scales)?;
        let tokens = keys.dims().first().copied().unwrap_or(0);
        self.is(keys, &[tokens, kv_heads, head_dim])?;
        self.same(values, keys)?;
        self.dtype(keys, F32)?;
        self.dtype(values, F32)?;
        self.tokens(slots, tokens)
    }

    fn paged_attention(&self) -> Result<()> {
        let names = ["q", "key pages", "value pages", "table", "sequences", "positions"];
        let ([q, keys, values, table, sequences, positions], out, scales) = match self.inputs.len() {
            8 => {
                let [a, b, c, d, e, f] = names;
                let (inputs, [out]) = self.named([a, b, c, d, e, f, "key scales", "value scales"], ["out"])?;
                let [a, b, c, d, e, f, k, v] = inputs;
                ([a, b, c, d, e, f], out, Some([k, v]))
            }
            _ => {
                let (inputs, [out]) = self.named(names, ["out"])?;
                (inputs, out, None)
            }
        };
        let (_, kv_heads, head_dim) = self.pages([keys, values], scales)?;
        let &[tokens, heads, width] = q.dims() else { return self.shape(false, q, || "[T, heads, D]".into()) };
        let grouped = width == head_dim && heads.is_multiple_of(kv_heads);
        self.shape(grouped, q, || format!("[T, a multiple of {kv_heads} heads, {head_dim}]"))?;
        self.dtype(q, F32)?;
        self.shape(table.dims().len() == 2, table, || "[sequences, pages]".into())?;
        self.dtype(table, U32)?;
        self.tokens(sequences, tokens)?;
        self.tokens(positions, tokens)?;
        self.same(out, q)?;
        self.dtype(out, F32)
    }

    fn short_conv(&self) -> Result<()> {
        let ([x, weights, sequences, positions, slots], [out, state]) =
            self.named(["x", "weights", "sequences", "positions", "slots"], ["out", "state"])?;
        let &[tokens, channels] = x.dims() else { return self.shape(false, x, || "[T, C]".into()) };
        let taps = weights.dims().first().copied().unwrap_or(0);
        self.shape(taps > 0 && weights.dims() == [taps, channels], weights, || format!("[K, {channels}]"))?;
        let states = state.dims().first().copied().unwrap_or(0);
        self.is(state, &[states, taps - 1, channels])?;
        self.same(out, x)?;
        self.state_rows([sequences, positions, slots], tokens)?;
        [x, weights, state, out].into_iter().try_for_each(|x| self.dtype(x, F32))
    }

    fn gated_delta(&self, shape: DeltaShape) -> Result<()> {
        let inputs = ["qkv", "a", "b", "decay", "bias", "sequences", "positions", "slots"];
        let ([qkv, a, b, decay, bias, sequences, positions, slots], [out, state]) =
            self.named(inputs, ["out", "state"])?;
        let DeltaShape { key_heads, value_heads, key_dim, value_dim, tiled: _ } = shape;
        let tokens = qkv.dims().first().copied().unwrap_or(0);
        let grouped = key_heads > 0 && value_heads.is_multiple_of(key_heads) && key_dim > 0 && value_dim > 0;
        self.shape(grouped && qkv.dims() == [tokens, shape.row()], qkv, || {
            format!("[T, {}] of heads of values that are a multiple of those of keys", shape.row())
        })?;
        let states = state.dims().first().copied().unwrap_or(0);
        self.is(state, &[states, value_heads, key_dim, value_dim])?;
        self.is(out, &[tokens, shape.value()])?;
        for (x, dims) in [(a, &[tokens, value_heads][..]), (b, &[tokens, value_heads])] {
            self.is(x, dims)?;
        }
        self.is(decay, &[value_heads])?;
        self.is(bias, &[value_heads])?;
        self.state_rows([sequences, positions, slots], tokens)?;
        [qkv, a, b, decay, bias, state, out].into_iter().try_for_each(|x| self.dtype(x, F32))
    }

    fn state_rows(&self, [sequences, positions, slots]: [Operand; 3], tokens: usize) -> Result<()> {
        self.tokens(sequences, tokens)?;
        self.tokens(positions, tokens)?;
        self.tokens(slots, slots.dims().first().copied().unwrap_or(0))
    }

    fn sample(&self) -> Result<()> {
        let ([logits, rows, edited, edits, mask], [tokens, probabilities]) =
            self.named(["logits", "rows", "edited", "edits", "mask"], ["tokens", "probabilities"])?;
        let &[count, vocab] = logits.dims() else { return self.shape(false, logits, || "[T, V]".into()) };
        self.shape(vocab > 0, logits, || "[T, V], V not 0".into())?;
        self.is(rows, &[count, SampleRow::LEN])?;
        self.shape(edited.dims().len() == 2, edited, || "[T, L]".into())?;
        self.is(edited, &[count, edited.last()])?;
        self.is(edits, &[count, edited.last(), 4])?;
        let words = mask.dims().len() == 2 && [0, vocab.div_ceil(32)].contains(&mask.last());
        self.shape(words, mask, || format!("[T, 0 or {}]", vocab.div_ceil(32)))?;
        self.is(mask, &[count, mask.last()])?;
        for x in [logits, rows, edits, probabilities] {
            self.dtype(x, F32)?;
        }
        self.dtype(edited, U32)?;
        self.dtype(mask, U32)?;
        self.tokens(tokens, count)?;
        self.is(probabilities, &[count])
    }

    /// Pages, their key heads, and the dimension of a head; see [`KvPages`].
    fn pages(&self, [keys, values]: [Operand; 2], scales: Option<[Operand; 2]>) -> Result<(usize, usize, usize)> {
        let &[pages, kv_heads, head_dim, page_len] = keys.dims() else {
            return self.shape(false, keys, || "[pages, kv_heads, D, page_len]".into()).map(|()| (0, 0, 0));
        };
        self.shape(kv_heads > 0 && page_len > 0, keys, || "[pages, kv_heads, D, page_len], none empty".into())?;
        self.is(values, &[pages, kv_heads, page_len, head_dim])?;
        self.dtype(values, keys.dtype)?;
        if !matches!((keys.dtype, scales.is_some()), (F32 | F16 | BF16, false) | (I8, true)) {
            let message = format!("pages of {}: they may be f32, f16 or bf16, or i8 with scales", keys.dtype);
            return Err(TensorOpError::Argument { op: self.op, message }.into());
        }
        for scales in scales.iter().flatten() {
            self.is(*scales, &[pages, kv_heads, page_len])?;
            self.dtype(*scales, F32)?;
        }
        Ok((pages, kv_heads, head_dim))
    }

    fn causal(&self, shape: &CausalShape, cos: Operand, sin: Operand, rows: &[(Operand, usize)]) -> Result<()> {
        let CausalShape { batch, tokens, heads, kv_heads, head_dim } = *shape;
        let grouped = kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim.is_multiple_of(2);
        for table in [cos, sin] {
            self.shape(table.dims() == [tokens, head_dim / 2], table, || "[T, D / 2]".into())?;
        }
        for &(x, width) in rows {
            self.shape(grouped && x.dims() == [batch * tokens, width], x, || {
                format!("[{}, {width}] with heads a multiple of kv_heads and an even width", batch * tokens)
            })?;
        }
        Ok(())
    }

    fn scale(&self, rows: bool, columns: bool) -> Result<()> {
        let factor = |x: Operand, of: Operand, axis: usize| self.is(x, &of.dims()[axis..=axis]);
        let matrix = |x: Operand| self.shape(x.dims().len() == 2, x, || "[R, C]".into());
        match (rows, columns) {
            (false, false) => {
                let ([x], [out]) = self.named(["x"], ["out"])?;
                matrix(x)?;
                self.same(out, x)
            }
            (true, true) => {
                let ([x, rows, columns], [out]) = self.named(["x", "rows", "columns"], ["out"])?;
                matrix(x)?;
                factor(rows, x, 0)?;
                factor(columns, x, 1)?;
                self.same(out, x)
            }
            _ => {
                let ([x, one], [out]) = self.named(["x", if rows { "rows" } else { "columns" }], ["out"])?;
                matrix(x)?;
                factor(one, x, columns as usize)?;
                self.same(out, x)
            }
        }
    }
}

/// The dtype of sums and products of `dtype`: floats keep theirs, integers wrap in `I64` (`U64` in its own), and on a device
/// without 64-bit types in `I32` (`U32` in its own).
pub const fn summed(dtype: BitNetDType, has_64_bits: bool) -> BitNetDType {
    match (dtype, has_64_bits) {
        _ if dtype.is_float() => dtype,
        (U64, _) => U64,
        (_, true) => I64,
        (U32, false) => U32,
        (_, false) => I32,
    }
}
