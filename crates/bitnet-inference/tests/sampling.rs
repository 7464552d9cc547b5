//! Sampling against transformers (`data/sampling.json`, made by `data/make_sampling.py`) and against a plain form in f64.

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_inference::{InferenceError, Sampler, Sampling};
use std::cmp::Ordering;

/// Numbers of a stream, uniform in [0, 1).
fn uniform(seed: u64, start: u64, count: usize) -> Vec<f32> {
    let mut generator = Generator::at(seed, start);
    BitNetTensor::rand(&[count], BitNetDType::F32, &Device::cpu(), &mut generator).unwrap().to_vec::<f32>().unwrap()
}

#[test]
fn candidates_are_those_of_transformers() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("data/sampling.json")).unwrap();
    let floats = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for case in golden["cases"].as_array().unwrap() {
        let logits: Vec<f32> =
            floats(&golden["logits"][case["logits"].as_str().unwrap()]).iter().map(|&x| x as f32).collect();
        let number = |name: &str, default: f64| case.get(name).map_or(default, |x| x.as_f64().unwrap()) as f32;
        let tokens = |name: &str| case.get(name).map_or(vec![], floats).iter().map(|&x| x as u32).collect::<Vec<_>>();
        let bias = case.get("logit_bias").map_or(&[][..], |pairs| pairs.as_array().unwrap());
        let sampling = Sampling {
            temperature: number("temperature", 1.0),
            top_k: number("top_k", 0.0) as usize,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            typical_p: number("typical_p", 1.0),
            repeat_penalty: number("repeat_penalty", 1.0),
            logit_bias: bias.iter().map(|pair| (floats(pair)[0] as u32, floats(pair)[1] as f32)).collect(),
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(sampling.clone(), logits.len()).unwrap();
        sampler.observe_prompt(&tokens("seen"));
        sampler.sample(&logits).unwrap();
        let (want, p) = (tokens("tokens"), floats(&case["probabilities"]));
        let largest = p.iter().copied().fold(0.0, f64::max);
        // Less likely tokens than 2^-30 of the most likely are no candidates.
        let want: Vec<_> = want.into_iter().zip(p).filter(|(_, p)| *p > largest * 2f64.powi(-30)).collect();
        let got: Vec<_> = sampler.candidates().collect();
        let name = format!("{} {sampling:?}", case["logits"]);
        assert_eq!(got.iter().map(|x| x.0).collect::<Vec<_>>(), want.iter().map(|x| x.0).collect::<Vec<_>>(), "{name}");
        for ((_, got), (_, want)) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 2e-6 * want + 1e-9, "{got} is not {want}: {name}");
        }
    }
}

/// All of [`Sampling`] but greedy choices, written out in f64.
struct Plain {
    s: Sampling,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    surprise: f64,
}

type Candidate = (u32, f64, f64);

fn normalize(candidates: &mut [Candidate]) {
    let sum: f64 = candidates.iter().map(|c| c.2).sum();
    candidates.iter_mut().for_each(|c| c.2 /= sum);
}

/// Keeps the first by `rank` until their probabilities reach `p`.
fn keep_until(candidates: &mut Vec<Candidate>, p: f64, rank: impl Fn(&Candidate, &Candidate) -> Ordering) {
    candidates.sort_by(|a, b| rank(a, b).then(a.0.cmp(&b.0)));
    let mut sum = 0.0;
    let kept = candidates.iter().take_while(|c| {
        let before = sum;
        sum += c.2;
        before < p
    });
    let kept = kept.count();
    candidates.truncate(kept);
    normalize(candidates);
}

impl Plain {
    fn new(s: Sampling, prompt: &[u32]) -> Self {
        Self { surprise: 2.0 * f64::from(s.mirostat_tau), s, prompt: prompt.to_vec(), generated: Vec::new() }
    }

    /// Changed logits; what is at the end of the text is searched for at each place before it.
    fn logits(&self, logits: &[f32]) -> Vec<f64> {
        let s = &self.s;
        let text: Vec<u32> = self.prompt.iter().chain(&self.generated).copied().collect();
        let mut x: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
        for &(token, bias) in &s.logit_bias {
            x[token as usize] += f64::from(bias);
        }
        for token in 0..x.len() as u32 {
            let value = &mut x[token as usize];
            if text.contains(&token) {
                *value *= if *value > 0.0 { 1.0 / f64::from(s.repeat_penalty) } else { f64::from(s.repeat_penalty) };
            }
            let count = self.generated.iter().filter(|t| **t == token).count();
            *value -= count as f64 * f64::from(s.frequency_penalty);
            *value -= if count > 0 { f64::from(s.presence_penalty) } else { 0.0 };
            let window = &text[text.len().saturating_sub(s.dry_penalty_last_n)..];
            let breaks = |t: &u32| s.dry_sequence_breakers.contains(t);
            let repeated = (1..window.len()).filter(|&next| window[next] == token && !breaks(&token)).map(|next| {
                let pairs = window[..next].iter().rev().zip(window.iter().rev());
                pairs.take_while(|(a, b)| a == b && !breaks(a)).count()
            });
            let longest = repeated.max().unwrap_or(0);
            if s.dry_multiplier > 0.0 && longest >= s.dry_allowed_length {
                let power = (longest - s.dry_allowed_length) as i32;
                x[token as usize] -= f64::from(s.dry_multiplier) * f64::from(s.dry_base).powi(power);
            }
        }
        x
    }

    fn candidates(&self, logits: &[f32], chance: f32) -> Vec<Candidate> {
        let s = &self.s;
        let x = self.logits(logits);
        let finite: Vec<f64> = x.iter().copied().filter(|x| x.is_finite()).collect();
        let top = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = finite.iter().sum::<f64>() / finite.len() as f64;
        let deviation = (finite.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / finite.len() as f64).sqrt();
        let temperature = f64::from(s.temperature);
        let one = |(token, x): (u32, f64)| (token, x, ((x - top) / temperature).exp());
        let mut all: Vec<Candidate> = (0..).zip(x).map(one).filter(|c| c.2 > 2f64.powi(-30)).collect();
        if s.top_n_sigma > 0.0 {
            all.retain(|c| c.1 >= top - f64::from(s.top_n_sigma) * deviation);
        }
        let likelier = |a: &Candidate, b: &Candidate| b.1.total_cmp(&a.1);
        if s.top_k > 0 {
            all.sort_by(|a, b| likelier(a, b).then(a.0.cmp(&b.0)));
            all.truncate(s.top_k);
        }
        normalize(&mut all);
        keep_until(&mut all, f64::from(s.top_p), likelier);
        let largest = all.iter().map(|c| c.2).fold(0.0, f64::max);
        all.retain(|c| c.2 >= f64::from(s.min_p) * largest);
        normalize(&mut all);
        if s.typical_p < 1.0 {
            let entropy: f64 = all.iter().map(|c| -c.2 * c.2.ln()).sum();
            let distance = |c: &Candidate| (-c.2.ln() - entropy).abs();
            keep_until(&mut all, f64::from(s.typical_p), |a, b| distance(a).total_cmp(&distance(b)));
        }
        all.sort_by(|a, b| likelier(a, b).then(a.0.cmp(&b.0)));
        if chance < s.xtc_probability {
            let above = all.iter().filter(|c| c.2 >= f64::from(s.xtc_threshold)).count();
            all.drain(..above.saturating_sub(1));
        }
        normalize(&mut all);
        if s.mirostat == 2 {
            let kept = all.iter().filter(|c| -c.2.log2() <= self.surprise).count();
            all.truncate(kept.max(1));
        }
        normalize(&mut all);
        all.sort_by_key(|c| c.0);
        all
    }

    /// The token at the numbers of this place in the stream.
    fn draw(&mut self, candidates: &[Candidate], numbers: &[f32]) -> u32 {
        let mut left = f64::from(numbers[0]) + f64::from(numbers[1]) / f64::from(1 << 24);
        let chosen = candidates.iter().find(|c| {
            left -= c.2;
            left < 0.0
        });
        let &(token, _, p) = chosen.unwrap_or(&candidates[candidates.len() - 1]);
        self.surprise -= f64::from(self.s.mirostat_eta) * (-p.log2() - f64::from(self.s.mirostat_tau));
        self.generated.push(token);
        token
    }
}

/// Draws from changing logits and compares candidates, probabilities and tokens.
fn check(s: Sampling, vocab: usize, spread: f32, prompt: &[u32], steps: u64) -> Vec<usize> {
    let (mut sampler, mut plain) = (Sampler::new(s.clone(), vocab).unwrap(), Plain::new(s.clone(), prompt));
    sampler.observe_prompt(prompt);
    let mut counts = Vec::new();
    for step in 0..steps {
        let noise = uniform(99 + step, 0, vocab * 4);
        let logits: Vec<f32> = noise.chunks(4).map(|x| spread * (x.iter().sum::<f32>() - 2.0)).collect();
        let numbers = uniform(s.seed, 4 * step, 3);
        let want = plain.candidates(&logits, numbers[2]);
        let token = plain.draw(&want, &numbers);
        assert_eq!(sampler.sample(&logits).unwrap(), token, "step {step}: {s:?}");
        let got: Vec<_> = sampler.candidates().collect();
        assert!(got.iter().map(|c| c.0).eq(want.iter().map(|c| c.0)), "step {step}: {s:?}");
        for (got, want) in got.iter().zip(&want) {
            assert!((got.1 - want.2).abs() <= 3e-6 * want.2 + 1e-9, "{got:?} is not {want:?}, step {step}: {s:?}");
        }
        counts.push(got.len());
    }
    counts
}

fn plain() -> Sampling {
    Sampling { temperature: 1.0, seed: 11, ..Sampling::default() }
}

#[test]
fn each_cut_is_its_plain_form() {
    for (vocab, spread) in [(50, 3.0), (20_000, 4.0), (20_000, 0.01)] {
        for s in [
            plain(),
            Sampling { temperature: 0.4, seed: 1 << 40, ..plain() },
            Sampling { top_k: 20, ..plain() },
            Sampling { top_k: 3000, top_p: 0.5, ..plain() },
            Sampling { top_p: 0.95, ..plain() },
            Sampling { min_p: 0.03, ..plain() },
            Sampling { typical_p: 0.7, ..plain() },
            Sampling { top_n_sigma: 1.0, temperature: 2.0, ..plain() },
            Sampling { top_n_sigma: 2.5, top_p: 0.6, min_p: 0.01, typical_p: 0.8, ..plain() },
        ] {
            check(s, vocab, spread, &[], 4);
        }
    }
}

#[test]
fn xtc_excludes_the_top_choices_as_often_as_it_should() {
    let s = Sampling { xtc_probability: 0.5, xtc_threshold: 0.05, temperature: 1.5, ..plain() };
    let counts = check(s.clone(), 30, 3.0, &[], 100);
    let cut = counts.iter().filter(|count| **count < 30).count();
    assert!((35..65).contains(&cut), "{cut} of 100");
    check(Sampling { top_k: 10, typical_p: 0.9, xtc_probability: 1.0, ..s }, 30, 3.0, &[], 20);
}

#[test]
fn mirostat_follows_the_surprise() {
    let s = Sampling { mirostat: 2, mirostat_tau: 3.0, mirostat_eta: 0.2, ..plain() };
    let counts = check(s.clone(), 300, 4.0, &[], 60);
    assert!(counts.iter().min() < counts.iter().max());
    check(Sampling { mirostat_tau: 0.1, top_k: 50, ..s }, 300, 0.01, &[], 10);
}

#[test]
fn penalties_and_bias_are_their_plain_form() {
    let penalties = Sampling { repeat_penalty: 1.3, frequency_penalty: 0.4, presence_penalty: 0.3, ..plain() };
    check(penalties.clone(), 12, 3.0, &[1, 2, 3, 3], 40);
    let bias = vec![(0, 2.5), (3, f32::NEG_INFINITY), (5, -1.0), (0, 0.25)];
    check(Sampling { logit_bias: bias, top_p: 0.9, ..penalties }, 12, 3.0, &[1, 2, 3, 3], 40);
}

#[test]
fn dry_lowers_what_would_lengthen_a_repetition() {
    let dry = Sampling { dry_multiplier: 0.8, ..plain() };
    let prompt = [1, 2, 3, 1, 2, 3, 0, 2, 3, 1, 2];
    check(dry.clone(), 4, 1.0, &prompt, 60);
    check(Sampling { dry_base: 1.2, dry_allowed_length: 1, ..dry.clone() }, 5, 1.0, &[], 60);
    check(Sampling { dry_sequence_breakers: vec![0], ..dry.clone() }, 3, 1.0, &prompt[..3], 60);
    check(Sampling { dry_penalty_last_n: 7, ..dry.clone() }, 3, 1.0, &[1, 2, 1, 2, 1, 2, 1, 2], 60);
    // By hand: 3 followed "1 2" before.
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..dry }, 4).unwrap();
    sampler.observe_prompt(&[1, 2, 3, 1, 2]);
    assert_eq!(sampler.sample(&[0.0, 0.0, 0.25, 1.0]).unwrap(), 2, "1.0 - 0.8 * 1.75^0 is below 0.25");
}

#[test]
fn a_mask_allows_what_it_says() {
    let mut allowed = vec![0u32; 4];
    for token in [3, 64, 99] {
        allowed[token / 32] |= 1 << (token % 32);
    }
    let logits: Vec<f32> = (0..100).map(|i| i as f32 / 50.0).collect();
    let mut sampler = Sampler::new(plain(), 100).unwrap();
    sampler.sample_allowed(&logits, &allowed).unwrap();
    assert_eq!(sampler.candidates().map(|c| c.0).collect::<Vec<_>>(), [3, 64, 99]);
    sampler.sample_allowed(&logits, &allowed[..2]).unwrap();
    assert_eq!(sampler.candidates().collect::<Vec<_>>(), [(3, 1.0)]);
    assert!(matches!(sampler.sample_allowed(&logits, &[]), Err(InferenceError::NoFiniteLogits)));
    let mut greedy = Sampler::new(Sampling::greedy(), 100).unwrap();
    assert_eq!(greedy.sample_allowed(&logits, &allowed[..3]).unwrap(), 64);
}

#[test]
fn ties_go_to_the_smaller_token() {
    for s in [Sampling { top_k: 2, ..plain() }, Sampling { top_p: 0.001, top_k: 9, ..plain() }] {
        let mut sampler = Sampler::new(s.clone(), 5000).unwrap();
        sampler.sample(&[0.5; 5000]).unwrap();
        let want: Vec<u32> = (0..if s.top_k == 2 { 2 } else { 1 }).collect();
        assert_eq!(sampler.candidates().map(|c| c.0).collect::<Vec<_>>(), want);
    }
    assert_eq!(Sampler::new(Sampling::greedy(), 3).unwrap().sample(&[1.0, 2.0, 2.0]).unwrap(), 1);
}
