//! A method for each operation, over [`Backend::run`].

use super::*;

/// Methods with their arguments in order, the operation, its inputs and its outputs.
macro_rules! calls {
    ($($name:ident($($arg:ident: $t:ty),*) = $variant:ident $op:expr, [$($input:ident),*] -> [$($out:ident),*];)*) => {
        impl dyn Backend + '_ {$(
            #[doc = concat!("Runs [`Op::", stringify!($variant), "`].")]
            #[inline]
            pub fn $name(&self, $($arg: $t),*) -> Result<()> {
                self.call(&$op, &[$($input),*], &mut [$($out),*])
            }
        )*}
    };
}

calls! {
    copy(source: TensorRef, out: TensorMut) = Copy Op::Copy, [source] -> [out];
    unary(op: UnaryOp, x: TensorRef, out: TensorMut) = Unary Op::Unary(op), [x] -> [out];
    binary(op: BinaryOp, a: TensorRef, b: TensorRef, out: TensorMut) = Binary Op::Binary(op), [a, b] -> [out];
    compare(op: CompareOp, a: TensorRef, b: TensorRef, out: TensorMut) = Compare Op::Compare(op), [a, b] -> [out];
    select(condition: TensorRef, a: TensorRef, b: TensorRef, out: TensorMut) = Select Op::Select, [condition, a, b] -> [out];
    cast(x: TensorRef, out: TensorMut) = Cast Op::Cast, [x] -> [out];
    reduce(op: ReduceOp, x: TensorRef, axis: usize, out: TensorMut) = Reduce Op::Reduce { op, axis }, [x] -> [out];
    scan(op: ScanOp, x: TensorRef, axis: usize, out: TensorMut) = Scan Op::Scan { op, axis }, [x] -> [out];
    matmul(a: TensorRef, b: TensorRef, out: TensorMut) = Matmul Op::Matmul, [a, b] -> [out];
    gather(source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut)
        = Gather Op::Gather { axis }, [source, indices] -> [out];
    scatter(op: ScatterOp, source: TensorRef, axis: usize, indices: TensorRef, out: TensorMut)
        = Scatter Op::Scatter { op, axis }, [source, indices] -> [out];
    sort(x: TensorRef, axis: usize, descending: bool, values: TensorMut, indices: TensorMut)
        = Sort Op::Sort { axis, descending }, [x] -> [values, indices];
    random(distribution: Distribution, skip: u64, state: TensorRef, out: TensorMut)
        = Random Op::Random { distribution, skip }, [state] -> [out];
    unary_assign(op: UnaryOp, x: TensorMut) = UnaryAssign Op::UnaryAssign(op), [] -> [x];
    binary_assign(op: BinaryOp, y: TensorMut, x: TensorRef) = BinaryAssign Op::BinaryAssign(op), [x] -> [y];
    rms_norm(x: TensorRef, weight: TensorRef, eps: f32, out: TensorMut) = RmsNorm Op::RmsNorm { eps }, [x, weight] -> [out];
    softmax(x: TensorRef, out: TensorMut) = Softmax Op::Softmax, [x] -> [out];
    log_softmax(x: TensorRef, out: TensorMut) = LogSoftmax Op::LogSoftmax, [x] -> [out];
    variance(x: TensorRef, axis: usize, correction: f64, mean: TensorMut, out: TensorMut)
        = Variance Op::Variance { axis, correction }, [x] -> [mean, out];
    standard_deviation(x: TensorRef, axis: usize, correction: f64, out: TensorMut)
        = StandardDeviation Op::StandardDeviation { axis, correction }, [x] -> [out];
    rope(x: TensorMut, cos: TensorRef, sin: TensorRef, positions: TensorRef) = Rope Op::Rope, [cos, sin, positions] -> [x];
    gated(act: GateActivation, gate: TensorMut, up: TensorRef) = Gated Op::Gated(act), [up] -> [gate];
    embedding(ids: TensorRef, table: TensorRef, out: TensorMut) = Embedding Op::Embedding, [table, ids] -> [out];
    linear(x: TensorRef, w: TensorRef, out: TensorMut) = Linear Op::Linear, [x, w] -> [out];
    expert_linear(x: TensorRef, w: TensorRef, experts: TensorRef, out: TensorMut)
        = ExpertLinear Op::ExpertLinear, [x, w, experts] -> [out];
    quantize_activations(rule: ActivationRule, x: TensorRef, values: TensorMut, scales: TensorMut, sums: TensorMut)
        = QuantizeActivations Op::QuantizeActivations(rule), [x] -> [values, scales, sums];
    rms_norm_backward(grad: TensorRef, x: TensorRef, weight: TensorRef, eps: f32, dx: TensorMut, dweight: TensorMut)
        = RmsNormBackward Op::RmsNormBackward { eps }, [grad, x, weight] -> [dx, dweight];
    gated_halves(act: GateActivation, both: TensorRef, out: TensorMut) = GatedHalves Op::GatedHalves(act), [both] -> [out];
    gated_halves_backward(act: GateActivation, grad: TensorRef, both: TensorRef, out: TensorMut)
        = GatedHalvesBackward Op::GatedHalvesBackward(act), [grad, both] -> [out];
    causal_attention(shape: CausalShape, qkv: TensorRef, cos: TensorRef, sin: TensorRef, out: TensorMut)
        = CausalAttention Op::CausalAttention(shape), [qkv, cos, sin] -> [out];
    causal_attention_backward(
        shape: CausalShape, grad: TensorRef, qkv: TensorRef, cos: TensorRef, sin: TensorRef, out: TensorMut
    ) = CausalAttentionBackward Op::CausalAttentionBackward(shape), [grad, qkv, cos, sin] -> [out];
    adam_step(step: AdamStep, rates: TensorRef, x: TensorMut, grad: TensorRef, first: TensorMut, second: TensorMut)
        = AdamStep Op::AdamStep(step), [grad, rates] -> [x, first, second];
}

impl dyn Backend + '_ {
    /// Runs an operation after checking its operands.
    ///
    /// # Errors
    /// Operands that do not fit ([`Op::check`]), or what the device says.
    #[inline]
    pub fn call(&self, op: &Op, inputs: &[TensorRef], outputs: &mut [TensorMut]) -> Result<()> {
        op.check(inputs, outputs)?;
        self.run(op, inputs, outputs)
    }

    /// Runs [`Op::LayerNorm`].
    pub fn layer_norm(
        &self,
        x: TensorRef,
        weight: Option<TensorRef>,
        bias: Option<TensorRef>,
        eps: f64,
        out: TensorMut,
    ) -> Result<()> {
        let op = Op::LayerNorm { eps, weight: weight.is_some(), bias: bias.is_some() };
        let (inputs, count) = with_optional(x, weight, bias);
        self.call(&op, &inputs[..count], &mut [out])
    }

    /// Runs [`Op::Scale`].
    pub fn scale(
        &self,
        x: TensorRef,
        rows: Option<TensorRef>,
        columns: Option<TensorRef>,
        out: TensorMut,
    ) -> Result<()> {
        let op = Op::Scale { rows: rows.is_some(), columns: columns.is_some() };
        let (inputs, count) = with_optional(x, rows, columns);
        self.call(&op, &inputs[..count], &mut [out])
    }

    /// Runs [`Op::TernaryMatmul`].
    pub fn ternary_matmul(&self, x: QuantizedActivations, w: &PackedTernary, out: TensorMut) -> Result<()> {
        let inputs = [x.values, x.scales, x.sums, w.weights(), w.row_scales()];
        self.call(&Op::TernaryMatmul(x.rule), &inputs, &mut [out])
    }
}

/// `x` and those of `a` and `b` that are there, and their number.
fn with_optional<'a>(
    x: TensorRef<'a>,
    a: Option<TensorRef<'a>>,
    b: Option<TensorRef<'a>>,
) -> ([TensorRef<'a>; 3], usize) {
    match (a, b) {
        (None, None) => ([x; 3], 1),
        (Some(one), None) | (None, Some(one)) => ([x, one, one], 2),
        (Some(a), Some(b)) => ([x, a, b], 3),
    }
}
