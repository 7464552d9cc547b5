//! A tensor from allocation to the end of its memory: views share it, writing copies it, dropping frees it.
//!
//! ```text
//! cargo run -p bitnet --example tensor_lifecycle
//! ```

use bitnet::core::memory::HybridMemoryPool;
use bitnet::core::memory::tensor::{BitNetDType, BitNetTensor, TensorMetadata};
use bitnet::core::{Device, Result};

fn main() -> Result<()> {
    let pool = HybridMemoryPool::new()?;
    // A CPU device whose tensors use this pool.
    let device = Device::cpu_with_pool(&pool, 1);
    let in_use = |step: &str| {
        let metrics = pool.get_metrics();
        println!("{step:<28} {:>6} bytes in use, {} allocations", metrics.total_allocated, metrics.allocations);
        metrics.total_allocated
    };

    let metadata = TensorMetadata::new(vec![64, 32], BitNetDType::F32, device);
    let mut x = BitNetTensor::new(metadata, &pool)?;
    assert_eq!(in_use("made, 64 x 32 zeros"), 64 * 32 * 4);

    let view = x.t()?.narrow(0, 0, 4)?;
    assert!(view.shares_storage(&x));
    assert_eq!(in_use("a view of it"), 64 * 32 * 4);

    // The storage is shared, so that writing copies it first: the view keeps what it saw.
    x.fill_(1)?;
    assert!(!view.shares_storage(&x));
    assert_eq!(in_use("written, the view keeps 0"), 2 * 64 * 32 * 4);
    assert_eq!(view.sum(.., false)?.item::<f32>()?, 0.);
    assert_eq!(x.sum(.., false)?.item::<f32>()?, 64. * 32.);

    let moved = x.to_device(&Device::cpu())?;
    assert_eq!(in_use("copied to another device"), 2 * 64 * 32 * 4);
    drop(x);
    assert_eq!(in_use("the original is dropped"), 64 * 32 * 4);
    drop(view);
    assert_eq!(in_use("the view is dropped"), 0);
    assert_eq!(moved.dims(), [64, 32]);

    let held = pool.compact();
    println!("{:<28} {held:>6} bytes went back to the system", "compacted");
    Ok(())
}
