//! Tables printed by PyTorch 2.15, with `t = lambda d, n: torch.ones([2][:n], dtype=d)` and `d` the dtypes of `TYPES`:
//! `[[torch.promote_types(a, b) for b in d] for a in d]`, `[[torch.result_type(t(a, 1), t(b, 0)) for b in d] for a in d]`,
//! `[[torch.result_type(t(a, 1), v) for v in (1.5, 3, True)] for a in d]` (the same for `t(a, 0)`).

use super::*;
use crate::{BitNetTensor, Device, Scalar};

const TYPES: [BitNetDType; 10] = [F64, F32, F16, BF16, I8, I16, I32, I64, U8, Bool];
const PROMOTE: [[BitNetDType; 10]; 10] = [
    [F64, F64, F64, F64, F64, F64, F64, F64, F64, F64],
    [F64, F32, F32, F32, F32, F32, F32, F32, F32, F32],
    [F64, F32, F16, F32, F16, F16, F16, F16, F16, F16],
    [F64, F32, F32, BF16, BF16, BF16, BF16, BF16, BF16, BF16],
    [F64, F32, F16, BF16, I8, I16, I32, I64, I16, I8],
    [F64, F32, F16, BF16, I16, I16, I32, I64, I16, I16],
    [F64, F32, F16, BF16, I32, I32, I32, I64, I32, I32],
    [F64, F32, F16, BF16, I64, I64, I64, I64, I64, I64],
    [F64, F32, F16, BF16, I16, I16, I32, I64, U8, U8],
    [F64, F32, F16, BF16, I8, I16, I32, I64, U8, Bool],
];
const WITH_0D: [[BitNetDType; 10]; 10] = [
    [F64, F64, F64, F64, F64, F64, F64, F64, F64, F64],
    [F32, F32, F32, F32, F32, F32, F32, F32, F32, F32],
    [F16, F16, F16, F16, F16, F16, F16, F16, F16, F16],
    [BF16, BF16, BF16, BF16, BF16, BF16, BF16, BF16, BF16, BF16],
    [F64, F32, F16, BF16, I8, I8, I8, I8, I8, I8],
    [F64, F32, F16, BF16, I16, I16, I16, I16, I16, I16],
    [F64, F32, F16, BF16, I32, I32, I32, I32, I32, I32],
    [F64, F32, F16, BF16, I64, I64, I64, I64, I64, I64],
    [F64, F32, F16, BF16, U8, U8, U8, U8, U8, U8],
    [F64, F32, F16, BF16, I8, I16, I32, I64, U8, Bool],
];
const WITH_SCALAR: [[BitNetDType; 3]; 10] = [
    [F64, F64, F64],
    [F32, F32, F32],
    [F16, F16, F16],
    [BF16, BF16, BF16],
    [F32, I8, I8],
    [F32, I16, I16],
    [F32, I32, I32],
    [F32, I64, I64],
    [F32, U8, U8],
    [F32, I64, Bool],
];

#[test]
fn types_promote_as_in_pytorch() {
    for (a, row) in TYPES.into_iter().zip(PROMOTE) {
        for (b, expected) in TYPES.into_iter().zip(row) {
            assert_eq!(promote_types(a, b).unwrap(), expected, "{a} with {b}");
        }
    }
}

#[test]
fn operands_promote_as_in_pytorch() {
    let cpu = Device::cpu();
    let scalars = [Scalar::Float(1.5), Scalar::Int(3), Scalar::Bool(true)];
    for (i, a) in TYPES.into_iter().enumerate() {
        let vector = BitNetTensor::zeros(&[2], a, &cpu).unwrap();
        let zero_d = BitNetTensor::zeros(&[], a, &cpu).unwrap();
        for (j, b) in TYPES.into_iter().enumerate() {
            let other = BitNetTensor::zeros(&[], b, &cpu).unwrap();
            assert_eq!(result_type(&[(&vector).into(), (&other).into()]).unwrap(), WITH_0D[i][j], "{a} with 0-d {b}");
            assert_eq!(result_type(&[(&other).into(), (&vector).into()]).unwrap(), WITH_0D[i][j], "0-d {b} with {a}");
        }
        for (scalar, expected) in scalars.into_iter().zip(WITH_SCALAR[i]) {
            for tensor in [&vector, &zero_d] {
                assert_eq!(result_type(&[tensor.into(), scalar.into()]).unwrap(), expected, "{a} with {scalar}");
            }
        }
    }
}

#[test]
fn large_unsigned_types_promote_as_in_numpy() {
    for (a, b, expected) in [
        (U8, U16, U16),
        (U16, I8, I32),
        (U16, I64, I64),
        (I32, U32, I64),
        (U32, U64, U64),
        (Bool, U64, U64),
        (F16, U64, F16),
    ] {
        assert_eq!(promote_types(a, b).unwrap(), expected);
        assert_eq!(promote_types(b, a).unwrap(), expected);
    }
    assert!(promote_types(I64, U64).unwrap_err().to_string().contains("to_dtype"));
    assert!(promote_types(Ternary2, F32).is_err());
    assert!(result_type(&[]).is_err());
}

#[test]
fn casts_keep_the_category() {
    for (from, to, expected) in
        [(F64, F16, true), (F32, I64, false), (I64, U8, true), (I64, F16, true), (U8, Bool, false), (Bool, I8, true)]
    {
        assert_eq!(can_cast(from, to), expected, "{from} to {to}");
    }
}
