//! A whole model on a device with primitives only: the step does not assume that data is in host memory.

use bitnet_inference::{Model, Session};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use bitnet_testkit::golden::{self, Golden, relative_error};
use bitnet_testkit::reference_device;
use std::sync::Arc;

#[test]
fn golden_checkpoints_run_on_the_reference_device() {
    for name in ["bitnet-offline", "llama-bitlinear", "llama-inner-norm-online"] {
        let path = golden::folder().join(name);
        let golden = Golden::read(&path);
        let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        let model = Arc::new(Model::load(checkpoint.weights(), &reference_device(), |_, _| ()).unwrap());
        let mut session = Session::new(model, golden.input_ids.len()).unwrap();
        let mut logits = Vec::new();
        // In two parts, so that the cache is read back.
        let (first, rest) = golden.input_ids.split_at(20);
        session.feed_all(first, |_, l| logits.extend_from_slice(l)).unwrap();
        session.feed_all(rest, |_, l| logits.extend_from_slice(l)).unwrap();
        let error = relative_error(&logits, &golden.logits);
        println!("{name}: logits differ by {error:.1e}");
        assert!(error <= 1e-3, "{name}: logits differ by {error:e}");
    }
}
