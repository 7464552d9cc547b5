//! [`FloatKernel`] for every instruction set that has vectors, and the operations that work element by element.

use super::simd::{MAX_LANES, Simd, inlined};
use super::{FloatKernel, KvPages, KvRows, PagedShape, attention, inverse_rms, linear, rope_row, whole_rows};
use crate::blocks::BlockMatrix;
use crate::{Isa, ThreadPool};
use bitnet_device::backend::GateActivation;

impl<S: Simd> FloatKernel for S {
    fn isa(&self) -> Isa {
        S::ISA
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let (s, columns) = (*self, weight.len());
        whole_rows(x, columns);
        assert_eq!(x.len(), out.len());
        s.enter(inlined!(|| {
            for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
                let scale = s.splat(inverse_rms(x, eps));
                zip(s, x, weight, out, inlined!(|x, w| s.mul(w, s.mul(x, scale))));
            }
        }));
    }

    fn gated(&self, act: GateActivation, gate: &mut [f32], up: &[f32]) {
        let s = *self;
        s.enter(inlined!(|| {
            let (zero, one) = (s.splat(0.0), s.splat(1.0));
            match act {
                GateActivation::Relu2 => update(
                    s,
                    gate,
                    up,
                    inlined!(|g, u| {
                        let positive = s.max(zero, g);
                        s.mul(s.mul(positive, positive), u)
                    }),
                ),
                GateActivation::Silu => {
                    update(s, gate, up, inlined!(|g, u| s.mul(s.div(g, s.add(one, s.exp(s.sub(zero, g)))), u)))
                }
                GateActivation::GeluTanh => {
                    let (scale, cube) = (s.splat(GateActivation::GELU_SCALE), s.splat(GateActivation::GELU_CUBE));
                    update(
                        s,
                        gate,
                        up,
                        inlined!(|g, u| {
                            let z = s.mul(scale, s.mul(g, s.add(one, s.mul(cube, s.mul(g, g)))));
                            s.mul(s.div(g, s.add(one, s.exp(s.sub(zero, z)))), u)
                        }),
                    )
                }
            }
        }));
    }

    fn rope(&self, x: &mut [f32], heads: usize, pairs: usize, cos: &[f32], sin: &[f32]) {
        let s = *self;
        let row = rope_row(heads, pairs);
        let tokens = whole_rows(x, row);
        assert!(cos.len() == tokens * pairs && sin.len() == cos.len(), "tables of {tokens} tokens");
        s.enter(inlined!(|| {
            let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
            for (token, (cos, sin)) in x.chunks_exact_mut(row).zip(angles) {
                for head in token.chunks_exact_mut(2 * pairs) {
                    let (a, b) = head.split_at_mut(pairs);
                    rotate(s, a, b, cos, sin);
                }
            }
        }));
    }

    fn paged_attention(
        &self,
        pool: &ThreadPool,
        shape: &PagedShape,
        q: &[f32],
        pages: &KvPages<'_>,
        rows: &KvRows<'_>,
        out: &mut [f32],
    ) {
        attention::paged_attention(*self, pool, shape, q, pages, rows, out);
    }

    fn linear(&self, pool: &ThreadPool, weights: &BlockMatrix<'_>, x: &[f32], out: &mut [f32]) {
        linear::linear(*self, pool, weights, x, out);
    }
}

/// Fewer than a vector of numbers as the start of one.
#[inline(always)]
fn padded(x: &[f32], with: f32) -> [f32; MAX_LANES] {
    let mut lanes = [with; MAX_LANES];
    lanes[..x.len()].copy_from_slice(x);
    lanes
}

/// `out[i] = f(x[i], y[i])`.
#[inline(always)]
fn zip<S: Simd>(s: S, x: &[f32], y: &[f32], out: &mut [f32], f: impl Fn(S::F, S::F) -> S::F) {
    assert!(x.len() == y.len() && x.len() == out.len());
    let whole = x.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= whole, within all three.
        unsafe { s.store(f(s.load(x.as_ptr().add(i)), s.load(y.as_ptr().add(i))), out.as_mut_ptr().add(i)) };
    }
    if whole < x.len() {
        let mut rest = [0.0; MAX_LANES];
        let (x, y) = (padded(&x[whole..], 0.0), padded(&y[whole..], 0.0));
        // SAFETY: the arrays have LANES elements.
        unsafe { s.store(f(s.load(x.as_ptr()), s.load(y.as_ptr())), rest.as_mut_ptr()) };
        let left = out.len() - whole;
        out[whole..].copy_from_slice(&rest[..left]);
    }
}

/// `x[i] = f(x[i], y[i])`.
#[inline(always)]
fn update<S: Simd>(s: S, x: &mut [f32], y: &[f32], f: impl Fn(S::F, S::F) -> S::F) {
    assert_eq!(x.len(), y.len());
    let whole = x.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= whole, within both.
        unsafe { s.store(f(s.load(x.as_ptr().add(i)), s.load(y.as_ptr().add(i))), x.as_mut_ptr().add(i)) };
    }
    if whole < x.len() {
        let (mut rest, y) = (padded(&x[whole..], 0.0), padded(&y[whole..], 0.0));
        // SAFETY: the arrays have LANES elements.
        unsafe { s.store(f(s.load(rest.as_ptr()), s.load(y.as_ptr())), rest.as_mut_ptr()) };
        let left = x.len() - whole;
        x[whole..].copy_from_slice(&rest[..left]);
    }
}

/// `(a, b) = (a cos - b sin, b cos + a sin)`, all `[pairs]`.
#[inline(always)]
fn rotate<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = a.len();
    assert!(b.len() == pairs && cos.len() == pairs && sin.len() == pairs);
    let whole = pairs / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= whole, within all four.
        unsafe {
            let (x, y) = (s.load(a.as_ptr().add(i)), s.load(b.as_ptr().add(i)));
            let (c, d) = (s.load(cos.as_ptr().add(i)), s.load(sin.as_ptr().add(i)));
            s.store(s.sub(s.mul(x, c), s.mul(y, d)), a.as_mut_ptr().add(i));
            s.store(s.add(s.mul(y, c), s.mul(x, d)), b.as_mut_ptr().add(i));
        }
    }
    for i in whole..pairs {
        (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
    }
}
