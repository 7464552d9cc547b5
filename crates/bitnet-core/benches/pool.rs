//! The pool compared with the system allocator and mimalloc in one run: `cargo bench -p bitnet-core --bench pool`.

use bitnet_core::*;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Allocates and frees a block.
type Pair<'a> = &'a (dyn Fn(usize) + Sync);

fn pair(allocator: &impl GlobalAlloc, len: usize) {
    let layout = Layout::from_size_align(len, 64).unwrap();
    // SAFETY: the layout has a size, and what was allocated with it is freed with it.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        assert!(!block.is_null());
        allocator.dealloc(block, layout);
    }
}

/// The allocators to compare.
fn allocators(run: &mut dyn FnMut(&str, Pair)) {
    let (global, own) = (HybridMemoryPool::global(), HybridMemoryPool::new().unwrap());
    run("pool", &|len| drop(black_box(global.allocate_bytes(len).unwrap())));
    run("separate pool", &|len| drop(black_box(own.allocate_bytes(len).unwrap())));
    run("system", &|len| pair(&System, len));
    run("mimalloc", &|len| pair(&mimalloc::MiMalloc, len));
}

/// Time for `threads` concurrent threads to do `pairs` allocate/free pairs each.
fn contended(pair: Pair, len: usize, threads: usize, pairs: u64) -> Duration {
    let barrier = std::sync::Barrier::new(threads);
    let run = || {
        (0..64).for_each(|_| pair(len));
        barrier.wait();
        let start = Instant::now();
        (0..pairs).for_each(|_| pair(len));
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

fn pairs(c: &mut Criterion) {
    for len in [1 << 10, 64 << 10, 1 << 20, 4 << 20] {
        for threads in [1, 2] {
            let mut group = c.benchmark_group(format!("pair of {} KiB, {threads} threads", len >> 10));
            allocators(&mut |name, pair| {
                group.bench_function(name, |b| match threads {
                    1 => b.iter(|| pair(black_box(len))),
                    _ => b.iter_custom(|pairs| contended(pair, len, threads, pairs)),
                });
            });
        }
    }
}

fn tensors(c: &mut Criterion) {
    let mut group = c.benchmark_group("a tensor of 128 x 128 f32, uninitialised, and its end");
    let device = Device::cpu();
    let empty = || BitNetTensor::empty(&[128, 128], BitNetDType::F32, &device).unwrap();
    group.bench_function("BitNetTensor::empty", |b| b.iter(empty));
    group.bench_function("its storage alone", |b| {
        b.iter(|| CpuStorage::allocate(HybridMemoryPool::global(), 128 * 128 * 4).unwrap())
    });
}

/// `out = x + 1` for 40 MB, where `out` is new each time against `x` itself.
fn large(c: &mut Criterion) {
    let add = |x: &[f32], out: &mut [f32]| out.iter_mut().zip(x).for_each(|(out, x)| *out = x + 1.0);
    let mut x = vec![1f32; 10_000_000];
    let mut group = c.benchmark_group("adding to 40 MB");
    group.sample_size(30);
    group.bench_function("in place", |b| b.iter(|| x.iter_mut().for_each(|x| *x += 1.0)));
    let mut out = vec![0f32; x.len()];
    group.bench_function("to an output that stays", |b| b.iter(|| add(&x, &mut out)));
    group.bench_function("allocating, pool", |b| {
        b.iter(|| {
            let mut out = CpuStorage::allocate(HybridMemoryPool::global(), x.len() * 4).unwrap();
            add(&x, out.elements_mut().unwrap());
            out
        })
    });
    vectors(&mut group, "allocating, system", &x, &System);
    vectors(&mut group, "allocating, mimalloc", &x, &mimalloc::MiMalloc);
}

fn vectors(group: &mut BenchmarkGroup<WallTime>, name: &str, x: &[f32], allocator: &impl GlobalAlloc) {
    let layout = Layout::array::<f32>(x.len()).unwrap();
    group.bench_function(name, |b| {
        b.iter(|| {
            // SAFETY: the layout has a size; every element is written before it is read; freed as it was allocated.
            unsafe {
                let out = allocator.alloc(layout).cast::<f32>();
                x.iter().enumerate().for_each(|(i, x)| out.add(i).write(x + 1.0));
                allocator.dealloc(black_box(out).cast(), layout);
            }
        })
    });
}

/// Memory instead of time: bookkeeping and fragmentation for the blocks of a small transformer's training step, and
/// after a million random allocations.
fn figures(_: &mut Criterion) {
    let tracking = TrackingConfig { level: TrackingLevel::Standard, ..Default::default() };
    let config =
        MemoryPoolConfig { enable_advanced_tracking: true, tracking_config: Some(tracking), ..Default::default() };
    let percent = |part: usize, whole: usize| part as f64 / whole as f64 * 100.0;

    // A decoder of 8 layers, width 512, feed-forward 1408, 16 x 64 tokens, vocabulary 4096: weights, gradients, two
    // moments, and the activations that the backward pass keeps; scalars and norms as small blocks.
    let (layers, width, hidden, tokens, vocabulary) = (8, 512, 1408, 1024, 4096);
    let weights = [vec![width * width; 4], vec![width * hidden; 3], vec![width; 2]].concat();
    let activations =
        [vec![tokens * width; 9], vec![tokens * hidden; 3], vec![16 * 8 * 64 * 64; 2], vec![tokens; 4]].concat();
    let mut sizes: Vec<usize> = vec![vocabulary * width; 4];
    for _ in 0..layers {
        sizes.extend(weights.iter().flat_map(|&n| [n; 4]));
        sizes.extend(&activations);
        sizes.extend([1; 16]);
    }
    let pool = HybridMemoryPool::with_config(config).unwrap();
    let step =
        |pool: &HybridMemoryPool| -> Vec<_> { sizes.iter().map(|n| pool.allocate_bytes(n * 4).unwrap()).collect() };
    drop(step(&pool));
    let first = pool.get_metrics();
    let blocks = step(&pool);
    let told = pool.get_detailed_metrics().unwrap();
    println!(
        "training step after the first: {} blocks, {} MB asked for, tables {:.3} % of it ({:.3} % with a handle each), fragmentation {:.2} %, {:.2} % \
         of allocations from the pool",
        blocks.len(),
        told.requested_bytes / 1_000_000,
        percent(told.metadata_bytes, told.requested_bytes),
        percent(told.metadata_bytes + blocks.len() * size_of::<MemoryHandle>(), told.requested_bytes),
        told.fragmentation_ratio * 100.0,
        percent(told.metrics.hits - first.hits, told.metrics.allocations - first.allocations),
    );
    drop(blocks);

    // Sizes of 256 bytes to 1 MiB, every doubling as often, freed in random order; 512 MiB live.
    let pool = HybridMemoryPool::with_config(config).unwrap();
    let mut seed = 1u64;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    let (mut blocks, mut bytes, mut time) = (Vec::new(), 0, Duration::ZERO);
    for _ in 0..1_000_000 {
        let base = 256 << below(12);
        let len = base + below(base);
        let start = Instant::now();
        blocks.push(pool.allocate_bytes(len).unwrap());
        time += start.elapsed();
        bytes += len;
        while bytes > 512 << 20 {
            bytes -= blocks.swap_remove(below(blocks.len())).len();
        }
    }
    let told = pool.get_detailed_metrics().unwrap();
    pool.compact();
    let rest = pool.get_detailed_metrics().unwrap();
    println!(
        "a million random allocations: {:.0} ns each, tables {:.3} %, fragmentation {:.2} %, {:.2} % of allocations from the \
         pool; {:.2} % of the memory held is warm; compacted, {:.2} % of it nobody asked for",
        time.as_nanos() as f64 / 1e6,
        percent(told.metadata_bytes, bytes),
        told.fragmentation_ratio * 100.0,
        percent(told.metrics.hits, told.metrics.allocations),
        percent(told.held_bytes - told.used_bytes, told.held_bytes),
        percent(rest.held_bytes - bytes, rest.held_bytes),
    );
}

/// What tracking adds to two allocating workloads: blocks of 64 KiB that are written once, and the products, sums and gates of
/// a small layer, 64 tokens of width 64 and 256. No tracking stands there twice: the second shows the noise.
fn tracking(_: &mut Criterion) {
    use TrackingLevel::*;
    let pools = [None, None, Basic, Standard, Detailed].map(|level| {
        let tracking_config = Some(TrackingConfig { level, ..Default::default() });
        let config = MemoryPoolConfig { enable_advanced_tracking: true, tracking_config, ..Default::default() };
        (level, HybridMemoryPool::with_config(config).unwrap())
    });
    let blocks = pools.each_ref().map(|(level, pool)| {
        let work = || {
            let mut block = pool.allocate_bytes(64 << 10).unwrap();
            block.bytes_mut().fill(black_box(1));
            black_box(block);
        };
        (*level, work)
    });
    added("blocks of 64 KiB, written", &blocks);
    let layers = pools.each_ref().map(|(level, pool)| {
        let device = Device::cpu_with_pool(pool, 1);
        let ones = |dims: &[usize]| BitNetTensor::ones(dims, BitNetDType::F32, &device).unwrap();
        let (x, up, down) = (ones(&[64, 64]), ones(&[64, 256]), ones(&[256, 64]));
        let work = move || {
            let hidden = x.matmul(&up).unwrap().relu().unwrap();
            drop(black_box(hidden.mul(&hidden).unwrap().matmul(&down).unwrap().add(&x).unwrap()));
        };
        (*level, work)
    });
    added("a layer of 5 tensors", &layers);
}

/// Prints the median of the ratios of each level's time to the first's, in rounds in which each begins in turn.
fn added<const N: usize>(what: &str, levels: &[(TrackingLevel, impl Fn()); N]) {
    let time = |work: &dyn Fn()| {
        let start = Instant::now();
        (0..20).for_each(|_| work());
        start.elapsed().as_secs_f64()
    };
    let mut ratios = [const { Vec::new() }; N];
    for round in 0..4000 {
        let mut times = [0.; N];
        (0..N).map(|i| (i + round) % N).for_each(|i| times[i] = time(&levels[i].1));
        ratios.iter_mut().zip(times).for_each(|(ratios, time)| ratios.push(time / times[0]));
    }
    for ((level, _), ratios) in levels.iter().zip(&mut ratios).skip(1) {
        ratios.sort_by(f64::total_cmp);
        println!("{what}: tracking {level:?} {:+.1} %", (ratios[ratios.len() / 2] - 1.) * 100.);
    }
}

criterion_group!(benches, figures, pairs, tensors, large, tracking);
criterion_main!(benches);
