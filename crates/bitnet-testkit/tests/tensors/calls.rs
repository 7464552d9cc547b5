//! Calls a method by the name of its operation: out of place, in place, and the `_into` form, where they exist.

use crate::cases::{self, Case, Input};
use bitnet_core::{BitNetDType, BitNetTensor, Device, Operand, Result, Scalar};
use serde_json::Value;

/// The inputs and attributes of a case.
pub struct Args<'a> {
    pub inputs: &'a [Input],
    pub attrs: &'a Value,
    pub device: &'a Device,
}

impl<'a> Args<'a> {
    pub fn new(case: &'a Case, inputs: &'a [Input], device: &'a Device) -> Self {
        Self { inputs, attrs: &case.attrs, device }
    }

    /// Tensor input `i`.
    pub fn t(&self, i: usize) -> &'a BitNetTensor {
        match &self.inputs[i] {
            Input::Tensor(t) => t,
            _ => panic!("input {i} is not a tensor"),
        }
    }

    pub fn list(&self, i: usize) -> Vec<&'a BitNetTensor> {
        match &self.inputs[i] {
            Input::List(list) => list.iter().collect(),
            _ => panic!("input {i} is not a list"),
        }
    }

    pub fn scalar(&self, i: usize) -> Scalar {
        match &self.inputs[i] {
            Input::Scalar(s) => *s,
            _ => panic!("input {i} is not a scalar"),
        }
    }

    pub fn operand(&self, i: usize) -> Operand<'a> {
        match &self.inputs[i] {
            Input::Tensor(t) => Operand::Tensor(t),
            Input::Scalar(s) => Operand::Scalar(*s),
            Input::List(_) => panic!("input {i} is a list"),
        }
    }

    pub fn int(&self, key: &str) -> isize {
        cases::number(&self.attrs[key])
    }

    pub fn size(&self, key: &str) -> usize {
        self.int(key) as usize
    }

    pub fn ints(&self, key: &str) -> Vec<isize> {
        cases::numbers(&self.attrs[key])
    }

    pub fn sizes(&self, key: &str) -> Vec<usize> {
        cases::sizes(&self.attrs[key])
    }

    pub fn float(&self, key: &str) -> f64 {
        let value = &self.attrs[key];
        value.as_f64().unwrap_or_else(|| value.as_str().expect("a float").parse().expect("a float"))
    }

    pub fn flag(&self, key: &str) -> bool {
        self.attrs[key].as_bool().unwrap_or_else(|| panic!("no flag {key}"))
    }

    pub fn text(&self, key: &str) -> &'a str {
        self.attrs[key].as_str().unwrap_or_else(|| panic!("no text {key}"))
    }

    pub fn dtype(&self) -> BitNetDType {
        cases::dtype(self.text("dtype"))
    }
}

/// The result of a call; `None` for a name that this file does not handle.
pub type Called = Option<Result<Vec<BitNetTensor>>>;

/// Methods of one operand in three forms.
macro_rules! unary {
    ($($name:literal: $method:ident $in_place:ident $into:ident),* $(,)?) => {
        fn unary(op: &str, x: &BitNetTensor) -> Option<Result<BitNetTensor>> {
            Some(match op { $($name => x.$method(),)* _ => return None })
        }
        fn unary_in_place(op: &str, x: &mut BitNetTensor) -> Option<Result<()>> {
            Some(match op { $($name => x.$in_place().map(|_| ()),)* _ => return None })
        }
        fn unary_into(op: &str, x: &BitNetTensor, out: &mut BitNetTensor) -> Option<Result<()>> {
            Some(match op { $($name => x.$into(out),)* _ => return None })
        }
    };
}
unary! {
    "neg": neg neg_ neg_into, "abs": abs abs_ abs_into, "sign": sign sign_ sign_into, "square": square square_ square_into,
    "floor": floor floor_ floor_into, "ceil": ceil ceil_ ceil_into, "round": round round_ round_into,
    "trunc": trunc trunc_ trunc_into, "bitwise_not": bitwise_not bitwise_not_ bitwise_not_into,
    "sqrt": sqrt sqrt_ sqrt_into, "rsqrt": rsqrt rsqrt_ rsqrt_into,
    "reciprocal": reciprocal reciprocal_ reciprocal_into, "exp": exp exp_ exp_into, "exp2": exp2 exp2_ exp2_into,
    "expm1": expm1 expm1_ expm1_into, "log": log log_ log_into, "log2": log2 log2_ log2_into,
    "log10": log10 log10_ log10_into, "log1p": log1p log1p_ log1p_into, "sin": sin sin_ sin_into,
    "cos": cos cos_ cos_into, "tan": tan tan_ tan_into, "asin": asin asin_ asin_into, "acos": acos acos_ acos_into,
    "atan": atan atan_ atan_into, "sinh": sinh sinh_ sinh_into, "cosh": cosh cosh_ cosh_into, "erf": erf erf_ erf_into,
    "relu": relu relu_ relu_into, "relu2": relu2 relu2_ relu2_into, "sigmoid": sigmoid sigmoid_ sigmoid_into,
    "silu": silu silu_ silu_into, "tanh": tanh tanh_ tanh_into,
}

/// Methods of two operands in three forms.
macro_rules! binary {
    ($($name:literal: $method:ident $in_place:ident $into:ident),* $(,)?) => {
        fn binary(op: &str, x: &BitNetTensor, y: Operand) -> Option<Result<BitNetTensor>> {
            Some(match op { $($name => x.$method(y),)* _ => return None })
        }
        fn binary_in_place(op: &str, x: &mut BitNetTensor, y: Operand) -> Option<Result<()>> {
            Some(match op { $($name => x.$in_place(y).map(|_| ()),)* _ => return None })
        }
        fn binary_into(op: &str, x: &BitNetTensor, y: Operand, out: &mut BitNetTensor) -> Option<Result<()>> {
            Some(match op { $($name => x.$into(y, out),)* _ => return None })
        }
    };
}
binary! {
    "add": add add_ add_into, "sub": sub sub_ sub_into, "mul": mul mul_ mul_into, "div": div div_ div_into,
    "floor_div": floor_div floor_div_ floor_div_into, "remainder": remainder remainder_ remainder_into,
    "pow": pow pow_ pow_into, "atan2": atan2 atan2_ atan2_into, "minimum": minimum minimum_ minimum_into,
    "maximum": maximum maximum_ maximum_into, "bitwise_and": bitwise_and bitwise_and_ bitwise_and_into,
    "bitwise_or": bitwise_or bitwise_or_ bitwise_or_into, "bitwise_xor": bitwise_xor bitwise_xor_ bitwise_xor_into,
    "bitwise_left_shift": bitwise_left_shift bitwise_left_shift_ bitwise_left_shift_into,
    "bitwise_right_shift": bitwise_right_shift bitwise_right_shift_ bitwise_right_shift_into,
}

/// Calls the out-of-place form.
pub fn call(op: &str, args: &Args) -> Called {
    let one = |result: Result<BitNetTensor>| Some(result.map(|t| vec![t]));
    if let [Input::Tensor(x)] = args.inputs
        && let Some(result) = unary(op, x)
    {
        return one(result);
    }
    if let [Input::Tensor(x), Input::Tensor(_) | Input::Scalar(_)] = args.inputs
        && let Some(result) = binary(op, x, args.operand(1))
    {
        return one(result);
    }
    let groups: [fn(&str, &Args) -> Called; 6] = [
        crate::views::call,
        crate::indices::call,
        crate::reductions::call,
        crate::searches::call,
        crate::networks::call,
        crate::linear::call,
    ];
    groups.iter().find_map(|call| call(op, args))
}

/// Calls the in-place form on `x`, which is the first operand.
pub fn call_in_place(op: &str, args: &Args, x: &mut BitNetTensor) -> Option<Result<()>> {
    match args.inputs {
        [Input::Tensor(_)] => unary_in_place(op, x),
        [Input::Tensor(_), Input::Tensor(_) | Input::Scalar(_)] => binary_in_place(op, x, args.operand(1)),
        _ => None,
    }
    .or_else(|| crate::reductions::in_place(op, args, x))
    .or_else(|| crate::networks::in_place(op, args, x))
}

/// Calls the form that writes to `out`.
pub fn call_into(op: &str, args: &Args, out: &mut BitNetTensor) -> Option<Result<()>> {
    match args.inputs {
        [Input::Tensor(x)] => unary_into(op, x, out),
        [Input::Tensor(x), Input::Tensor(_) | Input::Scalar(_)] => binary_into(op, x, args.operand(1), out),
        _ => None,
    }
    .or_else(|| crate::reductions::into(op, args, out))
    .or_else(|| crate::linear::into(op, args, out))
}
