//! Derivatives of activation functions.

use super::pair;
use crate::neural::Gelu;
use crate::{BitNetTensor, Result};
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// `grad * slope(x)`.
fn chain(
    op: &'static str,
    grad: &BitNetTensor,
    x: &BitNetTensor,
    slope: impl FnOnce(&BitNetTensor) -> Result<BitNetTensor>,
) -> Result<BitNetTensor> {
    let (grad, wide) = pair(op, grad, x)?;
    slope(&wide)?.mul(&grad)?.to_dtype(x.dtype())
}

/// `grad` where `x > 0`, else `below`.
fn where_positive(x: &BitNetTensor, grad: &BitNetTensor, below: BitNetTensor) -> Result<BitNetTensor> {
    BitNetTensor::where_(&x.gt(0)?, grad, &below)
}

/// Of [`BitNetTensor::relu`]: `grad` where `x > 0`, else 0.
pub fn relu_backward(grad: &BitNetTensor, x: &BitNetTensor) -> Result<BitNetTensor> {
    let (grad, wide) = pair("relu_backward", grad, x)?;
    where_positive(&wide, &grad, grad.zeros_like()?)?.to_dtype(x.dtype())
}

/// Of [`BitNetTensor::relu2`]: `2 max(x, 0) grad`.
pub fn relu2_backward(grad: &BitNetTensor, x: &BitNetTensor) -> Result<BitNetTensor> {
    chain("relu2_backward", grad, x, |x| x.relu()?.mul(2))
}

/// Of [`BitNetTensor::gelu`]: with `P` and `p` the distribution of the normal and its density, `(P(x) + x p(x)) grad`;
/// for the tanh form the derivative of its formula.
pub fn gelu_backward(grad: &BitNetTensor, x: &BitNetTensor, approximate: Gelu) -> Result<BitNetTensor> {
    chain("gelu_backward", grad, x, |x| match approximate {
        Gelu::Erf => {
            let below = x.div(SQRT_2)?.erf()?.add(1)?.mul(0.5)?;
            let density = x.square()?.mul(-0.5)?.exp()?.div((2. * PI).sqrt())?;
            below.add(&density.mul(x)?)
        }
        Gelu::Tanh => {
            // sqrt(2 / pi)
            let factor = FRAC_2_SQRT_PI / SQRT_2;
            let square = x.square()?;
            let inner = square.mul(0.044715)?.add(1)?.mul(x)?.mul(factor)?;
            let tanh = inner.tanh()?;
            let steep = square.mul(3. * 0.044715)?.add(1)?.mul(factor)?;
            let slope = tanh.square()?.neg()?.add(1)?.mul(&steep)?.mul(x)?;
            tanh.add(1)?.add(&slope)?.mul(0.5)
        }
    })
}

/// Of [`BitNetTensor::silu`]: with `s = sigmoid(x)`, `s (1 + x (1 - s)) grad`.
pub fn silu_backward(grad: &BitNetTensor, x: &BitNetTensor) -> Result<BitNetTensor> {
    chain("silu_backward", grad, x, |x| {
        let s = x.sigmoid()?;
        s.neg()?.add(1)?.mul(x)?.add(1)?.mul(&s)
    })
}

/// Of [`BitNetTensor::sigmoid`], from its result `y`: `y (1 - y) grad`.
pub fn sigmoid_backward(grad: &BitNetTensor, y: &BitNetTensor) -> Result<BitNetTensor> {
    chain("sigmoid_backward", grad, y, |y| y.neg()?.add(1)?.mul(y))
}

/// Of [`BitNetTensor::tanh`], from its result `y`: `(1 - y^2) grad`.
pub fn tanh_backward(grad: &BitNetTensor, y: &BitNetTensor) -> Result<BitNetTensor> {
    chain("tanh_backward", grad, y, |y| y.square()?.neg()?.add(1))
}

/// Of [`BitNetTensor::softplus`]: `sigmoid(beta x) grad`, and `grad` where `beta x > threshold`.
pub fn softplus_backward(grad: &BitNetTensor, x: &BitNetTensor, beta: f64, threshold: f64) -> Result<BitNetTensor> {
    let (grad, wide) = pair("softplus_backward", grad, x)?;
    let scaled = wide.mul(beta)?;
    let soft = scaled.sigmoid()?.mul(&grad)?;
    BitNetTensor::where_(&scaled.gt(threshold)?, &grad, &soft)?.to_dtype(x.dtype())
}

/// Of [`BitNetTensor::elu`]: `grad` where `x > 0`, else `alpha e^x grad`.
pub fn elu_backward(grad: &BitNetTensor, x: &BitNetTensor, alpha: f64) -> Result<BitNetTensor> {
    let (grad, wide) = pair("elu_backward", grad, x)?;
    let below = wide.exp()?.mul(alpha)?.mul(&grad)?;
    where_positive(&wide, &grad, below)?.to_dtype(x.dtype())
}

/// Of [`BitNetTensor::leaky_relu`]: `grad` where `x > 0`, else `slope grad`.
pub fn leaky_relu_backward(grad: &BitNetTensor, x: &BitNetTensor, slope: f64) -> Result<BitNetTensor> {
    let (grad, wide) = pair("leaky_relu_backward", grad, x)?;
    where_positive(&wide, &grad, grad.mul(slope)?)?.to_dtype(x.dtype())
}
