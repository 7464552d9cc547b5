//! Layers that keep a state of fixed size of each sequence: operands, and the operations on them composed of primitives.

use super::fused::temp::{Temp, binary};
use super::*;
use BinaryOp::*;
use BitNetDType::{Bool, F32, U32};

/// Sizes of the heads of [`Op::GatedDelta`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaShape {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple: value head `n` reads key head `n / (value_heads / key_heads)`.
    pub value_heads: usize,
    /// Width of a query and a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Whether value head `n` reads key head `n % key_heads` instead, as in files of llama.cpp.
    pub tiled: bool,
}

impl DeltaShape {
    /// Numbers of a row: queries, keys and values of all heads, side by side.
    pub fn row(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value()
    }

    /// Numbers of the values of a row.
    pub fn value(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Numbers of a state.
    pub fn state(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }
}

/// The sequences of rows, and where their states are. The rows of a sequence lie beside each other, in the order of its tokens.
#[derive(Debug, Clone, Copy)]
pub struct StateRows<'a> {
    /// The sequence of each row, `U32` `[T]`.
    pub sequences: TensorRef<'a>,
    /// Its position, `U32` `[T]`. A sequence begins at 0, with a state of zeros.
    pub positions: TensorRef<'a>,
    /// The place of the state of each sequence, `U32` `[S]`, no two alike.
    pub slots: TensorRef<'a>,
}

/// What [`Op::GatedDelta`] reads of a row beside queries, keys and values, and of a head.
#[derive(Debug, Clone, Copy)]
pub struct DeltaGates<'a> {
    /// f32 `[T, value_heads]`.
    pub a: TensorRef<'a>,
    /// f32 `[T, value_heads]`.
    pub b: TensorRef<'a>,
    /// `-exp(A_log)`, f32 `[value_heads]`.
    pub decay: TensorRef<'a>,
    /// f32 `[value_heads]`.
    pub bias: TensorRef<'a>,
}

impl dyn Backend + '_ {
    /// Runs [`Op::ShortConv`].
    pub fn short_conv(
        &self,
        x: TensorRef,
        weights: TensorRef,
        rows: StateRows,
        state: TensorMut,
        out: TensorMut,
    ) -> Result<()> {
        let StateRows { sequences, positions, slots } = rows;
        self.call(&Op::ShortConv, &[x, weights, sequences, positions, slots], &mut [out, state])
    }

    /// Runs [`Op::GatedDelta`].
    pub fn gated_delta(
        &self,
        shape: DeltaShape,
        qkv: TensorRef,
        gates: DeltaGates,
        rows: StateRows,
        state: TensorMut,
        out: TensorMut,
    ) -> Result<()> {
        let (DeltaGates { a, b, decay, bias }, StateRows { sequences, positions, slots }) = (gates, rows);
        self.call(&Op::GatedDelta(shape), &[qkv, a, b, decay, bias, sequences, positions, slots], &mut [out, state])
    }
}

/// Row `t` of a batch: the place of its state, and whether it goes on with one.
struct Row<'b> {
    backend: &'b dyn Backend,
    /// `U32` `[1, 1]`
    slot: Temp<'b>,
    /// `Bool` `[1, 1]`
    follows: Temp<'b>,
}

impl<'b> Row<'b> {
    fn new(backend: &'b dyn Backend, rows: &StateRows, t: usize) -> Result<Self> {
        let mut slot = Temp::new(backend, &[1], U32)?;
        backend.gather(rows.slots, 0, rows.sequences.narrow(0, t, 1)?, slot.view_mut())?;
        slot.layout = slot.layout.reshape(&[1, 1])?;
        let mut position = Temp::copied(backend, rows.positions.narrow(0, t, 1)?)?;
        position.layout = position.layout.reshape(&[1, 1])?;
        Ok(Self { backend, slot, follows: position.cast(Bool)? })
    }

    /// Its state of `states` `[N, width]`, `[1, width]`; zeros at the start of a sequence.
    fn state(&self, states: TensorRef) -> Result<Temp<'b>> {
        let dims = [1, states.layout.dims()[1]];
        let mut held = Temp::new(self.backend, &dims, F32)?;
        self.backend.gather(states, 0, self.slots(&dims)?, held.view_mut())?;
        let zero = Temp::upload(self.backend, &[1, 1], &[0f32])?;
        let mut out = Temp::new(self.backend, &dims, F32)?;
        let wide = |x: &Temp<'b>| -> Result<Layout> { x.layout.broadcast_to(&dims) };
        let condition = TensorRef { layout: wide(&self.follows)?, ..self.follows.view() };
        self.backend.select(
            condition,
            held.view(),
            TensorRef { layout: wide(&zero)?, ..zero.view() },
            out.view_mut(),
        )?;
        Ok(out)
    }

    fn store(&self, state: TensorRef, states: TensorMut) -> Result<()> {
        let slots = self.slots(state.layout.dims())?;
        self.backend.scatter(ScatterOp::Assign, state, 0, slots, states)
    }

    fn slots(&self, dims: &[usize]) -> Result<TensorRef<'_>> {
        Ok(TensorRef { layout: self.slot.layout.broadcast_to(dims)?, ..self.slot.view() })
    }
}

/// `[N, ..]` as `[N, width]`.
fn flat(layout: &Layout) -> Result<Layout> {
    let states = layout.dims()[0];
    layout.reshape(&[states, layout.shape().elements() / states.max(1)])
}

/// See [`Op::ShortConv`]: one row after the other.
pub(super) fn short_conv(
    backend: &dyn Backend,
    x: TensorRef,
    weights: TensorRef,
    rows: StateRows,
    mut out: TensorMut,
    state: TensorMut,
) -> Result<()> {
    let (&[tokens, channels], taps) = (x.layout.dims(), weights.layout.dims()[0]) else {
        return Err(unsupported(backend, "short_conv", x.dtype));
    };
    let kept = (taps - 1) * channels;
    let mut states = TensorMut { layout: flat(&state.layout)?, ..state };
    for t in 0..tokens {
        // The inputs that the state holds, then the row's own.
        let row = Row::new(backend, &rows, t)?;
        let mut window = Temp::new(backend, &[1, kept + channels], F32)?;
        let part = |window: &mut Temp, start, x: TensorRef| -> Result<()> {
            let view = window.view_mut();
            backend.copy(x, view.narrow(1, start, x.layout.shape().last())?)
        };
        if kept > 0 {
            part(&mut window, 0, row.state(states.as_ref())?.view())?;
        }
        part(&mut window, kept, x.narrow(0, t, 1)?)?;
        let inputs = window.view().reshape(&[taps, channels])?;
        let sum = binary(backend, Mul, inputs, weights)?;
        let mut total = Temp::new(backend, &[1, channels], F32)?;
        backend.reduce(ReduceOp::Sum, sum.view(), 0, total.view_mut())?;
        total.unary(UnaryOp::Silu)?.copy_to(out.reborrow().narrow(0, t, 1)?)?;
        if kept > 0 {
            row.store(window.view().narrow(1, channels, kept)?, states.reborrow())?;
        }
    }
    Ok(())
}

/// See [`Op::GatedDelta`]: one row after the other.
pub(super) fn gated_delta(
    backend: &dyn Backend,
    shape: DeltaShape,
    qkv: TensorRef,
    gates: DeltaGates,
    rows: StateRows,
    mut out: TensorMut,
    state: TensorMut,
) -> Result<()> {
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, tiled } = shape;
    let (group, keys) = (value_heads / key_heads, key_heads * key_dim);
    let mut states = TensorMut { layout: flat(&state.layout)?, ..state };
    for t in 0..qkv.layout.dims()[0] {
        let row = Row::new(backend, &rows, t)?;
        let numbers = qkv.narrow(0, t, 1)?;
        // [key_heads, key_dim], normalised, to [value_heads, 1, key_dim].
        let unit = |start: usize, scale: f64| -> Result<Temp> {
            let x = Temp::copied(backend, numbers.narrow(1, start, keys)?)?;
            let x = Temp::copied(backend, x.view().reshape(&[key_heads, key_dim])?)?;
            let length =
                x.unary(UnaryOp::Square)?.reduce_last(ReduceOp::Sum)?.scalar(Add, 1e-6)?.unary(UnaryOp::Sqrt)?;
            let x = x.binary(Div, length.view())?.scalar(Mul, scale)?;
            let layout = match tiled {
                true => x.layout.unsqueeze(0)?.broadcast_to(&[group, key_heads, key_dim])?,
                false => x.layout.unsqueeze(1)?.broadcast_to(&[key_heads, group, key_dim])?,
            };
            let mut heads = Temp::copied(backend, TensorRef { layout, ..x.view() })?;
            heads.layout = heads.layout.reshape(&[value_heads, 1, key_dim])?;
            Ok(heads)
        };
        let (q, k) = (unit(0, 1. / (key_dim as f64).sqrt())?, unit(keys, 1.)?);
        let value = Temp::copied(backend, numbers.narrow(1, 2 * keys, shape.value())?)?;
        let value = value.view().reshape(&[value_heads, 1, value_dim])?;
        let of_heads =
            |x: TensorRef| -> Result<Temp> { Temp::copied(backend, x.narrow(0, t, 1)?.reshape(&[value_heads])?) };
        // softplus(x) = max(x, 0) + ln(1 + e^-|x|)
        let x = of_heads(gates.a)?.binary(Add, gates.bias)?;
        let rest = x.unary(UnaryOp::Abs)?.unary(UnaryOp::Neg)?.unary(UnaryOp::Exp)?.unary(UnaryOp::Log1p)?;
        let decay = x.unary(UnaryOp::Relu)?.binary(Add, rest.view())?.binary(Mul, gates.decay)?.unary(UnaryOp::Exp)?;
        let beta = of_heads(gates.b)?.unary(UnaryOp::Sigmoid)?;
        let column = |x: &Temp| x.layout.reshape(&[value_heads, 1, 1]);
        let (decay, beta) = (
            TensorRef { layout: column(&decay)?, ..decay.view() },
            TensorRef { layout: column(&beta)?, ..beta.view() },
        );

        let mut held = row.state(states.as_ref())?;
        held.layout = held.layout.reshape(&[value_heads, key_dim, value_dim])?;
        let held = held.binary(Mul, decay)?;
        let mut known = Temp::new(backend, &[value_heads, 1, value_dim], F32)?;
        backend.matmul(k.view(), held.view(), known.view_mut())?;
        let delta = binary(backend, Sub, value, known.view())?.binary(Mul, beta)?;
        let mut added = Temp::new(backend, &[value_heads, key_dim, value_dim], F32)?;
        backend.matmul(k.view().transpose(1, 2)?, delta.view(), added.view_mut())?;
        let held = held.binary(Add, added.view())?;
        let mut result = Temp::new(backend, &[value_heads, 1, value_dim], F32)?;
        backend.matmul(q.view(), held.view(), result.view_mut())?;
        backend.copy(result.view().reshape(&[1, shape.value()])?, out.reborrow().narrow(0, t, 1)?)?;
        row.store(held.view().reshape(&[1, shape.state()])?, states.reborrow())?;
    }
    Ok(())
}
