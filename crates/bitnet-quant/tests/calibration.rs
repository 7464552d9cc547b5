//! Observers against NumPy (`data/make_calibration.py`).

use bitnet_core::{BitNetDType, BitNetTensor, Device};
use bitnet_quant::QuantError;
use bitnet_quant::calibration::{Clipping, Observer};
use proptest::prelude::*;
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("data/calibration.safetensors");

fn bytes<const N: usize>(name: &str) -> Vec<[u8; N]> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(N).map(|b| b.try_into().unwrap()).collect()
}

fn f64s(name: &str) -> Vec<f64> {
    bytes(name).into_iter().map(f64::from_le_bytes).collect()
}

fn data() -> Vec<f32> {
    bytes("data").into_iter().map(f32::from_le_bytes).collect()
}

fn observed() -> Observer {
    let mut observer = Observer::new();
    for batch in data().chunks(500) {
        observer.observe(batch).unwrap();
    }
    observer
}

#[test]
fn histogram_and_range_equal_numpy() {
    let observer = observed();
    let counts: Vec<u64> = bytes("histogram").into_iter().map(u64::from_le_bytes).collect();
    assert_eq!(observer.histogram().counts(), counts);
    assert_eq!(observer.histogram().limit(), 32.);
    assert_eq!(observer.range().unwrap(), (-19.25, 21.5));
    assert_eq!(observer.limit(Clipping::MinMax, 127).unwrap(), 21.5);
    assert_eq!(observer.count(), 4000);
}

#[test]
fn percentiles_equal_numpy_to_a_bin() {
    let observer = observed();
    for (percent, want) in f64s("percents").into_iter().zip(f64s("percentiles")) {
        let got = f64::from(observer.limit(Clipping::Percentile(percent), 127).unwrap());
        // Two bins where NumPy interpolates between two values that are far apart.
        assert!((got - want).abs() <= 2. * observer.histogram().width(), "{percent} %: {got} is not {want}");
    }
    assert!(observer.limit(Clipping::Percentile(101.), 127).is_err());
    assert!(observer.limit(Clipping::Percentile(f64::NAN), 127).is_err());
}

#[test]
fn the_smallest_squared_error_is_numpys() {
    let (observer, data) = (observed(), data());
    for (name, top) in [("int8", 127u8), ("int4", 7), ("ternary", 1)] {
        let golden = f64s(&format!("mse.{name}"));
        let error = |limit: f32| -> f64 {
            let step = f64::from(limit) / f64::from(top);
            let one = |v: &f32| {
                let v = f64::from(v.abs());
                (v - (v / step).round_ties_even().min(f64::from(top)) * step).powi(2)
            };
            data.iter().map(one).sum()
        };
        let limit = observer.limit(Clipping::Mse, top).unwrap();
        println!("{name}: clipped at {limit}, NumPy at {}; error {} and {}", golden[0], error(limit), golden[1]);
        assert!(error(limit) <= 1.005 * golden[1], "{name}");
        assert!(error(limit) <= error(observer.limit(Clipping::MinMax, top).unwrap()), "{name}");
    }
}

#[test]
fn nothing_and_nonsense() {
    let mut observer = Observer::new();
    assert!(matches!(observer.step(Clipping::Mse, 127), Err(QuantError::NoData)));
    assert!(matches!(observer.observe(&[1., f32::NAN]), Err(QuantError::NotFinite { index: 1, .. })));
    assert_eq!(observer.count(), 0);
    observer.observe(&[]).unwrap();
    assert!(observer.range().is_err());
    observer.observe_tensor(&BitNetTensor::zeros(&[4, 4], BitNetDType::BF16, &Device::cpu()).unwrap()).unwrap();
    for clipping in [Clipping::MinMax, Clipping::Percentile(99.), Clipping::Mse] {
        assert_eq!(observer.limit(clipping, 127).unwrap(), 1e-5, "{clipping:?}");
    }
    observer.observe(&[-1., 3.]).unwrap();
    assert_eq!(observer.affine(255).unwrap(), ((4. / 255.) as f32, 64));
    observer.observe(&[f32::MAX, f32::MIN]).unwrap();
    assert_eq!(observer.step(Clipping::MinMax, 1).unwrap(), f32::MAX);
    assert!(observer.step(Clipping::Mse, 127).unwrap().is_finite());
    assert!(observer.affine(255).unwrap().0.is_finite());
}

proptest! {
    #[test]
    fn more_of_the_data_needs_a_larger_limit(values in prop::collection::vec(-100f32..100., 1..200), a in 0f64..100., b in 0f64..100.) {
        let mut observer = Observer::new();
        observer.observe(&values).unwrap();
        let limit = |p| observer.limit(Clipping::Percentile(p), 127).unwrap();
        prop_assert!(limit(a.min(b)) <= limit(a.max(b)));
        prop_assert!(limit(100.) <= observer.limit(Clipping::MinMax, 127).unwrap());
    }
}
