//! Operations as data, so that a device can run, record, count or refuse them, and tests can list them.

use super::*;

/// An operation with what is fixed about it. What changes from step to step (token ids, positions, the state of random numbers,
/// learning rates) is a tensor, so that a recorded step can be replayed.
///
/// `[inputs] -> [outputs]` says what [`Backend::run`] gets; an output marked `*` is read and written. Results do not overlap
/// operands.
#[allow(missing_docs)] // the variants explain their fields
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    // ---- primitives: every device has them ----
    /// `[source] -> [out]`: element by element, equal shapes and dtypes, any strides.
    Copy,
    /// `[x] -> [out]`: equal shapes and dtypes.
    Unary(UnaryOp),
    /// `[a, b] -> [out]`: equal shapes and dtypes (broadcast views and cast beforehand); beside an `F16` or `BF16` result one
    /// operand may be `F32`, a number that is not to be rounded first.
    Binary(BinaryOp),
    /// `[a, b] -> [out]`: a `Bool` tensor; equal shapes, `a` and `b` of one dtype.
    Compare(CompareOp),
    /// `[condition, a, b] -> [out]`: `condition ? a : b`; equal shapes, one dtype, `condition` a `Bool` tensor.
    Select,
    /// `[x] -> [out]`: `x` in `out`'s dtype: to floats, round to nearest (ties to even); floats to integers, truncate and
    /// saturate (NaN gives 0); integers to narrower ones, wrap; to `Bool`, whether not zero. Packed weight types can be
    /// read, not written.
    Cast,
    /// `[x] -> [out]`: reduces dimension `axis`, which has extent 1 in `out`. Sums and products have the dtype [`summed`];
    /// positions of extremes are `I64`, `U32` on a device without it.
    Reduce { op: ReduceOp, axis: usize },
    /// `[x] -> [out]`: cumulative reduction along dimension `axis`; equal shapes, the dtype [`summed`].
    Scan { op: ScanOp, axis: usize },
    /// `[a, b] -> [out]`: `out[.., m, n] = sum over k of a[.., m, k] * b[.., k, n]`, equal leading dimensions, any strides.
    /// Floats give their dtype (f16 and bf16 summed in f32; bf16 also into an f32 `out`, not rounded), `I8` gives `I32`,
    /// other integers theirs, wrapping.
    Matmul,
    /// `[source, indices] -> [out]`: `out[.., i, ..] = source[.., indices[.., i, ..], ..]` along `axis`: `indices` (`I64` or
    /// `U32`) has the shape of `out`, `source` extents at least as large on the other dimensions. An index outside the
    /// dimension is an error.
    Gather { axis: usize },
    /// `[source, indices] -> [out*]`: `out[.., indices[.., i, ..], ..] op= source[.., i, ..]` along `axis`, shapes as in
    /// [`Op::Gather`] with the roles of `source` and `out` exchanged. Nothing is written when an index is outside.
    Scatter { op: ScatterOp, axis: usize },
    /// `[x] -> [values, indices]`: stable sort along `axis`, NaN as the largest; `indices` is `I64`, `U32` on
    /// a device without it. Equal shapes.
    Sort { axis: usize, descending: bool },
    /// `[state] -> [out]`: `state` is `U32` `[4]`, the seed and the offset, the lower word of each first. Element `i` in
    /// row-major order is number `n = offset + skip + i` (wrapping) of the stream of the seed, the same on every device.
    ///
    /// Philox4x32-10 (Salmon et al. 2011) gives blocks of four words of a counter, here of four words with the lowest first,
    /// and the seed as the key (the lower word first). Words of 32 bits: word `n` is `n % 4` of the block of the counter
    /// `[n / 4 (two words), 0, 0]`. Words of 64 bits: word `n` is `n % 2` of the block of `[n / 2 (two words), 1, 0]`, whose
    /// words 0 and 1 are word 0 and 2 and 3 are word 1, the lower first.
    /// - uniform: `low + (high - low) * u`, `u` in `[0, 1)` the upper 24, 11 or 8 bits of a word of 32 for `F32`, `F16` or
    ///   `BF16`, in f32: `low`, `high`, their difference, product and sum rounded; then rounded to the dtype, and `low` where
    ///   that is not below `high`. `F64`: 53 bits of a word of 64, in f64. In `[0, 1)` and between powers of two all devices
    ///   give the same bits; elsewhere one that fuses product and sum may differ in the last place;
    /// - normal (Box and Muller 1958): of `a` and `b`, the words of 32 bits at `n - n % 2` and after it,
    ///   `mean + std * (r * cos(2 pi b / 2^32))`, for odd `n` `sin`, with `r = sqrt(-2 ln(max(a, 1) / 2^32))`, the quotient
    ///   rounded to f32 (nearest, ties to even); then rounded to the dtype. Logarithm, cosine and sine of a device may be
    ///   approximate: before `mean` and `std`, the result is within `r / 2^21` of the exact one. `F64`: words of 64 bits, and
    ///   `1 - u` with `u` of 53 bits in the logarithm, in f64;
    /// - integer: `low + floor(w * (high - low) / 2^64)`, exactly, `w` of 64 bits. A range below 2^32 needs only products of
    ///   words of 32 bits;
    /// - Bernoulli: 1 if a word of 32 bits is below `p * 2^32`, exactly.
    Random { distribution: Distribution, skip: u64 },

    // ---- fused operations: composed of primitives unless a device has its own ----
    /// `[] -> [x*]`: `x = op(x)`.
    UnaryAssign(UnaryOp),
    /// `[x] -> [y*]`: `y = op(y, x)`, `x` broadcast to the shape of `y`, dtypes as in [`Op::Binary`].
    BinaryAssign(BinaryOp),
    /// `[x, weight] -> [out]`: root mean square norm of rows, `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019);
    /// `x` and `out` `[.., H]`, `weight` `[H]`, floats of one dtype.
    RmsNorm { eps: f32 },
    /// `[x] -> [out]`: softmax of the last dimension.
    Softmax,
    /// `[x] -> [out]`: logarithm of the softmax of the last dimension.
    LogSoftmax,
    /// `[x, weight, bias] -> [out]`, the latter two where they are said to be there, over the last dimension (Ba et al. 2016):
    /// `(x - mean) / sqrt(var + eps) * weight + bias`; floats of one dtype, `weight` and `bias` `[H]`.
    LayerNorm { eps: f64, weight: bool, bias: bool },
    /// `[x] -> [mean, out]`: mean, and sum of squared differences from it divided by `max(0, N - correction)`, over dimension
    /// `axis` (extent 1 in the results); floats of one dtype.
    Variance { axis: usize, correction: f64 },
    /// `[x] -> [out]`: root of the variance over dimension `axis` (extent 1 in the result), also where f32 does not hold the
    /// variance; floats of one dtype.
    StandardDeviation { axis: usize, correction: f64 },
    /// `[cos, sin, positions] -> [x*]`: rotary position embedding, halves rotated (Su et al. 2021, in the order of GPT-NeoX):
    /// `x` f32 `[T, heads, D]`, `cos` and `sin` f32 `[P, D/2]`, `positions` `U32` `[T]`, each below `P`.
    Rope,
    /// `[keys, values, slots] -> [key pages*, value pages*]` and, of 8 bits, `[.., key scales*, value scales*]`: writes keys
    /// and values f32 `[T, kv_heads, D]` to pages as [`KvPages`] describes them, row `t` to position `slots[t] % page_len` of
    /// page `slots[t] / page_len`; `slots` `U32` `[T]`. Narrower floats are rounded to nearest, ties to even; 8 bits have the
    /// scale `max|x| / 127` of each head.
    StoreKv,
    /// `[q, key pages, value pages, table, sequences, positions] -> [out]` and, of 8 bits, `[.., key scales, value scales]`:
    /// causal attention over pages, see [`KvPages`] and [`KvRows`]: `q` and `out` f32 `[T, heads, D]`. Row `t` attends to
    /// positions `0..=positions[t]` of its sequence, with a window to the last `window` of them. Head `h` reads key head
    /// `h / (heads / kv_heads)`; scores are multiplied by `scale`.
    PagedAttention { scale: f32, window: Option<u32> },
    /// `[x, weights, sequences, positions, slots] -> [out, state*]`: a causal convolution of each channel with SiLU, see
    /// [`StateRows`]: `out[t, c] = silu(sum over j of weights[j, c] u[t - K + 1 + j, c])` over the inputs `u` of the row's
    /// sequence, zeros before its start: `x` and `out` f32 `[T, C]`, `weights` f32 `[K, C]`, `state` f32 `[N, K - 1, C]`, the last
    /// inputs of each sequence, the latest last.
    ShortConv,
    /// `[qkv, a, b, decay, bias, sequences, positions, slots] -> [out, state*]`: the gated delta rule (Yang et al. 2024), see
    /// [`DeltaGates`] and [`StateRows`]. `qkv` f32 `[T, row]` holds queries, keys and values side by side, `out` f32
    /// `[T, value_heads * value_dim]`, `state` f32 `[N, value_heads, key_dim, value_dim]`. Of each value head, with its state `S`:
    /// `S = e^g S`, `S = S + k (beta (v - k^T S))^T`, `o = q^T S`, where `q = l2(q) / sqrt(key_dim)`, `k = l2(k)`,
    /// `l2(x) = x / sqrt(sum x^2 + 1e-6)`, `g = decay softplus(a + bias)`, `beta = sigmoid(b)`.
    GatedDelta(DeltaShape),
    /// `[logits, rows, edited, edits, mask] -> [tokens, probabilities]`: a token for each row of `logits` f32 `[T, V]`, `tokens`
    /// `U32` `[T]`, and its probability among the candidates, f32 `[T]` (1 of a greedy choice); the other operands are
    /// [`SampleRows`]. First `edits` and `mask` change the logits, then the parameters of the row ([`SampleRow`]) apply:
    /// top-n-sigma, temperature, top-k, top-p, min-p, typical-p, XTC, surprise, then the draw of the first token, in the order of
    /// tokens, up to which the probabilities exceed the fraction of their sum. Each cut sees what the one before left and leaves
    /// at least one candidate; of equal keys the smaller token is first. What is less likely than 2^-30 of the likeliest is no
    /// candidate, nor is NaN. Without a finite largest logit the token is `u32::MAX`, its probability 0. Sums of a device may be
    /// rounded: at a boundary it may take the next candidate.
    Sample,
    /// `[up] -> [gate*]`: gated activation, `gate = act(gate) * up`, f32, equal shapes.
    Gated(GateActivation),
    /// `[table, ids] -> [out]`: rows of `table` `[V, H]` (any float or weight type), `ids` `U32` `[T]`, as f32 `[T, H]`. An id
    /// outside the table is an error.
    Embedding,
    /// `[x, w] -> [out]`: `x w^T`: `x` f32 `[T, K]`, `w` `[N, K]` of any float or weight type, `out` f32 `[T, N]`.
    Linear,
    /// `[x, w, experts] -> [out]`: `out[r] = x[r / (R / T)] w_e^T` of the expert `e = experts[r]`: `x` f32 `[T, K]`, `w` `[E * N, K]`,
    /// the matrices of the experts one after another, of any float or weight type, `experts` `U32` `[R]`, `R` a multiple of `T`,
    /// `out` f32 `[R, N]`. The matrices of experts that are not named need not be read. An expert that is not there is an error.
    ExpertLinear,
    /// `[x] -> [values, scales, sums]`: quantizes each row of `x` f32 `[T, K]`, see [`ActivationRule`] and
    /// [`QuantizedActivations`].
    QuantizeActivations(ActivationRule),
    /// `[values, scales, sums, weights, row scales] -> [out]`: `x . w^T`, f32 `[T, rows]`, of activations and weights with the
    /// scales of their blocks and groups. Integer products are exact over each stretch of columns with one scale of both. See
    /// [`QuantizedActivations`] and [`PackedTernary`].
    TernaryMatmul(ActivationRule),

    // ---- fused operations of training ----
    /// `[grad, x, weight] -> [dx, dweight]`: derivative of [`Op::RmsNorm`]: `grad`, `x` and `dx` `[.., H]`, `weight` and
    /// `dweight` `[H]`, floats. With `r = 1 / sqrt(mean(x^2) + eps)` and `g = grad weight`, `dx = r (g - x r^2 mean(g x))` and
    /// `dweight` is the sum of `grad x r` over the rows.
    RmsNormBackward { eps: f32 },
    /// `[both] -> [out]`: `act(gate) * up` of concatenated halves: `both` `[.., 2 I]`, gate first, `out` `[.., I]`, floats.
    GatedHalves(GateActivation),
    /// `[grad, both] -> [out]`: derivative of [`Op::GatedHalves`]: `grad` `[.., I]`, `both` and `out` `[.., 2 I]`.
    GatedHalvesBackward(GateActivation),
    /// `[qkv, cos, sin] -> [out]`: causal attention of a batch of sequences, with rotary embedding: `qkv` f32
    /// `[B * T, (heads + 2 kv_heads) * D]`, queries, keys and values of all heads concatenated, `cos` and `sin` f32
    /// `[T, D / 2]`, `out` f32 `[B * T, heads * D]`. Scores are divided by `sqrt(D)`.
    CausalAttention(CausalShape),
    /// `[grad, qkv, cos, sin] -> [out]`: derivative of [`Op::CausalAttention`] by `qkv`: `grad` f32 `[B * T, heads * D]`, `out`
    /// f32 as `qkv`.
    CausalAttentionBackward(CausalShape),
    /// `[x, rows, columns] -> [out]`, the latter two where they are said to be there: `x[i, j] * rows[i] * columns[j]`: `x` f32
    /// or i8 `[R, C]`, `rows` f32 `[R]`, `columns` f32 `[C]`, `out` of any float dtype.
    Scale { rows: bool, columns: bool },
    /// `[grad, rates] -> [x*, first*, second*]`: a step of Adam or AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019), f32,
    /// equal shapes: `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
    /// `x = x shrink - rate m / (sqrt(v) / root + eps)` with `rates` f32 `[3]`: `shrink`, what weights are multiplied
    /// by first (`1 - learning rate * weight decay` of AdamW), `rate`, the learning rate divided by `1 - beta1^t`, and `root`,
    /// the square root of `1 - beta2^t`.
    AdamStep(AdamStep),
}

/// The names of all operations, so that none can be left out.
macro_rules! names {
    ($($operation:pat => $name:literal,)*) => {
        impl Op {
            /// The names of all operations.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Its name in errors and profiles, without its function: `binary`, `rms_norm`.
            pub const fn name(&self) -> &'static str {
                match self { $($operation => $name),* }
            }
        }
    };
}

names! {
    Op::Copy => "copy",
    Op::Unary(_) => "unary",
    Op::Binary(_) => "binary",
    Op::Compare(_) => "compare",
    Op::Select => "select",
    Op::Cast => "cast",
    Op::Reduce { .. } => "reduce",
    Op::Scan { .. } => "scan",
    Op::Matmul => "matmul",
    Op::Gather { .. } => "gather",
    Op::Scatter { .. } => "scatter",
    Op::Sort { .. } => "sort",
    Op::Random { .. } => "random",
    Op::UnaryAssign(_) => "unary_assign",
    Op::BinaryAssign(_) => "binary_assign",
    Op::RmsNorm { .. } => "rms_norm",
    Op::Softmax => "softmax",
    Op::LogSoftmax => "log_softmax",
    Op::LayerNorm { .. } => "layer_norm",
    Op::Variance { .. } => "variance",
    Op::StandardDeviation { .. } => "standard_deviation",
    Op::Rope => "rope",
    Op::StoreKv => "store_kv",
    Op::PagedAttention { .. } => "paged_attention",
    Op::ShortConv => "short_conv",
    Op::GatedDelta(_) => "gated_delta",
    Op::Sample => "sample",
    Op::Gated(_) => "gated",
    Op::Embedding => "embedding",
    Op::Linear => "linear",
    Op::ExpertLinear => "expert_linear",
    Op::QuantizeActivations(_) => "quantize_activations",
    Op::TernaryMatmul(_) => "ternary_matmul",
    Op::RmsNormBackward { .. } => "rms_norm_backward",
    Op::GatedHalves(_) => "gated_halves",
    Op::GatedHalvesBackward(_) => "gated_halves_backward",
    Op::CausalAttention(_) => "causal_attention",
    Op::CausalAttentionBackward(_) => "causal_attention_backward",
    Op::Scale { .. } => "scale",
    Op::AdamStep(_) => "adam_step",
}

impl Op {
    /// Whether every device must have it itself.
    pub const fn is_primitive(&self) -> bool {
        use Op::*;
        matches!(
            self,
            Copy | Unary(_)
                | Binary(_)
                | Compare(_)
                | Select
                | Cast
                | Reduce { .. }
                | Scan { .. }
                | Matmul
                | Gather { .. }
                | Scatter { .. }
                | Sort { .. }
                | Random { .. }
        )
    }

    /// Whether its outputs are read before they are written.
    pub const fn updates(&self) -> bool {
        use Op::*;
        matches!(
            self,
            Scatter { .. }
                | UnaryAssign(_)
                | BinaryAssign(_)
                | Rope
                | StoreKv
                | ShortConv
                | GatedDelta(_)
                | Gated(_)
                | AdamStep(_)
        )
    }
}

impl std::fmt::Display for Op {
    /// With its function: `binary add`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let function: Option<&dyn Debug> = match self {
            Op::Unary(op) | Op::UnaryAssign(op) => Some(op),
            Op::Binary(op) | Op::BinaryAssign(op) => Some(op),
            Op::Compare(op) => Some(op),
            Op::Reduce { op, .. } => Some(op),
            Op::Scan { op, .. } => Some(op),
            Op::Scatter { op, .. } => Some(op),
            Op::QuantizeActivations(rule) | Op::TernaryMatmul(rule) => Some(rule),
            Op::Gated(act) | Op::GatedHalves(act) | Op::GatedHalvesBackward(act) => Some(act),
            _ => None,
        };
        match function {
            Some(function) => write!(f, "{} {}", self.name(), format!("{function:?}").to_lowercase()),
            None => f.write_str(self.name()),
        }
    }
}
