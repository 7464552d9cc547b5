//! Activations.

use super::derivative::{elu_backward, leaky_relu_backward, softplus_backward};
use crate::autograd::{differentiable, is_recorded};
use crate::backend::{BinaryOp, GateActivation, UnaryOp};
use crate::ops::{Domain, unary_methods};
use crate::{BitNetDType, BitNetTensor, Result};

/// Which GELU (Hendrycks and Gimpel 2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// `x (1 + erf(x / sqrt(2))) / 2`.
    #[default]
    Erf,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    Tanh,
}

unary_methods! {
    "`max(x, 0)` (`torch.relu`); NaN stays.", relu relu_ relu_into => Relu, Number;
    "`max(x, 0)^2`, the activation of BitNet b1.58 2B4T (So et al. 2021).", relu2 relu2_ relu2_into => Relu2, Number;
    "`1 / (1 + e^-x)` (`torch.sigmoid`).", sigmoid sigmoid_ sigmoid_into => Sigmoid, Float;
    "`x / (1 + e^-x)` (`torch.nn.functional.silu`), also called swish.", silu silu_ silu_into => Silu, Float;
    "Hyperbolic tangent (`torch.tanh`).", tanh tanh_ tanh_into => Tanh, Float;
}

impl BitNetTensor {
    /// Gaussian error linear unit (`torch.nn.functional.gelu`).
    pub fn gelu(&self, approximate: Gelu) -> Result<Self> {
        self.unary("gelu", gelu_op(approximate), Domain::Float)
    }

    /// [`gelu`](Self::gelu) in place.
    pub fn gelu_(&mut self, approximate: Gelu) -> Result<&mut Self> {
        self.unary_assign("gelu_", gelu_op(approximate), Domain::Float)
    }

    /// `log(1 + e^(beta x)) / beta`, and `x` itself where `beta x > threshold` (`torch.nn.functional.softplus`).
    pub fn softplus(&self, beta: f64, threshold: f64) -> Result<Self> {
        if is_recorded(&[self]) {
            return self.with_derivative(
                "softplus",
                || self.softplus(beta, threshold),
                move |grad, x| softplus_backward(grad, x, beta, threshold),
            );
        }
        crate::mixed_precision::operand("softplus", self)?.widened("softplus", |x| {
            let scaled = x.mul(beta)?;
            let soft = scaled.exp()?.log1p()?.div(beta)?;
            Self::where_(&scaled.gt(threshold)?, x, &soft)
        })
    }

    /// `x` above zero, else `alpha (e^x - 1)` (`torch.nn.functional.elu`; Clevert et al. 2015).
    pub fn elu(&self, alpha: f64) -> Result<Self> {
        if is_recorded(&[self]) {
            return self.with_derivative("elu", || self.elu(alpha), move |grad, x| elu_backward(grad, x, alpha));
        }
        self.widened("elu", |x| Self::where_(&x.gt(0.)?, x, &x.expm1()?.mul(alpha)?))
    }

    /// `x` above zero, else `slope x` (`torch.nn.functional.leaky_relu`).
    pub fn leaky_relu(&self, slope: f64) -> Result<Self> {
        if is_recorded(&[self]) {
            return self.with_derivative(
                "leaky_relu",
                || self.leaky_relu(slope),
                move |grad, x| leaky_relu_backward(grad, x, slope),
            );
        }
        self.widened("leaky_relu", |x| Self::where_(&x.gt(0.)?, x, &x.mul(slope)?))
    }

    /// A function of one operand whose derivative is computed from gradient and operand.
    fn with_derivative(
        &self,
        op: &'static str,
        forward: impl FnOnce() -> Result<Self>,
        backward: impl Fn(&Self, &Self) -> Result<Self> + Send + Sync + 'static,
    ) -> Result<Self> {
        let x = self.clone();
        differentiable(op, &[self], forward, |_| move |grad: &Self| Ok(vec![Some(backward(grad, &x)?)]))
    }

    /// Gated activation of a feed-forward layer, `act(self) * up`: one pass if the device supports it.
    pub fn gated(&self, gate: GateActivation, up: &Self) -> Result<Self> {
        self.same_device("gated", up)?;
        let (f32s, dims) = (BitNetDType::F32, self.dims());
        let fits = self.dtype() == f32s && up.dtype() == f32s && up.dims() == dims && self.elements() > 0;
        if fits && !is_recorded(&[self, up]) {
            let (mut out, up) = (self.copy()?, up.contiguous()?);
            self.device().gated(gate, out.as_mut()?, up.as_ref())?;
            return Ok(out);
        }
        let active = match gate {
            GateActivation::Relu2 => self.relu2()?,
            GateActivation::Silu => self.silu()?,
            GateActivation::GeluTanh => self.gelu(Gelu::Tanh)?,
        };
        crate::ops::binary("gated", BinaryOp::Mul, (&active).into(), up.into())
    }
}

fn gelu_op(approximate: Gelu) -> UnaryOp {
    match approximate {
        Gelu::Erf => UnaryOp::GeluErf,
        Gelu::Tanh => UnaryOp::GeluTanh,
    }
}
