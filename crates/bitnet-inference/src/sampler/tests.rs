use super::*;

/// How often each of 4 tokens is drawn with these logits.
fn frequencies(sampling: Sampling, logits: [f32; 4]) -> [f64; 4] {
    let mut counts = [0; 4];
    let mut sampler = Sampler::new(sampling, 4).unwrap();
    const DRAWS: usize = 20_000;
    for _ in 0..DRAWS {
        counts[sampler.sample(&logits).unwrap() as usize] += 1;
    }
    counts.map(|n| n as f64 / DRAWS as f64)
}

fn assert_close(got: [f64; 4], expected: [f64; 4]) {
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 0.015 && (e > 0. || *g == 0.), "{got:?} is not {expected:?}");
    }
}

/// Weights 1, 4, 0, 2.
const LOGITS: [f32; 4] = [0.0, 2. * std::f32::consts::LN_2, -f32::INFINITY, std::f32::consts::LN_2];

#[test]
fn temperature_scales_the_distribution() {
    let plain = Sampling { temperature: 1., ..Sampling::default() };
    assert_close(frequencies(plain.clone(), LOGITS), [1. / 7., 4. / 7., 0., 2. / 7.]);
    assert_close(frequencies(Sampling { temperature: 0.5, ..plain }, LOGITS), [1. / 21., 16. / 21., 0., 4. / 21.]);
    assert_eq!(frequencies(Sampling::greedy(), LOGITS), [0., 1., 0., 0.]);
}

#[test]
fn cuts_keep_the_likeliest() {
    let plain = Sampling { temperature: 1., ..Sampling::default() };
    assert_close(frequencies(Sampling { top_k: 2, ..plain.clone() }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
    assert_close(frequencies(Sampling { top_p: 0.5, ..plain.clone() }, LOGITS), [0., 1., 0., 0.]);
    assert_close(frequencies(Sampling { top_p: 0.6, ..plain.clone() }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
    assert_close(frequencies(Sampling { min_p: 0.5, ..plain }, LOGITS), [0., 4. / 6., 0., 2. / 6.]);
}

#[test]
fn penalties_lower_what_was_said() {
    let base = Sampling::greedy();
    let mut sampler = Sampler::new(Sampling { repeat_penalty: 2., ..base.clone() }, 3).unwrap();
    sampler.observe_prompt(&[0]);
    assert_eq!(sampler.sample(&[1.9, 1.0, -1.0]).unwrap(), 1, "1.9 / 2 < 1.0");
    assert_eq!(sampler.sample(&[-1.0, -1.0, -1.5]).unwrap(), 2, "-1 * 2 < -1.5");
    let mut sampler = Sampler::new(Sampling { frequency_penalty: 1., ..base.clone() }, 2).unwrap();
    let said: Vec<u32> = (0..4).map(|_| sampler.sample(&[2.5, 1.0]).unwrap()).collect();
    assert_eq!(said, [0, 0, 1, 0]);
    let mut sampler = Sampler::new(Sampling { presence_penalty: 1., ..base }, 2).unwrap();
    sampler.observe_prompt(&[0]);
    let said: Vec<u32> = (0..3).map(|_| sampler.sample(&[1.5, 1.0]).unwrap()).collect();
    assert_eq!(said, [0, 1, 0], "the prompt does not count; once both were said, both are lowered alike");
}

#[test]
fn equal_seeds_draw_equally() {
    let draw = |seed| {
        let mut sampler = Sampler::new(Sampling { seed, temperature: 1., ..Sampling::default() }, 100).unwrap();
        (0..50).map(|_| sampler.sample(&[0.; 100]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn sampling_parameters_out_of_range_are_errors() {
    let s = Sampling::default;
    for (bad, parameter) in [
        (Sampling { temperature: -1., ..s() }, "temperature"),
        (Sampling { temperature: f32::NAN, ..s() }, "temperature"),
        (Sampling { top_p: 0., ..s() }, "top-p"),
        (Sampling { top_p: 1.1, ..s() }, "top-p"),
        (Sampling { min_p: -0.1, ..s() }, "min-p"),
        (Sampling { typical_p: 0., ..s() }, "typical-p"),
        (Sampling { xtc_probability: 2., ..s() }, "xtc-probability"),
        (Sampling { xtc_threshold: f32::NAN, ..s() }, "xtc-threshold"),
        (Sampling { top_n_sigma: -1., ..s() }, "top-n-sigma"),
        (Sampling { repeat_penalty: 0., ..s() }, "repeat-penalty"),
        (Sampling { frequency_penalty: f32::INFINITY, ..s() }, "frequency-penalty"),
        (Sampling { presence_penalty: f32::NAN, ..s() }, "presence-penalty"),
        (Sampling { dry_multiplier: -0.5, ..s() }, "dry-multiplier"),
        (Sampling { dry_base: 0.5, ..s() }, "dry-base"),
        (Sampling { dry_allowed_length: 0, ..s() }, "dry-allowed-length"),
        (Sampling { dry_penalty_last_n: usize::MAX, ..s() }, "dry-penalty-last-n"),
        (Sampling { mirostat: 1, ..s() }, "mirostat"),
        (Sampling { mirostat_tau: -1., ..s() }, "mirostat-tau"),
        (Sampling { mirostat_eta: f32::INFINITY, ..s() }, "mirostat-eta"),
        (Sampling { logit_bias: vec![(0, 1.), (1, f32::INFINITY)], ..s() }, "logit-bias"),
    ] {
        let error = Sampler::new(bad, 4).unwrap_err();
        assert!(matches!(error, InferenceError::Sampling { name, .. } if name == parameter), "{parameter}: {error}");
    }
    let unknown = Sampler::new(Sampling { logit_bias: vec![(4, 0.)], ..s() }, 4).unwrap_err();
    assert!(matches!(unknown, InferenceError::TokenOutOfRange { id: 4, vocab: 4 }));
    let mut sampler = Sampler::new(Sampling::greedy(), 2).unwrap();
    assert!(matches!(sampler.sample(&[f32::NAN; 2]), Err(InferenceError::NoFiniteLogits)));
    assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 2]), Err(InferenceError::NoFiniteLogits)));
}
