//! What a pool tells with advanced tracking: sizes, lifetimes, a timeline, and who holds memory.
//!
//! ```text
//! cargo run -p bitnet --example memory_tracking_demo
//! ```

use bitnet::core::memory::{HybridMemoryPool, MemoryPoolConfig, TrackingConfig, TrackingLevel};
use bitnet::core::{BitNetError, Result};
use std::sync::{Arc, Mutex};

fn main() -> Result<()> {
    let mut config = MemoryPoolConfig { max_large_pool_size: 64 << 20, ..Default::default() };
    config.enable_advanced_tracking = true;
    config.tracking_config = Some(TrackingConfig {
        level: TrackingLevel::Detailed,
        enable_leak_detection: true,
        pressure_threshold_ratio: 0.8,
        ..Default::default()
    });
    let pool = HybridMemoryPool::with_config(config)?;

    // Callbacks are called on the thread whose allocation changed the level.
    let levels = Arc::new(Mutex::new(Vec::new()));
    let seen = levels.clone();
    pool.register_pressure_callback(Box::new(move |level| seen.lock().expect("no callback panics").push(level)));

    let short: Vec<_> = (1..100).map(|i| pool.allocate_bytes(i * 100)).collect::<Result<_>>()?;
    drop(short);
    let kept = pool.allocate_bytes(5000)?;
    let large: Vec<_> = (0..7).map(|_| pool.allocate_bytes(8 << 20)).collect::<Result<_>>()?;
    let full = pool.allocate_bytes(16 << 20);
    println!("beyond the limit: {}", full.as_ref().expect_err("56 of 64 MiB are in use"));
    assert!(matches!(full, Err(BitNetError::PoolLimit { setting: "max_large_pool_size", .. })));
    println!("memory pressure levels on the way: {:?}", levels.lock().expect("no callback panics"));
    assert!(!levels.lock().expect("no callback panics").is_empty());
    drop(large);

    let told = pool.get_detailed_metrics().expect("advanced tracking is on");
    println!("pressure {:?}, fragmentation {:.1} %", told.pressure_level, 100. * told.fragmentation_ratio);
    println!("{} allocations, peak {} bytes", told.metrics.allocations, told.metrics.peak_allocated);
    for (power, count) in told.sizes.iter().enumerate().filter(|&(_, &count)| count > 0) {
        println!("  up to {:>8} bytes: {count}", 1u64 << power);
    }
    println!("{} samples of the bytes in use over time", told.timeline.len());
    assert_eq!(told.sizes.iter().sum::<usize>(), told.metrics.allocations);
    assert_eq!(told.lifetimes.iter().sum::<usize>(), 99 + 7);

    // What is still held, and the line of code that asked for it.
    let report = pool.leak_report();
    print!("{report}");
    assert_eq!((report.0.len(), report.0[0].len), (1, 5000));
    assert!(report.0[0].place.file().ends_with("memory_tracking_demo.rs"));
    pool.deallocate(kept)?;
    assert!(pool.leak_report().0.is_empty());
    Ok(())
}
