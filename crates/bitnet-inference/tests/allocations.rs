//! A decode step allocates nothing: neither from the system nor from the pool.

use bitnet_core::{Device, HybridMemoryPool};
use bitnet_inference::{Model, Sampler, Sampling, Session};
use bitnet_model::checkpoint::{Checkpoint, OpenOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decode_step_allocates_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare.gguf");
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    for threads in [1, 2] {
        let device = Device::cpu_with_threads(threads);
        let model = Arc::new(Model::load(checkpoint.weights(), &device, |_, _| ()).unwrap());
        let sampling = Sampling {
            top_k: 40,
            top_p: 0.9,
            min_p: 0.01,
            typical_p: 0.95,
            xtc_probability: 0.5,
            top_n_sigma: 3.0,
            repeat_penalty: 1.1,
            dry_multiplier: 0.8,
            dry_penalty_last_n: 64,
            mirostat: 2,
            logit_bias: vec![(3, -1.0)],
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(sampling, model.config().vocab_size).unwrap();
        let mut session = Session::new(model, 200).unwrap();
        session.feed(&[5, 6, 7]).unwrap();
        let mut step = |session: &mut Session| {
            let token = sampler.sample(session.logits()).unwrap();
            session.feed(&[token]).unwrap();
        };
        // A thread sets up what it needs to sleep when it first does.
        for _ in 0..20 {
            step(&mut session);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let before = (ALLOCATIONS.load(SeqCst), HybridMemoryPool::global().get_metrics().allocations);
        for _ in 0..150 {
            step(&mut session);
        }
        let after = (ALLOCATIONS.load(SeqCst), HybridMemoryPool::global().get_metrics().allocations);
        assert_eq!(after, before, "allocations of the system and of the pool, {threads} threads");
    }
}
