//! Memory of one matrix in each form, and of a loop that allocates the same shapes again and again.
//!
//! ```text
//! cargo run -p bitnet --example memory_efficiency_demo
//! ```

use bitnet::core::memory::{HybridMemoryPool, MemoryPoolConfig};
use bitnet::core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet::quant::{PackedFormat, QuantError, QuantizedTensor};

fn main() -> Result<(), QuantError> {
    let pool = HybridMemoryPool::with_config(MemoryPoolConfig {
        enable_advanced_tracking: true,
        enable_automatic_cleanup: false,
        ..Default::default()
    })?;
    let device = Device::cpu_with_pool(&pool, 1);

    // The same 256 x 1024 weights: floats, half floats, and two packed ternary formats.
    let w = BitNetTensor::randn(&[256, 1024], BitNetDType::F32, &device, &mut Generator::new(2))?;
    let half = w.to_dtype(BitNetDType::F16)?;
    let tq2 = QuantizedTensor::from_tensor(&w, PackedFormat::Tq2_0)?;
    let tq1 = QuantizedTensor::from_tensor(&w, PackedFormat::Tq1_0)?;
    let forms = [
        ("f32", w.storage_bytes()),
        ("f16", half.storage_bytes()),
        ("TQ2_0", tq2.bytes().len()),
        ("TQ1_0", tq1.bytes().len()),
    ];
    for (name, bytes) in forms {
        println!("{name:<6} {bytes:>8} bytes, {:>5.2} bits a weight", 8. * bytes as f64 / w.elements() as f64);
    }
    assert!(forms[0].1 > 15 * forms[2].1 && forms[2].1 > forms[3].1);
    drop((half, tq2, tq1));

    // A step of a loop: after the first, the pool serves it from the memory of the step before.
    let step = || -> bitnet::core::Result<f32> { w.mul(2)?.add(&w)?.sum(.., false)?.item::<f32>() };
    let first = step()?;
    let (before, held) = (pool.get_metrics(), pool.get_detailed_metrics().map(|m| m.held_bytes));
    for _ in 0..50 {
        assert_eq!(step()?, first);
    }
    let (after, held_after) = (pool.get_metrics(), pool.get_detailed_metrics().map(|m| m.held_bytes));
    let (served, reused) = (after.allocations - before.allocations, after.hits - before.hits);
    println!("50 steps: {served} allocations, {reused} of them from memory in use before");
    assert_eq!((served, held), (reused, held_after), "the loop takes nothing from the system");

    // In place it needs no memory at all.
    let mut x = w.copy()?;
    let before = pool.get_metrics().allocations;
    x.mul_(&w)?;
    x.add_(&w)?;
    println!("in place: {} allocations", pool.get_metrics().allocations - before);
    assert_eq!(pool.get_metrics().allocations, before);
    Ok(())
}
