//! Attention of training composed of primitives: the default of [`Op::CausalAttention`].

use super::fused::temp::Temp;
use super::*;
use BinaryOp::*;
use BitNetDType::F32;

/// `a b` of the last two dimensions, of operands that are broadcast to `lead`.
fn product<'b>(backend: &'b dyn Backend, lead: &[usize], a: TensorRef, b: TensorRef) -> Result<Temp<'b>> {
    let expand = |x: TensorRef| {
        let dims = x.layout.dims();
        x.layout.broadcast_to(&[lead, &dims[dims.len() - 2..]].concat())
    };
    let (a, b) = (TensorRef { layout: expand(a)?, ..a }, TensorRef { layout: expand(b)?, ..b });
    let (rows, columns) = (a.layout.dims()[lead.len()], b.layout.shape().last());
    let mut out = Temp::new(backend, &[lead, &[rows, columns]].concat(), a.dtype)?;
    backend.matmul(a, b, out.view_mut())?;
    Ok(out)
}

/// Rotates `x` `[.., T, D]` by angles `[T, D / 2]`, `turn` 1 or -1 (back), into `out`.
fn rotate(
    backend: &dyn Backend,
    x: TensorRef,
    cos: TensorRef,
    sin: TensorRef,
    turn: f64,
    out: TensorMut,
) -> Result<()> {
    let (axis, half) = (x.layout.shape().rank() - 1, x.layout.shape().last() / 2);
    let (low, high) = (x.narrow(axis, 0, half)?, x.narrow(axis, half, half)?);
    let sin = Temp::copied(backend, sin)?.scalar(Mul, turn)?;
    let times = |x: TensorRef, angle: TensorRef| Temp::copied(backend, x)?.binary(Mul, angle);
    let mut out = out;
    let new_low = times(low, cos)?.binary(Sub, times(high, sin.view())?.view())?;
    new_low.copy_to(out.reborrow().narrow(axis, 0, half)?)?;
    times(high, cos)?.binary(Add, times(low, sin.view())?.view())?.copy_to(out.narrow(axis, half, half)?)
}

/// The operands of attention over a batch.
struct Operands<'a, 'b> {
    backend: &'b dyn Backend,
    shape: CausalShape,
    cos: TensorRef<'a>,
    sin: TensorRef<'a>,
    /// Rotated queries and keys, `[B, heads + kv_heads, T, D]`.
    turned: Temp<'b>,
    /// All heads of the input, `[B, heads + 2 kv_heads, T, D]`.
    all: TensorRef<'a>,
}

impl<'a, 'b> Operands<'a, 'b> {
    fn new(
        backend: &'b dyn Backend,
        shape: CausalShape,
        qkv: TensorRef<'a>,
        cos: TensorRef<'a>,
        sin: TensorRef<'a>,
    ) -> Result<Self> {
        let CausalShape { batch, tokens, heads, kv_heads, head_dim } = shape;
        let turning = heads + kv_heads;
        let all = qkv.reshape(&[batch, tokens, turning + kv_heads, head_dim])?.transpose(1, 2)?;
        let mut turned = Temp::new(backend, &[batch, turning, tokens, head_dim], qkv.dtype)?;
        rotate(backend, all.narrow(1, 0, turning)?, cos, sin, 1., turned.view_mut())?;
        Ok(Self { backend, shape, cos, sin, turned, all })
    }

    /// `[B, kv_heads, group]`
    fn lead(&self) -> [usize; 3] {
        [self.shape.batch, self.shape.kv_heads, self.shape.heads / self.shape.kv_heads]
    }

    /// Heads `[B, heads, T, D]` as `[B, kv_heads, group, T, D]`.
    fn grouped(&self, layout: Layout) -> Result<Layout> {
        layout.reshape(&[&self.lead()[..], &[self.shape.tokens, self.shape.head_dim]].concat())
    }

    /// One head shared by its group: `[B, kv_heads, 1, T, D]`.
    fn shared(x: TensorRef<'_>) -> Result<TensorRef<'_>> {
        Ok(TensorRef { layout: x.layout.unsqueeze(2)?, ..x })
    }

    fn queries(&self) -> Result<TensorRef<'_>> {
        let x = self.turned.view().narrow(1, 0, self.shape.heads)?;
        Ok(TensorRef { layout: self.grouped(x.layout)?, ..x })
    }

    fn keys(&self) -> Result<TensorRef<'_>> {
        Self::shared(self.turned.view().narrow(1, self.shape.heads, self.shape.kv_heads)?)
    }

    fn values(&self) -> Result<TensorRef<'a>> {
        Self::shared(self.all.narrow(1, self.shape.heads + self.shape.kv_heads, self.shape.kv_heads)?)
    }

    fn scale(&self) -> f64 {
        1. / (self.shape.head_dim as f64).sqrt()
    }

    /// `[B, kv_heads, group, T, T]`
    fn weights(&self) -> Result<Temp<'b>> {
        let tokens = self.shape.tokens;
        let scores = product(self.backend, &self.lead(), self.queries()?, self.keys()?.transpose(3, 4)?)?;
        let seen = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0. };
        let mask: Vec<f32> = (0..tokens * tokens).map(seen).collect();
        let mask = Temp::upload(self.backend, &[tokens, tokens], &mask)?;
        let scores = scores.scalar(Mul, self.scale())?.binary(Add, mask.view())?;
        let mut weights = Temp::new(self.backend, scores.layout.dims(), scores.view().dtype)?;
        self.backend.softmax(scores.view(), weights.view_mut())?;
        Ok(weights)
    }

    /// A tensor of the result's shape `[B * T, heads * D]` by heads: `[B, kv_heads, group, T, D]`.
    fn by_head(&self, layout: Layout) -> Result<Layout> {
        let CausalShape { batch, tokens, heads, head_dim, .. } = self.shape;
        self.grouped(layout.reshape(&[batch, tokens, heads, head_dim])?.transpose(1, 2)?)
    }
}

/// See [`Op::CausalAttention`].
pub fn causal_attention(
    backend: &dyn Backend,
    shape: CausalShape,
    qkv: TensorRef,
    cos: TensorRef,
    sin: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let x = Operands::new(backend, shape, qkv, cos, sin)?;
    let mixed = product(backend, &x.lead(), x.weights()?.view(), x.values()?)?;
    let layout = x.by_head(out.layout)?;
    mixed.copy_to(TensorMut { layout, ..out })
}

/// See [`Op::CausalAttentionBackward`].
pub fn causal_attention_backward(
    backend: &dyn Backend,
    shape: CausalShape,
    grad: TensorRef,
    qkv: TensorRef,
    cos: TensorRef,
    sin: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let CausalShape { batch, tokens, heads, kv_heads, head_dim } = shape;
    let x = Operands::new(backend, shape, qkv, cos, sin)?;
    let (lead, weights) = (x.lead(), x.weights()?);
    let grad = TensorRef { layout: x.by_head(grad.layout)?, ..grad };
    // The gradient of a shared head is the sum over its group.
    let summed = |x: Temp<'_>| -> Result<Temp<'_>> {
        let mut sum = Temp::new(backend, &[batch, kv_heads, 1, tokens, head_dim], F32)?;
        backend.reduce(ReduceOp::Sum, x.view(), 2, sum.view_mut())?;
        Ok(sum)
    };
    let d_values = summed(product(backend, &lead, weights.view().transpose(3, 4)?, grad)?)?;
    let slopes = product(backend, &lead, grad, x.values()?.transpose(3, 4)?)?;
    let along = weights.binary(Mul, slopes.view())?.reduce_last(ReduceOp::Sum)?;
    let slopes = slopes.binary(Sub, along.view())?.binary(Mul, weights.view())?.scalar(Mul, x.scale())?;
    let d_queries = product(backend, &lead, slopes.view(), x.keys()?)?;
    let d_keys = summed(product(backend, &lead, slopes.view().transpose(3, 4)?, x.queries()?)?)?;
    let layout = out.layout.reshape(&[batch, tokens, heads + 2 * kv_heads, head_dim])?.transpose(1, 2)?;
    let mut out = TensorMut { layout, ..out };
    let flat = |x: &Temp<'_>, heads: usize| x.layout.reshape(&[batch, heads, tokens, head_dim]);
    let d_queries = TensorRef { layout: flat(&d_queries, heads)?, ..d_queries.view() };
    rotate(backend, d_queries, x.cos, x.sin, -1., out.reborrow().narrow(1, 0, heads)?)?;
    let d_keys = TensorRef { layout: flat(&d_keys, kv_heads)?, ..d_keys.view() };
    rotate(backend, d_keys, x.cos, x.sin, -1., out.reborrow().narrow(1, heads, kv_heads)?)?;
    let d_values = TensorRef { layout: flat(&d_values, kv_heads)?, ..d_values.view() };
    backend.copy(d_values, out.narrow(1, heads + kv_heads, kv_heads)?)
}
