use super::*;
use crate::Device;
use BitNetDType::{BF16, F16, F32, F64, I8, I64};

const FULL: Precision = Precision { compute: F32, storage: F16, accumulation: F64 };

#[test]
fn patterns_match_names() {
    for (pattern, name, same) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("*.norm", "layers.0.norm", true),
        ("*.norm", "layers.0.norm.weight", false),
        ("layers.*.mlp.*", "layers.12.mlp.up", true),
        ("layers.*.mlp.*", "layers.12.attention.mlp", false),
        ("*a*b*c", "aabbcbc", true),
        ("a*b", "a", false),
    ] {
        assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), same, "{pattern} {name}");
    }
}

#[test]
fn the_last_rule_that_matches_holds() {
    let policy = PrecisionPolicy::mixed(BF16).unwrap().with("layers.*", FULL).unwrap();
    let policy = policy.with("layers.1.*", Precision { compute: F16, ..FULL }).unwrap();
    assert_eq!(policy.of("head").compute, BF16);
    assert_eq!(policy.of("layers.0.q").compute, F32);
    assert_eq!(policy.of("layers.1.q").compute, F16);
    let x = BitNetTensor::ones(&[2], F32, &Device::cpu()).unwrap();
    assert_eq!(policy.store("layers.0.q", &x).unwrap().dtype(), F16);
    assert!(PrecisionPolicy::mixed(I8).unwrap_err().to_string().contains("i8 is not a float"));
}

#[test]
fn a_scope_chooses_dtypes_and_is_left_by_a_panic() {
    let policy = PrecisionPolicy::mixed(BF16).unwrap().with("head", FULL).unwrap();
    autocast(&policy, || {
        assert_eq!(compute_dtype("matmul", F32), BF16);
        assert_eq!(compute_dtype("softmax", F16), F32);
        assert_eq!(compute_dtype("add", F16), F16);
        assert_eq!(compute_dtype("matmul", F64), F64);
        assert_eq!(compute_dtype("matmul", I64), I64);
        in_layer("head", || {
            assert_eq!(compute_dtype("matmul", F32), F32);
            assert_eq!(compute_dtype("softmax", F32), F64);
        });
        assert_eq!(compute_dtype("matmul", F32), BF16);
        let other = std::thread::spawn(|| compute_dtype("matmul", F32)).join().unwrap();
        assert_eq!(other, F32);
    });
    assert!(std::panic::catch_unwind(|| autocast(&policy, || panic!("left"))).is_err());
    assert_eq!(compute_dtype("matmul", F32), F32);
}

#[test]
fn loss_is_measured() {
    let cpu = Device::cpu();
    let r = BitNetTensor::from_slice(&[3f64, -4., 0., f64::NAN], &[4], &cpu).unwrap();
    let c = BitNetTensor::from_slice(&[3f64, -3., 0., 1.], &[4], &cpu).unwrap();
    let loss = analyse_precision(&r, &c).unwrap();
    assert_eq!((loss.max_absolute, loss.max_relative, loss.mean_absolute), (1., 0.25, 1. / 3.));
    assert_eq!((loss.overflows, loss.underflows, loss.nan_mismatches), (0, 0, 1));
    assert!((loss.sqnr_db - 10. * 25f64.log10()).abs() < 1e-12);
    assert!((loss.cosine - 21. / (25f64 * 18.).sqrt()).abs() < 1e-12);
    let same = analyse_precision(&r, &r).unwrap();
    assert_eq!((same.sqnr_db, same.cosine, same.nan_mismatches), (f64::INFINITY, 1., 0));
}

#[test]
fn overflow_underflow_and_nan_are_counted() {
    let x = BitNetTensor::from_slice(&[1e5f32, -1e5, 1e-9, 1., 0.], &[5], &Device::cpu()).unwrap();
    let of = |dtype| analyse_precision(&x, &x.to_dtype(dtype).unwrap()).unwrap();
    assert_eq!((of(F16).overflows, of(F16).underflows), (2, 1));
    assert_eq!((of(BF16).overflows, of(BF16).underflows), (0, 0));
    assert_eq!((of(I8).overflows, of(I8).underflows), (2, 1));
    assert!(of(BF16).sqnr_db > 40. && of(BF16).max_relative < 1. / 256.);
    assert!(of(F16).to_string().contains("2 overflows"));
    assert!(analyse_precision(&x, &x.narrow(0, 0, 2).unwrap()).is_err());
}

#[test]
fn products_follow_the_scope() {
    let x = BitNetTensor::ones(&[2, 2], F32, &Device::cpu()).unwrap();
    let y = autocast(&PrecisionPolicy::mixed(BF16).unwrap(), || x.matmul(&x)).unwrap();
    assert_eq!(y.dtype(), BF16);
    assert_eq!(y.to_dtype(F32).unwrap().to_vec::<f32>().unwrap(), [2.; 4]);
}

#[test]
fn reductions_and_scans_follow_the_scope() {
    let x = BitNetTensor::full(&[4, 300], 8., BF16, &Device::cpu()).unwrap();
    let policy = PrecisionPolicy::mixed(BF16).unwrap();
    type Reduce = fn(&BitNetTensor) -> crate::Result<BitNetTensor>;
    let all: [(Reduce, f32); 8] = [
        (|x| x.sum(-1, false), 2400.),
        (|x| x.narrow(1, 0, 2)?.prod(-1, false), 64.),
        (|x| x.mean(-1, false), 8.),
        (|x| x.var(-1, 1., false), 0.),
        (|x| x.std(-1, 1., false), 0.),
        (|x| x.norm(2., -1, false), 8. * 300f32.sqrt()),
        (|x| x.logsumexp(-1, false), 8. + 300f32.ln()),
        (|x| x.cumsum(-1)?.select(1, 299), 2400.),
    ];
    for (i, (f, expected)) in all.into_iter().enumerate() {
        let y = autocast(&policy, || f(&x)).unwrap();
        assert_eq!(y.dtype(), F32, "{i}");
        assert!(y.to_vec::<f32>().unwrap().iter().all(|v| (v - expected).abs() <= 1e-6 * expected), "{i}: {y:?}");
        assert_eq!(f(&x).unwrap().dtype(), BF16, "{i} outside of the scope");
    }
}

#[test]
fn the_scale_of_a_comparison_changes_nothing() {
    let of =
        |data: [f64; 3], scale: f64| BitNetTensor::from_slice(&data.map(|x| x * scale), &[3], &Device::cpu()).unwrap();
    let (reference, candidate) = ([3., -4., 12.], [3.1, -4., 11.9]);
    let plain = super::analyse_precision(&of(reference, 1.), &of(candidate, 1.)).unwrap();
    for scale in [1e-300, 1e-170, 1e170, 1e300] {
        let loss = super::analyse_precision(&of(reference, scale), &of(candidate, scale)).unwrap();
        assert!((loss.cosine - plain.cosine).abs() < 1e-14 && (loss.sqnr_db - plain.sqnr_db).abs() < 1e-9, "{loss}");
    }
}
