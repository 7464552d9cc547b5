//! Comparison of a tensor with the expected result of a case.

use crate::cases::{Data, Tolerance};
use bitnet_core::BitNetDType::{self, *};
use bitnet_core::BitNetTensor;
use half::{bf16, f16};

/// An element, floats in f64.
#[derive(Clone, Copy, Debug)]
enum Value {
    Float(f64),
    Int(i128),
}

fn value(dtype: BitNetDType, b: &[u8]) -> Value {
    macro_rules! int {
        ($t:ty) => {
            Value::Int(<$t>::from_le_bytes(b.try_into().expect("an element")).into())
        };
    }
    match dtype {
        F64 => Value::Float(f64::from_le_bytes(b.try_into().expect("8 bytes"))),
        F32 => Value::Float(f32::from_le_bytes(b.try_into().expect("4 bytes")).into()),
        F16 => Value::Float(f16::from_le_bytes(b.try_into().expect("2 bytes")).into()),
        BF16 => Value::Float(bf16::from_le_bytes(b.try_into().expect("2 bytes")).into()),
        I8 => int!(i8),
        I16 => int!(i16),
        I32 => int!(i32),
        I64 => int!(i64),
        U8 | Bool => int!(u8),
        U16 => int!(u16),
        U32 => int!(u32),
        U64 => int!(u64),
        other => panic!("{other} is not an element type"),
    }
}

/// Distance between neighbours of the dtype at a magnitude: mantissa bits, smallest exponent.
fn unit(dtype: BitNetDType, magnitude: f64) -> f64 {
    let (mantissa, smallest) = match dtype {
        F64 => (52, -1022),
        F32 => (23, -126),
        F16 => (10, -14),
        _ => (7, -126),
    };
    let exponent = if magnitude == 0. { smallest } else { magnitude.log2().floor().max(smallest as f64) as i32 };
    // In two factors: the smallest unit of f64 is below its smallest normal number.
    2f64.powi(exponent) * 2f64.powi(-mantissa)
}

fn near(dtype: BitNetDType, got: Value, expected: Value, tolerance: Tolerance) -> bool {
    match (got, expected) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) if a.is_nan() || b.is_nan() => a.is_nan() && b.is_nan(),
        (Value::Float(a), Value::Float(b)) if a == b => {
            !tolerance.zeros || a != 0. || a.is_sign_negative() == b.is_sign_negative()
        }
        (Value::Float(a), Value::Float(b)) => {
            // Infinity counts as one unit beyond the largest number. The last factor allows for rounding of the bound
            // itself.
            let finite = |v: f64| if v.is_infinite() { limit(dtype).copysign(v) } else { v };
            let distance = (finite(a) - finite(b)).abs();
            let near = distance <= tolerance.ulps * unit(dtype, finite(a).abs().min(finite(b).abs())) * 1.0001;
            near || a.is_finite() && b.is_finite() && distance <= tolerance.absolute
        }
        _ => false,
    }
}

/// Where infinity would be if numbers went on.
fn limit(dtype: BitNetDType) -> f64 {
    match dtype {
        F64 => f64::MAX,
        F32 | BF16 => 2f64.powi(128),
        _ => 65536.,
    }
}

/// The first difference between a tensor, whose elements are `bytes`, and the expected one. Where `I64` is expected of a device
/// without it, positions are `U32` and sums of 32 bits, wrapped.
pub fn difference(
    got: &BitNetTensor,
    bytes: &[u8],
    expected: &Data,
    dims: &[usize],
    tolerance: Tolerance,
) -> Option<String> {
    let narrow = expected.dtype == I64 && matches!(got.dtype(), I32 | U32) && !got.device().has(I64);
    if got.dtype() != expected.dtype && !narrow {
        return Some(format!("dtype {}, expected {}", got.dtype(), expected.dtype));
    }
    if got.dims() != dims {
        return Some(format!("shape {:?}, expected {dims:?}", got.dims()));
    }
    let (dtype, size, wide) = (got.dtype(), got.dtype().size(), expected.dtype.size());
    let expected = expected.bytes();
    let wrong = |(i, (g, e)): (usize, (&[u8], &[u8]))| {
        // Its lower half, in little-endian order.
        let (g, e) = (value(dtype, g), value(dtype, &e[..size]));
        (!near(dtype, g, e, tolerance)).then(|| format!("element {i}: {g:?}, expected {e:?}"))
    };
    let all = bytes.chunks_exact(size).zip(expected.chunks_exact(wide)).enumerate();
    let mut found = all.filter_map(wrong);
    let first = found.next()?;
    Some(format!("{first} (and {} more; {} ulps, {:e} absolute)", found.count(), tolerance.ulps, tolerance.absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Tolerance = Tolerance { ulps: 0., absolute: 0., zeros: true };
    const ONE: Tolerance = Tolerance { ulps: 1., ..EXACT };

    fn float(dtype: BitNetDType, got: f64, expected: f64, tolerance: Tolerance) -> bool {
        near(dtype, Value::Float(got), Value::Float(expected), tolerance)
    }

    #[test]
    fn differences_are_seen() {
        let next = f32::from_bits(1f32.to_bits() + 1).into();
        assert!(float(F32, 1., 1., EXACT) && !float(F32, next, 1., EXACT) && float(F32, next, 1., ONE));
        assert!(!float(F32, f32::from_bits(1f32.to_bits() + 2).into(), 1., ONE));
        assert!(!float(F64, 1. + 4e-16, 1., ONE) && float(F64, 1. + 2e-16, 1., ONE));
        assert!(!float(F16, 1.002, 1., ONE) && float(BF16, 1.0078125, 1., ONE) && !float(BF16, 1.015625, 1., ONE));
        // Denormals are a constant distance apart.
        assert!(float(F32, 1.401298464324817e-45, 0., ONE) && !float(F32, 2.802596928649634e-45, 0., ONE));
        assert!(float(F64, 5e-324, 0., ONE) && !float(F64, 1e-323, 0., ONE));
    }

    #[test]
    fn nan_equals_only_nan() {
        assert!(float(F32, f64::NAN, f64::NAN, EXACT));
        assert!(!float(F32, f64::NAN, 0., Tolerance { absolute: 1e9, ..ONE }) && !float(F32, 0., f64::NAN, ONE));
        assert!(!float(F32, f64::INFINITY, f64::NEG_INFINITY, Tolerance { absolute: 1e300, ..ONE }));
        assert!(!float(F32, f64::INFINITY, 1e30, ONE) && float(F32, f64::INFINITY, f32::MAX.into(), ONE));
        assert!(!float(F32, f64::INFINITY, f32::MAX.into(), EXACT));
        assert!(!float(F32, -0., 0., EXACT) && float(F32, -0., 0., Tolerance { zeros: false, ..EXACT }));
        assert!(!near(I64, Value::Int(1), Value::Int(2), ONE));
    }
}
