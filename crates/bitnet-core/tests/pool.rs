//! The pool's public behaviour: allocation, counters, and that all memory is freed.

use bitnet_core::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

fn config(level: TrackingLevel) -> MemoryPoolConfig {
    let enable_leak_detection = level == TrackingLevel::Detailed;
    tracked(TrackingConfig { level, enable_leak_detection, ..Default::default() })
}

fn tracked(tracking: TrackingConfig) -> MemoryPoolConfig {
    // Small regions, so that Miri need not set up 64 MiB.
    MemoryPoolConfig {
        initial_small_pool_size: 4 << 20,
        initial_large_pool_size: 4 << 20,
        enable_advanced_tracking: true,
        tracking_config: Some(tracking),
        ..Default::default()
    }
}

fn pool(level: TrackingLevel) -> HybridMemoryPool {
    HybridMemoryPool::with_config(config(level)).unwrap()
}

fn detailed(pool: &HybridMemoryPool) -> DetailedMetrics {
    pool.get_detailed_metrics().unwrap()
}

/// The next number below `n`, the same ones in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    /// Every doubling from `1 << from` to `1 << to` as often as every other.
    fn size(&mut self, from: u32, to: u32) -> usize {
        let base = 1 << (from + self.below((to - from) as usize) as u32);
        base + self.below(base)
    }
}

#[test]
fn blocks_are_aligned_disjoint_and_reused() {
    let pool = pool(TrackingLevel::Basic);
    let mut blocks: Vec<_> = [0, 1, 63, 64, 65, 4096, 40_000, 1 << 20, (1 << 20) + 1, 5 << 20]
        .iter()
        .cycle()
        .take(if cfg!(miri) { 10 } else { 40 })
        .map(|&len| pool.allocate_bytes(len).unwrap())
        .collect();
    for (i, block) in blocks.iter_mut().enumerate() {
        assert_eq!(block.address() % 64, 0);
        assert!(block.bytes().iter().all(|&b| b == 0), "a fresh block is zeroed");
        block.bytes_mut().fill(i as u8 + 1);
    }
    for (i, block) in blocks.iter().enumerate() {
        assert!(block.bytes().iter().all(|&b| b == i as u8 + 1), "block {i} was written by another");
    }
    let peak = pool.get_metrics().total_allocated;
    drop(blocks);
    let before = pool.get_metrics();
    assert_eq!((before.total_allocated, before.peak_allocated), (0, peak));
    for len in [100, 40_000, 1 << 20, 5 << 20] {
        pool.allocate_bytes(len).unwrap();
    }
    let after = pool.get_metrics();
    assert_eq!((after.allocations, after.hits), (before.allocations + 4, before.hits + 4));
}

#[test]
fn alignment_is_kept_and_a_wrong_one_is_an_error() {
    let pool = pool(TrackingLevel::Basic);
    let cpu = Device::cpu();
    for align in [1, 64, 128, 4096, 1 << 14, 1 << 20, 2 << 20, if cfg!(miri) { 1 } else { 8 << 20 }] {
        let blocks: Vec<_> = [1, 65, 3000, 100_000].map(|len| pool.allocate(len, align, &cpu).unwrap()).into();
        assert!(blocks.iter().all(|block| block.address().is_multiple_of(align)), "{align}");
    }
    for wrong in [0, 3, 96] {
        assert!(pool.allocate(10, wrong, &cpu).is_err());
    }
    assert_eq!(pool.get_metrics().total_allocated, 0);
}

/// A pool with a limit for each kind of block.
fn limited(small: usize, large: usize) -> HybridMemoryPool {
    let config =
        MemoryPoolConfig { max_small_pool_size: small, max_large_pool_size: large, ..config(TrackingLevel::Basic) };
    HybridMemoryPool::with_config(config).unwrap()
}

#[test]
fn a_limit_is_an_error_that_names_it_and_is_given_back() {
    let pool = limited(1 << 20, 4 << 20);
    let held = pool.allocate_bytes(3 << 20).unwrap();
    let full = pool.allocate_bytes(2 << 20).unwrap_err();
    assert_eq!(
        full.to_string(),
        "cpu: 2097152 bytes asked for, 3145728 in use, and max_large_pool_size is 4194304: free some or raise it"
    );
    assert!(
        matches!(pool.allocate_bytes(usize::MAX / 4), Err(BitNetError::PoolLimit { limit, .. }) if limit == 4 << 20)
    );
    assert!(matches!(pool.allocate_bytes(usize::MAX), Err(BitNetError::OutOfMemory { .. })));
    let mut small = Vec::new();
    let full = loop {
        match pool.allocate_bytes(10_000) {
            Ok(block) => small.push(block),
            Err(error) => break error,
        }
    };
    assert!(full.to_string().contains("max_small_pool_size is 1048576"), "{full}");
    assert!(small.len() > 90, "{} small blocks fit beside the large one", small.len());
    assert!(detailed(&pool).reserved_bytes <= 5 << 20);
    small.clear();
    drop(held);
    assert!(pool.allocate_bytes(2 << 20).is_ok());
    assert!(pool.allocate_bytes(4 << 20).is_ok(), "cached blocks make way");
    assert!(limited(0, 3 << 20).allocate_bytes((5 << 20) / 2).is_ok(), "also where no whole region fits");
    assert!(limited(0, 1 << 20).allocate_bytes(1).is_err() && limited(1 << 20, 0).allocate_bytes(1 << 20).is_err());
    if !cfg!(miri) {
        let pool = HybridMemoryPool::new().unwrap();
        assert!(matches!(pool.allocate_bytes(isize::MAX as usize), Err(BitNetError::OutOfMemory { .. })));
        if cfg!(all(target_os = "linux", target_pointer_width = "64")) {
            let error = pool.allocate_bytes(usize::MAX >> 18).unwrap_err();
            assert!(matches!(error, BitNetError::OutOfMemory { total: Some(1..0x4000_0000_0000), .. }), "{error}");
        }
    }
}

#[test]
fn initial_sizes_are_reserved_when_a_pool_is_made() {
    let sizes = |small, large| MemoryPoolConfig {
        initial_small_pool_size: small,
        initial_large_pool_size: large,
        max_small_pool_size: 8 << 20,
        ..config(TrackingLevel::Basic)
    };
    let told = detailed(&HybridMemoryPool::with_config(sizes(2 << 20, 3 << 20)).unwrap());
    assert_eq!((told.arenas, told.reserved_bytes, told.held_bytes), (2, (2 << 20) + (4 << 20), 0));
    let told = detailed(&HybridMemoryPool::with_config(sizes(64 << 20, 1 << 20)).unwrap());
    assert_eq!(told.reserved_bytes, (8 << 20) + (1 << 20), "never more than the maximum");
    if !cfg!(miri) && usize::BITS == 64 {
        let error = HybridMemoryPool::with_config(sizes(1 << 20, usize::MAX >> 1)).err();
        assert!(error.is_none(), "a region has at most 1 TiB of address space: {error:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_met_is_an_error() {
    let message = |config| HybridMemoryPool::with_config(config).unwrap_err().to_string();
    let tracking = TrackingConfig { pressure_threshold_ratio: 1.5, ..Default::default() };
    assert!(message(tracked(tracking)).contains("pressure_threshold_ratio is 1.5: give a part of the memory"));
    let cleanup_config = Some(CleanupConfig { pressure_cleanup_threshold: f64::NAN, ..Default::default() });
    let config = MemoryPoolConfig { cleanup_config, ..Default::default() };
    assert!(message(config).contains("pressure_cleanup_threshold is NaN"));
}

#[test]
fn a_block_of_another_pool_is_an_error_and_goes_back_there() {
    let (one, other) = (pool(TrackingLevel::Basic), pool(TrackingLevel::Basic));
    let error = other.deallocate(one.allocate_bytes(100).unwrap()).unwrap_err();
    assert!(error.to_string().contains("of another pool"), "{error}");
    assert_eq!(one.get_metrics().total_allocated, 0);
    one.deallocate(one.allocate_bytes(100).unwrap()).unwrap();
}

#[test]
fn detailed_metrics_are_for_advanced_tracking() {
    let pool = HybridMemoryPool::new().unwrap();
    let _block = pool.allocate_bytes(100).unwrap();
    assert!(pool.get_detailed_metrics().is_none() && pool.leak_report().0.is_empty());
    assert_eq!(pool.get_metrics().total_allocated, 128);
}

#[test]
fn old_blocks_are_suspected_leaks() {
    let interval = Duration::from_millis(600); // looked for at most twice a second
    let tracking =
        TrackingConfig { enable_leak_detection: true, leak_detection_interval: interval, ..Default::default() };
    let pool = HybridMemoryPool::with_config(tracked(tracking)).unwrap();
    let _old = pool.allocate_bytes(100).unwrap();
    std::thread::sleep(interval);
    let _new = pool.allocate_bytes(100).unwrap();
    assert_eq!((detailed(&pool).suspected_leaks, pool.leak_report().0.len()), (1, 2));
}

#[test]
fn threads_share_a_pool_and_free_each_others_blocks() {
    for level in [TrackingLevel::None, TrackingLevel::Basic, TrackingLevel::Detailed] {
        let pool = pool(level);
        let (rounds, largest) = if cfg!(miri) { (30, 13) } else { (20_000, 17) };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let ring: Vec<_> = (0..4).map(|_| mpsc::sync_channel::<(MemoryHandle, u8)>(64)).collect();
            let (senders, receivers): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
            for (thread, receiver) in receivers.into_iter().enumerate() {
                let (pool, next) = (&pool, senders[(thread + 1) % 4].clone());
                threads.push(scope.spawn(move || {
                    let mut random = Random(thread as u64);
                    for round in 0..rounds {
                        let mut block = pool.allocate_bytes(random.size(0, largest)).unwrap();
                        let mark = (round % 251) as u8;
                        block.bytes_mut()[..1].fill(mark);
                        if let Err(mpsc::TrySendError::Full((kept, mark))) = next.try_send((block, mark)) {
                            assert_eq!(kept.bytes()[0], mark);
                        }
                        while let Ok((other, mark)) = receiver.try_recv() {
                            assert_eq!(other.bytes()[0], mark);
                        }
                    }
                }));
            }
            drop(senders);
            // The end of a scope does not wait for what threads do at their very end; joining does.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let metrics = pool.get_metrics();
        assert_eq!(metrics.total_allocated, 0);
        assert_eq!(metrics.allocations, if level == TrackingLevel::None { 0 } else { 4 * rounds });
        assert!(pool.leak_report().0.is_empty());
        pool.compact();
        let after = detailed(&pool);
        assert_eq!((after.used_bytes, after.held_bytes, after.slabs, after.arenas), (0, 0, 0, 0), "{level:?}");
    }
}

#[test]
fn tables_are_small_and_fragmentation_after_a_million_random_allocations() {
    let rounds = if cfg!(miri) { 500 } else { 1_000_000 };
    let pool = HybridMemoryPool::with_config(MemoryPoolConfig {
        initial_small_pool_size: 64 << 20,
        ..config(TrackingLevel::Standard)
    })
    .unwrap();
    // Sizes of 256 bytes to 1 MiB, every doubling as often, freed in random order; 512 MiB live.
    let (mut random, live) = (Random(1), if cfg!(miri) { 2 << 20 } else { 512 << 20 });
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    for _ in 0..rounds {
        let block = pool.allocate_bytes(random.size(8, 20)).unwrap();
        bytes += block.len();
        blocks.push(block);
        while bytes > live {
            bytes -= blocks.swap_remove(random.below(blocks.len())).len();
        }
    }
    let told = detailed(&pool);
    let percent = |part: usize, whole: usize| part as f64 / whole as f64 * 100.0;
    let tables = percent(told.metadata_bytes, bytes);
    let hits = percent(told.metrics.hits, rounds);
    let warm = percent(told.held_bytes - told.used_bytes, told.held_bytes);
    pool.compact();
    let rest = detailed(&pool);
    println!(
        "{bytes} bytes live: tables {tables:.2} %, {hits:.3} % from the pool, fragmentation {:.2} %, {warm:.2} % held warm; \
         compacted: {:.2} % of the memory held not asked for",
        told.fragmentation_ratio * 100.0,
        percent(rest.held_bytes - bytes, rest.held_bytes)
    );
    assert_eq!((told.requested_bytes, rest.held_bytes), (bytes, rest.used_bytes));
    if !cfg!(miri) {
        assert!(tables < 3.2 && hits > 98.0 && told.fragmentation_ratio < 0.10 && warm < 20.0, "{told:?}");
        assert!(percent(rest.held_bytes - bytes, rest.held_bytes) < 10.0, "{rest:?}");
    }
    assert_eq!(told.sizes.iter().sum::<usize>(), rounds);
    drop(blocks);
    assert_eq!((pool.get_metrics().total_allocated, detailed(&pool).requested_bytes), (0, 0));
}

#[test]
fn a_large_block_stays_warm_until_compaction() {
    let pool = HybridMemoryPool::with_config(MemoryPoolConfig {
        initial_large_pool_size: 64 << 20,
        ..config(TrackingLevel::Basic)
    })
    .unwrap();
    for len in [40 << 20, 80 << 20, if cfg!(miri) { 1 << 20 } else { 200 << 20 }] {
        let mut block = pool.allocate_bytes(len).unwrap();
        assert!(block.is_fresh());
        block.bytes_mut()[len - 1] = 1;
        let address = block.address();
        drop(block);
        let again = pool.allocate_bytes(len).unwrap();
        assert_eq!((again.address(), again.is_fresh(), again.bytes()[len - 1]), (address, false, 1));
        drop(again);
        assert!(pool.compact() >= len);
        assert_eq!(detailed(&pool).held_bytes, 0);
        assert!(pool.allocate_bytes(len).unwrap().bytes()[len - 1] == 0);
        pool.compact();
    }
}

#[test]
fn leaks_are_told_with_their_place() {
    let tuning = PoolTuning { backtraces: !cfg!(miri), ..Default::default() };
    let pool = HybridMemoryPool::with_tuning(config(TrackingLevel::Detailed), tuning).unwrap();
    let line = line!() + 1;
    let kept: Vec<_> = (0..3).map(|i| pool.allocate_bytes(1000 * i + 1).unwrap()).collect();
    let (small, report) = (pool.allocate_bytes(5).unwrap(), pool.leak_report());
    drop(small);
    assert_eq!(report.0.iter().map(|block| block.len).collect::<Vec<_>>(), [2001, 1001, 5, 1]);
    assert!(report.0[0].place.file().ends_with("pool.rs") && report.0[0].place.line() == line, "{report}");
    assert!(report.to_string().contains("tests/pool.rs"), "{report}");
    if !cfg!(miri) {
        assert!(format!("{}", report.0[0].backtrace.as_ref().unwrap()).contains("leaks_are_told_with_their_place"));
    }
    for _ in 0..2 * TIMELINE {
        drop(pool.allocate_bytes(100));
    }
    drop(kept);
    let told = detailed(&pool);
    assert!(pool.leak_report().0.is_empty());
    assert!((TIMELINE / 2 - 1..TIMELINE).contains(&told.timeline.len()), "{}", told.timeline.len());
    assert!(told.timeline.is_sorted_by_key(|&(at, _)| at));
    assert_eq!(told.lifetimes.iter().sum::<usize>(), 2 * TIMELINE + 4);
}

#[test]
fn tensors_of_a_pool_leave_nothing_behind() {
    let pool = pool(TrackingLevel::Detailed);
    let device = Device::cpu_with_pool(&pool, 1);
    {
        let x = BitNetTensor::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3], &device).unwrap();
        let y = x.transpose(0, 1).unwrap().copy().unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [1., 4., 2., 5., 3., 6.]);
        assert_eq!(pool.leak_report().0.len(), 2);
    }
    assert!(pool.leak_report().0.is_empty() && pool.get_metrics().allocations >= 2);
}

#[test]
fn results_of_a_tensor_of_a_pool_are_in_that_pool() {
    let pool = pool(TrackingLevel::Detailed);
    let device = Device::cpu_with_threads(1);
    let x = BitNetTensor::new(TensorMetadata::new(vec![4, 4], BitNetDType::F32, device.clone()), &pool).unwrap();
    let other = BitNetTensor::ones(&[4, 4], BitNetDType::F32, &device).unwrap();
    assert_eq!((x.device(), pool.leak_report().0.len()), (&device, 1), "it is on the same device");
    let sum = x.add(&other).unwrap();
    let product = sum.matmul(&other).unwrap();
    let mut view = product.transpose(0, 1).unwrap();
    view.fill_(7.).unwrap(); // shared, so it is copied first
    let last = view.softmax(-1).unwrap().mean(0, false).unwrap().zeros_like().unwrap();
    assert_eq!((product.to_vec::<f32>().unwrap(), last.dims()), (vec![4.; 16], &[4][..]));
    assert_eq!(pool.leak_report().0.len(), 5, "{}", pool.leak_report());
    let elsewhere = other.add(&x).unwrap();
    assert_eq!((pool.leak_report().0.len(), elsewhere.to_vec::<f32>().unwrap()), (5, vec![1.; 16]));
    drop((x, sum, product, view, last));
    assert!(pool.leak_report().0.is_empty());
}

#[test]
fn pressure_is_told_and_relieved() {
    let pool = limited(usize::MAX, 128 << 20);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (notes, own) = (seen.clone(), pool.clone());
    pool.register_pressure_callback(Box::new(move |level| {
        drop(own.allocate_bytes(100)); // it may use the pool
        notes.lock().unwrap().push(level);
    }));
    let parts: Vec<_> = (0..4).map(|_| pool.allocate_bytes(31 << 20).unwrap()).collect();
    assert_eq!(detailed(&pool).pressure_level, MemoryPressureLevel::Critical);
    drop(parts);
    let seen = seen.lock().unwrap();
    // What else runs on this computer may have raised it too; 93 MiB of 128 are Medium at least, 124 Critical.
    assert!(seen.contains(&MemoryPressureLevel::Critical), "{seen:?}");
    assert!(seen.last() < Some(&MemoryPressureLevel::Critical), "{seen:?}");
}

#[test]
fn idle_memory_goes_back_without_being_asked() {
    let idle_cleanup_interval = Duration::from_millis(20);
    for period in [None, Some(Duration::from_millis(20))] {
        let cleanup_config = Some(CleanupConfig { idle_cleanup_interval, ..Default::default() });
        let config = MemoryPoolConfig { cleanup_config, ..config(TrackingLevel::Basic) };
        let tuning = PoolTuning { cleanup_period: period, ..Default::default() };
        let pool = HybridMemoryPool::with_tuning(config, tuning).unwrap();
        drop(pool.allocate_bytes(3 << 20));
        assert!(detailed(&pool).held_bytes >= 3 << 20);
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(20));
            if period.is_none() {
                drop(pool.allocate_bytes(9 << 20)); // a use of the pool; a mapping of its own
            }
            if detailed(&pool).arenas == 0 {
                break;
            }
        }
        assert_eq!(detailed(&pool).arenas, 0, "{period:?}");
    }
}

#[test]
fn pressure_detection_and_automatic_cleanup_can_be_off() {
    let tracking_config = Some(TrackingConfig { enable_pressure_detection: false, ..Default::default() });
    let config = MemoryPoolConfig {
        max_large_pool_size: 16 << 20,
        tracking_config,
        enable_automatic_cleanup: false,
        ..config(TrackingLevel::Basic)
    };
    let pool = HybridMemoryPool::with_config(config).unwrap();
    pool.register_pressure_callback(Box::new(|level| panic!("told of {level:?}")));
    drop(pool.allocate_bytes(3 << 20).unwrap());
    let _most = pool.allocate_bytes(12 << 20).unwrap();
    let told = detailed(&pool);
    assert_eq!((told.pressure_level, told.held_bytes), (MemoryPressureLevel::Low, 15 << 20));
}

#[test]
fn a_cleanup_under_pressure_obeys_its_threshold_and_leaves_free_pages_without_compaction() {
    // 2 MiB used and 6 MiB free in one region of 8 MiB; then 4 of 32 MiB more are used.
    let held = |threshold, enable_compaction| {
        let cleanup_config =
            Some(CleanupConfig { pressure_cleanup_threshold: threshold, enable_compaction, ..Default::default() });
        let config = MemoryPoolConfig {
            initial_large_pool_size: 8 << 20,
            max_large_pool_size: 32 << 20,
            cleanup_config,
            tracking_config: Some(TrackingConfig { enable_pressure_detection: false, ..Default::default() }),
            ..config(TrackingLevel::Basic)
        };
        let pool = HybridMemoryPool::with_config(config).unwrap();
        let _kept = pool.allocate_bytes(2 << 20).unwrap();
        drop([2 << 20, 4 << 20].map(|len| pool.allocate_bytes(len).unwrap()));
        let _more = pool.allocate_bytes(20 << 20).unwrap();
        detailed(&pool).held_bytes
    };
    assert_eq!(held(0.99, true), 28 << 20, "below the threshold nothing goes back");
    assert_eq!(held(0.6, true), 22 << 20);
    assert_eq!(held(0.6, false), 28 << 20);
}

#[test]
fn an_automatic_cleanup_stops_after_its_time() {
    // Memory of a device that tells no pressure: only the pool's own use causes a cleanup.
    let given_back = |max_cleanup_time| {
        let cleanup_config = Some(CleanupConfig {
            idle_cleanup_interval: Duration::MAX,
            pressure_cleanup_threshold: 0.6,
            max_cleanup_time,
            ..Default::default()
        });
        let config =
            MemoryPoolConfig { max_large_pool_size: 128 << 20, cleanup_config, ..config(TrackingLevel::Basic) };
        let far = Arc::new(FarMemory { most: 1 << 30, next: AtomicUsize::new(1 << 50), ..Default::default() });
        let raw: Arc<dyn RawMemory> = far.clone();
        let pool = HybridMemoryPool::with_config(config).unwrap().for_memory(&raw);
        drop([(); 3].map(|()| pool.allocate_bytes(9 << 20).unwrap()));
        let _most = pool.allocate_bytes(80 << 20).unwrap();
        let told = pool.cleanup_metrics();
        assert!(told.longest == told.time && told.time > Duration::ZERO, "one cleanup: {told:?}");
        (4 - far.regions.lock().unwrap().len(), told.cleanups, told.stopped, told.bytes >> 20)
    };
    assert_eq!(given_back(Duration::ZERO), (1, 1, 1, 9), "a region at least");
    assert_eq!(given_back(Duration::MAX), (3, 1, 0, 27));
}

#[test]
fn a_thread_returns_its_cache_when_it_ends() {
    let pool = pool(TrackingLevel::Basic);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|i| drop(pool.allocate_bytes(i * 100)))).join().unwrap();
    });
    let before = pool.get_metrics();
    assert_eq!((before.total_allocated, before.allocations), (0, 50));
    pool.compact();
    assert_eq!(detailed(&pool).used_bytes, 0);
    // A block that outlives its pool's last name keeps the pool.
    let mut last = pool.allocate_bytes(77).unwrap();
    drop(pool);
    last.bytes_mut().fill(1);
}

/// Device memory that the host cannot access: its addresses are meaningless in this process.
#[derive(Debug, Default)]
struct FarMemory {
    next: AtomicUsize,
    regions: Mutex<Vec<(usize, usize)>>,
    most: usize,
}

impl RawMemory for FarMemory {
    fn name(&self) -> String {
        "far".into()
    }

    fn reserve(&self, len: usize, align: usize) -> std::io::Result<usize> {
        let mut regions = self.regions.lock().unwrap();
        if regions.iter().map(|&(_, len)| len).sum::<usize>() + len > self.most {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        let address = self.next.fetch_add(len + align, SeqCst).next_multiple_of(align);
        regions.push((address, len));
        Ok(address)
    }

    fn release(&self, address: usize, len: usize) {
        let mut regions = self.regions.lock().unwrap();
        let known = regions.iter().position(|&region| region == (address, len)).expect("a whole region");
        regions.remove(known);
    }
}

#[test]
fn another_device_has_a_pool_of_its_own() {
    let host = pool(TrackingLevel::Basic);
    let far = Arc::new(FarMemory { most: 32 << 20, next: AtomicUsize::new(1 << 50), ..Default::default() });
    let raw: Arc<dyn RawMemory> = far.clone();
    let pool = host.for_memory(&raw);
    let (mut random, mut blocks) = (Random(3), Vec::new());
    let full = loop {
        match pool.allocate_bytes(random.size(4, 21)) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert!(full.to_string().starts_with("far: out of memory"), "{full}");
    blocks.sort_by_key(|block| block.address());
    assert!(blocks.windows(2).all(|pair| pair[0].address() + pair[0].len() <= pair[1].address()), "disjoint");
    let inside = |block: &MemoryHandle| {
        let holds = |&(at, len): &(usize, usize)| at <= block.address() && block.address() + block.len() <= at + len;
        far.regions.lock().unwrap().iter().any(holds)
    };
    assert!(blocks.iter().all(inside));
    let held: usize = blocks.iter().map(MemoryHandle::len).sum();
    assert!(held > 20 << 20, "{held} bytes of 32 MiB");
    assert_eq!(host.get_metrics().allocations, 0);
    let same = host.for_memory(&raw).get_metrics();
    assert_eq!((same.total_allocated, same.allocations), (pool.get_metrics().total_allocated, blocks.len()));
    blocks.clear();
    pool.compact();
    assert!(far.regions.lock().unwrap().is_empty(), "everything was given back");
}

#[test]
#[should_panic(expected = "another device's memory")]
fn memory_of_another_device_has_no_bytes() {
    let raw: Arc<dyn RawMemory> = Arc::new(FarMemory { most: 32 << 20, ..Default::default() });
    pool(TrackingLevel::Basic).for_memory(&raw).allocate_bytes(10).unwrap().bytes();
}
