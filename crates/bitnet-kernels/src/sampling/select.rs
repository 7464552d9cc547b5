//! Where a cut falls: the first candidates by key whose values together reach a sum, found by a histogram of the keys, then
//! by one of the bucket in which the sum is reached, until few are left to sort.

use crate::Isa;
use crate::float::simd::inlined;
use crate::isa::wide;

/// A weight of 1 is 2^-UNIT.
pub(super) const UNIT: u32 = 30;

/// The last candidate that is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    pub key: f32,
    pub index: usize,
}

/// Candidates that are sorted rather than divided.
const FEW: usize = 1024;
/// Buckets of a histogram; one more takes what is in none.
const BUCKETS: u32 = 1024;
/// Keys whose buckets are computed before they are counted.
const BLOCK: usize = 256;

/// Sums of the buckets, in two lanes so that a sum does not wait for the one before; as long as an index of 11 bits.
type Histogram = [[u64; 2048]; 2];

#[derive(Debug, Clone)]
pub(super) struct Scratch {
    histogram: Box<Histogram>,
    found: Vec<(f32, u32)>,
    near: Near,
}

/// The candidates around a cut, in their order.
#[derive(Debug, Clone, Default)]
struct Near {
    keys: Vec<f32>,
    weights: Vec<u32>,
    places: Vec<u32>,
}

/// Of so many candidates one is looked at to guess where a cut falls; a prime, so that no regular pattern meets it.
const STRIDE: usize = 17;
/// How far the guess may be wrong, as a part of the sum.
const MARGIN: f64 = 0.02;
/// Of so many candidates one may be near the cut.
const NEAR: usize = 8;

/// Buckets of equal width between two keys, the highest key in the first.
#[derive(Clone, Copy)]
struct Buckets {
    high: f32,
    low: f32,
    /// In two factors, as a narrow range has no finite quotient.
    scale: [f32; 2],
}

impl Buckets {
    fn new(high: f32, low: f32) -> Self {
        let wide = if high - low < 1e-30 { 2f32.powi(100) } else { 1.0 };
        Self { high, low, scale: [wide, (BUCKETS - 1) as f32 / ((high - low) * wide)] }
    }

    /// The bucket of a key; [`BUCKETS`] for one outside.
    #[inline(always)]
    fn of(&self, key: f32) -> u32 {
        let place = (self.high - key) * self.scale[0] * self.scale[1];
        let place = if (key >= self.low) & (key <= self.high) { place } else { BUCKETS as f32 };
        // Adding 2^23 rounds to an integer, which the lowest bits of the sum hold.
        (place + 8_388_608.0).to_bits() & 2047
    }
}

impl Scratch {
    pub fn new(vocab: usize) -> Self {
        let room = vocab / NEAR;
        let near = Near {
            keys: Vec::with_capacity(room),
            weights: Vec::with_capacity(room),
            places: Vec::with_capacity(room),
        };
        Self { histogram: Box::new([[0; 2048]; 2]), found: Vec::with_capacity(FEW), near }
    }

    /// The candidate at which the values of the first by key (where equal, by place) reach `need`. A key of minus infinity
    /// is no candidate. `need` is above 0 and at most `total`, the sum of the values.
    pub fn cut(
        &mut self,
        isa: Isa,
        keys: &[f32],
        weights: &[u32],
        [need, total]: [u64; 2],
        value: impl Fn(u32) -> u64 + Copy,
    ) -> Cut {
        wide(
            isa,
            inlined!(|| match self.near(keys, weights, [need, total], value) {
                Some(need) => {
                    let near = std::mem::take(&mut self.near);
                    let cut = self.search(&near.keys, &near.weights, need, value);
                    self.near = near;
                    Cut { index: self.near.places[cut.index] as usize, ..cut }
                }
                None => self.search(keys, weights, need, value),
            }),
        )
    }

    /// Guesses from a sample of many candidates of similar weights where the cut falls, and collects those around it in
    /// [`Scratch::near`]; gives the sum that they are to reach. `None` where the guess was wrong or there are too many.
    #[inline(always)]
    fn near(
        &mut self,
        keys: &[f32],
        weights: &[u32],
        [need, total]: [u64; 2],
        value: impl Fn(u32) -> u64 + Copy,
    ) -> Option<u64> {
        if keys.len() < FEW * STRIDE {
            return None;
        }
        let sample = || keys.iter().zip(weights).step_by(STRIDE).map(|(&key, &weight)| (key, value(weight)));
        let (mut sampled, mut largest) = (0, 0);
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for (key, value) in sample().filter(|(key, _)| *key > f32::NEG_INFINITY) {
            (sampled, largest) = (sampled + value, largest.max(value));
            (low, high) = (low.min(key), high.max(key));
        }
        // A few large ones are not known from a sample.
        if sampled == 0 || sampled / 256 < largest {
            return None;
        }
        // Between which keys the sum of the sample passes what is surely before, and surely after the cut; in two rounds, as
        // most may lie in few buckets.
        let part = |shift: f64| ((need as f64 / total as f64 + shift) * sampled as f64) as u64;
        let mut above = 0;
        for _ in 0..2 {
            let buckets = Buckets::new(high, low);
            self.clear();
            sample().for_each(|(key, value)| self.histogram[0][buckets.of(key) as usize & 2047] += value);
            let (mut first, mut last, mut sum, mut before) = (0, 0, above, above);
            for (bucket, value) in self.histogram[0][..BUCKETS as usize].iter().enumerate() {
                if sum < part(-MARGIN) {
                    (first, before) = (bucket as u32, sum);
                }
                if sum <= part(MARGIN) {
                    last = bucket as u32;
                }
                sum += value;
            }
            let inside = |key| (first..=last).contains(&buckets.of(key));
            (low, high) = (f32::INFINITY, f32::NEG_INFINITY);
            for (key, _) in sample().filter(|(key, _)| inside(*key)) {
                (low, high) = (low.min(key), high.max(key));
            }
            above = before;
        }
        let Near { keys: near, weights: near_weights, places } = &mut self.near;
        near.clear();
        near_weights.clear();
        places.clear();
        let room = places.capacity();
        let (mut before, mut inside) = (0, 0);
        for (block, (keys, weights)) in keys.chunks(16).zip(weights.chunks(16)).enumerate() {
            let mut found = 0u32;
            for (i, (&key, &weight)) in keys.iter().zip(weights).enumerate() {
                before += if key > high { value(weight) } else { 0 };
                found |= u32::from((key >= low) & (key <= high)) << i;
            }
            while found != 0 {
                let i = found.trailing_zeros() as usize;
                found &= found - 1;
                if places.len() == room {
                    return None;
                }
                near.push(keys[i]);
                near_weights.push(weights[i]);
                places.push((block * 16 + i) as u32);
                inside += value(weights[i]);
            }
        }
        (need > before && need <= before + inside).then(|| need - before)
    }

    fn clear(&mut self) {
        for lane in &mut *self.histogram {
            lane[..=BUCKETS as usize].fill(0);
        }
    }

    #[inline(always)]
    fn search(&mut self, keys: &[f32], weights: &[u32], mut need: u64, value: impl Fn(u32) -> u64 + Copy) -> Cut {
        let (mut low, mut high) = range(keys, |key| key > f32::NEG_INFINITY);
        if keys.len() <= FEW {
            self.found.clear();
            self.found.extend((0..keys.len()).filter(|&i| keys[i] >= low).map(|i| (keys[i], i as u32)));
            return self.sorted(weights, need, value);
        }
        while low < high {
            let buckets = Buckets::new(high, low);
            self.count(&buckets, keys, weights, value);
            let mut bucket = 0;
            loop {
                let sum = self.histogram[0][bucket] + self.histogram[1][bucket];
                if sum >= need {
                    break;
                }
                need -= sum;
                bucket += 1;
            }
            if self.gather(&buckets, bucket as u32, keys) {
                return self.sorted(weights, need, value);
            }
            (low, high) = range(keys, |key| buckets.of(key) == bucket as u32);
        }
        // All that are left are equal.
        for (index, (&key, &weight)) in keys.iter().zip(weights).enumerate() {
            if key == high {
                if value(weight) >= need {
                    return Cut { key, index };
                }
                need -= value(weight);
            }
        }
        unreachable!("the values of the bucket reach the sum")
    }

    #[inline(always)]
    fn count(&mut self, buckets: &Buckets, keys: &[f32], weights: &[u32], value: impl Fn(u32) -> u64) {
        self.clear();
        let [even, odd] = &mut *self.histogram;
        let mut places = [0; BLOCK];
        for (keys, weights) in keys.chunks(BLOCK).zip(weights.chunks(BLOCK)) {
            places.iter_mut().zip(keys).for_each(|(place, &key)| *place = buckets.of(key));
            let (pairs, rest) = places[..keys.len()].as_chunks::<2>();
            let (weight_pairs, weights_rest) = weights.as_chunks::<2>();
            for (&[a, b], &[v, w]) in pairs.iter().zip(weight_pairs) {
                even[a as usize & 2047] += value(v);
                odd[b as usize & 2047] += value(w);
            }
            for (&a, &v) in rest.iter().zip(weights_rest) {
                even[a as usize & 2047] += value(v);
            }
        }
    }

    /// Collects the candidates of a bucket; `false` if they are not few.
    #[inline(always)]
    fn gather(&mut self, buckets: &Buckets, bucket: u32, keys: &[f32]) -> bool {
        self.found.clear();
        for (block, keys) in keys.chunks(64).enumerate() {
            if keys.iter().fold(0, |any, &key| any | u32::from(buckets.of(key) == bucket)) == 0 {
                continue;
            }
            for (index, &key) in keys.iter().enumerate().filter(|(_, key)| buckets.of(**key) == bucket) {
                if self.found.len() == FEW {
                    return false;
                }
                self.found.push((key, (block * 64 + index) as u32));
            }
        }
        true
    }

    fn sorted(&mut self, weights: &[u32], mut need: u64, value: impl Fn(u32) -> u64) -> Cut {
        self.found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(key, index) in &self.found {
            let value = value(weights[index as usize]);
            if value >= need {
                return Cut { key, index: index as usize };
            }
            need -= value;
        }
        unreachable!("the values of the bucket reach the sum")
    }
}

/// The least and the largest of the keys that are inside.
#[inline(always)]
fn range(keys: &[f32], inside: impl Fn(f32) -> bool) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    let mut widen = |lane: usize, key: f32| {
        let (least, most) = if inside(key) { (key, key) } else { (f32::INFINITY, f32::NEG_INFINITY) };
        low[lane] = if least < low[lane] { least } else { low[lane] };
        high[lane] = if most > high[lane] { most } else { high[lane] };
    };
    let (chunks, rest) = keys.as_chunks::<16>();
    for chunk in chunks {
        (0..16).for_each(|lane| widen(lane, chunk[lane]));
    }
    rest.iter().for_each(|&key| widen(0, key));
    (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}
