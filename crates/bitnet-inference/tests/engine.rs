//! Many sequences at once: each gets what it gets alone, to the last bit, whatever comes, goes and shares beside it.

use bitnet_core::{BitNetDType, Device};
use bitnet_inference::{
    Engine, EngineOptions, Event, FinishReason, KvType, Model, Pooling, Request, Sampling, Session, TokenMask,
};
use bitnet_model::Config;
use bitnet_model::checkpoint::{DeltaSource, DenseTensor, LinearSource, Norm, Projection, RandomWeights, Weights};
use bitnet_testkit::{queue_device, reference_device};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// Random weights whose embedding, also the head, is of any type.
struct Headed(RandomWeights, BitNetDType);

impl Weights for Headed {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn embedding(&self) -> bitnet_model::Result<DenseTensor> {
        let (rows, columns) = (self.config().vocab_size, self.config().hidden_size);
        let noise =
            |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32 * 0.4 - 0.2;
        // Logits of a few units: sampling has a choice. The offsets of the scales in a block, and their size.
        let (scales, scale): (&[usize], f32) = match self.1 {
            BitNetDType::Q6K => (&[208], 1e-4),
            BitNetDType::Q4K => (&[0, 2], 5e-4),
            BitNetDType::Q5_1 => (&[0, 2], 0.01),
            BitNetDType::Q3K => (&[108], 1e-3),
            BitNetDType::Q4_0 => (&[0], 0.03),
            BitNetDType::Q8_0 => (&[0], 2e-3),
            _ => (&[], 0.),
        };
        let scale = half::f16::from_f32(scale).to_le_bytes();
        let mut bytes: Vec<u8> = match self.1 {
            BitNetDType::F32 => (0..rows * columns).flat_map(|i| noise(i).to_le_bytes()).collect(),
            BitNetDType::F16 => (0..rows * columns).flat_map(|i| half::f16::from_f32(noise(i)).to_le_bytes()).collect(),
            BitNetDType::BF16 => {
                (0..rows * columns).flat_map(|i| half::bf16::from_f32(noise(i)).to_le_bytes()).collect()
            }
            _ => (0..rows * self.1.row_bytes(columns)).map(|i| (noise(i) * 600.) as i32 as u8).collect(),
        };
        for block in bytes.chunks_exact_mut(self.1.block().1).filter(|_| !scales.is_empty()) {
            scales.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&scale));
        }
        DenseTensor::owned("embedding", bytes, self.1, rows, columns)
    }
    fn head(&self) -> bitnet_model::Result<Option<LinearSource>> {
        Ok(None)
    }
    fn norm(&self, norm: Norm) -> bitnet_model::Result<Vec<f32>> {
        self.0.norm(norm)
    }
    fn linear(&self, layer: usize, projection: Projection) -> bitnet_model::Result<LinearSource> {
        self.0.linear(layer, projection)
    }
    fn delta(&self, layer: usize) -> bitnet_model::Result<DeltaSource> {
        self.0.delta(layer)
    }
}

fn model(head: BitNetDType, device: &Device) -> Arc<Model> {
    model_of(512, head, device)
}

fn model_of(vocab: usize, head: BitNetDType, device: &Device) -> Arc<Model> {
    let config = Config::from_json(&format!(
        r#"{{"model_type": "bitnet", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": {vocab}, "max_position_embeddings": 8192,
            "tie_word_embeddings": true, "eos_token_id": 3}}"#,
    ));
    let weights = Headed(RandomWeights::new(config.unwrap(), 7), head);
    Arc::new(Model::load(&weights, device, |_, _| ()).unwrap())
}

/// A layer that attends, and one that keeps states.
fn hybrid(device: &Device) -> Arc<Model> {
    let config = Config::from_json(
        r#"{"model_type": "qwen3_5_text", "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2,
            "full_attention_interval": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512,
            "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 24, "linear_value_head_dim": 40,
            "max_position_embeddings": 8192, "tie_word_embeddings": true, "eos_token_id": 3}"#,
    );
    let weights = Headed(RandomWeights::new(config.unwrap(), 7), BitNetDType::F16);
    Arc::new(Model::load(&weights, device, |_, _| ()).unwrap())
}

fn options(parallel: usize, kv_type: KvType, cache_tokens: Option<usize>) -> EngineOptions {
    EngineOptions { context: 8192, parallel, kv_type, cache_tokens }
}

fn prompt(len: usize, seed: u64) -> Vec<u32> {
    let mix = |x: u64| (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..len as u64).map(|i| (mix(mix(i * 1_000_003 + seed)) >> 40) as u32 % 500 + 4).collect()
}

fn request(tokens: Vec<u32>, max_tokens: usize, seed: u64) -> Request {
    let sampling = Sampling { temperature: 1., seed, ..Sampling::default() };
    Request {
        tokens,
        sampling,
        max_tokens,
        stop_tokens: Vec::new(),
        ignore_eos: false,
        log_probabilities: Some(3),
        mask: None,
    }
}

/// What a step said of a token: the token and its log-probability, bit for bit.
fn said(event: &Event) -> (u32, u64) {
    let log_probabilities = event.log_probabilities.as_ref().unwrap();
    (event.token.unwrap(), log_probabilities.token.to_bits())
}

/// A request alone in an engine of its own.
fn alone(model: &Arc<Model>, kv_type: KvType, request: Request) -> Vec<(u32, u64)> {
    let mut engine = Engine::new(model.clone(), options(1, kv_type, None)).unwrap();
    engine.submit(request).unwrap();
    let mut all = Vec::new();
    while !engine.is_idle() {
        all.extend(engine.step().unwrap().iter().map(said));
    }
    all
}

const HEADS: [BitNetDType; 9] = {
    use BitNetDType::*;
    [F32, F16, BF16, Q8_0, Q6K, Q4_0, Q4K, Q5_1, Q3K]
};

/// One sequence of a schedule: prompt length, whether it begins as the others do, tokens to generate, the step in which it
/// comes, and that after which it is cancelled.
type Arrival = (usize, bool, usize, usize, Option<usize>);

fn arrival() -> impl Strategy<Value = Arrival> {
    let lengths = vec![1usize, 2, 3, 8, 16, 17, 63, 64, 65, 127, 128, 129, 200];
    (prop::sample::select(lengths), any::<bool>(), 1..6usize, 0..8usize, prop::option::weighted(0.2, 0..6usize))
}

fn follow(
    model: &Arc<Model>,
    kv_type: KvType,
    arrivals: &[Arrival],
    parallel: usize,
    cache_tokens: usize,
    expected: &dyn Fn(usize) -> Vec<(u32, u64)>,
) {
    let mut engine = Engine::new(model.clone(), options(parallel, kv_type, Some(cache_tokens))).unwrap();
    let mut ids = HashMap::new();
    let mut got: Vec<Vec<(u32, u64)>> = vec![Vec::new(); arrivals.len()];
    let mut done = vec![false; arrivals.len()];
    for step in 0.. {
        for (i, &(.., start, cancel)) in arrivals.iter().enumerate() {
            if start == step {
                ids.insert(engine.submit(of(arrivals, i)).unwrap(), i);
            }
            if cancel.is_some_and(|after| start + after + 1 == step) {
                let id = *ids.iter().find(|(_, at)| **at == i).unwrap().0;
                engine.cancel(id);
                done[i] = true;
            }
        }
        for event in engine.step().unwrap() {
            let i = ids[&event.sequence];
            assert!(!done[i], "a token of a sequence that has ended");
            got[i].push(said(event));
            done[i] = event.finish.is_some();
        }
        if done.iter().all(|done| *done) {
            break;
        }
        assert!(step < 10_000, "it never ends");
    }
    assert!(engine.is_idle());
    assert_eq!(engine.cache_usage().used, 0, "pages of sequences that ended");
    for (i, got) in got.iter().enumerate() {
        let expected = expected(i);
        assert_eq!(*got, expected[..got.len()], "sequence {i} of {arrivals:?}");
        assert!(arrivals[i].4.is_some() || got.len() == expected.len());
    }
}

fn of(arrivals: &[Arrival], i: usize) -> Request {
    let (len, shared, tokens, ..) = arrivals[i];
    let seed = if shared { 1 } else { 100 + i as u64 };
    request(prompt(len, seed), tokens, i as u64)
}

fn schedules(cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let models: Vec<(Arc<Model>, Arc<Model>)> = HEADS
        .iter()
        .map(|&head| (model(head, &Device::cpu_with_threads(1)), model(head, &Device::cpu_with_threads(16))))
        .chain([(hybrid(&Device::cpu_with_threads(1)), hybrid(&Device::cpu_with_threads(16)))])
        .collect();
    proptest!(config, |(
        arrivals in prop::collection::vec(arrival(), 1..7),
        parallel in 1..7usize,
        cache in 4..14usize,
        head in 0..=HEADS.len(),
        kv_type in prop::sample::select(KvType::ALL.to_vec()),
        many in any::<bool>(),
    )| {
        let (one, sixteen) = &models[head];
        let expected = |i: usize| alone(one, kv_type, of(&arrivals, i));
        follow(if many { sixteen } else { one }, kv_type, &arrivals, parallel, cache * 64, &expected);
    });
}

#[test]
fn a_sequence_gets_the_same_bits_in_any_schedule() {
    // Plain code takes ten times as long for each.
    let plain = std::env::var("BITNET_ISA").is_ok_and(|isa| isa == "scalar");
    schedules(if plain { 10 } else { 60 });
}

/// `cargo test --release -p bitnet-inference --test engine -- --ignored`
#[test]
#[ignore = "a thousand schedules take minutes"]
fn a_sequence_gets_the_same_bits_in_a_thousand_schedules() {
    schedules(1000);
}

#[test]
fn long_contexts_have_the_same_bits_in_chunks_and_token_by_token() {
    for (kv_type, threads) in [(KvType::F32, 16), (KvType::Q8, 2)] {
        let tokens = prompt(4097, 5);
        let session = |threads: usize, first: &[usize]| {
            let model = model(BitNetDType::Q6K, &Device::cpu_with_threads(threads));
            let mut session = Session::with_kv_type(model, 4200, kv_type).unwrap();
            let mut rest = &tokens[..];
            for &len in first {
                session.feed(&rest[..len]).unwrap();
                rest = &rest[len..];
            }
            session.feed(rest).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let whole = session(1, &[]);
        assert_eq!(session(threads, &[1, 16, 17, 65, 3, 3990, 1, 1, 1]), whole, "{kv_type}");
    }
}

/// A device that records gives what one with the same operations gives that runs each step.
#[test]
fn a_recorded_step_gives_what_one_that_runs_gives() {
    let arrivals: Vec<Arrival> = vec![(5, false, 4, 0, None), (70, true, 3, 1, None), (66, true, 4, 2, None)];
    let [recorded, run] = [queue_device(), reference_device()].map(|device| {
        let model = model(BitNetDType::F32, &device);
        let mut engine = Engine::new(model, options(2, KvType::F32, None)).unwrap();
        for i in 0..arrivals.len() {
            engine.submit(of(&arrivals, i)).unwrap();
        }
        let mut all = Vec::new();
        while !engine.is_idle() {
            all.extend_from_slice(engine.step().unwrap());
        }
        all
    });
    assert_eq!(recorded, run);
}

#[test]
fn an_equal_beginning_is_computed_once() {
    let model = model(BitNetDType::Q6K, &Device::cpu());
    let mut engine = Engine::new(model, options(4, KvType::F32, Some(64 * 20))).unwrap();
    let beginning = prompt(200, 1);
    let submit = |engine: &mut Engine, end: u32| {
        engine.submit(request([&beginning[..], &[end]].concat(), 1, 0)).unwrap();
    };
    let cached = |engine: &mut Engine| {
        let mut cached = Vec::new();
        while !engine.is_idle() {
            cached.extend(engine.step().unwrap().iter().map(|event| event.cached_tokens.unwrap()));
        }
        cached
    };
    (10..13).for_each(|end| submit(&mut engine, end));
    assert_eq!(cached(&mut engine), [0, 192, 192], "together: the first computes it, the others wait for it");
    submit(&mut engine, 14);
    assert_eq!(cached(&mut engine), [192], "after they have ended");
    let usage = engine.cache_usage();
    assert_eq!((usage.used, usage.idle), (0, 3));
    assert_eq!(usage.page_bytes, 2 * 2 * 64 * 128 * 4);
    // Other texts need the pages.
    engine.submit(request(prompt(1200, 9), 1, 0)).unwrap();
    assert_eq!(cached(&mut engine), [0]);
    submit(&mut engine, 15);
    assert!(cached(&mut engine)[0] < 192);
}

#[test]
fn decoding_goes_on_beside_a_long_prompt() {
    let model = model(BitNetDType::Q6K, &Device::cpu());
    let mut engine = Engine::new(model, options(2, KvType::F32, None)).unwrap();
    let short = engine.submit(request(prompt(3, 2), 100, 0)).unwrap();
    engine.step().unwrap();
    let long = engine.submit(request(prompt(640, 3), 1, 0)).unwrap();
    let mut steps = 0;
    loop {
        let events = engine.step().unwrap();
        assert_eq!(events[0].sequence, short, "a token in every step");
        steps += 1;
        if events.iter().any(|event| event.sequence == long) {
            break;
        }
    }
    assert_eq!(steps, 10, "64 tokens of the prompt in each");
}

#[test]
fn a_full_context_and_what_does_not_fit_are_told() {
    let model = model(BitNetDType::Q6K, &Device::cpu());
    let mut engine = Engine::new(model.clone(), options(2, KvType::F32, Some(128))).unwrap();
    let message = |error: bitnet_inference::InferenceError| error.to_string();
    assert!(message(engine.submit(request(prompt(129, 1), 1, 0)).unwrap_err()).contains("128"));
    assert!(message(engine.submit(request(vec![], 1, 0)).unwrap_err()).contains("empty"));
    assert!(message(engine.submit(request(vec![512], 1, 0)).unwrap_err()).contains("512"));
    assert!(message(Engine::new(model, options(0, KvType::F32, None)).unwrap_err()).contains("between 1 and"));
    engine.submit(request(prompt(120, 1), 100, 0)).unwrap();
    let mut last = None;
    let mut count = 0;
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            (last, count) = (event.finish, count + 1);
        }
    }
    assert_eq!((last, count), (Some(FinishReason::ContextFull), 9), "8 more fit; the ninth is not fed");
}

#[test]
fn likelihoods_and_embeddings_of_many_texts_are_those_of_one() {
    let model = model(BitNetDType::Q6K, &Device::cpu());
    let texts: Vec<Vec<u32>> = [1, 150, 2, 64, 65, 9].iter().zip(1..).map(|(&len, seed)| prompt(len, seed)).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let engine = || Engine::new(model.clone(), options(1, KvType::F32, Some(256))).unwrap();
    let mut many = engine();
    let together = many.log_likelihoods(&texts).unwrap();
    let pooled = [Pooling::Mean, Pooling::Last, Pooling::First].map(|pooling| many.embed(&texts, pooling).unwrap());
    let all = many.embed(&texts, Pooling::None).unwrap();
    assert_eq!(many.cache_usage().used, 0);
    for (i, &text) in texts.iter().enumerate() {
        let mut expected = Vec::new();
        let mut session = Session::new(model.clone(), text.len()).unwrap();
        session
            .feed_all(text, |at, logits| {
                let Some(&next) = text.get(at + 1) else { return };
                let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                expected.push(f64::from(logits[next as usize]) - sum.ln());
            })
            .unwrap();
        assert_eq!(together[i].len(), text.len() - 1);
        assert!(together[i].iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9), "{:?} {expected:?}", together[i]);
        let states = Session::new(model.clone(), text.len()).unwrap().hidden_states(text).unwrap().pop().unwrap();
        assert_eq!(all[i], states);
        let row = |at: usize| states[at * 256..][..256].to_vec();
        assert_eq!(pooled[1][i], row(text.len() - 1));
        assert_eq!(pooled[2][i], row(0));
        let mean =
            |d: usize| (0..text.len()).map(|at| f64::from(states[at * 256 + d])).sum::<f64>() / text.len() as f64;
        assert!((0..256).all(|d| (f64::from(pooled[0][i][d]) - mean(d)).abs() < 1e-6));
    }
    assert!(many.log_likelihoods(&[&prompt(300, 1)]).unwrap_err().to_string().contains("256"));
}

/// So many logits that tokens are chosen on several threads.
#[test]
fn a_large_vocabulary_gives_each_sequence_its_own_tokens() {
    let model = model_of(20_000, BitNetDType::F32, &Device::cpu_with_threads(3));
    let mut engine = Engine::new(model.clone(), options(9, KvType::F32, Some(1024))).unwrap();
    let request = |i: u64| request(prompt(3 + i as usize, i), 4, i);
    let ids: Vec<_> = (0..9).map(|i| engine.submit(request(i)).unwrap()).collect();
    let mut got = vec![Vec::new(); 9];
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            got[ids.iter().position(|&id| id == event.sequence).unwrap()].push(said(event));
        }
    }
    for (i, got) in (0..).zip(got) {
        assert_eq!(got, alone(&model, KvType::F32, request(i)), "sequence {i}");
    }
}

/// After `n` tokens only those of remainder `n` by 7, until there are 4.
#[derive(Debug)]
struct Remainders(Vec<u32>);

impl TokenMask for Remainders {
    fn allowed(&mut self, answer: &[u32]) -> &[u32] {
        self.0.fill(0);
        for token in (answer.len()..512).step_by(7).filter(|_| answer.len() < 4) {
            self.0[token / 32] |= 1 << (token % 32);
        }
        &self.0
    }
}

#[test]
fn a_mask_decides_which_tokens_come() {
    let model = model(BitNetDType::F32, &Device::cpu());
    let mut engine = Engine::new(model, options(2, KvType::F32, Some(256))).unwrap();
    let mask = Some(Box::new(Remainders(vec![0; 16])) as Box<dyn TokenMask>);
    let masked = engine.submit(Request { mask, ignore_eos: true, ..request(prompt(5, 1), 9, 1) }).unwrap();
    let free = engine.submit(Request { ignore_eos: true, ..request(prompt(5, 1), 9, 1) }).unwrap();
    let mut got = HashMap::<_, Vec<_>>::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            got.entry(event.sequence).or_default().push((event.token, event.finish));
        }
    }
    let remainders: Vec<_> = got[&masked].iter().map(|(token, _)| token.map(|token| token % 7)).collect();
    assert_eq!(remainders, [Some(0), Some(1), Some(2), Some(3), None]);
    assert_eq!(got[&masked][4].1, Some(FinishReason::Failed), "nothing was allowed");
    assert_eq!(got[&free].len(), 9);
}
