//! Whole models on the devices of the testkit: a step does not assume that data is in host memory, that an operation is done
//! when its call returns, or that there are 64-bit types.

use bitnet_inference::{Model, Sampler, Sampling, Session};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use bitnet_testkit::golden::{self, Golden, relative_error};
use bitnet_testkit::{queue_device, reference_device};
use std::sync::Arc;

#[test]
fn golden_checkpoints_run_on_the_reference_devices() {
    for name in [
        "bitnet-offline",
        "llama-bitlinear",
        "llama-inner-norm-online",
        "hunyuan-offline",
        "minicpm",
        "gemma3",
        "qwen3-moe",
        "maple",
    ] {
        let path = golden::folder().join(name);
        let golden = Golden::read(&path);
        let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        for device in [reference_device(), queue_device()] {
            let model = Arc::new(Model::load(checkpoint.weights(), &device, |_, _| ()).unwrap());
            let mut session = Session::new(model.clone(), golden.greedy_ids.len()).unwrap();
            let mut logits = Vec::new();
            // In two parts, so that the cache is read back.
            let (first, rest) = golden.input_ids.split_at(20);
            session.feed_all(first, |_, l| logits.extend_from_slice(l)).unwrap();
            session.feed_all(rest, |_, l| logits.extend_from_slice(l)).unwrap();
            let error = relative_error(&logits, &golden.logits);
            println!("{name} on {}: logits differ by {error:.1e}", device.name());
            assert!(error <= 1e-3, "{name} on {}: logits differ by {error:e}", device.name());

            let mut sampler = Sampler::new(Sampling::greedy(), model.config().vocab_size).unwrap();
            let mut tokens = golden.input_ids.clone();
            while tokens.len() < golden.greedy_ids.len() {
                let next = sampler.sample(session.logits()).unwrap();
                tokens.push(next);
                session.feed(&[next]).unwrap();
            }
            assert_eq!(tokens, golden.greedy_ids, "{name} on {}: greedy tokens", device.name());
        }
    }
}
