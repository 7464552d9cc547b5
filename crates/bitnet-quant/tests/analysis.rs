//! Metrics, report and plot.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_quant::analysis::{LayerReport, QuantizationReport, compare, flips, saturation, zeros};
use bitnet_quant::post_training::{InputStatistics, error_feedback, output_error, round_to_nearest};
use bitnet_quant::{PackedFormat, QuantizedTensor, TernaryCodes};
use proptest::prelude::*;

#[test]
fn figures_by_hand() {
    let c = compare(&[3., -4., 0.], &[3., -3., 0.]).unwrap();
    // 25 of signal and 1 of noise.
    assert!((c.sqnr_db - 13.979400086720377).abs() < 1e-12);
    assert!((c.cosine - 21. / (5. * 18f64.sqrt())).abs() < 1e-15);
    assert_eq!((c.max_error, c.mean_squared_error), (1., 1. / 3.));
    let same = compare(&[1., 2.], &[1., 2.]).unwrap();
    assert_eq!((same.sqnr_db, same.cosine), (f64::INFINITY, 1.));
    assert_eq!(compare(&[1., 2.], &[0., 0.]).unwrap().cosine, 0.);
    assert!(compare(&[1., 2.], &[f32::NAN, 2.]).unwrap().max_error.is_nan());
    assert!(compare(&[1.], &[]).is_err());
    assert_eq!(saturation(&[1.5, -1.6, 0., 9.], 1., 1), 0.5);
    assert_eq!(saturation(&[], 1., 1), 0.);
}

#[test]
fn report_in_every_form() {
    let (device, mut random) = (Device::cpu(), Generator::new(9));
    let mut randn = |dims: &[usize]| BitNetTensor::randn(dims, BitNetDType::F32, &device, &mut random).unwrap();
    let (x, w) = (randn(&[64, 128]), randn(&[8, 128]));
    let weights = w.to_vec::<f32>().unwrap();
    let mut inputs = InputStatistics::new(128).unwrap();
    inputs.observe(&x).unwrap();
    let mut layers = vec![LayerReport::kept("a<b & c", "F16", (8, 128), 16.)];
    for (name, fit) in [
        ("plain", round_to_nearest(&weights, 8, 128).unwrap()),
        ("feedback", error_feedback(&weights, 8, 128, &inputs).unwrap()),
    ] {
        let mut layer = LayerReport::ternary(name, &weights, &fit, PackedFormat::I2S).unwrap();
        assert!(layer.saturation.unwrap() > 0. && layer.zeros > 0.2 && layer.zeros < 0.5);
        layer.output_error = Some(output_error(&weights, &fit, &inputs).unwrap());
        layers.push(layer);
    }
    let int4 = QuantizedTensor::from_tensor(&w, PackedFormat::Int4 { group: 32 }).unwrap();
    layers.push(LayerReport::packed("int4", &weights, &int4).unwrap());
    let report = QuantizationReport { layers };

    assert_eq!(report.bits_per_weight(), (16. + 2.25 * 2. + 5.) / 4.);
    let order: Vec<_> = report.most_sensitive().iter().map(|l| l.name.as_str()).collect();
    assert_eq!(order, ["plain", "feedback", "int4"]);
    let json = report.to_json();
    assert_eq!(json["layers"][2]["name"], "feedback");
    assert!(json["layers"][0]["sqnr_db"].is_null() && json["layers"][0]["zeros"].is_null());
    assert!(json["layers"][1]["output_error"].as_f64().unwrap() > json["layers"][2]["output_error"].as_f64().unwrap());
    let table = report.to_string();
    println!("{table}");
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0].ends_with("outputs lost") && lines[5] == "4 layers, 6.38 bits a weight");
    assert!(lines[1].contains("8 x 128") && lines[1].ends_with('-'));
    let svg = report.to_svg();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("a&lt;b &amp; c"));
    // The background, three SQNR and two shares of outputs; every element is closed.
    assert_eq!(svg.matches("<rect").count(), 6);
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert!(QuantizationReport::default().to_svg().ends_with("</svg>\n"));
    assert_eq!(QuantizationReport::default().bits_per_weight(), 0.);
}

proptest! {
    #[test]
    fn flips_are_counted(rows in 1usize..5, cols in 1usize..11, seed in prop::collection::vec((-1i8..=1, -1i8..=1), 50)) {
        let n = rows * cols;
        let (a, b): (Vec<i8>, Vec<i8>) = seed.iter().copied().take(n).unzip();
        let codes = |w: &[i8]| TernaryCodes::from_weights(rows, cols, w).unwrap();
        let got = flips(&codes(&a), &codes(&b)).unwrap();
        let share = |f: fn(i8, i8) -> bool| a.iter().zip(&b).filter(|(a, b)| f(**a, **b)).count() as f64 / n as f64;
        prop_assert_eq!(got.changed, share(|a, b| a != b));
        prop_assert_eq!(got.signs, share(|a, b| a * b == -1));
        prop_assert_eq!(zeros(&codes(&a)), a.iter().filter(|w| **w == 0).count() as f64 / n as f64);
    }
}

#[test]
fn snapshots_of_other_shapes() {
    let codes = |rows, cols| TernaryCodes::from_weights(rows, cols, &vec![0; rows * cols]).unwrap();
    assert!(flips(&codes(2, 3), &codes(3, 2)).unwrap_err().to_string().contains("2 x 3"));
    assert_eq!(zeros(&codes(0, 0)), 0.);
}
