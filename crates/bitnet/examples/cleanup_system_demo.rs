//! When a pool gives memory back to the system: when asked, when it rests, and under memory pressure.
//!
//! ```text
//! cargo run -p bitnet --example cleanup_system_demo
//! ```

use bitnet::core::Result;
use bitnet::core::memory::{CleanupConfig, HybridMemoryPool, MemoryPoolConfig, PoolTuning};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn pool(cleanup: CleanupConfig) -> Result<HybridMemoryPool> {
    let config = MemoryPoolConfig {
        max_large_pool_size: 64 * MIB,
        enable_advanced_tracking: true,
        cleanup_config: Some(cleanup),
        ..Default::default()
    };
    // A thread that looks, for a program that does nothing for a while.
    let tuning = PoolTuning { cleanup_period: Some(Duration::from_millis(20)), ..Default::default() };
    HybridMemoryPool::with_tuning(config, tuning)
}

fn held(pool: &HybridMemoryPool) -> usize {
    pool.get_detailed_metrics().map_or(0, |metrics| metrics.held_bytes)
}

fn main() -> Result<()> {
    let rare = CleanupConfig {
        idle_cleanup_interval: Duration::from_secs(3600),
        pressure_cleanup_threshold: 1.,
        ..Default::default()
    };

    // Freed blocks stay warm until somebody asks for them.
    let asked = pool(rare)?;
    drop(asked.allocate_bytes(20 * MIB)?);
    println!("freed: {} MiB are held", held(&asked) / MIB);
    assert_eq!(held(&asked), 20 * MIB);
    println!("compact() gives {} MiB back, {} are held", asked.compact() / MIB, held(&asked));
    assert_eq!(held(&asked), 0);

    // What rests for the interval goes back by itself.
    let idle = pool(CleanupConfig { idle_cleanup_interval: Duration::from_millis(50), ..rare })?;
    drop(idle.allocate_bytes(20 * MIB)?);
    let start = Instant::now();
    while held(&idle) > 0 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("idle: given back after {} ms", start.elapsed().as_millis());
    assert_eq!(held(&idle), 0);

    // Near a limit everything unused goes back, before the limit is an error.
    let pressed = pool(CleanupConfig { pressure_cleanup_threshold: 0.5, ..rare })?;
    let kept = pressed.allocate_bytes(2 * MIB)?;
    drop(pressed.allocate_bytes(20 * MIB)?);
    println!("20 MiB freed: {} MiB are held", held(&pressed) / MIB);
    let more = pressed.allocate_bytes(34 * MIB)?;
    println!("36 of 64 MiB in use: {} MiB are held", held(&pressed) / MIB);
    assert_eq!(held(&pressed), 36 * MIB);
    pressed.deallocate(kept)?;
    pressed.deallocate(more)
}
