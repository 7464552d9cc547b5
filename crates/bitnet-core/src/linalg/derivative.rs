//! Derivatives of decompositions (Giles 2008; Townsend 2016; Golub and Pereyra 1973 of the pseudoinverse), of every
//! matrix of a batch. Gradients of singular vectors and eigenvectors need distinct singular values and eigenvalues.

use crate::autograd::{differentiable, differentiable_by_result, no_grad};
use crate::{BitNetTensor, Result};

fn turned(x: &BitNetTensor) -> Result<BitNetTensor> {
    x.transpose(-2, -1)
}

/// `x a^-1`.
fn divided(x: &BitNetTensor, a: &BitNetTensor) -> Result<BitNetTensor> {
    turned(&turned(a)?.solve(&turned(x)?)?)
}

/// The identity of the last dimension of `x`.
fn identity(x: &BitNetTensor) -> Result<BitNetTensor> {
    BitNetTensor::eye(x.shape().last(), x.dtype(), x.device())
}

/// Diagonal matrices of the last dimension of `x`.
fn diagonal(x: &BitNetTensor) -> Result<BitNetTensor> {
    x.unsqueeze(-1)?.mul(&identity(x)?)
}

/// `x_ij / (w_j - w_i)`, 0 on the diagonal and where `x` is.
fn over_differences(x: &BitNetTensor, w: &BitNetTensor) -> Result<BitNetTensor> {
    let nothing = x.eq(0)?.logical_or(&identity(x)?)?;
    let differences = w.unsqueeze(-2)?.sub(&w.unsqueeze(-1)?)?;
    x.div(&differences.masked_fill(&nothing, 1)?)?.masked_fill(&nothing, 0)
}

/// Several results of one operation, with the gradient of `x` computed from their gradients and them: recorded as one
/// tensor, of which each is a part.
fn several<const N: usize>(
    op: &'static str,
    x: &BitNetTensor,
    forward: impl FnOnce(&BitNetTensor) -> Result<[BitNetTensor; N]>,
    backward: fn(&BitNetTensor, [BitNetTensor; N], [BitNetTensor; N]) -> Result<BitNetTensor>,
) -> Result<[BitNetTensor; N]> {
    let results = no_grad(|| forward(x))?;
    let shapes = results.each_ref().map(|part| *part.shape());
    let parts = move |all: &BitNetTensor| -> Result<[BitNetTensor; N]> {
        let mut out = [const { None }; N];
        let mut start = 0;
        for (out, shape) in out.iter_mut().zip(&shapes) {
            *out = Some(all.narrow(0, start, shape.elements())?.reshape(shape.dims())?);
            start += shape.elements();
        }
        Ok(out.map(|part| part.expect("each was made")))
    };
    let flat: Vec<BitNetTensor> = results.iter().map(|part| part.reshape(&[part.elements()])).collect::<Result<_>>()?;
    let joined = || BitNetTensor::cat(&flat.iter().collect::<Vec<_>>(), 0);
    let all = differentiable_by_result(op, &[x], joined, || {
        let x = x.clone();
        move |grad: &BitNetTensor, all: &BitNetTensor| Ok(vec![Some(backward(&x, parts(grad)?, parts(all)?)?)])
    })?;
    parts(&all)
}

/// `L^-T F(L^T g) L^-1`, symmetric; F takes the lower triangle and half of the diagonal.
pub fn cholesky(x: &BitNetTensor, forward: impl FnOnce() -> Result<BitNetTensor>) -> Result<BitNetTensor> {
    differentiable_by_result("cholesky", &[x], forward, || {
        |grad: &BitNetTensor, l: &BitNetTensor| {
            let inner = turned(l)?.matmul(&grad.tril(0)?)?;
            let lower = inner.tril(0)?.sub(&inner.mul(&identity(l)?)?.mul(0.5)?)?;
            let outer = divided(&turned(l)?.solve(&lower)?, l)?;
            Ok(vec![Some(outer.add(&turned(&outer)?)?.mul(0.5)?)])
        }
    })
}

/// With `M = R gR^T - gQ^T Q` and its lower triangle mirrored, `(gQ + Q M) R^-T`; columns beyond the rows are products
/// of Q.
pub fn qr(
    x: &BitNetTensor,
    forward: impl FnOnce(&BitNetTensor) -> Result<[BitNetTensor; 2]>,
) -> Result<[BitNetTensor; 2]> {
    several("qr", x, forward, |x, [mut gq, gr], [q, r]| {
        let &[.., m, n] = x.dims() else { unreachable!("a matrix was decomposed") };
        let k = m.min(n);
        let (gu, gv) = (gr.narrow(-1, 0, k)?.triu(0)?, gr.narrow(-1, k, n - k)?);
        let u = r.narrow(-1, 0, k)?;
        if n > m {
            gq = gq.add(&x.narrow(-1, k, n - k)?.matmul(&turned(&gv)?)?)?;
        }
        let mixed = u.matmul(&turned(&gu)?)?.sub(&turned(&gq)?.matmul(&q)?)?;
        let mirrored = mixed.tril(0)?.add(&turned(&mixed.tril(-1)?)?)?;
        let square = divided(&gq.add(&q.matmul(&mirrored)?)?, &turned(&u)?)?;
        if n > m { BitNetTensor::cat(&[&square, &q.matmul(&gv)?], -1) } else { Ok(square) }
    })
}

/// `P L^-T (tril(L^T gL, -1) + triu(gU U^T)) U^-T` of square matrices.
pub fn lu(
    x: &BitNetTensor,
    forward: impl FnOnce(&BitNetTensor) -> Result<[BitNetTensor; 3]>,
) -> Result<[BitNetTensor; 3]> {
    let [p, l, u] = several("lu", x, forward, |_, [_, gl, gu], [p, l, u]| {
        let inner = turned(&l)?.matmul(&gl)?.tril(-1)?.add(&gu.matmul(&turned(&u)?)?.triu(0)?)?;
        p.matmul(&divided(&turned(&l)?.solve(&inner)?, &turned(&u)?)?)
    })?;
    Ok([p.detach(), l, u])
}

/// With `F_ij = 1 / (s_j^2 - s_i^2)`, `J = F * U^T gU` and `K = F * V^T gV`:
/// `U ((J + J^T) S + S (K + K^T) + gS) V^T`, and the parts outside the columns of U and V.
pub fn svd(
    x: &BitNetTensor,
    forward: impl FnOnce(&BitNetTensor) -> Result<[BitNetTensor; 3]>,
) -> Result<[BitNetTensor; 3]> {
    several("svd", x, forward, |x, [gu, gs, gvt], [u, s, vt]| {
        let &[.., m, n] = x.dims() else { unreachable!("a matrix was decomposed") };
        let (k, v, gv) = (m.min(n), turned(&vt)?, turned(&gvt)?);
        let mixed = |vectors: &BitNetTensor, grad: &BitNetTensor| -> Result<BitNetTensor> {
            let part = over_differences(&turned(vectors)?.matmul(grad)?, &s.square()?)?;
            part.add(&turned(&part)?)
        };
        let (row, column) = (s.unsqueeze(-2)?, s.unsqueeze(-1)?);
        let inner = mixed(&u, &gu)?.mul(&row)?.add(&mixed(&v, &gv)?.mul(&column)?)?.add(&diagonal(&gs)?)?;
        let mut out = u.matmul(&inner)?.matmul(&vt)?;
        let beside = |vectors: &BitNetTensor, grad: &BitNetTensor| {
            grad.sub(&vectors.matmul(&turned(vectors)?.matmul(grad)?)?)?.div(&row)
        };
        if m > k {
            out = out.add(&beside(&u, &gu)?.matmul(&vt)?)?;
        }
        if n > k {
            out = out.add(&u.matmul(&turned(&beside(&v, &gv)?)?)?)?;
        }
        Ok(out)
    })
}

/// `U gS V^T`.
pub fn svdvals(x: &BitNetTensor, forward: impl FnOnce() -> Result<BitNetTensor>) -> Result<BitNetTensor> {
    differentiable("svdvals", &[x], forward, |_| {
        let x = x.clone();
        move |grad: &BitNetTensor| {
            let (u, _, vt) = x.svd(false)?;
            Ok(vec![Some(u.mul(&grad.unsqueeze(-2)?)?.matmul(&vt)?)])
        }
    })
}

/// `V (gW + V^T gV / (w_j - w_i)) V^T`, symmetric.
pub fn eigh(
    x: &BitNetTensor,
    forward: impl FnOnce(&BitNetTensor) -> Result<[BitNetTensor; 2]>,
) -> Result<[BitNetTensor; 2]> {
    several("eigh", x, forward, |_, [gw, gv], [w, v]| {
        let inner = over_differences(&turned(&v)?.matmul(&gv)?, &w)?.add(&diagonal(&gw)?)?;
        let out = v.matmul(&inner)?.matmul(&turned(&v)?)?;
        out.add(&turned(&out)?)?.mul(0.5)
    })
}

/// With `P` the pseudoinverse of `A`: `-P^T g P^T + (I - A P) g^T P P^T + P^T P g^T (I - P A)`.
fn through_pinv(a: &BitNetTensor, p: &BitNetTensor, grad: &BitNetTensor) -> Result<BitNetTensor> {
    let (pt, gt) = (turned(p)?, turned(grad)?);
    let left = gt.sub(&a.matmul(&p.matmul(&gt)?)?)?.matmul(&p.matmul(&pt)?)?;
    let right = pt.matmul(p)?.matmul(&gt.sub(&gt.matmul(p)?.matmul(a)?)?)?;
    let inner = pt.matmul(grad)?.matmul(&pt)?;
    left.add(&right)?.sub(&inner)
}

/// See [`through_pinv`].
pub fn pinv(x: &BitNetTensor, forward: impl FnOnce() -> Result<BitNetTensor>) -> Result<BitNetTensor> {
    differentiable_by_result("pinv", &[x], forward, || {
        let a = x.clone();
        move |grad: &BitNetTensor, p: &BitNetTensor| Ok(vec![Some(through_pinv(&a, p, grad)?)])
    })
}

/// Of `P b` with the pseudoinverse `P` of `a`: that of `P` is `g b^T`, that of `b` `P^T g`.
pub fn lstsq(
    a: &BitNetTensor,
    b: &BitNetTensor,
    forward: impl FnOnce() -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    differentiable("lstsq", &[a, b], forward, |_| {
        let (a, b) = (a.clone(), b.clone());
        move |grad: &BitNetTensor| {
            let p = a.pinv()?;
            let of_a = through_pinv(&a, &p, &grad.matmul(&turned(&b)?)?)?;
            Ok(vec![Some(of_a), Some(turned(&p)?.matmul(grad)?)])
        }
    })
}

/// Cofactors, `det A A^-T`; of singular matrices by singular values, each product without its own.
pub fn cofactors(x: &BitNetTensor, det: &BitNetTensor) -> Result<BitNetTensor> {
    if !det.eq(0)?.any(.., false)?.to_bools()?[0] {
        return turned(&x.inv()?)?.mul(&det.unsqueeze(-1)?.unsqueeze(-1)?);
    }
    let (u, s, vt) = x.svd(false)?;
    let others = crate::autograd::derivative::others(&s, &[s.rank() as isize - 1])?;
    let sign = u.det()?.mul(&vt.det()?)?.unsqueeze(-1)?.unsqueeze(-1)?;
    u.mul(&others.unsqueeze(-2)?)?.matmul(&vt)?.mul(&sign)
}
