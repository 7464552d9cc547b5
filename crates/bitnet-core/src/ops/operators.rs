//! Rust's operators on tensors and numbers: `&a + &b`, `2.0 * &a`, `a + 1`, `-&a`, `a += &b`.
//!
//! A number on the left is an `f64` or an `i32`: with one type for each kind of literal the compiler can infer the type
//! of `2.0 * &a`, so that method calls can follow. A number on the right has any type.
//!
//! Operators are for shapes and types that are known; use the methods, which return errors, for those from outside.

use super::Operand;
use super::binary::binary;
use super::unary::Domain;
use crate::autograd::is_recorded;
use crate::backend::{BinaryOp, UnaryOp};
use crate::{BitNetTensor, Result, Scalar};
use std::ops::*;

fn expect<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The right operand of an operator: a tensor, borrowed or owned, or a number. One trait for all, so that the compiler
/// can infer the type of `&a * 2.0` before that of `2.0`.
pub trait Right: Sized {
    /// The operand.
    fn operand(&self) -> Operand<'_>;

    /// `left op self`.
    #[doc(hidden)]
    fn right_of(self, name: &'static str, op: BinaryOp, left: &BitNetTensor) -> Result<BitNetTensor> {
        binary(name, op, left.into(), self.operand())
    }
}

impl Right for &BitNetTensor {
    fn operand(&self) -> Operand<'_> {
        Operand::Tensor(self)
    }
}

impl Right for BitNetTensor {
    fn operand(&self) -> Operand<'_> {
        Operand::Tensor(self)
    }

    fn right_of(self, name: &'static str, op: BinaryOp, left: &BitNetTensor) -> Result<BitNetTensor> {
        with_owned_right(name, op, left.into(), self)
    }
}

macro_rules! right_numbers {
    ($($number:ty)*) => { $(
        impl Right for $number {
            fn operand(&self) -> Operand<'_> {
                (*self).into()
            }
        }
    )* };
}
right_numbers!(f32 f64 i8 i16 i32 i64 isize u8 u16 u32 u64 usize bool Scalar);

/// `left op right`, in the storage of `right` if the operation is commutative.
fn with_owned_right(name: &'static str, op: BinaryOp, left: Operand, right: BitNetTensor) -> Result<BitNetTensor> {
    use BinaryOp::{And, Mul, Or, Xor};
    match op {
        BinaryOp::Add | Mul | And | Or | Xor => right.binary_owned(name, op, left),
        _ => binary(name, op, left, (&right).into()),
    }
}

/// `trait method, assigning trait and method, method of the tensor, op; numbers on the left`.
macro_rules! binary_operator {
    ($trait:ident $method:ident $assign_trait:ident $assign:ident $name:ident $op:ident; $($number:ty)*) => {
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`], reusing the storage of `self` if it is not shared.\n\n# Panics\nWhere that is an error.")]
        impl<R: Right> $trait<R> for BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self, other: R) -> BitNetTensor {
                expect(self.binary_owned(stringify!($name), BinaryOp::$op, other.operand()))
            }
        }

        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`].\n\n# Panics\nWhere that is an error.")]
        impl<R: Right> $trait<R> for &BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self, other: R) -> BitNetTensor {
                expect(other.right_of(stringify!($name), BinaryOp::$op, self))
            }
        }

        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`] in place.\n\n# Panics\nWhere that is an error.")]
        impl<R: Right> $assign_trait<R> for BitNetTensor {
            fn $assign(&mut self, other: R) {
                expect(self.binary_assign(stringify!($name), BinaryOp::$op, other.operand()));
            }
        }

        $(
            #[doc = concat!("[`BitNetTensor::", stringify!($name), "`] of a number and a tensor.\n\n# Panics\nWhere that is an error.")]
            impl $trait<&BitNetTensor> for $number {
                type Output = BitNetTensor;
                fn $method(self, other: &BitNetTensor) -> BitNetTensor {
                    expect(binary(stringify!($name), BinaryOp::$op, self.into(), other.into()))
                }
            }

            #[doc = concat!("[`BitNetTensor::", stringify!($name), "`] of a number and a tensor, whose storage is reused if it is not shared.\n\n# Panics\nWhere that is an error.")]
            impl $trait<BitNetTensor> for $number {
                type Output = BitNetTensor;
                fn $method(self, other: BitNetTensor) -> BitNetTensor {
                    expect(with_owned_right(stringify!($name), BinaryOp::$op, self.into(), other))
                }
            }
        )*
    };
}

binary_operator!(Add add AddAssign add_assign add Add; f64 i32);
binary_operator!(Sub sub SubAssign sub_assign sub Sub; f64 i32);
binary_operator!(Mul mul MulAssign mul_assign mul Mul; f64 i32);
binary_operator!(Div div DivAssign div_assign div Div; f64 i32);
binary_operator!(Rem rem RemAssign rem_assign remainder Remainder; f64 i32);
binary_operator!(BitAnd bitand BitAndAssign bitand_assign bitwise_and And; i32);
binary_operator!(BitOr bitor BitOrAssign bitor_assign bitwise_or Or; i32);
binary_operator!(BitXor bitxor BitXorAssign bitxor_assign bitwise_xor Xor; i32);
binary_operator!(Shl shl ShlAssign shl_assign bitwise_left_shift Shl; i32);
binary_operator!(Shr shr ShrAssign shr_assign bitwise_right_shift Shr; i32);

macro_rules! unary_operator {
    ($trait:ident $method:ident $name:ident $op:ident $domain:ident) => {
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`].\n\n# Panics\nWhere that is an error.")]
        impl $trait for &BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self) -> BitNetTensor {
                expect(self.unary(stringify!($name), UnaryOp::$op, Domain::$domain))
            }
        }
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`], reusing the storage of `self` if it is not shared.\n\n# Panics\nWhere that is an error.")]
        impl $trait for BitNetTensor {
            type Output = BitNetTensor;
            fn $method(mut self) -> BitNetTensor {
                if is_recorded(&[&self]) {
                    return expect(self.unary(stringify!($name), UnaryOp::$op, Domain::$domain));
                }
                expect(self.unary_assign(stringify!($name), UnaryOp::$op, Domain::$domain));
                self
            }
        }
    };
}

unary_operator!(Neg neg neg Neg Number);
unary_operator!(Not not bitwise_not Not Bits);

#[cfg(test)]
mod tests {
    use crate::{BitNetDType, BitNetTensor, Device};

    fn tensor(data: &[f32], dims: &[usize]) -> BitNetTensor {
        BitNetTensor::from_slice(data, dims, &Device::cpu()).unwrap()
    }

    #[test]
    fn operators_take_tensors_and_numbers_on_both_sides() {
        let (a, b) = (tensor(&[1., 2., 3., 4.], &[2, 2]), tensor(&[10., 20.], &[2]));
        let values = |x: BitNetTensor| x.to_vec::<f32>().unwrap();
        assert_eq!(values(&a + &b), [11., 22., 13., 24.]);
        assert_eq!(values(a.clone() - &b), [-9., -18., -7., -16.]);
        assert_eq!(values(&b - a.clone()), [9., 18., 7., 16.]);
        assert_eq!(values(a.clone() * b.clone()), [10., 40., 30., 80.]);
        assert_eq!(values(1.0 - &a), [0., -1., -2., -3.]);
        assert_eq!(values(12 / &a), [12., 6., 4., 3.]);
        assert_eq!(values(&a * 2 + 0.5f32), [2.5, 4.5, 6.5, 8.5]);
        assert_eq!(values(-&a), [-1., -2., -3., -4.]);
        assert_eq!(values(-(a.clone())), [-1., -2., -3., -4.]);
        // a is unchanged.
        assert_eq!(values(a), [1., 2., 3., 4.]);
    }

    #[test]
    fn assigning_operators_write_to_their_tensor_only() {
        let original = tensor(&[1., 2., 3., 4.], &[2, 2]);
        let mut x = original.clone();
        x += &tensor(&[1., 1.], &[2]);
        x *= 2.0;
        x -= tensor(&[1.], &[1]);
        x /= 1i64;
        assert_eq!(x.to_vec::<f32>().unwrap(), [3., 5., 7., 9.]);
        assert_eq!(original.to_vec::<f32>().unwrap(), [1., 2., 3., 4.]);
    }

    #[test]
    fn an_owned_left_operand_gives_its_storage() {
        let place = |x: &BitNetTensor| x.as_ref().storage.cpu("test", BitNetDType::F32).unwrap().bytes().as_ptr();
        let a = tensor(&[1., 2.], &[2]);
        let before = place(&a);
        let sum = a + 1.0;
        assert_eq!(place(&sum), before);
        let product = 2 * sum;
        assert_eq!(place(&product), before);
        let sum = &tensor(&[3., 4.], &[2]) + product;
        assert_eq!((place(&sum), sum.to_vec::<f32>().unwrap()), (before, vec![7., 10.]));
        let sum = sum - 4.0;
        // Not if it is shared, nor if the result does not fit.
        let shared = sum.clone();
        assert_ne!(place(&(sum + 1.0)), before);
        let wide = shared + &tensor(&[1., 2.], &[2, 1]);
        assert_eq!((wide.dims(), wide.to_vec::<f32>().unwrap()), (&[2, 2][..], vec![4., 7., 5., 8.]));
    }

    #[test]
    #[should_panic(expected = "add: [2] and [3] do not broadcast")]
    fn an_operator_panics_with_the_message_of_the_error() {
        let _ = tensor(&[1., 2.], &[2]) + tensor(&[1., 2., 3.], &[3]);
    }
}
