//! Functions of one operand, element by element: `exp` gives a new tensor, `exp_` works in place, `exp_into` writes to
//! a existing tensor.

use super::promote::can_cast;
use crate::autograd::{derivative, is_recorded, no_grad, not_into};
use crate::backend::UnaryOp;
use crate::{BitNetDType, BitNetTensor, DTypeCategory, Result, TensorOpError};

/// The dtypes that a function accepts, and that of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Integers and floats; the dtype is kept.
    Number,
    /// Floats; integers are returned unchanged.
    Whole,
    /// Floats; integers and `Bool` are computed as `F32`.
    Float,
    /// Integers and `Bool`.
    Bits,
}

impl Domain {
    fn result(self, name: &'static str, dtype: BitNetDType) -> Result<BitNetDType> {
        use DTypeCategory::*;
        match (self, dtype.category()) {
            (Self::Number | Self::Whole, Integer | Float) | (Self::Float, Float) | (Self::Bits, Integer | Bool) => {
                Ok(dtype)
            }
            (Self::Float, Integer | Bool) => Ok(BitNetDType::F32),
            _ => {
                let message = format!("not defined for {dtype}: cast it with to_dtype()");
                Err(TensorOpError::Argument { op: name, message }.into())
            }
        }
    }

    /// Whether the function leaves elements of `dtype` as they are.
    fn is_identity(self, dtype: BitNetDType) -> bool {
        self == Self::Whole && dtype.is_integer()
    }
}

impl BitNetTensor {
    pub(crate) fn unary(&self, name: &'static str, op: UnaryOp, domain: Domain) -> Result<Self> {
        let dtype = domain.result(name, self.dtype())?;
        if is_recorded(&[self]) {
            return derivative::unary(name, op, self, || self.unary(name, op, domain));
        }
        if domain.is_identity(dtype) {
            return Ok(self.clone());
        }
        if dtype != self.dtype() {
            let mut out = self.to_dtype(dtype)?;
            self.device().unary_assign(op, out.as_mut()?)?;
            return Ok(out);
        }
        let mut out = Self::empty(self.dims(), dtype, self.device())?;
        self.device().unary(op, self.as_ref(), out.as_mut()?)?;
        Ok(out)
    }

    pub(crate) fn unary_assign(&mut self, name: &'static str, op: UnaryOp, domain: Domain) -> Result<&mut Self> {
        let (from, to) = (domain.result(name, self.dtype())?, self.dtype());
        if !can_cast(from, to) {
            return Err(TensorOpError::CannotCast { op: name, from, to }.into());
        }
        if domain.is_identity(to) {
            return Ok(self);
        }
        if self.is_rewritten(name, &[])? {
            *self = self.unary(name, op, domain)?;
            return Ok(self);
        }
        if self.is_writable() {
            let device = self.device().clone();
            device.unary_assign(op, self.as_mut()?)?;
        } else {
            // Shared or overlapping storage is replaced: copying it first would be a second pass.
            self.set_values(no_grad(|| self.unary(name, op, domain))?);
        }
        Ok(self)
    }

    pub(crate) fn unary_into(&self, name: &'static str, op: UnaryOp, domain: Domain, out: &mut Self) -> Result<()> {
        not_into(name, &[self, out])?;
        let dtype = domain.result(name, self.dtype())?;
        out.check_out(name, self.shape(), dtype, self)?;
        if !out.is_writable() {
            out.set_values(self.unary(name, op, domain)?);
            return Ok(());
        }
        let device = self.device();
        if domain.is_identity(dtype) {
            device.copy(self.as_ref(), out.as_mut()?)
        } else if dtype != self.dtype() {
            device.cast(self.as_ref(), out.as_mut()?)?;
            device.unary_assign(op, out.as_mut()?)
        } else {
            device.unary(op, self.as_ref(), out.as_mut()?)
        }
    }
}

/// The three forms of each function: `doc, name name_ name_into => UnaryOp, Domain;`.
macro_rules! unary_methods {
    ($($doc:literal, $name:ident $in_place:ident $into:ident => $op:ident, $domain:ident;)*) => {
        impl crate::BitNetTensor { $(
            #[doc = $doc]
            pub fn $name(&self) -> crate::Result<Self> {
                let domain = crate::ops::Domain::$domain;
                self.unary(stringify!($name), crate::backend::UnaryOp::$op, domain)
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") in place; an error where the result has another dtype.")]
            pub fn $in_place(&mut self) -> crate::Result<&mut Self> {
                let domain = crate::ops::Domain::$domain;
                self.unary_assign(stringify!($in_place), crate::backend::UnaryOp::$op, domain)
            }

            #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), ") written to `out`, of the result's shape and dtype.")]
            pub fn $into(&self, out: &mut Self) -> crate::Result<()> {
                let domain = crate::ops::Domain::$domain;
                self.unary_into(stringify!($into), crate::backend::UnaryOp::$op, domain, out)
            }
        )* }
    };
}
pub(crate) use unary_methods;

unary_methods! {
    "`-x` (`torch.neg`); unsigned integers wrap.", neg neg_ neg_into => Neg, Number;
    "`|x|` (`torch.abs`); the smallest signed integer stays.", abs abs_ abs_into => Abs, Number;
    "-1, 0 or 1 by the sign of `x` (`torch.sign`); NaN gives 0.", sign sign_ sign_into => Sign, Number;
    "`x * x` (`torch.square`); integers wrap.", square square_ square_into => Square, Number;
    "The largest whole number that is not above `x` (`torch.floor`).", floor floor_ floor_into => Floor, Whole;
    "The smallest whole number that is not below `x` (`torch.ceil`).", ceil ceil_ ceil_into => Ceil, Whole;
    "The nearest whole number, halves to the even one (`torch.round`).", round round_ round_into => Round, Whole;
    "`x` without its fraction (`torch.trunc`).", trunc trunc_ trunc_into => Trunc, Whole;
    "The bits of integers inverted; the opposite of `Bool` (`torch.bitwise_not`).",
        bitwise_not bitwise_not_ bitwise_not_into => Not, Bits;
    "Square root (`torch.sqrt`); below zero NaN.", sqrt sqrt_ sqrt_into => Sqrt, Float;
    "`1 / sqrt(x)` (`torch.rsqrt`).", rsqrt rsqrt_ rsqrt_into => Rsqrt, Float;
    "`1 / x` (`torch.reciprocal`).", reciprocal reciprocal_ reciprocal_into => Reciprocal, Float;
    "`e^x` (`torch.exp`).", exp exp_ exp_into => Exp, Float;
    "`2^x` (`torch.exp2`).", exp2 exp2_ exp2_into => Exp2, Float;
    "`e^x - 1`, exact near zero (`torch.expm1`).", expm1 expm1_ expm1_into => Expm1, Float;
    "Natural logarithm (`torch.log`).", log log_ log_into => Log, Float;
    "Logarithm to base 2 (`torch.log2`).", log2 log2_ log2_into => Log2, Float;
    "Logarithm to base 10 (`torch.log10`).", log10 log10_ log10_into => Log10, Float;
    "`log(1 + x)`, exact near zero (`torch.log1p`).", log1p log1p_ log1p_into => Log1p, Float;
    "Sine of radians (`torch.sin`).", sin sin_ sin_into => Sin, Float;
    "Cosine of radians (`torch.cos`).", cos cos_ cos_into => Cos, Float;
    "Tangent of radians (`torch.tan`).", tan tan_ tan_into => Tan, Float;
    "Arc sine in radians (`torch.asin`).", asin asin_ asin_into => Asin, Float;
    "Arc cosine in radians (`torch.acos`).", acos acos_ acos_into => Acos, Float;
    "Arc tangent in radians (`torch.atan`).", atan atan_ atan_into => Atan, Float;
    "Hyperbolic sine (`torch.sinh`).", sinh sinh_ sinh_into => Sinh, Float;
    "Hyperbolic cosine (`torch.cosh`).", cosh cosh_ cosh_into => Cosh, Float;
    "Error function, `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x` (`torch.erf`).",
        erf erf_ erf_into => Erf, Float;
}

#[cfg(test)]
mod tests {
    use crate::BitNetDType::*;
    use crate::{BitNetTensor, Device};

    #[test]
    fn three_forms_give_one_result() {
        let x = BitNetTensor::from_slice(&[1f32, -2.5, 0.], &[3], &Device::cpu()).unwrap();
        let expected = x.exp().unwrap().to_vec::<f32>().unwrap();
        let (mut shared, mut alone) = (x.clone(), x.copy().unwrap());
        assert_eq!(shared.exp_().unwrap().to_vec::<f32>().unwrap(), expected);
        assert_eq!(alone.exp_().unwrap().to_vec::<f32>().unwrap(), expected);
        let mut out = BitNetTensor::zeros(&[3], F32, &Device::cpu()).unwrap();
        x.exp_into(&mut out).unwrap();
        assert_eq!(out.to_vec::<f32>().unwrap(), expected);
        assert_eq!(x.to_vec::<f32>().unwrap(), [1., -2.5, 0.]);
        let mut wrong = BitNetTensor::zeros(&[3], F64, &Device::cpu()).unwrap();
        assert_eq!(x.exp_into(&mut wrong).unwrap_err().to_string(), "exp_into: out is f64, needed f32");
        assert!(x.exp_into(&mut BitNetTensor::zeros(&[1, 3], F32, &Device::cpu()).unwrap()).is_err());
    }

    #[test]
    fn integers_are_computed_as_f32_or_stay() {
        let mut i = BitNetTensor::from_slice(&[4i16, -9], &[2], &Device::cpu()).unwrap();
        let root = i.abs().unwrap().sqrt().unwrap();
        assert_eq!((root.dtype(), root.to_vec::<f32>().unwrap()), (F32, vec![2., 3.]));
        let mut out = BitNetTensor::zeros(&[2], F32, &Device::cpu()).unwrap();
        i.reciprocal_into(&mut out).unwrap();
        assert_eq!(out.to_vec::<f32>().unwrap(), [0.25, -1. / 9.]);
        assert!(i.sqrt_().unwrap_err().to_string().contains("the result is f32, which a tensor of i16 cannot take"));
        // Integers are unchanged: the storage is shared.
        let floor = i.floor().unwrap();
        assert!(floor.shares_storage(&i));
        assert_eq!(i.neg_().unwrap().to_vec::<i16>().unwrap(), [-4, 9]);
        assert_eq!(floor.to_vec::<i16>().unwrap(), [4, -9]);
        assert_eq!(floor.bitwise_not().unwrap().to_vec::<i16>().unwrap(), [-5, 8]);
        let truth = BitNetTensor::from_bytes(&[1, 0], &[2], Bool, &Device::cpu()).unwrap();
        assert_eq!(truth.bitwise_not().unwrap().to_dtype(U8).unwrap().to_vec::<u8>().unwrap(), [0, 1]);
        assert_eq!(truth.neg().unwrap_err().to_string(), "neg: not defined for bool: cast it with to_dtype()");
        assert!(root.bitwise_not().is_err());
    }
}
