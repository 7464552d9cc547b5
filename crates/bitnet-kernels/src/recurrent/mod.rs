//! Layers that keep a state of fixed size of each sequence: a short causal convolution, and the gated delta rule.
//!
//! Rows of a sequence lie beside each other, in the order of its tokens; each is computed after the one before, whoever else is
//! in the batch. A sum has one order: lanes are columns, and nothing is fused.

#[cfg(test)]
mod tests;

pub use bitnet_device::backend::DeltaShape;

use crate::Isa;
use crate::float::simd::inlined;
use crate::isa::wide;
use crate::lengths::elements;
use crate::threads::{Parts, ThreadPool};
use std::ops::Range;

/// The sequences of rows, and where their states are.
#[derive(Clone, Copy, Debug)]
pub struct StateRows<'a> {
    /// The sequence of each row, `[T]`.
    pub sequences: &'a [u32],
    /// Its position, `[T]`. A sequence begins at 0, with a state of zeros.
    pub positions: &'a [u32],
    /// The place of the state of each sequence, `[S]`, no two alike.
    pub slots: &'a [u32],
}

impl StateRows<'_> {
    /// The rows of the sequence that begins with row `t`, and its state; `None` where row `t` goes on with one.
    fn run(&self, t: usize) -> Option<(Range<usize>, usize)> {
        let sequence = self.sequences[t];
        if t > 0 && self.sequences[t - 1] == sequence {
            return None;
        }
        let len = self.sequences[t..].iter().take_while(|&&s| s == sequence).count();
        Some((t..t + len, self.slots[sequence as usize] as usize))
    }

    /// Whether the rows of each sequence lie beside each other, and each sequence has a state of its own.
    ///
    /// # Panics
    /// When a sequence is not there.
    pub fn are_apart(&self) -> bool {
        let slots = || (0..self.sequences.len()).filter_map(|t| Some(self.run(t)?.1));
        slots().enumerate().all(|(index, slot)| slots().take(index).all(|other| other != slot))
    }

    /// Panics unless that holds, and there are `states` states.
    fn check(&self, states: usize) {
        assert!(self.are_apart(), "the rows of a sequence lie beside each other");
        assert!(self.slots.iter().all(|&slot| (slot as usize) < states), "states {:?} of {states}", self.slots);
    }
}

/// `out[t][c] = silu(sum over j of w[c][j] u[t - K + 1 + j][c])`, a causal convolution of each channel over the inputs `u` of the
/// row's sequence, zeros before its start.
///
/// x, out `[T, C]`; `weights` `[K, C]`, tap by tap; `state` `[states, K - 1, C]`, the last inputs of each sequence, the latest
/// last, read and written.
///
/// # Panics
/// When the lengths contradict each other, or a sequence or state is not there.
pub fn short_conv(
    isa: Isa,
    pool: &ThreadPool,
    x: &[f32],
    weights: &[f32],
    rows: &StateRows,
    state: &mut [f32],
    out: &mut [f32],
) {
    let count = rows.sequences.len();
    let Some(channels) = x.len().checked_div(count) else { return };
    let taps = weights.len() / channels;
    assert_eq!(Some(x.len()), elements([count, channels]), "x");
    assert_eq!(Some(weights.len()), elements([taps, channels]), "weights");
    assert_eq!((out.len(), rows.positions.len()), (x.len(), count), "out, positions");
    let kept = (taps - 1) * channels;
    rows.check(state.len().checked_div(kept).unwrap_or(usize::MAX));
    let (out, state) = (Parts::new(out), Parts::new(state));
    pool.run(count, &|t| {
        let Some((range, slot)) = rows.run(t) else { return };
        // SAFETY: each run has its own rows and its own state.
        let (out, state) =
            unsafe { (out.part(range.start * channels, range.len() * channels), state.part(slot * kept, kept)) };
        if rows.positions[range.start] == 0 {
            state.fill(0.0);
        }
        wide(
            isa,
            inlined!(|| {
                for (t, out) in range.zip(out.chunks_exact_mut(channels)) {
                    let x = &x[t * channels..][..channels];
                    out.fill(0.0);
                    for (input, w) in state.chunks_exact(channels).chain([x]).zip(weights.chunks_exact(channels)) {
                        for ((out, &u), &w) in out.iter_mut().zip(input).zip(w) {
                            *out += w * u;
                        }
                    }
                    if kept > 0 {
                        state.copy_within(channels.., 0);
                        state[kept - channels..].copy_from_slice(x);
                    }
                }
            }),
        );
        // By the library, one number after the other, so that every instruction set gives the same.
        out.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
    });
}

/// The gated delta rule (Yang et al. 2024): of each value head, with its state `S`,
/// `S = e^g S; S = S + k (beta (v - k^T S))^T; o = q^T S`, with `q = l2(q) / sqrt(key_dim)`, `k = l2(k)`,
/// `l2(a) = a / sqrt(sum a^2 + 1e-6)`, `g = decay softplus(a + bias)`, `beta = 1 / (1 + e^-b)`.
///
/// `qkv` `[T, row]`; `a`, `b` `[T, value_heads]`; `decay` (`-exp(A_log)`), `bias` `[value_heads]`; `state`
/// `[states, value_heads, key_dim, value_dim]`, read and written; `out` `[T, value_heads * value_dim]`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Delta<'a> {
    pub shape: DeltaShape,
    pub qkv: &'a [f32],
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub decay: &'a [f32],
    pub bias: &'a [f32],
}

/// See [`Delta`].
///
/// # Panics
/// When the lengths contradict each other, or a sequence or state is not there.
pub fn gated_delta(isa: Isa, pool: &ThreadPool, x: &Delta, rows: &StateRows, state: &mut [f32], out: &mut [f32]) {
    let (shape, count) = (x.shape, rows.sequences.len());
    let DeltaShape { key_heads, value_heads, key_dim, value_dim, tiled } = shape;
    let heads = elements([count, value_heads]);
    assert_eq!(Some(x.qkv.len()), elements([count, shape.row()]), "qkv");
    assert_eq!((Some(x.a.len()), Some(x.b.len())), (heads, heads), "a, b");
    assert_eq!((x.decay.len(), x.bias.len()), (value_heads, value_heads), "decay, bias");
    assert_eq!(Some(out.len()), elements([count, value_heads, value_dim]), "out");
    rows.check(state.len() / shape.state().max(1));
    let (out, state) = (Parts::new(out), Parts::new(state));
    let group = value_heads / key_heads;
    pool.run(count * value_heads, &|task| {
        let head = task % value_heads;
        let Some((range, slot)) = rows.run(task / value_heads) else { return };
        let matrix = key_dim * value_dim;
        // SAFETY: each task has its own head of the state of one sequence.
        let state = unsafe { state.part((slot * value_heads + head) * matrix, matrix) };
        if rows.positions[range.start] == 0 {
            state.fill(0.0);
        }
        for t in range {
            let row = &x.qkv[t * shape.row()..][..shape.row()];
            let key_head = if tiled { head % key_heads } else { head / group };
            let q = &row[key_head * key_dim..][..key_dim];
            let k = &row[(key_heads + key_head) * key_dim..][..key_dim];
            let v = &row[2 * key_heads * key_dim + head * value_dim..][..value_dim];
            let at = t * value_heads + head;
            let step = Step {
                q: (q, inverse_length(q) / (key_dim as f32).sqrt()),
                k: (k, inverse_length(k)),
                v,
                decay: (x.decay[head] * softplus(x.a[at] + x.bias[head])).exp(),
                beta: 1.0 / (1.0 + (-x.b[at]).exp()),
            };
            // SAFETY: each task has its own head of the rows of one sequence.
            let out = unsafe { out.part(at * value_dim, value_dim) };
            wide(isa, inlined!(|| step.run(state, out)));
        }
    });
}

/// One row of one head; `q` and `k` with the factors that normalise them.
struct Step<'a> {
    q: (&'a [f32], f32),
    k: (&'a [f32], f32),
    v: &'a [f32],
    decay: f32,
    beta: f32,
}

impl Step<'_> {
    #[inline(always)]
    fn run(&self, state: &mut [f32], out: &mut [f32]) {
        let width = self.v.len();
        // What the state holds for the key, then what is to be added, in `out`.
        out.fill(0.0);
        for (row, &k) in state.chunks_exact_mut(width).zip(self.k.0) {
            let k = k * self.k.1;
            for (held, s) in out.iter_mut().zip(row) {
                *s *= self.decay;
                *held += k * *s;
            }
        }
        out.iter_mut().zip(self.v).for_each(|(held, &v)| *held = self.beta * (v - *held));
        for (row, &k) in state.chunks_exact_mut(width).zip(self.k.0) {
            let k = k * self.k.1;
            row.iter_mut().zip(&*out).for_each(|(s, &delta)| *s += k * delta);
        }
        out.fill(0.0);
        for (row, &q) in state.chunks_exact(width).zip(self.q.0) {
            let q = q * self.q.1;
            out.iter_mut().zip(row).for_each(|(out, &s)| *out += q * s);
        }
    }
}

/// `1 / sqrt(sum x^2 + 1e-6)`
fn inverse_length(x: &[f32]) -> f32 {
    1.0 / (x.iter().map(|x| x * x).sum::<f32>() + 1e-6).sqrt()
}

/// `ln(1 + e^x)`
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}
