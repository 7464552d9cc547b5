//! Rust's operators on tensors and numbers: `&a + &b`, `2.0 * &a`, `a + 1`, `-&a`, `a += &b`.
//!
//! They are for shapes and types that the program knows; for those from outside there are the methods, which return errors.

use super::Operand;
use super::binary::binary;
use super::unary::Domain;
use crate::backend::{BinaryOp, UnaryOp};
use crate::{BitNetTensor, Result};
use std::ops::*;

fn expect<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// `binary_operator!(trait, method, assigning trait, its method, method of the tensor, op; numbers on both sides)`.
macro_rules! binary_operator {
    ($trait:ident $method:ident $assign_trait:ident $assign:ident $name:ident $op:ident; $($number:ty)*) => {
        binary_operator!(@right $trait $method $assign_trait $assign $name $op; &BitNetTensor, |other| Operand::Tensor(other));
        binary_operator!(@right $trait $method $assign_trait $assign $name $op; BitNetTensor, |other| Operand::Tensor(&other));
        $(
            binary_operator!(@right $trait $method $assign_trait $assign $name $op; $number, |other| Operand::from(other));
            binary_operator!(@left $trait $method $name $op; $number, &BitNetTensor, |right| Operand::Tensor(right));
            binary_operator!(@left $trait $method $name $op; $number, BitNetTensor, |right| Operand::Tensor(&right));
        )*
    };
    (@right $trait:ident $method:ident $assign_trait:ident $assign:ident $name:ident $op:ident; $right:ty, |$other:ident| $operand:expr) => {
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`], which gets the storage of `self` where nobody shares it.\n\n# Panics\nWhere that is an error.")]
        impl $trait<$right> for BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self, $other: $right) -> BitNetTensor {
                expect(self.binary_owned(stringify!($name), BinaryOp::$op, $operand))
            }
        }
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`].\n\n# Panics\nWhere that is an error.")]
        impl $trait<$right> for &BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self, $other: $right) -> BitNetTensor {
                expect(binary(stringify!($name), BinaryOp::$op, self.into(), $operand))
            }
        }
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`] in place.\n\n# Panics\nWhere that is an error.")]
        impl $assign_trait<$right> for BitNetTensor {
            fn $assign(&mut self, $other: $right) {
                expect(self.binary_assign(stringify!($name), BinaryOp::$op, $operand));
            }
        }
    };
    (@left $trait:ident $method:ident $name:ident $op:ident; $number:ty, $right:ty, |$other:ident| $operand:expr) => {
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`] of a number and a tensor.\n\n# Panics\nWhere that is an error.")]
        impl $trait<$right> for $number {
            type Output = BitNetTensor;
            fn $method(self, $other: $right) -> BitNetTensor {
                expect(binary(stringify!($name), BinaryOp::$op, Operand::from(self), $operand))
            }
        }
    };
}

binary_operator!(Add add AddAssign add_assign add Add; f32 f64 i32 i64);
binary_operator!(Sub sub SubAssign sub_assign sub Sub; f32 f64 i32 i64);
binary_operator!(Mul mul MulAssign mul_assign mul Mul; f32 f64 i32 i64);
binary_operator!(Div div DivAssign div_assign div Div; f32 f64 i32 i64);
binary_operator!(Rem rem RemAssign rem_assign remainder Remainder; f32 f64 i32 i64);
binary_operator!(BitAnd bitand BitAndAssign bitand_assign bitwise_and And; i32 i64 bool);
binary_operator!(BitOr bitor BitOrAssign bitor_assign bitwise_or Or; i32 i64 bool);
binary_operator!(BitXor bitxor BitXorAssign bitxor_assign bitwise_xor Xor; i32 i64 bool);
binary_operator!(Shl shl ShlAssign shl_assign bitwise_left_shift Shl; i32 i64);
binary_operator!(Shr shr ShrAssign shr_assign bitwise_right_shift Shr; i32 i64);

macro_rules! unary_operator {
    ($trait:ident $method:ident $name:ident $op:ident $domain:ident) => {
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`].\n\n# Panics\nWhere that is an error.")]
        impl $trait for &BitNetTensor {
            type Output = BitNetTensor;
            fn $method(self) -> BitNetTensor {
                expect(self.unary(stringify!($name), UnaryOp::$op, Domain::$domain))
            }
        }
        #[doc = concat!("[`BitNetTensor::", stringify!($name), "`], which gets the storage of `self` where nobody shares it.\n\n# Panics\nWhere that is an error.")]
        impl $trait for BitNetTensor {
            type Output = BitNetTensor;
            fn $method(mut self) -> BitNetTensor {
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
        // a itself is as it was.
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
        // Not one that is shared, nor one that the result does not fit.
        let shared = sum.clone();
        assert_ne!(place(&(sum + 1.0)), before);
        let wide = shared + &tensor(&[1., 2.], &[2, 1]);
        assert_eq!((wide.dims(), wide.to_vec::<f32>().unwrap()), (&[2, 2][..], vec![3., 4., 4., 5.]));
    }

    #[test]
    #[should_panic(expected = "add: [2] and [3] do not broadcast")]
    fn an_operator_panics_with_the_message_of_the_error() {
        let _ = tensor(&[1., 2.], &[2]) + tensor(&[1., 2., 3.], &[3]);
    }
}
