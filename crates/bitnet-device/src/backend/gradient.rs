//! Fused operations of training composed of primitives: the defaults of [`Backend`].

use super::fused::active;
use super::fused::temp::{Temp, binary, wide};
use super::*;
use BinaryOp::*;

/// See [`Op::RmsNormBackward`].
pub fn rms_norm_backward(
    backend: &dyn Backend,
    grad: TensorRef,
    x: TensorRef,
    weight: TensorRef,
    eps: f32,
    dx: TensorMut,
    dweight: TensorMut,
) -> Result<()> {
    let dims = x.layout.dims();
    let columns = x.layout.shape().last();
    let (grad, x, weight) = (wide(backend, grad)?, wide(backend, x)?, wide(backend, weight)?);
    let squares = mean_of_rows(&binary(backend, Mul, x.view(), x.view())?)?;
    let r = squares.scalar(Add, eps.into())?.unary(UnaryOp::Sqrt)?.unary(UnaryOp::Reciprocal)?;
    let g = binary(backend, Mul, grad.view(), weight.view())?;
    let tilt = mean_of_rows(&g.binary(Mul, x.view())?)?.binary(Mul, r.view())?.binary(Mul, r.view())?;
    g.binary(Sub, binary(backend, Mul, x.view(), tilt.view())?.view())?.binary(Mul, r.view())?.cast_to(dx)?;
    let product = binary(backend, Mul, grad.view(), x.view())?.binary(Mul, r.view())?;
    let rows = dims[..dims.len() - 1].iter().product();
    let mut sum = Temp::new(backend, &[1, columns], product.view().dtype)?;
    backend.reduce(ReduceOp::Sum, product.view().reshape(&[rows, columns])?, 0, sum.view_mut())?;
    let dweight = dweight.reshape(&[1, columns])?;
    sum.cast_to(dweight)
}

fn mean_of_rows<'b>(x: &Temp<'b>) -> Result<Temp<'b>> {
    x.reduce_last(ReduceOp::Sum)?.scalar(Div, x.layout.shape().last() as f64)
}

/// Both halves of the last dimension.
fn halves<'a>(both: TensorRef<'a>) -> Result<(TensorRef<'a>, TensorRef<'a>)> {
    let (axis, width) = (both.layout.shape().rank() - 1, both.layout.shape().last());
    Ok((both.narrow(axis, 0, width / 2)?, both.narrow(axis, width / 2, width / 2)?))
}

/// See [`Op::GatedHalves`].
pub fn gated_halves(backend: &dyn Backend, act: GateActivation, both: TensorRef, out: TensorMut) -> Result<()> {
    let (gate, up) = halves(both)?;
    let (gate, up) = (wide(backend, gate)?, wide(backend, up)?);
    let active = active(act, &Temp::copied(backend, gate.view())?)?;
    active.binary(Mul, up.view())?.cast_to(out)
}

/// See [`Op::GatedHalvesBackward`].
pub fn gated_halves_backward(
    backend: &dyn Backend,
    act: GateActivation,
    grad: TensorRef,
    both: TensorRef,
    out: TensorMut,
) -> Result<()> {
    let (gate, up) = halves(both)?;
    let (grad, gate, up) = (wide(backend, grad)?, wide(backend, gate)?, wide(backend, up)?);
    let g = Temp::copied(backend, gate.view())?;
    let (active, slope) = match act {
        GateActivation::Relu2 => {
            let relu = g.unary(UnaryOp::Relu)?;
            (relu.binary(Mul, relu.view())?, relu.scalar(Mul, 2.)?)
        }
        GateActivation::Silu => {
            // s (1 + g (1 - s)) = s + g s - g s^2
            let s = g.unary(UnaryOp::Sigmoid)?;
            let active = g.binary(Mul, s.view())?;
            let slope = s.binary(Add, active.view())?.binary(Sub, active.binary(Mul, s.view())?.view())?;
            (active, slope)
        }
        GateActivation::GeluTanh => {
            // z = k (g + c g^3), s = sigmoid(z): s + g s (1 - s) k (1 + 3 c g^2)
            let (k, c) = (GateActivation::GELU_SCALE.into(), GateActivation::GELU_CUBE.into());
            let squares = g.binary(Mul, g.view())?.scalar(Mul, c)?;
            let z = squares.scalar(Add, 1.)?.binary(Mul, g.view())?.scalar(Mul, k)?;
            let s = z.unary(UnaryOp::Sigmoid)?;
            let active = g.binary(Mul, s.view())?;
            let steep = squares.scalar(Mul, 3.)?.scalar(Add, 1.)?.scalar(Mul, k)?.binary(Mul, active.view())?;
            let slope = s.binary(Add, steep.view())?.binary(Sub, steep.binary(Mul, s.view())?.view())?;
            (active, slope)
        }
    };
    let (axis, inner) = (out.layout.shape().rank() - 1, out.layout.shape().last() / 2);
    let mut out = out;
    slope.binary(Mul, grad.view())?.binary(Mul, up.view())?.cast_to(out.reborrow().narrow(axis, 0, inner)?)?;
    active.binary(Mul, grad.view())?.cast_to(out.narrow(axis, inner, inner)?)
}

/// See [`Op::Scale`].
pub fn scale(
    backend: &dyn Backend,
    x: TensorRef,
    rows: Option<TensorRef>,
    columns: Option<TensorRef>,
    out: TensorMut,
) -> Result<()> {
    let x = wide(backend, x)?;
    let mut scaled = Temp::copied(backend, x.view())?;
    if let Some(rows) = rows {
        let column = [rows.layout.dims(), &[1]].concat();
        scaled = scaled.binary(Mul, rows.reshape(&column)?)?;
    }
    if let Some(columns) = columns {
        scaled = scaled.binary(Mul, columns)?;
    }
    scaled.cast_to(out)
}

/// See [`Op::AdamStep`].
pub fn adam_step(
    backend: &dyn Backend,
    AdamStep { beta1, beta2, eps }: AdamStep,
    rates: TensorRef,
    x: TensorMut,
    grad: TensorRef,
    first: TensorMut,
    second: TensorMut,
) -> Result<()> {
    let rate = |index| rates.narrow(0, index, 1);
    let g = Temp::copied(backend, grad)?;
    let m = Temp::copied(backend, first.as_ref())?;
    let m = m.binary(Add, g.binary(Sub, m.view())?.scalar(Mul, 1. - beta1)?.view())?;
    let squares = g.binary(Mul, g.view())?.scalar(Mul, 1. - beta2)?;
    let v = Temp::copied(backend, second.as_ref())?.scalar(Mul, beta2)?.binary(Add, squares.view())?;
    let below = v.unary(UnaryOp::Sqrt)?.binary(Div, rate(2)?)?.scalar(Add, eps.into())?;
    let moved = m.binary(Div, below.view())?.binary(Mul, rate(1)?)?;
    Temp::copied(backend, x.as_ref())?.binary(Mul, rate(0)?)?.binary(Sub, moved.view())?.copy_to(x)?;
    m.copy_to(first)?;
    v.copy_to(second)
}
